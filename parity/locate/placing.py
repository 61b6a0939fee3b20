"""Which line is to blame for a value that is wrong: its own, its operand's, its caller's.

PyTorch's value in its place tells. If that is made of the same operands, the operation differs. If
one of its operands is something that JAX lacks, JAX handed on another value, or left an operation
out. A line that comes out right where it is called from elsewhere was called wrongly here.
"""

from collections.abc import Sequence

import numpy as np

from parity.locate.correspondence import (
    depth_on_line,
    number_of,
    says_nothing,
)
from parity.locate.kinds import ARRANGING, LAYOUTS, base_of, kind_of
from parity.locate.lines import Lines
from parity.locate.loops import Blame
from parity.locate.places import location

PRODUCTS = frozenset(
    ["dot_general", "conv_general_dilated", "concatenate", "pad", "iota", "gather"]
)
"""Operations whose results are larger than their operands for another reason than broadcasting."""


class Placing(Lines):
    """From a wrong value to its line."""

    def outer(self, edge: Sequence[int], missing: Sequence[tuple[int, ...]]) -> Blame | None:
        """An operand with an axis of one too many, so that each entry meets each of another's.

        PyTorch has dropped that axis; where, says on which line JAX has not.
        """
        sizes = {self.torch.values[t[0]].arrays[0].size for t in missing if len(t) == 1}
        for index in edge:
            value = self.jax.values[index]
            parents = [self.jax.values[p] for p in value.parents]
            largest = max((p.arrays[0].size for p in parents), default=0)
            size = value.arrays[0].size
            if size <= largest or size in sizes or base_of(value) in (*LAYOUTS, *PRODUCTS):
                continue
            for ours in self.own_parents(self.jax, index):
                shape = self.jax.values[ours].arrays[0].shape
                for theirs, *_ in self.partners.of_jax.get(ours, ()):
                    other = self.torch.values[theirs]
                    if len(other.arrays[0].shape) < len(shape) and 1 in shape and other.parents:
                        return self.dropped(index, ours, theirs, theirs, index, same=False)
        return None

    def placed(self, index: int, reference: int | None) -> Blame:
        """Whether the operation is to blame, or what it was given."""
        evidence = index
        if reference is not None and (found := self.loop_of(index, reference)) is not None:
            return found
        if reference is not None and (found := self._one_too_many(index, reference)) is not None:
            return found
        if reference is not None and (found := self.put_out(index, reference)) is not None:
            return found
        if reference is not None and (user := self._turned_use(index, reference)) is not None:
            return Blame(user, reference, self.depth_of(user), index)
        for _ in range(len(self.jax.values)):
            if reference is None:
                break
            handed = self._wrong_operand(index, reference)
            if handed is None:
                break
            ours, theirs = handed
            if (idle := self._idle(ours, theirs)) is not None:
                index, reference = idle, theirs
                continue
            goes_on = self.meets(ours, self.own_parents(self.torch, theirs))
            if goes_on and (inner := self._summand(index)) is not None:
                index, reference = inner, theirs  # the two take sums in another order
                continue
            if goes_on or self.twin(ours) is None or self.jax.values[ours].is_input:
                return self.dropped(index, ours, theirs, reference, evidence)
            index, reference = ours, theirs
        return Blame(index, reference, self.depth_of(index), evidence)

    def lacks_a_step(self, index: int, reference: int) -> Blame | None:
        """An output that is what PyTorch goes on from: the line on which it would go on."""
        own = {*self.partners.of_jax.get(index, ())}
        theirs = {each[0] for each in own if len(each) == 1}
        if index not in self.targets or not theirs & {*self.own_parents(self.torch, reference)}:
            return None
        if any(own & {*self.partners.of_jax.get(p, ())} for p in self.own_parents(self.jax, index)):
            return None  # JAX goes on as well, by something that changes nothing here
        value, made = self.jax.values[index], self.torch.values[reference]
        for operand in self.own_parents(self.torch, reference):
            depth = depth_on_line(self.torch.values[operand], made)
            if depth is not None and value.marks:  # counted from the call that is compared
                depth += len(value.marks) - len(self.torch.values[operand].marks)
                return Blame(index, reference, min(max(depth, 0), len(value.marks) - 1), index)
        return self.dropped(index, index, reference, reference, index, same=False)

    def _turned_use(self, index: int, reference: int) -> int | None:
        """The use of flags that only hand on what was given, where PyTorch has their opposite."""
        ours, theirs = self.jax.values[index], self.torch.values[reference]
        pairs = [*zip(ours.arrays, theirs.arrays, strict=True)]
        if base_of(ours) not in ARRANGING or not all(
            a.dtype == bool and a.size == b.size and np.array_equal(~a.ravel(), b.ravel() == 1)
            for a, b in pairs
        ):
            return None
        users = (c for c in self.consumers[index] if self.jax.values[c].marks)
        return next((c for c in users if base_of(self.jax.values[c]) not in LAYOUTS), None)

    def _wrong_operand(self, index: int, reference: int) -> tuple[int, int] | None:
        """An operand that stands where PyTorch has another, which JAX lacks: both of them."""
        theirs = self.own_parents(self.torch, reference)
        lacking = [p for p in theirs if not self.is_known(p)]
        mine = [p for p in self._known_before(index) if not self.jax.values[p].is_plain]
        spare = [
            p for p in mine if self.has_partner(p) and not self.meets(p, self._given_to(reference))
        ]
        if not spare:  # a number made where PyTorch has an array
            spare = self._made_plain(index)
        if not spare or len(lacking) != len(spare):
            return None
        return spare[0], max(lacking, key=lambda t: self.likeness(spare[0], t))

    def _given_to(self, theirs: int) -> set[int]:
        """PyTorch's operands of an operation, and what they were laid out from: a row's array."""
        found, open_ = set(), [theirs]
        while open_:
            made = self.torch.values[open_.pop()]
            if made.index == theirs or base_of(made) in LAYOUTS:
                new = {*made.parents} - found
                found |= new
                open_ += new
        return found

    def _known_before(self, index: int) -> list[int]:
        """What a value was made of that PyTorch has too: one operation may be several of JAX's."""
        found: dict[int, None] = {}
        for parent in self.own_parents(self.jax, index):
            inner = self.own_parents(self.jax, parent)
            fused = not self.has_partner(parent) and len(inner) > 1
            found |= dict.fromkeys([p for p in inner if self.has_partner(p)] if fused else [parent])
        return [*found]

    def _summand(self, index: int) -> int | None:
        """What is wrong of what a sum's first sum was made of, if that is one value."""
        value = self.jax.values[index]
        sums = [p for p in value.parents if kind_of(self.jax.values[p]) == "add"]
        if kind_of(value) != "add" or len(sums) != 1 or self.has_partner(sums[0]):
            return None
        wrong = [p for p in self.jax.values[sums[0]].parents if not self.has_partner(p)]
        return self.laid_out_from(self.jax, wrong[0]) if len(wrong) == 1 else None

    def _one_too_many(self, index: int, reference: int) -> Blame | None:
        """Both go on with something that both have, but not with the same of it.

        JAX has gone a step further than PyTorch, or PyTorch than JAX: these steps are the lines.
        """
        reference = self.laid_out_from(self.torch, reference)
        if self._is_extra(index, reference):
            return Blame(index, reference, self.depth_of(index), index, against=reference)
        mine, theirs = self.own_parents(self.jax, index), self.own_parents(self.torch, reference)
        ours = [p for p in mine if p in self.partners.of_jax and not self.meets(p, theirs)]
        others = [t for t in theirs if t in self.partners.of_torch and not self.is_met(t, mine)]
        values = [*(self.jax.values[p] for p in ours), *(self.torch.values[t] for t in others)]
        if len(ours) != 1 or len(others) != 1 or any(map(says_nothing, values)):
            return None
        met = {i for each in self.partners.of_torch[others[0]] for i in each}
        known = {t for each in self.partners.of_jax[ours[0]] for t in each}
        step = self.step_after(self.jax, met, ours[0])
        if step is None:
            return None
        if any(self._is_used_rightly(c) for c in self.consumers[ours[0]] if c != index):
            return Blame(index, reference, self.depth_of(index), index, against=reference)
        other = self.step_after(self.torch, known, others[0])
        shown = others[0] if other is None else other
        return Blame(step, shown, self.depth_of(step), index, against=reference)

    def _is_used_rightly(self, index: int) -> bool:
        """Whether a use of a value is none that leads to a wrong output, and more than a layout."""
        value = self.jax.values[index]
        leads_on = bool(self.consumers[index]) and index not in self._inside
        return leads_on and not value.is_plain and base_of(value) not in LAYOUTS

    def _is_extra(self, index: int, reference: int) -> bool:
        """Whether an operation's own operand is what PyTorch goes on with.

        If PyTorch's is of that kind as well, the two may stand for one another, and the operand be
        a step ahead: not if JAX uses that rightly elsewhere.
        """
        operands = {*self.own_parents(self.jax, index)}
        known = {i for each in self.partners.of_torch.get(reference, ()) for i in each} & operands
        if not known:
            return False
        if kind_of(self.jax.values[index]) != kind_of(self.torch.values[reference]):
            return True
        uses = {c for i in known for c in self.consumers[i] if c != index}
        return any(map(self.has_partner, uses))

    def _made_plain(self, index: int) -> list[int]:
        """The operands that say nothing and are made on a line of their own, by that line."""
        found = []
        for parent in self.jax.values[index].parents:
            chain: list[int] = [parent]
            while (before := self._same_number_before(chain[-1])) is not None:
                chain.append(before)
            made = [i for i in chain if self.jax.values[i].marks and self.jax.values[i].is_plain]
            here = location(self.marks_of(index)[0])[:2] if self.marks_of(index) else None
            if made and location(self.marks_of(made[-1])[0])[:2] != here:
                found.append(made[-1])
        return found

    def _same_number_before(self, index: int) -> int | None:
        """What a number that says nothing was laid out from, or had before nothing was added."""
        value = self.jax.values[index]
        if value.op in LAYOUTS and value.parents:
            return value.parents[0]
        plain = [p for p in value.parents if self.jax.values[p].is_plain]
        same = [p for p in plain if number_of(self.jax.values[p]) == number_of(value)]
        return next((p for p in same if value.is_plain and self.jax.values[p].marks), None)

    def _idle(self, index: int, reference: int) -> int | None:
        """An operation of PyTorch's kind that adds nothing here, or multiplies by 1.

        JAX has it as well then, and it is another operand that is to blame.
        """
        own, kind = {*self.partners.of_jax.get(index, ())}, kind_of(self.torch.values[reference])
        while kind is not None and index >= 0:
            if kind_of(self.jax.values[index]) == kind:
                return index
            parents = self.own_parents(self.jax, index)
            index = next((p for p in parents if own & {*self.partners.of_jax.get(p, ())}), -1)
        return None
