"""`record`: what a side computes, written to a file as it ends well."""

import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from parity.convert.layouts import Kinds, Names
from parity.deciding import decided_by
from parity.locate.places import Location
from parity.recordings.functions import Asked, place, runner, taken, written
from parity.recordings.judging import share
from parity.recordings.leaves import children_of, leaf_of, paths
from parity.recordings.recording import GRADIENT, Decided, Output, Recording, Stage
from parity.recordings.running import PRECISIONS
from parity.recordings.schema import to_bytes
from parity.recordings.surroundings import surroundings
from parity.tape import Noise, NoiseTape
from pgcore.errors import UsageError, require, unknown_choice
from pgcore.files.writing import write_atomically

RESERVED = ("inputs", "noise")
"""What reports call a recording's own inputs and its noise: no stage has such a name."""


def record(path: str | Path) -> "Recorder":
    """A recorder, to be opened by `with`, which writes one file when its block ends.

    If the block raises, nothing is written, and a file that was there stays as it was.

        with parity.record("reference.parity") as rec:
            rec.inputs(returns=returns)
            rec.stage("normalised", returns=normalised)  # arrays of torch, JAX or NumPy
            rec.call("loss", loss)  # or a function, which is run, and its rounding measured

    Raises:
        UsageError: There is no such folder, or the path is one.
    """
    path = Path(path)
    accepted = "a file in a folder that is there"
    require(path.parent.is_dir() and not path.is_dir(), "path", str(path), accepted)
    return Recorder(path)


