"""The relations in which a wrong value can stand to the right one, at every input set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Pair, rich

CLOSE = 1e-9
"""Relative difference of two numbers that count as one; factors near 1 are held closer."""
EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12)
"""Epsilons that people write."""
UNFIT = (ValueError, IndexError, TypeError, np.exceptions.AxisError, np.linalg.LinAlgError)
"""What NumPy raises for operands whose shapes do not go together."""


def same(ours: Any, theirs: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays have the same shape and numbers, infinities and NaN in the same places."""
    ours = np.asarray(ours, np.float64)
    if ours.shape != theirs.shape or not ours.size:
        return False
    if theirs.size > 64:  # most that differ do so from the start
        few = np.abs(ours.ravel()[:8] - theirs.ravel()[:8])
        if (few > tolerance).any():
            return False
    finite = np.isfinite(theirs)
    if finite.all():
        return bool((np.abs(ours - theirs) <= tolerance).all())
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return False
    return bool((np.abs(ours[finite] - theirs[finite]) <= tolerance).all())


def is_right(pair: Pair, values: Iterable[Any]) -> bool:
    """Whether these are what PyTorch has."""
    return _fits(values, pair.right, pair.right_tolerances)


def is_wrong(pair: Pair, values: Iterable[Any]) -> bool:
    """Whether these are what JAX has."""
    return _fits(values, pair.wrong, pair.wrong_tolerances)


def explains(pair: Pair, right: Iterable[Any], wrong: Iterable[Any]) -> bool:
    """Whether the first are what PyTorch has and the second what JAX has."""
    return is_right(pair, right) and is_wrong(pair, wrong)


def _fits(values: Iterable[Any], targets: Arrays, tolerances: Sequence[float]) -> bool:
    try:
        with np.errstate(all="ignore"):
            return all(
                same(ours, theirs, tolerance)
                for ours, theirs, tolerance in zip(values, targets, tolerances, strict=True)
            )
    except UNFIT:
        return False


def each_set(function: Callable[..., Any], *operands: Arrays) -> Iterator[Any]:
    """What a function makes of its operands, one input set after the other."""
    return (function(*arrays) for arrays in zip(*operands, strict=True))


def recomputed(
    clues: Clues,
    right: Callable[..., Any],
    wrong: Callable[..., Any],
    *,
    pairs: Sequence[Pair] | None = None,
    values: Sequence[Arrays] | None = None,
    arity: int = 1,
) -> tuple[Pair, tuple[Arrays, ...]] | None:
    """Values at hand of which one function makes PyTorch's value and another JAX's."""
    known = clues.values if values is None else values
    tried = [p for p in (clues.pairs if pairs is None else pairs) if telling(p)]
    found: list[tuple[int, tuple[Arrays, ...]]] = []
    for operands in product(known, repeat=arity) if tried else ():
        try:
            with np.errstate(all="ignore"):
                first = np.asarray(right(*(each[0] for each in operands)))
        except UNFIT:
            continue
        for place, pair in enumerate(tried):
            if not same(first, pair.right[0], pair.right_tolerances[0]):
                continue
            if explains(pair, each_set(right, *operands), each_set(wrong, *operands)):
                found.append((place, operands))
    if not found:
        return None
    place, operands = min(found, key=lambda each: each[0])
    return tried[place], operands


def telling(pair: Pair) -> bool:
    """Whether the numbers say something: not all of them are equal, and finite ones differ."""
    return pair.is_rich


def unlike_shapes(pair: Pair) -> bool:
    """Whether the two differ in shape."""
    return any(r.shape != w.shape for r, w in zip(pair.right, pair.wrong, strict=True))


def near(ours: float, theirs: float) -> bool:
    """Whether two factors are one: the nearer they are to 1, the closer."""
    off = abs(ours - theirs)
    return off <= CLOSE * abs(theirs) and off <= 1e-3 * abs(theirs - 1) + 1e-15


def all_near(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether factors are the same at every input set."""
    return all(near(a, b) for a, b in zip(ours, theirs, strict=True))


def factors(pair: Pair) -> tuple[float, ...] | None:
    """The number at each input set that the right value is to be multiplied by to be the wrong."""
    found = []
    if not rich(pair.right):
        return None
    for right, wrong, tolerance in zip(pair.right, pair.wrong, pair.wrong_tolerances, strict=True):
        if right.shape != wrong.shape or not right.size:
            return None
        if not (np.isfinite(right).all() and np.isfinite(wrong).all() and right.any()):
            return None
        k = float((right * wrong).sum() / (right * right).sum())
        if k == 0 or not (np.abs(wrong - k * right) <= tolerance).all():
            return None
        found.append(k)
    return tuple(found)


def factor(pair: Pair) -> float | None:
    """The same at all input sets, other than 1."""
    found = factors(pair)
    if not found or any(not near(k, found[0]) for k in found) or near(found[0], 1.0):
        return None
    return found[0]


def either_way(k: Sequence[float], number: Sequence[float]) -> bool:
    """Whether factors are these numbers, or one divided by them."""
    if not all(number):
        return False
    return all_near(k, number) or all_near(k, [1 / x for x in number])


def excess(pair: Pair) -> Arrays | None:
    """Right less wrong, where all of it is finite and of one shape."""
    if unlike_shapes(pair):
        return None
    found = tuple(r - w for r, w in zip(pair.right, pair.wrong, strict=True))
    return found if all(np.isfinite(d).all() and d.any() for d in found) else None


def offset(pair: Pair) -> float | None:
    """Right less wrong, if that is one number everywhere; known as well as rounding allows."""
    differences = excess(pair)
    if differences is None or not rich(pair.right):
        return None
    c = float(differences[0].flat[0])
    for d, right in zip(differences, pair.right, strict=True):
        rounding = 2.0**-50 * float(np.abs(right).max())
        if not (np.abs(d - c) <= CLOSE * abs(c) + rounding).all():
            return None
    return c


def is_mask(values: Arrays) -> bool:
    """Whether all is 0 or 1, and both occur."""
    return all(np.isin(a, (0.0, 1.0)).all() for a in values) and (
        any((a == 0).any() for a in values) and any((a == 1).any() for a in values)
    )


def may_broadcast(values: Arrays, onto: Arrays) -> bool:
    """Whether values are broadcast to the shape of others without making it larger."""
    return all(
        a.ndim <= r.ndim
        and all(m in (1, n) for m, n in zip(a.shape[::-1], r.shape[::-1], strict=False))
        for a, r in zip(values, onto, strict=True)
    )


def axes_of(values: Arrays) -> list[int | None]:
    """None for all at once, and each axis."""
    return [None, *range(min(a.ndim for a in values))]


def shown(number: float | Sequence[float]) -> str:
    """A number, or one for each input set, to print."""
    if isinstance(number, int | float):
        return f"{number:.10g}"
    return ", ".join(f"{x:.10g}" for x in dict.fromkeys(number))
