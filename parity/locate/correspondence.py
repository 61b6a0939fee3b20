"""What corresponds on two tapes: values with a partner, operands behind layouts, inputs, twins."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from parity.locate.matching import Partners
from parity.locate.places import Mark, location
from parity.locate.tape import Tape, Value
from parity.yardstick import GATE, SLACK

LAYOUTS = frozenset(
    ["broadcast_in_dim", "reshape", "squeeze", "transpose", "expand_dims", "copy", "copy_p"]
    + ["convert_element_type", "stop_gradient", "scan input", "scan output"]
    + [f"aten.{name}" for name in ("t", "view", "expand", "unsqueeze", "squeeze", "detach")]
    + [f"aten.{name}" for name in ("permute", "transpose", "select", "clone", "_to_copy")]
    + ["aten.alias", "aten.lift_fresh", "aten.copy_", "read"]
)
"""Operations that only lay out what there is."""


class Correspondence:
    """Two tapes and what is the same on both."""

    def __init__(self, partners: Partners, wrong: dict[str, float]) -> None:
        """The partners, and the slack of each output that is wrong."""
        self.torch, self.jax, self.partners = partners.torch, partners.jax, partners
        self.wrong = wrong
        self.targets = {self.jax.outputs[path] for path in wrong}

    def has_partner(self, index: int) -> bool:
        """Whether PyTorch has a value of JAX's, or it says nothing."""
        if index in self.targets:
            return False
        return index in self.partners.of_jax or self.jax.values[index].is_plain

    def is_known(self, index: int) -> bool:
        """Whether JAX has a value of PyTorch's, or it says nothing."""
        return index in self.partners.of_torch or self.torch.values[index].is_plain

    def slack_of(self, index: int) -> float:
        """What one of PyTorch's values may be off."""
        scale = max(scale_of(array) for array in self.torch.values[index].arrays)
        return max(GATE * scale, SLACK * self.partners.slack[index])

    def marks_of(self, index: int) -> tuple[Mark, ...]:
        """The lines that asked for one of JAX's values."""
        return self.jax.values[index].marks

    def own_parents(self, tape: Tape, index: int) -> list[int]:
        """What a value was made of, behind what only lays it out."""
        found = []
        for parent in tape.values[index].parents:
            value = tape.values[parent]
            if base_of(value) in LAYOUTS and value.parents:
                found += self.own_parents(tape, parent)
            else:
                found.append(parent)
        return [*dict.fromkeys(found)]

    def operands(self, index: int) -> set[int]:
        """PyTorch's values that are the operands of a value of JAX's."""
        return {
            each
            for parent in self.jax.values[index].parents
            for theirs in self.partners.of_jax.get(parent, ())
            for each in theirs
        }

    def likeness(self, ours: int, theirs: int) -> float:
        """The share of inputs that both values depend on, of those that either does."""
        mine, others = self._inputs_of_jax[ours], self._inputs_of_torch[theirs]
        return len(mine & others) / max(1, len(mine | others))

    @cached_property
    def _inputs_of_jax(self) -> list[frozenset[str]]:
        return inputs_of(self.jax)

    @cached_property
    def _inputs_of_torch(self) -> list[frozenset[str]]:
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


def inputs_of(tape: Tape) -> list[frozenset[str]]:
    """The inputs that each value depends on, by path."""
    paths = {index: path for path, index in tape.inputs.items()}
    found: list[frozenset[str]] = []
    for value in tape.values:
        own = [paths[value.index]] if value.index in paths else []
        found.append(frozenset(own).union(*(found[p] for p in value.parents)))
    return found


def scale_of(array: np.ndarray) -> float:
    """The largest finite magnitude."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def base_of(value: Value) -> str:
    """An operation without its overload."""
    return ".".join(value.op.split(".")[:2])


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


def is_inside(marks: tuple[Mark, ...], outer: tuple[Mark, ...]) -> bool:
    """Whether these lines were reached through the others."""
    return len(marks) > len(outer) and marks[len(marks) - len(outer) :] == outer
