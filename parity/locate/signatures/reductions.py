"""Reductions: another one, over another axis, one left out; and the recursions of returns."""

from collections.abc import Callable
from itertools import product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair, Signature
from parity.locate.signatures.names import catalogued, named
from parity.locate.signatures.relations import (
    each_set,
    explains,
    is_right,
    is_wrong,
    telling,
)


def logsumexp(x: np.ndarray, axis: int | None = None, keepdims: bool = False) -> np.ndarray:
    """log Σ exp(x)"""
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "std": np.std,
    "var": np.var,
    "argmax": np.argmax,
    "argmin": np.argmin,
    "norm": lambda x, axis=None, keepdims=False: np.sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
    "norm of order 1": lambda x, axis=None, keepdims=False: np.abs(x).sum(
        axis=axis, keepdims=keepdims
    ),
    "logsumexp": logsumexp,
}
SCANS: dict[str, Callable[..., np.ndarray]] = {
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
    "cummax": np.maximum.accumulate,
}
PAIRINGS: dict[str, Callable[..., np.ndarray]] = {
    "minimum": np.minimum,
    "maximum": np.maximum,
    "sub": np.subtract,
    "div": np.divide,
    "pow": np.power,
    "matmul": np.matmul,
    "add": np.add,
    "mul": np.multiply,
    "remainder": np.mod,
    "fmod": np.fmod,
}
COMMUTING = {"minimum", "maximum", "add", "mul"}


def _reduced(x: Arrays, bare: bool = True) -> dict[tuple[str, int | None], tuple[Arrays, Arrays]]:
    """What each reduction over each axis makes of a value, with and without the axis kept."""
    made = {}
    axes = [None, *range(min(a.ndim for a in x))]
    with np.errstate(all="ignore"):
        one_sign = all((a >= 0).all() for a in x) or all((a <= 0).all() for a in x)
        for (name, function), axis in product(REDUCTIONS.items(), axes):
            if one_sign and name == "norm of order 1":
                continue  # that is the sum, or minus it
            kept = tuple(np.asarray(function(a, axis=axis, keepdims=True), float) for a in x)
            squeezed = tuple(a.squeeze(axis) if axis is not None else a.squeeze() for a in kept)
            made[name, axis] = (kept, squeezed) if bare else (kept, kept)
    return made


def _which(pair: Pair, made: dict, fits: Callable) -> list[tuple[str, int | None]]:
    return [key for key, forms in made.items() if any(fits(pair, form) for form in forms)]


def reduction(clues: Clues) -> Found | None:
    """f(x, axis i) against g(x, axis j): mean and sum, max and min, i and j."""
    flags = not any(map(telling, clues.main))
    for pair in clues.pairs[:8]:
        if not telling(pair) or flags:
            continue
        for x in clues.arrays:
            if not all(a.size > 1 for a in x):
                continue
            made = _reduced(x)
            right = _which(pair, made, is_right)
            wrong = _which(pair, made, is_wrong) if right else []
            if not right or not wrong or {*right} & {*wrong}:
                continue
            return _named(right, wrong, x)
    return None


def _named(
    right: list[tuple[str, int | None]], wrong: list[tuple[str, int | None]], x: Arrays
) -> Found:
    both = [(r, w) for r in right for w in wrong if r[0] == w[0]]
    (name, i), (other, j) = both[0] if both else (right[0], wrong[0])
    spelt = [
        f"{called} over {'all axes' if axis is None else f'axis {axis}'}"
        for called, axis in ((name, i), (other, j))
    ]
    text = f"of an operand {x[0].shape}, PyTorch's is the {spelt[0]}, JAX's the {spelt[1]}"
    if name == other:
        return Found(text, 7)
    if {name, other} == {"sum", "mean"}:
        return Found(text, 7, MEAN[1], *MEAN[::2])
    if {name, other} == {"max", "min"}:
        return Found(text, 7, EXTREME[1], *EXTREME[::2])
    return Found(text, 6, "use the same reduction on both sides", "R08", "another reduction")


MEAN = ("R03", "x.mean() on both sides, or x.sum() on both", "mean against sum")
EXTREME = ("R09", "torch.amax <-> jnp.max, torch.minimum <-> jnp.minimum", "max against min")


def choice(clues: Clues) -> Found | None:
    """The last of equal choices for the first, or the smallest for the largest."""
    for pair in clues.main:
        whole = all((v == np.round(v)).all() for v in (*pair.right, *pair.wrong) if v.ndim)
        for x in clues.arrays if whole else ():
            if any(a.shape[:-1] != r.shape for a, r in zip(x, pair.right, strict=True)):
                continue
            first = [a.argmax(-1).astype(float) for a in x]
            last = [a.shape[-1] - 1.0 - a[..., ::-1].argmax(-1) for a in x]
            least = [a.argmin(-1).astype(float) for a in x]
            for right, wrong in ((first, last), (last, first)):
                if explains(pair, right, wrong):
                    return Found("of equal choices one takes the first, the other the last", 5)
            for right, wrong in ((first, least), (least, first)):
                if explains(pair, right, wrong):
                    return Found("one takes the largest, the other the smallest", 7, *CHOSEN)
    return None


CHOSEN = ("jnp.argmax <-> torch.argmax", "R09", "max against min")


