"""Two callables and their inputs, made ready to be run, for `check` and `first_divergence`."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity import cases, modules, sides
from parity.arrays import outputs_of
from parity.inputs import Inputs
from parity.repeats import repeatable
from parity.signatures import explained, require_accepted, require_callable, require_inputs
from pgcore.errors import require


class Prepared(NamedTuple):
    """Both sides as callables that are fed from arrays by path.

    Attributes:
        given: The inputs.
        moving: Those to differentiate in, by path.
        in_torch: The reference.
        in_jax: The candidate, which takes and returns the reference's names.
        returned: What the reference returned for these inputs, by path.
        outputs: The same as arrays.
        notes: What a reader should know of a module.
    """

    given: Inputs
    moving: list[str]
    in_torch: Callable[..., Any]
    in_jax: Callable[..., Any]
    returned: Mapping[str, Any]
    outputs: dict[str, np.ndarray]
    notes: list[str]


def prepared(
    reference: Callable[..., Any],
    candidate: Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    wrt: Collection[str] | None,
    rename: Mapping[str, str] | None,
    kinds: Mapping[str, str] | str | None,
) -> Prepared:
    """Checks what was given, and runs the reference on it.

    Raises:
        UsageError: As `parity.check`.
    """
    require_callable("reference", reference)
    require_callable("candidate", candidate)
    modules.require_sides(reference, candidate)
    require_inputs(inputs, reference)
    inputs = modules.with_params(reference, candidate, inputs)
    given = Inputs(inputs)
    moving = given.differentiated(wrt, modules.held_buffers(reference, inputs))
    as_called = modules.reference_function(reference)
    require_accepted("reference", as_called, [*inputs])
    in_torch = given.call(explained("reference", as_called, inputs))
    side = cases.of_reference(sides.torch_values(in_torch), given.notes)
    returned = repeatable(side, "reference")(given.arrays)
    outputs = outputs_of(returned)
    require(
        len(outputs) > 0, "what the reference returns", "nothing", "an array, or a nest of them"
    )
    own, names = modules.divided(reference, candidate, inputs, rename or {}, outputs)
    as_function = modules.candidate_function(
        reference, candidate, inputs.get(modules.PARAMS, {}), names, kinds
    )
    theirs = [own.get(input_name, input_name) for input_name in inputs]
    in_jax = given.call_renamed(explained("candidate", as_function, theirs), own)
    notes = modules.notes(reference, inputs)
    notes += modules.merged(reference, candidate, inputs.get(modules.PARAMS, {}), names, kinds)
    return Prepared(given, moving, in_torch, in_jax, returned, outputs, notes)
