"""Plain numbers that are wrong: a rate, a count, a constant that PyTorch's side has otherwise.

PyTorch's side often computes them in Python, as numbers that an operation is given; JAX's side in
arrays without axes. A number of PyTorch's is tried out in the place of JAX's as any value is.
"""

import time
from collections.abc import Sequence
from functools import cached_property

from parity.locate.correspondence import number_of, scale_of
from parity.locate.jax_tape import JaxRun
from parity.locate.kinds import kind_of
from parity.locate.loops import Blame
from parity.locate.matching import Partners
from parity.locate.placing import Placing
from parity.locate.repairs import SECONDS, Repairs, Target
from parity.locate.tape import NUMBER
from parity.yardstick import GATE

MAX_NUMBERS = 24
"""So many of PyTorch's numbers are tried in the place of one of JAX's, the nearest first."""


class Plain(Placing):
    """From an operation that was given a wrong number to what made that number."""

    def __init__(self, partners: Partners, runs: Sequence[JaxRun], wrong: dict[str, float]) -> None:
        """The partners, JAX's runs, and the slack of each output that is wrong."""
        super().__init__(partners, wrong)
        self.repairs = Repairs(self.torch, self.jax, runs)

    @cached_property
    def trials_end(self) -> float:
        """When, by the processor's time, no further change of an operation is tried."""
        return time.process_time() + SECONDS

    def target_of(self, path: str) -> Target:
        """An output that is wrong."""
        ours, theirs = self.jax.outputs[path], self.torch.outputs[path]
        return Target(ours, theirs, self.wrong[path], is_output=True)

    def placed(self, index: int, reference: int | None) -> Blame:
        """Whether the operation is to blame, what it was given, or a number on the way to that."""
        found = super().placed(index, reference)
        if found.place is not None or found.reference is None or found.against is not None:
            return found
        made = self.jax.values[found.candidate]
        if made.is_plain and made.arrays[0].size == 1:
            number = self._made_by(found.candidate, found.reference)
        else:
            number = self.wrong_number(found.candidate, found.reference)
        if number is None:
            return found
        depth = self.depth_of(number[0])
        return Blame(number[0], number[1], depth, found.evidence, against=found.reference)

    def slack_of_output(self, index: int) -> float:
        """What one of JAX's outputs may be off."""
        path = next(path for path, i in self.jax.outputs.items() if i == index)
        theirs = self.torch.outputs.get(path)
        if theirs is not None:
            return self.slack_of(theirs)
        return GATE * scale_of(self.jax.values[index].arrays[0])

    def numbers_like(self, index: int) -> list[tuple[int, ...]]:
        """PyTorch's plain numbers for one of JAX's, the nearest first."""
        value = self.jax.values[index]
        size = abs(number_of(value))
        if not value.is_plain or value.arrays[0].size != 1 or size == 1:
            return []  # 1 is what much comes to: whatever it multiplies could be mended by it
        by_number = {abs(number_of(self.torch.values[i])): (i,) for i in self.numbers_in_torch}
        near = sorted(by_number, key=lambda x: abs(x - size) / max(x + size, 1e-300))
        return [by_number[x] for x in near[:MAX_NUMBERS]]

    def flags_like(self, index: int) -> list[tuple[int, ...]]:
        """PyTorch's flags that are all alike, made by such an operation, for flags of JAX's."""
        value = self.jax.values[index]
        if value.arrays[0].dtype != bool:
            return []
        theirs = (self.torch.values[i] for i in self.numbers_in_torch)
        like = (v for v in theirs if v.arrays[0].dtype == bool and kind_of(v) == kind_of(value))
        return [(v.index,) for v in like if v.arrays[0].size == value.arrays[0].size][:MAX_NUMBERS]

    def wrong_number(self, index: int, reference: int) -> tuple[int, int] | None:
        """The first number that makes an operation wrong, and PyTorch's in its place.

        The operation comes out as PyTorch's does once one operand is the number that this has.
        """
        given = [p for p in self.torch.values[reference].parents if self._is_number(p)]
        for ours in self.jax.values[index].parents:
            if not self.jax.values[ours].is_plain or self.jax.values[ours].arrays[0].size != 1:
                continue
            for theirs in given:
                target = Target(index, reference, self.slack_of(reference))
                if self.repairs.follows({ours: theirs}, target):
                    return self._made_by(ours, theirs)
        return None

    def _is_number(self, index: int) -> bool:
        value = self.torch.values[index]
        return value.op == NUMBER or (value.is_plain and value.arrays[0].size == 1)

    def _made_by(self, ours: int, theirs: int) -> tuple[int, int] | None:
        """The first of the numbers that one was computed from with which it would be right.

        Of the sign that it has: what JAX takes away, PyTorch may add with the other sign.
        """
        pair = number_of(self.jax.values[ours]), number_of(self.torch.values[theirs])
        sign = -1 if pair[0] * pair[1] < 0 else 1
        target = Target(ours, theirs, self.slack_of(theirs), sign)
        for index in sorted(self.jax.ancestors([ours])):
            value = self.jax.values[index]
            if not value.marks or value.arrays[0].size != 1 or not value.is_plain:
                continue
            if self.jax.values[self.laid_out_from(self.jax, index)].is_input:
                continue  # what was given is right
            for each in self.numbers_like(index):
                if self.repairs.mends((index,), each, 1, target):
                    return index, each[0]
        return None
