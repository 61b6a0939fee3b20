"""Re-synchronised runs: before each update the candidate gets the reference's state."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from parity import sides
from parity.runs import states
from parity.runs.reports import Ledger
from parity.runs.steps import STATE, Adapter, Candidate, Reference, Step, require_moved
from parity.tolerance import cast, compare


def run_resync(
    reference_step: Step,
    candidate_step: Step,
    to_candidate: Adapter,
    to_reference: Adapter,
    state: Any,
    inputs: Callable[[int], Any],
    *,
    updates: int,
    until: Callable[[Any], bool],
    callback: Callable[[int, Any], None],
    expect_nonfinite: Collection[str] = (),
) -> Ledger:
    """Every output and the new state of every update, by the rule for one step.

    A state in float64 is held to the gate. In float32 each step is held against the same step in
    float64 from the same numbers, which is what the rule for rounding asks for.
    """
    state = states.replaced(state, {})
    dtype = states.run_precision(state)
    ledger = Ledger(dtype)
    for update in range(1, updates + 1):
        reference = Reference(reference_step, state, inputs(update - 1))
        candidate = Candidate(candidate_step, to_candidate, to_reference, reference)
        own = cast(reference.arrays, np.dtype(dtype).type)
        leading = reference.done(own)
        compared = compare(
            reference.knowing(own, leading),
            candidate,
            reference.arrays,
            roundings=sides.torch_roundings(reference),
            # A zero in a state is a moment before the first step or a unit that never fired.
            exact_zeros=(STATE,),
            precisions=(dtype,),
            expect_nonfinite=expect_nonfinite,
        )
        ledger.add(update, compared)
        ledger.moved |= states.differ(state, leading.state)
        state = leading.state
        callback(update, leading.outputs)
        if until(leading.outputs):
            break
    require_moved(ledger.moved)
    return ledger
