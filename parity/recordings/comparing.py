"""`compare`: a recording against another, or against functions of this machine."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import cases
from parity.convert.layouts import Kinds
from parity.recordings.judging import EPSILON, exactly, held
from parity.recordings.leaves import Leaf, paths
from parity.recordings.live import Live
from parity.recordings.recording import Recording, Stage
from parity.recordings.renaming import in_our_names, renames
from parity.recordings.surroundings import told_apart
from parity.report import Report
from parity.tape import Noise, NoiseTape
from parity.tolerance import SLACK, Comparison
from pgcore.errors import UsageError, unknown_choice

Side = str | Path | Recording


def compare(
    reference: Side,
    candidate: Side | Mapping[str, Callable[..., Any]],
    *,
    framework: str = "jax",
    rename: Mapping[str, str] | None = None,
    kinds: Kinds | None = None,
    expect_nonfinite: Collection[str] = (),
    name: str | None = None,
) -> Report:
    """Holds what one side recorded against another's, stage by stage in the reference's order.

    Of a stage that the reference recorded as a function, the rule is whole: its yardstick was
    measured, and is in the file. Arrays that were just handed over are judged by the share of their
    largest value alone. The inputs come first: unless both sides have the same, nothing is proven.

    Args:
        reference: A file of `record`, or a `Recording`.
        candidate: The same, or functions by stage, which are run here on the recorded inputs.
        framework: What these functions compute in: `"jax"`, `"torch"` or `"numpy"`. JAX's are
            jitted. A Flax or Equinox module is one of JAX's.
        rename: What the candidate calls an input, an output or a stage, by the reference's name or
            path for it, as in `parity.check`: `{"obs": "x", "mu": "mean"}`. An output of one stage
            alone is `"stage/output"`. If a function is a Flax or Equinox module and the reference
            recorded a torch module, also which part of it a torch module is:
            `{"body.0": "Dense_0"}`.
        kinds: For such a module, the kind of what no class tells, as in `parity.convert`:
            `{"log_std": "Parameter"}`.
        expect_nonfinite: Outputs, as `"stage/output"`, that may hold values which are not finite,
            in the same places.
        name: What the report calls it.

    Raises:
        UsageError: A file is unusable; a function is of no stage, does not take the stage's inputs
            or gives another result each time; `expect_nonfinite` or `rename` names what there is
            not.
    """
    ours = _loaded("reference", reference)
    expected = _expected(ours, expect_nonfinite)
    if isinstance(candidate, Mapping):
        live = Live(ours, candidate, framework, rename or {}, kinds)
        comparisons = [live.compare(stage, expected[stage.name]) for stage in ours.stages.values()]
        places = {stage: live.place(stage) for stage in ours.stages}
        notes, theirs = [], None
    else:
        theirs = _loaded("candidate", candidate)
        if kinds is not None:
            raise UsageError(
                f"kinds is {kinds!r}, accepted is None where the candidate is a recording: "
                "rec.call takes it"
            )
        names = renames(rename or {}, ours, with_modules=False)
        theirs = in_our_names(theirs, names, ours)
        comparisons = [*_of_inputs(ours, theirs), *_of_stages(ours, theirs, expected)]
        places = {name: stage.place for name, stage in theirs.stages.items()}
        notes = told_apart(ours.surroundings, theirs.surroundings)
    if not ours.stages:
        said = f"{len(theirs.stages)} stages" if theirs else f"{len(candidate)} functions"  # pyright: ignore[reportArgumentType]
        comparisons.append(cases.unlike("stages", "all", "any precision", "no stage", said))
    title = name or f"{ours.path} and {theirs.path if theirs else f'functions in {framework}'}"
    notes = [*_of_places(comparisons, ours, places), *notes, *_of_judging(ours, theirs)]
    return Report(title, comparisons, notes)


def _loaded(role: str, side: Any) -> Recording:
    if isinstance(side, Recording):
        return side
    if not isinstance(side, str | Path):
        accepted = "a recording or its path"
        raise UsageError(f"{role} is of type {type(side).__name__}, accepted is {accepted}")
    return Recording.load(side)


def _expected(ours: Recording, names: Collection[str]) -> dict[str, list[str]]:
    """The outputs that may not be finite, by stage."""
    known = {f"{s.name}/{path}": (s.name, path) for s in ours.stages.values() for path in s.outputs}
    found: dict[str, list[str]] = {name: [] for name in ours.stages}
    for each in [names] if isinstance(names, str) else names:
        if each not in known:
            raise unknown_choice("expect_nonfinite", each, known)
        stage, path = known[each]
        found[stage].append(path)
    return found


def _of_stages(
    ours: Recording, theirs: Recording, expected: Mapping[str, list[str]]
) -> Iterator[Comparison]:
    for name in {**ours.stages, **theirs.stages}:
        a, b = ours.stages.get(name), theirs.stages.get(name)
        if a is None or b is None:
            said = ["present" if stage else "absent" for stage in (a, b)]
            yield cases.unlike(name, "all", "any precision", said[0], said[1])
            continue
        yield held(a, b, expected[name])


def _of_inputs(ours: Recording, theirs: Recording) -> Iterator[Comparison]:
    """The inputs of all, the noise, then those of single stages."""
    given = _leaves(theirs.inputs, theirs.dtypes)
    of_stages, used = {}, set()
    for name, stage in ours.stages.items():
        other = theirs.stages.get(name)
        if stage.inputs is None or other is None:
            continue
        mine = _leaves(stage.inputs) | _weights(stage)
        if other.inputs is not None:
            found = _leaves(other.inputs) | _weights(other)
        else:  # bare arrays come of the recording's inputs, which may be more than this stage's
            found = {path: leaf for path, leaf in given.items() if path in mine}
            used |= found.keys()
        of_stages[f"inputs of {name}"] = mine, found
    for_all = _leaves(ours.inputs, ours.dtypes)
    given = {path: leaf for path, leaf in given.items() if path in for_all or path not in used}
    pairs = {
        "inputs": (for_all, given),
        "noise": (_noise(ours.noise), _noise(theirs.noise)),
        **of_stages,
    }
    for title, (mine, found) in pairs.items():
        parts = []
        for path in {**mine, **found}:
            if path in mine and path in found:
                parts.append(exactly(title, path, mine[path], found[path]))
            else:
                said = ["present" if path in side else "absent" for side in (mine, found)]
                parts.append(cases.unlike(title, path, "any precision", said[0], said[1]))
        if parts:
            yield cases.joined(title, parts)


def _leaves(tree: Any, dtypes: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        path: Leaf((dtypes or {}).get(path, str(leaf.dtype)), leaf)
        if isinstance(leaf, np.ndarray)
        else leaf
        for path, leaf in paths(tree, "inputs").items()
    }


def _weights(stage: Stage) -> dict[str, Any]:
    """The cotangents of a gradient, unless its one output counts once, as in any gradient."""
    weights = stage.cotangents or {}
    is_lone = len(weights) == 1 and all(weight.ndim == 0 for weight in weights.values())
    return {} if is_lone else _leaves({"cotangent": weights})


def _noise(noise: NoiseTape | Noise | None) -> dict[str, Any]:
    if noise is None:
        return {}
    if isinstance(noise, Noise):
        return _leaves(noise)
    tensors, about = noise.contents()
    return {**_leaves(tensors), "agent": about["agent"], "env_id": about["env_id"]}


def _of_places(
    comparisons: list[Comparison], ours: Recording, places: Mapping[str, Any]
) -> list[str]:
    """The source lines of both sides where they first part."""
    first = next((each.stage for each in comparisons if not each.ok), None)
    if first is None:
        return []
    if first not in ours.stages and first not in places:
        return [f"{first} differ: what was computed from them proves nothing until they agree"]
    notes = []
    for role, place in (
        ("reference", ours.stages[first].place if first in ours.stages else None),
        ("candidate", places.get(first)),
    ):
        if place is not None:
            notes.append(f"{first} in the {role}: {place}")
    return notes


def _of_judging(ours: Recording, theirs: Recording | None) -> list[str]:
    """What a reader should know of how it was judged."""
    notes = [note for stage in ours.stages.values() for note in stage.notes]
    has_inputs = bool(ours.inputs) or any(s.inputs is not None for s in ours.stages.values())
    if not has_inputs:
        notes.append("no inputs were recorded: nothing says that both sides computed the same")
    bare = [name for name, stage in ours.stages.items() if stage.framework is None]
    if bare:
        notes.append(
            f"{', '.join(bare)}: recorded as arrays, so judged by the share of the largest value "
            "alone, which is stricter than what a recorded function's measured rounding allows"
        )
    coarse = [
        f"{name}/{path} ({precision}, {SLACK * EPSILON[precision]:.3g})"
        for name, stage in ours.stages.items()
        for path, output in stage.outputs.items()
        for precision, leaf in output.runs.items()
        if precision in ("bfloat16", "float16") and leaf.is_floating
    ]
    if coarse:
        notes.append(
            f"{', '.join(coarse)}: arrays of 16 bits, of which anything passes that is within this "
            "share of the largest value; recorded in float32, or as a function, they are judged "
            "far more closely"
        )
    for name, stage in ours.stages.items() if theirs is not None else ():
        other = theirs.stages.get(name) if theirs else None
        if stage.framework is not None and other is not None and other.framework is None:
            precisions = {p for output in other.outputs.values() for p in output.runs}
            notes.append(
                f"{name}: the candidate recorded arrays, in {' and '.join(precisions)} alone"
            )
    return list(dict.fromkeys(notes))
