"""Powers of a discount: one too many, or one for each step."""

import math
from collections.abc import Sequence

import numpy as np

from parity.locate.signatures.clues import Clues, Found, Pair, Signature
from parity.locate.signatures.relations import factors, is_wrong, near, shown, telling

MAX_POWER = 64
DISCOUNT = r"discount|gamma|\blam\b|decay|\*\*"


def power_of_discount(clues: Clues) -> Found | None:
    """w = r·γᵏ for one whole k, or for a k that rises or falls by 1 from step to step."""
    discounts = sorted({n for n in clues.numbers if is_discount(n)}, reverse=True)
    for pair in (*clues.main, *clues.handed):
        turned = pair._replace(
            right=pair.wrong, wrong=pair.right, wrong_tolerances=pair.right_tolerances
        )
        k, back = shares(pair), shares(turned)
        for discount in discounts:
            named = clues.says(DISCOUNT) or (clues.support(DISCOUNT) and len({*discount}) > 1)
            # One power is a plain factor, unless it is known to be a discount.
            least = 1 if named else 2
            for way, found in ((1, k), (-1, back)):
                power = _power(found, discount) if found else 0
                if least <= power <= MAX_POWER:
                    text = f"{shown(discount)}^{way * power}"
                    return Found(f"JAX's is PyTorch's times {text}", 4)
    for pair in clues.pairs[:NUM_ROWS] if discounts else ():
        for discount in discounts if telling(pair) and factors(pair) is None else ():
            for axis in range(min(r.ndim for r in pair.right)):
                if step := _powers_along(pair, discount, axis):
                    return Found(
                        f"JAX's over PyTorch's is a power of {shown(discount)} that changes by "
                        f"{step} from one entry of axis {axis} to the next",
                        6,
                    )
    return None


SMALLEST = 1e-3
"""What is smaller, and is not 0, has come of a computation."""
NUM_ROWS = 8
"""So many pairs are tried for powers along an axis."""


def is_discount(number: Sequence[float]) -> bool:
    """Whether a number, at each input set, can be a discount: one that moves can be small, or 0."""
    if len({*number}) == 1:
        return 0.3 <= number[0] < 1
    return all(x == 0 or SMALLEST <= x < 1 for x in number)


def shares(pair: Pair) -> tuple[float, ...] | None:
    """The factors, 0 among them where all of JAX's is 0."""
    found = []
    for right, wrong, tolerance in zip(pair.right, pair.wrong, pair.wrong_tolerances, strict=True):
        fitting = right.shape == wrong.shape and np.isfinite(right).all() and right.any()
        if not fitting or not np.isfinite(wrong).all():
            return None
        k = float((right * wrong).sum() / (right * right).sum())
        if not (np.abs(wrong - k * right) <= tolerance).all():
            return None
        found.append(k)
    return tuple(found) if telling(pair) else None


def _power(k: Sequence[float], discount: Sequence[float]) -> int:
    """The whole number that discounts are to be raised to, to be these factors; 0 if none is."""
    known = [(x, d) for x, d in zip(k, discount, strict=True) if x > 0 and d > 0]
    if not known or min(k) < 0:
        return 0
    power = round(math.log(known[0][0]) / math.log(known[0][1]))
    if power <= 0:
        return 0
    return power if all(near(x, d**power) for x, d in zip(k, discount, strict=True)) else 0


def _powers_along(pair: Pair, discounts: Sequence[float], axis: int) -> int:
    n = pair.right[0].shape[axis]
    if n < 3 or any(r.shape[axis] != n for r in pair.right):
        return 0
    if min(discounts) == 0:
        choices = [(1, 0)]
    else:
        firsts = (*range(-3, 4), *range(n - 2, n + 2), *range(-n - 1, 3 - n))
        choices = [(step, first) for step in (1, -1) for first in firsts]
    for step, first in choices:

        def powers(r: np.ndarray, discount: float, step=step, first=first):
            shape = [-1 if i == axis else 1 for i in range(r.ndim)]
            return r * (discount ** (first + step * np.arange(n, dtype=float))).reshape(shape)

        made = (powers(r, d) for r, d in zip(pair.right, discounts, strict=True))
        if is_wrong(pair, made):
            return step
    return 0


SIGNATURES = (
    Signature(
        "R01",
        "a power of a discount or decay too many or too few",
        "start the powers at the same step: discount ** t with t = 0 at the first",
        power_of_discount,
    ),
)
