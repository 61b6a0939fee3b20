"""A recording as arrays by name and plain JSON, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.locate.places import Location
from parity.recordings.leaves import PRECISIONS, Leaf, children_of
from parity.recordings.recording import Decided, Output, Recording, Stage, Ties
from parity.recordings.sealed import sealed, unsealed
from parity.tape import Noise, NoiseTape
from parity.yardstick import Bound
from pgcore.errors import UsageError

# --- to a file -----------------------------------------------------------------------------------


class _Arrays:
    """Arrays by name; what is there already is not stored twice."""

    def __init__(self) -> None:
        self.leaves: dict[str, Leaf] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def add(self, name: str, leaf: Leaf) -> str:
        """The name under which an array is stored."""
        key = (leaf.dtype, leaf.array.shape, leaf.to_bytes())
        known = self._known.setdefault(key, name)
        self.leaves.setdefault(known, leaf)
        return known

    def add_plain(self, name: str, array: np.ndarray) -> str:
        """The same for a NumPy array."""
        return self.add(name, Leaf(array.dtype.name, array))


def to_bytes(recording: Recording) -> bytes:
    """The file of a recording; the same recording always makes the same bytes."""
    arrays = _Arrays()
    about = {
        "inputs": _plain_tree(recording.inputs, "inputs", arrays, recording.dtypes),
        "noise": _plain_noise(recording.noise, arrays),
        "stages": [
            _plain_stage(f"{index}:{stage.name}", stage, arrays)
            for index, stage in enumerate(recording.stages.values())
        ],
        "surroundings": recording.surroundings,
    }
    return sealed(arrays.leaves, about)


def _plain_tree(
    tree: Any, path: str, arrays: _Arrays, dtypes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    children = children_of(tree, path)
    if tree is None:
        return {"none": None}
    if children is not None:
        kind = "list" if isinstance(tree, tuple | list) and not hasattr(tree, "_fields") else "map"
        return {kind: [[k, _plain_tree(v, f"{path}/{k}", arrays, dtypes)] for k, v in children]}
    if isinstance(tree, np.ndarray):
        dtype = (dtypes or {}).get(path.partition("/")[2], str(tree.dtype))
        return {"array": arrays.add(path, Leaf(dtype, tree))}
    if isinstance(tree, float):
        return {"float": float(tree).hex()}
    return {"plain": tree}


def _plain_noise(noise: NoiseTape | Noise | None, arrays: _Arrays) -> dict[str, Any] | None:
    if noise is None:
        return None
    about: dict[str, str] | None = None
    if isinstance(noise, NoiseTape):
        tensors, about = noise.contents()
    else:
        tensors = noise._asdict()
    names = {name: arrays.add_plain(f"noise/{name}", array) for name, array in tensors.items()}
    return {"about": about, "arrays": names}


def _plain_stage(name: str, stage: Stage, arrays: _Arrays) -> dict[str, Any]:
    outputs = [
        _plain_output(f"{name}/{path}", path, each, arrays) for path, each in stage.outputs.items()
    ]
    weights = stage.cotangents
    return {
        "name": stage.name,
        "outputs": outputs,
        "place": [stage.place.file, stage.place.line, stage.place.code],
        "framework": stage.framework,
        "inputs": None
        if stage.inputs is None
        else _plain_tree(stage.inputs, f"{name}, inputs", arrays),
        "cotangents": None
        if weights is None
        else {
            leaf: arrays.add_plain(f"{name}, cotangent/{leaf}", weight)
            for leaf, weight in weights.items()
        },
        "wrt": None if stage.wrt is None else [*stage.wrt],
        "notes": [*stage.notes],
        "kinds": None if stage.kinds is None else dict(stage.kinds),
    }


def _plain_output(name: str, path: str, output: Output, arrays: _Arrays) -> dict[str, Any]:
    return {
        "path": path,
        "runs": {
            precision: {
                "array": arrays.add(f"{name} in {precision}", leaf),
                "is_number": leaf.is_number,
            }
            for precision, leaf in output.runs.items()
        },
        "bounds": _plain_bounds(output.bounds),
        "ties": None
        if output.ties is None
        else {
            part: arrays.add_plain(f"{name}, {part}", array)
            for part, array in output.ties._asdict().items()
        },
        "decided": None
        if output.decided is None
        else {
            "scores": arrays.add_plain(f"{name}, scores", output.decided.scores),
            "bounds": _plain_bounds(output.decided.bounds),
        },
    }


def _plain_bounds(bounds: Mapping[str, Bound]) -> dict[str, list[str]]:
    return {precision: [bound.value.hex(), bound.term] for precision, bound in bounds.items()}


# --- from a file ---------------------------------------------------------------------------------


ODD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What plain JSON that is no recording's can raise on its way to be one."""


