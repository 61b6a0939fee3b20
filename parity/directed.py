"""One operation of PyTorch's with the processor rounding in a direction, as far as it is sound."""

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.arrays import largest_magnitude
from parity.directions import rounding
from parity.yardstick import SLACK, UNIT_ROUNDOFF

NUM_PROBES = 4
"""Runs with inputs at neighbouring numbers, where an operation responds by more than rounding."""


def directed(direction: int, operation: Any, args: tuple, kwargs: dict) -> Any:
    """What an operation gives if the processor rounds in this direction.

    Some functions rely on rounding to nearest: rounding down, SLEEF's logarithm for AVX-512 is off
    by log 2 at 1.5 · 2ᵏ, and with it PyTorch's log-softmax of three equal numbers. An entry that is
    off by more than roundings of what went in and came out can make, and by more than the operation
    answers to its inputs' neighbours, is taken as it is to nearest.
    """
    import torch

    if torch.Tag.nondeterministic_seeded in operation.tags:  # a second run would draw others
        with rounding(direction):
            return operation(*args, **kwargs)
    # What is written into is no longer what it was.
    given = _copied((args, kwargs)) if operation._schema.is_mutable else (args, kwargs)
    with rounding(direction):
        result = operation(*args, **kwargs)
    operands, nearest = _doubles(given), _on_copies(operation, given)
    most = max([1.0, *map(largest_magnitude, (*operands, *nearest))])
    size = max([1, *(operand.size for operand in operands)])
    least = 2 * UNIT_ROUNDOFF["float64"] * SLACK * size * most
    for place, (found, sound) in enumerate(zip(_doubles(result), nearest, strict=True)):
        apart = _apart(found, sound)
        if (apart > least).any():
            probes = (_on_copies(operation, given, _neighbour(i)) for i in range(NUM_PROBES))
            response = np.max([_apart(probe[place], sound) for probe in probes], axis=0)
            np.copyto(found, sound, where=apart > np.maximum(least, SLACK * response))
    return result


def _on_copies(
    operation: Any, given: tuple[tuple, dict], change: Callable[[Any], Any] = lambda array: array
) -> list[np.ndarray]:
    """An operation's results on copies of what it is given, which it may write into."""
    args, kwargs = _copied(given)
    for array in _doubles((args, kwargs)):
        array[...] = change(array)
    return _doubles(operation(*args, **kwargs))


def _copied(tree: Any) -> Any:
    import torch
    from torch.utils._pytree import tree_map

    return tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, tree)


def _neighbour(number: int) -> Callable[[np.ndarray], np.ndarray]:
    """Moves each entry but zeros to the next number, up or down."""
    rng = np.random.default_rng(number)

    def change(array: np.ndarray) -> np.ndarray:
        towards = rng.choice((-np.inf, np.inf), size=array.shape)
        return np.where(array == 0, array, np.nextafter(array, towards))

    return change


def _doubles(tree: Any) -> list[np.ndarray]:
    """The numbers of the float64 tensors in a tree: their own memory, unless on a device."""
    import torch
    from torch.utils._pytree import tree_leaves

    return [
        leaf.detach().cpu().numpy()
        for leaf in tree_leaves(tree)
        if isinstance(leaf, torch.Tensor)
        and leaf.dtype == torch.float64
        and leaf.layout == torch.strided
        and not leaf.is_neg()
    ]


def _apart(found: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """How far two results are apart; where one alone is finite, infinitely."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(found - sound)
    return np.where(np.isfinite(found) != np.isfinite(sound), np.inf, np.nan_to_num(apart, nan=0.0))
