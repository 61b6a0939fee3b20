"""A recorded stage against another, by the rule and with the yardstick that was recorded."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from parity.arrays import largest_magnitude, same_nonfinite
from parity.cases import joined, unlike
from parity.judge import Judge
from parity.recordings.leaves import PRECISIONS, Leaf
from parity.recordings.recording import Decided, Output, Stage
from parity.tolerance import GATE, SLACK, Comparison, Mismatch, Verdict
from parity.yardstick import Bound

EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
"""Twice the unit roundoff: what the rule's second half allows 16 times of max|ref|."""


class Recorded:
    """One output of a reference as a yardstick that was measured elsewhere, or was not."""

    def __init__(self, path: str, output: Output, precision: str) -> None:
        run = output.runs[precision]
        self.exact = {path: output.runs.get("float64", run).array}
        self.single = {path: output.runs.get("float32", run).array}
        self.numbers = [path] if run.is_number else []
        self._run = {path: run.array}
        self._output = output

    def outputs(self, dtype: str) -> dict[str, np.ndarray]:
        """The output in the precision that is judged."""
        return self._run

    def scale_bound(self, leaf: str, dtype: str) -> Bound:
        """The share of max|ref| that is allowed to any array."""
        return share(self.exact[leaf], dtype)

    def bound(self, leaf: str, dtype: str, enough: float = math.inf) -> Bound:
        """What was measured; without that the share alone."""
        scale = self.scale_bound(leaf, dtype)
        return max(scale, self._output.bounds.get(dtype, scale), key=lambda bound: bound.value)

    def tied(self, leaf: str, found: np.ndarray, bound: float) -> np.ndarray:
        """As `Yardstick.tied`, from what was recorded of it."""
        ties = self._output.ties
        if ties is None:
            return np.zeros(found.shape, bool)
        return ties.at & (found >= ties.low - bound) & (found <= ties.high + bound)


class RecordedScores:
    """What decided a discrete output, with what was allowed to it."""

    def __init__(self, decided: Decided) -> None:
        self.exact = {"scores": decided.scores}
        self._bounds = decided.bounds

    def bound(self, leaf: str, dtype: str) -> Bound:
        """As `Yardstick.bound`; nothing where this precision was not recorded."""
        return self._bounds.get(dtype, Bound(0.0, "exact"))


def share(array: np.ndarray, dtype: str) -> Bound:
    """The share of max|ref| that is allowed to any array of a precision."""
    part = GATE if dtype == "float64" else SLACK * EPSILON[dtype]
    return Bound(part * largest_magnitude(array), "scale")


def held(reference: Stage, candidate: Stage, expect_nonfinite: Collection[str]) -> Comparison:
    """Judges a candidate's stage in each precision that both have.

    `expect_nonfinite` are outputs by path.
    """
    ours, theirs = reference.outputs, candidate.outputs
    decided_by = {
        path: RecordedScores(output.decided) for path, output in ours.items() if output.decided
    }
    judge = Judge(reference.name, expect_nonfinite, decided_by)
    apart: list[Comparison] = []
    pairs: list[tuple[str, str, Leaf]] = []
    for path in {**ours, **theirs}:
        if complaint := _difference(ours.get(path), theirs.get(path)):
            apart.append(unlike(reference.name, path, "any precision", *complaint))
        else:
            pairs += _pairs(path, ours[path], theirs[path])
    for path, precision, found in sorted(pairs, key=lambda pair: PRECISIONS.index(pair[1])):
        given: Any = found.array.item() if found.is_number else found.array
        yardstick = Recorded(path, ours[path], precision)
        judge.hold("candidate", {path: given}, yardstick, precision, None)
    return joined(
        reference.name, [*apart, Comparison(reference.name, judge.mismatches, judge.verdicts)]
    )


def _pairs(path: str, ours: Output, theirs: Output) -> list[tuple[str, str, Leaf]]:
    """What of a candidate's output is judged, with the precision of the reference's run.

    What is not floating has no precision of its own: bare arrays have that of their stage.
    """
    common = [(path, p, theirs.runs[p]) for p in ours.runs if p in theirs.runs]
    return common or [(path, next(iter(ours.runs)), next(iter(theirs.runs.values())))]


def _difference(ours: Output | None, theirs: Output | None) -> tuple[str, str] | None:
    """What two outputs differ in before their numbers are looked at."""
    if ours is None or theirs is None:
        return ("absent" if ours is None else "present", "absent" if theirs is None else "present")
    if not any(precision in theirs.runs for precision in ours.runs):
        runs = [*ours.runs.values(), *theirs.runs.values()]
        if any(leaf.is_floating for leaf in runs):
            return " and ".join(ours.runs), " and ".join(theirs.runs)
    for precision in ours.runs:
        a, b = ours.runs[precision], theirs.runs.get(precision)
        if b is None or not (a.is_floating and b.is_floating) or a.is_number or b.is_number:
            continue
        if a.dtype != b.dtype:
            return a.dtype, b.dtype
    return None


def exactly(stage: str, path: str, ours: Any, theirs: Any) -> Comparison:
    """Two inputs, which must be the same numbers: arrays of one dtype to the last bit.

    Where one side has float64 and the other something shorter, the former is rounded to the latter.
    """
    if not (isinstance(ours, Leaf) and isinstance(theirs, Leaf)):
        if type(ours) is type(theirs) and str(ours) == str(theirs):
            return Comparison(stage, [], [Verdict(path, "any", "candidate", 0.0, 0.0, "exact")])
        said = tuple(str(x) if isinstance(x, Leaf) else repr(x) for x in (ours, theirs))
        return unlike(stage, path, "any precision", *said)
    a, b = ours.array, theirs.array
    if a.shape != b.shape:
        return unlike(stage, path, "any precision", f"shape {a.shape}", f"shape {b.shape}")
    if ours.is_floating != theirs.is_floating or (a.dtype == bool) != (b.dtype == bool):
        return unlike(stage, path, "any precision", ours.dtype, theirs.dtype)
    dtype = min((ours, theirs), key=lambda leaf: leaf.array.dtype.itemsize).array.dtype
    if ours.is_floating:
        with np.errstate(over="ignore"):
            a, b = a.astype(dtype), b.astype(dtype)
    differs = np.asarray(~((a == b) | (same_nonfinite(a, b) if ours.is_floating else False)))
    if not differs.any():
        return Comparison(stage, [], [Verdict(path, dtype.name, "candidate", 0.0, 0.0, "exact")])
    at = tuple(int(i) for i in np.argwhere(differs)[0])
    apart = abs(float(a[at]) - float(b[at]))
    error = apart if math.isfinite(apart) else math.inf
    values = (a[at].item(), b[at].item(), None)
    mismatch = Mismatch(stage, path, at, *values, error, 0.0, dtype.name)
    return Comparison(
        stage, [mismatch], [Verdict(path, dtype.name, "candidate", error, 0.0, "exact")]
    )
