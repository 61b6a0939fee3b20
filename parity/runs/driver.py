"""`lockstep`: whole runs of two implementations, side by side."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from parity.report import Report
from parity.runs.free import FreeRun, run_free
from parity.runs.reports import LockstepReport
from parity.runs.resync import run_resync
from parity.runs.steps import Adapter, Step
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
    name: str | None = None,
) -> LockstepReport:
    """Runs two implementations of one algorithm side by side, update after update.

    - `"resync"`: before each update the candidate gets the reference's state. Every output and the
      new state of every update must agree by the rule for one step (`parity.tolerance`).
    - `"free"`: both start alike and go on by themselves. Training amplifies rounding
      exponentially, so the run is held against a yardstick: the reference against itself, every
      floating number of its state moved by one ulp after every update (8 draws). Up to the update
      at which a decision of the candidate first differs, its parameters may be at most 16 times
      as far from the reference's as the farthest of these. Where it parts, the reference must
      decide as the candidate did if it starts from the candidate's own state. What comes after is
      chaos and not judged; `parity.runs.rank_test` judges many such runs.
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
        name: What the report calls it.

    Raises:
        UsageError: A step returns neither a state nor a pair, the state can't be copied, or the
            adapters do not give it back.
        ValueError: The state's floating arrays are not all float64 or all float32.
    """
    if mode not in MODES:
        raise unknown_choice("mode", mode, MODES)
    require_count("updates", updates)
    needs = mode == "nudged" or candidate_step is not None
    require(needs, "candidate_step", candidate_step, f"a JAX step in mode {mode!r}")
    title = name or f"lockstep, {mode}"
    options: Any = {
        "updates": updates,
        "until": until or (lambda outputs: False),
        "callback": callback or (lambda *_: None),
    }
    at = inputs if callable(inputs) else _numbered(inputs, updates)
    if mode == "resync":
        assert candidate_step is not None
        ledger = run_resync(
            reference_step, candidate_step, to_candidate, to_reference, state, at, **options
        )
        report = ledger.report(title)
        return LockstepReport(report, mode, ledger.dtype, ledger.updates, ledger.parted_at)
    step = candidate_step if mode == "free" else None
    run = run_free(reference_step, step, to_candidate, to_reference, state, at, **options)
    comparison, parted_at = _judged(run)
    report = Report(title, [comparison], _notes(run))
    return LockstepReport(report, mode, run.dtype, run.updates, parted_at, run.distances)


def _numbered(inputs: Sequence[Any], updates: int) -> Callable[[int], Any]:
    accepted = f"at least {updates}, one for each update, or a function of the update's number"
    require(len(inputs) >= updates, "number of inputs", len(inputs), accepted)
    return inputs.__getitem__


RUN = "run"
"""The stage of what a free run is judged by."""


def _judged(run: FreeRun) -> tuple[Comparison, int | None]:
    """A free run by its yardstick, and the update at which it fails; the yardstick by itself."""
    found = run.distances
    if found.candidate is None:
        is_finite = bool(np.isfinite(found.nudged).all())
        error = float(found.nudged.max()) if is_finite else np.inf
        verdict = Verdict("distance", run.dtype, "reference", error, np.inf, "nudges")
        bad = Mismatch(
            RUN, "distance", (), "a finite run", "not finite", None, np.inf, 0.0, run.dtype
        )
        return Comparison(RUN, [] if is_finite else [bad], [verdict]), None
    last = run.updates if found.parted is None else found.parted - 1
    errors, bounds = found.candidate[:last], SLACK * found.nudged.max(axis=0)[:last]
    verdicts, mismatches, parted_at = [], [], None
    if last:
        too_far = np.flatnonzero(~(errors <= bounds))
        worst = (
            int(too_far[0]) if too_far.size else int(np.argmax(errors / np.maximum(bounds, 1e-300)))
        )
        verdict = Verdict(
            "distance", run.dtype, "candidate", float(errors[worst]), float(bounds[worst]), "nudges"
        )
        verdicts.append(verdict)
        if too_far.size:
            parted_at = worst + 1
            mismatches.append(
                Mismatch(
                    RUN,
                    "distance of the parameters after update",
                    (worst + 1,),
                    f"nudged by an ulp, {bounds[worst] / SLACK:.3g} at most",
                    f"{errors[worst]:.3g}",
                    None,
                    float(errors[worst]),
                    float(bounds[worst]),
                    run.dtype,
                )
            )
    if found.parted is not None:
        error = 0.0 if run.is_explained else np.inf
        verdicts.append(Verdict("decisions", run.dtype, "candidate", error, 0.0, "exact"))
        if not run.is_explained:
            parted_at = parted_at or found.parted
            mismatches.append(
                Mismatch(
                    RUN,
                    "decisions at update",
                    (found.parted,),
                    "decides otherwise, from the candidate's own state too",
                    "differs from the reference",
                    None,
                    np.inf,
                    0.0,
                    run.dtype,
                )
            )
    return Comparison(RUN, mismatches, verdicts), parted_at


def _notes(run: FreeRun) -> list[str]:
    found = run.distances
    notes = [f"{run.updates} updates in {run.dtype}, each side on its own numbers"]
    nudged = sorted(update for update in found.nudged_parted if update is not None)
    if found.candidate is not None:
        parted = "never" if found.parted is None else f"at update {found.parted}"
        notes.append(f"the first decision of the candidate that differs: {parted}")
    if nudged:
        notes.append(
            f"of the reference nudged by one ulp: at updates {', '.join(map(str, nudged))} in "
            f"{len(nudged)} of {len(found.nudged_parted)} draws"
        )
    return notes
