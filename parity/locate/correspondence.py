"""What corresponds on two tapes: values with a partner, operands behind layouts, inputs, twins."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from parity.locate.kinds import LAYOUTS, SHAPED, base_of, kind_of
from parity.locate.matching import Partners, item, near, same
from parity.locate.places import Mark, location
from parity.locate.tape import LITERALS, NUMBER, Tape, Value
from parity.yardstick import GATE, SLACK


class Correspondence:
    """Two tapes and what is the same on both."""

    trusts_plain = True
    """Whether one number everywhere, computed of inputs, is right if PyTorch has it somewhere."""

    def __init__(self, partners: Partners, wrong: dict[str, float]) -> None:
        """The partners, and the slack of each output that is wrong."""
        self.torch, self.jax, self.partners = partners.torch, partners.jax, partners
        self.wrong = wrong
        self.targets = {self.jax.outputs[path] for path in wrong}

    def has_partner(self, index: int) -> bool:
        """Whether PyTorch has a value of JAX's, or it says nothing."""
        if index in self.targets:
            return False
        value = self.jax.values[index]
        if value.op in LITERALS:  # what is written has no line of its own: its use is to blame
            return True
        if not self.trusts_plain and self._is_doubtful(value):
            return False
        if not value.is_plain:
            return index in self.partners.of_jax
        # One number everywhere, that was computed: PyTorch should come to it as well.
        if value.arrays[0].dtype == bool and self.inputs_of_jax[index]:
            return self._flag(self.jax, value) in self._flags
        told = self.inputs_of_jax[index] or (value.marks and value.arrays[0].ndim == 0)
        return not (told and self._is_foreign(number_of(value)))

    def _is_doubtful(self, value: Value) -> bool:
        """Whether it is one number everywhere, or an operand again that met such a number."""
        if value.is_plain:
            return bool(self.inputs_of_jax[value.index])
        theirs = self.partners.of_jax.get(value.index)
        again = any(self.partners.of_jax.get(p) == theirs for p in value.parents)
        met = (self.jax.values[p].is_plain and self.inputs_of_jax[p] for p in value.parents)
        return again and any(met)

    def is_known(self, index: int) -> bool:
        """Whether JAX has a value of PyTorch's, or of flags the opposite, or it says nothing."""
        if index in self.partners.of_torch or self._is_opposite(index):
            return True
        says_little = self.trusts_plain or not self.inputs_of_torch[index]
        return self.torch.values[index].is_plain and says_little

    def _is_opposite(self, index: int) -> bool:
        """Whether a value of PyTorch's is the opposite of flags that JAX has."""
        value = self.torch.values[self.laid_out_from(self.torch, index)]
        if kind_of(value) not in ("sub", "logic") or len(value.parents) > 2:
            return False
        flags = [self.torch.values[p] for p in value.parents if p in self.partners.of_torch]
        return any(
            all(
                a.shape == b.shape and np.isin(a, (0, 1)).all() and np.array_equal(a == 0, b == 1)
                for a, b in zip(flag.arrays, value.arrays, strict=True)
            )
            for flag in flags
        )

    def _is_foreign(self, number: float) -> bool:
        """Whether PyTorch has a number nowhere, in neither sign."""
        size = abs(number)
        if not np.isfinite(size):
            return bool(np.isfinite(self._magnitudes).all())
        return not np.any(np.abs(self._magnitudes - size) <= GATE * size)

    @cached_property
    def _flags(self) -> set[tuple[str | None, int, float]]:
        """PyTorch's flags that are all alike."""
        found = [self.torch.values[i] for i in self.numbers_in_torch]
        return {self._flag(self.torch, v) for v in found if v.arrays[0].dtype == bool}

    def _flag(self, tape: Tape, value: Value) -> tuple[str | None, int, float]:
        """What made flags that are all alike, how many they are, and which."""
        made = tape.values[self.laid_out_from(tape, value.index)]
        return kind_of(made), value.arrays[0].size, number_of(value)

    @cached_property
    def _magnitudes(self) -> np.ndarray:
        """Of the numbers that PyTorch makes or is given, whatever the inputs are.

        A 0 or a 1 that it is given tells nothing.
        """
        made = (self.torch.values[i] for i in self.numbers_in_torch)
        kept = (v for v in made if v.op != NUMBER or not says_nothing(v))
        return np.array([abs(number_of(value)) for value in kept])

    @cached_property
    def numbers_in_torch(self) -> list[int]:
        """PyTorch's values that are one number everywhere, made of the inputs or given."""
        pairs = zip(self.torch.values, self.inputs_of_torch, strict=True)
        return [v.index for v, of in pairs if v.is_plain and (of or v.op == NUMBER)]

    def slack_of(self, index: int) -> float:
        """What one of PyTorch's values may be off."""
        scale = max(scale_of(array) for array in self.torch.values[index].arrays)
        return max(GATE * scale, SLACK * self.partners.slack[index])

    def marks_of(self, index: int) -> tuple[Mark, ...]:
        """The lines that asked for one of JAX's values."""
        return self.jax.values[index].marks

    def tells_little(self, index: int) -> bool:
        """Whether a value of JAX's only lays out numbers that are all alike."""
        near = (index, *self.jax.values[index].parents)
        alike = any(self.jax.values[i].is_plain and self.inputs_of_jax[i] for i in near)
        return base_of(self.jax.values[index]) in LAYOUTS and alike

    def own_parents(self, tape: Tape, index: int) -> list[int]:
        """What a value was made of, behind what only lays it out."""
        found = []
        made = tape.values[index]
        for parent in () if base_of(made) in SHAPED else made.parents:
            value = tape.values[parent]
            if base_of(value) in LAYOUTS and value.parents:
                found += self.own_parents(tape, parent)
            else:
                found.append(parent)
        return [*dict.fromkeys(found)]

    def laid_out_from(self, tape: Tape, index: int) -> int:
        """What a value is another layout of."""
        value = tape.values[index]
        while base_of(value) in LAYOUTS and len(value.parents) == 1:
            value = tape.values[value.parents[0]]
        return value.index

    def operands(self, index: int) -> set[int]:
        """PyTorch's values that are the operands of a value of JAX's."""
        return {
            each
            for parent in self.jax.values[index].parents
            for theirs in self.partners.of_jax.get(parent, ())
            for each in theirs
        }

    def counterpart(self, index: int) -> int | None:
        """PyTorch's value that JAX lacks and that is made alike, by that kind of operation.

        It has all operands that are right, and the same numbers, if numbers are written there.
        """
        kind = kind_of(self.jax.values[index])
        parents = [p for p in self.own_parents(self.jax, index) if p in self.partners.of_jax]
        right = [p for p in parents if not self.jax.values[p].is_plain]
        known = [{i for t in self.partners.of_jax[p] for i in t} for p in right]
        for theirs in self._lacking_by_kind.get(kind, ()) if kind and known else ():
            given = {*self.torch.values[theirs].parents, *self.own_parents(self.torch, theirs)}
            alike = self._literals(self.torch, theirs) == self._literals(self.jax, index)
            if alike and all(each & given for each in known):
                return theirs
        return None

    def _literals(self, tape: Tape, index: int) -> set[float]:
        """The numbers that are written where a value is made, but for 0 and 1."""
        made = (tape.values[p] for p in tape.values[index].parents)
        return {number_of(v) for v in made if v.op in LITERALS and not says_nothing(v)}

    def is_same(self, ours: int, theirs: int) -> bool:
        """Whether two values are the same numbers, also those that a loop has one by one."""
        reference = item((), self.torch.values[theirs].arrays, self.partners.slack[theirs])
        return same(reference, item((), self.jax.values[ours].arrays))

    @cached_property
    def _lacking_by_kind(self) -> dict[str | None, list[int]]:
        found: dict[str | None, list[int]] = {}
        for value in self.torch.values:
            if not self.is_known(value.index):
                found.setdefault(kind_of(value), []).append(value.index)
        return found

    def likeness(self, ours: int, theirs: int) -> float:
        """The share of inputs that both values depend on, of those that either does."""
        mine, others = self.inputs_of_jax[ours], self.inputs_of_torch[theirs]
        return len(mine & others) / max(1, len(mine | others))

    @cached_property
    def inputs_of_jax(self) -> list[frozenset[str]]:
        """The inputs that each of JAX's values depends on."""
        return inputs_of(self.jax)

    @cached_property
    def inputs_of_torch(self) -> list[frozenset[str]]:
        """The inputs that each of PyTorch's values depends on."""
        return inputs_of(self.torch)

    def twin(self, index: int) -> int | None:
        """Another value of JAX's with these numbers, computed apart, where PyTorch has but one."""
        theirs = self.partners.of_jax.get(index, [])
        ours = {
            each for t in theirs for i in t for o in self.partners.of_torch.get(i, ()) for each in o
        }
        apart = [i for i in sorted(ours) if self._is_computed(self.jax, i, ours)]
        of_torch = {i for t in theirs for i in t}
        num_theirs = sum(self._is_computed(self.torch, i, of_torch) for i in of_torch)
        others = [i for i in apart if i != index]
        return others[0] if index in apart and others and len(apart) > num_theirs else None

    def _is_computed(self, tape: Tape, index: int, among: set[int]) -> bool:
        value = tape.values[index]
        return base_of(value) not in LAYOUTS and not among & {*value.parents}

    def is_loop(self, members: Sequence[int]) -> bool:
        """Whether these values of JAX's are of one operation, at several iterations."""
        return len({self.jax.values[i].group for i in members}) == 1


