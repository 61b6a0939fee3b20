"""Parameters from PyTorch to JAX and back: Flax Linen, Flax NNX, Equinox."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.convert.equinox_state import is_stateful, require_state, require_statistics
from parity.convert.layouts import Kinds, Names, layout
from parity.convert.pairs import Arrays, Layout, require_names, require_shapes
from parity.convert.trees import flax_leaves, flax_tree
from pgcore.errors import UsageError


def to_flax(
    source: Any,
    template: Any,
    *,
    names: Names | None = None,
    kinds: Kinds | None = None,
    merge_biases: bool = False,
) -> Any:
    """Flax parameters like `template`, with the values of a torch module.

    Args:
        source: A torch module; or its tensors by name, a `state_dict`, torch's or NumPy's.
        template: The parameters to be replaced: Linen's (`{"params": …}`, with `batch_stats`
            beside them if there are any, or the tree inside), an NNX state or module, an Equinox
            module or the pair of one and its state, or what `jax.eval_shape` makes of these. Its
            shapes are checked; its dtypes are not looked at, for values keep theirs.
        names: Torch module paths to Flax module paths, where they differ:
            `{"actor.linear1": "actor/Dense_0"}`.
        kinds: The kind of each layer, `{"linear1": "Linear"}` or `"Linear"` for all. A torch
            module tells the kinds of the layers in `REGISTRY` by itself.
        merge_biases: Add the two biases of a recurrent layer where Flax has one for both. This is
            rounded, and no way back undoes it; without it the second bias must be zeros.

    Raises:
        UsageError: A name is left over on either side or in `names` or `kinds`, the kind of a layer
            is not known, a shape differs (one that would fit if transposed too), a tensor that has
            no place in Flax is not zeros, or one is float64 while JAX's x64 mode is off.
    """
    leaves = flax_leaves(template)
    found = layout(source, names=names, kinds=kinds, like=leaves)
    require_state(template, found.paths, leaves)
    arrays = found.to_flax(torch_arrays(source), merge_biases=merge_biases)
    require_like(arrays, leaves, found)
    return flax_tree(arrays, template)


def to_torch(
    params: Any, template: Any, *, names: Names | None = None, kinds: Kinds | None = None
) -> dict[str, Any]:
    """A `state_dict` for the torch module `template`, with the values of Flax parameters.

    Args:
        params: Flax parameters, as `to_flax` makes them.
        template: The torch module, or its tensors by name. It is not changed, and its dtypes are
            not looked at: `load_state_dict` casts to them. Its values are, where something is
            torch's own: a BatchNorm's count of batches.
        names: As in `to_flax`: torch module paths to Flax module paths.
        kinds: As in `to_flax`.

    Raises:
        UsageError: As `to_flax`.
    """
    if is_stateful(params):
        require_statistics(*params)
    leaves = flax_leaves(params)
    found = layout(template, names=names, kinds=kinds, like=leaves)
    require_state(params, found.paths, leaves)
    require_names(leaves, found.paths, "the Flax tree")
    own = torch_arrays(template)
    arrays = found.to_torch({path: np.asarray(leaf) for path, leaf in leaves.items()}, own=own)
    shapes = {name: tensor.shape for name, tensor in own.items()}
    axes = {pair.torch: pair.axes for pair in found.pairs}
    require_shapes(arrays, shapes, axes, "the torch module")
    return {name: torch_tensor(array, name) for name, array in arrays.items()}


def require_like(arrays: Arrays, leaves: Mapping[str, Any], found: Layout) -> None:
    """Raises a `UsageError` unless a Flax tree has just the paths and shapes of `arrays`."""
    require_names(leaves, list(arrays), "the Flax tree")
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    require_shapes(
        arrays, shapes, {pair.flax: pair.axes for pair in found.pairs if pair.flax}, "the Flax tree"
    )


def torch_arrays(source: Any) -> dict[str, np.ndarray]:
    """The tensors of a module or a `state_dict` as NumPy arrays, copied."""
    tensors = source if isinstance(source, Mapping) else source.state_dict()
    return {name: numpy_array(tensor, name) for name, tensor in tensors.items()}


def numpy_array(tensor: Any, name: str) -> np.ndarray:
    """A copy of a tensor or an array, of the same dtype.

    Raises:
        UsageError: NumPy has no such dtype (bfloat16).
    """
    if hasattr(tensor, "detach"):
        try:
            return tensor.detach().cpu().numpy().copy()
        except TypeError:
            raise UsageError(
                f"dtype of {name} is {tensor.dtype}, accepted is what NumPy has: "
                "call .float() on the module, which loses nothing"
            ) from None
    return np.array(tensor)


def torch_tensor(array: np.ndarray, name: str) -> Any:
    """A copy of an array as a tensor of the same dtype.

    Raises:
        UsageError: It is of a dtype that NumPy itself lacks (bfloat16).
    """
    import torch

    try:
        return torch.tensor(array)
    except TypeError:
        raise UsageError(
            f"dtype of {name} is {array.dtype}, accepted is what NumPy has: cast it to float32, "
            "which loses nothing"
        ) from None
