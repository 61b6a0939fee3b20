"""One step of a run on either side, as a function from named arrays to named arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity import sides
from parity.names import precision
from parity.runs import states
from parity.tolerance import Arrays, Function, cast
from pgcore.errors import UsageError

Step = Callable[[Any, Any], Any]
"""`(state, inputs) -> state` or `-> (state, outputs)`."""
Adapter = Callable[[Any], Any]
"""One side's state to the other's."""

STATE, INPUTS = "state", "inputs"
"""What the names of the arrays that a step is fed begin with."""
UPDATE = "update"
"""The stage that the new state is compared as."""


class Done(NamedTuple):
    """What a step came to."""

    state: Any
    outputs: dict[str, Any]

    def arrays(self, dtype: str) -> dict[str, np.ndarray]:
        """The outputs and the new state, which belongs to the stage `update`."""
        state = _named(UPDATE, states.leaves(self.state, dtype))
        outputs = states.leaves(self.outputs, dtype)
        if common := state.keys() & outputs.keys():
            raise UsageError(
                f"outputs have {', '.join(sorted(common))}, which the new state is compared as; "
                "call that output otherwise"
            )
        return outputs | state


class Reference:
    """A PyTorch step at one state and its inputs. Called with other numbers, it starts from these.

    Attributes:
        arrays: The numbers that it starts from, by name.
    """

    def __init__(self, step: Step, state: Any, inputs: Any) -> None:
        self._step, self._state, self._inputs = step, state, inputs
        self.arrays = _named(STATE, states.leaves(state)) | _named(INPUTS, states.leaves(inputs))

    def done(self, arrays: Arrays) -> Done:
        """The step from these numbers."""
        state, inputs = self.given(arrays)
        with sides.arithmetic(flush=_precision(arrays) == "float32"):
            result = self._step(state, states.in_torch(inputs))
        return divided(result, self._state, "reference_step")

    def __call__(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Its outputs and its new state, from these numbers."""
        return self.done(arrays).arrays(_precision(arrays))

    def knowing(self, own: Arrays, done: Done) -> Function:
        """The same function, which does not do again what was done already from `own`."""

        def call(arrays: Arrays) -> dict[str, np.ndarray]:
            is_known = _precision(arrays) == _precision(own) and all(
                np.array_equal(array, arrays[name], equal_nan=True) for name, array in own.items()
            )
            return done.arrays(_precision(own)) if is_known else self(arrays)

        return call

    def given(self, arrays: Arrays) -> tuple[Any, Any]:
        """Copies of the state and the inputs with these numbers."""
        return (
            states.replaced(self._state, _part(STATE, arrays)),
            states.replaced(self._inputs, _part(INPUTS, arrays)),
        )


