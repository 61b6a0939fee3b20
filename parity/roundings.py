"""Runs of a PyTorch side whose operations round otherwise: term (d) of `parity.tolerance`."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from parity.directed import directed
from parity.directions import rounding_directions
from parity.names import Arrays
from parity.tolerance import NUM_NUDGES, UNIT_ROUNDOFF, Function


def torch_roundings(side: Function) -> Callable[..., Iterator[Mapping[str, np.ndarray]]]:
    """Runs of a PyTorch side whose operations round otherwise, for term (d) of `parity.tolerance`.

    `run(inputs)`: in 8 runs each operation's result moves to a neighbouring float64; where the
    platform can do it, one run more for each direction in which the processor can round. What
    Python computes between the operations (an optimizer's bias correction) is float64 in any
    precision and stays. `run(inputs, coarse=True)`: the 8 runs alone, each result moved as far as
    float32 would round it. `run(inputs, draws=range(8, 64))`: runs as the 8, by other draws.
    """
    first = range(NUM_NUDGES)

    def run(
        inputs: Arrays, *, coarse: bool = False, draws: range = first
    ) -> Iterator[Mapping[str, np.ndarray]]:
        share = 2 * UNIT_ROUNDOFF["float32"] if coarse else None
        for draw in draws:
            with _each_operation(partial(_nudged, np.random.default_rng(draw), share)):
                outputs = side(inputs)
            yield outputs
        for direction in rounding_directions() if draws == first and not coarse else ():
            with _each_operation(partial(directed, direction)):
                outputs = side(inputs)
            yield outputs

    return run


def _each_operation(call: Callable[..., Any]) -> Any:
    """While open, `call(operation, args, kwargs)` is made for each torch operation."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return call(func, args, kwargs or {})

    return Mode()


def _nudged(
    rng: np.random.Generator, share: float | None, operation: Any, args: tuple, kwargs: dict
) -> Any:
    """The operation's results moved up or down by a share of theirs, or to a neighbour."""
    import torch
    from torch.utils._pytree import tree_leaves

    result = operation(*args, **kwargs)
    schema = operation._schema
    is_view = not schema.is_mutable and any(returned.alias_info for returned in schema.returns)
    if is_view or operation.overloadpacket.__name__ in SELECTING:
        return result  # nothing was computed
    for tensor in tree_leaves(result):
        if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
            array = tensor.detach().cpu().numpy()  # the tensor's own memory, unless on a device
            _move(array, rng, share)
            if tensor.device.type != "cpu":
                tensor.copy_(torch.from_numpy(array))
    return result


def _move(array: np.ndarray, rng: np.random.Generator, share: float | None) -> None:
    sign = np.where(rng.random(array.shape) < 0.5, 1.0, -1.0)
    with np.errstate(invalid="ignore", over="ignore"):
        if share is None:
            moved = np.nextafter(array, sign * np.inf)
        else:
            moved = array + sign * share * np.abs(array)
    np.copyto(array, moved, where=(array != 0) & np.isfinite(array) & np.isfinite(moved))


SELECTING = frozenset(
    [
        "_to_copy",
        "clone",
        "copy_",
        "abs",
        "neg",
        "sign",
        "relu",
        "threshold_backward",
        "clamp",
        "clamp_min",
        "clamp_max",
        "where",
        "amax",
        "amin",
        "max",
        "min",
        "maximum",
        "minimum",
        "sort",
        "topk",
        "gather",
        "index",
        "index_select",
        "masked_fill",
    ]
)
"""Operations whose results are inputs of theirs, or a sign: they round nothing."""
