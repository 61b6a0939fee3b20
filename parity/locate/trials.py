"""The program run again with some of its operations changed: does a wrong value come out right?"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from parity.jax_side import x64
from parity.locate.jax_tape import JaxRun
from parity.locate.kinds import LAYOUTS, base_of
from parity.locate.matching import near
from parity.locate.plain import Plain
from parity.locate.repairs import Target, layouts
from parity.locate.reruns import Edit, Step

SECONDS = 4.0
"""So much of the processor's time is spent on one target and kind of change."""
LOOPED = {"scan input", "scan output"}


def comes_out_right(
    search: Plain,
    runs: Sequence[JaxRun],
    edits: Callable[[int], Mapping[int, Edit]],
    *,
    every: bool = True,
) -> bool:
    """Whether every output that was wrong is right once operations, by index, are changed, or one.

    At every input set, and none that was right may be wrong then. Of a chain of updates the first
    one's outputs may be all that one change makes right.
    """
    wrong = [search.target_of(path) for path in search.wrong]
    kept = [i for path, i in search.jax.outputs.items() if path not in search.wrong]
    mended = {*range(len(wrong))}
    for s, run in enumerate(runs):
        where = search.jax.places[s]
        places = tuple(where[i] for i in (*(target.candidate for target in wrong), *kept))
        changed = {where[i]: edit for i, edit in edits(s).items()}
        try:
            with x64(True), np.errstate(all="ignore"):
                made = run.program.again_edited(changed, places)
        except UNFIT:
            return False
        for number, (target, array) in enumerate(zip(wrong, made, strict=False)):
            right = search.torch.values[target.reference].arrays[s]
            if array is None or array.shape != right.shape or not near(right, array, target.slack):
                mended -= {number}
        if len(mended) < (len(wrong) if every else 1):
            return False
        for index, array in zip(kept, made[len(wrong) :], strict=True):
            known = search.jax.values[index].arrays[s]
            if array is not None and not near(known, array, search.slack_of_output(index)):
                return False
    return True


UNFIT = (TypeError, ValueError, IndexError, OverflowError)
"""What NumPy raises for operands whose shapes do not go together."""


class Trials:
    """Changes tried on the recorded programs, judged by one value."""

    def __init__(self, search: Plain, runs: Sequence[JaxRun], target: Target) -> None:
        self._search, self._runs, self._target = search, runs, target
        self._values = search.jax.values
        self._until = min(time.process_time() + SECONDS, search.trials_end)

    @property
    def is_over(self) -> bool:
        """Whether the time for this target has passed."""
        return time.process_time() > self._until

    def comes_out(self, edits: Callable[[int], Mapping[int, Edit]]) -> bool:
        """Whether the target is right at every input set once operations, by index, are changed."""
        for s in range(len(self._runs)):
            if self.is_over:
                return False
            try:
                found = self.made(s, edits(s))
            except UNFIT:
                return False
            if found is None or not any(
                near(each, found, self._target.slack) for each in self.rights(s, found)
            ):
                return False
        return self.mends_outputs(edits)

    def mends_outputs(self, edits: Callable[[int], Mapping[int, Edit]]) -> bool:
        """Whether then an output that was wrong is right, and all that were right are."""
        return comes_out_right(self._search, self._runs, edits, every=False)

    def made(self, s: int, edits: Mapping[int, Edit]) -> np.ndarray | None:
        """The target as it comes out; `None` if it does not depend on what is changed."""
        where = self._search.jax.places[s]
        with x64(True):
            new = self._runs[s].program.again_edited(
                {where[i]: edit for i, edit in edits.items()}, (where[self._target.candidate],)
            )[0]
        return None if new is None else np.asarray(new)

    def rights(self, s: int, model: np.ndarray) -> Iterator[np.ndarray]:
        """What the target should be, laid out in each way that fits."""
        right = self._search.torch.values[self._target.reference].arrays[s]
        if self._target.is_output:
            return iter([right] if right.shape == model.shape else [])
        return (self._target.sign * each for each in layouts(model, right))

    def behind(self, index: int) -> tuple[int, list[int]]:
        """What a value was laid out from, and the values on the way, the first one first."""
        chain: list[int] = []
        value = self._values[index]
        while base_of(value) in LAYOUTS - LOOPED and len(value.parents) == 1:
            chain.append(value.index)
            value = self._values[value.parents[0]]
        return value.index, chain[::-1]

    def step(self, s: int, index: int) -> Step:
        """The step that made a value."""
        return self._runs[s].program.step_of(self._search.jax.places[s][index])

    @property
    def consumers(self) -> list[list[int]]:
        """By value, which are made of it."""
        return self._search.consumers
