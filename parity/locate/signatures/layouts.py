"""The right numbers in the wrong places: transposed, shifted, reversed, permuted, broadcast."""

from collections.abc import Callable
from itertools import product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.kinds import kind_of
from parity.locate.signatures.clues import Clues, Found, Pair, Signature, rich
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import (
    each_set,
    explains,
    is_mask,
    is_wrong,
    same,
    telling,
)

FEW = 3
"""Distinct numbers that values in another place must have at least: fewer may coincide."""


def varied(pair: Pair) -> bool:
    """Whether there are enough different numbers to know them again in another place."""
    return telling(pair) and all(np.unique(r[np.isfinite(r)]).size >= FEW for r in pair.right)


def shifted(clues: Clues) -> Found | None:
    """wₜ = rₜ₊ₖ along an axis, k of 1 to 3, or one begins k later than the other."""
    for pair in (*clues.main, *clues.handed):
        if not telling(pair) and not (is_mask(pair.right) and is_mask(pair.wrong)):
            continue
        for axis, steps in product(range(min(r.ndim for r in pair.right)), (1, -1, 2, -2, 3, -3)):
            if all(
                _is_shifted(r, w, axis, steps, tolerance)
                for r, w, tolerance in zip(
                    pair.right, pair.wrong, pair.wrong_tolerances, strict=True
                )
            ):
                return Found(f"JAX's at t is PyTorch's at t {steps:+d}, along axis {axis}", 6)
    return None


def _is_shifted(
    right: np.ndarray, wrong: np.ndarray, axis: int, steps: int, tolerance: float
) -> bool:
    if right.ndim != wrong.ndim:
        return False
    n, m = right.shape[axis], wrong.shape[axis]
    ours = [slice(None)] * right.ndim
    theirs = list(ours)
    start, begin = max(steps, 0), max(-steps, 0)
    count = min(n - start, m - begin)
    ours[axis], theirs[axis] = slice(start, start + count), slice(begin, begin + count)
    if count < max(2, min(n, m) - abs(steps)):
        return False
    shared = right[tuple(ours)]
    told = rich((shared,)) or is_mask((shared,))
    if not same(shared, wrong[tuple(theirs)], tolerance) or not told:
        return False
    # What is constant along the axis is shifted by any number of steps.
    return bool((np.diff(shared, axis=axis) != 0).any())


def reversed_axis(clues: Clues) -> Found | None:
    """wₜ = r₋ₜ along an axis."""
    for pair in (*clues.main, *clues.handed):
        for axis in range(min(r.ndim for r in pair.right)) if varied(pair) else ():
            if is_wrong(pair, (np.flip(r, axis) for r in pair.right)):
                return Found(f"JAX's is PyTorch's reversed along axis {axis}", 7)
    return None


def one_for_all(clues: Clues) -> Found | None:
    """wᵢ = r₀ for all i along an axis."""
    for pair in (*clues.main, *clues.handed):
        for axis, place in product(range(min(r.ndim for r in pair.right)), (0, -1)):
            if not varied(pair) or any(r.shape[axis] < 2 for r in pair.right):
                continue
            taken = (np.broadcast_to(r.take([place], axis=axis), r.shape) for r in pair.right)
            if is_wrong(pair, taken):
                which = "first" if place == 0 else "last"
                return Found(f"JAX's is PyTorch's {which} entry along axis {axis}, for all", 8)
    return None


def gathered(clues: Clues) -> Found | None:
    """x[i] against x[i + k], i whole numbers at hand; or x's entries by another axis."""

    def row(x: np.ndarray, i: np.ndarray, k: int) -> np.ndarray:
        return x[np.clip(i.astype(int) + k, 0, len(x) - 1)]

    def entry(x: np.ndarray, i: np.ndarray, k: int) -> np.ndarray:
        at = np.clip(i.astype(int) + k, 0, x.shape[-1] - 1)
        return np.take_along_axis(x, at[..., None], -1)[..., 0]

    indices = [i for i in clues.arrays if all((a == np.round(a)).all() for a in i)]
    for pair in clues.main:
        if not telling(pair):
            continue
        for i, x, f, k in product(indices, clues.arrays, (row, entry), (1, -1)):
            rights = (f(a, b, 0) for a, b in zip(x, i, strict=True))
            wrongs = (f(a, b, k) for a, b in zip(x, i, strict=True))
            if x is not i and explains(pair, rights, wrongs):
                return Found(f"PyTorch's is x[i], JAX's x[i {k:+d}]", 7)
    return None


