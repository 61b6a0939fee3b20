"""Whether a candidate goes farther from the reference than the reference nudged by one ulp.

Were the candidate's rounding no worse than such nudges, it would be one more draw of nine, and its
rank among them in a run any of 1 to 9 with equal chance. A candidate that goes farther has high
ranks in many runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.runs.reports import Distances
from pgcore.errors import UsageError, require

NEAREST = 2.0**-60
"""Less than an ulp of float64: what is nearer counts as this near."""
LEVEL = 0.01
"""The chance of calling a candidate worse that is not, in one test."""


class RankTest(NamedTuple):
    """The candidate's rank in each run, 1 the nearest, and the chance of a sum as high."""

    ranks: tuple[float, ...]
    num_draws: int
    p_value: float

    @property
    def ok(self) -> bool:
        """Whether the candidate goes no farther than a nudge does."""
        return self.p_value >= LEVEL

    def __str__(self) -> str:
        middle = 1 + self.num_draws / 2
        return (
            f"mean rank {np.mean(self.ranks):.2f} of {self.num_draws + 1} over {len(self.ranks)} "
            f"runs, {middle:.2f} expected; p = {self.p_value:.3g}"
        )


def rank_test(runs: Sequence[Distances], updates: int | None = None) -> RankTest:
    """Ranks the candidate among the nudged references in each run, by the mean log distance.

    p is the chance that the ranks' sum is as large or larger if every rank is equally likely. (Ties
    count as the middle of the places they share.)

    Args:
        runs: Of mode `"free"`, from different seeds.
        updates: How many updates from the first are looked at; by default all.

    Raises:
        UsageError: There is no run, or one without a candidate.
    """
    require(len(runs) > 0, "runs", len(runs), "at least 1")
    shapes = {run.nudged.shape[0] for run in runs}
    require(len(shapes) == 1, "draws of the runs", sorted(shapes), "as many in each")
    shortest = min(run.nudged.shape[1] for run in runs)
    fits = updates is None or 1 <= updates <= shortest
    require(fits, "updates", updates, f"None or an integer from 1 to {shortest}")
    ranks = []
    for run in runs:
        if run.candidate is None:
            raise UsageError("a run has no candidate, accepted are runs of mode 'free'")
        own, *others = (_how_far(distances[:updates]) for distances in (run.candidate, *run.nudged))
        ranks.append(1 + sum(own > other for other in others) + sum(own == o for o in others) / 2)
    num_draws = len(runs[0].nudged)
    return RankTest(tuple(ranks), num_draws, _at_least(sum(ranks), len(ranks), num_draws + 1))


def _how_far(distances: np.ndarray) -> float:
    """The mean of the logarithms, in which an update without any distance must not outweigh all."""
    known = np.where(np.isnan(distances), np.inf, distances)
    return float(np.mean(np.log(np.maximum(known, NEAREST))))


def _at_least(total: float, num_runs: int, num_places: int) -> float:
    """P(the sum of so many places from 1 to `num_places`, equally likely, is at least `total`)."""
    chances = np.ones(1)
    for _ in range(num_runs):
        chances = np.convolve(chances, np.full(num_places, 1 / num_places))
    sums = num_runs + np.arange(len(chances))
    return float(min(1.0, chances[sums >= total].sum()))
