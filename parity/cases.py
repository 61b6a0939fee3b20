"""One comparison in every way of running it: what `check` and each stage of a pipeline are made of.

The sides here are callables that are fed by `parity.sides`: from arrays by path, as keywords.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from parity import sides
from parity.arrays import is_number
from parity.repeats import repeatable
from parity.tolerance import Arrays, Comparison, Function, Mismatch, Verdict, compare
from pgcore.errors import UsageError

RAISED_BY_REFERENCE = "raised by the reference"
"""A note on an error, by which a report tells whose it is; a traceback shows it too."""


class Values:
    """The values of a candidate against a reference, eager, jitted and vmapped.

    A comparison is called `{stage}, {how}`; `options` are those of `tolerance.compare`. A side that
    gives another result for the same inputs is a `UsageError`.
    """

    def __init__(
        self,
        reference: Callable[..., Any],
        candidate: Callable[..., Any],
        arrays: Arrays,
        *,
        stage: str = "values",
        **options: Any,
    ) -> None:
        self._of = "" if stage == "values" else f" of stage {stage!r}"
        self.reference = repeatable(
            of_reference(sides.torch_values(reference)), f"reference{self._of}"
        )
        self._candidate = candidate
        self._jitted = sides.jax_values(candidate)
        self._arrays = dict(arrays)
        self._stage = stage
        self._options = {
            "sensitivity": sides.torch_sensitivity(reference),
            "roundings": sides.torch_roundings(self.reference),
            **options,
        }

    def eager(self, oracle: Callable[..., Any] | None = None) -> Comparison:
        """Raises what the candidate raises. The oracle is called as the reference is."""
        third = None if oracle is None else repeatable(numpy_side(oracle), f"oracle{self._of}")
        side = repeatable(sides.jax_values(self._candidate, jit=False), f"candidate{self._of}")
        return self._judge("eager", side, self._arrays, oracle=third)

    def jitted(self, arrays: Arrays | None = None) -> Comparison:
        """At the given inputs, or at others of these shapes, which compile nothing anew."""
        inputs = self._arrays if arrays is None else arrays
        return reported(
            f"{self._stage}, jitted", lambda: self._judge("jitted", self._jitted, inputs)
        )

    def vmapped(self) -> Comparison:
        """Three input sets in one `vmap`, each held against the reference at that set alone."""
        stage = f"vmapped over {sides.NUM_MAPPED} input sets"
        return reported(f"{self._stage}, vmapped", lambda: self._vmapped(stage))

    def _judge(self, how: str, side: Function, inputs: Arrays, **options: Any) -> Comparison:
        stage = f"{self._stage}, {how}"
        return compare(self.reference, side, inputs, stage=stage, **(self._options | options))

    def _vmapped(self, how: str) -> Comparison:
        sets = sides.input_sets(self._arrays)
        outputs = sides.jax_mapped(self._candidate)(sets)
        given = self._options.get("expect_nonfinite", ())
        found = [
            self._judge(
                how,
                lambda _, index=index: {leaf: array[index] for leaf, array in outputs.items()},
                each,
                precisions=("float64",),
                # The other sets are not the caller's: √(1 − x) at 1 is NaN for an x beside it.
                expect_nonfinite=given if index == 0 else [*outputs],
            )
            for index, each in enumerate(sets)
        ]
        return joined(f"{self._stage}, {how}", found)


def gradients(
    reference: Callable[..., Any],
    candidate: Callable[..., Any],
    arrays: Arrays,
    *,
    wrt: Collection[str] | None = None,
    stage: str = "gradients",
    oracle: Function | None = None,
    **options: Any,
) -> list[Comparison]:
    """Gradients in the inputs `wrt`, the candidate eager and jitted; cotangents are in `arrays`."""
    side = of_reference(sides.torch_gradients(reference, wrt))
    return [
        reported(
            f"{stage}, {how}",
            lambda how=how, jit=jit: compare(
                side,
                sides.jax_gradients(candidate, wrt, jit=jit),
                arrays,
                stage=f"{stage}, {how}",
                roundings=sides.torch_roundings(side),
                oracle=None if jit else oracle,
                **options,
            ),
        )
        for how, jit in (("eager", False), ("jitted", True))
    ]


def reported(stage: str, comparison: Callable[[], Comparison]) -> Comparison:
    """The comparison, or, where a side can't be run so, what it raised."""
    try:
        return comparison()
    except UsageError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        mine = RAISED_BY_REFERENCE in getattr(error, "__notes__", ())
        said = (reason, "runs") if mine else ("runs", reason)
        return unlike(stage, "all", "any precision", *said)


def of_reference(function: Callable[..., Any], notes: Collection[str] = ()) -> Callable[..., Any]:
    """The function, whose errors are known as the reference's, with what else may explain them."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            for note in (RAISED_BY_REFERENCE, *notes):
                if note not in getattr(error, "__notes__", ()):
                    error.add_note(note)
            raise

    return call


def unlike(stage: str, leaf: str, dtype: str, reference: str, candidate: str) -> Comparison:
    """A failed comparison of what can't be compared, with a sentence for each side."""
    mismatch = Mismatch(stage, leaf, (), reference, candidate, None, math.inf, 0.0, dtype)
    return Comparison(stage, [mismatch], [Verdict(leaf, dtype, "candidate", math.inf, 0.0, "form")])


def joined(stage: str, comparisons: Collection[Comparison]) -> Comparison:
    """Several comparisons as one; the mismatches keep the names of their own stages."""
    return Comparison(
        stage,
        [mismatch for each in comparisons for mismatch in each.mismatches],
        [verdict for each in comparisons for verdict in each.verdicts],
    )


def numpy_side(function: Callable[..., Any]) -> Function:
    """A NumPy callable as a side."""
    return lambda inputs: {
        leaf: value if is_number(value) else np.asarray(value)
        for leaf, value in sides.flat(function(**sides.nested(inputs))).items()
    }


def only(function: Callable[..., Any], leaves: Collection[str]) -> Callable[..., Any]:
    """The function with these of its outputs alone."""

    def call(**tree: Any) -> dict[str, Any]:
        outputs = sides.flat(function(**tree))
        return {leaf: outputs[leaf] for leaf in leaves}

    return call
