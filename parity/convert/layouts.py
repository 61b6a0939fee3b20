"""How the map is found: from the names of tensors, the kinds of layers and what is stated."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from parity.convert.layers import Layer, find_layer, kind_of
from parity.convert.leaves import Leaf
from parity.convert.pairs import Layout, Pair
from pgcore.errors import UsageError, unknown_choice

Names = Mapping[str, str]
"""Torch module path to Flax module path, `{"actor.linear1": "actor/Dense_0"}`. What is below a
module goes with it; the longest path decides; a path that is not named keeps its name. A layer of
an LSTM is below it: `lstm.l0`, `lstm.l1`, `lstm.l0_reverse`."""
Kinds = Mapping[str, str] | str
"""Torch layer path to its kind in the registry; a kind alone is that of every layer."""
STACKED = re.compile(r"(.+)_(l\d+(?:_reverse)?)")
"""A tensor of a torch module that stacks layers: the tensor's name in its layer, and the layer."""


class _Owned(NamedTuple):
    """A tensor, the module whose kind is known, the layer in it, and the tensor's name in that."""

    tensor: str
    module: str
    layer: str
    name: str


def layout(
    source: Any,
    *,
    names: Names | None = None,
    kinds: Kinds | None = None,
    only: Collection[str] | None = None,
    like: Collection[str] | None = None,
) -> Layout:
    """The map from the tensors of a torch module to Flax leaves.

    Args:
        source: The module; or its tensors by name, a `state_dict`.
        names: Torch module paths to Flax module paths, where they differ.
        kinds: The kind of each layer that its class does not tell: all, if there is no module. A
            stated kind goes before the class's.
        only: The tensors to map; by default all that the source has.
        like: The paths of the Flax tree. Where Linen, NNX and Equinox call a layer's arrays
            otherwise, they say which it is; without them it is Linen.

    Raises:
        UsageError: The kind of a layer is not known, a tensor is none of its kind's leaves, a
            required leaf is missing, two tensors would become one leaf that are not tied, or an
            entry of `names` or `kinds` is of no use.
    """
    if isinstance(source, Mapping):
        tensors, of_class, modules = list(source if only is None else only), {}, {}
    else:
        tensors = list(source.state_dict() if only is None else only)
        modules = dict(source.named_modules(remove_duplicate=False))
        of_class = {path: kind for path, module in modules.items() if (kind := kind_of(module))}
    stated = _stated(kinds, (_parent(tensor, ".") for tensor in tensors))
    known = {**of_class, **stated}
    owned = [_owner(tensor, known, stated, modules) for tensor in tensors]
    layers: dict[tuple[str, str], list[_Owned]] = defaultdict(list)
    for tensor in owned:
        layers[tensor.module, tensor.layer].append(tensor)
    found: dict[str, list[Pair]] = {}
    for (module, layer), members in layers.items():
        base = _renamed(layer, names or {}, ".", "/")
        for tensor, pairs in _layer_pairs(base, known[module], members, set(like or ())):
            found[tensor] = pairs
    pairs = tuple(pair for tensor in tensors for pair in found[tensor])
    _require_apart(pairs, source)
    _require_used(stated, {tensor.module for tensor in owned}, "kinds")
    _require_used(names or {}, _prefixes(tensor.layer for tensor in owned), "names")
    return Layout(pairs)


def kinds_of(module: Any, only: Collection[str]) -> dict[str, str]:
    """The kinds of the layers of a torch module that have these tensors, where the class tells."""
    modules = dict(module.named_modules(remove_duplicate=False))
    known = {path: kind for path, each in modules.items() if (kind := kind_of(each))}
    found = {}
    for tensor in only:
        try:
            owner = _owner(tensor, known, {}, modules).module
        except UsageError:  # to be stated by whoever needs it
            continue
        found[owner] = known[owner]
    return found


def layout_of_flax(
    paths: Collection[str], *, names: Names | None = None, kinds: Kinds | None = None
) -> Layout:
    """The map where Flax leaves are all there is; it is the one that `layout` makes of the others.

    Raises:
        UsageError: As `layout`. That `names` lead back to the same paths is for `to_torch` to see.
    """
    back = {flax: torch for torch, flax in (names or {}).items()}
    tensors = {tensor: None for path in paths for tensor in _torch_names(path, back, kinds)}
    return layout(tensors, names=names, kinds=kinds, like=paths)


