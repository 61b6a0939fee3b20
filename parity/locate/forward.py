"""Where two computations first part in their values: the line that hands on what has no partner.

Back from a wrong output through values without a partner lies the *region* in which both sides
compute otherwise; its first values, made only of what both sides have, are its *edge*. What is
computed in another way but comes out right has a partner again and is not in it. In the region the
first value that can be mended (`parity.locate.repairs`) is where the fault is; its counterpart on
PyTorch's side tells whether the operation differs or an operand.
"""

from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import permutations
from typing import NamedTuple

import numpy as np

from parity.locate.jax_tape import JaxRun
from parity.locate.matching import Partners, near
from parity.locate.places import Location, Mark, location, return_of
from parity.locate.repairs import Repairs, Target
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
PRODUCTS = frozenset(["dot_general", "conv_general_dilated", "concatenate", "pad", "iota", "gather"])
"""Operations whose results are larger than their operands for another reason than broadcasting."""

MAX_TRIED = 12
"""So many of PyTorch's values are tried in the place of one of JAX's, the likeliest first."""
MAX_ITERATIONS = 8
"""Of a loop that goes wrong, so many iterations are looked into."""


class Blame(NamedTuple):
    """What was found.

    Attributes:
        candidate: JAX's value that is wrong, or a value that it went on with wrongly.
        reference: PyTorch's value in its place, if it has one.
        depth: Which of the lines that asked for it is the one: 0 the innermost.
        evidence: The wrong value of JAX's whose counterpart `reference` is.
        place: The line, where no value was computed on it.
    """

    candidate: int
    reference: int | None
    depth: int
    evidence: int
    place: Location | None = None


