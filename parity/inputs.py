"""The inputs of `parity.check`: arrays by path, and callables that are fed from them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from parity import sides
from pgcore.errors import UsageError, unknown_choice


class Inputs:
    """The inputs as arrays by path, and callables that take them as they were given."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self.arrays: dict[str, Any] = {}
        self.notes: list[str] = []
        self._template = dict(inputs)
        self._copies: dict[str, Any] = {}
        for path, leaf in sides.flat(self._template).items():
            self.arrays[path] = self._leaf(path, leaf)
        if not any(_is_floating(leaf) for leaf in self.arrays.values()):
            raise UsageError(
                f"inputs has {', '.join(map(_kind, inputs.items())) or 'nothing'}, accepted is at "
                "least one floating array, whose precision the two sides compute in (plain numbers "
                "and lists of them are constants): np.array(…) makes a list an array"
            )
        self.notes += [
            f"input {name} is a list of numbers, which are constants and not differentiated; "
            f"np.array({name}) is an array"
            for name, value in inputs.items()
            if isinstance(value, list | tuple) and any(isinstance(each, float) for each in value)
        ]

    def _leaf(self, path: str, leaf: Any) -> Any:
        """A leaf as a NumPy array, in float64 if it is floating, or as the constant that it is."""
        self._copies[path] = leaf
        if not hasattr(leaf, "shape"):
            return leaf
        array = np.array(leaf.detach().cpu() if hasattr(leaf, "detach") else leaf)
        self._copies[path] = array
        if not np.issubdtype(array.dtype, np.floating):
            return array
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float32).astype(np.float64)
        if not np.array_equal(rounded, array, equal_nan=True):
            self.notes.append(f"input {path} was rounded to float32")
        return rounded

    @property
    def tree(self) -> dict[str, Any]:
        """The inputs as they were given: the caller may have changed the arrays since."""
        return _rebuilt(self._template, self._copies)

    def call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, fed from arrays by path."""
        return lambda **tree: function(**_rebuilt(self._template, sides.flat(tree)))

    def call_renamed(
        self, function: Callable[..., Any], rename: Mapping[str, str]
    ) -> Callable[..., Any]:
        """The function fed likewise by its own names, with its outputs under the reference's."""
        of_inputs = prefixes(self.arrays)
        theirs = {new: old for old, new in rename.items() if old not in of_inputs}

        def call(**tree: Any) -> dict[str, Any]:
            outputs = function(**_rebuilt(self._template, sides.flat(tree), rename))
            return {renamed(path, theirs): leaf for path, leaf in sides.flat(outputs).items()}

        return call

    def differentiated(self, wrt: Collection[str] | None, held: Collection[str]) -> list[str]:
        """The paths of the floating arrays that `wrt` names, by default all; none that is `held`.

        Raises:
            UsageError: `wrt` names what is no floating input, or is held.
        """
        moving = [p for p, leaf in self.arrays.items() if _is_floating(leaf) and p not in held]
        require_known("wrt", wrt or (), prefixes(moving))
        if wrt is None:
            return moving
        return [p for p in moving if any(p == name or p.startswith(f"{name}/") for name in wrt)]


def require_known(field: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises a `UsageError` for the first of the names that is not known."""
    for name in names:
        if name not in known:
            raise unknown_choice(field, name, known)


def _rebuilt(
    tree: Any, leaves: Mapping[str, Any], rename: Mapping[str, str] | None = None, path: str = ""
) -> Any:
    """`tree` with its leaves from `leaves`, by path, and its keys renamed."""

    def inner(key: object) -> str:
        return f"{path}/{key}" if path else str(key)

    def child(key: object, subtree: Any) -> Any:
        return _rebuilt(subtree, leaves, rename, inner(key))

    if isinstance(tree, Mapping):
        names = {key: (rename or {}).get(inner(key), key) for key in tree}
        return {names[key]: child(key, each) for key, each in tree.items()}
    if isinstance(tree, tuple) and (fields := getattr(tree, "_fields", None)):
        return type(tree)(*(child(*pair) for pair in zip(fields, tree, strict=True)))
    if isinstance(tree, tuple | list):
        return type(tree)(child(*pair) for pair in enumerate(tree))
    return None if tree is None else leaves[path]


def renamed(path: str, names: Mapping[str, str]) -> str:
    """`path` with its longest beginning that has another name replaced by that."""
    parts = path.split("/")
    for end in range(len(parts), 0, -1):
        if (new := names.get("/".join(parts[:end]))) is not None:
            return "/".join([new, *parts[end:]])
    return path


def prefixes(paths: Iterable[str]) -> list[str]:
    """The paths, and everything that they are below."""
    found = {}
    for path in paths:
        parts = path.split("/")
        found |= {"/".join(parts[:end]): None for end in range(1, len(parts) + 1)}
    return list(found)


def _kind(item: tuple[str, Any]) -> str:
    """An input by its name and what it is: `x (a list)`, `mask (bool)`."""
    name, value = item
    return f"{name} ({getattr(value, 'dtype', None) or f'a {type(value).__name__}'})"


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating)
