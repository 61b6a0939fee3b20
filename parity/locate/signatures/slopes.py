"""Slopes that part where the values agree: ties, bounds, zeros, and what is held constant."""

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair
from parity.locate.signatures.names import catalogued

RELU = r"relu|maximum|clamp|clip|\bmax\b"
ABSOLUTE = r"abs|sign"


def _parts(clues: Clues, pair: Pair) -> list[np.ndarray] | None:
    """Where slopes part, if the forward value has their shape."""
    x = clues.forward
    if not clues.is_backward or x is None:
        return None
    parts = []
    for right, wrong, value in zip(pair.right, pair.wrong, x, strict=True):
        if not right.shape == wrong.shape == value.shape:
            return None
        with np.errstate(all="ignore"):
            scale = np.abs(wrong[np.isfinite(wrong)]).max(initial=0)
            parts.append(~(np.abs(right - wrong) <= 1e-9 * scale))
    apart = np.concatenate([p.ravel() for p in parts])
    return parts if apart.any() and not apart.all() else None


def _at(values: Arrays, parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([v[p] for v, p in zip(values, parts, strict=True)])


def _upstream(clues: Clues, pair: Pair, parts: list[np.ndarray], share: float) -> bool:
    """Whether JAX's slopes there are this share of a slope at hand."""
    for g in clues.arrays:
        if all(a.shape == p.shape for a, p in zip(g, parts, strict=True)):
            wanted = share * _at(g, parts)
            if wanted.any() and np.allclose(_at(pair.wrong, parts), wanted, rtol=1e-9, atol=0):
                return True
    return False


def relu_at_zero(clues: Clues) -> Found | None:
    """relu′(0): 0 in PyTorch, ½ of the slope in JAX's maximum(x, 0)."""
    for pair in clues.main:
        parts = _parts(clues, pair)
        if parts is None or (_at(clues.forward or (), parts) != 0).any():
            continue
        right, wrong = _at(pair.right, parts), _at(pair.wrong, parts)
        half = not right.any() and _upstream(clues, pair, parts, 0.5)
        share = wrong.any() and right.any() and _halves(right, wrong)
        if not np.isfinite(wrong).all() or clues.says(ABSOLUTE):
            continue
        if half or ((share or not right.any()) and clues.support(RELU)):
            return Found("slopes part where the value is 0, and there alone", 6 if half else 4)
    return None


def _halves(right: np.ndarray, wrong: np.ndarray) -> bool:
    return np.allclose(wrong, right / 2, rtol=1e-9) or np.allclose(wrong, 2 * right, rtol=1e-9)


def absolute_at_zero(clues: Clues) -> Found | None:
    """|x|′ at 0: 0 in PyTorch, 1 in JAX."""
    for pair in clues.main:
        parts = _parts(clues, pair)
        if parts is None or (_at(clues.forward or (), parts) != 0).any():
            continue
        right, wrong = _at(pair.right, parts), _at(pair.wrong, parts)
        if right.any() or not wrong.any() or not np.isfinite(wrong).all():
            continue
        whole = _upstream(clues, pair, parts, 1.0) or _upstream(clues, pair, parts, -1.0)
        if clues.support(ABSOLUTE):
            return Found("JAX has a slope where the value is 0, PyTorch 0", 7 if whole else 5)
    return None


def clip_at_bound(clues: Clues) -> Found | None:
    """clip′ at a bound: 1 in PyTorch's clamp, 0 from 2.14 on; ½ in jnp.clip, 0 in lax.clamp."""
    for pair in clues.main:
        parts = _parts(clues, pair)
        if parts is None:
            continue
        # A bound is met more than once, if only at each input set.
        bounds, times = np.unique(_at(clues.forward or (), parts), return_counts=True)
        right, wrong = _at(pair.right, parts), _at(pair.wrong, parts)
        if times.min() < 2 or bounds.size > 2 or not bounds.any():
            continue
        if not clues.support(r"clip|clamp|tanh|min|max"):
            continue
        at = f"where the value is {bounds}, alone"
        if not right.any():
            if any(_upstream(clues, pair, parts, share) for share in (0.5, 1.0)):
                return Found(f"PyTorch's slope is 0 {at}, JAX's is not", 6)
        elif not wrong.any() or _halves(right, wrong):
            share = "half or twice PyTorch's" if wrong.any() else "0"
            return Found(f"JAX's slope is {share} {at}", 6)
    return None


def tied_maximum(clues: Clues) -> Found | None:
    """max′ among equal entries: one has it all in PyTorch, each a share in JAX."""
    for pair in clues.main:
        parts, x = _parts(clues, pair), clues.forward
        if parts is None or x is None:
            continue
        for axis in (None, *range(min(a.ndim for a in x))):
            for extreme in (np.max, np.min):
                tied = [
                    (a == extreme(a, axis=axis, keepdims=True))
                    & ((a == extreme(a, axis=axis, keepdims=True)).sum(axis, keepdims=True) > 1)
                    for a in x
                ]
                inside = all((~p | t).all() for p, t in zip(parts, tied, strict=True))
                sums = all(
                    np.allclose(r.sum(axis), w.sum(axis), rtol=1e-9, atol=1e-12)
                    for r, w in zip(pair.right, pair.wrong, strict=True)
                )
                if inside and sums and all(np.isfinite(w).all() for w in pair.wrong):
                    return Found("slopes part among equal extreme values alone, sums are equal", 7)
    return None


def equal_pair(clues: Clues) -> Found | None:
    """min(a, b)′ at a = b: half to each, or all to one."""
    for pair in clues.main:
        parts, x = _parts(clues, pair), clues.forward
        if parts is None or x is None:
            continue
        right, wrong = _at(pair.right, parts), _at(pair.wrong, parts)
        if not right.any() or not (_halves(right, wrong) or not wrong.any()):
            continue
        if not any(w.any() for w in pair.wrong):
            continue  # a slope that is zero everywhere is stopped
        for other in clues.arrays:
            if all(
                a.shape == b.shape and not np.array_equal(a, b) and (a[p] == b[p]).all()
                for a, b, p in zip(x, other, parts, strict=True)
            ):
                return Found("slopes part where two values at hand are equal, and there alone", 5)
    return None


def no_variance(clues: Clues) -> Found | None:
    """std′ at zero variance: 0 in PyTorch, NaN in JAX."""
    return _nan_slope(clues, False)


def zero_norm(clues: Clues) -> Found | None:
    """norm′ at the zero vector: 0 in PyTorch, NaN in JAX."""
    return _nan_slope(clues, True)


def _nan_slope(clues: Clues, of_zero: bool) -> Found | None:
    for pair in clues.main if clues.is_backward else ():
        broken = [np.isnan(w) for w in pair.wrong]
        if not all(b.any() for b in broken) or not all(np.isfinite(r).all() for r in pair.right):
            continue
        near = [clues.forward] if clues.forward is not None else []
        for x in (*near, *clues.arrays):
            for axis in (None, *range(min(a.ndim for a in x))):
                spans = [np.ptp(a, axis=axis, keepdims=True) if a.size else a for a in x]
                flat = [np.asarray((s == 0) & (a.size > 1)) for s, a in zip(spans, x, strict=True)]
                zero = [np.asarray(~a.any(axis=axis, keepdims=True)) for a in x]
                is_flat = [f & ~z for f, z in zip(flat, zero, strict=True)]
                norm = clues.support("norm") >= clues.support(r"std|var") and of_zero
                wanted = zero if of_zero else flat if clues.support(r"std|var") else is_flat
                if all(w.any() for w in wanted) and _covers(wanted, broken):
                    if of_zero and not norm:
                        continue
                    what = "all zeros" if of_zero else "constant"
                    return Found(f"JAX's slope is NaN where the operand is {what}", 6)
    return None


def _covers(wanted: list[np.ndarray], broken: list[np.ndarray]) -> bool:
    try:
        return all(
            (~b | np.broadcast_to(w, b.shape)).all() for w, b in zip(wanted, broken, strict=True)
        )
    except ValueError:
        return True


def entropy_at_zero(clues: Clues) -> Found | None:
    """xlogy(0, y)′ and a·log a at 0: 0 in PyTorch, infinite in JAX."""
    for pair in clues.main if clues.is_backward else ():
        for right, wrong in zip(pair.right, pair.wrong, strict=True):
            if right.shape != wrong.shape or not np.isinf(wrong).any():
                break
            if not np.isfinite(right[np.isinf(wrong)]).any():
                break
        else:
            if clues.support(r"xlogy|log|entropy|kl"):
                return Found("JAX's slope is infinite where PyTorch's is finite", 5)
    return None


SIGNATURES = (
    catalogued("D01", relu_at_zero),
    catalogued("D02", clip_at_bound),
    catalogued("D03", tied_maximum),
    catalogued("D04", absolute_at_zero),
    catalogued("D08", entropy_at_zero),
    catalogued("D11", equal_pair),
    catalogued("B04", zero_norm),
    catalogued("B03", no_variance),
)
