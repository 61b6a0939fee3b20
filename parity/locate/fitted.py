"""An operation with which all would be right, were it given something else, or its result scaled.

PyTorch may have no value to put in the place of a wrong one: it folds a rate into its step, where
JAX scales last. Then the program itself is run again with one operation changed: its result times a
number, or plus one, that is solved for; or with another operand: one that PyTorch goes on with, the
same one turned, or flags inverted.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, permutations
from typing import Any, NamedTuple

import numpy as np

from parity.arrays import is_floating
from parity.locate.correspondence import number_of, says_nothing
from parity.locate.jax_tape import JaxRun
from parity.locate.kinds import LAYOUTS, base_of
from parity.locate.matching import near
from parity.locate.plain import Plain
from parity.locate.repairs import Target, layouts
from parity.locate.reruns import Edit
from parity.locate.tape import LITERALS, Value
from parity.locate.trials import Trials

MAX_SWAPS = 12
"""So many other operands are tried in the place of one."""
MAX_STEPS = 6
"""A number that is solved for must be found in so many steps."""
FEW = 8
"""With fewer entries than this, one number must do at all input sets."""


class Other(NamedTuple):
    """What is tried in the place of an operand.

    Attributes:
        made: What it is, of the operand's source and other values, by places, at an input set.
        needs: Another value of JAX's that it is, by its index.
        is_made_wrong: Whether it is the operand itself that is wrong then, not its use.
    """

    made: Callable[[int, Callable[[int], Any]], Any]
    needs: tuple[int, ...] = ()
    is_made_wrong: bool = False


class Fit(NamedTuple):
    """What explains a wrong value, and whether a number is wrong there."""

    at: int
    is_number: bool = False


class Fitting(Trials):
    """The operations that led to a wrong value, each tried with another operand or scaled."""

    def __init__(
        self,
        search: Plain,
        runs: Sequence[JaxRun],
        target: Target,
        wrong: int,
        groups: Sequence[tuple[int, ...]],
    ) -> None:
        """Args: the value to explain, and the `groups` to try, those of a loop together."""
        super().__init__(search, runs, target)
        self._wrong = wrong
        leading = search.leading_to([wrong])
        inside = (tuple(i for i in members if i in leading) for members in groups)
        self._groups = [members for members in inside if members]

    def found(self) -> Fit | None:
        """The first that explains the target; `None` if that does so itself."""
        own = (self._wrong,)
        if self._is_scaled(own):
            return self._number_after(0)
        for place, members in enumerate(self._groups):
            if members != own and self._is_scaled(members):
                return self._number_after(place) or Fit(members[0])
            if self._lacks_a_term(members):
                return Fit(members[0])
            if (found := self._with_another(members, is_own=members == own)) is not None:
                return Fit(found)
            if self.is_over:
                return None
        return None

    def _number_after(self, place: int) -> Fit | None:
        """The operation, from one that explains it on, that is given a number PyTorch lacks."""
        values = self._search.jax.values
        for members in self._groups[place:]:
            numbers = (values[p] for p in values[members[0]].parents if values[p].is_plain)
            written = (v for v in numbers if v.op in LITERALS and not says_nothing(v))
            if any(map(self._is_foreign, written)):
                return Fit(members[0], is_number=True) if self._is_scaled(members) else None
        return None

    def _is_foreign(self, value: Value) -> bool:
        """Whether PyTorch has a number nowhere, nor as a product of two."""
        numbers = (self._search.torch.values[i] for i in self._search.numbers_in_torch)
        sizes = {abs(number_of(v)) for v in numbers} | {1.0}
        size = abs(number_of(value))
        return not any(abs(a * b - size) <= 1e-12 * size for a in sizes for b in sizes)

    def _is_scaled(self, members: tuple[int, ...]) -> bool:
        """Whether the target comes out with these values times a number, or plus a number."""
        arrays = [self._search.jax.values[i].arrays[0] for i in members]
        if not all(is_floating(array) and np.isfinite(array).all() for array in arrays):
            return False
        size = max(float(np.abs(array).max(initial=0.0)) for array in arrays)
        return self._is_solved(members, lambda k, _: lambda x: x * k, 1.0, 1.25) or self._is_solved(
            members, lambda c, _: lambda x: x + c, 0.0, 0.1 * size
        )

    def _lacks_a_term(self, members: tuple[int, ...]) -> bool:
        """Whether the target comes out with a value of PyTorch's, times a number, added."""
        ours = self._search.jax.values[members[0]]
        if len(members) > 1 or not is_floating(ours.arrays[0]) or ours.arrays[0].size < FEW:
            return False
        for theirs in self._terms(ours.arrays[0].size):
            arrays = self._search.torch.values[theirs].arrays
            pairs = zip(ours.arrays, arrays, strict=True)
            laid = [each for model, array in pairs for each in islice(layouts(model, array), 1)]
            if len(laid) < len(arrays):
                continue
            if self._is_solved(
                members, lambda k, s, t=laid: lambda x: x + k * t[s], 0.0, 1.0, one=True
            ):
                return True
            if self.is_over:
                return False
        return False

    def _terms(self, size: int) -> list[int]:
        """PyTorch's values with which it makes what JAX lacks, likeliest first."""
        torch = self._search.torch
        lacking = (t[0] for t in self._search.missing if len(t) == 1)
        given = dict.fromkeys(p for t in lacking for p in self._search.own_parents(torch, t))
        leading = torch.ancestors([self._target.reference])
        found = [
            i
            for i in given
            if i in leading and is_floating(a := torch.values[i].arrays[0]) and a.size == size
        ]
        near_by = [i for i in found if not torch.values[i].is_plain]
        return sorted(near_by, key=lambda i: abs(i - self._target.reference))[:MAX_SWAPS]

    def _is_solved(
        self,
        members: tuple[int, ...],
        changed: Callable[[float, int], Callable[[Any], Any]],
        first: float,
        second: float,
        *,
        one: bool = False,
    ) -> bool:
        """Whether there is a number with which the target comes out; `one` at all input sets."""
        found = []
        for s in range(len(self._runs)):

            def made(number: float, s: int = s) -> np.ndarray | None:
                return self.made(s, {i: Edit({}, changed(number, s)) for i in members})

            now = self._search.jax.values[self._target.candidate].arrays[s]
            numbers = (self._solved(made, first, second, now, x) for x in self.rights(s, now))
            with np.errstate(over="ignore", invalid="ignore"):
                number = next((x for x in numbers if x is not None), None)
            if number is None:
                return False
            found.append(number)
        if not self.mends_outputs(lambda s: {i: Edit({}, changed(found[s], s)) for i in members}):
            return False
        is_one = np.ptp(found) <= 1e-6 * max(map(abs, found))
        size = self._search.torch.values[self._target.reference].arrays[0].size
        return bool(is_one) or (not one and size >= FEW)

    def _solved(
        self,
        made: Callable[[float], np.ndarray | None],
        first: float,
        second: float,
        now: np.ndarray,
        right: np.ndarray,
    ) -> float | None:
        """The number with which a value comes out right, by secants; `None` if none is found."""
        a, x, b, y = first, now, second, made(second)
        for _ in range(MAX_STEPS):
            if y is None or not (np.isfinite(y).all() and np.isfinite(right).all()) or a == b:
                return None
            slope = (y - x) / (b - a)
            steepness = float(np.vdot(slope, slope))
            if steepness == 0:
                return None
            c = b + float(np.vdot(right - y, slope)) / steepness
            z = made(c)
            if z is None or near(right, z, self._target.slack):
                return None if z is None else c
            if not np.abs(right - z).max() <= 0.5 * np.abs(right - y).max():
                return None
            a, x, b, y = b, y, c, z
        return None

    def _with_another(self, members: tuple[int, ...], *, is_own: bool) -> int | None:
        """What is wrong if the target comes out with another operand: that, or its use."""
        values = self._search.jax.values
        for place, operand in enumerate(values[members[0]].parents):
            source, _ = self.behind(operand)
            others = self._turned(source)
            if not is_own and not values[operand].is_plain:
                others = (*others, *islice(self._used_by_torch(members[0], source), MAX_SWAPS))
            for other in others:
                if self.is_over:
                    return None
                if self._is_right_with(members, place, other):
                    is_made_wrong = other.is_made_wrong and not self._is_opposite(source, other)
                    if not is_made_wrong or not values[source].marks:
                        return members[0]
                    return members[0] if self._is_used_elsewhere(source) else source
        return None

    def _is_opposite(self, source: int, other: Other) -> bool:
        """Whether flags are tried inverted: then it is their use that is the wrong way round."""
        own = self._values[source].arrays[0]
        made = np.asarray(other.made(0, lambda _: own))
        return made.dtype == own.dtype == bool and np.array_equal(made, ~own)

    def _is_used_elsewhere(self, index: int) -> bool:
        """Whether a value is an output, or is used for something that is not wrong."""
        region, open_ = {*self._search.region}, [index]
        while open_:
            value = open_.pop()
            if value in self._search.jax.outputs.values():
                return True
            for user in self.consumers[value]:
                if base_of(self._values[user]) in LAYOUTS:
                    open_.append(user)
                elif user not in region:
                    return True
        return False

    def _is_right_with(self, members: tuple[int, ...], place: int, other: Other) -> bool:
        if any(place >= len(self._values[member].parents) for member in members):
            return False

        def edits(s: int) -> dict[int, Edit]:
            where, found = self._search.jax.places[s], {}
            for member in members:
                operand = self._values[member].parents[place]
                source, chain = self.behind(operand)
                steps = [self.step(s, i) for i in chain]

                def given(value: Callable[[int], Any], source=source, steps=steps) -> Any:
                    made = other.made(s, lambda at: value(where[source if at < 0 else at]))
                    for step in steps:
                        made = self._runs[s].program.run_step(step, [made])[0]
                    return made

                needs = tuple(where[need] for need in other.needs)
                found[member] = Edit({where[operand]: given}, needs=needs)
            return found

        return self.comes_out(edits)

    def _turned(self, source: int) -> tuple[Other, ...]:
        """A value with two axes exchanged, and flags that are PyTorch's, or their opposite."""
        value = self._search.jax.values[source]
        shape = value.arrays[0].shape
        found = []
        for order in permutations(range(len(shape))) if 2 <= len(shape) <= MAX_AXES else ():
            if order != tuple(range(len(shape))) and tuple(shape[i] for i in order) == shape:
                found.append(Other(lambda _, v, o=order: v(-1).transpose(o), is_made_wrong=True))
        if value.arrays[0].dtype == bool:
            for theirs in self._flags(value.arrays[0].size):
                for flip in (False, True):

                    def made(s: int, v: Any, theirs=theirs, flip=flip) -> Any:
                        array = self._search.torch.values[theirs].arrays[s] != flip
                        return array.reshape(v(-1).shape)

                    found.append(Other(made, is_made_wrong=True))
        return tuple(found[:MAX_SWAPS])

    def _flags(self, size: int) -> list[int]:
        leading = self._search.torch.ancestors([self._target.reference])
        return [
            i
            for i in sorted(leading, reverse=True)
            if (a := self._search.torch.values[i].arrays[0]).dtype == bool and a.size == size
        ]

    def _used_by_torch(self, user: int, operand: int) -> Iterator[Other]:
        """Values like an operand, made before its user, with which PyTorch makes what JAX lacks.

        Those that it uses together with the user's other operands come first.
        """
        search = self._search
        values = search.jax.values
        own = {*search.partners.of_jax.get(operand, ())}
        company = search.operands(user)
        found: dict[int, int] = {}
        for theirs in search.missing:
            given = [p for t in theirs[:1] for p in search.own_parents(search.torch, t)]
            for each in given:
                for ours, *_ in search.partners.of_torch.get(each, ()):
                    together = len(company & {*given})
                    found[ours] = max(found.get(ours, 0), together)
        model = values[operand].arrays[0]
        for ours in sorted(found, key=lambda i: (-found[i], abs(i - operand))):
            array = values[ours].arrays[0]
            fits = array.shape == model.shape and array.dtype == model.dtype
            is_other = not own & {*search.partners.of_jax.get(ours, ())}
            if fits and is_other and ours < user and not values[ours].is_plain:
                yield Other(lambda _, value, ours=ours: value(ours), (ours,))


MAX_AXES = 4
"""Of values with more axes, none are exchanged."""
