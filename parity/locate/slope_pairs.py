"""The slopes of two tapes, value by value: which differ, and what each use adds to them."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from parity.locate.jax_slopes import Compiled, JaxSlopes, Use
from parity.locate.jax_tape import JaxRun
from parity.locate.matching import Partners, item, same
from parity.locate.tape import Value
from parity.locate.torch_tape import TorchRun
from parity.yardstick import SLACK

SHARE = 1e-10
"""Of the largest slope: what the rounding of a long sum of them may be off."""


class SlopePairs:
    """Two tapes with the slopes on both."""

    def __init__(
        self,
        partners: Partners,
        torch_runs: Sequence[TorchRun],
        jax_runs: Sequence[JaxRun],
        jax_slopes: Sequence[JaxSlopes],
        slack: float,
        seeds: Sequence[Mapping[int, np.ndarray]],
    ) -> None:
        """`slack`: what rounding is worth to PyTorch's slopes, as a share of the largest.

        `seeds`: the slopes that JAX's were computed from, by place, of each run.
        """
        self.seeds = seeds
        self.torch, self.jax, self.partners = partners.torch, partners.jax, partners
        self.torch_runs, self.jax_runs, self.jax_slopes = torch_runs, jax_runs, jax_slopes
        self.share = max(SHARE, SLACK * slack)
        self.compiled: Compiled = {}

    @cached_property
    def differing(self) -> set[int]:
        """JAX's values whose slope is not that of a partner."""
        return {v.index for v in self.jax.values if self.partners_of(v.index) and self._differs(v)}

    def partners_of(self, index: int) -> list[int]:
        """PyTorch's values that are one of JAX's, but for whole loops."""
        return [t[0] for t in self.partners.of_jax.get(index, ()) if len(t) == 1]

    def _differs(self, value: Value) -> bool:
        if any(array.dtype.kind != "f" for array in value.arrays):
            return False
        ours, alive = self.slope_in_jax(value.index), self._is_alive(value.index)
        theirs = [self.slope_in_torch(t) for t in self.partners_of(value.index)]
        moving = [slope for slope in theirs if slope is not None]
        if not moving:
            return alive and any(np.any(slope != 0) for slope in ours)
        if not alive and len(moving) < len(theirs):
            return False  # held fast on both sides
        # The same numbers may be there several times: each slope alone, or all that flows.
        sums = [_total(moving)] if len(moving) > 1 else []
        return not any(self.same_slope(slope, ours) for slope in [*moving, *sums])

    def slope_in_jax(self, index: int) -> tuple[np.ndarray, ...]:
        """JAX's slope in a value of its own, at each input set."""
        found = []
        for s, mine in enumerate(self.jax_slopes):
            place = self.jax.places[s][index]
            shape = self.jax.values[index].arrays[s].shape
            found.append(mine.total.get(place, np.zeros(shape)))
        return tuple(found)

    def _is_alive(self, index: int) -> bool:
        return self.jax.places[0][index] in self.jax_slopes[0].alive

    def slope_in_torch(self, index: int) -> tuple[np.ndarray, ...] | None:
        """PyTorch's slope in a value; `None` if nothing flows there."""
        found = [
            run.slopes.get(self.torch.places[s][index]) for s, run in enumerate(self.torch_runs)
        ]
        slopes = [each.total for each in found if each is not None]
        return tuple(slopes) if len(slopes) == len(found) else None

    def same_slope(self, reference: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
        """Whether two slopes are the same, up to layout and what rounding may be off."""
        if any(np.size(a) != np.size(b) for a, b in zip(reference, other, strict=True)):
            reference = [
                np.broadcast_to(a, np.shape(b)) if np.size(a) == 1 else a
                for a, b in zip(reference, other, strict=True)
            ]
        scale = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a in reference)
        first = item((), tuple(reference), self.share * scale / SLACK)
        return same(first, item((), tuple(other)))

    @cached_property
    def consumers(self) -> list[list[int]]:
        """For each of JAX's values what was made of it."""
        return self.jax.consumers()

    def unlike_uses(self, index: int, theirs: Sequence[int]) -> list[Use]:
        """The uses that add what no use of PyTorch's adds."""
        parts = self._parts(theirs)
        uses = self.jax_slopes[0].uses.get(self.jax.places[0][index], [])
        found = [
            use
            for number, use in enumerate(uses)
            if np.any(use.slope != 0) and not self._among(self._use(index, number), parts)
        ]
        return sorted(found, key=lambda use: -float(np.abs(use.slope).max()))

    def unlike_parts(self, index: int, theirs: Sequence[int]) -> bool:
        """Whether a use of PyTorch's adds what none of JAX's adds."""
        uses = self.jax_slopes[0].uses.get(self.jax.places[0][index], [])
        mine = [self._use(index, number) for number in range(len(uses))]
        return any(not self._among(part, mine) for part in self._parts(theirs))

    def _use(self, index: int, number: int) -> list[np.ndarray]:
        found = []
        for s, mine in enumerate(self.jax_slopes):
            uses = mine.uses.get(self.jax.places[s][index], [])
            found.append(uses[number].slope if number < len(uses) else np.zeros(()))
        return found

    def _parts(self, indices: Sequence[int]) -> list[list[np.ndarray]]:
        parts = []
        for index in indices:
            found = [
                run.slopes[self.torch.places[s][index]].parts
                for s, run in enumerate(self.torch_runs)
            ]
            parts += [[each[i] for each in found] for i in range(min(map(len, found)))]
        return parts

    def _among(self, slope: list[np.ndarray], others: Sequence[list[np.ndarray]]) -> bool:
        return any(self.same_slope(other, slope) for other in others)

    @cached_property
    def torch_consumers(self) -> list[list[int]]:
        """For each of PyTorch's values what was made of it."""
        return self.torch.consumers()


def _total(slopes: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """The sum of slopes in values that are laid out alike; the first, where they are not."""
    if len({tuple(a.shape for a in each) for each in slopes}) > 1:
        return slopes[0]
    return tuple(np.sum(np.stack(each), axis=0) for each in zip(*slopes, strict=True))
