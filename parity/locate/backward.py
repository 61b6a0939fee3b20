"""Where two computations first part in their slopes, though every value is the same.

Partners have the same slope: that of the outputs in them. Back from the outputs, the first value
whose slope differs is where a wrong derivative arrives: by a use of it that adds another slope than
PyTorch's, by a use that PyTorch stops, or for want of one that JAX stops.
"""

import time
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from parity.locate.correspondence import depth_where_wrong
from parity.locate.jax_slopes import Use, rule_values, slopes
from parity.locate.matching import item, near, same
from parity.locate.places import Location, Mark, location
from parity.locate.slope_pairs import SlopePairs
from parity.locate.tape import Value

SECONDS = 10.0
"""After so much of the processor's time no further slope is put in another's place."""


class SlopeBlame(NamedTuple):
    """What was found.

    Attributes:
        value: JAX's value whose slope is wrong.
        candidate: The value on whose line the fault is: itself, or what uses it.
        reference: PyTorch's value that stands there.
        ours: The wrong slope, at each input set.
        theirs: PyTorch's.
        place: The line, if it is none of the candidate's: in a custom derivative, say.
        other: PyTorch's line, if it is none of the reference's.
    """

    value: int
    candidate: int
    reference: int | None
    ours: tuple[np.ndarray, ...]
    theirs: tuple[np.ndarray, ...]
    place: Location | None = None
    other: Location | None = None


