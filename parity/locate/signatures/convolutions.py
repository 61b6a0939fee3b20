"""Convolutions: their padding, and kernels that one side flips."""

from itertools import product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import is_right, is_wrong, telling


def correlated(
    x: np.ndarray, w: np.ndarray, stride: int, low: int, high: int, hole: int = 1
) -> np.ndarray:
    """yₒ(s) = Σ w(o, c, k)·x(c, s·stride + k), x of (N, C, …) with holes in it and padded."""
    num_axes = x.ndim - 2
    if hole > 1:
        spread = np.zeros((*x.shape[:2], *[hole * (n - 1) + 1 for n in x.shape[2:]]))
        spread[(slice(None), slice(None), *[slice(None, None, hole)] * num_axes)] = x
        x = spread
    x = np.pad(x, [(0, 0), (0, 0), *[(low, high)] * num_axes])
    axes = tuple(range(2, x.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axes)
    windows = windows[(slice(None), slice(None), *[slice(None, None, stride)] * num_axes)]
    inner = [1, *range(x.ndim, x.ndim + num_axes)]
    y = np.tensordot(windows, w, (inner, [1, *range(2, w.ndim)]))
    return np.moveaxis(y, -1, 1)


def flipped(w: np.ndarray) -> np.ndarray:
    """A kernel turned around in space."""
    return np.flip(w, tuple(range(2, w.ndim)))


def _fits(pair: Pair, made: list[np.ndarray], fits) -> bool:
    """Whether these are the values, channels second or last."""
    return fits(pair, made) or fits(pair, (np.moveaxis(y, 1, -1) for y in made))


def _layouts(values: Arrays, is_kernel: bool) -> list[Arrays]:
    """An operand as PyTorch has it: as it is, and from Flax's order of axes."""
    if is_kernel:
        return [values, tuple(np.moveaxis(a, (-1, -2), (0, 1)) for a in values)]
    return [values, tuple(np.moveaxis(a, -1, 1) for a in values)]


def _operands(clues: Clues):
    if not clues.support("conv"):
        return
    deep = [v for v in clues.arrays if v[0].ndim in (3, 4)]
    for x, w in product(deep, deep):
        if x is w or x[0].ndim != w[0].ndim:
            continue
        for a, b in product(_layouts(x, False), _layouts(w, True)):
            small = all(k <= n + 2 for k, n in zip(b[0].shape[2:], a[0].shape[2:], strict=True))
            if small and (a[0].shape[1] in b[0].shape[:2]):
                yield a, b


def padding_of_stride(clues: Clues) -> Found | None:
    """Padding (1, 1) against "SAME", which pads (0, 1) at stride 2."""
    pairs = [p for p in clues.pairs if telling(p) and p.right[0].ndim in (3, 4)]
    for x, w in _operands(clues) if pairs else ():
        if x[0].shape[1] != w[0].shape[1]:
            continue
        for stride in (1, 2, 3):
            paddings = {}
            for low, high in product(range(3), repeat=2):
                if min(x[0].shape[2:]) + low + high >= max(w[0].shape[2:]):
                    paddings[low, high] = [
                        correlated(a, b, stride, low, high) for a, b in zip(x, w, strict=True)
                    ]
            for pair in pairs:
                right = [p for p, y in paddings.items() if _fits(pair, y, is_right)]
                wrong = [p for p, y in paddings.items() if _fits(pair, y, is_wrong)]
                if right and wrong and not {*right} & {*wrong}:
                    return Found(
                        f"PyTorch's is padded by {right[0]}, JAX's by {wrong[0]}, stride {stride}",
                        7,
                    )
    return None


def flipped_kernel(clues: Clues) -> Found | None:
    """A transposed convolution flips the kernel in PyTorch, and not in Flax unless told to."""
    pairs = [p for p in clues.pairs if telling(p) and p.right[0].ndim in (3, 4)]
    for x, w in _operands(clues) if pairs else ():
        for turned, stride, backward in product((False, True), (1, 2), (True, False)):
            kernels = [np.swapaxes(b, 0, 1) if turned else b for b in w]
            if x[0].shape[1] != kernels[0].shape[1]:
                continue
            size = kernels[0].shape[2]
            if {*kernels[0].shape[2:]} != {size}:
                continue
            for low in {size - 1} if backward else {0, 1, size - 1}:
                made = []
                for way in (flipped, np.asarray):
                    made.append(
                        [
                            correlated(a, way(b), 1, low, low, stride)
                            if backward
                            else correlated(a, way(b), stride, low, low)
                            for a, b in zip(x, kernels, strict=True)
                        ]
                    )
                for pair in pairs:
                    for ours, theirs in (made, made[::-1]):
                        if _fits(pair, ours, is_right) and _fits(pair, theirs, is_wrong):
                            return Found("one side turns the kernel around in space", 7)
    return None


SIGNATURES = (
    catalogued("E12", padding_of_stride),
    catalogued("E13", flipped_kernel),
)
