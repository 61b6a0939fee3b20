"""Padding, masks, labels that do not count, and values that are not finite."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair, Signature
from parity.locate.signatures.relations import (
    all_near,
    each_set,
    explains,
    factors,
    is_mask,
    is_right,
    is_wrong,
    near,
    recomputed,
    shown,
    telling,
)

EPS = float(np.finfo(np.float64).eps)
LOG_EPS = (math.log(EPS), math.log(float(np.finfo(np.float32).eps)))


def _masks(clues: Clues) -> list[tuple[Arrays, str]]:
    """Arrays of zeros and ones, what they leave out, and labels that are kept."""
    found = [(values, "a mask") for values in clues.arrays if is_mask(values)]
    labels = [
        tuple((a >= 0).astype(float) for a in values)
        for values in clues.arrays
        if all((a == np.round(a)).all() for a in values) and any((a < 0).any() for a in values)
    ]
    turned = [(tuple(1 - a for a in m), "a mask's complement") for m, _ in found]
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
    masks = _masks(clues)
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


IGNORED = (
    "mask = labels != -100; (loss * mask).sum() / mask.sum() on both sides",
    "E06",
    "cross-entropy leaves out labels of -100 in PyTorch, not in optax",
)


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
    return (right, wrong) if right and wrong and right != wrong else None


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
        for m, what in _masks(clues):
            if is_right(pair, each_set(np.multiply, pair.wrong, m)):
                return Found(f"PyTorch's is JAX's times {what}", 6)
            if is_wrong(pair, each_set(np.multiply, pair.right, m)):
                return Found(f"JAX's is PyTorch's times {what}", 6)

            def masked(x: np.ndarray, m: np.ndarray) -> np.ndarray:
                return x * m

            def inverted(x: np.ndarray, m: np.ndarray) -> np.ndarray:
                return x * (1 - m)

            for x in clues.arrays:
                if explains(pair, each_set(masked, x, m), each_set(inverted, x, m)):
                    return Found(f"PyTorch's is x times {what}, JAX's x times 1 less it", 7)
            for a, b in product(clues.values, repeat=2) if what == "a mask" else ():
                rights = each_set(_chosen, m, a, b)
                if a is not b and explains(pair, rights, each_set(_chosen, m, b, a)):
                    return Found(f"PyTorch's is where({what}, a, b), JAX's where(.., b, a)", 7)
    return None


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
        for a, b in product(clues.values, repeat=2):
            if a is not b and all(map(_are_the_ties, a, b, parts)):
                return Found("they differ where two operands are equal, and there alone", 7)
    return None


def _are_the_ties(a: np.ndarray, b: np.ndarray, parts: np.ndarray) -> bool:
    try:
        ties = np.broadcast_to(a == b, parts.shape)
    except ValueError:
        return False
    return bool(ties.any()) and np.array_equal(ties, parts)


def clamped_probability(clues: Clues) -> Found | None:
    """log(clip(p, ε, 1−ε)) against log p: −36.04 where p = 0, −15.94 in float32."""
    for eps in (EPS, float(np.finfo(np.float32).eps)):

        def clamped(p: np.ndarray, eps=eps) -> np.ndarray:
            return np.log(np.clip(p, eps, 1 - eps))

        if recomputed(clues, clamped, np.log, values=clues.arrays):
            return Found("PyTorch's is log(clip(p, eps, 1 - eps)), JAX's log p", 6)
    for pair in clues.pairs:
        at = _infinite_in_candidate(pair)
        if at and all(min(abs(v - e) for e in LOG_EPS) < 1e-9 for v in at):
            return Found(f"PyTorch's is {shown(at)} where JAX's is infinite: log eps", 6)
    return None


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
        if endless and entropy:
            return Found("JAX's is NaN, PyTorch's finite, and an operand is infinite", 4)
        if (endless or wild) and _masks(clues):
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
    labels = [m for m, what in _masks(clues) if "labels" in what]
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
    Signature(
        "C02",
        "Categorical clamps probabilities to [eps, 1 - eps], jnp.log does not",
        "use logits on both sides, or jnp.log(jnp.clip(p, eps, 1 - eps))",
        clamped_probability,
    ),
    Signature(
        "E07",
        "binary cross-entropy: PyTorch holds the logarithm at -100",
        "F.binary_cross_entropy_with_logits <-> optax.sigmoid_binary_cross_entropy",
        clamped_cross_entropy,
    ),
    Signature(
        "E08",
        "cosine similarity of a zero vector: 0 in PyTorch, NaN in optax",
        "optax.cosine_similarity(a, b, epsilon=1e-8)",
        zero_vector_cosine,
    ),
    Signature(
        "C03",
        "0 times minus infinity: the entropy of masked logits is NaN",
        "mask logits with jnp.finfo(x.dtype).min, or jnp.where(p > 0, p * log_p, 0)",
        zero_times_infinity,
    ),
    Signature("E06", IGNORED[2], IGNORED[0], ignored_label),
    Signature(
        "C07",
        "a small scale is squared: it underflows",
        "z = (x - mu) / sigma; -0.5 * z * z - jnp.log(sigma) - 0.5 * math.log(2 * math.pi)",
        tiny_scale,
    ),
    Signature(
        "R13",
        "padding is counted",
        "(x * mask).sum() / mask.sum() on both sides",
        padding,
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
