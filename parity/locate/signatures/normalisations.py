"""Layer and batch normalisation: their epsilons, their variance, and their running averages."""

from itertools import product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import (
    EPSILONS,
    is_right,
    is_wrong,
    near,
    shown,
    telling,
    unlike_shapes,
)


def normalised(x: np.ndarray, epsilon: float, axes: tuple[int, ...]) -> np.ndarray:
    """(x − x̄)/√(σ² + ε)"""
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)


ROWS = 4
"""Unlike rows from which a weight and a bias for each column can be told; two fit any."""
RUNNING = r"mean|\bvar\b|batch|norm|running|stats"
"""What is written where statistics of a batch are averaged."""
LEAST = 1e-6
"""Less than this a new batch never weighs in a running average."""
NORMALISATIONS = ((-1,), (-2, -1), (-3, -2, -1), (0,), (0, 2, 3), (0, 1, 2), (1, 2, 3))


def normalisation_epsilon(clues: Clues) -> Found | None:
    """w·(x−x̄)/√(σ²+ε) + b with ε of 1e-5 against 1e-6: the difference is w times the two's."""
    pairs = [p for p in clues.pairs if telling(p) and not unlike_shapes(p)]
    epsilons = EPSILONS[:6]
    for x, axes, right in product(clues.arrays, NORMALISATIONS, epsilons) if pairs else ():
        if x[0].ndim < len(axes) or max(axes) >= x[0].ndim:
            continue
        z = normalised(x[0], right, axes)
        made = {id(p.reference): p.right[0] for p in pairs if p.right[0].shape == z.shape}
        affine = {key for key, value in made.items() if _looks_affine(value, z, axes)}
        for pair, wrong in product(pairs if affine else (), epsilons):
            fits = id(pair.reference) in affine and right != wrong
            if fits and _is_affine(pair, x, axes, right, wrong):
                return Found(
                    f"PyTorch's has epsilon {right:g}, JAX's {wrong:g}, inside the root", 5
                )
    return None


def _channel(axes: tuple[int, ...]) -> int:
    """The axis along which weights and biases differ."""
    return 1 if 0 in axes and 1 not in axes else -1


def _looks_affine(value: np.ndarray, z: np.ndarray, axes: tuple[int, ...]) -> bool:
    """Whether a value is nearly w·z + b, which most are not."""
    if not np.isfinite(value).all():
        return False
    if value.ndim < 2:
        return bool((np.abs(value - z) <= 1e-2 * np.abs(value).max()).all())
    v, u = (
        np.moveaxis(a, _channel(axes), -1).reshape(-1, a.shape[_channel(axes)]) for a in (value, z)
    )
    v, u = v - v.mean(0), u - u.mean(0)
    size = (u * u).sum(0)
    weight = (u * v).sum(0) / np.where(size, size, 1)
    return bool((np.abs(v - weight * u) <= 1e-2 * np.abs(v).max()).all())


def _is_affine(
    pair: Pair, x: Arrays, axes: tuple[int, ...], right_eps: float, wrong_eps: float
) -> bool:
    """Whether weight and bias along one axis, the same for all rows, make both values."""
    if is_right(pair, (normalised(a, right_eps, axes) for a in x)):
        return is_wrong(pair, (normalised(a, wrong_eps, axes) for a in x)) and telling(pair)
    slopes = []
    for a, right, wrong in zip(x, pair.right, pair.wrong, strict=True):
        z, y = normalised(a, right_eps, axes), normalised(a, wrong_eps, axes)
        if a.ndim < 2 or not (np.isfinite(right).all() and np.isfinite(wrong).all()):
            return False
        rows = np.stack([np.moveaxis(v, _channel(axes), -1) for v in (z, y, right, wrong)])
        z, y, right, wrong = rows.reshape(4, -1, rows.shape[-1])
        step = ((right - wrong) * (z - y)).sum(0)
        size = ((z - y) ** 2).sum(0)
        if len(np.unique(z.round(9), axis=0)) < ROWS or not size.all():
            return False
        weight = step / size
        bias = (right - weight * z).mean(0)
        unit = np.abs(right - wrong).max()
        fits = np.abs(right - wrong - weight * (z - y)) <= 1e-6 * unit
        # How well the weight is known: rounding of the values over their difference.
        known = 1e-6 * np.abs(right).max()
        if not unit or not (fits.all() and (np.abs(right - weight * z - bias) <= known).all()):
            return False
        slopes.append(weight)
    return True