def wrong_outputs(partners: Partners, sets: Sequence[int] = (0,)) -> dict[str, float]:
    """The outputs that differ at one of these input sets, each with what it may be off."""
    torch, jax = partners.torch, partners.jax
    found = {}
    for path, place in torch.outputs.items():
        if path not in jax.outputs:
            continue
        reference, candidate = torch.values[place], jax.values[jax.outputs[path]]
        scale = max(scale_of(array) for array in reference.arrays)
        slack = max(GATE * scale, SLACK * partners.slack[place])
        for number in sets:
            left, right = reference.arrays[number], candidate.arrays[number]
            if left.shape != right.shape or not near(left, right, slack):
                found[path] = slack
                break
    return found


def inputs_of(tape: Tape) -> list[frozenset[str]]:
    """The inputs that each value depends on, by path."""
    paths = {index: path for path, index in tape.inputs.items()}
    found: list[frozenset[str]] = []
    for value in tape.values:
        own = [paths[value.index]] if value.index in paths else []
        found.append(frozenset(own).union(*(found[p] for p in value.parents)))
    return found


def number_of(value: Value) -> float:
    """What stands everywhere in a value that says nothing."""
    first = value.arrays[0]
    return float(first.flat[0]) if first.size else 0.0


def says_nothing(value: Value) -> bool:
    """Whether a value is 0 or 1 everywhere, which much is by chance."""
    return value.is_plain and number_of(value) in (0.0, 1.0, -1.0)