class Recorder:
    """Collects what one side computes. Arrays are copied: what changes later is not recorded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_open = False
        self._inputs: dict[str, Any] = {}
        self._dtypes: dict[str, str] = {}
        self._noise: NoiseTape | Noise | None = None
        self._stages: dict[str, Stage] = {}

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_open = False
        if kind is not None:
            return
        holds = bool(self._stages or self._inputs) or self._noise is not None
        require(holds, "a recording", "empty", "one with inputs, noise or a stage in it")
        recording = Recording(
            self._path, self._inputs, self._dtypes, self._noise, self._stages, surroundings()
        )
        try:
            write_atomically(self._path, to_bytes(recording))
        except OSError as failed:
            raise UsageError(
                f"recording {str(self._path)!r} cannot be written: {failed}"
            ) from failed

    def inputs(self, **inputs: Any) -> None:
        """What all of it is computed from: arrays, trees of them, plain numbers and strings.

        Two recordings whose inputs differ are not the same, whatever came out.

        Raises:
            UsageError: An input was given before, or is none of these.
        """
        self._require_open()
        for name, value in inputs.items():
            require(name not in self._inputs, "input", name, "one that was not given before")
            self._inputs[name] = _copied(value, name, self._dtypes)

    def noise(self, noise: Any, updates: int | Iterable[int] | None = None) -> None:
        """The noise that was read: a `NoiseTape`, or one update's `Noise` of any framework.

        Args:
            noise: A tape is stored as arrays, so that no generator is asked again.
            updates: Of a tape, which of its updates, or how many; a tape of stored arrays has all.

        Raises:
            UsageError: It is neither, the tape lacks an update, or noise was given before.
        """
        self._require_open()
        require(self._noise is None, "noise", "given twice", "one tape, or one update's noise")
        if isinstance(noise, NoiseTape):
            self._noise = NoiseTape.from_contents(*noise.contents(updates), "the tape")
            return
        is_noise = getattr(noise, "_fields", None) == Noise._fields
        kind = type(noise).__name__
        require(is_noise, "noise", kind, "a NoiseTape, or a tuple Noise(reset, policy)")
        self._noise = Noise(*(leaf_of(f"noise {k!r}", v).array for k, v in noise._asdict().items()))

    def stage(self, name: str, outputs: Any = None, /, **arrays: Any) -> None:
        """Arrays as they are, by keyword or as one tree, at the line of this call.

        They are judged by the share of their largest value alone, which is stricter than what a
        function's measured rounding allows.

        Raises:
            UsageError: There is such a stage, or nothing in it, or something that is no array.
        """
        self._require_open(name)
        of = f"stage {name!r}"
        both = outputs is not None and bool(arrays)
        require(not both, of, "given a tree and keywords", "one of the two")
        found = {
            path: leaf_of(f"{path!r} of {of}", value)
            for path, value in paths(arrays if outputs is None else outputs, of).items()
        }
        require(bool(found), of, "empty", "one array at least")
        floating = {x.dtype for x in found.values() if x.is_floating and not x.is_number}
        usual = floating.pop() if len(floating) == 1 else PRECISIONS[0]
        self._stages[name] = Stage(
            name,
            {
                path: Output(
                    {leaf.dtype if leaf.is_floating and not leaf.is_number else usual: leaf}, {}
                )
                for path, leaf in found.items()
            },
            _caller(),
        )

    def decided(self, stage: str, scores: Any = None, /, **by_output: Any) -> None:
        """What decided the discrete outputs of a stage of bare arrays.

        Where two choices are as near as the share of the largest score that is allowed in the
        scores' precision, a candidate may have the other one.

        Args:
            stage: A stage that `stage` has recorded.
            scores: Of its lone discrete output: the scores whose largest wins, on one axis more
                than it has, or the distance to a threshold.
            by_output: The same by output.

        Raises:
            UsageError: There is no such stage, or the scores fit no discrete output of it.
        """
        self._require_open()
        if stage not in self._stages:
            raise unknown_choice("stage", stage, self._stages)
        found, field = self._stages[stage], f"what decided stage {stage!r}"
        bare = "one of rec.stage; rec.call takes a decider"
        require(found.framework is None, "stage", stage, bare)
        one_way = (scores is None) != (not by_output)
        require(one_way, field, "given by position and by keyword", "one of the two")
        given = {path: leaf_of(field, x) for path, x in (by_output or {"value": scores}).items()}
        arrays = {path: next(iter(o.runs.values())).array for path, o in found.outputs.items()}
        pairs = decided_by(field, {path: leaf.array for path, leaf in given.items()}, arrays)
        for path in given:
            if by_output and path not in pairs:
                raise unknown_choice(f"{field}: the output", path, pairs)
        outputs = dict(found.outputs)
        for path, by in pairs.items():
            leaf, output = given[by], outputs[path]
            bound = share(leaf.array, leaf.dtype)
            bounds = dict.fromkeys(output.runs, bound)
            outputs[path] = output._replace(decided=Decided(leaf.array, bounds))
        self._stages[stage] = found._replace(outputs=outputs)

    def call(
        self,
        name: str,
        function: Callable[..., Any],
        inputs: dict[str, Any] | None = None,
        *,
        framework: str = "torch",
        wrt: Collection[str] | None = None,
        decider: Callable[..., Any] | None = None,
        names: Names | None = None,
        kinds: Kinds | None = None,
    ) -> None:
        """Runs a function in float64 and in float32, and measures what rounding is worth to it.

        What the rule allows goes with the recording, so that another machine judges by it with no
        framework at hand. Floating inputs are rounded to float32 first, for either precision.

        Args:
            name: The stage. With `wrt`, its gradient is the stage `"{name} gradient"`.
            function: It takes its inputs by keyword. The weights of a module are its input
                `params`: a torch module's own where none are given, by torch's names; NNX's and
                Equinox's own likewise, by theirs; Linen's are to be given.
            inputs: By default those of the recording that the function takes.
            framework: `"torch"`, `"jax"` or `"numpy"`. All three respond to nudged inputs and
                have a float32 run; operations can be rounded otherwise in torch alone.
            wrt: Inputs in which the gradient is recorded too, as in `parity.check`.
            decider: A function of these inputs, in the same framework, that gives what a discrete
                output is decided by: the scores whose largest wins, or the distance to a threshold.
                Where rounding may decide, a candidate may have the other choice.
            names: Of a Flax or Equinox module whose `params` are a torch module's, by torch's
                names: torch module paths to its own, as in `parity.convert`.
            kinds: Of the same, the kinds of its layers, `{"body.0": "Linear"}`, or one for all;
                `Recording.stages[name].kinds` has those of a torch module that was recorded.

        Raises:
            UsageError: There is such a stage, the function does not take these inputs or gives
                another result each time, or `wrt` names what is no floating input.
        """
        self._require_open(name)
        role = f"function of stage {name!r}"
        if inputs is None:
            inputs = taken(function, self._inputs)
        elif not isinstance(inputs, dict):
            raise UsageError(f"inputs of stage {name!r} is {inputs!r}, accepted is a dict by name")
        inputs = {key: _copied(value, key, {}) for key, value in inputs.items()}
        written_at = written(function) or _caller()
        asked = Asked(names=names, kinds=kinds)
        run = runner(function, inputs, framework, written_at, role, asked)
        found = [run.values(name, measured=True)]
        if decider is not None:
            given = taken(decider, {**self._inputs, **run.given.tree})
            by = runner(decider, given, framework, written_at, f"decider of stage {name!r}")
            found = [by.deciding(found[0])]
        if wrt is not None:
            self._require_open(f"{name}{GRADIENT}")
            moving = run.given.differentiated(wrt, ())
            require(bool(moving), f"wrt of stage {name!r}", [*wrt], "one floating input at least")
            weights = run.cotangents(found[0])
            found.append(run.gradient(f"{name}{GRADIENT}", moving, weights, measured=True))
        self._stages |= {stage.name: stage for stage in found}

    def _require_open(self, stage: Any = None) -> None:
        accepted = "with parity.record(path) as rec: …, and used in its block"
        require(self._is_open, "a recorder", "used outside of its block", accepted)
        if stage is not None:
            is_name = isinstance(stage, str) and bool(stage) and stage not in RESERVED
            require(is_name, "stage", stage, f"a name other than {' and '.join(RESERVED)}")
            accepted = "a name that no stage has yet, such as 'update 1, loss'"
            require(stage not in self._stages, "stage", stage, accepted)


def _copied(tree: Any, path: str, dtypes: dict[str, str]) -> Any:
    """A tree with NumPy's copies of its arrays, whose dtypes are noted."""
    children = children_of(tree, f"input {path!r}")
    if tree is None:
        return None
    if children is not None:
        copies = {name: _copied(child, f"{path}/{name}", dtypes) for name, child in children}
        is_list = isinstance(tree, tuple | list) and not hasattr(tree, "_fields")
        return [*copies.values()] if is_list else copies
    if isinstance(tree, bool | int | float | str) and not isinstance(tree, np.generic):
        return tree
    leaf = leaf_of(f"input {path!r}", tree)
    dtypes[path] = leaf.dtype
    return leaf.array


def _caller() -> Location:
    """The line, outside of this package, that led here."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(__package__):
        frame = frame.f_back
    return place(frame.f_code.co_filename, frame.f_lineno)
