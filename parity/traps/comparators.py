"""Comparisons that let a difference pass, and what this project's rule says of the same numbers.

Here the two sides are not PyTorch and JAX but two ways to compare: a usual one, and the rule that
decides in this catalogue. Each says whether two arrays, which are not the same, are.
"""

import numpy as np

from parity.traps.entries import outcome, pair, trap
from parity.traps.rule import verdict

X = np.random.default_rng(0).normal(size=(3, 3))


def says(holds) -> str:
    """What a comparison says."""
    return "the same" if holds else "not the same"


def by_the_rule(a, b) -> str:
    """What this project's rule says."""
    return says(verdict(np.array(a), np.array(b)) == "agree")


@trap(
    "H01",
    "a comparison that fails if diff > tol lets NaN pass",
    "fail unless diff <= tol",
)
def nan_passes():
    """Every comparison with NaN is false."""
    a, b, tol = np.array([1.0, np.nan]), np.array([1.0, 2.0]), 1e-6
    diff = np.abs(a - b)
    return pair(
        usual=says(not (diff > tol).any()),
        rule=by_the_rule(a, b),
        mended={"usual": says((diff <= tol).all())},
    )


@trap(
    "H02",
    "a comparison of means or norms misses permutations and transposes",
    "compare entry by entry; a mean or a norm is more information, no verdict",
)
def means_compared():
    """A matrix and its transpose."""
    a, b, tol = X, X.T, 1e-12
    means, norms = abs(a.mean() - b.mean()), abs(np.linalg.norm(a) - np.linalg.norm(b))
    return pair(
        usual=says(means <= tol and norms <= tol),
        rule=by_the_rule(a, b),
        mended={"usual": says((np.abs(a - b) <= tol).all())},
    )


@trap(
    "H03",
    "a sum of signed differences passes when they cancel, or are below 0",
    "take absolute values before the reduction: np.abs(a - b).max()",
)
def signed_sum():
    """All that is too large on one side."""
    a, b, tol = X, X + 1.0, 1e-3
    return pair(
        usual=says((a - b).sum() <= tol),
        rule=by_the_rule(a, b),
        mended={"usual": says(np.abs(a - b).max() <= tol)},
    )


@trap(
    "H04",
    "np.allclose broadcasts (n, 1) against (n,)",
    "compare shapes first, as np.testing.assert_allclose does",
)
def broadcast():
    """Three equal numbers in a column, and in a row."""
    a, b = np.ones((3, 1)), np.ones(3)
    return pair(
        usual=says(np.allclose(a, b)),
        rule=by_the_rule(a, b),
        mended={"usual": says(outcome(lambda: np.testing.assert_allclose(a, b)) is None)},
    )


@trap(
    "H05",
    "a distance in units in the last place explodes near 0",
    "count units of the terms' size, not of a result that cancelled",
)
def last_places():
    """1 - 1 + 1e-17 and 1 - 1 in two orders of summing: right, and a quintillion units apart."""
    first, second = (1.0 + 1e-17) - 1.0, (1.0 - 1.0) + 1e-17
    a, b = np.array([first, 1.0]), np.array([second, 1.0])
    apart = np.abs(a.view(np.int64) - b.view(np.int64))
    return pair(
        usual=says((apart <= 16).all()),
        rule=by_the_rule(a, b),
        mended={"usual": says((np.abs(a - b) <= 16 * np.spacing(np.abs(a).max())).all())},
    )


@trap(
    "H06",
    "torch.testing.assert_close lets small gradients pass whatever they are",
    "scale atol by the array's own size: atol=1e-6 * abs(b).max()",
)
def absolute_tolerance(torch):
    """Of 1e-6 and -1e-6: its atol for float32 is 1e-5."""
    a, b = np.full(3, 1e-6, np.float32), np.full(3, -1e-6, np.float32)

    def close(**tolerances):
        return says(
            outcome(
                lambda: torch.testing.assert_close(torch.tensor(a), torch.tensor(b), **tolerances)
            )
            is None
        )

    return pair(
        usual=close(),
        rule=by_the_rule(a, b),
        mended={"usual": close(rtol=1.3e-6, atol=1e-6 * float(np.abs(b).max()))},
    )


@trap(
    "H07",
    "NaN that is set to 0 on both sides before they are compared",
    "require NaN in the same places, and let it fail unless it was named as expected",
)
def forgiven_nan():
    """One side has NaN where the other has a number; both are masked where either is NaN."""
    a, b, tol = np.array([1.0, np.nan]), np.array([1.0, 3.0]), 1e-6
    either = np.isnan(a) | np.isnan(b)
    masked = np.abs(np.where(either, 0, a) - np.where(either, 0, b))
    same_places = (np.isnan(a) == np.isnan(b)).all()
    return pair(
        usual=says((masked <= tol).all()),
        rule=by_the_rule(a, b),
        mended={"usual": says(same_places and (masked <= tol).all())},
    )
