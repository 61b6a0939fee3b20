"""Progress of a training run: a live line on a terminal, plain lines elsewhere."""

import statistics
import sys
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import NamedTuple, Self, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pgcore.commands.process import Unbroken
from pgcore.runs.metrics import Row

SECONDS_BETWEEN_LINES = 2.0
SECONDS_BETWEEN_REFRESHES = 0.1


class Status(NamedTuple):
    """How far a run is."""

    completed: int
    """Environment steps of its budget."""
    text: str
    short: str
    """The same within 60 columns."""


def describe(row: Row) -> Status:
    """One run, by its last row."""
    return Status(
        row.env_steps,
        f"{row.episodes:,} episodes  {row.env_steps:,} steps  "
        f"{row.steps_per_second:,.0f} steps/s  "
        f"mean return of the last 100 episodes {row.mean_return_100:.1f}",
        f"{row.episodes:,} episodes · {row.env_steps:,} steps · "
        f"{row.steps_per_second:,.0f}/s · last 100: {row.mean_return_100:.1f}",
    )


def describe_seeds(rows: Collection[Row], num_ended: int, num_seeds: int, seconds: float) -> Status:
    """Many seeds, by the last row of each that has begun, `seconds` after the first began."""
    env_steps = sum(row.env_steps for row in rows)
    per_second = env_steps / seconds
    median = statistics.median(row.mean_return_100 for row in rows)
    return Status(
        env_steps,
        f"{num_ended} of {num_seeds} seeds ended  {env_steps:,} steps  {per_second:,.0f} steps/s  "
        f"mean return of the last 100 episodes {median:.1f} (median seed)",
        f"{num_ended}/{num_seeds} seeds · {env_steps:,} steps · {per_second:,.0f}/s · "
        f"last 100: {median:.1f}",
    )


class PlainProgress(AbstractContextManager):
    """Prints a line when the run begins, about every two seconds, and when it ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._printed_at = 0.0
        self._unprinted: Callable[[], Status] | None = None

    def update(self, status: Callable[[], Status]) -> None:
        """Takes note of where the run is and prints it if it is time to."""
        self._unprinted = status
        if time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._print(status)

    def __exit__(self, *_: object) -> None:
        if self._unprinted is not None:
            self._print(self._unprinted)

    def _print(self, status: Callable[[], Status]) -> None:
        print(status().text, file=self._stream)
        self._printed_at, self._unprinted = time.monotonic(), None


class TerminalProgress(AbstractContextManager):
    """A bar of the spent budget of environment steps, with the run's figures beside it."""

    def __init__(self, stream: TextIO, total_timesteps: int) -> None:
        self._progress = Progress(
            BarColumn(bar_width=10),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(file=stream),
        )
        self._task = self._progress.add_task("starting", total=total_timesteps)
        self._shown_at = 0.0
        self._last: Callable[[], Status] | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def update(self, status: Callable[[], Status]) -> None:
        """Takes note of where the run is and shows it if it is time to."""
        self._last = status
        if time.monotonic() - self._shown_at >= SECONDS_BETWEEN_REFRESHES:
            self._show(status())

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            self._show(self._last())
        self._progress.stop()

    def _show(self, status: Status) -> None:
        self._progress.update(self._task, completed=status.completed, description=status.short)
        self._shown_at = time.monotonic()


def progress(
    total_timesteps: int, stream: TextIO | None = None
) -> PlainProgress | TerminalProgress:
    """The progress that suits `stream` (standard error by default).

    When the stream goes away the run goes on without.
    """
    shown_on = cast(TextIO, Unbroken(stream or sys.stderr))
    if shown_on.isatty():
        return TerminalProgress(shown_on, total_timesteps)
    return PlainProgress(shown_on)
