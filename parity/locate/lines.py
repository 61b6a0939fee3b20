"""Which line is to blame: of those that asked for a value, and for a step that is left out."""

from collections.abc import Collection, Sequence
from functools import cached_property

from parity.locate.correspondence import (
    depth_on_line,
    depth_where_wrong,
    first_difference,
    same_line,
)
from parity.locate.kinds import ARITHMETIC, LAYOUTS, base_of, kind_of
from parity.locate.loops import Blame, Loops
from parity.locate.tape import Tape


class Lines(Loops):
    """From what is wrong, or missing, to a line."""

    @cached_property
    def consumers(self) -> list[list[int]]:
        """By JAX's value, which are made of it."""
        return self.jax.consumers()

    def meets(self, ours: int, theirs: Collection[int]) -> bool:
        """Whether one of JAX's values is among some of PyTorch's."""
        return any({*t} & {*theirs} for t in self.partners.of_jax.get(ours, ()))

    def is_met(self, theirs: int, mine: Sequence[int]) -> bool:
        """Whether one of PyTorch's values is among some of JAX's."""
        return any({*o} & {*mine} for o in self.partners.of_torch.get(theirs, ()))

    def step_after(self, tape: Tape, known: set[int], index: int) -> int | None:
        """The first value that is made of a known one, on the way to another.

        One that the other side lacks, if there is one: what is known has other uses as well.
        """
        leading = tape.ancestors([index])
        steps = [i for i in leading if known & {*self.own_parents(tape, i)} and i not in known]
        shared = self.partners.of_jax if tape is self.jax else self.partners.of_torch
        return min([i for i in steps if i not in shared] or steps, default=None)

    def dropped(
        self,
        index: int,
        ours: int,
        theirs: int,
        reference: int,
        evidence: int,
        *,
        same: bool = True,
    ) -> Blame:
        """PyTorch goes on with something that JAX has not made of `ours`: on which line it would.

        Where PyTorch has it on the line of its operand, it is missing on the line of JAX's.
        """
        ours = self._first_of(ours)
        value = self.jax.values[ours]
        made = self.torch.values[theirs]
        if value.is_plain and value.marks:
            return Blame(ours, theirs, 0, ours)
        is_one_formula = kind_of(value) in ARITHMETIC and kind_of(made) in ARITHMETIC
        is_apart = is_one_formula and kind_of(self.jax.values[index]) not in ARITHMETIC
        is_on_line = same and same_line(made, self.torch.values[reference])
        if value.marks and (is_apart or not is_on_line):
            for operand in self.own_parents(self.torch, theirs):
                depth = depth_on_line(self.torch.values[operand], made)
                if depth is not None:  # JAX may write what PyTorch has a function of its own for
                    deeper = len(self.torch.values[operand].marks) - len(value.marks)
                    depth = min(max(depth - max(deeper, 0), 0), len(value.marks) - 1)
                    depth = max(depth, self._depth_at_hand(ours, ours, theirs))
                    return Blame(ours, theirs, depth, ours)
        depth = self.depth_of(index)
        if value.is_input and not depth and made.marks:  # a port keeps the names of functions
            names = [code.co_name for code, _ in self.marks_of(index)]
            name = made.marks[0][0].co_name
            depth = names.index(name) if name in names else 0
        return Blame(index, theirs, max(depth, self._depth_at_hand(index, ours, theirs)), ours)

    def _depth_at_hand(self, index: int, ours: int, theirs: int) -> int:
        """Which of the lines that asked for a value could have made PyTorch's step before it.

        What else that needs, a mask say, is used in the function of that line, and not further in;
        or that function takes such a step of another value.
        """
        alike = {
            user
            for operand in self.own_parents(self.torch, theirs)
            if not self.meets(ours, [operand])
            for known in self._known_of(operand)
            for user in self.users(known)
        }
        made = self.torch.values[theirs]
        siblings = (v for v in self.torch.values if v.op == made.op and v.index != theirs)
        # What a formula is made of is everywhere: only what the same line made of others.
        near = 1 if kind_of(made) not in ARITHMETIC else 2
        here = (v for v in siblings if v.marks and v.marks[0][:near] == made.marks[0][:near])
        steps = {o[0] for v in here for o in self.partners.of_torch.get(v.index, ())}
        alike |= {i for i in steps if kind_of(self.jax.values[i]) == kind_of(made)}
        codes = {code for i in alike for code, _ in self.marks_of(i)[:1]}
        depths = (d for d, (code, _) in enumerate(self.marks_of(index)) if code in codes)
        return next(depths, 0)

    def _known_of(self, theirs: int) -> set[int]:
        """JAX's values that are one of PyTorch's, or the flags of which that is the opposite."""
        tried = (theirs, *self.torch.values[self.laid_out_from(self.torch, theirs)].parents)
        found = (self.partners.of_torch.get(each, ()) for each in tried)
        return {i for groups in found for members in groups for i in members}

    def users(self, index: int) -> set[int]:
        """What is made of a value, behind what only lays it out."""
        found, open_ = set(), [index]
        while open_:
            for user in self.consumers[open_.pop()]:
                if base_of(self.jax.values[user]) in LAYOUTS:
                    open_.append(user)
                elif self.jax.values[user].marks:
                    found.add(user)
        return found

    def _first_of(self, index: int) -> int:
        """The value that first had these numbers: nothing was added, or 1 multiplied by, since."""
        own = {*self.partners.of_jax.get(index, ())}
        for parent in self.own_parents(self.jax, index):
            if own & {*self.partners.of_jax.get(parent, ())} and self.jax.values[parent].marks:
                return self._first_of(parent)
        return index

    def depth_of(self, index: int) -> int:
        """Which of the lines that asked for a value is the one."""
        value, twin = self.jax.values[index], self.twin(index)
        if twin is not None and self.jax.values[twin].marks[:1] == value.marks[:1] != ():
            depth = first_difference(value, self.jax.values[twin])
            return depth if depth < len(value.marks) else 0
        return depth_where_wrong(self.jax, value, self.has_partner, self.tells)
