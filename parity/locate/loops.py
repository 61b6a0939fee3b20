"""Whether a loop itself is to blame for a value: its order, its beginning, or what it puts out."""

from typing import NamedTuple

from parity.locate.correspondence import is_inside
from parity.locate.kinds import LAYOUTS, base_of, kind_of
from parity.locate.places import Location, Mark
from parity.locate.region import Region
from parity.locate.syntax import return_of


class Blame(NamedTuple):
    """What was found.

    Attributes:
        candidate: JAX's value that is wrong, or a value that it went on with wrongly.
        reference: PyTorch's value in its place, if it has one.
        depth: Which of the lines that asked for it is the one: 0 the innermost.
        evidence: The wrong value of JAX's whose counterpart `reference` is.
        place: The line, where no value was computed on it.
        against: What that wrong value is held against, if it is not `reference`.
    """

    candidate: int
    reference: int | None
    depth: int
    evidence: int
    place: Location | None = None
    against: int | None = None


class Loops(Region):
    """The loops that wrong values come of."""

    def loop_of(self, index: int, reference: int) -> Blame | None:
        """Whether the loop itself is to blame: its order, what it begins with or what it returns.

        Its line is the call's, or the last of its body.
        """
        value, outer = self.jax.values[index], self._scan_marks(index)
        if outer is None:
            return None
        if value.op == "scan output":
            right = all(self.has_partner(p) for p in value.parents)
            place = self._end_of(outer) if right else None
            return Blame(index, reference, 0, index, place) if place else None
        depth = len(value.marks) - len(outer)
        operands = [
            p for p in self.own_parents(self.jax, index) if not is_inside(self.marks_of(p), outer)
        ]
        theirs = {*self.own_parents(self.torch, reference)}
        # What PyTorch makes of the same start is an operation that is left out.
        theirs |= {p for t in theirs for p in self.own_parents(self.torch, t)}
        alike = kind_of(value) == kind_of(self.torch.values[reference])
        begins = (
            alike
            and value.iteration == 0
            and any(
                self.has_partner(p)
                and not self.jax.values[p].is_plain
                and not any({*t} & theirs for t in self.partners.of_jax.get(p, ()))
                for p in operands
                if "scan input" not in {self.jax.values[c].op for c in value.parents}
            )
        )
        if begins or self._is_reversed(outer, reference):
            return Blame(index, reference, depth, index)
        return None

    def put_out(self, index: int, reference: int) -> Blame | None:
        """A loop with other values of its turns put out than PyTorch goes on with: its end."""
        theirs = {*self.own_parents(self.torch, reference)}
        theirs |= {p for t in theirs for p in self.own_parents(self.torch, t)}
        wanted = {i for t in theirs for each in self.partners.of_torch.get(t, ()) for i in each}
        seen, open_ = {index}, [index]
        while open_:
            value = self.jax.values[open_.pop()]
            if value.op == "scan output" and self.has_partner(value.index):
                inside = {i for i in wanted if is_inside(self.marks_of(i), value.marks)}
                place = self._end_of(value.marks)
                if inside and not {*value.parents} <= wanted and place is not None:
                    return Blame(index, reference, 0, index, place)
                continue
            for parent in value.parents:
                is_way = not self.has_partner(parent) or base_of(self.jax.values[parent]) in LAYOUTS
                if is_way and parent not in seen:
                    seen.add(parent)
                    open_.append(parent)
        return None

    def _end_of(self, outer: tuple[Mark, ...]) -> Location | None:
        """The last line of the body of the loop that these lines asked for."""
        inside = [each for each in self.jax.values if is_inside(each.marks, outer)]
        return return_of(inside[-1].marks[-len(outer) - 1][0]) if inside else None

    def _scan_marks(self, index: int) -> tuple[Mark, ...] | None:
        """The lines that asked for the loop that a value is in, or that it is what comes of."""
        value = self.jax.values[index]
        scans = {v.marks for v in self.jax.values if v.op in ("scan input", "scan output")}
        found = [m for m in scans if is_inside(value.marks, m)]
        if value.op == "scan output":
            return value.marks
        return max(found, key=len, default=None)

    def _is_reversed(self, outer: tuple[Mark, ...], reference: int) -> bool:
        """Whether JAX's loop takes its rows in the other order than PyTorch's."""
        if self.torch.values[reference].iteration is None:
            return False
        for members in self.jax.families():
            rows = [self.jax.values[i] for i in members]
            if rows[0].op != "scan input" or rows[0].marks != outer or not self.is_loop(members):
                continue
            for first in self.partners.of_jax.get(members[0], ()):
                for last in self.partners.of_jax.get(members[-1], ()):
                    one, other = self.torch.values[first[0]], self.torch.values[last[0]]
                    if len(first) == len(last) == 1 and one.group == other.group:
                        return (one.iteration or 0) > (other.iteration or 0)
        return False
