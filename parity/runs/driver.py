"""`lockstep`: whole runs of two implementations, side by side."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from parity.report import Report
from parity.runs import states
from parity.runs.free import FreeRun, run_free
from parity.runs.reports import Distances, LockstepReport
from parity.runs.resync import run_resync
from parity.runs.steps import Adapter, Step, require_repeatable
from parity.tolerance import SLACK, Comparison, Mismatch, Verdict
from pgcore.errors import require, require_count, unknown_choice

Mode = Literal["resync", "free", "nudged"]
MODES: tuple[Mode, ...] = ("resync", "free", "nudged")


def lockstep(
    reference_step: Step,
    candidate_step: Step | None,
    to_candidate: Adapter,
    to_reference: Adapter,
    state: Any,
    inputs: Sequence[Any] | Callable[[int], Any],
    *,
    updates: int,
    mode: Mode = "resync",
    until: Callable[[Any], bool] | None = None,
    callback: Callable[..., None] | None = None,
    expect_nonfinite: Collection[str] = (),
    name: str | None = None,
) -> LockstepReport:
    """Runs two implementations of one algorithm side by side, update after update.

    - `"resync"`: before each update the candidate gets the reference's state. Every output and the
      new state of every update must agree by the rule for one step (`parity.tolerance`).
    - `"free"`: both start alike and go on by themselves. Training amplifies rounding
      exponentially, so the run is held against a yardstick: the reference against itself, every
      floating number of its state moved by one ulp at the start and after every update (8 draws:
      what an update amplifies inside shows in the first one already). The candidate's
      parameters may be at most 16 times as far from the reference's as those of the farthest draw
      that has decided as the reference did until then, up to the update at which a decision of the
      candidate, or of every draw, first differs. Where the candidate parts, the reference must
      decide as it did if it starts from the candidate's own state, or within an ulp of it. What
      comes after is chaos and not judged, and the report says from when on;
      `parity.rank_test` judges many such runs. What changes no parameter is not seen.
    - `"nudged"`: the yardstick alone.

    The state's precision is that of the run. A state in float64 meets the gate. In float32, in
    mode `"resync"`, each step is held against the same step in float64 from the same numbers;
    so what a step decides (actions) had better be among its inputs there.

    Args:
        reference_step: `(state, inputs) -> state` or `-> (state, outputs)`, in PyTorch. It may
            change the state that it is given in place. Outputs are a mapping from stage to tree,
            in the order in which they are computed; the new state is the stage `update` after
            them. An output that is no floating number is a decision.
        candidate_step: The same in JAX, jitted by the caller; `None` in mode `"nudged"`.
        to_candidate: The reference's state as the candidate has it (`parity.convert` does much of
            it), under x64 where the state is float64.
        to_reference: The way back. Both ways must be exact to the last bit.
        state: The reference's state before the first update: a tree of arrays, in which a
            `torch.nn.Module` stands for its parameters and an optimizer for its memory. It is not
            changed. Its entry `params`, or else all of it, is what distances are measured on.
        inputs: What each update gets: a sequence, or a function of the number from 0. Trees whose
            NumPy arrays reach the steps as tensors and as JAX arrays in the run's precision;
            all else reaches them as it is.
        updates: How many, at most.
        mode: What is held against what.
        until: Of the reference's outputs: whether the run is over.
        callback: Called after each update with its number from 1, the reference's outputs and, in
            mode `"free"`, the candidate's.
        expect_nonfinite: In mode `"resync"`: outputs, as `stage/leaf`, that may hold values which
            are not finite, in the same places.
        name: What the report calls it.

    Raises:
        UsageError: A step returns neither a state nor a pair. The reference's is no function of its
            state and inputs, or changes nothing. The state can't be copied, holds what is no array,
            or is not all of one precision. The adapters do not give it back.
    """
    if mode not in MODES:
        raise unknown_choice("mode", mode, MODES)
    require_count("updates", updates)
    states.require_known(state, "the state")
    needs = mode == "nudged" or candidate_step is not None
    require(needs, "candidate_step", candidate_step, f"a JAX step in mode {mode!r}")
    title = name or f"lockstep, {mode}"
    options: Any = {
        "updates": updates,
        "until": until or (lambda outputs: False),
        "callback": callback or (lambda *_: None),
    }
    at = inputs if callable(inputs) else _numbered(inputs, updates)
    require_repeatable(reference_step, state, at(0))
    if mode == "resync":
        assert candidate_step is not None
        ledger = run_resync(
            reference_step,
            candidate_step,
            to_candidate,
            to_reference,
            state,
            at,
            expect_nonfinite=expect_nonfinite,
            **options,
        )
        report = ledger.report(title)
        return LockstepReport(report, mode, ledger.dtype, ledger.updates, ledger.parted_at)
    step = candidate_step if mode == "free" else None
    run = run_free(reference_step, step, to_candidate, to_reference, state, at, **options)
    comparison, parted_at = _judged(run)
    report = Report(title, [comparison], _notes(run))
    return LockstepReport(report, mode, run.dtype, run.updates, parted_at, run.distances)


def _numbered(inputs: Sequence[Any], updates: int) -> Callable[[int], Any]:
    accepted = "a sequence with one for each update, or a function of the update's number from 0"
    is_sequence = hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")
    is_sequence &= not isinstance(inputs, Mapping)
    require(is_sequence, "inputs", type(inputs).__name__, accepted)
    accepted = f"at least {updates}, one for each update, or a function of the update's number"
    require(len(inputs) >= updates, "number of inputs", len(inputs), accepted)
    return inputs.__getitem__


RUN = "run"
"""The stage of what a free run is judged by."""


def _judged(run: FreeRun) -> tuple[Comparison, int | None]:
    """A free run by its yardstick, and the update at which it fails; the yardstick by itself."""
    found = run.distances
    if found.candidate is None:
        return _yardstick(run), None
    last = judged_until(found)
    bounds = SLACK * _farthest_alike(found)[:last]
    errors = found.candidate[:last]
    verdicts, mismatches, parted_at = [], [], None

    def note(
        leaf: str, at: int, reference: str, candidate: str, error: float, bound: float
    ) -> None:
        mismatches.append(
            Mismatch(RUN, leaf, (at,), reference, candidate, None, error, bound, run.dtype)
        )

    if last:
        wrong = np.flatnonzero(~(errors <= bounds) | ~np.isfinite(bounds))
        with np.errstate(invalid="ignore"):
            shares = errors / np.maximum(bounds, np.finfo(np.float64).tiny)
        worst = int(wrong[0]) if wrong.size else int(np.argmax(shares))
        error, bound = float(errors[worst]), float(bounds[worst])
        verdicts.append(Verdict("distance", run.dtype, "candidate", error, bound, "nudges"))
        if wrong.size:
            parted_at = worst + 1
            nudged = f"nudged by an ulp, {bound / SLACK:.3g} at most"
            note(
                "distance of the parameters after update",
                parted_at,
                nudged,
                f"{error:.3g}",
                error,
                bound,
            )
    if found.parted is not None:
        error = 0.0 if run.is_explained else np.inf
        verdicts.append(Verdict("decisions", run.dtype, "candidate", error, 0.0, "exact"))
        if not run.is_explained:
            parted_at = parted_at or found.parted
            there = "decides otherwise, from the candidate's own state too"
            note("decisions at update", found.parted, there, "differs from it", np.inf, 0.0)
    return Comparison(RUN, mismatches, verdicts), parted_at


def judged_until(found: Distances) -> int:
    """The last update before the candidate, or every nudged run, decides otherwise."""
    updates = found.nudged.shape[1]
    ends = [updates + 1 if at is None else at for at in found.nudged_parted] or [updates + 1]
    parted = updates + 1 if found.parted is None else found.parted
    return min(max(ends), parted) - 1


def _farthest_alike(found: Distances) -> np.ndarray:
    """The largest distance after each update of the nudged runs that have decided alike so far."""
    updates = np.arange(1, found.nudged.shape[1] + 1)
    ends = np.array([np.inf if at is None else at for at in found.nudged_parted])
    alike = updates[None] < ends[:, None]
    return np.where(alike, found.nudged, -np.inf).max(axis=0)


def _yardstick(run: FreeRun) -> Comparison:
    """The nudged runs alone, which must be finite."""
    is_finite = bool(np.isfinite(run.distances.nudged).all())
    error = float(run.distances.nudged.max()) if is_finite else np.inf
    verdict = Verdict("distance", run.dtype, "reference", error, np.inf, "nudges")
    said = "a run that is not finite"
    bad = Mismatch(RUN, "distance", (), said, said, None, np.inf, 0.0, run.dtype)
    return Comparison(RUN, [] if is_finite else [bad], [verdict])


def _notes(run: FreeRun) -> list[str]:
    found = run.distances
    notes = [f"{run.updates} updates in {run.dtype}, each side on its own numbers"]
    nudged = sorted(update for update in found.nudged_parted if update is not None)
    if found.candidate is not None:
        if found.parted is not None:
            notes.append(f"a decision of the candidate first differs at update {found.parted}")
        last = judged_until(found)
        if last < run.updates:
            notes.append(
                f"distances are judged up to update {last} of {run.updates}; from the next on a "
                "decision differs"
            )
    if nudged:
        notes.append(
            f"one of the reference nudged by one ulp at updates {', '.join(map(str, nudged))}, in "
            f"{len(nudged)} of {len(found.nudged_parted)} draws"
        )
    return notes
