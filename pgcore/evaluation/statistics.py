"""What several seeds, or several episodes, say together: a robust mean and how far to trust it.

Both are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (2021), section 4.
"""

from collections.abc import Callable

import numpy as np

from pgcore.errors import require

NUM_RESAMPLES = 10_000
"""Bootstrap resamples behind the interval of one number."""

MAX_NUMBERS_AT_ONCE = 2**20
"""Resampled numbers held in memory together: 8 MB of float64."""

Statistic = Callable[..., np.ndarray]
"""`statistic(values, axis=k)` reduces that axis, as `np.mean` does."""


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The mean of the middle half of the values.

    Sorted, each of the N values has a share 1/N of the unit interval, and

        IQM = 2 ∫_{1/4}^{3/4} x(q) dq

    so where N is no multiple of 4 the two values that a quartile cuts count with the part of them
    that lies inside. (`scipy.stats.trim_mean` keeps such a value whole.)

    Args:
        values: Finite numbers. A NaN anywhere along the axis gives NaN.
        axis: The axis to reduce, of length at least 1.
    """
    num = values.shape[axis]
    require(num >= 1, "number of values", num, "at least 1")
    first, ranks = num / 4, np.arange(num)
    inside = np.clip(ranks + 1, first, 3 * first) - np.clip(ranks, first, 3 * first)
    return np.average(np.sort(values, axis=axis), axis=axis, weights=inside)


def bootstrap_interval(
    statistic: Statistic,
    values: np.ndarray,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[np.ndarray, np.ndarray]:
    """A percentile-bootstrap confidence interval of a statistic (seeded, so repeatable).

    It stays within the range of the values; returns of CartPole pile up at the step limit, and a
    Normal interval would reach beyond it.

    Args:
        statistic: `np.mean`, `interquartile_mean` or the like.
        values: `[N, ...]`: N seeds or episodes. A resample picks N of them with replacement, each
            with all that belongs to it, so the points of a curve stay together.
        level: The interval's coverage, between 0 and 1.
        num_resamples: How often to resample.

    Returns:
        The lower and the upper end, each `[...]`.
    """
    rng = np.random.default_rng(0)
    # In parts: all resamples at once would be num_resamples copies of `values`.
    at_once = max(1, MAX_NUMBERS_AT_ONCE // values.size)
    resampled = np.concatenate(
        [
            statistic(values[rng.integers(len(values), size=(num, len(values)))], axis=1)
            for num in np.diff([*range(0, num_resamples, at_once), num_resamples])
        ]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high
