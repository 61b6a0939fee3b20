"""Two networks as functions of the same weights, weights that tell all apart, and known faults."""

import copy
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from parity import sides
from parity.convert.layouts import Arrays, Layout
from parity.tolerance import Comparison, cast, compare


class Probe:
    """Both networks, as functions of torch's tensors by name."""

    def __init__(self, module: Any, apply: Any, convert: Any, inputs: list[np.ndarray]) -> None:
        self.module = copy.deepcopy(module).cpu().eval()
        self.inputs = {f"inputs/{i}": array for i, array in enumerate(inputs)}
        self._double = copy.deepcopy(module).cpu().double().eval()
        self._apply = apply
        self._convert = convert

    def compare(self, weights: Arrays) -> Comparison:
        """Holds the Flax network against the torch network."""
        arrays = self._arrays(weights)
        return compare(self._torch, self._flax, arrays, stage="probe", precisions=("float64",))

    def torch(self, weights: Arrays) -> Mapping[str, np.ndarray]:
        """The torch network's outputs in float64."""
        return self._torch(self._arrays(weights))

    def flax(self, weights: Arrays) -> dict[str, np.ndarray]:
        """The Flax network's outputs in float64, its parameters converted from torch's."""
        return self._flax(self._arrays(weights))

    def _arrays(self, weights: Arrays) -> dict[str, Any]:
        return cast({**_prefixed("weights/", weights), **self.inputs}, np.float64)

    @property
    def _torch(self) -> sides.Function:
        return sides.torch_values(self._call)

    def _call(self, weights: Mapping[str, Any], inputs: Mapping[str, Any] | None = None) -> Any:
        from torch.func import functional_call

        return functional_call(self._double, dict(weights), tuple((inputs or {}).values()))

    def _flax(self, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        import jax.numpy as jnp

        with sides.x64(True):
            params = self._convert(filled(self._double, _under("weights/", arrays)))
            inputs = [jnp.array(array) for array in _under("inputs/", arrays).values()]
            outputs = self._apply(params, *inputs)
            return {leaf: np.array(value) for leaf, value in sides.flat(outputs).items()}

    def convert(self, weights: Arrays) -> Any:
        """Flax parameters of the module's own dtype."""
        return self._convert(filled(self.module, weights))


def alterations(weights: Arrays, found: Layout) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The faults of peers: a tensor transposed, two tensors of one shape exchanged, two layers."""
    for name, array in weights.items():
        for axes, turned in transposed(array):
            yield f"axes {axes} of {name} exchanged", {**weights, name: turned}
    matrices = {name: array for name, array in weights.items() if array.ndim == 2}
    square = {name: m.T for name, m in matrices.items() if m.shape[0] == m.shape[1]}
    if len(square) > 1:
        yield "every square matrix transposed", {**weights, **square}
    for a, b in combinations(weights, 2):
        if weights[a].shape == weights[b].shape:
            yield f"{a} and {b} exchanged", {**weights, a: weights[b], b: weights[a]}
    layers: dict[str, dict[str, str]] = {}
    for pair in found.pairs:
        layers.setdefault(pair.layer, {})[pair.torch.removeprefix(pair.layer)] = pair.torch
    for a, b in combinations(layers, 2):
        first, second = layers[a], layers[b]
        if len(first) > 1 and _shapes(weights, first) == _shapes(weights, second):
            swap = {first[leaf]: weights[second[leaf]] for leaf in first}
            swap |= {second[leaf]: weights[first[leaf]] for leaf in first}
            yield f"layers {a} and {b} exchanged", {**weights, **swap}


def _shapes(weights: Arrays, leaves: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {leaf: weights[name].shape for leaf, name in leaves.items()}


def transposed(array: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The array with two equal axes exchanged, for each two: no shape can see it."""
    for a, b in combinations(range(array.ndim), 2):
        if array.shape[a] == array.shape[b] > 1:
            yield (a, b), np.swapaxes(array, a, b)


def draw(tensors: Arrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Normal draws in the tensors' places, a weight's scaled so that no unit saturates.

    Integers stay as they are. The draws are rounded to each tensor's dtype, to be held exactly.
    """
    drawn = {}
    for name, array in tensors.items():
        inputs = int(np.prod(array.shape[1:])) or 1
        values = rng.normal(size=array.shape) / np.sqrt(inputs)
        drawn[name] = values.astype(array.dtype) if _is_floating(array) else array
    return drawn


def filled(module: Any, weights: Arrays) -> Any:
    """A copy of the module with other tensors, in its own dtypes."""
    import torch

    copied = copy.deepcopy(module)
    copied.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return copied


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): array for k, array in arrays.items() if k.startswith(prefix)}


def _prefixed(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _is_floating(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.floating)
