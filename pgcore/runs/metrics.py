"""The record of a training run: one row an update, and when it was solved."""

import csv
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import BinaryIO, NamedTuple

LONGEST_LINE = 65_536
"""Bytes of a line of a table. Ours have some 150."""


class Row(NamedTuple):
    """What is known after one update. Environment steps are unmasked steps everywhere."""

    update: int
    """Updates done, this one included."""
    env_steps: int
    """Environment steps trained on so far."""
    episodes: int
    """Episodes trained on so far."""
    seconds: float
    """Since the run began, evaluations and compilation included."""
    mean_return: float
    """Mean undiscounted return of this update's episodes."""
    mean_return_100: float
    """Mean undiscounted return of the last 100 training episodes, or of all if fewer."""
    loss: float
    entropy: float
    """Mean entropy of the policy over this update's steps, in nats."""
    grad_norm: float
    """Global norm of the gradient, before clipping."""
    best_evaluation: float
    """Mean return of the kept policy over its evaluation episodes."""

    @property
    def steps_per_second(self) -> float:
        """Environment steps trained on a second, over the whole run so far."""
        return self.env_steps / self.seconds


class SolvedAt(NamedTuple):
    """What it took to solve the environment."""

    env_steps: int
    episodes: int
    updates: int
    seconds: float
    """Evaluations and compilation included."""


CSV_COLUMNS: dict[str, str] = {
    "update": "charts/update",
    "env_steps": "global_step",
    "episodes": "charts/episodes",
    "seconds": "charts/seconds",
    "steps_per_second": "charts/SPS",
    "mean_return": "charts/episodic_return",
    "mean_return_100": "charts/episodic_return_100",
    "loss": "losses/policy_loss",
    "entropy": "losses/entropy",
    "grad_norm": "losses/grad_norm",
    "best_evaluation": "eval/episodic_return",
}
"""`Row`'s attributes and their columns in metrics.csv, named as CleanRL names them."""


def lines_of(file: BinaryIO) -> Iterator[str]:
    """The lines of a text file, without their ends, one at a time.

    A last one without its line end is left out: a process that was killed can leave half of one.

    Raises:
        ValueError: One is longer than any of ours, or no text.
    """
    while line := file.readline(LONGEST_LINE):
        if line.endswith(b"\n"):
            yield line.decode().rstrip("\r\n")
        elif len(line) == LONGEST_LINE:
            raise ValueError(f"it has a line of more than {LONGEST_LINE:,} bytes")


def parse_rows(text: str | Iterable[str]) -> list[Row]:
    """The rows of a metrics.csv, given whole or as its lines.

    Columns that `Row` lacks are passed over. So is a last line without its line end: a process
    that was killed can leave half of one.

    Raises:
        ValueError: A column or a value is missing, a value is no number, or the environment steps
            do not rise from row to row. It says in which line.
    """
    lines = lines_of(BytesIO(text.encode())) if isinstance(text, str) else text
    records = csv.reader(lines)
    if (header := next(records, None)) is None:
        return []
    missing = [CSV_COLUMNS[name] for name in Row._fields if CSV_COLUMNS[name] not in header]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")
    rows: list[Row] = []
    for number, record in enumerate(records, start=2):
        try:
            rows.append(_parse_row(header, record))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if len(rows) > 1 and rows[-1].env_steps <= rows[-2].env_steps:
            raise ValueError(f"line {number}: {CSV_COLUMNS['env_steps']} does not rise")
    return rows


def _parse_row(header: list[str], record: list[str]) -> Row:
    if len(record) != len(header):
        raise ValueError(f"it has {len(record)} values, and the header {len(header)}")
    cells = dict(zip(header, record, strict=True))
    types = Row.__annotations__  # int or float
    return Row(*(types[name](cells[CSV_COLUMNS[name]]) for name in Row._fields))
