"""A tape: every value that a computation made, in order, with what it was made of and where."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.locate.places import Location, Mark, location
from parity.locate.syntax import statement

Key = tuple[Any, ...]
"""What is the same operation in every run: where it is in the program, and how often before."""


NUMBER = "number"
"""What makes a plain number that PyTorch's operation was given."""
LITERALS = (NUMBER, "constant")
"""What makes a number that is written, or that only Python computed."""


class Entry(NamedTuple):
    """One value of one run.

    Attributes:
        key: Which operation made it.
        op: What that is called.
        parents: The values that it was made of, by their places on the tape.
        array: What was made.
        numbers: The plain numbers that the operation was given.
        marks: The person's lines that asked for it, the innermost first.
        module: The path of the module that computes there.
        node: PyTorch's number of its step in the graph of gradients, if it is in it.
    """

    key: Key
    op: str
    parents: tuple[int, ...]
    array: np.ndarray
    numbers: tuple[float, ...] = ()
    marks: tuple[Mark, ...] = ()
    module: str = ""
    node: int | None = None


class Recording(NamedTuple):
    """One run: its values, and which of them are inputs and outputs, by path."""

    entries: list[Entry]
    inputs: dict[str, int]
    outputs: dict[str, int]


class Value(NamedTuple):
    """One value at every input set.

    Attributes:
        index: Its place on the tape.
        op: What made it.
        parents: What it was made of.
        arrays: What it is, at each input set.
        numbers: The plain numbers that the operation was given.
        marks: The person's lines that asked for it, the innermost first.
        module: The path of the module that computes there.
        iteration: How often a loop had come by before.
        is_input: Whether it is one of the inputs.
        varies: Whether it depends on the inputs' numbers.
        group: What the values of all iterations have in common.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    op: str
    parents: tuple[int, ...]
    arrays: tuple[np.ndarray, ...]
    numbers: tuple[float, ...]
    marks: tuple[Mark, ...]
    module: str
    iteration: int | None
    is_input: bool
    varies: bool
    group: Key

    @property
    def is_plain(self) -> bool:
        """Whether it says nothing: one number, everywhere and whatever the inputs are."""
        first = self.arrays[0]
        return not (self.is_input or self.varies) and (
            first.size <= 1 or bool(np.all(first == first.flat[0]))
        )

    @property
    def place(self) -> Location | None:
        """The innermost line of a person's that asked for it."""
        return self.place_at(0) if self.marks else None

    def place_at(self, depth: int) -> Location:
        """The line so many calls further out."""
        return location(self.marks[depth], module=self.module, iteration=self.iteration)

    @property
    def code(self) -> str:
        """The text of the innermost statement."""
        return statement(self.marks[0]) if self.marks else ""


class Tape(NamedTuple):
    """The values of a computation at all input sets, with its inputs and outputs by path.

    What one of the runs alone did, a branch or a loop's last round, is not on it.
    """

    values: list[Value]
    inputs: dict[str, int]
    outputs: dict[str, int]
    places: list[list[int]]
    """For each run, where on its own tape each value is."""

    def ancestors(self, starts: Sequence[int]) -> set[int]:
        """These values and all that they were made of."""
        found, open_ = set(starts), list(starts)
        while open_:
            for parent in self.values[open_.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    open_.append(parent)
        return found

    def consumers(self) -> list[list[int]]:
        """For each value the values that were made of it."""
        found: list[list[int]] = [[] for _ in self.values]
        for value in self.values:
            for parent in dict.fromkeys(value.parents):
                found[parent].append(value.index)
        return found

    def families(self) -> Iterator[list[int]]:
        """The values of one operation at several iterations, where they are of one shape.

        Those of one line that is called from several are such a family too.
        """
        loops: dict[Key, list[int]] = {}
        lines: dict[Key, list[int]] = {}
        for value in self.values:
            loops.setdefault(value.group, []).append(value.index)
            if value.marks:
                key = (*value.marks[0], value.op, value.group[-1])
                lines.setdefault(key, []).append(value.index)
        found: set[tuple[int, ...]] = set()
        for members in (*loops.values(), *lines.values()):
            by_shape: dict[Any, list[int]] = {}
            for index in members:  # a loop over parameters has values of several shapes
                shapes = tuple(array.shape for array in self.values[index].arrays)
                by_shape.setdefault(shapes, []).append(index)
            found |= {tuple(alike) for alike in by_shape.values() if len(alike) > 1}
        for members in sorted(found, key=lambda each: (len(each), each)):
            if self._are_of_one_shape(members):
                yield [*members]

    def operand_families(self) -> Iterator[list[int]]:
        """What the values of a family were made of, where that is no family itself.

        The value after a step is the next one's, and of the last step another: a loop that tells
        them apart computes them on two lines, and goes on with either on one.
        """
        known = {tuple(each) for each in self.families()}
        open_ = [*known]
        while open_:
            members = open_.pop()
            parents = [self.values[i].parents for i in members]
            if len({*map(len, parents)}) > 1 or len({self.values[i].op for i in members}) > 1:
                continue
            for operands in zip(*parents, strict=True):
                is_new = operands not in known and operands[::-1] not in known
                is_family = len({*operands}) == len(operands) > 2
                if is_new and is_family and self._are_of_one_shape(operands):
                    known.add(operands)
                    open_.append(operands)
                    yield [*operands]

    def _are_of_one_shape(self, members: Sequence[int]) -> bool:
        return len({array.shape for i in members for array in self.values[i].arrays}) == 1


def joined(recordings: Sequence[Recording]) -> Tape:
    """Several runs of one program as one tape."""
    positions = [
        {entry.key: place for place, entry in enumerate(each.entries)} for each in recordings
    ]
    first = recordings[0]
    common = set(positions[0]).intersection(*positions[1:])
    # An ancestor that one run lacks is left out: its own ancestors stand in for it.
    standing: dict[int, tuple[int, ...]] = {}
    values: list[Value] = []
    sizes = Counter(entry.key[:-1] for entry in first.entries)
    inputs = {place: path for path, place in first.inputs.items()}
    for place, entry in enumerate(first.entries):
        parents = tuple(dict.fromkeys(p for each in entry.parents for p in standing[each]))
        if entry.key not in common:
            standing[place] = parents
            continue
        arrays = tuple(
            each.entries[where[entry.key]].array
            for each, where in zip(recordings, positions, strict=True)
        )
        standing[place] = (len(values),)
        values.append(
            Value(
                len(values),
                entry.op,
                parents,
                arrays,
                entry.numbers,
                entry.marks,
                entry.module,
                _iteration(entry.key) if sizes[entry.key[:-1]] > 1 else None,
                place in inputs,
                not all(np.array_equal(arrays[0], each, equal_nan=True) for each in arrays[1:]),
                entry.key[:-1],
            )
        )
    keys = [
        entry.key
        for place, entry in enumerate(first.entries)
        if standing[place] and entry.key in common
    ]
    return Tape(
        values,
        {path: standing[place][0] for path, place in first.inputs.items()},
        {path: standing[place][0] for path, place in first.outputs.items() if standing[place]},
        [[where[key] for key in keys] for where in positions],
    )


def as_array(value: Any) -> np.ndarray | None:
    """A number, a flag or an array of them as NumPy's; `None` of anything else."""
    array = np.asarray(value)
    return array if array.dtype.kind in "biufc" else None


def _iteration(key: Key) -> int:
    """How often the innermost loop had come by before."""
    return key[-1][-1] if isinstance(key[-1], tuple) else key[-1]
