"""What rounding is worth to a reference: the yardstick of `parity.tolerance`, term by term."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

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
from parity.rounded_runs import JUMP, NUM_NUDGES, RoundedRuns, Roundings, are_jumps

Function = Callable[[Arrays], Mapping[str, np.ndarray]]
Sensitivity = Callable[[Arrays], Mapping[str, Mapping[str, np.ndarray]]]
"""Inputs to `{scalar output: {input: ∂output/∂input}}`, in float64."""

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24}
GATE = 1e-11
"""The gate's share of max|ref|: far above what float64 rounds, far below any change of meaning."""
FLOAT32_SCALE = 2.0**-23
SLACK = 16
"""Two right programs round differently: what one draw shows is allowed this many times."""
NOT_BY_FAR = 16
"""Times its bound an error may be for further draws to be made. They are dear, and showed up to 3
times what the usual ones do (`benchmarks.draws`)."""


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
        self._rounded = RoundedRuns(roundings, self._inputs, lambda: self.exact)

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
        add changes no verdict on such an error. If all the usual ones do not, and the error is not
        larger by far, further draws are made until one allows it.
        """
        per_response = SLACK * _share(dtype)
        asked = math.isfinite(enough)
        for response in self._rounded.smooth_responses(leaf) if asked else ():
            if per_response * response >= enough:
                return Bound(per_response * response, "rounding")
        measured = [Bound(SLACK * size, term) for term, size in self.terms(leaf, dtype).items()]
        bound = max([self.scale_bound(leaf, dtype), *measured], key=lambda bound: bound.value)
        if asked and bound.value < enough <= NOT_BY_FAR * bound.value:
            for response in self._rounded.further_responses(leaf):
                further = Bound(per_response * response, "rounding")
                bound = max(bound, further, key=lambda bound: bound.value)
                if bound.value >= enough:
                    break
        return bound

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
            "rounding": self._rounded.smooth_response(leaf) * _share(dtype),
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
        return self._rounded.decided(leaf)

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
            leaf: are_jumps(
                apart, self._single_response[leaf], JUMP * largest_magnitude(self.exact[leaf])
            )
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

    @cached_property
    def _sum_of_terms(self) -> dict[str, float]:
        if self._sensitivity is None:
            return {}
        slopes = self._sensitivity(self._inputs)
        return {
            leaf: sum(sum_of_products(self._inputs[name], slope) for name, slope in by.items())
            for leaf, by in slopes.items()
        }


def _share(dtype: str) -> float:
    """Of what one operation rounded otherwise may be off in float64, that of this precision."""
    return UNIT_ROUNDOFF[dtype] / (2 * UNIT_ROUNDOFF["float64"])
