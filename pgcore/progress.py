"""Progress of a training run: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from contextlib import AbstractContextManager
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pgcore.metrics import Row

SECONDS_BETWEEN_LINES = 2.0


def describe(row: Row) -> str:
    """A row in words."""
    return (
        f"{row.episodes:,} episodes  {row.env_steps:,} steps  "
        f"{row.steps_per_second:,.0f} steps/s  "
        f"mean return of the last 100 episodes {row.mean_return_100:.1f}"
    )


class PlainProgress(AbstractContextManager):
    """Prints a line when the run begins, about every two seconds, and when it ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._printed_at = 0.0
        self._row: Row | None = None
        self._row_is_printed = True

    def update(self, row: Row) -> None:
        """Takes note of `row` and prints it if it is time to."""
        self._row, self._row_is_printed = row, False
        if time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._print(row)

    def __exit__(self, *_: object) -> None:
        if self._row is not None and not self._row_is_printed:
            self._print(self._row)

    def _print(self, row: Row) -> None:
        print(describe(row), file=self._stream, flush=True)
        self._printed_at, self._row_is_printed = time.monotonic(), True


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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def update(self, row: Row) -> None:
        """Shows `row`, in words short enough for 80 columns."""
        text = (
            f"{row.episodes:,} episodes · {row.env_steps:,} steps · "
            f"{row.steps_per_second:,.0f}/s · last 100: {row.mean_return_100:.1f}"
        )
        self._progress.update(self._task, completed=row.env_steps, description=text)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def progress(
    total_timesteps: int, stream: TextIO | None = None
) -> PlainProgress | TerminalProgress:
    """The progress that suits `stream` (standard error by default)."""
    shown_on = stream or sys.stderr
    if shown_on.isatty():
        return TerminalProgress(shown_on, total_timesteps)
    return PlainProgress(shown_on)
