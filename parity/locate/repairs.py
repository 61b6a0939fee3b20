"""What happens to the outputs if one value of JAX's is replaced by one of PyTorch's.

A value that is wrong, and whose right counterpart PyTorch has, mends every output when that is put
in its place. A value before the fault mends nothing, whatever is put there. So the first value that
can be mended is what the fault hands on.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, permutations
from typing import Any, NamedTuple

import numpy as np

from parity.jax_side import x64
from parity.locate.jax_tape import JaxRun
from parity.locate.matching import near
from parity.locate.tape import Tape

MAX_LAYOUTS = 4
MAX_ORDERS = 360
"""So many orders of operands are tried from either end: all of six operands in four places."""
SECONDS = 10.0
"""After so much of the processor's time no further replacement is tried: what was found until then
is the answer."""


class Repairs:
    """Tries replacements on the recorded programs."""

    def __init__(self, torch: Tape, jax: Tape, runs: Sequence[JaxRun]) -> None:
        self._torch, self._jax, self._runs = torch, jax, runs
        self._until = time.process_time() + SECONDS
        self._tried: dict[Any, bool] = {}

    def mends(
        self, members: tuple[int, ...], theirs: tuple[int, ...], sign: int, target: "Target"
    ) -> bool:
        """Whether these values of PyTorch's, with a sign, mend a target in the place of JAX's.

        A port may count in costs where PyTorch counts in gains.
        """
        key = members, theirs, sign, target
        if key not in self._tried:
            in_time = time.process_time() < self._until
            self._tried[key] = in_time and self._try(members, theirs, sign, target)
        return self._tried[key]

    def follows(self, changed: Mapping[int, int], target: "Target") -> bool:
        """Whether a target comes out right if its operands, by their places, are PyTorch's."""
        for s in range(len(self._runs)):
            arrays = {}
            for ours, theirs in changed.items():
                model = self._jax.values[ours].arrays[s]
                laid = next(layouts(model, self._torch.values[theirs].arrays[s]), None)
                if laid is None:
                    return False
                arrays[ours] = laid
            if not self._comes_out(s, arrays, target):
                return False
        return True

    def mends_all(
        self, changed: Mapping[int, Sequence[np.ndarray]], wrong: Sequence["Target"]
    ) -> bool:
        """Whether every wrong output comes out right with other arrays, at each input set."""
        return all(
            self._come_out(s, {i: arrays[s] for i, arrays in changed.items()}, wrong)
            for s in range(len(self._runs))
        )

    def _try(
        self, members: tuple[int, ...], theirs: tuple[int, ...], sign: int, target: "Target"
    ) -> bool:
        sets = range(len(self._runs))
        laid = [self._laid(members, theirs, s) for s in sets]
        for number in range(min(map(len, laid))):
            rows = [[each[number]] if len(members) == 1 else each[number] for each in laid]
            if all(
                self._comes_out(
                    s, {m: sign * row for m, row in zip(members, rows[s], strict=True)}, target
                )
                for s in sets
            ):
                return True
        return False

    def _laid(self, members: tuple[int, ...], theirs: tuple[int, ...], s: int) -> list[Any]:
        """PyTorch's values in the shape of JAX's, in each way that fits; of a loop row by row."""
        if len(members) != len(theirs):
            return [*layouts(self._of(self._jax, members, s), self._of(self._torch, theirs, s))]
        ways = (
            layouts(self._jax.values[m].arrays[s], self._torch.values[t].arrays[s])
            for m, t in zip(members, theirs, strict=True)
        )
        found = [*zip(*ways, strict=False)]
        return [each[0] for each in found] if len(members) == 1 else found

    def _comes_out(self, s: int, arrays: Mapping[int, np.ndarray], target: "Target") -> bool:
        return self._come_out(s, arrays, [target])

    def _come_out(
        self, s: int, arrays: Mapping[int, np.ndarray], targets: Sequence["Target"]
    ) -> bool:
        program, where = self._runs[s].program, self._jax.places[s]
        with x64(True), np.errstate(invalid="ignore"):  # an infinity is no whole number
            changed = {
                where[member]: np.asarray(array).astype(program.arrays[where[member]].dtype)
                for member, array in arrays.items()
            }
            new = program.again_all(changed, tuple(where[each.candidate] for each in targets))
        return all(
            found is not None and self._is_right(s, np.asarray(found), target)
            for found, target in zip(new, targets, strict=True)
        )

    def _is_right(self, s: int, found: np.ndarray, target: "Target") -> bool:
        right = self._torch.values[target.reference].arrays[s]
        right = target.sign * right if target.sign < 0 else right
        if target.is_output:
            return found.shape == right.shape and near(right, found, target.slack)
        return any(near(found, each, target.slack) for each in layouts(found, right))

    def _of(self, tape: Tape, members: tuple[int, ...], s: int) -> np.ndarray:
        arrays = [tape.values[i].arrays[s] for i in members]
        return arrays[0] if len(arrays) == 1 else np.stack(arrays)


class Target(NamedTuple):
    """A value of JAX's that should be one of PyTorch's, up to a slack and a sign.

    `is_output`: an output must have PyTorch's shape too.
    """

    candidate: int
    reference: int
    slack: float
    sign: int = 1
    is_output: bool = False


def layouts(model: np.ndarray, array: np.ndarray) -> Iterator[np.ndarray]:
    """The array in the model's shape, in each way in which its axes fit."""
    seen: list[np.ndarray] = []
    if array.shape == model.shape:
        seen.append(array)
        yield array
    squeezed = array.squeeze()
    wanted = tuple(n for n in model.shape if n != 1)
    if array.size == model.size:
        orders = permutations(range(squeezed.ndim)) if squeezed.ndim <= MAX_LAYOUTS else ()
        found = [squeezed.transpose(order) for order in orders]
        fitting = [each for each in found if each.shape == wanted] or [array]
        for each in fitting:
            laid = each.reshape(model.shape)
            if len(seen) < MAX_LAYOUTS and not any(np.array_equal(laid, old) for old in seen):
                seen.append(laid)
                yield laid
    elif array.size < model.size and array.size > 0:
        try:
            yield np.broadcast_to(array, model.shape)
        except ValueError:
            return


def likeliest_orders(
    ours: Sequence[int], others: Sequence[int], likeness: Callable[[int, int], float]
) -> list[tuple[int, ...]]:
    """Which of PyTorch's operands may stand for JAX's, the likeliest orders first.

    Where all are too many, as of rows that are stacked, some from either end.
    """
    alike = {(i, j): likeness(i, j) for i in ours for j in others}
    ways = others, others[::-1]
    orders = (o for way in ways for o in islice(permutations(way, len(ours)), MAX_ORDERS))
    return sorted(
        dict.fromkeys(orders), key=lambda o: -sum(alike[p] for p in zip(ours, o, strict=True))
    )
