"""Equinox's models with a state beside them, `(model, state)`: the statistics of norms by path.

`eqx.nn.make_with_state` gives such a pair. The state is a mapping from indices in the model to
arrays, and what torch calls running statistics is, in either mode of the layer, two arrays and how
far they are to be trusted:

    ema    mean and variance as they are, once a batch was seen
    batch  mean / (1 − momentumⁿ) after n batches, the variance likewise

Here they are `norm/mean` and `norm/var`, as inference has them. What is filled in is taken for the
statistics of so many batches that 1 − momentumⁿ is 1.
"""

import math
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from pgcore.errors import UsageError

SETTLED = 2.0**-60
"""Of 1 − momentumⁿ nothing is seen of less than this, in float64 either."""


def is_stateful(tree: Any) -> bool:
    """Whether it is a pair of an Equinox model and its state."""
    equinox = sys.modules.get("equinox")
    if equinox is None or not isinstance(tree, tuple) or len(tree) != 2:
        return False
    return isinstance(tree[1], equinox.nn.State)


def state_leaves(model: Any, state: Any) -> dict[str, Any]:
    """The statistics by path, `norm/mean`; of another layer with a state, its arrays."""
    import jax

    leaves: dict[str, Any] = {}
    known: set[str] = set()
    for path, layer in _norms(model):
        counted, index = _indices(layer)
        known |= {counted.marker, index.marker}
        scale = _scale(layer, state.get(counted))
        found = dict(zip(("mean", "var"), state.get(index), strict=True))
        for name, array in found.items():
            leaves[f"{path}/{name}".strip("/")] = array if scale == 1 else array / scale
    for path, index in _of_type(model, "StateIndex"):
        if index.marker not in known:
            for number, leaf in enumerate(jax.tree.leaves(state.get(index))):
                leaves[f"{path}/{number}".strip("/")] = leaf
    return leaves


def state_filled(arrays: Mapping[str, Any], model: Any, state: Any) -> Any:
    """A state like the given one with these statistics; the given one stays usable."""
    import jax
    import jax.numpy as jnp

    leaves, structure = jax.tree.flatten(state)
    places = jax.tree.unflatten(structure, range(len(leaves)))
    for path, layer in _norms(model):
        counted, index = _indices(layer)
        for name, place in zip(("mean", "var"), places.get(index), strict=True):
            leaves[place] = arrays[f"{path}/{name}".strip("/")]
        settled = False if layer.mode == "ema" else _num_settled(layer.momentum)
        old = leaves[places.get(counted)]
        leaves[places.get(counted)] = jnp.array(settled, old.dtype)
    return jax.tree.unflatten(structure, leaves)


def _norms(model: Any) -> Iterator[tuple[str, Any]]:
    yield from _of_type(model, "BatchNorm")


def _of_type(model: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each part of a model of one of Equinox's types, by path."""
    import jax

    kind = getattr(sys.modules["equinox"].nn, name)  # the model is of it: it is loaded

    def is_part(node: Any) -> bool:
        return isinstance(node, kind)

    for keys, node in jax.tree_util.tree_flatten_with_path(model, is_leaf=is_part)[0]:
        if is_part(node):
            yield jax.tree_util.keystr(keys, simple=True, separator="/"), node


def _indices(layer: Any) -> tuple[Any, Any]:
    """Of how many batches, and of the statistics."""
    if layer.mode == "ema":
        return layer.ema_first_time_index, layer.ema_state_index
    return layer.batch_counter, layer.batch_state_index


def _scale(layer: Any, counted: Any) -> float:
    """What inference divides the statistics by; 1 where there are only shapes."""
    import jax

    if layer.mode == "ema" or isinstance(counted, jax.ShapeDtypeStruct):
        return 1.0
    number = np.asarray(counted).item()
    return 1.0 if number == 0 else 1.0 - layer.momentum**number


def _num_settled(momentum: float) -> int:
    """Batches after which nothing is seen of the first statistics."""
    return 1 if momentum <= 0 else math.ceil(math.log(SETTLED) / math.log(momentum))


def require_state(tree: Any, wanted: Collection[str], found: Collection[str]) -> None:
    """Raises a `UsageError` for a model of Equinox that lacks statistics which its state has."""
    equinox = sys.modules.get("equinox")
    if equinox is None or is_stateful(tree) or not hasattr(equinox, "nn"):
        return
    lacking = [path for path in wanted if path not in found]
    if lacking and any(True for _ in _norms(tree)):
        raise UsageError(
            f"the Equinox model lacks {', '.join(lacking)}, which are in its state, accepted is "
            "the pair of both, (model, state), that eqx.nn.make_with_state makes"
        )


def require_statistics(model: Any, state: Any) -> None:
    """Raises a `UsageError` for a layer in the mode ema that has seen no batch."""
    for path, layer in _norms(model):
        if layer.mode == "ema" and bool(np.asarray(state.get(layer.ema_first_time_index))):
            raise UsageError(
                f"{path or 'BatchNorm'} has seen no batch, and so has no statistics that torch "
                "could have, accepted is a state that was trained or made by to_flax"
            )
