"""What the candidate calls otherwise: stages, inputs, outputs and, of a module, its parts."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from parity import sides
from parity.inputs import prefixes, renamed
from parity.modules import PARAMS, modules_of
from parity.recordings.leaves import paths
from parity.recordings.recording import GRADIENT, Recording, Stage
from pgcore.errors import UsageError, unknown_choice


class Renames(NamedTuple):
    """The reference's names to the candidate's, by what they are names of.

    Attributes:
        inputs: Paths of inputs.
        outputs: Paths of outputs, of every stage that has them.
        of_stage: The same of one stage alone, by stage.
        stages: Stages.
        modules: Torch module paths to those of a JAX module.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    of_stage: dict[str, dict[str, str]]
    stages: dict[str, str]
    modules: dict[str, str]

    def of_outputs(self, stage: str) -> dict[str, str]:
        """Those of one stage's outputs."""
        return self.outputs | self.of_stage.get(stage, {})


def renames(rename: Mapping[str, str], ours: Recording, *, with_modules: bool) -> Renames:
    """Which entry names what in the reference: an input, else an output, else a stage or a module.

    `with_modules` where weights by torch's names go to a module of JAX.

    Raises:
        UsageError: An entry names nothing of these, or two have one name in the candidate.
    """
    found = Renames({}, {}, {}, {}, {})
    by_torch = [stage for stage in ours.stages.values() if with_modules and stage.kinds is not None]
    inputs = prefixes([*paths(ours.inputs, "inputs"), *_of_stages(ours, by_torch)])
    values = [stage for stage in ours.stages.values() if stage.wrt is None]
    outputs = prefixes(path for stage in values for path in stage.outputs)
    of_stage = {
        f"{stage.name}/{path}": (stage.name, path)
        for stage in values
        for path in prefixes(stage.outputs)
    }
    functions = dict.fromkeys(stage.function for stage in ours.stages.values())
    tensors = [name for s in by_torch for name in (s.inputs or {}).get(PARAMS, {})]
    modules = {"", *modules_of(tensors)} if by_torch else set()
    for old, new in rename.items():
        if not isinstance(new, str):
            raise UsageError(f"rename[{old!r}] is {new!r}, accepted is the candidate's name")
        if old in inputs:
            found.inputs[old] = new
        elif old in outputs:
            found.outputs[old] = new
        elif old in of_stage:
            stage, path = of_stage[old]
            found.of_stage.setdefault(stage, {})[path] = new
        elif old in functions:
            found.stages[old] = new
        elif old.removeprefix(f"{PARAMS}/") in modules:
            found.modules[old.removeprefix(f"{PARAMS}/")] = new
        else:
            known = [*inputs, *outputs, *of_stage, *functions, *sorted(modules - {""})]
            raise unknown_choice("rename", old, dict.fromkeys(known))
    for names in (found.inputs, found.outputs, found.stages, *found.of_stage.values()):
        _back(names)
    return found


def in_our_names(theirs: Recording, names: Renames, ours: Recording) -> Recording:
    """The candidate's recording with the reference's names.

    Raises:
        UsageError: The candidate has nothing of such a name, or two things would have one.
    """
    _require_there(theirs, names)
    inputs, stages = _back(names.inputs), {}
    for stage in theirs.stages.values():
        new = _stage(stage, names, inputs, ours)
        if new.name in stages:
            raise UsageError(f"rename makes a second stage {new.name!r} of {stage.name!r}")
        stages[new.name] = new
    return theirs._replace(
        inputs=_tree(theirs.inputs, inputs),
        dtypes=_keys(theirs.dtypes, inputs),
        stages=stages,
    )


def _require_there(theirs: Recording, names: Renames) -> None:
    """Raises a `UsageError` for a name that nothing in the candidate has."""
    stages = theirs.stages.values()
    inputs = prefixes([*paths(theirs.inputs, "inputs"), *_of_stages(theirs, [])])
    outputs = prefixes(path for stage in stages for path in stage.outputs)
    tables = [(names.inputs, inputs), (names.outputs, outputs)]
    for stage, each in names.of_stage.items():
        there = theirs.stages.get(names.stages.get(stage, stage))
        known = outputs if there is None else prefixes(there.outputs)
        tables.append(({f"{stage}/{old}": new for old, new in each.items()}, known))
    for given, known in (*tables, (names.stages, [*theirs.stages])):
        for old, new in given.items():
            if new not in known:
                raise unknown_choice(f"rename[{old!r}], in the candidate,", new, known)


def _stage(stage: Stage, names: Renames, inputs: dict[str, str], ours: Recording) -> Stage:
    functions = _back(names.stages)
    base = stage.name.removesuffix(GRADIENT)
    name = stage.name
    if stage.name in functions:
        name = functions[stage.name]
    elif name != base and base in functions:
        name = f"{functions[base]}{GRADIENT}"
    is_gradient = stage.wrt is not None or (name in ours.stages and ours.stages[name].wrt)
    outputs = _back(names.of_outputs(name.removesuffix(GRADIENT) if is_gradient else name))
    return stage._replace(
        name=name,
        outputs=_keys(stage.outputs, inputs if is_gradient else outputs),
        inputs=None if stage.inputs is None else _tree(stage.inputs, inputs),
        cotangents=None if stage.cotangents is None else _keys(stage.cotangents, outputs),
        wrt=None if stage.wrt is None else tuple(renamed(path, inputs) for path in stage.wrt),
    )


def _of_stages(ours: Recording, by_torch: list[Stage]) -> Iterable[str]:
    """The paths of what single stages were given; of weights that are laid out, no part has one."""
    for stage in ours.stages.values():
        given = stage.inputs or {}
        hidden = any(stage is each for each in by_torch)
        yield from sides.flat({k: v for k, v in given.items() if not (hidden and k == PARAMS)})


def _tree(tree: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return sides.nested(_keys(paths(tree, "inputs"), names)) if names else tree


def _keys(leaves: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, leaf in leaves.items():
        new = renamed(path, names)
        if any(_is_of(new, path) or _is_of(path, new) for path in found):
            raise UsageError(f"rename makes a second {new!r} of the candidate's {path!r}")
        found[new] = leaf
    return found


def _is_of(path: str, other: str) -> bool:
    """Whether a path is another one, or below it."""
    return f"{path}/".startswith(f"{other}/")


def _back(names: Mapping[str, str]) -> dict[str, str]:
    """The candidate's names to the reference's."""
    back: dict[str, str] = {}
    for old, new in names.items():
        if new in back:
            raise UsageError(f"rename calls both {back[new]!r} and {old!r} {new!r}")
        back[new] = old
    return back
