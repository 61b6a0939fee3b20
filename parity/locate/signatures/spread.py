"""Variances and what is divided by them: n against n − 1, epsilons, running averages, medians."""

from collections.abc import Callable
from itertools import product

import numpy as np

from parity.locate.signatures.clues import Clues, Found, lengths, rich
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import (
    EPSILONS,
    axes_of,
    each_set,
    either_way,
    factors,
    is_right,
    is_wrong,
    may_broadcast,
    recomputed,
    shown,
    telling,
)

SPREAD = r"std|var|normali[sz]|scale|sigma"


def standard_deviation(clues: Clues) -> Found | None:
    """√(Σ(x−x̄)²/(n−1)) against √(Σ(x−x̄)²/n), the variance, or a value divided by one of them."""
    for axis, keep, right, wrong in product((None, 0, 1, 2), (False, True), (0.5, 1), (0.5, 1)):
        for ddof in (1, 0):

            def ours(x: np.ndarray, axis=axis, keep=keep, power=right, ddof=ddof):
                return np.var(x, axis=axis, ddof=ddof, keepdims=keep) ** power

            def theirs(x: np.ndarray, axis=axis, keep=keep, power=wrong, ddof=1 - ddof):
                return np.var(x, axis=axis, ddof=ddof, keepdims=keep) ** power

            if found := recomputed(clues, ours, theirs, values=clues.arrays):
                x = found[1][0][0]
                n = x.size if axis is None else x.shape[axis]
                called = ["var" if power == 1 else "std" for power in (right, wrong)]
                return Found(
                    f"of {n} values PyTorch's is the {called[0]} with n - {ddof}, JAX's the "
                    f"{called[1]} with n - {1 - ddof}",
                    6,
                )
    return _ratio_of_spreads(clues) or _divided_by_spreads(clues)


def _ratio_of_spreads(clues: Clues) -> Found | None:
    for pair in clues.pairs:
        k = factors(pair)
        if k is None:
            continue
        for n, what in lengths(clues):
            for power, called in ((0.5, "√(n/(n-1))"), (1.0, "n/(n-1)")):
                expected = [(m / (m - 1)) ** power for m in n]
                # 2 and 3/2 are factors of much else.
                sure = clues.says(SPREAD) and clues.evidence.reference is not None
                if min(n) < 4 and not (sure and pair is clues.main[0]):
                    continue
                if either_way(k, expected):
                    return Found(
                        f"JAX's is {shown(k)} times PyTorch's: {called} or its inverse for "
                        f"n = {shown(n)}, {what}",
                        clues.support(SPREAD),
                    )
    return None


def _divided_by_spreads(clues: Clues) -> Found | None:
    pairs = [p for p in clues.pairs[:8] if rich(p.right) and rich(p.wrong)]
    for x, epsilon in product(clues.arrays, (0.0, *EPSILONS)) if pairs else ():
        for axis in axes_of(x):
            # r = y / s₁ and w = y / s₀ for the same y: w = r · s₁ / s₀.
            by = [
                (np.std(a, axis=axis, ddof=1, keepdims=True) + epsilon)
                / (np.std(a, axis=axis, keepdims=True) + epsilon)
                for a in x
            ]
            for pair in pairs:
                if may_broadcast(tuple(by), pair.right) and is_wrong(
                    pair, map(np.multiply, pair.right, by)
                ):
                    n = x[0].size if axis is None else x[0].shape[axis]
                    return Found(
                        f"JAX's is PyTorch's times the std with n - 1 over that with n = {n}"
                        + (f", each + {epsilon:g}" if epsilon else ""),
                        clues.support(SPREAD),
                    )
    return None


def spread_of_one(clues: Clues) -> Found | None:
    """NaN against 0: n − 1 is 0 where an axis has one entry."""
    for pair in clues.main:
        ones = any(1 in a.shape for values in clues.arrays for a in values)
        apart = all(np.isnan(r).any() for r in pair.right)
        finite = all(np.isfinite(w).all() for w in pair.wrong)
        if ones and apart and finite and clues.support(SPREAD):
            return Found("PyTorch's is NaN, JAX's finite, and an operand has an axis of 1", 3)
    return None


def median_of_even_count(clues: Clues) -> Found | None:
    """The lower of the two middle values against their mean."""
    for axis in (None, 0, 1, -1):
        for keep in (False, True):

            def lower(x: np.ndarray, axis=axis, keep=keep):
                ordered = np.sort(x, axis=axis)
                n = ordered.shape[0 if axis is None else axis]
                taken = ordered.take([(n - 1) // 2], axis=0 if axis is None else axis)
                return (
                    taken
                    if keep and axis is not None
                    else taken.squeeze(0 if axis is None else axis)
                )

            def middle(x: np.ndarray, axis=axis, keep=keep):
                return np.median(x, axis=axis, keepdims=keep and axis is not None)

            found = recomputed(clues, lower, middle, values=clues.arrays)
            if found or (clues.says("median") and _lower_alone(clues, lower)):
                return Found("PyTorch's is the lower of the two middle values, JAX's their mean", 5)
    return None


def _lower_alone(clues: Clues, lower: Callable) -> bool:
    even = [x for x in clues.arrays if all(a.size % 2 == 0 for a in x)]
    return any(
        is_right(pair, each_set(lower, x)) and telling(pair) for pair in clues.main for x in even
    )


SIGNATURES = (
    catalogued("B01", standard_deviation),
    catalogued("B02", spread_of_one),
    catalogued("B08", median_of_even_count),
)
