"""JAX's trees by path: Linen's variables, NNX states and modules, Equinox modules."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from parity.convert.equinox_state import is_stateful, state_filled, state_leaves
from pgcore.errors import UsageError


def flax_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path, `Dense_0/kernel`, without Linen's `params/` in front.

    Of an Equinox module only arrays are leaves here, as for `equinox.filter(tree, is_array)`, and
    of a pair of one and its state, the statistics of its norms too; of an NNX module everything but
    the state of its random numbers.

    Raises:
        UsageError: Two leaves have one path.
    """
    import jax

    if is_stateful(tree):
        return {**flax_leaves(tree[0]), **state_leaves(*tree)}
    is_equinox = _holds(tree, "equinox")
    found = jax.tree_util.tree_flatten_with_path(_state(tree))[0]
    if is_equinox:
        found = [(keys, leaf) for keys, leaf in found if _is_array(leaf)]
    leaves = {_path(keys, is_equinox): leaf for keys, leaf in found}
    if len(leaves) != len(found):
        raise UsageError("the Flax tree has two leaves of one path: give the tree inside 'params'")
    return leaves


def flax_tree(arrays: Mapping[str, np.ndarray], template: Any) -> Any:
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
    """A tree like `template` with these very leaves, by path; traced arrays may be among them.

    What is no leaf by `flax_leaves` (an Equinox module's functions, an NNX module's random state)
    is the template's.
    """
    import jax

    if is_stateful(template):
        return flax_filled(arrays, template[0]), state_filled(arrays, *template)
    is_equinox = _holds(template, "equinox")

    def fill(keys: Any, leaf: Any) -> Any:
        if is_equinox and not _is_array(leaf):
            return leaf
        return arrays[_path(keys, is_equinox)]

    filled = jax.tree_util.tree_map_with_path(fill, _state(template))
    if not _is_nnx_module(template):
        return filled
    from flax import nnx

    graph, _, rest = _split(template)
    return nnx.merge(graph, filled, rest)


def _state(tree: Any) -> Any:
    """An NNX module's state without its random numbers; any other tree as it is."""
    return _split(tree)[1] if _is_nnx_module(tree) else tree


def _split(module: Any) -> tuple[Any, Any, Any]:
    from flax import nnx

    graph, random, state = nnx.split(module, nnx.RngState, ...)
    return graph, state, random


def _is_nnx_module(tree: Any) -> bool:
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(tree, nnx.Module)


def _holds(tree: Any, library: str) -> bool:
    """Whether a tree is, or has in it, a module of a library: one that nobody imported has none."""
    loaded = sys.modules.get(library)
    if loaded is None or not hasattr(loaded, "Module"):
        return False
    import jax

    def is_module(node: Any) -> bool:
        return isinstance(node, loaded.Module)

    return any(map(is_module, jax.tree.leaves(tree, is_leaf=is_module)))


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _path(keys: Iterable[Any], is_equinox: bool) -> str:
    """Linen's variables are `{"params": …}`; an NNX variable holds its array in `value`."""
    import jax

    keys = list(keys)
    if not is_equinox and keys and keys[0] == jax.tree_util.DictKey("params"):
        keys = keys[1:]
    if not is_equinox and keys and keys[-1] == jax.tree_util.GetAttrKey("value"):
        keys = keys[:-1]
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")
