"""Padding, masks, labels that do not count, and values that are not finite."""

from collections.abc import Callable
from itertools import product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair, Signature
from parity.locate.signatures.names import named
from parity.locate.signatures.relations import (
    all_near,
    each_set,
    explains,
    factors,
    is_mask,
    is_right,
    is_wrong,
    near,
    shown,
    telling,
)


def masks_of(clues: Clues) -> list[tuple[Arrays, str]]:
    """Arrays of zeros and ones, what they leave out, and labels that are kept."""
    found = [(values, "a mask") for values in clues.arrays if is_mask(values)]
    labels = [
        tuple((a >= 0).astype(float) for a in values)
        for values in clues.arrays
        if all((a == np.round(a)).all() for a in values) and any((a < 0).any() for a in values)
    ]
    turned = [(tuple(1 - a for a in m), "a mask's complement") for m, _ in found]
    flags = [v for v in clues.scalars if all(a in (0.0, 1.0) for a in v)]
    found += [(v, "a flag") for v in flags if not clues.is_backward]
    return [*found, *turned, *((m, "the labels that are not negative") for m in labels)]


REDUCTIONS: dict[str, Callable[[np.ndarray, np.ndarray, int | None], np.ndarray]] = {
    "Σ x·m / Σ m": lambda x, m, axis: (x * m).sum(axis) / (m + 0 * x).sum(axis),
    "Σ x·m / n": lambda x, m, axis: (x * m).mean(axis),
    "Σ x / n": lambda x, m, axis: x.mean(axis),
    "Σ x / Σ m": lambda x, m, axis: x.sum(axis) / (m + 0 * x).sum(axis),
    "Σ x·m": lambda x, m, axis: (x * m).sum(axis),
    "Σ x": lambda x, m, axis: x.sum(axis),
}


def padding(clues: Clues) -> Found | None:
    """Σ x·m / Σ m against Σ x·m / n, Σ x / n and their like."""
    masks = [(m, what) for m, what in masks_of(clues) if what != "a flag"]
    for pair in clues.main:
        k = factors(pair)
        for m, what in masks:
            counts = [(float(a.sum()), float(a.size)) for a in m]
            if k and not all(near(x, 1) for x in k) and all(c for c, _ in counts):
                share = [c / n for c, n in counts]
                if all_near(k, share) or all_near(k, [1 / s for s in share]):
                    labels = "labels" in what
                    return Found(
                        f"JAX's is {shown(k)} times PyTorch's, the share of ones in {what} or 1 "
                        "over it: one divides by their number, one by all",
                        7,
                        *(IGNORED if labels else ()),
                    )
        for (m, what), x in product(masks, clues.arrays if telling(pair) else ()):
            if x is m:
                continue
            for axis in (None, 0, 1, -1):
                fits = _reductions_that_fit(pair, x, m, axis)
                if fits:
                    right, wrong = fits
                    text = f"PyTorch's is {right}, JAX's {wrong}, m {what}"
                    return Found(text, 7, *(IGNORED if "labels" in what else ()))
    return None


IGNORED = named("E06")


def count_of_padding(clues: Clues) -> Found | None:
    """n against Σ m, a count along an axis."""
    for pair in clues.main:
        for m, what in masks_of(clues):
            for axis in (None, *range(min(a.ndim for a in m))):
                ones = [a.sum(axis) for a in m]
                all_of = [
                    np.full_like(o, a.size / max(1, np.size(o)))
                    for o, a in zip(ones, m, strict=True)
                ]
                for right, wrong, side in ((ones, all_of, "JAX"), (all_of, ones, "PyTorch")):
                    same = all(map(_same_count, right, pair.right))
                    if same and all(map(_same_count, wrong, pair.wrong)):
                        return Found(f"{side} counts all, the other the ones in {what}", 7)
    return None