def loaded(path: Path) -> Recording:
    """Reads a recording.

    Raises:
        UsageError: As `Recording.load`.
    """
    where = f"recording {str(path)!r}"
    leaves, about = unsealed(path, where)
    try:
        return _recording(path, leaves, about)
    except UsageError:
        raise
    except ODD as error:
        raise UsageError(
            f"{where} has metadata that parity.record does not write ({error!r}), accepted is a "
            "file that it wrote"
        ) from error


def _recording(path: Path, leaves: dict[str, Leaf], about: dict[str, Any]) -> Recording:
    dtypes: dict[str, str] = {}
    inputs = _by_name(about["inputs"], leaves, dtypes)
    stages = [_stage(plain, leaves) for plain in about["stages"]]
    surroundings = about["surroundings"]
    for name in ("python", "platform", "processor", "cores"):
        surroundings[name]
    for name in ("versions", "settings"):
        surroundings[name] = {str(key): str(value) for key, value in surroundings[name].items()}
    return Recording(
        path,
        inputs,
        dtypes,
        _noise(about["noise"], leaves, f"recording {str(path)!r}"),
        {stage.name: stage for stage in stages},
        surroundings,
    )


def _by_name(
    plain: dict[str, Any], leaves: dict[str, Leaf], dtypes: dict[str, str] | None = None
) -> dict[str, Any]:
    """Inputs, which have names whatever else they hold."""
    found = _tree(plain, leaves, "", dtypes)
    if not isinstance(found, dict):
        raise TypeError(f"inputs are a {type(found).__name__}")
    return found


def _tree(
    plain: dict[str, Any], leaves: dict[str, Leaf], path: str, dtypes: dict[str, str] | None = None
) -> Any:
    ((kind, value),) = plain.items()
    if kind in ("list", "map"):
        children = {
            key: _tree(child, leaves, f"{path}/{key}" if path else key, dtypes)
            for key, child in value
        }
        return children if kind == "map" else [*children.values()]
    if kind == "array":
        if dtypes is not None:
            dtypes[path] = leaves[value].dtype
        return leaves[value].array
    return {"none": None}.get(kind, float.fromhex(value) if kind == "float" else value)


def _noise(
    plain: dict[str, Any] | None, leaves: dict[str, Leaf], where: str
) -> NoiseTape | Noise | None:
    if plain is None:
        return None
    arrays = {name: leaves[stored].array for name, stored in plain["arrays"].items()}
    if plain["about"] is None:
        return Noise(**arrays)
    return NoiseTape.from_contents(arrays, plain["about"], f"the noise of {where}")


def _stage(plain: dict[str, Any], leaves: dict[str, Leaf]) -> Stage:
    file, line, code = plain["place"]
    inputs, weights, wrt = plain["inputs"], plain["cotangents"], plain["wrt"]
    kinds = plain.get("kinds")  # older files have none
    return Stage(
        str(plain["name"]),
        {str(each["path"]): _output(each, leaves) for each in plain["outputs"]},
        Location(str(file), int(line), str(code)),
        plain["framework"],
        None if inputs is None else _by_name(inputs, leaves),
        None
        if weights is None
        else {leaf: leaves[stored].array for leaf, stored in weights.items()},
        None if wrt is None else tuple(map(str, wrt)),
        tuple(map(str, plain["notes"])),
        None if kinds is None else {str(path): str(kind) for path, kind in kinds.items()},
    )


def _output(plain: dict[str, Any], leaves: dict[str, Leaf]) -> Output:
    ties, decided = plain["ties"], plain.get("decided")  # older files have none
    runs = {
        precision: leaves[run["array"]]._replace(is_number=bool(run["is_number"]))
        for precision, run in plain["runs"].items()
    }
    if not runs or not runs.keys() <= {*PRECISIONS}:
        raise ValueError(f"runs in {', '.join(runs) or 'no precision'}")
    return Output(
        runs,
        _bounds(plain["bounds"]),
        None if ties is None else Ties(**{k: leaves[stored].array for k, stored in ties.items()}),
        None
        if decided is None
        else Decided(leaves[decided["scores"]].array, _bounds(decided["bounds"])),
    )


def _bounds(plain: dict[str, Any]) -> dict[str, Bound]:
    return {
        precision: Bound(float.fromhex(value), str(term))
        for precision, (value, term) in plain.items()
    }
