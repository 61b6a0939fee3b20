"""One operation of the source changed as a person might have meant it: is every output right then?

A line of the source is an operation in every turn of a loop and for every leaf of a tree. It is
changed in all of them at once: left out, given another of the numbers at hand, given its operands
the other way round, or exchanged for its kin. What makes every output right at every input set is
no chance.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain, combinations, islice
from typing import Any, NamedTuple

import numpy as np

from parity.locate.correspondence import number_of
from parity.locate.jax_tape import JaxRun
from parity.locate.kinds import LAYOUTS, base_of
from parity.locate.places import span
from parity.locate.plain import Plain
from parity.locate.reruns import Edit
from parity.locate.tape import LITERALS, NUMBER
from parity.locate.trials import comes_out_right

SECONDS = 6.0
"""So much of the processor's time is spent on either kind of change."""
MOST_NUMBERS = 24
"""So many other numbers are tried in the place of one, the nearest first."""
KIN = {
    "add": (np.subtract,),
    "sub": (np.add,),
    "mul": (np.true_divide,),
    "div": (np.multiply,),
    "max": (np.minimum,),
    "min": (np.maximum,),
    "lt": (np.less_equal, np.greater, np.greater_equal),
    "le": (np.less, np.greater_equal, np.greater),
    "gt": (np.greater_equal, np.less, np.less_equal),
    "ge": (np.greater, np.less_equal, np.less),
    "eq": (np.not_equal,),
    "ne": (np.equal,),
    "and": (np.bitwise_or,),
    "or": (np.bitwise_and,),
}
"""What is written for what by mistake."""
DIRECTED = ("sub", "div", "pow", "select_n", "atan2", "rem")
"""Operations whose last two operands are not to be exchanged."""


class Change(NamedTuple):
    """A change that makes every output right.

    Attributes:
        members: The values whose operations were changed.
        is_number: Whether one of its numbers was exchanged for another.
    """

    members: tuple[int, ...]
    is_number: bool = False


