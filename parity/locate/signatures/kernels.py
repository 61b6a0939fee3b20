"""Weights whose axes stand otherwise in the two frameworks, and what is flattened before them."""

from collections.abc import Callable
from itertools import permutations, product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair
from parity.locate.signatures.layouts import varied
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import each_set, explains, is_right, is_wrong, unlike_shapes


def square_kernel(clues: Clues) -> Found | None:
    """x·Wᵀ + b against x·W + b for a square W."""

    def linear(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return x @ w.T

    def unturned(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return x @ w

    square = [w for w in clues.arrays if all(a.ndim == 2 and len({*a.shape}) == 1 for a in w)]
    kernels = [w for w in square if not all(np.array_equal(a, a.T) for a in w)]
    for pair in clues.pairs if kernels else ():
        for w, x in product(kernels, clues.arrays) if varied(pair) else ():
            if x is w or any(a.shape[-1] != b.shape[0] for a, b in zip(x, w, strict=True)):
                continue
            for turned in (linear, unturned):
                # One operand may be at hand on both sides' layouts: only one product can be right.
                other = unturned if turned is linear else linear
                fits = _biased(pair.right, each_set(turned, x, w), is_right, pair)
                if fits and _biased(pair.wrong, each_set(other, x, w), is_wrong, pair):
                    return Found("PyTorch's is x @ W.T, JAX's x @ W (or with W turned)", 7)
    return None


ROWS = 3
"""Unlike rows from which it can be told that the same is added to all."""


def _biased(values: Arrays, products, fits: Callable, pair: Pair) -> bool:
    """Whether values are products, but for a row that is added to all."""
    made = [*products]
    if fits(pair, made):
        return True
    if any(
        p.shape != v.shape or v.ndim < 2 or len(v) < 2 for p, v in zip(made, values, strict=True)
    ):
        return False
    rows = [v - p for v, p in zip(values, made, strict=True)]
    unlike = min(len(np.unique(v.reshape(-1, v.shape[-1]).round(9), axis=0)) for v in values)
    if unlike < ROWS:  # a row that is added to all makes one value of any other
        return False
    biased = [p + row.reshape(-1, row.shape[-1])[0] for p, row in zip(made, rows, strict=True)]
    return fits(pair, biased)


def transposed(clues: Clues) -> Found | None:
    """w = rᵀ, or another order of axes."""
    for pair in clues.main:
        if not varied(pair):
            continue
        num_axes = pair.right[0].ndim
        for order in permutations(range(num_axes)) if num_axes <= 4 else ():
            turned = order != tuple(range(num_axes))
            if not turned or not is_wrong(pair, (r.transpose(order) for r in pair.right)):
                continue
            if num_axes == 2:
                kernel = 2 if clues.support("kernel|weight|dot|addmm|linear|mm") else 0
                return Found("JAX's is PyTorch's transposed", 5 + kernel)
            if not unlike_shapes(pair):  # else a layout that is meant, as NHWC is
                return Found(f"JAX's is PyTorch's with axes {order}", 6, *AXES)
    return None


AXES = ("jnp.transpose(x, axes) to the order that PyTorch has", "R39", "axes in another order")


def flattened(clues: Clues) -> Found | None:
    """(C, H, W) flattened against (H, W, C) flattened, or reshaped where it is to be transposed."""
    for pair in clues.main:
        if not varied(pair):
            continue
        for x in clues.arrays:
            if not 2 <= x[0].ndim <= 4 or x[0].size != pair.right[0].size:
                continue
            for order in permutations(range(x[0].ndim)):

                def turned(a: np.ndarray, like: np.ndarray, order=order) -> np.ndarray:
                    return a.transpose(order).reshape(like.shape)

                def plain(a: np.ndarray, like: np.ndarray) -> np.ndarray:
                    return a.reshape(like.shape)

                for f, g in ((turned, plain), (plain, turned)):
                    if x[0].shape == (pair.wrong if g is plain else pair.right)[0].shape:
                        continue  # nothing is reshaped there, so that it is a transposition
                    if explains(pair, each_set(f, x, pair.right), each_set(g, x, pair.wrong)):
                        return Found(
                            f"of one operand {x[0].shape}, one is reshaped as it is and one "
                            f"with axes {order}",
                            6,
                        )
    return None


SIGNATURES = (
    catalogued("E09", square_kernel),
    catalogued("E09", transposed),
    catalogued("E14", flattened),
)
