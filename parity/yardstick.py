"""What rounding is worth to a reference: the yardstick of `parity.tolerance`, term by term."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from parity.arrays import (
    Arrays,
    cast,
    differences,
    is_number,
    largest_magnitude,
    nudge,
    outputs_of,
    sum_of_products,
)

Function = Callable[[Arrays], Mapping[str, np.ndarray]]


class Roundings(Protocol):
    """Gives the reference's float64 outputs of runs whose operations round otherwise."""

    def __call__(
        self, inputs: Arrays, *, coarse: bool = False
    ) -> Iterable[Mapping[str, np.ndarray]]:
        """First draws by chance, each operation off by an ulp of float64; others may follow.

        If coarse, the same draws alone, off by an ulp of float32.
        """
        ...


Sensitivity = Callable[[Arrays], Mapping[str, Mapping[str, np.ndarray]]]
"""Inputs to `{scalar output: {input: ∂output/∂input}}`, in float64."""

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24}
GATE = 1e-11
"""The gate's share of max|ref|: far above what float64 rounds, far below any change of meaning."""
FLOAT32_SCALE = 2.0**-23
SLACK = 16
"""Two right programs round differently: what one draw shows is allowed this many times."""
JUMP = 1e-6
"""A response to an ulp of float64 that is more than this share of max|ref| may be a jump,"""
SHRINKS = 2.0**-20
"""and is one if it is more than this share of that to an ulp of float32, of which 2⁻²⁹ is usual."""
NUM_NUDGES = 8


class Bound(NamedTuple):
    """How far an array may be off, and which term says so."""

    value: float
    term: str


