"""Slopes that one side holds back: samples that move, detached values, probabilities' sums."""

import re
from itertools import product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair, Signature
from parity.locate.signatures.names import catalogued, named
from parity.locate.signatures.relations import all_near, factors, is_wrong, telling

NOISE = r"noise|\beps\b|sample|randn|random|action"
SAMPLED = r"log_?prob|normal|gauss|log_std|sigma|sample|noise"


def normalised_probabilities(clues: Clues) -> Found | None:
    """∂log(p_a/Σp) has −1/Σp in each entry: r = w − Σ(w·p)/Σp."""
    p = clues.forward
    for pair in clues.main if clues.is_backward and p is not None else ():
        if any(a.shape != r.shape or not a.ndim for a, r in zip(p or (), pair.right, strict=True)):
            continue
        made = (
            r + (w * a).sum(-1, keepdims=True) / a.sum(-1, keepdims=True)
            for r, w, a in zip(pair.right, pair.wrong, p or (), strict=True)
        )
        if telling(pair) and is_wrong(pair, made):
            return Found("PyTorch's less JAX's is -Σ(slope·p)/Σp, equal in each row", 7)
    return None


def _known(clues: Clues) -> tuple[Pair, ...]:
    """The pair of slopes, unless PyTorch's is a guess."""
    known = clues.is_backward and clues.evidence.reference is not None
    return clues.main if known else ()


def _vanished(values: Arrays, beside: Arrays) -> bool:
    return all(
        np.isfinite(v).all() and np.abs(v).max(initial=0) <= 1e-12 * np.abs(b).max(initial=0)
        for v, b in zip(values, beside, strict=True)
    ) and all(np.isfinite(b).all() and b.any() for b in beside)


def sample_not_stopped(clues: Clues) -> Found | None:
    """∂log p(μ + σε)/∂μ = 0 in JAX, whose sample moves with μ; PyTorch's .sample() does not."""
    sampled = clues.support(SAMPLED) and not clues.says("stop_gradient")
    for pair in _known(clues) if sampled else ():
        if _vanished(pair.wrong, pair.right):
            return Found("JAX's slope is zero, PyTorch's is not", 6)
    return None


def stopped(clues: Clues) -> Found | None:
    """A slope of zero on JAX's side alone."""
    for pair in _known(clues):
        if _vanished(pair.wrong, pair.right):
            return Found("JAX's slope is zero, PyTorch's is not", 4 + clues.support("stop_grad"))
    return None


def not_stopped(clues: Clues) -> Found | None:
    """A slope of zero, or none, on PyTorch's side alone; or a further slope at hand."""
    for pair in _known(clues):
        if _vanished(pair.right, pair.wrong):
            detached = clues.support("detach|no_grad")
            if clues.says(NOISE):
                return Found("PyTorch's slope is zero or none, JAX's is not", 6, *SAMPLE)
            return Found("PyTorch's slope is zero or none, JAX's is not", 5 + detached)
    return None


def stopped_by_name(clues: Clues) -> Found | None:
    """The value whose slopes part is handed on by `.detach()`, or by `stop_gradient`, alone."""
    for pair in _known(clues):
        ours, theirs = pair.candidate, pair.reference
        finite = all(np.isfinite(v).all() for v in (*pair.right, *pair.wrong))
        if finite and "detach" in theirs.op and "stop_gradient" not in ours.op + ours.code:
            return Found("PyTorch's value goes through .detach() there, JAX's does not", 5)
        if finite and "stop_gradient" in ours.op and not re.search(HELD, theirs.op + theirs.code):
            text = "JAX's value goes through stop_gradient there, PyTorch's through no .detach()"
            return Found(text, 5, "no stop_gradient where PyTorch has no .detach()", *HELD_BACK)
    return None


HELD = "detach|no_grad"
HELD_BACK = ("R20", "a slope is stopped in JAX alone")


def other_slope_added(clues: Clues) -> Found | None:
    """w = r + s for a slope s at hand: a second path that PyTorch detaches."""
    for pair in clues.main if clues.is_backward else ():
        if factors(pair) and all_near(factors(pair) or (), [-1.0] * len(pair.right)):
            continue
        for s, sign in product(clues.arrays, (1, -1)):
            shaped = all(a.shape == r.shape for a, r in zip(s, pair.right, strict=True))
            made = (r + sign * a for r, a in zip(pair.right, s, strict=True))
            if shaped and telling(pair) and any(a.any() for a in s) and is_wrong(pair, made):
                return Found("JAX's slope is PyTorch's and another slope at hand", 6)
    return None


SAMPLE = named("C04")

SIGNATURES = (
    Signature(
        "R21",
        "a slope that PyTorch stops and JAX does not",
        "jax.lax.stop_gradient(x) where PyTorch has x.detach()",
        stopped_by_name,
    ),
    catalogued("C01", normalised_probabilities),
    catalogued("C04", sample_not_stopped),
    Signature(
        "R20",
        "a slope is stopped in JAX alone",
        "jax.lax.stop_gradient where PyTorch has .detach(), no further",
        stopped,
    ),
    Signature(
        "R21",
        "a slope that PyTorch stops and JAX does not",
        "jax.lax.stop_gradient(x) where PyTorch has x.detach()",
        not_stopped,
    ),
    Signature(
        "R41",
        "a further slope: a path that PyTorch stops and JAX does not",
        "jax.lax.stop_gradient(x) where PyTorch has x.detach()",
        other_slope_added,
    ),
)
