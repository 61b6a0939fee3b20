"""Parameters from PyTorch to Flax and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from parity.convert.layouts import (
    Arrays,
    Kinds,
    Layout,
    Names,
    layout,
    require_names,
    require_shapes,
)
from pgcore.errors import UsageError


def to_flax(
    source: Any, template: Any, *, names: Names | None = None, kinds: Kinds | None = None
) -> Any:
    """Flax parameters like `template`, with the values of a torch module.

    Args:
        source: A torch module; or its tensors by name, a `state_dict`, torch's or NumPy's.
        template: The parameters to be replaced: Linen's (`{"params": …}` or the tree inside), an
            NNX state, or what `jax.eval_shape` makes of either. Its shapes are checked; its dtypes
            are not looked at, for values keep theirs.
        names: Torch module paths to Flax module paths, where they differ:
            `{"actor.linear1": "actor/Dense_0"}`.
        kinds: The kind of each layer, `{"linear1": "Linear"}` or `"Linear"` for all. A torch
            module tells the kinds of the layers in `REGISTRY` by itself.

    Raises:
        UsageError: A name is left over on either side or in `names` or `kinds`, the kind of a layer
            is not known, a shape differs (one that would fit if transposed too), or a tensor is
            float64 while JAX's x64 mode is off.
    """
    leaves = flax_leaves(template)
    found = layout(source, names=names, kinds=kinds)
    arrays = found.to_flax(torch_arrays(source))
    require_like(arrays, leaves, found)
    return flax_tree(arrays, template)


def to_torch(
    params: Any, template: Any, *, names: Names | None = None, kinds: Kinds | None = None
) -> dict[str, Any]:
    """A `state_dict` for the torch module `template`, with the values of Flax parameters.

    Args:
        params: Flax parameters, as `to_flax` makes them.
        template: The torch module, or its tensors by name. It is not changed, and its dtypes are
            not looked at: `load_state_dict` casts to them.
        names: As in `to_flax`: torch module paths to Flax module paths.
        kinds: As in `to_flax`.

    Raises:
        UsageError: As `to_flax`.
    """
    found = layout(template, names=names, kinds=kinds)
    leaves = flax_leaves(params)
    require_names(leaves, [pair.flax for pair in found.pairs], "the Flax tree")
    arrays = found.to_torch({path: np.asarray(leaf) for path, leaf in leaves.items()})
    shapes = {name: tensor.shape for name, tensor in torch_arrays(template).items()}
    axes = {pair.torch: pair.axes for pair in found.pairs}
    require_shapes(arrays, shapes, axes, "the torch module")
    return {name: torch_tensor(array, name) for name, array in arrays.items()}


def require_like(arrays: Arrays, leaves: Mapping[str, Any], found: Layout) -> None:
    """Raises a `UsageError` unless a Flax tree has just the paths and shapes of `arrays`."""
    require_names(leaves, list(arrays), "the Flax tree")
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    require_shapes(arrays, shapes, {pair.flax: pair.axes for pair in found.pairs}, "the Flax tree")


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


# --- Flax trees ----------------------------------------------------------------------------------


def flax_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a Flax tree by path, `Dense_0/kernel`, without Linen's `params/` in front.

    Raises:
        UsageError: Two leaves have one path.
    """
    import jax

    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = {_path(keys): leaf for keys, leaf in found}
    if len(leaves) != len(found):
        raise UsageError("the Flax tree has two leaves of one path: give the tree inside 'params'")
    return leaves


def flax_tree(arrays: Arrays, template: Any) -> Any:
    """A tree like `template`, with JAX arrays of the same dtypes as the given ones, by path.

    Raises:
        UsageError: JAX would round an array, since its x64 mode is off.
    """
    import jax
    import jax.numpy as jnp

    for path, array in arrays.items():
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise UsageError(
                f"dtype of {path} is {array.dtype}, accepted is one of 32 bits while JAX's x64 "
                "mode is off; convert inside jax.enable_x64(True)"
            )
    # jnp.array copies; jnp.asarray may alias the caller's memory.
    return flax_filled({path: jnp.array(array) for path, array in arrays.items()}, template)


def flax_filled(arrays: Mapping[str, Any], template: Any) -> Any:
    """A tree like `template` with these very leaves, by path; traced arrays may be among them."""
    import jax

    return jax.tree_util.tree_map_with_path(lambda keys, _: arrays[_path(keys)], template)


def _path(keys: Iterable[Any]) -> str:
    """Linen's variables are `{"params": …}`; an NNX variable holds its array in `value`."""
    import jax

    keys = list(keys)
    if keys and keys[0] == jax.tree_util.DictKey("params"):
        keys = keys[1:]
    if keys and keys[-1] == jax.tree_util.GetAttrKey("value"):
        keys = keys[:-1]
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")