def scan(clues: Clues) -> Found | None:
    """Σ up to t against Σ from t on, or a scan along another axis."""
    for pair in clues.main:
        for x in clues.arrays if telling(pair) else ():
            if _are_these(pair, x, x):
                continue  # the largest so far of what falls is itself
            made = {}
            for (name, function), axis in product(SCANS.items(), range(min(a.ndim for a in x))):
                made[name, axis, "forward"] = tuple(function(a, axis=axis) for a in x)
                made[name, axis, "backward"] = tuple(
                    np.flip(function(np.flip(a, axis), axis=axis), axis) for a in x
                )
                made[name, axis, "of the reversed"] = tuple(
                    function(np.flip(a, axis), axis=axis) for a in x
                )
            right = [key for key, value in made.items() if is_right(pair, value)]
            wrong = [key for key, value in made.items() if is_wrong(pair, value)]
            if right and wrong and not {*right} & {*wrong}:
                (name, i, way), (other, j, back) = right[0], wrong[0]
                return Found(
                    f"PyTorch's is the {name} over axis {i}, {way}; JAX's the {other} over axis "
                    f"{j}, {back}",
                    7,
                )
    return None


def pairing(clues: Clues) -> Found | None:
    """f(a, b) against f(b, a), or against g(a, b): min and max, a − b and b − a."""
    for pair in clues.main:
        if not telling(pair):
            continue
        for a, b in product(clues.values, repeat=2):
            if a is b or _are_these(pair, a, b):
                continue
            right = _pairings(pair, a, b, is_right)
            if not right:
                continue
            turned = _pairings(pair, b, a, is_wrong)
            if both := [name for name in right if name in turned and name not in COMMUTING]:
                return Found(f"PyTorch's is {both[0]}(a, b), JAX's {both[0]}(b, a)", 7)
            other = _pairings(pair, a, b, is_wrong)
            if other and {right[0], other[0]} == {"minimum", "maximum"}:
                text = f"PyTorch's is {right[0]}(a, b), JAX's {other[0]}(a, b)"
                return Found(text, 7, EXTREME[1], *EXTREME[::2])
            if other and {right[0], other[0]} <= {"fmod", "remainder"}:
                text = f"PyTorch's is {right[0]}(a, b), JAX's {other[0]}(a, b)"
                return Found(text, 7, REMAINDER[1], *REMAINDER[::2])
            if other and not {*right} & {*other}:
                text = f"PyTorch's is {right[0]}(a, b), JAX's {other[0]}(a, b)"
                which = SIGN if {right[0], other[0]} == {"add", "sub"} else OPERATION
                return Found(text, 5, which[1], *which[::2])
    return None


REMAINDER = (
    "R36",
    "torch.remainder <-> jnp.remainder, torch.fmod <-> jnp.fmod",
    "the remainder takes the sign of the other operand",
)
SIGN = ("R04", "a + b on both sides, or a - b on both", "a term's sign is turned")
OPERATION = ("R37", "use the same operation on both sides", "another operation of two operands")


def _are_these(pair: Pair, a: Arrays, b: Arrays) -> bool:
    """Whether one of two values is what is to be explained, whose larger or smaller says naught."""
    return any(is_right(pair, each) or is_wrong(pair, each) for each in (a, b))


def _pairings(pair: Pair, a: Arrays, b: Arrays, fits: Callable) -> list[str]:
    return [name for name, function in PAIRINGS.items() if fits(pair, each_set(function, a, b))]


def reciprocal(clues: Clues) -> Found | None:
    """w = 1/r"""
    for pair in clues.main:
        finite = all(np.isfinite(r).all() and r.all() for r in pair.right)
        if finite and telling(pair) and is_wrong(pair, (1 / r for r in pair.right)):
            return Found("JAX's is 1 over PyTorch's", 5)
    return None


def reduction_left_out(clues: Clues) -> Found | None:
    """r = Σ w over an axis, or w = Σ r; or the mean."""
    for pair in clues.main:
        sizes = [(r.size, w.size) for r, w in zip(pair.right, pair.wrong, strict=True)]
        if any(n == m for n, m in sizes) or not telling(pair):
            continue
        for values, fits, side in ((pair.wrong, is_right, "JAX"), (pair.right, is_wrong, "Torch")):
            made = _reduced(values)
            if keys := [k for k in _which(pair, made, fits) if k[0] in ("sum", "mean", "max")]:
                name, axis = keys[0]
                over = "all axes" if axis is None else f"axis {axis}"
                done, left = ("PyTorch", "JAX") if side == "JAX" else ("JAX", "PyTorch")
                text = f"{done}'s is the {name} of {left}'s over {over}"
                prob = clues.support("log_?prob|normal|gauss|log_std")
                last = axis is not None and axis == pair.wrong[0].ndim - 1
                if name == "sum" and prob and side == "JAX" and last:
                    return Found(text, 5, *SUMMED)
                return Found(text, 5)
    return None


SUMMED = named("C06")

SIGNATURES = (
    Signature(
        "R08", "a reduction over another axis", "name the same axis: dim=-1, axis=-1", reduction
    ),
    catalogued("C10", choice),
    Signature(
        "R10",
        "a scan runs the other way, or along another axis",
        "jax.lax.scan(..., reverse=True), or jnp.cumsum(x[::-1], 0)[::-1]",
        scan,
    ),
    Signature("R07", "operands are exchanged", "f(a, b) on both sides, not f(b, a)", pairing),
    Signature("R07", "a division is turned around", "a / b on both sides, not b / a", reciprocal),
    Signature(
        "R22",
        "a reduction is left out",
        "reduce over the same axes on both sides",
        reduction_left_out,
    ),
)
