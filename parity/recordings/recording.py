"""What a recording holds."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from parity.locate.places import Location
from parity.recordings.leaves import Leaf, paths
from parity.tape import Noise, NoiseTape
from parity.yardstick import Bound


class Ties(NamedTuple):
    """Where a rounding on the way decides in the reference, and between what."""

    at: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Decided(NamedTuple):
    """What a discrete output was decided by in the reference.

    Attributes:
        scores: Of the output's shape and a last axis more, of which the largest wins; or of its
            shape, the distance to a threshold.
        bounds: What the rule allows to them, by precision.
    """

    scores: np.ndarray
    bounds: Mapping[str, Bound]


class Output(NamedTuple):
    """One output array of a stage.

    Attributes:
        runs: What came out, by the precision of the run: both of a function, one of a bare array.
        bounds: What the rule allows in each precision, where it was measured.
        ties: Entries that may be one or the other in float64, if there are any.
        decided: Of a discrete output, what decided it, if that was recorded.
    """

    runs: dict[str, Leaf]
    bounds: Mapping[str, Bound] = MappingProxyType({})
    ties: Ties | None = None
    decided: Decided | None = None


class Stage(NamedTuple):
    """One step of a computation.

    Attributes:
        name: What reports call it.
        outputs: By path; a lone output is `value`.
        place: The line that recorded it, or the function's.
        framework: What ran the function; `None` for arrays that were just handed over.
        inputs: What the function was given: a tree of arrays and plain numbers.
        cotangents: Of a gradient, the weight of each output.
        wrt: Of a gradient, the inputs that it is taken in, by path.
        notes: What a reader should know.
        kinds: Of a module with weights by torch's names, the kinds of its layers that are known,
            as in `parity.convert`.
    """

    name: str
    outputs: dict[str, Output]
    place: Location
    framework: str | None = None
    inputs: dict[str, Any] | None = None
    cotangents: dict[str, np.ndarray] | None = None
    wrt: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    kinds: Mapping[str, str] | None = None

    @property
    def function(self) -> str:
        """The stage whose function this is the gradient of, or this one."""
        return self.name if self.wrt is None else self.name.removesuffix(GRADIENT)


GRADIENT = " gradient"
"""What a stage's gradient is called after it."""


class Recording(NamedTuple):
    """What one side computed, and from what.

    Attributes:
        path: The file.
        inputs: What all of it was computed from: a tree of arrays and plain numbers.
        dtypes: The dtype of each array in `inputs`, by path: bfloat16 ones are float32 in NumPy.
        noise: The tape, or the noise of one update.
        stages: By name, in order.
        surroundings: Versions, the platform and the settings, as plain values.
    """

    path: Path
    inputs: dict[str, Any]
    dtypes: dict[str, str]
    noise: NoiseTape | Noise | None
    stages: dict[str, Stage]
    surroundings: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> "Recording":
        """Reads what `parity.record` wrote, here or on another machine. No code is run.

        Raises:
            UsageError: The file is missing, damaged, no recording, or of a newer schema.
        """
        from parity.recordings.schema import loaded

        return loaded(Path(path))

    def __str__(self) -> str:
        versions = self.surroundings["versions"]
        known = ", ".join(f"{name} {versions[name]}" for name in SHOWN if name in versions)
        lines = [f"{self.path}: {len(self.stages)} stages", f"  {known}"]
        lines += [f"  {name}: {value}" for name, value in self.surroundings["settings"].items()]
        if self.inputs:
            lines.append("inputs")
            lines += [
                f"  {path}: {_shown(leaf, self.dtypes.get(path))}"
                for path, leaf in paths(self.inputs, "inputs").items()
            ]
        if self.noise is not None:
            lines.append(f"noise: {_of_noise(self.noise)}")
        for stage in self.stages.values():
            lines += _of_stage(stage)
        return "\n".join(lines)


SHOWN = ("policy-gradient-parity", "numpy", "torch", "jax", "jaxlib", "flax", "optax")
"""Packages whose versions a listing has; a recording has all."""


def _shown(leaf: Any, dtype: str | None = None) -> str:
    if isinstance(leaf, np.ndarray):
        return str(Leaf(dtype or leaf.dtype.name, leaf))
    return repr(leaf)


def _of_noise(noise: NoiseTape | Noise) -> str:
    if isinstance(noise, Noise):
        return f"reset {list(noise.reset.shape)}, policy {list(noise.policy.shape)}"
    updates = ", ".join(map(str, noise.stored or ()))
    return f"{noise.agent}, {noise.env_id}, drawn with {noise.recorded_with}, updates {updates}"


def _of_stage(stage: Stage) -> list[str]:
    how = "arrays" if stage.framework is None else f"a function in {stage.framework}"
    lines = [f"{stage.name}: {how}, {stage.place}"]
    for path, output in stage.outputs.items():
        runs = " and ".join(map(str, output.runs.values()))
        allowed = ", ".join(
            f"{bound.value:.2g} in {precision}" for precision, bound in output.bounds.items()
        )
        line = f"  {path}: {runs}{f'; allowed {allowed}' if allowed else ''}"
        if output.decided is not None:
            line += f"; decided by scores {list(output.decided.scores.shape)}"
        lines.append(line)
    return lines
