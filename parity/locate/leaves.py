"""The first values that are wrong on the way to the outputs: those that can be mended.

In the region in which both sides compute otherwise, the first value that mends an output is where
the fault is, or what it was given: if it is right once its operands are, these are looked into.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import product

from parity.locate.jax_tape import JaxRun
from parity.locate.matching import Partners
from parity.locate.plain import Plain
from parity.locate.repairs import Target, likeliest_orders
from parity.locate.tape import NUMBER

MAX_TRIED = 8
"""So many of PyTorch's values are tried in the place of one of JAX's, the likeliest first."""
MAX_ITERATIONS = 8
"""Of a loop that goes wrong, so many iterations are looked into."""


class Leaves(Plain):
    """The search on one pair of tapes, up to the first wrong values."""

    def __init__(
        self,
        partners: Partners,
        runs: Sequence[JaxRun],
        wrong: dict[str, float],
        *,
        trusts_plain: bool = True,
    ) -> None:
        """The partners, JAX's runs, and the slack of each output that is wrong."""
        super().__init__(partners, runs, wrong)
        self.runs, self.trusts_plain = runs, trusts_plain
        self.mended: dict[int, Target] = {}

    def all_leaves(self) -> dict[int, int]:
        """The first values that are wrong on the way to any wrong output, with PyTorch's.

        The output that least is wrong before comes first: of a chain of updates what the first
        one reports. What is wrong behind a value that was found then is not looked into.
        """
        leaves: dict[int, int] = {}
        regions = {path: self.leading_to([self.jax.outputs[path]]) for path in self.wrong}
        for path in sorted(regions, key=lambda path: len(regions[path])):
            if ({*leaves} - self.targets) & regions[path]:
                continue
            target = self.target_of(path)
            new = self._leaves(target, set())
            if new and (found := self._mender(target)) is not None:
                index, theirs, sign = found[0]
                mended = Target(index, theirs, self.slack_of(theirs), sign)
                self.mended |= dict.fromkeys(new, mended)
            leaves = new | leaves
        return leaves

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
                if self.has_partner(ours):  # right, but not what belongs there
                    leaves[index] = theirs
                elif ours not in seen:
                    inner = Target(ours, other, self.slack_of(other))
                    leaves = (self._leaves(inner, seen) or {ours: other}) | leaves
        if not leaves and (number := self.wrong_number(*found[0][:2])) is not None:
            return {number[0]: number[1]}
        return leaves or {found[0][0]: found[0][1]}

    def _mender(self, target: Target) -> list[tuple[int, int, int]] | None:
        """The first value of the region that mends a target, and by what, with which sign.

        Of a loop all values that are wrong.
        """
        leading = self.jax.ancestors([target.candidate])
        for members in self.in_turn:
            if not leading & {*members}:
                continue
            for theirs, sign in product(self._fitting(members), (1, -1)):
                if self.repairs.mends(members, theirs, sign, target):
                    others = theirs if len(theirs) == len(members) else theirs[:1] * len(members)
                    pairs = zip(members, others, strict=True)
                    wrong = [(i, j, sign) for i, j in pairs if not self.has_partner(i)]
                    return wrong[:MAX_ITERATIONS]
        return None

    def _operand_pairs(self, index: int, theirs: int, sign: int) -> list[tuple[int, int]]:
        """The wrong operands of a value that is right once they are PyTorch's."""
        given, parents = self.own_parents(self.torch, theirs), self.jax.values[index].parents
        others = [p for p in given if not self.is_known(p)]
        others += [p for p in given if p not in others and not self.is_met(p, parents)]
        others = [p for p in others if self.torch.values[p].op != NUMBER]
        ours = [
            p
            for p in parents
            if not self.jax.values[p].is_plain
            and not any({*t} & {*given} for t in self.partners.of_jax.get(p, ()))
        ]
        if not ours or len(others) < len(ours):
            return []
        for order in likeliest_orders(ours, others, self.likeness):
            for each in (sign, -sign):
                target = Target(index, theirs, self.slack_of(theirs), each)
                if self.repairs.follows(dict(zip(ours, order, strict=True)), target):
                    return [*zip(ours, order, strict=True)]
        return []

    @cached_property
    def in_turn(self) -> list[tuple[int, ...]]:
        """The values of the region in order, those of a loop together."""
        families = [tuple(members) for members in self.jax.families()]
        loops = {i: members for members in families if self.is_loop(members) for i in members}
        region = {*self.region}
        # Where a loop is written out, some of its values may chance to be right.
        called = {m for m in families if not self.is_loop(m) and len(region & {*m}) > 1}
        inside = {loops.get(i, (i,)) for i in self.region} | called
        return sorted(inside, key=lambda members: (min(members), -len(members)))

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
        operands = self.operands(members[0])
        found.sort(
            key=lambda t: (
                -len(operands & {*self.torch.values[t[0]].parents}),
                -self.likeness(members[0], t[0]),
            )
        )
        del found[MAX_TRIED:]
        if len(members) == 1:
            parents = self.jax.values[members[0]].parents
            found += self.numbers_like(members[0]) + self.flags_like(members[0])
            found += [t[:1] for p in parents for t in self.partners.of_jax.get(p, ())[:1]]
        return found