def _same_count(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return np.array_equal(np.squeeze(ours), np.squeeze(theirs))


def _reductions_that_fit(
    pair: Pair, x: Arrays, m: Arrays, axis: int | None
) -> tuple[str, str] | None:
    if any(a.ndim < b.ndim for a, b in zip(x, m, strict=True)):
        return None
    right = wrong = ""
    for name, function in REDUCTIONS.items():
        made = _attempt(function, x, m, axis)
        if made is None:
            return None
        right = right or (name if is_right(pair, made) else "")
        wrong = wrong or (name if is_wrong(pair, made) else "")
    concerns_mask = "m" in right + wrong
    return (right, wrong) if right and wrong and right != wrong and concerns_mask else None


def _attempt(function: Callable, x: Arrays, m: Arrays, axis: int | None) -> list | None:
    try:
        with np.errstate(all="ignore"):
            return [function(a, b, axis) for a, b in zip(x, m, strict=True)]
    except (ValueError, np.exceptions.AxisError):
        return None


def mask_left_out(clues: Clues) -> Found | None:
    """x·m against x, or against x·(1−m); or of two values where(m, a, b) against where(m, b, a)."""
    for pair in clues.main:
        if not telling(pair):
            continue
        for m, what in masks_of(clues):
            if what != "a flag" and is_right(pair, each_set(np.multiply, pair.wrong, m)):
                return Found(f"PyTorch's is JAX's times {what}", 6)
            if what != "a flag" and is_wrong(pair, each_set(np.multiply, pair.right, m)):
                return Found(f"JAX's is PyTorch's times {what}", 6)

            def masked(x: np.ndarray, m: np.ndarray) -> np.ndarray:
                return x * m

            def inverted(x: np.ndarray, m: np.ndarray) -> np.ndarray:
                return x * (1 - m)

            for x in clues.values:
                if explains(pair, each_set(masked, x, m), each_set(inverted, x, m)):
                    return Found(f"PyTorch's is x times {what}, JAX's x times 1 less it", 7)
            for a, b in product(clues.values, repeat=2) if what == "a mask" else ():
                rights = each_set(_chosen, m, a, b)
                trivial = a is b or any(_is_either(pair, each) for each in (a, b))
                if not trivial and explains(pair, rights, each_set(_chosen, m, b, a)):
                    return Found(f"PyTorch's is where({what}, a, b), JAX's where(.., b, a)", 7)
    return None


def _is_either(pair: Pair, values: Arrays) -> bool:
    """Whether values are what is to be explained: chosen among themselves they say nothing."""
    return is_right(pair, values) or is_wrong(pair, values)


def _chosen(m: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(m != 0, a, b)


def tie_of_comparison(clues: Clues) -> Found | None:
    """a < b against a ≤ b: they differ only where a = b."""
    if not clues.support(r"\blt\b|\ble\b|\bgt\b|\bge\b|[<>]|greater|less"):
        return None
    for pair in clues.main:
        flags = all(np.isin(v, (0.0, 1.0)).all() for v in (*pair.right, *pair.wrong))
        alike = all(r.shape == w.shape for r, w in zip(pair.right, pair.wrong, strict=True))
        if not (flags and alike):
            continue
        parts = [r != w for r, w in zip(pair.right, pair.wrong, strict=True)]
        compared = [*pair.reference.operands, *pair.candidate.operands]
        for a, b in product(compared, repeat=2):
            if (
                a is not b
                and len(a) == len(b) == len(parts)
                and all(map(_are_the_ties, a, b, parts))
            ):
                return Found("they differ where two operands are equal, and there alone", 7)
    return None


def _are_the_ties(a: np.ndarray, b: np.ndarray, parts: np.ndarray) -> bool:
    try:
        ties = np.broadcast_to(a == b, parts.shape)
    except ValueError:
        return False
    return bool(ties.any()) and np.array_equal(ties, parts)


SIGNATURES = (
    Signature(
        "R13",
        "padding is counted",
        "(x * mask).sum() / mask.sum() on both sides",
        padding,
    ),
    Signature(
        "R13",
        "padding is counted",
        "(x * mask).sum() / mask.sum() on both sides",
        count_of_padding,
    ),
    Signature(
        "R24",
        "a mask is left out, put in twice, or inverted",
        "multiply by the same mask on both sides: 1 - done, or done",
        mask_left_out,
    ),
    Signature(
        "R25",
        "a comparison that differs where both are equal",
        "< on both sides, or <= on both",
        tie_of_comparison,
    ),
)
