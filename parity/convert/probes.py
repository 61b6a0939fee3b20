"""Two networks as functions of the same weights, and weights that tell all apart."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from parity import sides
from parity.convert.pairs import Arrays, Layout
from parity.tolerance import Comparison, cast, compare


class Probe:
    """Both networks, as functions of torch's tensors by name."""

    def __init__(
        self,
        module: Any,
        apply: Any,
        convert: Any,
        inputs: list[np.ndarray],
        tied: Mapping[str, str],
    ) -> None:
        self._tied = tied
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
        # A tied tensor is no input of its own: torch fills in the other's.
        own = {name: array for name, array in weights.items() if name not in self._tied}
        return cast({**_prefixed("weights/", own), **self.inputs}, np.float64)

    def otherwise(self, change: Callable[[Any], None], weights: Arrays) -> Mapping[str, np.ndarray]:
        """The outputs in float64 of a torch network that `change` has set otherwise."""
        module = copy.deepcopy(self._double)
        change(module)
        return sides.torch_values(_caller(module))(self._arrays(weights))

    @property
    def _torch(self) -> sides.Function:
        return sides.torch_values(_caller(self._double))

    def _flax(self, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        import jax.numpy as jnp

        with sides.x64(True):
            weights = _under("weights/", arrays)
            weights |= {name: weights[other] for name, other in self._tied.items()}
            params = self._convert(filled(self._double, weights))
            inputs = [jnp.array(array) for array in _under("inputs/", arrays).values()]
            outputs = self._apply(params, *inputs)
            return {leaf: np.array(value) for leaf, value in sides.flat(outputs).items()}

    def convert(self, weights: Arrays) -> Any:
        """Flax parameters of the module's own dtype."""
        return self._convert(filled(self.module, weights))


def _caller(module: Any) -> Callable[..., Any]:
    from torch.func import functional_call

    def call(weights: Mapping[str, Any], inputs: Mapping[str, Any] | None = None) -> Any:
        return functional_call(module, dict(weights), tuple((inputs or {}).values()))

    return call


def draw(
    tensors: Arrays, rng: np.random.Generator, found: Layout, *, merge_biases: bool = False
) -> dict[str, np.ndarray]:
    """Normal draws in the tensors' places, a weight's scaled so that no unit saturates.

    Integers stay as they are. The draws are rounded to each tensor's dtype, to be held exactly.
    What has to be zeros is, variances are above zero, and a tied tensor is the other's.
    """
    drawn = {}
    for name, array in tensors.items():
        inputs = int(np.prod(array.shape[1:])) or 1
        values = rng.normal(size=array.shape) / np.sqrt(inputs)
        drawn[name] = values.astype(array.dtype) if _is_floating(array) else array
    for pair in found.pairs:
        leaf, array = pair.leaf, drawn[pair.torch]
        if leaf.positive:
            drawn[pair.torch] = np.abs(array) + array.dtype.type(0.5)
        if leaf.role == "zero" or (leaf.role == "added" and not merge_biases):
            index, number = leaf.part or (0, 1)
            np.split(array, number)[index][...] = 0
    return drawn | {name: drawn[other] for name, other in found.tied.items()}


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
