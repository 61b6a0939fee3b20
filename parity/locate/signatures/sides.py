"""What was recorded on either side, for signatures that go by operations and their operands."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from parity.locate import kinds
from parity.locate.evidence import Arrays, Seen
from parity.locate.signatures.clues import Clues
from parity.locate.signatures.relations import CLOSE

SIDES = ("PyTorch", "JAX")
NEAR = 4
"""So many of the values without partner are looked at, the nearest first."""


def kind_of(seen: Seen) -> str | None:
    """The kind of operation that made a value, also if it made it in a list of others."""
    return kinds.kind_of(seen._replace(op=seen.op.replace("_foreach_", "")))


class Sides:
    """What was recorded on either side, nearest first: PyTorch's, then JAX's."""

    def __init__(self, clues: Clues) -> None:
        seen = clues.evidence
        first = [seen.reference] if seen.reference is not None else []
        self.lacking = ([*first, *seen.references], [seen.candidate, *seen.candidates])
        if seen.outputs is not None:
            for mine, output in zip(self.lacking, seen.outputs, strict=True):
                mine.append(output)
        self.known = ([*seen.known], [*seen.matched])

    def used(self, side: int) -> list[Arrays]:
        """What is to be explained, and what it was made of."""
        first = self.lacking[side][:1]
        return [values for each in first for values in (each.values, *each.operands)]

    def both_ways(self) -> Iterator[tuple[int, int]]:
        """PyTorch's side against JAX's, then the other way round."""
        yield from ((0, 1), (1, 0))

    def firsts(self) -> Iterator[tuple[int, int, Seen, Seen]]:
        """Both ways, where both lack a partner: the sides, and what is nearest on each."""
        for one, other in self.both_ways() if all(self.lacking) else ():
            yield one, other, self.lacking[one][0], self.lacking[other][0]


def alike(one: Arrays, other: Arrays) -> bool:
    """Whether two values are the same numbers, but for axes of length 1."""
    if len(one) != len(other):
        return False
    pairs = [
        (np.squeeze(np.asarray(a, float)), np.squeeze(np.asarray(b, float)))
        for a, b in zip(one, other, strict=True)
    ]
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=CLOSE, atol=0, equal_nan=True)
        for a, b in pairs
    )


def number(values: Arrays) -> float | None:
    """The number that a value is everywhere and at all input sets."""
    found = {float(x) for a in values for x in np.unique(np.asarray(a, float))}
    return found.pop() if len(found) == 1 else None


def flags(values: Arrays) -> bool:
    """Whether a value is of zeros and ones, and not of one of them alone."""
    return all(np.isin(a, (0, 1)).all() for a in values) and number(values) is None


def with_a_number(seen: Seen) -> Iterator[tuple[Arrays, float]]:
    """An operand, and a number that the operation has as another."""
    for x, c in permutations(seen.operands[:3], 2):
        if (c_number := number(c)) is not None and number(x) is None:
            yield x, c_number


def floats(values: Arrays) -> Arrays:
    """A value in float64."""
    return tuple(np.asarray(a, np.float64) for a in values)