class Backward(SlopePairs):
    """The search on one pair of tapes, with the slopes on both."""

    def blame(self) -> SlopeBlame | None:
        """The first fault on the way back from the outputs, by the lines that called for it."""
        found = self._blame_of_slopes()
        if found is None or found.place is not None:
            return found
        value = self.jax.values[found.candidate]
        depth = depth_where_wrong(self.jax, value, lambda i: i not in self.differing)
        depth = self._depth_of_a_stop(found) or depth
        place = value.place_at(depth) if depth else None
        other = None if found.reference is None else self.torch.values[found.reference]
        there = 0 if other is None else depth_where_wrong(self.torch, other, self._is_right)
        return found._replace(
            place=place, other=other.place_at(there) if other is not None and there else None
        )

    def _depth_of_a_stop(self, found: SlopeBlame) -> int | None:
        """The call to which something is handed as it is, where that is at hand held fast."""
        used = self.jax.values[found.candidate].marks
        leading = self.jax.ancestors([found.candidate])
        for stop in (v for v in self.jax.values[: found.candidate] if v.op == "stop_gradient"):
            if not stop.marks or stop.index in leading or stop.parents[0] not in leading:
                continue
            for depth in range(1, len(used)):
                is_there = used[depth][0] is stop.marks[0][0]
                if is_there and used[depth + 1 :] == stop.marks[1:]:
                    return depth
        return None

    def _is_right(self, index: int) -> bool:
        """Whether JAX's slope in one of PyTorch's values is PyTorch's."""
        ours = {i for each in self.partners.of_torch.get(index, ()) for i in each}
        return not ours & self.differing

    def _blame_of_slopes(self) -> SlopeBlame | None:
        """The first fault on the way back from the outputs.

        Of the values whose slope differs, the last one computed with which every gradient is right
        once it is PyTorch's; if there is none, the first whose slope is wrong on its own account.
        """
        until = time.process_time() + SECONDS
        for members in self._in_turn:
            for theirs in self._replacements(members[0]):
                if time.process_time() < until and self._mends(members, theirs):
                    return self._blame(self.jax.values[members[0]], theirs)
        until = time.process_time() + SECONDS
        for stops in self._stops():
            if time.process_time() < until and self._right_opened(stops):
                return self._opened(stops[-1])
        if (found := self._inputs()) is not None:
            return found
        for value in reversed(self.jax.values):
            if value.index in self.differing and not self._comes_from_later(value.index):
                return self._blame(value, self._replacements(value.index)[0])
        return None

    def _stops(self) -> list[list[int]]:
        """The stops of each line, the last line first."""
        lines: dict[Mark, list[int]] = {}
        for value in reversed(self.jax.values):
            if value.op == "stop_gradient" and value.marks:
                lines.setdefault(value.marks[0], []).append(value.index)
        return [stops[::-1] for stops in lines.values()]

    def _right_opened(self, stops: Sequence[int]) -> bool:
        """Whether every gradient is right if these stop nothing."""
        for s, run in enumerate(self.jax_runs):
            opened = {self.jax.places[s][i] for i in stops}
            found = slopes(run.program, self.seeds[s], [], self.compiled, opened=opened).total
            for name, right in self.torch_runs[s].gradients.items():
                place = run.recording.inputs[name]
                ours = found.get(place, np.zeros(right.shape))
                scale = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
                if not near(right, ours, self.share * scale):
                    return False
        return True

    def _opened(self, stop: int) -> SlopeBlame:
        """A stop that PyTorch does not have."""
        held = self.jax.values[stop].parents[0]
        moving = [t for t in self.partners_of(held) if self.slope_in_torch(t) is not None]
        reference = moving[0] if moving else None
        theirs = None if reference is None else self.slope_in_torch(reference)
        ours = self.slope_in_jax(held)
        other = None if reference is None else self._use_in_torch(reference)
        place = self.jax.values[stop].place
        return SlopeBlame(held, stop, other, ours, theirs or ours, place)

    def _inputs(self) -> SlopeBlame | None:
        """Several inputs that are used once too often: by the innermost line that all come from."""
        used: list[tuple[int, Use]] = []
        for index in self.jax.inputs.values():
            if index in self.differing:
                moving = [t for t in self.partners_of(index) if self.slope_in_torch(t) is not None]
                used += [(index, use) for use in self.unlike_uses(index, moving)]
        values = [(index, self._value_at(use.output)) for index, use in used]
        found = [(index, self.jax.values[v]) for index, v in values if v is not None]
        found = [(index, value) for index, value in found if value.marks]
        if len(found) < 2:
            return None
        outer = _common([value.marks for _, value in found])
        # A line that is right where it is called from elsewhere was called wrongly here.
        wrong = {value.index for _, value in found}
        right = {
            mark
            for index, _ in found
            for c in self.consumers[index]
            if c not in wrong
            for mark in self.jax.values[c].marks
        }
        while len(outer) > 1 and outer[0] in right:
            outer = outer[1:]
        index, value = found[0]
        ours = self.slope_in_jax(index)
        theirs = self._replacements(index)[:1]
        slope = self.slope_in_torch(theirs[0]) if theirs and theirs[0] is not None else None
        zeros = tuple(np.zeros_like(slope) for slope in ours)
        other = theirs[0] if theirs else None
        place = location(outer[0]) if outer else None
        return SlopeBlame(index, value.index, other, ours, slope or zeros, place)

    @property
    def _in_turn(self) -> list[tuple[int, ...]]:
        """The values whose slope differs, the last first; those of a loop together."""
        together = {i: tuple(m[::-1]) for m in self.jax.families() for i in m}
        found = {}
        for index in sorted(self.differing, reverse=True):
            members = tuple(i for i in together.get(index, (index,)) if i in self.differing)
            found[members] = None
        return [*found]

    def _replacements(self, index: int) -> list[int | None]:
        """PyTorch's values whose slope may be the right one; `None` is none at all."""
        partners = self.partners_of(index)
        moving: list[int | None] = [t for t in partners if self.slope_in_torch(t) is not None]
        return moving[:2] + ([None] if len(moving) < len(partners) else [])

    def _mends(self, members: tuple[int, ...], theirs: int | None) -> bool:
        """Whether every gradient is right once the slopes of these values are PyTorch's."""
        for s in range(len(self.jax_runs)):
            seeds = {}
            for member in members:
                ours = self.slope_in_jax(member)[s]
                right = np.zeros_like(ours) if theirs is None else self._right(member, theirs, s)
                if right is None or right.size not in (ours.size, 1):
                    return False
                seeds[self.jax.places[s][member]] = (
                    right.reshape(ours.shape if right.size == ours.size else ())
                    * np.ones_like(ours)
                    - ours
                )
            if not self._right_after(s, seeds):
                return False
        return True

    def _right(self, member: int, theirs: int, s: int) -> np.ndarray | None:
        """PyTorch's slope for a value, laid out as the value: of its own partner, in a loop."""
        partners = self.partners_of(member)
        own = theirs if theirs in partners else next(iter(partners), theirs)
        slope = self.slope_in_torch(own)
        if slope is None:
            return None
        value, shape = self.torch.values[own].arrays[s], self.jax.values[member].arrays[s]
        for order in permutations(range(value.ndim)):
            if value.transpose(order).size == shape.size and np.allclose(
                value.transpose(order).ravel(), shape.ravel(), rtol=1e-9, atol=0, equal_nan=True
            ):
                return slope[s].transpose(order)
        return slope[s]

    def _right_after(self, s: int, seeds: dict[int, np.ndarray]) -> bool:
        """Whether the gradients are PyTorch's with these slopes added."""
        run = self.jax_runs[s]
        added = slopes(run.program, seeds, [], self.compiled, held=True).total
        for name, right in self.torch_runs[s].gradients.items():
            place = run.recording.inputs[name]
            own = self.jax_slopes[s].total.get(place, np.zeros(right.shape))
            found = own + added.get(place, np.zeros(right.shape))
            scale = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
            largest = float(np.abs(own[np.isfinite(own)]).max(initial=0.0))
            if not near(right, found, self.share * max(scale, largest)):
                return False
        return True

    def _comes_from_later(self, index: int) -> bool:
        """Whether the slope is wrong already in what the value was used for."""
        open_, seen = [index], {index}
        while open_:
            for consumer in self.consumers[open_.pop()]:
                if consumer in self.differing:
                    return True
                if consumer not in seen and not self.partners_of(consumer):
                    seen.add(consumer)
                    open_.append(consumer)
        return False

    def _blame(self, value: Value, right: int | None) -> SlopeBlame:
        partners = self.partners_of(value.index)
        moving = [t for t in partners if self.slope_in_torch(t) is not None]
        ours = self.slope_in_jax(value.index)
        if right is None and not (moving and self._stopped_use(value.index) is not None):
            return self._not_stopped(value, partners, ours)
        reference = moving[0] if right is None else right
        theirs = self.slope_in_torch(reference) or ours
        mine = self.unlike_uses(value.index, moving)
        lacking = self.unlike_parts(value.index, moving)

        def found(candidate: int, other: int | None, at: Location | None = None) -> SlopeBlame:
            return SlopeBlame(value.index, candidate, other, ours, theirs, at)

        stopped = self._stopped_use(value.index)
        if stopped is not None and (lacking or not mine):
            return found(stopped, self._use_in_torch(reference))
        if mine:
            stop = next((t for t in partners if self.slope_in_torch(t) is None), None)
            used = self._value_at(mine[0].output)
            other = self._use_in_torch(reference) if lacking or stop is None else stop
            at = self._rule(mine[0])
            return found(value.index if used is None else used, other, at)
        uses = self.consumers[value.index]
        return found(uses[0] if uses else value.index, self._use_in_torch(reference))

    def _rule(self, use: Use) -> Location | None:
        """The line of a custom derivative that first computes what PyTorch does not."""
        found = rule_values(self.jax_runs[0].program, use, self.jax_slopes[0].total)
        known = [item((), (each.array,)) for each in self.torch_runs[0].backward]
        known += [item((), value.arrays[:1]) for value in self.torch.values]
        for place, array in found:
            other = item((), (array,))
            if array.size > 1 and not any(
                same(each, other) for each in known if each.core.size == other.core.size
            ):
                return place
        return found[-1][0] if found else None

    def _not_stopped(
        self, value: Value, partners: list[int], ours: tuple[np.ndarray, ...]
    ) -> SlopeBlame:
        """PyTorch lets nothing flow there: on the line of the value, or on that of its use."""
        zeros = tuple(np.zeros_like(slope) for slope in ours)
        stops = [t for t in partners if self.torch.values[t].op.startswith("aten.detach")]
        made = [t for t in partners if t not in stops and self.torch.values[t].marks]
        for stop in stops:
            lines = {location(mark)[:2] for t in made for mark in self.torch.values[t].marks}
            place = self.torch.values[stop].place
            if made and place is not None and place[:2] not in lines:
                used = next((c for c in self.consumers[value.index]), value.index)
                return SlopeBlame(value.index, used, stop, ours, zeros)
        reference = (made or stops or partners)[-1]
        return SlopeBlame(value.index, value.index, reference, ours, zeros)

    def _stopped_use(self, index: int) -> int | None:
        """A use that lets no slope through: a stop, or what makes whole numbers of it."""
        return next(
            (
                c
                for c in self.consumers[index]
                if self.jax.values[c].op == "stop_gradient" or self.jax.values[c].op in FLAT
            ),
            None,
        )

    def _use_in_torch(self, index: int) -> int | None:
        uses = [c for c in self.torch_consumers[index] if self.torch.values[c].marks]
        return uses[0] if uses else index

    def _value_at(self, place: int) -> int | None:
        """The value at a place on JAX's own tape."""
        where = self.jax.places[0]
        return where.index(place) if place in where else None


FLAT = ("floor", "round", "sign", "ceil", "gt", "lt", "ge", "le", "argmax", "argmin")
"""What has no slope."""


def _common(stacks: Sequence[tuple[Mark, ...]]) -> tuple[Mark, ...]:
    """The lines, from the outside in, that all of these were reached through."""
    length = 0
    while length < min(map(len, stacks)) and len({m[len(m) - 1 - length] for m in stacks}) == 1:
        length += 1
    return stacks[0][len(stacks[0]) - length :] if length else ()
