"""Clips left out or with other bounds, precision, and updates mixed the other way round."""

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Signature, rich
from parity.locate.signatures.names import catalogued, named
from parity.locate.signatures.relations import (
    each_set,
    is_right,
    is_wrong,
    recomputed,
    same,
    shown,
    telling,
)

TINY = float(np.finfo(np.float64).tiny)
FEW_UNCLIPPED = 2


def clip_left_out(clues: Clues) -> Found | None:
    """r = clip(w, lo, hi), or w = clip(r, lo, hi)."""
    for pair in clues.main:
        for narrow, wide, tolerances, side in (
            (pair.right, pair.wrong, pair.right_tolerances, "PyTorch"),
            (pair.wrong, pair.right, pair.wrong_tolerances, "JAX"),
        ):
            bounds = _bounds(narrow, wide, tolerances)
            if bounds and _are_plausible(clues, bounds, narrow):
                return Found(f"{side}'s is the other's clipped at {shown(bounds)}", 6)
    return None


def _bounds(narrow: Arrays, wide: Arrays, tolerances: tuple[float, ...]) -> list[float]:
    """The numbers at which one is clipped to be the other."""
    found: set[float] = set()
    for n, w, tolerance in zip(narrow, wide, tolerances, strict=True):
        if n.shape != w.shape or not (np.isfinite(n).all() and np.isfinite(w).all()):
            return []
        cut = np.abs(n - w) > tolerance
        above, below = n[cut & (w > n)], n[cut & (w < n)]
        at = [edge for edge in (above, below) if edge.size]
        if not at or any(np.ptp(edge) > 0 for edge in at):
            return []
        high = above[0] if above.size else np.inf
        low = below[0] if below.size else -np.inf
        if not same(np.clip(w, low, high), n, tolerance) or (~cut).sum() < FEW_UNCLIPPED:
            return []
        if np.unique(n[~cut]).size < FEW_UNCLIPPED:
            return []
        found |= {float(edge[0]) for edge in at}
    return sorted(found) if len(found) <= 2 else []


def _are_plausible(clues: Clues, bounds: list[float], narrow: Arrays) -> bool:
    """Whether bounds are numbers at hand, or 1 ± them, or cut off several entries each."""
    numbers = {n[0] for n in clues.numbers}
    known = numbers | {1 - x for x in numbers} | {1 + x for x in numbers}
    known |= {-x for x in known}
    if all(any(abs(b - x) <= 1e-12 * max(1, abs(b)) for x in known) for b in bounds):
        return True
    return all(sum((n == b).sum() for n in narrow) > 2 for b in bounds)


def other_bounds(clues: Clues) -> Found | None:
    """clip(x, lo, hi) against clip(x, lo', hi'), the bounds being the extremes of the two."""
    for pair in clues.main if clues.support("clip|clamp|max|min") else ():
        filled = all(v.size for v in (*pair.right, *pair.wrong))
        for x in clues.arrays if filled and telling(pair) else ():
            edges = []
            for values, fits in ((pair.right, is_right), (pair.wrong, is_wrong)):
                low = min(float(v.min()) for v in values)
                high = max(float(v.max()) for v in values)
                made = each_set(lambda a, low=low, high=high: np.clip(a, low, high), x)
                edges.append((low, high) if fits(pair, made) else None)
            wide = all(edge and edge[0] < edge[1] for edge in edges)
            if wide and edges[0] != edges[1] and edges[0] and edges[1]:
                return Found(
                    f"PyTorch's is x clipped at {shown(edges[0])}, JAX's at {shown(edges[1])}", 6
                )
    return None


def clipped_by_value(clues: Clues) -> Found | None:
    """g·min(1, c/|g|) against clip(g, −c, c)."""
    for bound in {n[0] for n in clues.numbers if n[0] > 0 and len({*n}) == 1} | {1.0}:

        def by_norm(g: np.ndarray, bound=bound) -> np.ndarray:
            return g * min(1.0, bound / (np.sqrt((g * g).sum()) + 1e-6))

        def by_exact_norm(g: np.ndarray, bound=bound) -> np.ndarray:
            return g * min(1.0, bound / np.sqrt((g * g).sum()))

        def by_value(g: np.ndarray, bound=bound) -> np.ndarray:
            return np.clip(g, -bound, bound)

        for norm in (by_norm, by_exact_norm):
            for right, wrong in ((norm, by_value), (by_value, norm)):
                if recomputed(clues, right, wrong, values=clues.arrays, pairs=clues.main):
                    return Found(f"one is clipped by norm, one entry by entry, at {bound:g}", 7)
        if recomputed(clues, by_norm, by_exact_norm, values=clues.arrays):
            text = f"PyTorch's is g·{bound:g}/(norm + 1e-6), JAX's g·{bound:g}/norm"
            return Found(text, 7, *CLIPPED)
    return None


