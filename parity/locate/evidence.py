"""What is known of a place at which two computations part: what the signatures of traps look at."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, ...]
"""One value, in float64, at each of the input sets on which both sides were run."""


class Seen(NamedTuple):
    """One recorded value.

    Attributes:
        op: The operation that made it: `"aten.std.correction"`, or JAX's `"reduce_sum"`.
        values: What it made, at each input set.
        operands: What it was made of, likewise; plain numbers are arrays without axes.
        code: The text of the statement, without indentation.
    """

    op: str
    values: Arrays
    operands: tuple[Arrays, ...] = ()
    code: str = ""


class Evidence(NamedTuple):
    """The values at which two computations part.

    Attributes:
        phase: `"forward"` or `"backward"`. Backward, `reference` and `candidate` are the slopes of
            the same forward value, and `forward` is that value on both sides.
        reference: PyTorch's value; `None` if it has no counterpart of the candidate's.
        candidate: JAX's value, which is wrong.
        references: Other values of PyTorch that have no partner on JAX's side, nearest first.
        candidates: Other values of JAX that have no partner, nearest first.
        matched: Values that both sides have, nearest first: what was at hand there.
        forward: The forward value whose slopes part, if it is the slopes that part.
        known: Values of PyTorch's that both sides have, nearest first.
        outputs: PyTorch's and JAX's value of an output that is wrong.
    """

    phase: str
    reference: Seen | None
    candidate: Seen
    references: Sequence[Seen] = ()
    candidates: Sequence[Seen] = ()
    matched: Sequence[Seen] = ()
    forward: Seen | None = None
    known: Sequence[Seen] = ()
    outputs: tuple[Seen, Seen] | None = None


class Cause(NamedTuple):
    """A likely cause of what was seen.

    Attributes:
        trap: Its number in the catalogue of traps, `"B01"`.
        evidence: The numbers that say so.
        remedy: What to write instead.
        title: What the trap is, in a few words.
    """

    trap: str
    evidence: str
    remedy: str
    title: str = ""