class Yardstick:
    """What rounding is worth to one reference at one set of inputs, measured when it is needed."""

    def __init__(
        self,
        reference: Function,
        inputs: Arrays,
        still: Mapping[str, np.ndarray],
        sensitivity: Sensitivity | None = None,
        roundings: Roundings | None = None,
    ) -> None:
        self._reference = reference
        self._inputs = cast(inputs, np.float64)
        self._still = still
        self._sensitivity = sensitivity
        self._roundings = roundings

    @cached_property
    def _returned(self) -> Mapping[str, np.ndarray]:
        return self._reference(cast(self._inputs, np.float64))

    def _run(self, inputs: Arrays, dtype: type = np.float64) -> dict[str, np.ndarray]:
        return outputs_of(self._reference(cast(inputs, dtype)))

    @cached_property
    def exact(self) -> dict[str, np.ndarray]:
        """The float64 reference's outputs."""
        return outputs_of(self._returned)

    @cached_property
    def numbers(self) -> list[str]:
        """The outputs that are plain Python numbers, which have no dtype."""
        return [leaf for leaf, value in self._returned.items() if is_number(value)]

    @cached_property
    def single(self) -> dict[str, np.ndarray]:
        """The outputs of the reference's own float32 run."""
        return self._run(self._inputs, np.float32)

    def outputs(self, dtype: str) -> dict[str, np.ndarray]:
        """The reference's outputs in one precision."""
        return self.exact if dtype == "float64" else self.single

    def scale_bound(self, leaf: str, dtype: str) -> Bound:
        """The share of max|ref| that is allowed to any array; cheap, and nearly always enough."""
        share = GATE if dtype == "float64" else SLACK * FLOAT32_SCALE
        return Bound(share * largest_magnitude(self.exact[leaf]), "scale")

    def bound(self, leaf: str, dtype: str, enough: float = math.inf) -> Bound:
        """The rule's bound on one output array.

        Runs that round otherwise are dear (a whole rollout, operation by operation). The first of
        them that allows `enough`, by entries that do not jump, is the last: what the others would
        add changes no verdict on such an error.
        """
        for response, jumps in self._roundings_in_turn(leaf, enough):
            allowed = SLACK * float(np.max(response, initial=0.0, where=~jumps)) * _share(dtype)
            if allowed >= enough:
                return Bound(allowed, "rounding")
        measured = [Bound(SLACK * size, term) for term, size in self.terms(leaf, dtype).items()]
        return max([self.scale_bound(leaf, dtype), *measured], key=lambda bound: bound.value)

    def terms(self, leaf: str, dtype: str) -> dict[str, float]:
        """The terms of Y(u) of one output array, by name."""
        u = UNIT_ROUNDOFF[dtype]
        smooth = ~self._jumps[leaf] if leaf in self._jumps else True

        def largest(found: Mapping[str, np.ndarray], where: np.ndarray | bool = True) -> float:
            return float(np.max(found[leaf], initial=0.0, where=where)) if leaf in found else 0.0

        responses = self._double_response if dtype == "float64" else self._single_response
        terms = {
            "inputs": largest(responses, smooth),
            "float32": largest(self._single_error) * u / UNIT_ROUNDOFF["float32"],
            "rounding": largest(self._rounding_response, ~self._rounding_jumps(leaf))
            * _share(dtype),
        }
        if self._sensitivity is not None and self.exact[leaf].ndim == 0:
            terms["terms"] = u * self._sum_of_terms.get(leaf, 0.0)
        return terms

    def tied(self, leaf: str, found: np.ndarray, bound: float) -> np.ndarray:
        """Where a rounding on the way decides, and what was found is between what it may decide."""
        jumps, low, high = self.decided(leaf)
        return jumps & (found >= low - bound) & (found <= high + bound)

    def decided(self, leaf: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where a rounding on the way decides, and the least and the most that it may decide."""
        jumps, exact = self._rounding_jumps(leaf), self.exact[leaf]
        if not jumps.any():
            return jumps, exact, exact
        others = [
            run[leaf] for run in self._rounded if leaf in run and run[leaf].shape == exact.shape
        ]
        runs = np.stack([exact, *others])
        return jumps, runs.min(0), runs.max(0)

    def _nudged(self, dtype: str) -> Iterator[Arrays]:
        for draw in range(NUM_NUDGES):
            yield nudge(
                self._inputs, UNIT_ROUNDOFF[dtype], np.random.default_rng(draw), self._still
            )

    @cached_property
    def _jumps(self) -> dict[str, np.ndarray]:
        """Where the reference does not respond to rounding but jumps: at a kink, a tie, a bound.

        A response shrinks with what causes it; a jump is as large for an ulp of float64 as for one
        of float32, and would allow anything to the whole array. (So is what consists of rounding
        alone, a slope that cancels to 0; that shows in the response to operations.)
        """
        return {
            leaf: (apart > JUMP * largest_magnitude(self.exact[leaf]))
            & (apart > SHRINKS * self._single_response[leaf])
            for leaf, apart in self._double_response.items()
        }

    @cached_property
    def _double_response(self) -> dict[str, np.ndarray]:
        return differences((self._run(x), self.exact) for x in self._nudged("float64"))

    @cached_property
    def _single_response(self) -> dict[str, np.ndarray]:
        return differences((self._run(x), self.exact) for x in self._nudged("float32"))

    @cached_property
    def _single_error(self) -> dict[str, np.ndarray]:
        points = [self._inputs, *self._nudged("float32")]
        rounded = [cast(point, np.float32) for point in points]
        return differences((self._run(x, np.float32), self._run(x)) for x in rounded)

    def _rounding_jumps(self, leaf: str) -> np.ndarray:
        """Where a rounding on the way decides: the floor of what may come out below a whole number.

        As far as in the same draws with operations that round like float32, and so no response to
        rounding. (What only the processor's directions reach, they can't tell.)
        """
        response = self._rounding_response.get(leaf, np.zeros(self.exact[leaf].shape))
        least = JUMP * largest_magnitude(self.exact[leaf])
        if not (response > least).any():
            return response > least
        nothing = np.zeros_like(response)
        fine, coarse = (found.get(leaf, nothing) for found in self._draws_of_roundings)
        return _jumps(fine, coarse, least)

    def _roundings_in_turn(
        self, leaf: str, enough: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Responses of one output to runs that round otherwise, and where they may be jumps.

        First each run by itself, in which only what is small is surely no jump. Then all of them,
        as coarse draws are added: each shows more entries whose response shrinks.
        """
        if not math.isfinite(enough):
            return
        least = JUMP * largest_magnitude(self.exact[leaf])
        for run in self._runs:
            found = self._response(leaf, [run])
            yield found, found > least
        response = self._response(leaf, self._rounded)
        yield response, response > least
        if (response > least).any():
            fine = self._response(leaf, self._rounded[:NUM_NUDGES])
            coarse = np.zeros_like(fine)
            for run in self._coarse_runs:
                coarse = np.maximum(coarse, self._response(leaf, [run]))
                yield response, _jumps(fine, coarse, least)

    def _response(self, leaf: str, runs: Iterable[Mapping[str, np.ndarray]]) -> np.ndarray:
        """How far the largest of these runs moves each entry of one output."""
        exact = {leaf: self.exact[leaf]}
        found = differences(({leaf: run[leaf]}, exact) for run in runs if leaf in run)
        return found.get(leaf, np.zeros(exact[leaf].shape))

    @cached_property
    def _runs(self) -> "_Once":
        return self._roundings_of(coarse=False)

    @cached_property
    def _coarse_runs(self) -> "_Once":
        return self._roundings_of(coarse=True)

    def _roundings_of(self, *, coarse: bool) -> "_Once":
        if self._roundings is None:
            return _Once(())
        given = cast(self._inputs, np.float64)
        runs = self._roundings(given, coarse=True) if coarse else self._roundings(given)
        return _Once(outputs_of(run) for run in runs)

    @cached_property
    def _rounded(self) -> list[dict[str, np.ndarray]]:
        return [*self._runs]

    @cached_property
    def _rounding_response(self) -> dict[str, np.ndarray]:
        return differences((run, self.exact) for run in self._rounded)

    @cached_property
    def _draws_of_roundings(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The response to operations moved by chance, by an ulp of float64 and of float32."""
        coarse = [*self._coarse_runs]
        draws = self._rounded[: len(coarse)], coarse
        fine, rough = (differences((run, self.exact) for run in runs) for runs in draws)
        return fine, rough

    @cached_property
    def _sum_of_terms(self) -> dict[str, float]:
        if self._sensitivity is None:
            return {}
        slopes = self._sensitivity(self._inputs)
        return {
            leaf: sum(sum_of_products(self._inputs[name], slope) for name, slope in by.items())
            for leaf, by in slopes.items()
        }


def _jumps(fine: np.ndarray, coarse: np.ndarray, least: float) -> np.ndarray:
    """Where a response is as large for operations off by an ulp of float64 as of float32."""
    return (fine > least) & (fine > SHRINKS * coarse)


class _Once:
    """Runs that are each made when it is first asked for, and kept."""

    def __init__(self, runs: Iterable[dict[str, np.ndarray]]) -> None:
        self._open, self._made = iter(runs), []

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        yield from self._made
        for run in self._open:
            self._made.append(run)
            yield run


def _share(dtype: str) -> float:
    """Of what one operation rounded otherwise may be off in float64, that of this precision."""
    return UNIT_ROUNDOFF[dtype] / (2 * UNIT_ROUNDOFF["float64"])
