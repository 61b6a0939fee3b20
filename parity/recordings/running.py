"""A function run in both precisions, and what rounding is worth to it."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from parity import cases, sides
from parity.arrays import cast, entries_that_stay, is_floating
from parity.deciding import decided_by
from parity.inputs import Inputs
from parity.locate.places import Location
from parity.recordings.leaves import leaf_of
from parity.recordings.recording import GRADIENT, Decided, Output, Stage, Ties
from parity.repeats import repeatable
from parity.tolerance import Function, Yardstick
from pgcore.errors import UsageError, require

Framework = Literal["torch", "jax", "numpy"]
"""What a function computes in."""
PRECISIONS = ("float64", "float32")


class Runner(NamedTuple):
    """A function with its inputs, ready to be run.

    Attributes:
        framework: What it computes in.
        given: Its inputs, rounded to float32.
        call: The function, fed from arrays by path.
        called: What errors call it.
        place: Where it is written.
        notes: What a reader should know.
        kinds: As those of a `Stage`.
    """

    framework: Framework
    given: Inputs
    call: Callable[..., Any]
    called: str
    place: Location
    notes: tuple[str, ...] = ()
    kinds: Mapping[str, str] | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs in either precision: float32 holds them all."""
        return self.given.call(dict)(**sides.nested(cast(self.given.arrays, np.float32)))

    def values(
        self, name: str, precisions: Collection[str] = PRECISIONS, *, measured: bool
    ) -> Stage:
        """The function's outputs; `measured`, with what the rule allows to each.

        Raises:
            UsageError: It gives another result each time, or what is no array.
        """
        outputs = _outputs(name, self._of_values(name), precisions, measured=measured)
        return self._stage(name, outputs)

    def deciding(self, values: Stage) -> Stage:
        """A stage with what decided its discrete outputs, which is what this function gives.

        Raises:
            UsageError: It gives another result each time, or nothing that could have decided one.
        """
        field = f"decider of stage {values.name!r}"
        yardstick = self._of_values(values.name)
        exact = {path: output.runs["float64"].array for path, output in values.outputs.items()}
        outputs = dict(values.outputs)
        for path, by in decided_by(field, yardstick.exact, exact).items():
            bounds = {precision: yardstick.bound(by, precision) for precision in PRECISIONS}
            outputs[path] = outputs[path]._replace(decided=Decided(yardstick.exact[by], bounds))
        return values._replace(outputs=outputs)

    def _of_values(self, name: str) -> Yardstick:
        if self.framework == "torch":
            side = sides.torch_values(self.call)
        elif self.framework == "jax":
            side = sides.jax_values(self.call)
        else:
            side = cases.numpy_side(self.call)
        side = repeatable(side, f"{self.called} of stage {name!r}")
        sensitivity = sides.torch_sensitivity(self.call) if self.framework == "torch" else None
        return self._yardstick(side, self.given.arrays, sensitivity)

    def cotangents(self, values: Stage) -> dict[str, np.ndarray]:
        """The weights of the outputs in a gradient, for those that have one."""
        exact = {
            path: output.runs["float64"]
            for path, output in values.outputs.items()
            if output.runs["float64"].is_floating and not output.runs["float64"].is_number
        }
        require(
            bool(exact), f"wrt of stage {values.name!r}", "given", "nothing: no output is floating"
        )
        weights = sides.cotangents({path: leaf.array for path, leaf in exact.items()})
        return {name.removeprefix(sides.COTANGENT): array for name, array in weights.items()} or {
            path: np.ones(()) for path in exact
        }

    def gradient(
        self, name: str, wrt: Collection[str], weights: Mapping[str, np.ndarray], *, measured: bool
    ) -> Stage:
        """The gradient of Σ cotangent · output in the inputs `wrt`.

        Raises:
            UsageError: NumPy functions have none.
        """
        if self.framework == "numpy":
            raise UsageError(
                f"wrt of stage {name.removesuffix(GRADIENT)!r} is {[*wrt]}, and its function is "
                "NumPy's, accepted is a function in torch or jax"
            )
        gradients = sides.torch_gradients if self.framework == "torch" else sides.jax_gradients
        side = gradients(cases.only(self.call, weights), wrt)
        arrays = {
            **self.given.arrays,
            **{f"{sides.COTANGENT}{leaf}": weight for leaf, weight in weights.items()},
        }
        outputs = _outputs(name, self._yardstick(side, arrays), PRECISIONS, measured=measured)
        return self._stage(name, outputs, dict(weights), tuple(wrt))

    def _stage(
        self,
        name: str,
        outputs: dict[str, Output],
        cotangents: dict[str, np.ndarray] | None = None,
        wrt: tuple[str, ...] | None = None,
    ) -> Stage:
        return Stage(
            name,
            outputs,
            self.place,
            self.framework,
            self.inputs,
            cotangents,
            wrt,
            self.notes,
            self.kinds,
        )

    def _yardstick(
        self, side: Function, arrays: dict[str, Any], sensitivity: Any = None
    ) -> Yardstick:
        still = {
            name: entries_that_stay(name, array, {}, ())
            for name, array in arrays.items()
            if is_floating(array)
        }
        roundings = sides.torch_roundings(side) if self.framework == "torch" else None
        return Yardstick(side, arrays, still, sensitivity, roundings)


def _outputs(
    name: str, yardstick: Yardstick, precisions: Collection[str], *, measured: bool
) -> dict[str, Output]:
    runs = {precision: yardstick.outputs(precision) for precision in precisions}
    found: dict[str, Output] = {}
    for path in {path: None for run in runs.values() for path in run}:
        leaves = {
            precision: leaf_of(f"{path!r} of stage {name!r}", run[path])._replace(
                is_number=path in yardstick.numbers
            )
            for precision, run in runs.items()
            if path in run
        }
        is_judged = measured and any(leaf.is_floating for leaf in leaves.values())
        bounds = {p: yardstick.bound(path, p) for p in leaves} if is_judged else {}
        ties = Ties(*yardstick.decided(path)) if is_judged else None
        found[path] = Output(leaves, bounds, ties if ties is not None and ties.at.any() else None)
    require(bool(found), f"what the function of stage {name!r} returns", "nothing", "an array")
    return found
