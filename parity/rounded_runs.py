"""What a reference answers when its operations round otherwise: term (d) of `parity.tolerance`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Protocol

import numpy as np

from parity.arrays import Arrays, cast, differences, largest_magnitude, outputs_of

NUM_NUDGES = 8
"""Draws of each kind: of inputs, and of operations, unless one of the first allows the error."""
MOST_NUDGES = 64
"""Draws of operations in all, where an error asks for more of them."""
JUMP = 1e-6
"""A response to an ulp of float64 that is more than this share of max|ref| may be a jump,"""
SHRINKS = 2.0**-20
"""and is one if it is more than this share of that to an ulp of float32, of which 2⁻²⁹ is usual."""

Outputs = Mapping[str, np.ndarray]


class Roundings(Protocol):
    """Gives the reference's float64 outputs of runs whose operations round otherwise."""

    def __call__(
        self, inputs: Arrays, *, coarse: bool = False, draws: range = range(NUM_NUDGES)
    ) -> Iterable[Outputs]:
        """First these draws by chance, each operation off by an ulp of float64; others may follow.

        If coarse, the draws alone, off by an ulp of float32. `draws` is given where it is not the
        first ones, and then nothing is to follow.
        """
        ...


class RoundedRuns:
    """The runs of one reference at one set of inputs, each made when it is first asked for."""

    def __init__(
        self, roundings: Roundings | None, inputs: Arrays, exact: Callable[[], Outputs]
    ) -> None:
        self._roundings, self._inputs, self._exact = roundings, inputs, exact

    def response(self, leaf: str) -> np.ndarray:
        """How far the largest of the usual runs moves each entry of one output."""
        return self._moved(leaf, self._all)

    def jumps(self, leaf: str) -> np.ndarray:
        """Where a rounding on the way decides: the floor of what may come out below a whole number.

        As far as in the same draws with operations that round like float32, and so no response to
        rounding. (What only the processor's directions reach, they can't tell.)
        """
        response, least = self.response(leaf), self._least(leaf)
        if not (response > least).any():
            return response > least
        coarse = [*self._coarse]
        fine = self._moved(leaf, self._all[: len(coarse)])
        return are_jumps(fine, self._moved(leaf, coarse), least)

    def decided(self, leaf: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where a rounding on the way decides, and the least and the most that it may decide."""
        jumps, exact = self.jumps(leaf), self._exact()[leaf]
        if not jumps.any():
            return jumps, exact, exact
        others = [run[leaf] for run in self._all if leaf in run and run[leaf].shape == exact.shape]
        runs = np.stack([exact, *others])
        return jumps, runs.min(0), runs.max(0)

    def smooth_response(self, leaf: str) -> float:
        """The largest response of the usual runs at the entries that do not jump."""
        return _largest(self.response(leaf), ~self.jumps(leaf))

    def smooth_responses(self, leaf: str) -> Iterator[float]:
        """What the runs show of one output, entries that jump left out, as more of them are made.

        First each run by itself, in which only what is small is surely no jump. Then all of them,
        as coarse draws are added: each shows more entries whose response shrinks.
        """
        least = self._least(leaf)
        for run in self._usual:
            found = self._moved(leaf, [run])
            yield _largest(found, found <= least)
        response = self.response(leaf)
        if (response > least).any():
            fine = self._moved(leaf, self._all[:NUM_NUDGES])
            coarse = np.zeros_like(fine)
            for run in self._coarse:
                coarse = np.maximum(coarse, self._moved(leaf, [run]))
                yield _largest(response, ~are_jumps(fine, coarse, least))

    def further_responses(self, leaf: str) -> Iterator[float]:
        """What further draws show, each by itself, where it is small or known to shrink.

        Eight draws may miss what rounding can do where few operations make up all of an answer,
        such as the slopes of saturated tanh. A response that is not small counts if the coarse
        draws of the usual runs are larger there, by as much as they are where nothing jumps.
        """
        least, coarse = self._least(leaf), None
        for run in self._further:
            found = self._moved(leaf, [run])
            if coarse is None and (found > least).any():
                coarse = self._moved(leaf, self._coarse)
            jumps = found > least if coarse is None else are_jumps(found, coarse, least)
            yield _largest(found, ~jumps)

    def _least(self, leaf: str) -> float:
        return JUMP * largest_magnitude(self._exact()[leaf])

    def _moved(self, leaf: str, runs: Iterable[Outputs]) -> np.ndarray:
        """How far the largest of these runs moves each entry of one output."""
        exact = {leaf: self._exact()[leaf]}
        found = differences(({leaf: run[leaf]}, exact) for run in runs if leaf in run)
        return found.get(leaf, np.zeros(exact[leaf].shape))

    @cached_property
    def _all(self) -> list[dict[str, np.ndarray]]:
        return [*self._usual]

    @property
    def _given(self) -> dict[str, np.ndarray]:
        return cast(self._inputs, np.float64)

    @cached_property
    def _usual(self) -> "_Once":
        return _Once(self._roundings(self._given) if self._roundings else ())

    @cached_property
    def _coarse(self) -> "_Once":
        return _Once(self._roundings(self._given, coarse=True) if self._roundings else ())

    @cached_property
    def _further(self) -> "_Once":
        draws = range(NUM_NUDGES, MOST_NUDGES)
        return _Once(self._roundings(self._given, draws=draws) if self._roundings else ())


class _Once:
    """Runs that are each made when it is first asked for, and kept."""

    def __init__(self, runs: Iterable[Outputs]) -> None:
        self._open, self._made = iter(runs), []

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        yield from self._made
        for run in self._open:
            self._made.append(outputs_of(run))
            yield self._made[-1]


def are_jumps(fine: np.ndarray, coarse: np.ndarray, least: float | np.ndarray) -> np.ndarray:
    """Where a response is as large for an ulp of float64 as for one of float32, and not small."""
    return (fine > least) & (fine > SHRINKS * coarse)


def _largest(found: np.ndarray, where: np.ndarray) -> float:
    return float(np.max(found, initial=0.0, where=where))
