"""One stage of a pipeline: its values compared, and its output fed to those that follow."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from parity import cases, sides
from parity.arrays import outputs_of
from parity.deciding import decided_by
from parity.pipeline.feed import SIDES, Feed, Recorded, parameters
from parity.tolerance import Comparison, Decider, Function
from pgcore.errors import UsageError, unknown_choice

Stages = Mapping[str, Callable[..., Any]]

STATE = ("gradient", "gradients", "m", "v")
"""Zeros in these are exact: of units without a slope, and of a fresh optimizer."""


class Pass:
    """The comparisons of a pipeline, by stage, as they are made.

    Attributes:
        found: Comparisons by stage, in order; their mismatches say how the candidate was run.
        notes: What a reader should know beside them.
    """

    def __init__(
        self,
        feed: Feed,
        reference: Stages,
        candidate: Stages,
        oracle: Stages,
        deciders: Stages,
        expect_nonfinite: Collection[str],
    ) -> None:
        self.feed = feed
        self.functions = {
            "reference": dict(reference),
            "candidate": {stage: _foreign(function) for stage, function in candidate.items()},
        }
        self.oracle = oracle
        self.found: dict[str, list[Comparison]] = {}
        self.notes: list[str] = []
        self._values: dict[str, tuple[cases.Values, dict[str, Any]]] = {}
        self._deciders = deciders
        self._expect_nonfinite = expect_nonfinite

    def stage(self, stage: str) -> None:
        """Compares an ordinary stage, and feeds what the reference gave."""
        outputs, structures = self.compare(stage)
        self.feed.put(stage, structures, outputs)

    def compare(
        self, stage: str, changed: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Compares a stage; returns the reference's outputs, and each side's structure.

        `changed` has other inputs for it, by name.
        """
        names = {side: self.feed.take(side, stage, self.functions[side][stage]) for side in SIDES}
        both = [*dict.fromkeys([*names["reference"], *names["candidate"]])]
        arrays = self.feed.arrays(both) | _those(changed, both)
        calls = {
            side: Recorded(self.feed.call(side, self.functions[side][stage], names[side]))
            for side in SIDES
        }
        outputs = run_reference(stage, sides.torch_values(calls["reference"]), arrays)
        options = {
            "deciders": self._deciders_of(stage, outputs, arrays),
            "expect_nonfinite": self._nonfinite_of(stage, outputs),
        }
        oracle = self.oracle_of(stage)
        structures = self.values(stage, calls, arrays, oracle=oracle, **options)
        return outputs, structures

    def values(
        self,
        stage: str,
        calls: Mapping[str, Recorded],
        arrays: dict[str, Any],
        oracle: Callable[..., Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Compares two callables in every way of running them; returns their structures."""
        values = cases.Values(
            calls["reference"],
            calls["candidate"],
            arrays,
            stage=stage,
            exact_zeros=STATE,
            **options,
        )

        def eager() -> Comparison:
            side = sides.jax_values(calls["candidate"], jit=False)
            found, again = outputs_of(side(arrays)), outputs_of(side(arrays))
            require_repeatable(stage, "candidate", found, again)
            return values.eager(oracle)

        self.add(stage, cases.reported(f"{stage}, eager", eager))
        structures = _structures(calls)
        self.add(stage, values.jitted(), values.vmapped())
        self._values[stage] = values, arrays
        return structures

    def jitted(
        self, stage: str, calls: Mapping[str, Callable[..., Any]], arrays: dict[str, Any]
    ) -> None:
        """Compares two callables, the candidate jitted alone; `update, so` is under `update`."""
        values = cases.Values(
            calls["reference"], calls["candidate"], arrays, stage=stage, exact_zeros=STATE
        )
        run_reference(stage, values.reference, arrays)
        found = values.jitted()._replace(stage=stage)
        named = [mismatch._replace(stage=stage) for mismatch in found.mismatches]
        under = stage.partition(",")[0]
        self.found.setdefault(under, []).append(found._replace(mismatches=named))

    def again(self, stage: str, how: str, changed: Mapping[str, Any]) -> None:
        """Compares a stage at other inputs, by name, where it is given these; jitted alone."""
        values, arrays = self._values[stage]
        inputs = arrays | _those(changed, {path.partition("/")[0] for path in arrays})
        comparison = values.jitted(inputs)
        title = f"{stage}, {how}"
        named = [mismatch._replace(stage=title) for mismatch in comparison.mismatches]
        self.found[stage].append(comparison._replace(stage=title, mismatches=named))

    def add(self, stage: str, *comparisons: Comparison) -> None:
        """Notes comparisons under a stage; an eager run is called as the stage is."""
        for each in comparisons:
            how = each.stage.removeprefix(stage).removeprefix(", ")
            title = stage if how in ("", "eager") else f"{stage}, {how}"
            named = [mismatch._replace(stage=title) for mismatch in each.mismatches]
            self.found.setdefault(stage, []).append(each._replace(stage=title, mismatches=named))

    def oracle_of(self, stage: str) -> Callable[..., Any] | None:
        """A stage's oracle, given what it takes by name from all that is known."""
        if stage not in self.oracle:
            return None
        names = parameters(
            self.oracle[stage], self.feed.trees["reference"], f"the oracle of {stage!r}"
        )
        held = self.feed.arrays(names)
        call = self.feed.call("reference", self.oracle[stage], names)
        # What it takes and the stage does not is not among the stage's inputs.
        return lambda **tree: call(**sides.nested({**held, **sides.flat(tree)}))

    def _deciders_of(
        self, stage: str, outputs: Mapping[str, np.ndarray], arrays: dict[str, Any]
    ) -> dict[str, Decider]:
        if stage not in self._deciders:
            return {}
        function = self._deciders[stage]
        names = parameters(function, self.feed.trees["reference"], f"the decider of {stage!r}")
        arrays.update({**self.feed.arrays(names), **arrays})
        call = self.feed.call("reference", function, names)
        scores = run_reference(f"decider of {stage}", sides.torch_values(call), arrays)
        found = {}
        for leaf, by in decided_by(f"deciders[{stage!r}]", scores, outputs).items():
            side = sides.torch_values(_only(call, by))
            found[leaf] = Decider(side, sides.torch_roundings(side))
        return found

    def _nonfinite_of(self, stage: str, outputs: Mapping[str, np.ndarray]) -> list[str]:
        asked = [each for each in self._expect_nonfinite if each.partition("/")[0] == stage]
        for each in asked:
            leaf = each.partition("/")[2]
            if leaf and leaf not in outputs:
                known = [f"{stage}/{name}" for name in outputs]
                raise unknown_choice("expect_nonfinite", each, [stage, *known])
        return [*outputs] if stage in asked else [each.partition("/")[2] for each in asked]


def run_reference(stage: str, side: Function, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The float64 reference's outputs.

    Raises:
        UsageError: It raises, returns no arrays, or gives others when it is called again.
    """
    try:
        outputs, again = outputs_of(side(arrays)), outputs_of(side(arrays))
    except Exception as error:
        raise UsageError(
            f"stage {stage!r} of the reference raised {type(error).__name__}: {error}; accepted "
            "is one that runs in float64 on what it is given"
        ) from error
    for leaf, array in outputs.items():
        if array.dtype == object:
            raise UsageError(
                f"stage {stage!r} of the reference returns {leaf} of type "
                f"{type(array.item()).__name__}, accepted are arrays, numbers and trees of them"
            )
    require_repeatable(stage, "reference", outputs, again)
    return outputs


def require_repeatable(
    stage: str, side: str, outputs: Mapping[str, np.ndarray], again: Mapping[str, np.ndarray]
) -> None:
    """Raises a `UsageError` if two runs on the same inputs differ: randomness must be an input."""
    for leaf, array in outputs.items():
        same = leaf in again and _same(array, again[leaf])
        if not same:
            raise UsageError(
                f"stage {stage!r} of the {side} gives another {leaf} when it is called again, "
                "accepted is one that draws nothing: pass the noise as an input"
            )


def _structures(calls: Mapping[str, Recorded]) -> dict[str, Any]:
    """Each side's own structure; the reference's for a candidate that has other leaves."""
    found = {side: call.structure for side, call in calls.items()}
    if {*sides.flat(found["candidate"])} != {*sides.flat(found["reference"])}:
        found["candidate"] = found["reference"]
    return found


def _those(trees: Mapping[str, Any] | None, names: Collection[str]) -> dict[str, Any]:
    return sides.flat({name: tree for name, tree in (trees or {}).items() if name in names})


def _foreign(function: Callable[..., Any]) -> Callable[..., Any]:
    """The candidate's callable; a usage error inside it is its own, not that of the pipeline."""

    def call(**arguments: Any) -> Any:
        try:
            return function(**arguments)
        except UsageError as error:
            raise RuntimeError(str(error)) from error

    call.__wrapped__ = function  # pyright: ignore[reportFunctionMemberAccess]
    return call


def _only(function: Callable[..., Any], leaf: str) -> Callable[..., Any]:
    return lambda **tree: {leaf: sides.flat(function(**tree))[leaf]}


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    is_floating = np.issubdtype(a.dtype, np.floating)
    return np.array_equal(a, b, equal_nan=bool(is_floating))