class Candidate:
    """A JAX step from the reference's state, which is carried over and back by the adapters."""

    def __init__(
        self, step: Step, to_candidate: Adapter, to_reference: Adapter, reference: Reference
    ) -> None:
        self._step, self._reference = step, reference
        self._to_candidate, self._to_reference = to_candidate, to_reference

    def __call__(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Its outputs and its new state as the reference has it, from these numbers."""
        state, inputs = self._reference.given(arrays)
        dtype = _precision(arrays)
        import jax

        with sides.x64(dtype == "float64"):
            own = self._to_candidate(state)
            require_same_state(_part(STATE, arrays), states.leaves(self._to_reference(own)))
            # A callback of the step, an environment's say, is to end in this precision too.
            result = jax.block_until_ready(self._step(own, states.in_jax(inputs)))
            done = divided(result, own, "candidate_step")
            return done._replace(state=self._to_reference(done.state)).arrays(dtype)


def divided(result: Any, state: Any, which: str) -> Done:
    """What a step returned as the new state and its outputs by stage.

    Raises:
        UsageError: It is neither a state nor a pair of a state and outputs.
    """
    accepted = states.form(state)
    if states.form(result) == accepted:
        return Done(result, {})
    if type(result) is tuple and len(result) == 2 and states.form(result[0]) == accepted:
        outputs = result[1]
        by_stage = dict(outputs) if isinstance(outputs, Mapping) else {"outputs": outputs}
        states.require_known(by_stage, f"what {which} returns beside the state")
        return Done(result[0], by_stage)
    raise UsageError(
        f"what {which} returns has the form {states.form(result)}, accepted is the new state, of "
        f"the form of the one that it was given, {accepted}, or the pair (state, outputs)"
    )


def require_repeatable(step: Step, state: Any, inputs: Any) -> None:
    """Raises a `UsageError` unless a PyTorch step is a function of its state and its inputs."""
    dtype = states.run_precision(state)
    reference = Reference(step, state, inputs)
    own = cast(reference.arrays, np.dtype(dtype).type)
    once, again = reference.done(own), reference.done(own)
    if name := states.first_difference(once.arrays(dtype), again.arrays(dtype)):
        raise UsageError(
            f"reference_step gives another {name} the second time, from the same state and inputs; "
            "draw random numbers before, and give them as inputs"
        )
    copied = Reference(step, once.state, inputs)
    there = copied.done(cast(copied.arrays, np.dtype(dtype).type))
    given = copied.given(cast(copied.arrays, np.dtype(dtype).type))[1]
    with sides.arithmetic(flush=dtype == "float32"):
        result = step(once.state, states.in_torch(given))
    here = divided(result, once.state, "reference_step")
    if name := states.first_difference(here.arrays(dtype), there.arrays(dtype)):
        raise UsageError(
            f"reference_step gives another {name} from the state that it returned than from a copy "
            "of it: it keeps something beside its arrays, a gradient that is not set to zero say "
            "(optimizer.zero_grad())"
        )


def require_moved(moved: bool) -> None:
    """Raises a `UsageError` if no update changed the reference's state."""
    if not moved:
        raise UsageError(
            "no update changed reference_step's state: it steps something else, an optimizer that "
            "was made of other parameters say; the optimizer belongs into the state, beside its "
            "module, so that both are copied together"
        )


def require_same_state(before: Mapping[str, Any], after: Mapping[str, np.ndarray]) -> None:
    """Raises a `UsageError` unless a state that went to the other side and back is the same.

    What an optimizer will remember and does not yet may come back as zeros.
    """
    for name, array in before.items():
        found = after.get(name)
        is_same = found is not None and np.array_equal(found, array, equal_nan=True)
        if not is_same:
            raise UsageError(
                f"to_reference(to_candidate(state)) does not give the state back: {name} is "
                f"{_brief(array, found)} before and {_brief(found, array)} after; the adapters "
                "must carry every array over to the last bit, under the same name"
            )
    if invented := [name for name in after if name not in before and after[name].any()]:
        raise UsageError(
            f"to_reference(to_candidate(state)) has {', '.join(invented)}, which the state does "
            "not have"
        )


def _brief(array: Any, other: Any) -> str:
    """Dtype and shape, and the first number that differs if the other is of the same shape."""
    if array is None:
        return "missing"
    array = np.asarray(array)
    if array.ndim == 0:
        return repr(array.item())
    form = f"{array.dtype}{list(array.shape)}"
    if other is None or np.shape(other) != array.shape:
        return form
    differs = array != np.asarray(other)
    differs &= (array == array) | (other == other)  # both NaN is the same
    at = tuple(int(i) for i in np.argwhere(differs)[0])
    return f"{form} with {array[at].item()!r} at {list(at)}"


def _precision(arrays: Arrays) -> str:
    return precision(_part(STATE, arrays))


def _named(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _part(prefix: str, arrays: Arrays) -> dict[str, Any]:
    start = f"{prefix}/"
    return {name.removeprefix(start): x for name, x in arrays.items() if name.startswith(start)}
