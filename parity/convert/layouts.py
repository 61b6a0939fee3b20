"""Which torch tensor is which Flax leaf: the map that a conversion follows, and its totality."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity.convert.layers import find_layer, kind_of
from pgcore.errors import UsageError, unknown_choice

Arrays = Mapping[str, np.ndarray]
Names = Mapping[str, str]
"""Torch module path to Flax module path, `{"actor.linear1": "actor/Dense_0"}`. What is below a
module goes with it; the longest path decides; a path that is not named keeps its name."""
Kinds = Mapping[str, str] | str
"""Torch layer path to its kind in the registry; a kind alone is that of every layer."""
IN_NAMES = "say in names= which Flax module each torch module is"


class Pair(NamedTuple):
    """One tensor: its name on both sides, the layer it is of, and how its axes change places."""

    torch: str
    flax: str
    axes: tuple[int, ...] | None
    layer: str

    def __str__(self) -> str:
        axes = "" if self.axes is None else f", axes {self.axes}"
        return f"{self.torch} -> {self.flax}{axes}"


class Layout(NamedTuple):
    """The whole map between two sets of parameters. Printed, it is a line for each tensor."""

    pairs: tuple[Pair, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.pairs))

    def to_flax(self, tensors: Arrays, where: str = "the tensors") -> dict[str, np.ndarray]:
        """Copies of arrays by torch name, as Flax has them, by path.

        Raises:
            UsageError: A tensor is missing, left over, or has another number of axes.
        """
        require_names(tensors, [pair.torch for pair in self.pairs], where)
        return {pair.flax: _permuted(tensors[pair.torch], pair) for pair in self.pairs}

    def to_torch(self, arrays: Arrays, where: str = "the Flax tree") -> dict[str, np.ndarray]:
        """Copies of arrays by Flax path, as torch has them, by name.

        Raises:
            UsageError: A leaf is missing, left over, or has another number of axes.
        """
        require_names(arrays, [pair.flax for pair in self.pairs], where)
        return {pair.torch: _permuted(arrays[pair.flax], pair, back=True) for pair in self.pairs}


def layout(
    source: Any,
    *,
    names: Names | None = None,
    kinds: Kinds | None = None,
    only: Collection[str] | None = None,
) -> Layout:
    """The map from the tensors of a torch module to Flax leaves.

    Args:
        source: The module; or its tensors by name, a `state_dict`.
        names: Torch module paths to Flax module paths, where they differ.
        kinds: The kind of each layer that its class does not tell: all, if there is no module. A
            stated kind goes before the class's.
        only: The tensors to map; by default all that the source has.

    Raises:
        UsageError: The kind of a layer is not known, a tensor is none of its kind's leaves, a
            required leaf is missing, two tensors would become one leaf, or an entry of `names` or
            `kinds` is of no use.
    """
    if isinstance(source, Mapping):
        tensors, of_class, modules = list(source if only is None else only), {}, {}
    else:
        tensors = list(source.state_dict() if only is None else only)
        modules = dict(source.named_modules(remove_duplicate=False))
        of_class = {path: kind for path, module in modules.items() if (kind := kind_of(module))}
    stated = _stated(kinds, (_parent(tensor, ".") for tensor in tensors))
    known = {**of_class, **stated}
    pairs = []
    for tensor in tensors:
        layer = tensor if tensor in known else _parent(tensor, ".")
        if layer not in known:
            raise _unknown_kind(tensor, layer, modules.get(layer))
        pairs.append(_pair(layer, tensor, known[layer], names or {}))
    _require_complete(pairs, known)
    _require_used(stated, {pair.layer for pair in pairs}, "kinds")
    _require_used(names or {}, _prefixes(pair.layer for pair in pairs), "names")
    return Layout(tuple(pairs))


def layout_of_flax(
    paths: Collection[str], *, names: Names | None = None, kinds: Kinds | None = None
) -> Layout:
    """The map where Flax leaves are all there is; it is the one that `layout` makes of the others.

    Raises:
        UsageError: As `layout`. That `names` lead back to the same paths is for `to_torch` to see.
    """
    back = {flax: torch for torch, flax in (names or {}).items()}
    stated = {} if isinstance(kinds, str | None) else kinds
    tensors = {}
    for path in paths:
        whole = _renamed(path, back, "/", ".")
        layer = whole if whole in stated else _renamed(_parent(path, "/"), back, "/", ".")
        kind = kinds if isinstance(kinds, str) else stated.get(layer)
        if kind is None:
            raise _unknown_kind(whole, layer)
        leaf = "" if layer == whole and whole in stated else path.rpartition("/")[2]
        leaves = {leaf.flax: leaf.torch for leaf in find_layer(kind, layer).leaves}
        if leaf not in leaves:
            raise unknown_choice(f"leaf of {layer!r}, a {kind},", leaf, leaves)
        tensors[_join(layer, leaves[leaf], ".")] = path
    return layout(tensors, names=names, kinds=kinds)


def require_names(
    found: Collection[str], expected: Collection[str], where: str, remedy: str = IN_NAMES
) -> None:
    """Raises a `UsageError` that names what is missing in `found`, and what is left over."""
    missing = [name for name in expected if name not in found]
    leftover = [name for name in found if name not in set(expected)]
    if missing or leftover:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(leftover)} left over"] if leftover else []
        raise UsageError(f"{where} {' and '.join(parts)}; {remedy}")


def require_shapes(
    arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], axes: Mapping[str, Any], where: str
) -> None:
    """Raises a `UsageError` unless each array has its shape; `axes` says which were permuted."""
    for name, array in arrays.items():
        if array.shape == shapes[name]:
            continue
        hint = ""
        if sorted(array.shape) == sorted(shapes[name]):
            done = f"permuted by {axes[name]}" if axes[name] else "left as they are"
            hint = f": its kind says that the axes are {done}, and that is not what this needs"
        raise UsageError(
            f"{name} becomes {list(array.shape)}, and {where} has {list(shapes[name])}{hint}"
        )


def _pair(layer: str, tensor: str, kind: str, names: Names) -> Pair:
    name = "" if tensor == layer else tensor.rpartition(".")[2]
    leaves = {leaf.torch: leaf for leaf in find_layer(kind, layer).leaves}
    if name not in leaves:
        raise unknown_choice(f"tensor of {layer!r}, a {kind},", name, leaves)
    leaf = leaves[name]
    return Pair(tensor, _join(_renamed(layer, names, ".", "/"), leaf.flax, "/"), leaf.axes, layer)


def _require_complete(pairs: list[Pair], kinds: Mapping[str, str]) -> None:
    present = {pair.torch for pair in pairs}
    for layer in dict.fromkeys(pair.layer for pair in pairs):
        for leaf in find_layer(kinds[layer], layer).leaves:
            name = _join(layer, leaf.torch, ".")
            if not leaf.optional and name not in present:
                raise UsageError(f"{name} is missing, and a {kinds[layer]} has one")
    for path, number in Counter(pair.flax for pair in pairs).items():
        if number > 1:
            both = " and ".join(pair.torch for pair in pairs if pair.flax == path)
            raise UsageError(f"{both} would both become {path}: give one another name in names=")


def _require_used(stated: Mapping[str, str], used: Collection[str], field: str) -> None:
    for path in stated:
        if path not in used:
            raise unknown_choice(f"an entry of {field}", path, sorted(used))


def _stated(kinds: Kinds | None, layers: Iterable[str]) -> Mapping[str, str]:
    return dict.fromkeys(layers, kinds) if isinstance(kinds, str) else kinds or {}


def _unknown_kind(tensor: str, layer: str, module: Any = None) -> UsageError:
    owner = f"layer {layer!r}" if module is None else f"a {type(module).__name__}"
    return UsageError(
        f"{tensor} belongs to {owner}, of which the kind is not known: state kinds={{{layer!r}: …}}"
        f", or kinds={{{tensor!r}: 'Parameter'}} if the array itself is laid out alike on both "
        "sides, or give the layer's class an entry in parity.convert.REGISTRY"
    )


def _renamed(path: str, names: Names, separator: str, new: str) -> str:
    """`path` with its longest prefix that `names` has replaced, and the other separator."""
    parts = path.split(separator) if path else []
    for length in range(len(parts), -1, -1):
        prefix = separator.join(parts[:length])
        if prefix in names:
            return _join(names[prefix], new.join(parts[length:]), new)
    return new.join(parts)


def _prefixes(paths: Iterable[str]) -> set[str]:
    """Every module on the way to a path, the root `""` included."""
    every = [path.split(".") for path in paths]
    return {".".join(parts[:length]) for parts in every for length in range(len(parts) + 1)}


def _parent(path: str, separator: str) -> str:
    return path.rpartition(separator)[0]


def _join(parent: str, name: str, separator: str) -> str:
    return f"{parent}{separator}{name}" if parent and name else parent or name


def _permuted(array: np.ndarray, pair: Pair, *, back: bool = False) -> np.ndarray:
    if pair.axes is None:
        return np.array(array)
    if array.ndim != len(pair.axes):
        raise UsageError(
            f"{pair.flax if back else pair.torch} has the shape {list(array.shape)}, "
            f"accepted are {len(pair.axes)} axes"
        )
    axes = np.argsort(pair.axes) if back else pair.axes
    return np.array(np.transpose(array, axes), order="C")
