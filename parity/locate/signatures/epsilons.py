"""Epsilons: another one, or one inside a root on one side and outside on the other."""

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair, Signature, rich
from parity.locate.signatures.names import catalogued, named
from parity.locate.signatures.relations import (
    EPSILONS,
    is_wrong,
    may_broadcast,
    offset,
    shown,
)


def epsilon(clues: Clues) -> Found | None:
    """r = n/(d + e₁) and w = n/(d + e₂), or the d + e themselves, their root or logarithm."""
    for pair in clues.pairs:
        c = offset(pair) if rich(pair.right) else None
        if c is not None and (both := epsilon_in(pair, abs(c))):
            sign = "-" if c > 0 else "+"
            return _found(clues, f"JAX's is PyTorch's {sign} {abs(c):g}", both)
        for name, undo in (
            ("1 over it", lambda x: 1 / x),
            ("its square", np.square),
            ("1 over its square", lambda x: x**-2.0),
            ("its exponential", np.exp),
        ):
            with np.errstate(all="ignore"):
                undone = pair._replace(
                    right=tuple(undo(r) for r in pair.right),
                    wrong=tuple(undo(w) for w in pair.wrong),
                )
                c = offset(undone) if rich(pair.right) else None
            if c is not None and (both := epsilon_in(undone, abs(c))):
                return _found(clues, f"{name} parts by {shown(c)}", both)
    return None


def _found(clues: Clues, text: str, both: tuple[float, float]) -> Found:
    text = f"{text}: an epsilon of {both[0]:g} against {both[1]:g}"
    if both == (1e-5, 1e-6) and clues.support("norm"):
        return Found(text, 4, *NORMALISED)
    if both == (1e-6, 0.0) and clues.support("clip"):
        return Found(text, 4, *CLIPPED)
    return Found(text, 4)


NORMALISED = named("B05")


def denominator_epsilon(clues: Clues) -> Found | None:
    """r·(d + e₁) = w·(d + e₂) with d at hand: 1e-6/norm if gradients are clipped."""
    for pair in clues.pairs:
        if not (rich(pair.right) and rich(pair.wrong)) or not all(
            np.isfinite(w).all() for w in pair.wrong
        ):
            continue
        for d in clues.values:
            if (
                not all((a > 0).all() for a in d)
                or np.ptp(np.concatenate([*map(np.ravel, d)])) == 0
            ):
                continue  # one number over another is many pairs of powers of ten
            for e1 in (0.0, *EPSILONS):
                for e2 in (0.0, *EPSILONS):
                    if e1 == e2 or not may_broadcast(d, pair.right):
                        continue
                    swapped = (r * (a + e1) / (a + e2) for r, a in zip(pair.right, d, strict=True))
                    if is_wrong(pair, swapped):
                        clipped = {e1, e2} == {0.0, 1e-6} and clues.support("clip|norm")
                        return Found(
                            f"PyTorch's divides by d + {e1:g}, JAX's by d + {e2:g}, d at hand",
                            6,
                            *(CLIPPED if clipped else ()),
                        )
    return None


CLIPPED = named("A09")


def epsilon_in_root(clues: Clues) -> Found | None:
    """m/(√v + e₁) against m/√(v + e₂), v or √v at hand."""
    for pair in clues.pairs:
        if not (rich(pair.right) and rich(pair.wrong)) or not all(
            np.isfinite(w).all() for w in pair.wrong
        ):
            continue
        for at_hand in clues.arrays:
            if not all((a >= 0).all() for a in at_hand) or not may_broadcast(at_hand, pair.right):
                continue
            if not rich(at_hand):  # of zeros the root of any power of ten is left
                continue
            # Over the root of a number other than 0 a root of 0 is a mask.
            starts = EPSILONS if any((a == 0).any() for a in at_hand) else (0.0, *EPSILONS)
            for v in (at_hand, tuple(a * a for a in at_hand)):
                for e1 in starts:
                    for e2 in EPSILONS if e1 == 0 else (e1, e1 * e1):
                        if _in_root(pair, v, e1, e2):
                            return _of_optimizer(clues, e1, e2)
    return None


def _in_root(pair: Pair, v: Arrays, e1: float, e2: float) -> bool:
    by = [(np.sqrt(a) + e1) / np.sqrt(a + e2) for a in v]
    return any(
        is_wrong(pair, (r * b**power for r, b in zip(pair.right, by, strict=True)))
        for power in (1, -1)
    )


def _of_optimizer(clues: Clues, e1: float, e2: float) -> Found:
    text = f"one has √v + {e1:g}, the other √(v + {e2:g}), v at hand"
    if clues.support("rmsprop|rms"):
        return Found(
            text,
            6,
            *named("A05"),
        )
    if clues.support("adagrad"):
        return Found(
            text,
            6,
            *named("A07"),
        )
    return Found(text, 6)


def epsilon_in(pair: Pair, c: float) -> tuple[float, float] | None:
    """Which two epsilons' difference this is, if rounding lets it be known."""
    rounding = 2.0**-48 * max(float(np.abs(r).max()) for r in pair.right)
    for e1 in EPSILONS:
        for e2 in (0.0, *EPSILONS):
            if e2 < e1 and abs(c - (e1 - e2)) <= 1e-6 * c + rounding and rounding < 1e-3 * c:
                return e1, e2
    return None


SIGNATURES = (
    catalogued("A02", epsilon_in_root),
    Signature(
        "R18",
        "another epsilon, or none",
        "name the same epsilon on both sides: x / (d + 1e-8)",
        denominator_epsilon,
    ),
    Signature(
        "R18",
        "another epsilon, or none",
        "name the same epsilon on both sides, in the same place",
        epsilon,
    ),
)