def scale_of(array: np.ndarray) -> float:
    """The largest finite magnitude."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def same_line(left: Value, right: Value) -> bool:
    """Whether two values were asked for on one line."""
    one, other = left.place, right.place
    return one is not None and other is not None and one[:2] == other[:2]


def depth_on_line(value: Value, other: Value) -> int | None:
    """Which of the lines that asked for a value is that of the other."""
    lines = [location(mark)[:2] for mark in value.marks]
    line = location(other.marks[0])[:2] if other.marks else None
    return lines.index(line) if line in lines else None


def first_difference(left: Value, right: Value) -> int:
    """The first of the lines, from the inside out, in which two values differ."""
    pairs = enumerate(zip(left.marks, right.marks, strict=False))
    return next((depth for depth, (a, b) in pairs if a != b), 0)


def depth_where_wrong(
    tape: Tape,
    value: Value,
    is_right: Callable[[int], bool],
    tells: Callable[[int], bool] = lambda index: True,
) -> int:
    """Which of the lines that asked for a value is the one.

    A line that comes out right where it is called from elsewhere was called wrongly here. Calls of
    which nothing tells are passed over.
    """
    others = [
        each
        for each in tape.values
        if each.marks[:1] == value.marks[:1]
        and each.op == value.op
        and each.marks != value.marks
        and tells(each.index)
    ]
    if not value.marks or not others or not all(is_right(each.index) for each in others):
        return 0
    depth = first_difference(value, others[0])
    return depth if depth < len(value.marks) else 0


def is_inside(marks: tuple[Mark, ...], outer: tuple[Mark, ...]) -> bool:
    """Whether these lines were reached through the others."""
    return len(marks) > len(outer) and marks[len(marks) - len(outer) :] == outer
