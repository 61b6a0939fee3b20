"""PyTorch callables on NumPy arrays: values, gradients, and how sensitive a scalar is."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity.arrays import is_number
from parity.names import (
    Arrays,
    differentiated,
    flat,
    nested,
    precision,
    split_cotangents,
    weighable,
    weights,
)
from parity.tolerance import Function


def torch_values(function: Callable[..., Any]) -> Function:
    """The outputs of a torch callable; a plain Python number among them stays one.

    Float32 runs flush subnormals, as XLA's do.
    """

    def run(inputs: Arrays) -> dict[str, Any]:
        with arithmetic(flush=precision(inputs) == "float32"):
            outputs = function(**nested(_tensors(inputs)))
            return {leaf: _from_torch(value) for leaf, value in flat(outputs).items()}

    return run


def torch_gradients(function: Callable[..., Any], wrt: Collection[str] | None = None) -> Function:
    """Gradients of Σ cotangent · output in the inputs `wrt`, by default every floating one.

    The cotangent of output `leaf` is the input `cotangent/<leaf>`, or 1 where there is none and
    the output is a scalar. A gradient of `None` is zero.
    """
    import torch

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        with arithmetic(flush=precision(inputs) == "float32"):
            arrays, cotangents = split_cotangents(inputs)
            tensors, names = _leaves(arrays, wrt)
            outputs = weighable(flat(function(**nested(tensors))), cotangents, torch.tensor)
            total = torch.zeros(())
            for leaf, weight in weights(outputs, cotangents).items():
                total = total + (torch.tensor(weight).to(outputs[leaf]) * outputs[leaf]).sum()
            if not total.requires_grad:
                return {name: np.zeros_like(arrays[name]) for name in names}
            slopes = torch.autograd.grad(total, [tensors[n] for n in names], allow_unused=True)
            return {
                name: np.zeros_like(arrays[name]) if slope is None else _from_torch(slope)
                for name, slope in zip(names, slopes, strict=True)
            }

    return run


def torch_sensitivity(
    function: Callable[..., Any],
) -> Callable[[Arrays], dict[str, dict[str, np.ndarray]]]:
    """∂output/∂input of each scalar output of a torch callable, for `tolerance.compare`."""
    import torch

    def run(inputs: Arrays) -> dict[str, dict[str, np.ndarray]]:
        with arithmetic(flush=False):
            tensors, names = _leaves(inputs, None)
            slopes: dict[str, dict[str, np.ndarray]] = {}
            for leaf, output in flat(function(**nested(tensors))).items():
                if is_number(output) or output.ndim or not output.requires_grad:
                    continue
                by_name = torch.autograd.grad(
                    output, [tensors[n] for n in names], allow_unused=True, retain_graph=True
                )
                slopes[leaf] = {
                    name: _from_torch(slope)
                    for name, slope in zip(names, by_name, strict=True)
                    if slope is not None
                }
            return slopes

    return run


def torch_has_graph(
    function: Callable[..., Any], wrt: Collection[str] | None, inputs: Arrays
) -> bool:
    """Whether PyTorch can lead any output back to the inputs `wrt`."""
    with arithmetic(flush=False):
        tensors, _ = _leaves(split_cotangents(inputs)[0], wrt)
        outputs = flat(function(**nested(tensors))).values()
        return any(getattr(output, "requires_grad", False) for output in outputs)


@contextmanager
def arithmetic(*, flush: bool) -> Iterator[None]:
    """While open, torch computes on this thread alone, and with `flush` takes subnormals for zero.

    How a thread rounds and flushes is its own setting, which workers would not share.
    """
    import torch

    num_threads = torch.get_num_threads()
    # torch tells no one whether it flushes; half of the smallest normal float32 shows it.
    was_flushing = (torch.tensor(2.0**-126, dtype=torch.float32) * 0.5).item() == 0
    torch.set_num_threads(1)
    torch.set_flush_denormal(flush)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)
        torch.set_num_threads(num_threads)


def _tensors(inputs: Arrays) -> dict[str, Any]:
    import torch

    # torch.tensor copies; torch.from_numpy would share the caller's memory.
    return {
        name: torch.tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in inputs.items()
    }


def _leaves(inputs: Arrays, wrt: Collection[str] | None) -> tuple[dict[str, Any], list[str]]:
    """The inputs as tensors, and the names of those that a gradient is taken in."""
    tensors = _tensors(inputs)
    names = differentiated(inputs, wrt)
    for name in names:
        tensors[name].requires_grad_()
    return tensors, names


def _from_torch(value: Any) -> Any:
    if is_number(value):
        return value
    return value.detach().cpu().numpy().copy() if hasattr(value, "detach") else np.asarray(value)