def another_order(clues: Clues) -> Found | None:
    """The same numbers in another order."""
    for pair in clues.main:
        if not varied(pair) or any(
            r.shape != w.shape or np.unique(r).size < max(FEW, r.size // 2)
            for r, w in zip(pair.right, pair.wrong, strict=True)
        ):
            continue
        ordered = (np.sort(r, axis=None) for r in pair.right)
        sets = zip(ordered, pair.wrong, pair.wrong_tolerances, strict=True)
        if all(same(r, np.sort(w, axis=None), tolerance) for r, w, tolerance in sets):
            return Found("JAX's are PyTorch's numbers in another order", 1)
    return None


def outer(clues: Clues) -> Found | None:
    """f(aᵢ, bᵢ) against f(aᵢ, bⱼ): (n, 1) against (n,), also once it is averaged."""
    for pair in clues.main:
        inside = all(_is_diagonal(r, w) for r, w in zip(pair.right, pair.wrong, strict=True))
        if inside and telling(pair):
            shapes = f"{pair.right[0].shape} and {pair.wrong[0].shape}"
            return Found(f"PyTorch's is the diagonal of JAX's: shapes {shapes}", 8)
    for pair in clues.main if clues.evidence.reference is not None else ():
        if found := _of_other_layouts(pair):
            return Found(found, 8)
    columns = [v for v in clues.arrays if all(a.size == max(a.shape) > 1 for a in v)]
    forms: tuple[Callable, ...] = (
        lambda a, b: (a - b) ** 2,
        np.multiply,
        lambda a, b: np.abs(a - b),
        np.subtract,
    )
    for pair, a, b in product(clues.main, columns, columns):
        if _is_outer(pair, a, b):
            return Found(f"JAX's has the shape {pair.wrong[0].shape} of all pairs (i, j)", 6)
    for pair in clues.main:
        for a, b, form, total in product(columns, columns, forms, (np.mean, np.sum)):
            if a is b:
                continue

            def right(x, y, form=form, total=total):
                return total(form(x.ravel(), y.ravel()))

            def wrong(x, y, form=form, total=total):
                return total(form(x.reshape(-1, 1), y.ravel()))

            for sign in (1, -1) if telling(pair) else ():
                rights = (sign * r for r in each_set(right, a, b))
                if explains(pair, rights, (sign * w for w in each_set(wrong, a, b))):
                    return Found("PyTorch's is of the pairs (i, i), JAX's of all (i, j)", 8)
    return None


def _of_other_layouts(pair: Pair) -> str:
    """One operation of the same two operands, which meet in the shape of all pairs on one side."""
    ours, theirs = pair.candidate, pair.reference
    kind = kind_of(ours)
    if kind is None or kind in ("matrix", "joined") or kind != kind_of(theirs):
        return ""
    if len(ours.operands) != 2 or ours.values[0].size == theirs.values[0].size:
        return ""
    for order in (ours.operands, ours.operands[::-1]):
        same = [
            np.array_equal(np.squeeze(a[0]), np.squeeze(b[0]), equal_nan=True)
            for a, b in zip(order, theirs.operands, strict=False)
        ]
        if same == [True, True]:
            shapes = f"{theirs.values[0].shape} and {ours.values[0].shape}"
            return f"{kind} of the same two operands has the shapes {shapes}"
    return ""


def _is_outer(pair: Pair, a: Arrays, b: Arrays) -> bool:
    """Whether JAX's is of (n, 1) and (n,) where PyTorch's has n entries."""
    sets = zip(pair.right, pair.wrong, a, b, strict=True)
    if not telling(pair) or any(
        not w.shape == (r.size, r.size) == (len(x), y.size) or x.ndim != 2 or y.ndim != 1
        for r, w, x, y in sets
    ):
        return False
    forms = (np.subtract, np.multiply, np.add, np.divide)
    return any(is_wrong(pair, each_set(form, a, b)) for form in forms) or any(
        is_wrong(pair, each_set(form, b, a)) for form in forms
    )


def _is_diagonal(right: np.ndarray, wrong: np.ndarray) -> bool:
    n = right.size
    if n < 2 or wrong.size != n * n or wrong.ndim < 2:
        return False
    square = wrong.reshape(n, n)
    return bool((np.abs(np.diagonal(square) - right.ravel()) <= 1e-9 * np.abs(right).max()).all())


def scattered(clues: Clues) -> Found | None:
    """x[i] += v keeps one of the same i, x.at[i].add(v) adds all."""

    def kept(x: np.ndarray, i: np.ndarray, v: np.ndarray) -> np.ndarray:
        y, at = x.copy(), i.astype(int)
        y[at] = x[at] + v
        return y

    def added(x: np.ndarray, i: np.ndarray, v: np.ndarray) -> np.ndarray:
        y = x.copy()
        np.add.at(y, i.astype(int), v)
        return y

    indices = [
        i
        for i in clues.arrays
        if all(a.ndim == 1 and (a == np.round(a)).all() and (a >= 0).all() for a in i)
        and any(np.unique(a).size < a.size for a in i)
    ]
    for pair, i, x in product(clues.main, indices, clues.arrays):
        if x[0].shape != pair.right[0].shape or x[0].shape != pair.wrong[0].shape:
            continue
        zero = tuple(np.zeros_like(a) for a in x)
        for start, v in product((x, zero), clues.values):
            for right, wrong in ((kept, added), (added, kept)):
                rights = each_set(right, start, i, v)
                if telling(pair) and explains(pair, rights, each_set(wrong, start, i, v)):
                    return Found("an index occurs twice: one side keeps one, the other adds", 7)
    return None


SIGNATURES = (
    Signature("R16", "a wrong index", "the same index on both sides, from 0", gathered),
    Signature(
        "R16",
        "one entry is taken for all",
        "x on both sides: no x[:1] that is broadcast along the axis",
        one_for_all,
    ),
    catalogued("F04", scattered),
    Signature(
        "R14",
        "(n, 1) is broadcast against (n,)",
        "x.squeeze(-1), so that both have shape (n,)",
        outer,
    ),
    Signature(
        "R10",
        "an axis is reversed",
        "reverse neither, or both: x[::-1], torch.flip(x, (0,))",
        reversed_axis,
    ),
    Signature(
        "R02", "off by one step along an axis", "begin at the same step on both sides", shifted
    ),
    Signature(
        "R40",
        "the same numbers in another order",
        "sort or index alike: jnp.argsort(x, stable=True)",
        another_order,
    ),
)
