"""Free runs: from one start on the same inputs, each side on its own numbers from then on."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity import sides
from parity.arrays import is_floating
from parity.runs import states
from parity.runs.reports import Distances
from parity.runs.steps import (
    UPDATE,
    Adapter,
    Done,
    Step,
    divided,
    require_moved,
    require_same_state,
)
from parity.tolerance import NUM_NUDGES, cast
from pgcore.errors import require


class Follower:
    """A run beside the reference's: its state, and how far it went from there."""

    def __init__(self, state: Any, take: Callable[[Any, Any], Done], back: Adapter) -> None:
        self._state, self._take, self._back = state, take, back
        self.distances: list[float] = []
        self.parted: int | None = None
        self.before: Any = None
        """Its state before it parted, as the reference has it, and what it decided there."""
        self.decided: Any = None

    def step(self, inputs: Any, leading: Done) -> dict[str, Any]:
        """One update, measured against the reference's; its outputs."""
        before = states.replaced(self._back(self._state), {}) if self.parted is None else None
        self._state, outputs = self._take(self._state, inputs)
        following = self._back(self._state)
        self.distances.append(distance(following, leading.state))
        found, model = decisions(Done(following, outputs)), decisions(leading)
        if self.parted is None and decides_otherwise(found, model):
            self.parted, self.before, self.decided = len(self.distances), before, found
        return outputs


class FreeRun(NamedTuple):
    """What a free run came to.

    `is_explained` tells of a candidate that parted whether the reference, put where the candidate
    stood, decides as the candidate did: then only the distance parted them.
    """

    dtype: str
    updates: int
    distances: Distances
    is_explained: bool = True


def run_free(
    reference_step: Step,
    candidate_step: Step | None,
    to_candidate: Adapter,
    to_reference: Adapter,
    state: Any,
    inputs: Callable[[int], Any],
    *,
    updates: int,
    until: Callable[[Any], bool],
    callback: Callable[..., None],
    draws: int = NUM_NUDGES,
) -> FreeRun:
    """The reference, itself nudged after every update, and a candidate if there is one."""
    dtype = states.run_precision(state)
    take = _in_torch(reference_step, dtype)
    leading = Done(states.replaced(state, {}), {})
    nudged = [_nudged_run(take, state, np.random.default_rng(draw)) for draw in range(draws)]
    candidate = None
    if candidate_step is not None:
        start = _in_x64(to_candidate, dtype)(states.replaced(state, {}))
        there_and_back = _in_x64(to_reference, dtype)(start)
        require_same_state(states.leaves(state), states.leaves(there_and_back))
        candidate = Follower(start, _in_jax(candidate_step, dtype), _in_x64(to_reference, dtype))
    done, is_explained, moved = 0, True, False
    for done in range(1, updates + 1):
        given = inputs(done - 1)
        before = states.leaves(leading.state)  # copies: the step may work in place
        leading = take(leading.state, _rounded(given, dtype))
        moved |= states.first_difference(before, states.leaves(leading.state)) is not None
        for follower in nudged:
            follower.step(_rounded(given, dtype), leading)
        found = None
        if candidate is not None:
            found = candidate.step(_rounded(given, dtype), leading)
            if candidate.parted == done:
                is_explained = _is_explained(candidate, take, inputs, done, dtype)
        callback(done, leading.outputs, found)
        if until(leading.outputs):
            break
    require_moved(moved)
    distances = Distances(
        None if candidate is None else np.array(candidate.distances),
        np.array([run.distances for run in nudged]),
        None if candidate is None else candidate.parted,
        tuple(run.parted for run in nudged),
    )
    return FreeRun(dtype, done, distances, is_explained)


def distance(state: Any, model: Any) -> float:
    """‖a − b‖ / ‖b‖ over the parameters; over all of a state that has no entry `params`."""
    found = states.leaves(parameters(state), "float64")
    expected = states.leaves(parameters(model), "float64")
    shapes = ({name: x.shape for name, x in each.items()} for each in (found, expected))
    accepted = f"those of the reference's: {', '.join(expected)}, of the same shapes"
    require(next(shapes) == next(shapes), "arrays of to_reference's state", [*found], accepted)
    floating = [name for name, array in expected.items() if is_floating(array)]
    with np.errstate(invalid="ignore", over="ignore"):
        apart = sum(
            float(np.sum((found[n].astype(np.float64) - expected[n]) ** 2)) for n in floating
        )
        size = sum(float(np.sum(expected[n].astype(np.float64) ** 2)) for n in floating)
    if not np.isfinite(apart + size):
        return np.inf
    return float(np.sqrt(apart / size)) if size > 0 else float(np.sqrt(apart))


