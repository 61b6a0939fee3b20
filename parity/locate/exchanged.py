"""Two things in one another's place: pieces of a value, parameters, or the axes of a reshape.

Then no value alone mends an output, for two are wrong at once, and each of them is a number that
PyTorch has.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, islice, product
from typing import Any

from parity.locate.correspondence import first_difference
from parity.locate.jax_tape import JaxRun
from parity.locate.kinds import ARRANGING, LAYOUTS, base_of
from parity.locate.plain import Plain
from parity.locate.repairs import Target
from parity.locate.reruns import Edit
from parity.locate.trials import Trials

PIECES = (ARRANGING - LAYOUTS) | {"squeeze", "reshape", "scan input"}
"""What makes a piece of a value."""
MOST_PIECES = 6
MOST_PAIRS = 12
"""So many pairs of parameters, and lines with a reshape, are tried."""


class Exchanges(Trials):
    """The exchanges that a wrong output is tried with."""

    def __init__(
        self, search: Plain, runs: Sequence[JaxRun], target: Target, inside: set[int]
    ) -> None:
        """Args: `inside`, the values that lead to what is to be explained."""
        super().__init__(search, runs, target)
        self._inside = inside

    def found(self) -> tuple[int, int] | None:
        """The first value made of one thing in place of another, and which of its lines it is."""
        for pair in self._siblings():
            if self._are_exchanged({pair[0]: pair[1], pair[1]: pair[0]} | self._in_turns(pair)):
                return pair[0], self._search.depth_of(pair[0])
        for pairs in islice(self._parameters(), MOST_PAIRS):
            swaps = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
            if self._are_exchanged(swaps):
                return self._first_unlike(pairs)
        for members in islice(self._reshaped(), MOST_PAIRS):
            if self._are_regrouped(members):
                return members[0], self._search.depth_of(members[0])
        return None

    def _first_unlike(self, pairs: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """The first value made of one of two parts, and which of its lines the other's has not."""
        uses = (set().union(*map(self._search.users, each)) for each in zip(*pairs, strict=True))
        one, other = (min(each, default=None) for each in uses)
        if one is None or other is None:
            return None
        one, other = sorted((one, other))
        depth = first_difference(self._values[one], self._values[other])
        return one, min(depth, len(self._values[one].marks) - 1)

    def _siblings(self) -> Iterator[tuple[int, int]]:
        """Pairs of pieces of one value, the first of each in a loop, that lead to the wrong one."""
        near_by = self._inside | {p for i in self._inside for p in self._values[i].parents}
        pieces: dict[Any, list[int]] = {}
        for value in (self._values[i] for i in sorted(near_by)):
            if base_of(value) in PIECES and value.marks and not value.is_plain:
                key = value.parents[:1], value.op, value.arrays[0].shape, value.marks[0]
                pieces.setdefault(key, []).append(value.index)
        for found in pieces.values():
            yield from combinations(found[:MOST_PIECES], 2)

    def _in_turns(self, pair: tuple[int, int]) -> dict[int, int]:
        """The same pieces in the other turns of a loop."""
        families = [*self._search.jax.families()]
        ones, others = ([members for members in families if i in members] for i in pair)
        swaps: dict[int, int] = {}
        for one, other in product(ones, others):
            if len(one) == len(other):
                swaps = {a: b for p in zip(one, other, strict=True) for a, b in (p, p[::-1])}
        return swaps

    def _parameters(self) -> Iterator[list[tuple[int, int]]]:
        """Inputs of two parts with the same names and shapes: of two layers, or networks."""
        inputs = self._search.jax.inputs
        parts: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
        for path, index in inputs.items():
            names = tuple(re.split(r"[/.]", path))  # of a tree, or of a module's
            for end in range(1, len(names)):
                parts.setdefault(names[:end], {})[names[end:]] = index
        for one, other in combinations(parts, 2):
            mine, others = parts[one], parts[other]
            if len(one) == len(other) and [*mine] == [*others]:
                pairs = [(mine[name], others[name]) for name in mine]
                if all(self._shape(a) == self._shape(b) for a, b in pairs):
                    yield pairs

    def _shape(self, index: int) -> tuple[int, ...]:
        return self._values[index].arrays[0].shape

    def _are_exchanged(self, swaps: dict[int, int]) -> bool:
        """Whether the target comes out with one value for the other, in all that they are used."""
        users = {c for i in swaps for c in self.consumers[i]} - {*swaps}

        def edits(s: int) -> dict[int, Edit]:
            where, found = self._search.jax.places[s], {}
            for user in users:
                others = {
                    where[p]: where[swaps[p]] for p in self._values[user].parents if p in swaps
                }
                given = {p: lambda value, other=other: value(other) for p, other in others.items()}
                found[user] = Edit(given, needs=tuple(others.values()))
            return found

        return self.comes_out(edits)

    def _reshaped(self) -> Iterator[list[int]]:
        """The values for which one line splits an axis, or joins two, on the way to the target."""
        leading = self._search.jax.ancestors([self._target.candidate])
        lines: dict[Any, list[int]] = {}
        for value in (self._values[i] for i in sorted(leading)):
            if value.op == "reshape" and value.marks and self._turn(value.index) is not None:
                lines.setdefault(value.marks[0], []).append(value.index)
        yield from lines.values()

    def _turn(self, index: int) -> tuple[bool, int] | None:
        """Whether a reshape splits an axis, and from which on two axes could be the other way."""
        after = self._shape(index)
        before = self._shape(self._values[index].parents[0])
        for is_split, (few, many) in ((True, (before, after)), (False, (after, before))):
            for axis in range(len(many) - 1):
                joined = (*many[:axis], many[axis] * many[axis + 1], *many[axis + 2 :])
                if joined == few and min(many[axis : axis + 2]) > 1:
                    return is_split, axis
        return None

    def _are_regrouped(self, members: Sequence[int]) -> bool:
        """Whether the target comes out if each has its two axes the other way."""

        def edits(s: int) -> dict[int, Edit]:
            where, found = self._search.jax.places[s], {}
            for member in members:
                is_split, axis = self._turn(member) or (True, 0)
                if is_split:
                    found[member] = Edit({}, lambda x, axis=axis: _split_otherwise(x, axis))
                else:
                    parent = where[self._values[member].parents[0]]
                    given = {parent: lambda value, p=parent, a=axis: _turned(value(p), a)}
                    found[member] = Edit(given)
            return found

        return self.comes_out(edits)


def _split_otherwise(x: Any, axis: int) -> Any:
    """An axis that was split into two, split into the same two in the other order."""
    shape = (*x.shape[:axis], x.shape[axis + 1], x.shape[axis], *x.shape[axis + 2 :])
    return x.reshape(shape).swapaxes(axis, axis + 1)


def _turned(x: Any, axis: int) -> Any:
    """The entries of two axes the other way round, in the shape that they had."""
    return x.swapaxes(axis, axis + 1).reshape(x.shape)