def fast_variance(clues: Clues) -> Found | None:
    """(x−x̄)/√σ² against the same with σ² = E[x²] − x̄²: apart by rounding times x̄²/σ²."""
    for pair in clues.pairs:
        for x in clues.arrays if _are_near(pair) else ():
            for axes in ((-1,), (0,)):
                for epsilon in (0.0, *EPSILONS[:6]):
                    if x[0].shape != pair.right[0].shape or x[0].ndim < len(axes):
                        continue
                    lost = [_cancellation(a, axes, epsilon) for a in x]
                    if min(lost) < 1e3 or not all(
                        _within(normalised(a, epsilon, axes), right, wrong, loss)
                        for a, right, wrong, loss in zip(
                            x, pair.right, pair.wrong, lost, strict=True
                        )
                    ):
                        continue
                    return Found(
                        f"PyTorch's is (x - mean)/√(var + {epsilon:g}), JAX's the same less "
                        f"exactly, and mean²/var is {max(lost):.1e}",
                        3,
                    )
    return None


def _are_near(pair: Pair) -> bool:
    """Whether the two values are the same but for a thousandth."""
    return not unlike_shapes(pair) and all(
        np.allclose(w, r, rtol=0, atol=1e-3 * np.abs(r).max(initial=0))
        for r, w in zip(pair.right, pair.wrong, strict=True)
    )


def _cancellation(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> float:
    with np.errstate(all="ignore"):
        return float((x.mean(axes) ** 2 / (x.var(axes) + epsilon)).max())


def _within(ours: np.ndarray, right: np.ndarray, wrong: np.ndarray, loss: float) -> bool:
    if right.shape != wrong.shape or not (np.isfinite(right).all() and np.isfinite(wrong).all()):
        return False
    off, unit = np.abs(right - wrong).max(), np.abs(right).max()
    allowed = 64 * 2.0**-53 * loss * unit
    fits = np.abs(ours - right).max() <= 1e-2 * off
    return bool(fits and 2.0**-48 * unit < off <= allowed)


def running_average(clues: Clues) -> Found | None:
    """(1−m)·old + m·new: momenta that sum to 1, or a new variance with n against n − 1."""
    for pair in clues.pairs if clues.support(RUNNING) else ():
        for old in clues.arrays:
            for x in clues.arrays:
                for axes in ((0,), (0, 2, 3), (0, 1, 2), (0, 2), (0, 1)):
                    if not all(
                        len(axes) < a.ndim and o.ndim == 1 for a, o in zip(x, old, strict=True)
                    ):
                        continue
                    for ddof, what in ((0, "mean"), (1, "var")):
                        if found := _weights(pair, old, x, axes, what):
                            right, wrong = found
                            return Found(
                                f"the batch's {what} has weight {shown(right)} in PyTorch's "
                                f"average and {shown(wrong)} in JAX's"
                                + (f"; correction {ddof} against 0" if ddof else ""),
                                5,
                            )
    return None


def _weights(
    pair: Pair, old: Arrays, x: Arrays, axes: tuple[int, ...], what: str
) -> tuple[float, float] | None:
    found = []
    for values, ddof in ((pair.right, 1), (pair.wrong, 0)):
        weights = []
        for a, o, value in zip(x, old, values, strict=True):
            if np.prod([a.shape[i] for i in axes]) < 2 or not np.ptp(a, axes).all():
                return None
            new = a.mean(axes) if what == "mean" else a.var(axes, ddof=ddof)
            if new.shape != o.shape or o.shape != value.shape or (new == o).any():
                return None
            weights += [*((value - o) / (new - o))]
        if not np.isfinite(weights).all() or len(weights) < 2 or not LEAST < weights[0] < 1 - LEAST:
            return None
        if not all(abs(w - weights[0]) <= 1e-9 * weights[0] for w in weights):
            return None
        found.append(float(weights[0]))
    apart = not near(found[0], found[1])
    return (found[0], found[1]) if apart or what == "var" else None


SIGNATURES = (
    catalogued("B05", normalisation_epsilon),
    catalogued("B06", fast_variance),
    catalogued("B07", running_average),
)
