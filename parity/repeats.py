"""What gives other results each time has no result to compare, and a yardstick of any width."""

import random
import sys
from collections.abc import Mapping

import numpy as np

from parity.arrays import outputs_of
from parity.tolerance import GATE, Arrays, Function
from pgcore.errors import UsageError

NUM_TRIALS = 32
"""Calls of a function that draws random numbers, to see whether its results depend on them: a
dropout of few units can well be the same twice."""


def repeatable(side: Function, role: str) -> Function:
    """The side, whose first call is made twice, or more often if random numbers are drawn in it.

    Raises, when it is called:
        UsageError: Two results differ by more than the gate's share of the largest value, which no
            other order of a sum comes near (an accelerator may have one each time).
    """
    seen = False

    def run(inputs: Arrays) -> Mapping[str, np.ndarray]:
        nonlocal seen
        before = _generators()
        found = side(inputs)
        if not seen:
            seen = True
            for _ in range(1 if _generators() == before else NUM_TRIALS):
                _require_same(found, side(inputs), role)
        return found

    return run


def _generators() -> tuple[object, ...]:
    """The states of the generators that belong to nobody."""
    torch = sys.modules.get("torch")
    drawn_by_torch = torch.get_rng_state().numpy().tobytes() if torch else b""
    _, key, position, *_ = np.random.get_state()  # noqa: NPY002, it is not ours to choose
    return random.getstate(), np.asarray(key).tobytes(), position, drawn_by_torch


def _require_same(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], role: str
) -> None:
    first, second = outputs_of(first), outputs_of(second)
    for leaf in {**first, **second}:
        if leaf not in first or leaf not in second or _differ(first[leaf], second[leaf]):
            raise UsageError(
                f"{role} gives another result for {leaf!r} when it is called twice on the same "
                "inputs, accepted is a function of its inputs alone: pass the noise as an input, "
                "or switch dropout off, by .eval() in torch and deterministic=True in Flax"
            )


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return True
    if not np.issubdtype(a.dtype, np.inexact):
        return not np.array_equal(a, b)
    finite = np.isfinite(a)
    same_places = np.array_equal(finite, np.isfinite(b))
    if not same_places or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return True
    with np.errstate(over="ignore"):
        apart = np.abs(a[finite] - b[finite]).max(initial=0.0)
    return bool(apart > GATE * np.abs(a[finite]).max(initial=0.0))
