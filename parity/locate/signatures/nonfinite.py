"""Values that are infinite or NaN on one side alone."""

import math

import numpy as np

from parity.locate.signatures.clues import Clues, Found, Pair
from parity.locate.signatures.masks import masks_of
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import near, recomputed, shown

EPS = float(np.finfo(np.float64).eps)
LOG_EPS = (math.log(EPS), math.log(float(np.finfo(np.float32).eps)))


def clamped_probability(clues: Clues) -> Found | None:
    """log(clip(p, ε, 1−ε)) against log p: −36.04 where p = 0, −15.94 in float32."""
    for eps in (EPS, float(np.finfo(np.float32).eps)):

        def clamped(p: np.ndarray, eps=eps) -> np.ndarray:
            return np.log(np.clip(p, eps, 1 - eps))

        if recomputed(clues, clamped, np.log, values=clues.arrays):
            return Found("PyTorch's is log(clip(p, eps, 1 - eps)), JAX's log p", 6)
    for pair in clues.main:
        if (at := _cut_in_candidate(pair)) is not None and _is_log_eps(at):
            return Found(f"JAX's is {shown(at)} where PyTorch's is less: log eps", 6)
    for pair in clues.pairs:
        at = _infinite_in_candidate(pair)
        if at and all(map(_is_log_eps, at)):
            return Found(f"PyTorch's is {shown(at)} where JAX's is infinite: log eps", 6)
    return None


def _cut_in_candidate(pair: Pair) -> float | None:
    """The number below which JAX's never is, where PyTorch's is, and which it is there."""
    if any(r.shape != w.shape for r, w in zip(pair.right, pair.wrong, strict=True)):
        return None
    cut = [
        w[r < w - t] for r, w, t in zip(pair.right, pair.wrong, pair.wrong_tolerances, strict=True)
    ]
    found = np.concatenate(cut)
    low = min(float(w.min(initial=np.inf)) for w in pair.wrong)
    return low if found.size and (found == low).all() else None


def _is_log_eps(x: float) -> bool:
    """Whether it is the logarithm of an epsilon that people write."""
    return any(near(x, e) for e in LOG_EPS)


def clamped_cross_entropy(clues: Clues) -> Found | None:
    """max(log p, −100) against log p, infinite at p = 0."""
    for pair in clues.pairs:
        at = _infinite_in_candidate(pair)
        if at and all(abs(v) == 100 for v in at):
            return Found("PyTorch's is 100 in size where JAX's is infinite", 6)
        if at is not None and clues.support("binary_cross_entropy|bce"):
            return Found("PyTorch's is finite where JAX's is infinite", 2)
    return None


def _infinite_in_candidate(pair: Pair) -> list[float] | None:
    found: list[float] = []
    for right, wrong in zip(pair.right, pair.wrong, strict=True):
        if right.shape != wrong.shape or not np.isfinite(right).all():
            return None
        infinite = np.isinf(wrong)
        if not infinite.any():
            return None
        found += [*right[infinite]]
    return found


def zero_times_infinity(clues: Clues) -> Found | None:
    """0·(−∞) is NaN: p·log p at p = 0, or a mask that multiplies what is not finite."""
    for pair in clues.main:
        broken = [np.isnan(w) for w in pair.wrong]
        if not all(b.any() for b in broken) or not all(np.isfinite(r).all() for r in pair.right):
            continue
        endless = any(np.isinf(a).any() for values in clues.arrays for a in values)
        wild = any(np.isnan(a).any() for values in clues.arrays for a in values)
        entropy = clues.support("entropy|log_?softmax|logits|prob|xlogy")
        given = any(
            a.shape == b.shape and np.isnan(a)[b].all()
            for values in clues.arrays
            for a, b in zip(values[:1], broken[:1], strict=True)
        )
        if endless and entropy and not given:
            return Found("JAX's is NaN, PyTorch's finite, and an operand is infinite", 4)
        if (endless or wild) and masks_of(clues):
            return Found(
                "JAX's is NaN, PyTorch's finite; a mask and a value that is not finite are at hand",
                4,
                "jnp.where(mask, x, 0), and a safe x inside for the gradient: not x * mask",
                "R23",
                "masked by multiplication: 0 times NaN or infinity is NaN",
            )
    return None


def ignored_label(clues: Clues) -> Found | None:
    """Labels of −100: PyTorch leaves them out, optax's index is out of range and gives NaN."""
    labels = [m for m, what in masks_of(clues) if "labels" in what]
    for pair in clues.main if labels and clues.support("cross_entropy|nll|log_?softmax") else ():
        broken = all(np.isnan(w).any() for w in pair.wrong)
        if broken and all(np.isfinite(r).all() for r in pair.right):
            return Found("JAX's is NaN, PyTorch's finite, and there are labels below 0", 6)
    return None


def tiny_scale(clues: Clues) -> Found | None:
    """((x − μ)/σ)² against (x − μ)²/σ², which overflows or is 0/0 for σ below 1e-150."""
    for pair in clues.main if clues.support("log_?p|normal|gauss|scale|sigma|std") else ():
        broken = all((~np.isfinite(w)).any() for w in pair.wrong)
        small = any(((a > 0) & (a < 1e-150)).any() for values in clues.values for a in values)
        if broken and small and all(np.isfinite(r).all() for r in pair.right):
            return Found("JAX's is not finite, PyTorch's is, and a scale is below 1e-150", 5)
    return None


def zero_vector_cosine(clues: Clues) -> Found | None:
    """a·b/max(|a||b|, 1e-8) against a·b/(|a||b|), NaN for a zero vector."""
    for pair in clues.main:
        if not all(np.isnan(w).any() for w in pair.wrong) or not clues.support("cosine|norm"):
            continue
        shaped = all(r.shape == w.shape for r, w in zip(pair.right, pair.wrong, strict=True))
        empty = any((~a.any(-1)).any() for values in clues.arrays for a in values)
        if shaped and empty:
            zero = (r[np.isnan(w)] == 0 for r, w in zip(pair.right, pair.wrong, strict=True))
            if all(z.all() for z in zero):
                return Found("JAX's is NaN where PyTorch's is 0 and an operand is a zero vector", 6)
    return None


SIGNATURES = (
    catalogued("C02", clamped_probability),
    catalogued("E07", clamped_cross_entropy),
    catalogued("E08", zero_vector_cosine),
    catalogued("C03", zero_times_infinity),
    catalogued("E06", ignored_label),
    catalogued("C07", tiny_scale),
)