CLIPPED = named("A09")


def single_precision(clues: Clues) -> Found | None:
    """w = float32(r): a cast on JAX's side in the midst of float64."""
    for pair in clues.main:
        with np.errstate(all="ignore"):
            cast = [r.astype(np.float32).astype(np.float64) for r in pair.right]
        exact = all(np.array_equal(w, c) for w, c in zip(pair.wrong, cast, strict=True))
        # Inputs as they are given may be float32's numbers; those near them are not.
        apart = any((c != r).any() for c, r in zip(cast, pair.right, strict=True))
        if exact and apart and rich(pair.right):
            return Found("JAX's is PyTorch's rounded to float32, to the last bit", 8)
    return None


def flushed(clues: Clues) -> Found | None:
    """Numbers below 2.2e-308 are 0 in XLA."""
    for pair in clues.main:
        shaped = all(r.shape == w.shape for r, w in zip(pair.right, pair.wrong, strict=True))
        if not shaped:
            continue
        small = [(r != 0) & (np.abs(r) < TINY) for r in pair.right]
        gone = all((w[s] == 0).all() for w, s in zip(pair.wrong, small, strict=True))
        rest = all(
            np.allclose(r[~s], w[~s], rtol=1e-9, atol=0)
            for r, w, s in zip(pair.right, pair.wrong, small, strict=True)
        )
        if gone and rest and all(s.any() for s in small):
            return Found("JAX's is 0 where PyTorch's is below 2.2e-308", 8)
    return None


def exchanged_weights(clues: Clues) -> Found | None:
    """a·x + (1 − a)·y against (1 − a)·x + a·y, or other weights: 0.99 and 0.01 for 0.9 and 0.1."""
    for pair in clues.main:
        for x in clues.arrays if telling(pair) else ():
            for y in clues.arrays:
                if x is y or any(
                    not a.shape == b.shape == r.shape == w.shape or not (a != b).any()
                    for a, b, r, w in zip(x, y, pair.right, pair.wrong, strict=True)
                ):
                    continue
                for power in (1, 2):
                    new = y if power == 1 else tuple(b * b for b in y)
                    a, b = _weight(pair.right, x, new), _weight(pair.wrong, x, new)
                    if a is None or b is None or abs(a - b) < 1e-9:
                        continue
                    text = (
                        f"the old has weight {shown(a)} in PyTorch's average, {shown(b)} in JAX's"
                    )
                    if {round(a, 9), round(b, 9)} == {0.99, 0.9} and power == 2:
                        return Found(text, 6, *RMS)
                    if abs(a + b - 1) < 1e-9 or power == 2 or _known(clues, a, b):
                        return Found(text, 7)
    return None


RMS = named("A05")


def _known(clues: Clues, *weights: float) -> bool:
    numbers = [n[0] for n in clues.numbers]
    return any(abs(w - x) < 1e-9 or abs(w - 1 + x) < 1e-9 for w in weights for x in numbers)


def _weight(values: Arrays, x: Arrays, y: Arrays) -> float | None:
    """The weight of x in an average of x and y, in (0, 1) and the same everywhere."""
    first: float | None = None
    for v, a, b in zip(values, x, y, strict=True):
        apart = np.abs(a - b) > 1e-3 * np.abs(a - b).max()
        if apart.sum() < 2:
            return None
        weights = (v[apart] - b[apart]) / (a[apart] - b[apart])
        first = float(weights[0]) if first is None else first
        if not (np.abs(weights - first) <= 1e-9).all() or not 1e-9 < first < 1 - 1e-9:
            return None
        if not np.allclose(v[a == b], a[a == b], rtol=1e-9):
            return None
    return first


SIGNATURES = (
    Signature(
        "R15",
        "a clip is left out, or put in",
        "jnp.clip(x, lo, hi) <-> torch.clamp(x, lo, hi)",
        clip_left_out,
    ),
    Signature(
        "R15",
        "a clip has other bounds",
        "jnp.clip(x, lo, hi) <-> torch.clamp(x, lo, hi), of the same bounds",
        other_bounds,
    ),
    Signature(
        "R29",
        "clipped entry by entry instead of by norm",
        "optax.clip_by_global_norm(c) <-> clip_grad_norm_, optax.clip(c) <-> clip_grad_value_",
        clipped_by_value,
    ),
    catalogued("F01", single_precision),
    catalogued("G01", flushed),
    Signature(
        "R30",
        "the weights of old and new are exchanged, or others",
        "decay * old + (1 - decay) * new on both sides",
        exchanged_weights,
    ),
)
