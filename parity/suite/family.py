"""What a family of examples is, and the kinds of examples there are beside a stage's own.

An example is decided by the seed, its family's name and its number. Each axis of a family goes
through all of its values, in an order of its own, before it repeats one: after as many examples as
the longest axis has values, every hazard was there.
"""

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from parity import sides
from parity.suite.randomness import Draws, LongNoise
from parity.suite.stages import BOTH
from parity.tolerance import Comparison, Function, compare


class Comparable(Protocol):
    """What a family draws."""

    def compare(self, *, jit: bool = True, precisions: Collection[str] = BOTH) -> list[Comparison]:
        """Everything that is held together, in order, in those of its precisions."""
        ...

    def vmapped(self) -> list[Comparison]:
        """The same under `vmap`; empty where there is no such thing."""
        ...

    def trace(self) -> None:
        """Calls everything that a comparison would, with as little computed as can be."""
        ...


class Family(NamedTuple):
    """Examples of one stage.

    Attributes:
        name: Stage, and what it is of.
        axes: What is drawn from which values, by name.
        draw: `(rng, **choices) -> example`.
        share: Examples are this many times as many as usual, where they are cheap or dear.
        seconds: About what compiling it takes, for what is dear to begin first.
    """

    name: str
    axes: Mapping[str, Sequence[Any]]
    draw: Callable[..., Comparable]
    share: float = 1.0
    seconds: float = 1.0

    def narrowed(self, axes: Mapping[str, Sequence[Any]]) -> "Family":
        """The family with fewer values on some axes; the others it may not have."""
        kept = {name: axes.get(name, values) for name, values in self.axes.items()}
        return self._replace(axes=kept)

    def example(self, seed: int, index: int) -> tuple[dict[str, Any], Comparable]:
        """What was chosen, and the example."""
        identity = [seed, zlib.crc32(self.name.encode())]
        choices = {}
        for axis, (name, values) in enumerate(self.axes.items()):
            turn, place = divmod(index, len(values))
            order = np.random.default_rng([*identity, axis, turn]).permutation(len(values))
            choices[name] = values[order[place]]
        rng = np.random.default_rng([*identity, len(self.axes), index])
        return choices, self.draw(rng, **choices)


class Direct(NamedTuple):
    """An example whose two sides do the same to the numbers: nothing is allowed for rounding.

    They are functions of arrays by path, not to be jitted here.
    """

    name: str
    reference: Function
    candidate: Function
    inputs: dict[str, Any]

    def compare(self, *, jit: bool = True, precisions: Collection[str] = BOTH) -> list[Comparison]:
        """The candidate against the reference, in float64."""
        if "float64" not in precisions:
            return []
        return [
            compare(
                self.reference,
                self.candidate,
                self.inputs,
                stage=self.name,
                padding=sides.everywhere(self.inputs),
                precisions=("float64",),
            )
        ]

    def vmapped(self) -> list[Comparison]:
        """Nothing."""
        return []

    def trace(self) -> None:
        """Runs both sides."""
        self.reference(self.inputs)
        self.candidate(self.inputs)


class Statistical(NamedTuple):
    """Draws that are held against their law."""

    draws: Draws | LongNoise
    seed: int

    def compare(self, *, jit: bool = True, precisions: Collection[str] = BOTH) -> list[Comparison]:
        """The law, its support, dependence, and that a seed decides; counted with float64."""
        return [self.draws.compare(self.seed)] if "float64" in precisions else []

    def vmapped(self) -> list[Comparison]:
        """Nothing."""
        return []

    def trace(self) -> None:
        """One draw."""
        self.draws.trace()
