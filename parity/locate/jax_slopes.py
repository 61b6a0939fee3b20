"""The slopes of a recorded JAX program: backwards, one step after the other.

Each step is differentiated by JAX itself, so that a custom derivative's rule is used where there is
one. What each use adds to a value's slope is kept, since a wrong one is a wrong use.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from parity.jax_side import x64
from parity.locate.jax_tape import CUSTOM, Program
from parity.locate.places import Location, is_own, line_of
from parity.locate.reruns import Step

OFTEN = 3
"""The derivative of a step that is taken more often is compiled."""

Compiled = dict[Any, tuple[int, Any]]
"""How often a step's derivative was taken, and its program, by what the step computes."""


class Use(NamedTuple):
    """What one use of a value adds to its slope.

    `step` is the place of the step among the program's, `output` that of the first value it made.
    """

    step: int
    output: int
    slope: np.ndarray


class JaxSlopes(NamedTuple):
    """The slopes of a program's values, by place.

    Attributes:
        total: Of each floating value; zeros where nothing flows.
        uses: What each use adds to it.
        alive: The values from which slopes reach one of the inputs asked for.
    """

    total: dict[int, np.ndarray]
    uses: dict[int, list[Use]]
    alive: set[int]


def slopes(
    program: Program,
    seeds: Mapping[int, np.ndarray],
    wrt: list[int],
    compiled: Compiled,
    *,
    held: bool = False,
    opened: Collection[int] = (),
) -> JaxSlopes:
    """The slopes of Σ seed · value in every value that led to these, the seeds by place.

    If they are `held`, nothing is added to a seed: it is what the slope there is to be. The stops
    that made `opened` places stop nothing.
    """
    import jax.numpy as jnp

    total: dict[int, Any] = {}
    uses: dict[int, list[Use]] = {}
    with x64(True):
        for place, seed in seeds.items():
            total[place] = jnp.array(seed, dtype=program.values[place].dtype)
        for number in range(len(program.steps) - 1, -1, -1):
            step = program.steps[number]
            if not any(place in total for place in step.outputs):
                continue
            is_open = step.outputs[0] in opened
            through = (
                [(step.inputs[0], total[step.outputs[0]])]
                if is_open
                else _through(program, step, total, compiled)
            )
            for operand, slope in through:
                if held and operand in seeds:
                    continue
                array = np.asarray(slope)
                uses.setdefault(operand, []).append(Use(number, step.outputs[0], array))
                total[operand] = total[operand] + slope if operand in total else slope
    arrays = {place: np.asarray(slope) for place, slope in total.items()}
    return JaxSlopes(arrays, uses, _alive(program, wrt))


def rule_values(
    program: Program, use: Use, slopes: Mapping[int, np.ndarray]
) -> list[tuple[Location, np.ndarray]]:
    """What a custom derivative computed for one use, by line; nothing of any other step.

    JAX gives what a rule computes the line of the call, so the rule's own variables are looked at,
    line by line, while it runs.
    """
    import jax
    import jax.numpy as jnp

    step = program.steps[use.step]
    if step.name not in CUSTOM:
        return []
    floats, outputs = _floating(program, step)
    with x64(True):
        operands = [program.values[place] for place in step.inputs]
        seeds = [jnp.array(slopes[step.outputs[i]]) for i in outputs]
        function = _of_floats(step, floats, outputs, operands)
        _, pull = jax.vjp(function, *(operands[i] for i in floats))
        with _watched() as found:
            pull(seeds)
    return found


def _is_concrete(value: Any) -> bool:
    import jax
    from jax.core import Tracer

    return isinstance(value, jax.Array) and not isinstance(value, Tracer)