def _torch_names(path: str, back: Names, kinds: Kinds | None) -> list[str]:
    """The torch tensors that a Flax leaf is of: two, where it is their sum."""
    parts = path.split("/")
    refused: UsageError | None = None
    for length in range(len(parts), -1, -1):
        layer, leaf = "/".join(parts[:length]), "/".join(parts[length:])
        module = _renamed(layer, back, "/", ".")
        stacked, sub = module, ""
        if re.fullmatch(r"l\d+(_reverse)?", module.rpartition(".")[2]):
            stacked, sub = _parent(module, "."), f"_{module.rpartition('.')[2]}"
        for owner, suffix in ((module, ""), (stacked, sub)):
            kind = kinds if isinstance(kinds, str) else (kinds or {}).get(owner)
            if kind is None:
                continue
            entry = find_layer(kind, owner)
            if entry.stacked != bool(suffix):
                continue
            known = [known for form in (entry.leaves, *entry.forms) for known in form]
            if found := [known.torch for known in known if known.flax == leaf]:
                return [_join(owner, f"{name}{suffix}", ".") for name in dict.fromkeys(found)]
            of = (known.flax for known in known if known.flax)
            refused = refused or unknown_choice(
                f"leaf of {owner!r}, a {kind},", leaf, dict.fromkeys(of)
            )
    whole = _renamed(path, back, "/", ".")
    raise refused or _unknown_kind(whole, _renamed(_parent(path, "/"), back, "/", "."))


def _owner(
    tensor: str, known: Mapping[str, str], stated: Mapping[str, str], modules: Mapping[str, Any]
) -> _Owned:
    """The outermost known module that has such a leaf, unless a stated one is nearer."""
    parts = tensor.split(".")
    paths = [".".join(parts[:length]) for length in range(len(parts) + 1)]
    near = [path for path in reversed(paths[-2:]) if path in stated]
    for path in near + [path for path in paths if path in known]:
        layer, rest = find_layer(known[path], path), tensor.removeprefix(path).removeprefix(".")
        if owned := _named(tensor, path, rest, layer):
            return owned
    nearest = next((path for path in reversed(paths[-2:]) if path in known), None)
    if nearest is None:
        raise _unknown_kind(tensor, paths[-2], modules.get(paths[-2]))
    accepted = _leaf_names(find_layer(known[nearest], nearest))
    rest = tensor.removeprefix(nearest).removeprefix(".")
    raise unknown_choice(f"tensor of {nearest!r}, a {known[nearest]},", rest, accepted)


def _named(tensor: str, path: str, rest: str, layer: Layer) -> _Owned | None:
    if not layer.stacked:
        return _Owned(tensor, path, path, rest) if rest in _leaf_names(layer) else None
    match = STACKED.fullmatch(rest)
    if match is None or match[1] not in _leaf_names(layer):
        return None
    return _Owned(tensor, path, _join(path, match[2], "."), match[1])


def _leaf_names(layer: Layer) -> list[str]:
    return list(dict.fromkeys(leaf.torch for leaf in layer.leaves))


def _layer_pairs(
    base: str, kind: str, members: list[_Owned], like: Collection[str]
) -> Iterator[tuple[str, list[Pair]]]:
    """The pairs of a layer, a tensor at a time, in the form that the Flax tree has it in."""
    layer = find_layer(kind, members[0].layer)
    present = {member.name for member in members}
    forms = (layer.leaves, *layer.forms)

    def paths(form: tuple[Leaf, ...]) -> list[str]:
        return [_path(leaf, base) for leaf in form if leaf.torch in present and _has_place(leaf)]

    whole = [form for form in forms if all(path in like for path in paths(form))]
    # If none is all there, the nearest one: the error then names what is missing.
    form = whole[0] if whole else max(forms, key=lambda f: sum(path in like for path in paths(f)))
    for leaf in form:
        if not leaf.optional and leaf.torch not in present:
            missing = _join(members[0].layer, leaf.torch, ".")
            raise UsageError(f"{missing} is missing, and a {kind} has one")
    for member in members:
        leaves = [leaf for leaf in form if leaf.torch == member.name]
        yield (
            member.tensor,
            [
                Pair(
                    member.tensor,
                    _path(leaf, base) if _has_place(leaf) else "",
                    leaf,
                    member.layer,
                    kind,
                )
                for leaf in leaves
            ],
        )


def _has_place(leaf: Leaf) -> bool:
    return leaf.role in ("carried", "added")


def _path(leaf: Leaf, base: str) -> str:
    return _join(leaf.collection, _join(base, leaf.flax, "/"), "/")


def _require_apart(pairs: Collection[Pair], source: Any) -> None:
    """Raises a `UsageError` if two tensors become one leaf that are not one tensor in torch."""
    tensors = {} if isinstance(source, Mapping) else source.state_dict(keep_vars=True)
    first: dict[str, Pair] = {}
    for pair in pairs:
        if pair.leaf.role != "carried":
            continue
        other = first.setdefault(pair.flax, pair)
        if other is pair:
            continue
        tied = tensors and tensors[pair.torch] is tensors[other.torch] and pair.leaf == other.leaf
        if not tied:
            both = f"{other.torch} and {pair.torch}"
            raise UsageError(
                f"{both} would both become {pair.flax}: give one another name in names="
            )


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
