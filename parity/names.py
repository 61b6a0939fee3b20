"""Names and precisions of what a side is fed: arrays by path, and which of them move."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from parity.arrays import is_floating, is_number, nudge

Arrays = Mapping[str, Any]

COTANGENT = "cotangent/"
"""Prefix of the inputs that a gradient's cotangents arrive under: `cotangent/<output>`."""


def precision(inputs: Arrays) -> str:
    """`"float64"` or `"float32"`: what the floating arrays are, one of the two.

    Raises:
        ValueError: They are not all alike, or there is none of these.
    """
    found = {
        str(value.dtype)
        for value in inputs.values()
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    }
    if len(found) != 1 or not found <= {"float64", "float32"}:
        names = ", ".join(sorted(found)) or "none"
        raise ValueError(f"floating inputs are {names}, accepted is float64 alone or float32 alone")
    return found.pop()


def flat(tree: Any) -> dict[str, Any]:
    """The leaves of nested mappings, named tuples and sequences by path; a lone leaf is `value`."""
    return {path or "value": leaf for path, leaf in _leaves(tree, "")}


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings in mappings, from names with slashes."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        children = tree.items()
    elif isinstance(tree, tuple) and (fields := getattr(tree, "_fields", None)):
        children = zip(fields, tree, strict=True)
    elif isinstance(tree, tuple | list):
        children = enumerate(tree)
    elif tree is None:
        return
    else:
        yield path, tree
        return
    for name, child in children:
        yield from _leaves(child, f"{path}/{name}" if path else str(name))


COTANGENT_SEED = 0x636F74
"""Not 0: inputs that a person draws with `default_rng(0).normal` would be their own cotangent,
which the Jacobian of a normalisation, say, sends to zero whatever its scale."""
NUM_MAPPED = 3
"""Input sets that are stacked for `vmap`."""
MAPPED_APART = 2.0**-6
"""How far, relatively, these lie apart: near enough for all to be of the given set's kind."""


def cotangents(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A fixed random weight for each floating output; none where all are lone scalars."""
    floating = {
        leaf: array
        for leaf, array in outputs.items()
        if np.issubdtype(np.asarray(array).dtype, np.floating)
    }
    if all(array.ndim == 0 for array in floating.values()):
        return {}
    rng = np.random.default_rng(COTANGENT_SEED)
    return {f"{COTANGENT}{leaf}": rng.normal(size=array.shape) for leaf, array in floating.items()}


def everywhere(inputs: Arrays) -> dict[str, np.ndarray]:
    """Every entry of every floating input, as `padding` that does not move."""
    return {k: np.ones(x.shape, bool) for k, x in inputs.items() if is_floating(x)}


def input_sets(inputs: Arrays) -> list[dict[str, Any]]:
    """The inputs, and others of the same kind near them: what is zero or not finite stays so."""
    still = {
        name: ~np.isfinite(array) | (array == 0)
        for name, array in inputs.items()
        if is_floating(array)
    }
    draws = range(1, NUM_MAPPED)
    moved = [nudge(inputs, MAPPED_APART, np.random.default_rng(draw), still) for draw in draws]
    return [dict(inputs), *moved]


def split_cotangents(inputs: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
    """The function's own inputs, and the cotangents by the output that they belong to."""
    own = {name: value for name, value in inputs.items() if not name.startswith(COTANGENT)}
    cotangents = {
        name.removeprefix(COTANGENT): value
        for name, value in inputs.items()
        if name.startswith(COTANGENT)
    }
    return own, cotangents


def weighable(
    outputs: Mapping[str, Any], cotangents: Mapping[str, Any], array: Callable[[float], Any]
) -> dict[str, Any]:
    """The outputs that have a gradient; a plain Python number where it has a cotangent, as array.

    The other side's output of that name is an array then, and its gradient is held against zero.
    """
    return {
        leaf: array(float(output)) if is_number(output) else output
        for leaf, output in outputs.items()
        if not is_number(output) or leaf in cotangents
    }


def weights(outputs: Mapping[str, Any], cotangents: Mapping[str, Any]) -> dict[str, Any]:
    """What each output is multiplied by in a gradient: its cotangent, 1 for a lone scalar.

    Raises:
        ValueError: A cotangent has no output or another shape, or an array has no cotangent.
    """
    floating = [leaf for leaf, output in outputs.items() if "float" in str(output.dtype)]
    if not cotangents and all(np.ndim(outputs[leaf]) == 0 for leaf in floating):
        return dict.fromkeys(floating, 1.0)
    for leaf in {*floating, *cotangents}:
        name = f"{COTANGENT}{leaf}"
        if leaf not in floating:
            raise ValueError(f"{name} has no output, accepted are {', '.join(floating)}")
        if leaf not in cotangents:
            raise ValueError(f"{name} is missing: give an array of shape {outputs[leaf].shape}")
        if tuple(cotangents[leaf].shape) != tuple(outputs[leaf].shape):
            raise ValueError(
                f"{name} has shape {tuple(cotangents[leaf].shape)}, accepted is the output's, "
                f"{tuple(outputs[leaf].shape)}"
            )
    return dict(cotangents)


def differentiated(inputs: Arrays, wrt: Collection[str] | None) -> list[str]:
    """The inputs that a gradient is taken in: those named, or under a name (`params`)."""
    floating = [
        name
        for name, value in inputs.items()
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    ]
    if wrt is None:
        return floating
    chosen = [n for n in floating if n in wrt or any(n.startswith(f"{w}/") for w in wrt)]
    missing = [w for w in wrt if w not in chosen and not any(n.startswith(f"{w}/") for n in chosen)]
    if missing:
        raise ValueError(f"wrt has {missing}, accepted are floating inputs: {', '.join(floating)}")
    return chosen
