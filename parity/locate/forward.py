"""Where two computations first part in their values: the line that hands on what has no partner.

Back from a wrong output through values without a partner lies the *region* in which both sides
compute otherwise; its first values, made only of what both sides have, are its *edge*. What is
computed in another way but comes out right has a partner again and is not in it. In the region the
first value that can be mended (`parity.locate.repairs`) is where the fault is; its counterpart on
PyTorch's side tells whether the operation differs or an operand.
"""

from collections.abc import Collection, Sequence

from parity.locate.calls import needless_call, wrong_call
from parity.locate.exchanged import Exchanges
from parity.locate.fitted import Fitting
from parity.locate.given import exchanged_outputs, left_out, rearranged, unused
from parity.locate.kinds import LAYOUTS, base_of
from parity.locate.leaves import Leaves
from parity.locate.loops import Blame
from parity.locate.mutated import Change, Mutations
from parity.locate.repairs import Target
from parity.locate.solved import shared_value


class Forward(Leaves):
    """The search on one pair of tapes."""

    def blame(self) -> Blame:
        """The fault's value, and PyTorch's in its place."""
        return self._beside(self._blame())

    def _beside(self, blame: Blame) -> Blame:
        """The same with PyTorch's first step from the same operands, if its value is a later one.

        Where PyTorch lacks a step that JAX takes, what mends JAX's value is made further on.
        """
        operands, shown = self.operands(blame.candidate), blame.reference
        if shown is None or not operands or operands & {*self.torch.values[shown].parents}:
            return blame
        leading = self.torch.ancestors([shown])
        for first, *others in self.missing:
            made = self.torch.values[first]
            if others or first not in leading or base_of(made) in LAYOUTS:
                continue
            if operands & {*made.parents}:
                against = shown if blame.against is None else blame.against
                return blame._replace(reference=first, against=against)
        return blame

    def _blame(self) -> Blame:
        if (outer := self.outer(self.edge, self.missing)) is not None:
            return outer
        if (found := exchanged_outputs(self) or rearranged(self) or unused(self)) is not None:
            return found
        leaves = self.all_leaves()
        # One array that was given may explain what no value does, or several on as many lines.
        is_open = not {*leaves} - self.targets or self._is_scattered(leaves)
        if is_open and (lacking := left_out(self)) is not None:
            return lacking
        blame = self._blame_of(leaves) if leaves else None
        if self.trusts_plain and (blame is None or self.tells_little(blame.candidate)):
            # Rewards of one kind, or a gap that is divided by nothing: what is wrong may be 0 or 1
            # everywhere, and 0 and 1 are numbers that PyTorch has.
            wary = Forward(self.partners, self.runs, self.wrong, trusts_plain=False)
            if found := wary.all_leaves():
                return wary._blame_of(found)
        if blame is not None:
            return blame
        telling = [i for i in self.edge if not self.jax.values[i].is_plain] or self.edge
        return self.placed(telling[0], self._same_operands(telling[0]))

    def _blame_of(self, leaves: dict[int, int]) -> Blame:
        """Which of what is wrong on the way to the outputs is at fault."""
        first = min(leaves)
        changes = Mutations(self, self.runs)
        if (change := changes.structural()) is not None:
            return self._changed(change, first, leaves[first])
        is_open = len(leaves) > 1 or first in self.targets
        if is_open and (shared := shared_value(self, self.runs)) is not None:
            depth = self.depth_of(shared)
            place = self.jax.values[shared].place_at(depth)
            return Blame(shared, leaves[first], depth, first, place)
        if (place := needless_call(self, first)) is not None:
            return Blame(first, leaves[first], 0, first, place)
        if (step := self._went_on(first, leaves[first])) is not None:
            return step
        steps = [self.lacks_a_step(*leaf) for leaf in leaves.items()]
        if all(steps):
            return steps[[*leaves].index(first)] or self.placed(first, leaves[first])
        place = wrong_call(self, self.runs, first) if (fit := self._fit(leaves)) else None
        if fit is not None and place is None:
            return fit
        if place is None and (early := self._earlier(first)) is not None:
            return self.placed(*early)
        if place is None:
            place = wrong_call(self, self.runs, first)
        if place is not None:
            return Blame(first, leaves[first], 0, first, place)
        found = self.placed(first, leaves[first])
        is_number = self.jax.values[found.candidate].is_plain and len(leaves) == 1
        if is_open and not is_number and (change := changes.found()) is not None:
            return self._changed(change, first, leaves[first])
        if self._is_scattered(leaves) and (shared := self._shared(leaves)) is not None:
            return Blame(shared, leaves[first], self.depth_of(shared), first)
        return found

    def _changed(self, change: Change, wrong: int, reference: int) -> Blame:
        """An operation that is right once it is changed, and the line that it is wrong on."""
        at = change.members[0]
        callers = {self.jax.values[i].marks[1:] for i in change.members}
        found = self._at(at, self.depth_of(at) if len(callers) == 1 else 0, wrong, reference)
        return found._replace(place=None) if change.is_number else found

    def _fit(self, leaves: dict[int, int]) -> Blame | None:
        """An operation before a wrong value that explains it, if it does not do so itself.

        It is to explain what an output needs first: what is wrong of that, pieces of another
        formula may show otherwise.
        """
        first = min(leaves)
        theirs = leaves[first]
        tried = [(Target(first, theirs, self.slack_of(theirs)), first)]
        if first in self.mended and self.mended[first].candidate != first:
            tried.insert(0, (self.mended[first], self.mended[first].candidate))
        tried += [(self.target_of(path), first) for path in [*self.wrong][:1]]
        inside = self.leading_to([*leaves])
        if found := Exchanges(self, self.runs, tried[-1][0], inside).found():
            return self._at(*found, first, theirs)
        fit = None
        for target, wrong in tried:
            fit = fit or Fitting(self, self.runs, target, wrong, self.in_turn).found()
        if fit is None or fit.at == first:
            return None
        found = self._at(fit.at, self.depth_of(fit.at), first, theirs)
        return found._replace(place=None) if fit.is_number else found  # that may be elsewhere

    def _at(self, index: int, depth: int, wrong: int, reference: int) -> Blame:
        """A value that explains a wrong one, with the numbers that would be shown otherwise."""
        early = self._earlier(wrong)
        seen = self.placed(*early) if early is not None else self.placed(wrong, reference)
        return seen._replace(
            candidate=index, depth=depth, place=self.jax.values[index].place_at(depth)
        )

    def _is_scattered(self, leaves: Collection[int]) -> bool:
        """Whether these are on several lines."""
        places = (self.jax.values[i].place for i in leaves)
        return len({place and place[:2] for place in places}) > 1

    def _went_on(self, index: int, reference: int) -> Blame | None:
        """Of a value that should be one that it was made of, some steps before: the first step."""
        known = {i for each in self.partners.of_torch.get(reference, ()) for i in each}
        made = self.torch.values[reference]
        if made.is_plain or not known & self.jax.ancestors([index]):
            return None
        step = self.step_after(self.jax, known, index)
        if step in (None, index):
            return None
        return Blame(step, reference, self.depth_of(step), index)

    def _earlier(self, index: int) -> tuple[int, int] | None:
        """Of a value that came of wrong ones: the first of them, and PyTorch's that is made alike.

        No value alone mends it where an axis, or a mask, is wrong on several lines.
        """
        if all(self.has_partner(p) for p in self.jax.values[index].parents):
            return None
        leading = self.jax.ancestors([index])
        return self._first_unlike([i for i in self.edge if i in leading and i != index])

    def _first_unlike(self, indices: Sequence[int]) -> tuple[int, int] | None:
        """The first of these that is made as one of PyTorch's is, and differs from it."""
        for each in indices:
            theirs = self.counterpart(each)
            if theirs is not None and not self.is_same(each, theirs):
                return each, theirs
        return None

    def _shared(self, leaves: Collection[int]) -> int | None:
        """The last value that is wrong, or says nothing, on the way to each of several."""
        common = set.intersection(*(self._apart(each, leaves) for each in leaves))
        plain = {
            i
            for i in common
            if self.jax.values[i].is_plain and self.jax.values[i].marks and i not in self.targets
        }
        wrong = {i for i in common if not self.has_partner(i)}
        return max(wrong or plain, default=None)

    def _apart(self, index: int, leaves: Collection[int]) -> set[int]:
        """What is wrong, or says nothing, and led to a value, but not by the other wrong ones."""
        found, open_ = {index}, [index]
        while open_:
            for parent in self.jax.values[open_.pop()].parents:
                told = self.has_partner(parent) and not self.jax.values[parent].is_plain
                if not told and parent not in found and parent not in leaves:
                    found.add(parent)
                    open_.append(parent)
        return found

    def _same_operands(self, index: int) -> int | None:
        """PyTorch's missing value that shares most operands with one of JAX's."""
        operands = self.operands(index)
        alone = [theirs[0] for theirs in self.missing if len(theirs) == 1]
        shared = [(len(operands & {*self.torch.values[i].parents}), -i) for i in alone]
        best = max(shared, default=(0, 0))
        return -best[1] if best[0] else (alone[0] if alone else None)