class Mutations:
    """The changes of one recorded program, judged by every output that is wrong."""

    def __init__(self, search: Plain, runs: Sequence[JaxRun]) -> None:
        self._search, self._runs = search, runs
        self._values = search.jax.values
        self._until = 0.0

    def structural(self) -> Change | None:
        """The first operation that is right by such a change, of a wrong result and no number.

        Axes may be the other way round of what is right by itself; two numbers are exchanged.
        """
        self._until = time.process_time() + SECONDS
        wrong = {*self._search.region}
        found = self._found([m for m in self._operations if wrong & {*m}], numbers=False)
        return found or self._turned_axes() or self._exchanged_numbers()

    def found(self) -> Change | None:
        """The first operation that is right by any such change; `None` if none is."""
        self._until = time.process_time() + SECONDS
        return self._found(self._operations)

    def _turned_axes(self) -> Change | None:
        for members in self._operations:
            for edit in self._axes(members[0]):
                if time.process_time() > self._until:
                    return None
                if self._is_right(members, edit):
                    return Change(members)
        return None

    def _found(
        self, operations: Sequence[tuple[int, ...]], *, numbers: bool = True
    ) -> Change | None:
        for members in operations:
            for edit, is_number in self._changes(members):
                if time.process_time() > self._until:
                    return None
                if (numbers or not is_number) and self._is_right(members, edit):
                    return Change(members, is_number)
        return None

    @cached_property
    def _operations(self) -> list[tuple[int, ...]]:
        """What is one operation of the source, in order: an equation, a line as it was called.

        And then that line wherever it was called. Those whose results are wrong come first.
        """
        leading = self._search.jax.ancestors([*self._search.targets])
        wrong = {*self._search.region}
        jax = self._search.jax
        region = wrong | {p for i in wrong for p in self._search.own_parents(jax, i)}
        region |= {i for i in leading if self._values[i].is_plain or self._like_axes(i)}
        groups: dict[Any, list[int]] = {}
        for index in sorted(leading):
            value = self._values[index]
            is_laid_out = base_of(value) in LAYOUTS and not value.is_plain
            if value.marks and value.parents and not is_laid_out:
                groups.setdefault(value.group, []).append(index)
                groups.setdefault((value.marks, value.op), []).append(index)
                groups.setdefault((*value.marks[0], value.op), []).append(index)
        found = dict.fromkeys(map(tuple, groups.values()))
        open_ = (members for members in found if region & {*members})
        return sorted(open_, key=lambda m: (not wrong & {*m}, m[0], len(m)))

    def _changes(self, members: tuple[int, ...]) -> Iterator[tuple[Callable[..., Edit], bool]]:
        first = self._values[members[0]]
        arrays = [self._values[p].arrays[0] for p in first.parents]
        made = first.arrays[0]
        for place, (parent, array) in enumerate(zip(first.parents, arrays, strict=True)):
            other = self._values[parent]
            if array.shape == made.shape and array.dtype == made.dtype and not other.is_plain:
                yield self._left_out(place), False
            if other.op in LITERALS and array.ndim == 0 and array.dtype.kind == "f":
                for number in self._near(number_of(other)):
                    yield self._given(place, number), True
        if first.is_plain and made.ndim == 0 and made.dtype.kind in "if":
            for step in (1, -1):
                yield self._then(lambda x, step=step: x + step), True
        if made.dtype.kind == "f":
            yield self._then(lambda x: np.minimum(x, 1.0)), False
            yield self._then(lambda x: np.maximum(x, 0.0)), False
        for call in KIN.get(first.op, ()):
            yield self._instead(call), False
        if first.op in DIRECTED and len(arrays) > 1 and arrays[-1].shape == arrays[-2].shape:
            yield self._turned(), False

    def _axes(self, index: int) -> Iterator[Callable[..., Edit]]:
        for one, other in self._like_axes(index):
            yield self._then(lambda x, a=one, b=other: np.swapaxes(x, a, b))

    def _like_axes(self, index: int) -> list[tuple[int, int]]:
        """The pairs of axes of a value that are of one length."""
        array = self._values[index].arrays[0]
        pairs = combinations(range(array.ndim), 2) if array.dtype.kind == "f" else ()
        return [(a, b) for a, b in pairs if array.shape[a] == array.shape[b] > 1]

    def _left_out(self, place: int) -> Callable[..., Edit]:
        def edit(_: int, step: Any, parents: Sequence[int]) -> Edit:
            which = step.inputs.index(parents[place])
            return Edit({}, call=lambda *operands: operands[which])

        return edit

    def _given(self, place: int, number: float) -> Callable[..., Edit]:
        def edit(s: int, step: Any, parents: Sequence[int]) -> Edit:
            dtype = self._runs[s].program.arrays[parents[place]].dtype
            return Edit({parents[place]: lambda _: np.asarray(number, dtype)})

        return edit

    def _then(self, change: Callable[[Any], Any]) -> Callable[..., Edit]:
        return lambda s, step, parents: Edit({}, change)

    def _instead(self, call: Callable[..., Any]) -> Callable[..., Edit]:
        return lambda s, step, parents: Edit({}, call=call)

    def _turned(self) -> Callable[..., Edit]:
        def edit(s: int, step: Any, parents: Sequence[int]) -> Edit:
            program = self._runs[s].program

            def call(*operands: Any) -> Any:
                return program.run_step(step, (*operands[:-2], operands[-1], operands[-2]))[0]

            return Edit({}, call=call)

        return edit

    def _near(self, number: float) -> list[float]:
        """Other numbers at hand on either side, and what is left of each to 1."""
        apart = [x for x in self._numbers if abs(x - number) > 1e-12 * abs(number)]
        size = abs(number)
        return sorted(apart, key=lambda x: abs(abs(x) - size) / max(abs(x) + size, 1e-300))[
            :MOST_NUMBERS
        ]

    @cached_property
    def _numbers(self) -> list[float]:
        ours = (v for v in self._values if v.op in LITERALS and v.arrays[0].ndim == 0)
        theirs = (v for v in self._search.torch.values if v.op == NUMBER)
        written = {number_of(v) for v in chain(ours, theirs) if v.arrays[0].dtype.kind in "if"}
        found = {x for x in written if np.isfinite(x)} | {0.0, 1.0, -1.0}
        return sorted(found | {1 - x for x in found if 0 < x < 1})

    def _is_right(self, members: tuple[int, ...], edit: Callable[..., Edit]) -> bool:
        return comes_out_right(self._search, self._runs, lambda s: self._edits(s, members, edit))

    def _edits(self, s: int, members: Sequence[int], edit: Callable[..., Edit]) -> dict[int, Edit]:
        where, program = self._search.jax.places[s], self._runs[s].program
        steps = ((i, program.step_of(where[i])) for i in members)
        parents = {i: [where[p] for p in self._values[i].parents] for i in members}
        return {i: edit(s, step, parents[i]) for i, step in steps}

    def _exchanged_numbers(self) -> Change | None:
        """Two numbers of one line in one another's place: the shares of old and new, say."""
        slots: dict[Any, list[tuple[tuple[int, ...], int, float]]] = {}
        for members in self._operations:
            first = self._values[members[0]]
            key = first.marks[0][0], span(first.marks[0]).line
            for place, parent in enumerate(first.parents):
                value = self._values[parent]
                if value.op in LITERALS and value.arrays[0].ndim == 0:
                    slots.setdefault(key, []).append((members, place, number_of(value)))
        for found in slots.values():
            for one, other in islice(combinations(found, 2), MOST_NUMBERS):
                if one[2] == other[2] or {*one[0]} & {*other[0]}:
                    continue
                if time.process_time() > self._until:
                    return None
                given = [
                    (members, self._given(place, number))
                    for (members, place, _), (*_, number) in ((one, other), (other, one))
                ]

                def edits(s: int, given: Any = given) -> dict[int, Edit]:
                    return {k: e for m, edit in given for k, e in self._edits(s, m, edit).items()}

                if comes_out_right(self._search, self._runs, edits):
                    return Change(min(one[0], other[0]))
        return None