@contextmanager
def _watched() -> Iterator[list[tuple[Location, np.ndarray]]]:
    """While open, the arrays that a person's lines assign or return, as they do."""
    found: list[tuple[Location, np.ndarray]] = []
    last: dict[Any, tuple[int, set[int]]] = {}

    def note(frame: Any, values: list[Any]) -> None:
        line, known = last.get(frame, (frame.f_lineno, set()))
        for value in values:
            if id(value) not in known and _is_concrete(value):
                found.append((line_of(frame.f_code, line), np.asarray(value)))
        last[frame] = (frame.f_lineno, known | {*map(id, values)})

    def inside(frame: Any, event: str, argument: Any) -> Any:
        import jax

        note(frame, [*frame.f_locals.values()])
        if event == "return":
            note(frame, jax.tree.leaves(argument))
        return inside

    def entered(frame: Any, event: str, argument: Any) -> Any:
        if not is_own(frame.f_code):
            return None
        last[frame] = (frame.f_lineno, {*map(id, frame.f_locals.values())})
        return inside

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        yield found
    finally:
        sys.settrace(before)


def _alive(program: Program, wrt: list[int]) -> set[int]:
    """The values that slopes flow through on their way to the inputs."""
    alive = set(wrt)
    for step in program.steps:
        if step.name != "stop_gradient" and any(each in alive for each in step.inputs):
            alive |= {place for place in step.outputs if _floats(program.values[place])}
    return alive


def _through(
    program: Program, step: Step, total: Mapping[int, Any], compiled: Compiled
) -> list[tuple[int, Any]]:
    """What a step's outputs add to the slopes of its operands."""
    import jax
    import jax.numpy as jnp

    floats, outputs = _floating(program, step)
    if not floats or step.name == "stop_gradient":
        return []
    if step.back is not None:
        slope = np.asarray(total[step.outputs[0]])
        return [*zip(step.inputs, step.back(slope), strict=True)] if outputs else []
    operands = [program.values[place] for place in step.inputs]
    seeds = [
        total.get(step.outputs[i], jnp.zeros_like(program.values[step.outputs[i]])) for i in outputs
    ]
    key = _computed(step, operands)
    count, function = compiled.get(key, (0, None))
    if step.equation is not None and count == OFTEN:
        function = jax.jit(_backwards(step, floats, outputs))
    compiled[key] = (count + 1, function)
    found = (function or _backwards(step, floats, outputs))(operands, seeds)
    return [(step.inputs[i], slope) for i, slope in zip(floats, found, strict=True)]


def _computed(step: Step, operands: Sequence[Any]) -> Any:
    """What is the same of steps that compute the same of other numbers."""
    params = {} if step.equation is None else step.equation.params
    if not all(isinstance(each, PLAIN) for each in params.values()):
        return id(step.equation)
    shapes = tuple((each.shape, str(each.dtype)) for each in operands)
    return step.name, repr(params), shapes


PLAIN = (int, float, bool, str, tuple, type(None), np.dtype)
"""Of what a primitive's parameters are, if they hold no program."""


def _backwards(step: Step, floats: list[int], outputs: list[int]) -> Callable[..., Any]:
    """From a step's operands and its outputs' slopes to the slopes of the floating operands."""
    import jax

    def backwards(operands: list[Any], seeds: list[Any]) -> Any:
        function = _of_floats(step, floats, outputs, operands)
        return jax.vjp(function, *(operands[i] for i in floats))[1](seeds)

    return backwards


def _of_floats(
    step: Step, floats: list[int], outputs: list[int], operands: list[Any]
) -> Callable[..., list[Any]]:
    """A step as a function of its floating operands to its floating outputs."""

    def of_floats(*arrays: Any) -> list[Any]:
        given = list(operands)
        for i, array in zip(floats, arrays, strict=True):
            given[i] = array
        returned = step.call(*given)
        every = list(returned) if isinstance(returned, list | tuple) else [returned]
        return [every[i] for i in outputs]

    return of_floats


def _floating(program: Program, step: Step) -> tuple[list[int], list[int]]:
    """Which operands and outputs of a step have slopes."""
    floats = [i for i, place in enumerate(step.inputs) if _floats(program.values[place])]
    outputs = [i for i, place in enumerate(step.outputs) if _floats(program.values[place])]
    return floats, outputs


def _floats(array: Any) -> bool:
    return getattr(getattr(array, "dtype", None), "kind", "") in ("f", "c")
