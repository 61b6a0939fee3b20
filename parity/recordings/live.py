"""Functions of this machine, held against what another recorded, at the inputs that it recorded."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from parity import cases
from parity.convert.layouts import Kinds
from parity.locate.places import Location
from parity.modules import kind
from parity.recordings.functions import Asked, runner, taken, written
from parity.recordings.judging import held
from parity.recordings.recording import Recording, Stage
from parity.recordings.renaming import Renames, renames
from parity.recordings.running import PRECISIONS, Runner
from parity.signatures import called
from parity.tolerance import Comparison
from pgcore.errors import UsageError, unknown_choice


class Live:
    """The candidate's functions, by the stage that each is held against.

    Raises:
        UsageError: A function is of no stage, or is none; an entry of `rename` names nothing; or
            `kinds` is given and no module of JAX is among the functions.
    """

    def __init__(
        self,
        ours: Recording,
        functions: Mapping[str, Callable[..., Any]],
        framework: str,
        rename: Mapping[str, str],
        kinds: Kinds | None,
    ) -> None:
        self._ours = ours
        self._framework = framework
        of_jax = [f for f in functions.values() if kind(f) in ("linen", "nnx", "equinox")]
        self._renames: Renames = renames(rename, ours, with_modules=bool(of_jax))
        if kinds is not None and not of_jax:
            raise UsageError(
                f"kinds is {kinds!r}, accepted is None unless a function is a Flax or Equinox "
                "module: no weights are converted"
            )
        self._kinds = kinds
        back = {new: old for old, new in self._renames.stages.items()}
        self._functions = {back.get(name, name): each for name, each in functions.items()}
        known = [stage.function for stage in ours.stages.values()]
        for name in self._functions:
            if name not in known:
                raise unknown_choice("candidate's stage", name, dict.fromkeys(known))

    def place(self, stage: str) -> Location | None:
        """Where a stage's function is written."""
        function = self._functions.get(self._ours.stages[stage].function)
        return None if function is None else written(function)

    def compare(self, stage: Stage, expect_nonfinite: Collection[str]) -> Comparison:
        """A stage's function against what was recorded. What it raises has parted.

        Raises:
            UsageError: It does not take the stage's inputs, or gives another result each time.
        """
        function = self._functions.get(stage.function)
        if function is None:
            return cases.unlike(stage.name, "all", "any precision", "present", "absent")
        run = self._runner(stage, function)
        return cases.reported(stage.name, lambda: held(stage, _run(run, stage), expect_nonfinite))

    def _runner(self, stage: Stage, function: Callable[..., Any]) -> Runner:
        inputs, is_bare = stage.inputs, stage.inputs is None
        named = self._renames
        own = {old: new.rpartition("/")[2] for old, new in named.inputs.items()}
        if inputs is None:
            inputs = taken(function, self._ours.inputs, own)
            if not inputs:
                raise UsageError(
                    f"stage {stage.name!r} was recorded as arrays, and the recording has no inputs "
                    f"that {called(function)} takes, accepted is a stage that rec.call recorded, "
                    "or one whose inputs are in rec.inputs"
                )
        role = f"candidate's function of stage {stage.name!r}"
        place = written(function) or Location("", 0, called(function))
        asked = Asked(own | named.of_outputs(stage.function), rounded=not is_bare)
        if stage.kinds is not None and kind(function) in ("linen", "nnx", "equinox"):
            asked = asked._replace(names=named.modules, kinds=self._kinds_of(stage))
        return runner(function, inputs, self._framework, place, role, asked)

    def _kinds_of(self, stage: Stage) -> Kinds:
        """What was recorded of a torch module, and what is stated."""
        if isinstance(self._kinds, str):
            return self._kinds
        return {**(stage.kinds or {}), **(self._kinds or {})}


def _run(run: Runner, stage: Stage) -> Stage:
    if stage.wrt is not None:
        return run.gradient(stage.name, stage.wrt, stage.cotangents or {}, measured=False)
    precisions = {precision for output in stage.outputs.values() for precision in output.runs}
    if not precisions & {*PRECISIONS}:
        raise UsageError(
            f"stage {stage.name!r} was recorded in {' and '.join(precisions)}, accepted is one in "
            f"{' or '.join(PRECISIONS)}, in which functions are run"
        )
    return run.values(stage.name, [p for p in PRECISIONS if p in precisions], measured=False)
