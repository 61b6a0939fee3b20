"""What the runs of each peer came to, and the table of it."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks import results
from benchmarks.peers_code.runs import PEERS, Measured

HEADER = (
    "",
    "solved",
    "seconds, whole process: median (min to max)",
    "environment steps",
    "steps/s of training",
)


class Summary(NamedTuple):
    """A peer's runs. Seconds are those to solve it, infinite where it was not solved."""

    words: str
    runs: int
    solved: int
    stopped: int
    """Unsolved when the limit of seconds was reached; the others' budget of steps was spent."""
    median: float
    fastest: float
    slowest: float
    env_steps: float | None
    """Median of the solved."""
    steps_per_second: float | None
    """Median of all of which it is known."""


def summaries(runs: Sequence[Measured]) -> list[Summary]:
    """A summary for each peer that has runs, in the order of `PEERS`."""
    found = []
    for peer in PEERS:
        own = [run for run in runs if run.peer == peer.name]
        if not own:
            continue
        seconds = sorted(run.seconds if run.solved else math.inf for run in own)
        steps = [run.env_steps for run in own if run.solved and run.env_steps is not None]
        rates = [run.steps_per_second for run in own if run.steps_per_second is not None]
        found.append(
            Summary(
                peer.words,
                len(own),
                sum(run.solved for run in own),
                sum(run.stopped for run in own),
                statistics.median(seconds),
                seconds[0],
                seconds[-1],
                statistics.median(steps) if steps else None,
                statistics.median(rates) if rates else None,
            )
        )
    return found


def table(runs: Sequence[Measured], limit: float) -> str:
    """A line for each peer."""
    return results.table(HEADER, [_cells(each, limit) for each in summaries(runs)])


def seconds_in_words(each: Summary, limit: float) -> str:
    """Median, fastest and slowest, or that it was not solved."""
    if not each.solved:
        return f"not solved in {limit:g} s" if each.stopped == each.runs else "not solved"
    spread = f"({_seconds(each.fastest)} to {_seconds(each.slowest)})"
    return f"{_seconds(each.median)} {spread}" if each.runs > 1 else _seconds(each.median)


def _cells(each: Summary, limit: float) -> tuple[str, ...]:
    stopped = f" ({each.stopped} not in {limit:g} s)" if each.stopped else ""
    return (
        each.words,
        f"{each.solved} of {each.runs}{stopped}",
        seconds_in_words(each, limit),
        "" if each.env_steps is None else f"{each.env_steps:,.0f}",
        "" if each.steps_per_second is None else f"{float(f'{each.steps_per_second:.3g}'):,.0f}",
    )


def _seconds(seconds: float) -> str:
    return "not solved" if math.isinf(seconds) else f"{seconds:.1f}"
