"""What the stages of a pipeline are given: the inputs, and the reference's earlier outputs.

Each side gets the same numbers in its own structure: a named tuple of the candidate's is rebuilt
as that, with the reference's values in it.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from parity import sides
from parity.inputs import Inputs
from parity.signatures import called
from parity.tolerance import Arrays
from pgcore.errors import UsageError, require, unknown_choice

SIDES = ("reference", "candidate")
PRECISION = "the precision of the run"
"""An input for stages that have no floating one: it says what precision to compute in."""


class Feed:
    """Inputs and fed outputs by name, and by which names each stage's output is known.

    Attributes:
        trees: By side and name, in the side's own structure.
        takes: By side and stage, the names that its callable is given.
        binds: By stage, the names that its output is known by, and the entry that each stands for;
            `None` for the whole.
        drawn: The names that the initialisation's parameters are known by.
    """

    def __init__(self, inputs: Mapping[str, Any], stages: Collection[str]) -> None:
        given = Inputs(inputs)
        self.notes = given.notes
        self.inputs = [*inputs]
        self.drawn: list[str] = []
        made = ("gradient", "gradients") if "loss" in stages else ()
        for name in inputs:
            if name in (*stages, *made):
                raise UsageError(
                    f"inputs has {name!r}, which is a stage too, accepted are names of their own: "
                    "rename the input, for a stage is given it by name"
                )
        tree = rebuilt(dict(inputs), given.arrays)
        self.trees: dict[str, dict[str, Any]] = {side: dict(tree) for side in SIDES}
        self.takes: dict[str, dict[str, list[str]]] = {side: {} for side in SIDES}
        self.binds: dict[str, dict[str, Any]] = {}

    def take(self, side: str, stage: str, function: Callable[..., Any]) -> list[str]:
        """The names that a stage's callable is given, noted for later.

        Raises:
            UsageError: It has a parameter that is not known by then.
        """
        found = parameters(function, self.trees[side], f"stage {stage!r} of the {side}")
        self.takes[side][stage] = found
        return found

    def roots(self) -> list[str]:
        """What no stage of an update makes: the inputs, and what initialisation has drawn."""
        taken = {name for each in self.takes.values() for names in each.values() for name in names}
        drawn = [name for name in self.drawn if name in taken]
        return [*dict.fromkeys([*self.inputs, *drawn, "params"])]

    def arrays(self, names: Iterable[str]) -> dict[str, Any]:
        """The values by path, with a precision even where none of them is floating."""
        found = sides.flat({name: self.trees["reference"][name] for name in names})
        if any(_is_floating(leaf) for leaf in found.values()):
            return found
        return {**found, PRECISION: np.zeros(())}

    def call(
        self, side: str, function: Callable[..., Any], names: Collection[str]
    ) -> Callable[..., Any]:
        """The function, fed from arrays by path, in the side's structure."""
        template = {name: self.trees[side][name] for name in names}
        return lambda **tree: function(**rebuilt(template, sides.flat(tree)))

    def put(
        self,
        stage: str,
        structures: Mapping[str, Any],
        outputs: Arrays,
        *,
        by_entries: bool = True,
    ) -> None:
        """Feeds a stage's output from now on, its floating arrays rounded to float32.

        It is known by the stage's name, and its entries by theirs, unless that is taken.
        """
        leaves = {path: _rounded(array) for path, array in under(stage, outputs).items()}
        tree = {side: rebuilt(structures[side], leaves, stage) for side in SIDES}
        keys = {str(key): key for key in entries(tree["reference"])} if by_entries else {}
        own = {name: key for name, key in keys.items() if name not in self.trees["reference"]}
        self.binds[stage] = {**own, stage: None}
        for side in SIDES:
            self.trees[side] |= self.named(stage, tree[side])

    def root(self, name: str, tree: Any) -> None:
        """Makes a tree of float32 numbers known, as an input is."""
        for side in SIDES:
            self.trees[side][name] = tree

    def alias(self, stage: str, name: str, entry: Any = None) -> None:
        """Lets a stage's output be known by one more name, or by that from now on."""
        if name in self.inputs:
            return
        self.binds[stage][name] = entry
        for side in SIDES:
            self.trees[side][name] = part(self.trees[side][stage], entry)

    def named(self, stage: str, tree: Any) -> dict[str, Any]:
        """A stage's output by all names that it is known by."""
        return {name: part(tree, key) for name, key in self.binds[stage].items()}


class Recorded:
    """A callable that remembers the structure of what it last returned."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.structure: Any = None

    def __call__(self, **tree: Any) -> Any:
        """Calls it."""
        output = self._function(**tree)
        self.structure = structure_of(output)
        return output


def parameters(function: Callable[..., Any], known: Collection[str], field: str) -> list[str]:
    """The known names that a callable takes.

    Raises:
        UsageError: It needs another, takes one by position alone, or its parameters can't be read.
    """
    try:
        found = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError) as error:
        accepted = "a callable whose parameters can be read: wrap it in a function"
        raise UsageError(f"{field} is {called(function)}, accepted is {accepted}") from error
    names = []
    for parameter in found:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        accepted = "one that can be passed by name: wrap the stage in a function"
        by_name = parameter.kind is not parameter.POSITIONAL_ONLY
        require(by_name, f"a parameter of {field}", parameter.name, accepted)
        if parameter.name in known:
            names.append(parameter.name)
        elif parameter.default is parameter.empty:
            raise unknown_choice(f"a parameter of {field}", parameter.name, known)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in found)
    return [*known] if takes_all else names


def rebuilt(tree: Any, leaves: Mapping[str, Any], path: str = "") -> Any:
    """`tree` with its leaves from `leaves`, by path."""

    def child(key: object, subtree: Any) -> Any:
        return rebuilt(subtree, leaves, f"{path}/{key}" if path else str(key))

    if isinstance(tree, Mapping):
        return {key: child(key, each) for key, each in tree.items()}
    if isinstance(tree, tuple) and (fields := getattr(tree, "_fields", None)):
        return type(tree)(*(child(*pair) for pair in zip(fields, tree, strict=True)))
    if isinstance(tree, tuple | list):
        return type(tree)(child(*pair) for pair in enumerate(tree))
    return None if tree is None else leaves[path]


def structure_of(tree: Any) -> Any:
    """The tree with nothing in it but paths, so that `rebuilt` can fill it."""
    return rebuilt({"root": tree}, {path: path for path in sides.flat({"root": tree})})["root"]


def under(name: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of a lone tree as `sides.flat` names them, by their paths below `name`."""
    if [*leaves] == ["value"]:
        return {name: leaves["value"], f"{name}/value": leaves["value"]}
    return {f"{name}/{path}": leaf for path, leaf in leaves.items()}


def part(tree: Any, key: Any) -> Any:
    """An entry of a mapping or a named tuple; the whole for `None`."""
    if key is None:
        return tree
    return tree[key] if isinstance(tree, Mapping) else getattr(tree, key)


def entries(tree: Any) -> list[Any]:
    """The keys of a mapping or a named tuple; none of anything else."""
    if isinstance(tree, Mapping):
        return [*tree]
    return list(getattr(tree, "_fields", ()))


def _rounded(leaf: Any) -> Any:
    if not _is_floating(leaf):
        return leaf
    with np.errstate(over="ignore"):
        return leaf.astype(np.float32).astype(np.float64)


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating)