class Forward:
    """The search on one pair of tapes."""

    def __init__(
        self, partners: Partners, runs: Sequence[JaxRun], wrong: dict[str, float]
    ) -> None:
        """Args: the partners, JAX's runs, and the slack of each output that is wrong."""
        self.torch, self.jax, self.partners = partners.torch, partners.jax, partners
        self.wrong = wrong
        self.repairs = Repairs(self.torch, self.jax, runs)
        self.targets = {self.jax.outputs[path] for path in wrong}

    def has_partner(self, index: int) -> bool:
        """Whether PyTorch has a value of JAX's, or it says nothing."""
        if index in self.targets:
            return False
        return index in self.partners.of_jax or self.jax.values[index].is_plain

    def is_known(self, index: int) -> bool:
        """Whether JAX has a value of PyTorch's, or it says nothing."""
        return index in self.partners.of_torch or self.torch.values[index].is_plain

    @cached_property
    def region(self) -> list[int]:
        """JAX's values without a partner that lead to a wrong output, in order."""
        found, open_ = set(self.targets), list(self.targets)
        while open_:
            for parent in self.jax.values[open_.pop()].parents:
                if parent not in found and not self.has_partner(parent):
                    found.add(parent)
                    open_.append(parent)
        return sorted(found)

    @cached_property
    def edge(self) -> list[int]:
        """The region's first values."""
        inside = set(self.region)
        return [i for i in self.region if not inside & {*self.jax.values[i].parents}]

    @cached_property
    def missing(self) -> list[tuple[int, ...]]:
        """PyTorch's values that JAX lacks and that lead to the outputs: alone, and by loops."""
        leading = self.torch.ancestors([self.torch.outputs[path] for path in self.wrong])
        ends = {self.torch.outputs[path] for path in self.wrong}
        consumers = self.torch.consumers()
        # A buffer that is still being written is no result.
        unfinished = {
            i for i in leading if any(self.torch.values[c].op == "read" for c in consumers[i])
        }
        leading -= {i for i in unfinished if self.torch.values[i].op == "read"}
        alone = [i for i in sorted(leading) if i in ends or not self.is_known(i)]
        loops = [
            tuple(order)
            for members in self.torch.families()
            if leading & {*members} and not all(map(self.is_known, members))
            for order in (members, members[::-1])
        ]
        return [*((i,) for i in alone), *loops]

    def blame(self) -> Blame:
        """The fault's value, and PyTorch's in its place."""
        if (outer := self._outer()) is not None:
            return outer
        leaves: dict[int, int] = {}
        for path, slack in self.wrong.items():
            target = Target(self.jax.outputs[path], self.torch.outputs[path], slack, is_output=True)
            leaves |= self._leaves(target, set())
        if not leaves:
            return self._placed(self.edge[0], self._same_operands(self.edge[0]))
        first = min(leaves)
        lines = {self.jax.values[i].place for i in leaves}
        if len(leaves) > 1 and len({each and each[:2] for each in lines}) > 1:
            shared = self._shared(leaves)
            if shared is not None:
                return Blame(shared, leaves[first], self._depth(shared), first)
        return self._placed(first, leaves[first])

    def _leaves(self, target: Target, seen: set[int]) -> dict[int, int]:
        """The first values that are wrong on the way to a target, with PyTorch's for each.

        One value that mends the target alone is the first; where it is right if only its operands
        are, several of these are wrong, and each is a target of its own.
        """
        seen.add(target.candidate)
        found = self._mender(target)
        if found is None:
            return {}
        leaves: dict[int, int] = {}
        for index, theirs, sign in found:
            for ours, other in self._operand_pairs(index, theirs, sign):
                if ours not in seen:
                    inner = Target(ours, other, self._slack(other))
                    leaves |= self._leaves(inner, seen) or {ours: other}
        return leaves or {found[0][0]: found[0][1]}

    def _slack(self, index: int) -> float:
        scale = max(_scale(array) for array in self.torch.values[index].arrays)
        return max(GATE * scale, SLACK * self.partners.slack[index])

    def _mender(self, target: Target) -> list[tuple[int, int, int]] | None:
        """The first value of the region that mends a target, and by what, with which sign.

        Of a loop all values that are wrong.
        """
        leading = self.jax.ancestors([target.candidate])
        for members in self._in_turn:
            if not leading & {*members}:
                continue
            for theirs in self._fitting(members):
                if sign := self.repairs.mends(members, theirs, target):
                    others = theirs if len(theirs) == len(members) else theirs[:1] * len(members)
                    pairs = zip(members, others, strict=True)
                    wrong = [(i, j, sign) for i, j in pairs if not self.has_partner(i)]
                    return wrong[:MAX_ITERATIONS]
        return None

    def _operand_pairs(self, index: int, theirs: int, sign: int) -> list[tuple[int, int]]:
        """The wrong operands of a value that is right once they are PyTorch's."""
        ours = [p for p in self.jax.values[index].parents if not self.has_partner(p)]
        others = [p for p in self._own_parents(self.torch, theirs) if not self.is_known(p)]
        if not ours or len(others) < len(ours):
            return []
        orders = sorted(
            permutations(others, len(ours)),
            key=lambda order: -sum(map(self._likeness, ours, order)),
        )
        for order in orders:
            for each in (sign, -sign):
                target = Target(index, theirs, self._slack(theirs), each)
                if self.repairs.follows(dict(zip(ours, order, strict=True)), target):
                    return [*zip(ours, order, strict=True)]
        return []

    def _likeness(self, ours: int, theirs: int) -> float:
        """The share of inputs that both values depend on, of those that either does."""
        mine, others = self._inputs_of_jax[ours], self._inputs_of_torch[theirs]
        return len(mine & others) / max(1, len(mine | others))

    @cached_property
    def _inputs_of_jax(self) -> list[frozenset[str]]:
        return _inputs_of(self.jax)

    @cached_property
    def _inputs_of_torch(self) -> list[frozenset[str]]:
        return _inputs_of(self.torch)

    def _shared(self, leaves: Collection[int]) -> int | None:
        """The last value that is wrong, or says nothing, on the way to each of several."""
        common = set.intersection(*(self._apart(each, leaves) for each in leaves))
        plain = {
            i for i in common
            if self.jax.values[i].is_plain and self.jax.values[i].marks and i not in self.targets
        }
        wrong = {i for i in common if not self.has_partner(i)}
        return max(wrong or plain, default=None)

    def _apart(self, index: int, leaves: Collection[int]) -> set[int]:
        """What a value was made of, but not through the other wrong ones."""
        found, open_ = {index}, [index]
        while open_:
            for parent in self.jax.values[open_.pop()].parents:
                if parent not in found and parent not in leaves:
                    found.add(parent)
                    open_.append(parent)
        return found

    @cached_property
    def _in_turn(self) -> list[tuple[int, ...]]:
        """The values of the region in order, those of a loop together."""
        families = [tuple(members) for members in self.jax.families()]
        loops = {i: members for members in families if self._is_loop(members) for i in members}
        called = {members for members in families if not self._is_loop(members)}
        inside = {loops.get(i, (i,)) for i in self.region}
        inside |= {members for members in called if {*members} <= {*self.region}}
        return sorted(inside, key=lambda members: (min(members), -len(members)))

    def _is_loop(self, members: Sequence[int]) -> bool:
        return len({self.jax.values[i].group for i in members}) == 1

    def _fitting(self, members: tuple[int, ...]) -> list[tuple[int, ...]]:
        """PyTorch's missing values of this size, those made of the same operands first.

        After them what a single value was made of: an operation may be one too many.
        """
        size = len(members) * self.jax.values[members[0]].arrays[0].size
        found = [
            theirs
            for theirs in self.missing
            if len(theirs) * self.torch.values[theirs[0]].arrays[0].size == size
        ]
        operands = self._operands(members[0])
        found.sort(
            key=lambda t: (
                -len(operands & {*self.torch.values[t[0]].parents}),
                -self._likeness(members[0], t[0]),
            )
        )
        del found[MAX_TRIED:]
        if len(members) == 1:
            parents = self.jax.values[members[0]].parents
            found += [t for p in parents for t in self.partners.of_jax.get(p, ())[:1]]
        return found

    def _operands(self, index: int) -> set[int]:
        """PyTorch's values that are the operands of a value of JAX's."""
        return {
            each
            for parent in self.jax.values[index].parents
            for theirs in self.partners.of_jax.get(parent, ())
            for each in theirs
        }

    def _same_operands(self, index: int) -> int | None:
        """PyTorch's missing value that shares most operands with one of JAX's."""
        operands = self._operands(index)
        alone = [theirs[0] for theirs in self.missing if len(theirs) == 1]
        shared = [(len(operands & {*self.torch.values[i].parents}), -i) for i in alone]
        best = max(shared, default=(0, 0))
        return -best[1] if best[0] else (alone[0] if alone else None)

    def _outer(self) -> Blame | None:
        """An operand with an axis of one too many, so that each entry meets each of another's.

        PyTorch has dropped that axis; where, says on which line JAX has not.
        """
        sizes = {self.torch.values[t[0]].arrays[0].size for t in self.missing if len(t) == 1}
        for index in self.edge:
            value = self.jax.values[index]
            parents = [self.jax.values[p] for p in value.parents]
            largest = max((p.arrays[0].size for p in parents), default=0)
            size = value.arrays[0].size
            if size <= largest or size in sizes or _base(value) in (*LAYOUTS, *PRODUCTS):
                continue
            for ours in self._own_parents(self.jax, index):
                shape = self.jax.values[ours].arrays[0].shape
                for (theirs, *_) in self.partners.of_jax.get(ours, ()):
                    other = self.torch.values[theirs]
                    if len(other.arrays[0].shape) < len(shape) and 1 in shape and other.parents:
                        return self._dropped(index, ours, theirs, theirs, index, same=False)
        return None

    def _placed(self, index: int, reference: int | None) -> Blame:
        """Whether the operation is to blame, or what it was given."""
        evidence = index
        if reference is not None and (found := self._loop(index, reference)) is not None:
            return found
        for _ in range(len(self.jax.values)):
            if reference is None:
                break
            handed = self._wrong_operand(index, reference)
            if handed is None:
                break
            ours, theirs = handed
            if self._twin(ours) is None or self.jax.values[ours].is_input:
                return self._dropped(index, ours, theirs, reference, evidence)
            index, reference = ours, theirs
        return Blame(index, reference, self._depth(index), evidence)

    def _loop(self, index: int, reference: int) -> Blame | None:
        """Whether the loop itself is to blame: its order, what it begins with or what it returns.

        Its line is the call's, or the last of its body.
        """
        value, outer = self.jax.values[index], self._scan_marks(index)
        if outer is None:
            return None
        if value.op == "scan output":
            inside = [each for each in self.jax.values if _is_inside(each.marks, outer)]
            body = inside[-1].marks[-len(outer) - 1][0] if inside else None
            right = all(self.has_partner(p) for p in value.parents)
            place = return_of(body) if body and right else None
            return Blame(index, reference, 0, index, place) if place else None
        depth = len(value.marks) - len(outer)
        operands = [
            p for p in self._own_parents(self.jax, index) if not _is_inside(self._marks(p), outer)
        ]
        theirs = {*self._own_parents(self.torch, reference)}
        begins = value.iteration == 0 and any(
            self.has_partner(p)
            and not self.jax.values[p].is_plain
            and not any({*t} & theirs for t in self.partners.of_jax.get(p, ()))
            for p in operands
            if "scan input" not in {self.jax.values[c].op for c in value.parents}
        )
        if begins or self._is_reversed(outer, reference):
            return Blame(index, reference, depth, index)
        return None

    def _marks(self, index: int) -> tuple[Mark, ...]:
        return self.jax.values[index].marks

    def _scan_marks(self, index: int) -> tuple[Mark, ...] | None:
        """The lines that asked for the loop that a value is in, or that it is what comes of."""
        value = self.jax.values[index]
        scans = {v.marks for v in self.jax.values if v.op in ("scan input", "scan output")}
        found = [m for m in scans if _is_inside(value.marks, m)]
        if value.op == "scan output":
            return value.marks
        return max(found, key=len, default=None)

    def _is_reversed(self, outer: tuple[Mark, ...], reference: int) -> bool:
        """Whether JAX's loop takes its rows in the other order than PyTorch's."""
        if self.torch.values[reference].iteration is None:
            return False
        for members in self.jax.families():
            rows = [self.jax.values[i] for i in members]
            if rows[0].op != "scan input" or rows[0].marks != outer or not self._is_loop(members):
                continue
            for first in self.partners.of_jax.get(members[0], ()):
                for last in self.partners.of_jax.get(members[-1], ()):
                    one, other = self.torch.values[first[0]], self.torch.values[last[0]]
                    if len(first) == len(last) == 1 and one.group == other.group:
                        return (one.iteration or 0) > (other.iteration or 0)
        return False

    def _wrong_operand(self, index: int, reference: int) -> tuple[int, int] | None:
        """An operand that stands where PyTorch has another, which JAX lacks: both of them."""
        theirs = self._own_parents(self.torch, reference)
        lacking = [p for p in theirs if not self.is_known(p)]
        mine = [p for p in self._own_parents(self.jax, index) if not self.jax.values[p].is_plain]
        spare = [
            p
            for p in mine
            if self.has_partner(p)
            and not any({*t} & {*theirs} for t in self.partners.of_jax.get(p, ()))
        ]
        if not spare:  # a number made where PyTorch has an array
            spare = [p for p in self._made_plain(index)]
        if len(lacking) != 1 or len(spare) != 1:
            return None
        return spare[0], lacking[0]

    def _made_plain(self, index: int) -> list[int]:
        """The operands that say nothing and are made on a line of their own, by that line."""
        found = []
        for parent in self.jax.values[index].parents:
            chain = [parent]
            while self.jax.values[chain[-1]].op in LAYOUTS and self.jax.values[chain[-1]].parents:
                chain.append(self.jax.values[chain[-1]].parents[0])
            made = [i for i in chain if self.jax.values[i].marks and self.jax.values[i].is_plain]
            here = location(self._marks(index)[0])[:2] if self._marks(index) else None
            if made and location(self._marks(made[-1])[0])[:2] != here:
                found.append(made[-1])
        return found

    def _own_parents(self, tape: Tape, index: int) -> list[int]:
        """What a value was made of, behind what only lays it out."""
        found = []
        for parent in tape.values[index].parents:
            value = tape.values[parent]
            if _base(value) in LAYOUTS and value.parents:
                found += self._own_parents(tape, parent)
            else:
                found.append(parent)
        return [*dict.fromkeys(found)]

    def _twin(self, index: int) -> int | None:
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
        return _base(value) not in LAYOUTS and not among & {*value.parents}

    def _dropped(
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
        value = self.jax.values[ours]
        made = self.torch.values[theirs]
        if value.is_plain and value.marks:
            return Blame(ours, theirs, 0, evidence)
        if value.marks and not (same and _same_line(made, self.torch.values[reference])):
            for operand in self._own_parents(self.torch, theirs):
                depth = _depth_on_line(self.torch.values[operand], made)
                if depth is not None:
                    depth = min(depth, len(value.marks) - 1)
                    return Blame(ours, theirs, depth, evidence)
        return Blame(index, theirs, self._depth(index), evidence)

    def _depth(self, index: int) -> int:
        """Which of the lines that asked for a value is the one.

        A line that comes out right where it is called from elsewhere was called wrongly here.
        """
        value = self.jax.values[index]
        twin = self._twin(index)
        others = [
            each
            for each in self.jax.values
            if each.marks and value.marks and each.marks[0] == value.marks[0]
            and each.op == value.op and each.marks != value.marks
        ]
        if twin is not None and self.jax.values[twin].marks[:1] == value.marks[:1]:
            others = [self.jax.values[twin]]
        elif not others or not all(self.has_partner(each.index) for each in others):
            return 0
        depth = _first_difference(value, others[0])
        return depth if depth < len(value.marks) else 0


def _is_inside(marks: tuple[Mark, ...], outer: tuple[Mark, ...]) -> bool:
    """Whether these lines were reached through the others."""
    return len(marks) > len(outer) and marks[len(marks) - len(outer) :] == outer


def _inputs_of(tape: Tape) -> list[frozenset[str]]:
    """The inputs that each value depends on, by path."""
    paths = {index: path for path, index in tape.inputs.items()}
    found: list[frozenset[str]] = []
    for value in tape.values:
        own = [paths[value.index]] if value.index in paths else []
        found.append(frozenset(own).union(*(found[p] for p in value.parents)))
    return found


def _scale(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def _base(value: Value) -> str:
    """An operation without its overload."""
    return ".".join(value.op.split(".")[:2])


def _same_line(left: Value, right: Value) -> bool:
    one, other = left.place, right.place
    return one is not None and other is not None and one[:2] == other[:2]


def _depth_on_line(value: Value, other: Value) -> int | None:
    """Which of the lines that asked for a value is that of the other."""
    lines = [location(mark)[:2] for mark in value.marks]
    line = location(other.marks[0])[:2] if other.marks else None
    return lines.index(line) if line in lines else None


def _first_difference(left: Value, right: Value) -> int:
    pairs = enumerate(zip(left.marks, right.marks, strict=False))
    return next((depth for depth, (a, b) in pairs if a != b), 0)


def wrong_outputs(partners: Partners) -> dict[str, float]:
    """The outputs that differ, each with what it may be off."""
    torch, jax = partners.torch, partners.jax
    found = {}
    for path, place in torch.outputs.items():
        if path not in jax.outputs:
            continue
        reference, candidate = torch.values[place], jax.values[jax.outputs[path]]
        scale = max(_scale(array) for array in reference.arrays)
        slack = max(GATE * scale, SLACK * partners.slack[place])
        for left, right in zip(reference.arrays, candidate.arrays, strict=True):
            if left.shape != right.shape or not near(left, right, slack):
                found[path] = slack
                break
    return found
