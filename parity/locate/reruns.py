"""A recorded program that is run again from any value on, with values or operations changed."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity.locate.in_numpy import Function, in_numpy
from parity.yardstick import UNIT_ROUNDOFF

ALIKE = 2**12 * UNIT_ROUNDOFF["float64"]
"""How near, relatively, NumPy must come to what JAX made of the recorded operands: what a sum of so
many terms may round otherwise in another order."""


class Step(NamedTuple):
    """One primitive as it ran: what it is, and where its operands and results are.

    `back`, of what a loop takes and gives, takes its result's slope to its operands'.
    """

    call: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str
    equation: Any = None
    back: Callable[[np.ndarray], list[np.ndarray]] | None = None


class Edit(NamedTuple):
    """How a step is to run otherwise.

    Attributes:
        given: By an operand's place what it is given instead, made of values by their places.
        then: What is to be made of its result.
        needs: The places of the values that it is made of.
        call: What is to run in its place.
    """

    given: Mapping[int, Callable[[Callable[[int], Any]], Any]]
    then: Callable[[Any], Any] | None = None
    needs: tuple[int, ...] = ()
    call: Callable[..., Any] | None = None


class Reruns:
    """A run as a list of steps, and the values of all of them, by place."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.values: list[Any] = []
        self.arrays: list[Any] = []
        """The same values as NumPy has them; keys of random numbers as they are."""
        self._paths: dict[tuple[int, ...], list[Step]] = {}
        self._functions: dict[int, Function | None] = {}
        self._makers: dict[int, int] = {}

    def again(self, changed: Mapping[int, Any], wanted: int) -> Any:
        """A value as it comes out once others are changed; `None` if it does not depend on them."""
        return self.again_all(changed, (wanted,))[0]

    def again_all(self, changed: Mapping[int, Any], wanted: tuple[int, ...]) -> list[Any]:
        """Several values as they come out once others are changed, in one go."""
        new: dict[int, Any] = dict(changed)
        for step in self._leading(wanted):
            if any(each in new for each in step.inputs):
                outputs = self.run_step(step, (new.get(p, self.arrays[p]) for p in step.inputs))
                for place, output in zip(step.outputs, outputs, strict=True):
                    new.setdefault(place, output)
        return [new.get(each) for each in wanted]

    def again_inside(self, changed: Mapping[int, Any], inside: Collection[int], wanted: int) -> Any:
        """The same, where only the steps that make these values are given what is changed."""
        new: dict[int, Any] = {}
        for step in self._leading((wanted,)):
            given = {**new, **changed} if step.outputs[0] in inside else new
            if any(each in given for each in step.inputs):
                outputs = self.run_step(step, (given.get(p, self.arrays[p]) for p in step.inputs))
                new |= zip(step.outputs, outputs, strict=True)
        return new.get(wanted)

    def again_edited(self, edits: Mapping[int, Edit], wanted: tuple[int, ...]) -> list[Any]:
        """Some values as they come out where the steps that make others run otherwise."""
        new: dict[int, Any] = {}

        def value(place: int) -> Any:
            return new.get(place, self.arrays[place])

        needs = {place for edit in edits.values() for place in edit.needs}
        for step in self._leading((*wanted, *sorted(needs))):
            edit = edits.get(step.outputs[0])
            if edit is None and not any(each in new for each in step.inputs):
                continue
            given = edit.given if edit else {}
            operands = (given[p](value) if p in given else value(p) for p in step.inputs)
            if edit is not None and edit.call is not None:
                outputs = [edit.call(*operands)]
            else:
                outputs = self.run_step(step, operands)
            if edit is not None and edit.then is not None:
                outputs = [edit.then(output) for output in outputs]
            new |= zip(step.outputs, outputs, strict=True)
        return [new.get(place) for place in wanted]

    def run_step(self, step: Step, operands: Iterable[Any]) -> list[Any]:
        """What a step makes of other operands; those of NumPy's are left as they are."""
        function = self._function(step)
        with np.errstate(all="ignore"):
            if function is not None:
                return _listed(function(*operands))
            return [_as_numpy(each) for each in _listed(step.call(*operands))]

    def step_of(self, place: int) -> Step:
        """The step that made a value."""
        if not self._makers:
            self._makers = {i: number for number, s in enumerate(self.steps) for i in s.outputs}
        return self.steps[self._makers[place]]

    def _function(self, step: Step) -> Function | None:
        """A step in NumPy, if that makes of the recorded operands what JAX did."""
        key = step.outputs[0] if step.equation is None else -1 - id(step.equation)
        if key not in self._functions:
            function = _of_loops(step)
            if function is None and step.equation is not None:
                function = in_numpy(step.name, step.equation.params)
            if function is not None and not self._is_alike(step, function):
                function = None
            self._functions[key] = function
        return self._functions[key]

    def _is_alike(self, step: Step, function: Function) -> bool:
        known = [self.arrays[place] for place in step.outputs]
        try:
            with np.errstate(all="ignore"):
                made = _listed(function(*(self.arrays[place] for place in step.inputs)))
        except (TypeError, ValueError, AttributeError, IndexError):
            return False
        return len(made) == len(known) and all(map(_is_near, made, known))

    def _leading(self, wanted: tuple[int, ...]) -> list[Step]:
        """The steps that lead to some values, in order."""
        if wanted not in self._paths:
            needed, found = {*wanted}, []
            for step in reversed(self.steps):
                if any(each in needed for each in step.outputs):
                    needed |= {*step.inputs}
                    found.append(step)
            self._paths[wanted] = found[::-1]
        return self._paths[wanted]


def _of_loops(step: Step) -> Function | None:
    """What a loop takes in each turn is an item of an array, what it gives are rows."""
    if step.name == "scan input":
        return step.call
    if step.name == "scan output" and step.inputs:
        return lambda *rows: np.stack(rows)
    return None


def _listed(returned: Any) -> list[Any]:
    return [*returned] if isinstance(returned, list | tuple) else [returned]


def _as_numpy(value: Any) -> Any:
    try:
        return np.asarray(value)
    except TypeError:  # a key of random numbers, a token
        return value


def _is_near(made: Any, known: Any) -> bool:
    made = np.asarray(made)
    if made.shape != known.shape or made.dtype != known.dtype:
        return False
    if known.dtype.kind != "f":
        return bool(np.array_equal(made, known))
    scale = float(np.abs(known[np.isfinite(known)]).max(initial=0.0))
    return bool(np.allclose(made, known, rtol=ALIKE, atol=ALIKE * scale, equal_nan=True))