def parameters(state: Any) -> Any:
    """A state's entry `params`, or all of it."""
    if isinstance(state, Mapping):
        return state.get("params", state)
    return getattr(state, "params", state) if hasattr(state, "_fields") else state


def decisions(done: Done) -> dict[str, np.ndarray]:
    """What is no floating number among the outputs and in the new state."""
    found = states.leaves({**done.outputs, f"new {UPDATE}": done.state}, "float64")
    return {name: array for name, array in found.items() if not is_floating(array)}


def decides_otherwise(found: Mapping[str, np.ndarray], model: Mapping[str, np.ndarray]) -> bool:
    """Whether a decision (an action, a mask, a count) differs."""
    return any(not _equal(found.get(name), array) for name, array in model.items())


def _is_explained(
    candidate: Follower, take: Callable[[Any, Any], Done], inputs: Any, update: int, dtype: str
) -> bool:
    """Whether the reference decides as the candidate did, if it starts where that stood.

    Each decision as it is there, or as it is with an ulp more or less: a score as near to another
    as rounding may fall either way.
    """

    def decided(state: Any) -> dict[str, np.ndarray]:
        return decisions(take(state, _rounded(inputs(update - 1), dtype)))

    there, found = decided(states.replaced(candidate.before, {})), candidate.decided
    if not decides_otherwise(found, there):
        return True
    open_ = {name: found[name] != x for name, x in there.items() if _same_shape(found.get(name), x)}
    if len(open_) < len(there):
        return False
    arrays = states.leaves(candidate.before)
    for draw in range(NUM_NUDGES):
        nudged = states.one_ulp(arrays, np.random.default_rng(draw))
        near = decided(states.replaced(candidate.before, nudged))
        open_ = {name: differs & (found[name] != near[name]) for name, differs in open_.items()}
    return not any(differs.any() for differs in open_.values())


def _equal(found: np.ndarray | None, model: np.ndarray) -> bool:
    return found is not None and np.array_equal(found, model)


def _same_shape(found: np.ndarray | None, model: np.ndarray) -> bool:
    return found is not None and found.shape == model.shape


def _in_torch(step: Step, dtype: str) -> Callable[[Any, Any], Done]:
    def take(state: Any, inputs: Any) -> Done:
        with sides.arithmetic(flush=dtype == "float32"):
            return divided(step(state, states.in_torch(inputs)), state, "reference_step")

    return take


def _nudged_run(take: Callable[[Any, Any], Done], state: Any, rng: np.random.Generator) -> Follower:
    """The reference with every floating number of each state, the first too, moved by one ulp."""

    def nudged(state: Any) -> Any:
        return states.replaced(state, states.one_ulp(states.leaves(state), rng))

    def step(state: Any, inputs: Any) -> Done:
        following, outputs = take(state, inputs)
        return Done(nudged(following), outputs)

    return Follower(nudged(state), step, lambda following: following)


def _in_jax(step: Step, dtype: str) -> Callable[[Any, Any], Done]:
    import jax

    def take(state: Any, inputs: Any) -> Done:
        with sides.x64(dtype == "float64"):
            # A callback of the step, an environment's say, is to end in this precision too.
            result = jax.block_until_ready(step(state, states.in_jax(inputs)))
            return divided(result, state, "candidate_step")

    return take


def _in_x64(adapter: Adapter, dtype: str) -> Adapter:
    def adapted(state: Any) -> Any:
        with sides.x64(dtype == "float64"):
            return adapter(state)

    return adapted


def _rounded(inputs: Any, dtype: str) -> Any:
    """A copy of the inputs in the precision of the run."""
    return states.replaced(inputs, cast(states.leaves(inputs), np.dtype(dtype).type))
