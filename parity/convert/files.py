"""Safetensors files from torch's layout to Flax's and back.

| torch's | Flax's |
| --- | --- |
| `linear1.weight [out, in]` | `params/linear1/kernel [in, out]` |
| `adam.m.linear1.weight`, `adam.v.…` | `adam/mu/linear1/kernel`, `adam/nu/…` |
| `adam.count` | `adam/count` |
| `sgd.momentum.linear1.weight` | `sgd/trace/linear1/kernel` |

Neither framework is needed. What a conversion was told goes with the file it writes, as metadata,
and is taken out on the way back, so that the way back needs no options and gives the same bytes.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity.convert.layouts import Kinds, Names, layout, layout_of_flax
from parity.convert.pairs import Layout
from pgcore.errors import UsageError, require
from pgcore.files.reading import parse_json
from pgcore.files.schema import SCHEMA
from pgcore.files.tensors import SEAL, read_tensors, to_bytes
from pgcore.files.writing import write_atomically

GROUPS = {
    "adam.m.": "adam/mu/",
    "adam.v.": "adam/nu/",
    "sgd.momentum.": "sgd/trace/",
    "": "params/",
}
"""Prefixes of tensors that go with the parameters, in torch's layout and in Flax's."""
COUNT = {"adam.count": "adam/count"}
STATED = "parity.convert"
"""Metadata entry: the names and kinds that the file was converted with."""


class Converted(NamedTuple):
    """What was written: the side that it is for, the map, the number of tensors."""

    to: str
    layout: Layout
    num_tensors: int


def convert_file(
    src: str | Path,
    dst: str | Path,
    *,
    to: str | None = None,
    names: Names | None = None,
    kinds: Kinds | None = None,
    force: bool = False,
) -> Converted:
    """Writes the tensors of `src` to `dst` in the other framework's layout.

    Args:
        src: A safetensors file. It is in Flax's layout if its names have slashes.
        dst: The file to write, atomically.
        to: `"flax"` or `"torch"`: an error if `src` is of that side already.
        names: Torch module paths to Flax module paths, where they differ, in either direction.
        kinds: Torch layer paths to kinds in the registry, or the kind of every layer. A policy of
            this project needs none, nor does a file that a conversion wrote.
        force: Replace a `dst` that exists.

    Raises:
        UsageError: As `to_flax`; something would be lost (a BatchNorm's count of batches); a file
            can't be read or written, `dst` exists, `to` is not the other side, names are of both
            layouts, or names or kinds contradict what the file says.
    """
    src, dst = Path(src), Path(dst)
    where = f"file {str(src)!r}"
    tensors, metadata, is_sealed = _read(src, where)
    target = "torch" if _is_flax(tensors, where) else "flax"
    require(to in (None, target), f"to (of a file that is for {_OTHER[target]})", to, target)
    require(force or not dst.exists(), "DST", str(dst), "a file that is not there yet, or --force")
    names, kinds, metadata = _statement(metadata, names, kinds, where, is_sealed=is_sealed)
    is_sealed = metadata.pop(SEAL, None) is not None
    parameters = _groups(tensors, target, where)
    if target == "flax":
        found = layout(parameters[GROUPS[""]], names=names, kinds=kinds)
        _require_nothing_lost(found, where)
        convert = found.to_flax
    else:
        found = layout_of_flax(parameters[""], names=names, kinds=kinds)
        convert = found.to_torch
    counts = COUNT if target == "flax" else {flax: torch for torch, flax in COUNT.items()}
    converted = {counts[name]: tensors[name] for name in counts if name in tensors}
    for prefix, arrays in parameters.items():
        group = f"{where}, {prefix or 'parameters'}"
        converted |= {prefix + name: array for name, array in convert(arrays, group).items()}
    try:
        write_atomically(dst, to_bytes(converted, metadata, seal=is_sealed))
    except OSError as error:
        raise UsageError(f"file {str(dst)!r} cannot be written: {error}") from error
    return Converted(target, found, len(converted))


def _require_nothing_lost(found: Layout, where: str) -> None:
    for pair in found.pairs:
        if pair.leaf.role == "torch's own":
            raise UsageError(
                f"{where} has {pair.torch}, for which Flax has no place, and no file can bring it "
                "back: convert the module with parity.convert.to_flax and to_torch, which leave it "
                "in torch"
            )


_OTHER = {"flax": "torch", "torch": "flax"}


def _read(path: Path, where: str) -> tuple[dict[str, np.ndarray], dict[str, str], bool]:
    """Tensors, metadata, and whether the file is sealed: what a conversion wrote has to be."""
    tensors, metadata = read_tensors(path, where)
    is_sealed = metadata.pop(SEAL, None) is not None
    if STATED in metadata and not is_sealed:
        raise UsageError(f"{where} is damaged: a conversion wrote it, and its SHA-256 is missing")
    return tensors, metadata, is_sealed


def _is_flax(tensors: Collection[str], where: str) -> bool:
    require(bool(tensors), where, "empty", "one with tensors")
    slashed = [name for name in tensors if "/" in name]
    others = [name for name in tensors if "/" not in name]
    if slashed and others:
        raise UsageError(f"{where} has {slashed[0]} of Flax's layout and {others[0]} of torch's")
    return bool(slashed)


def _groups(
    tensors: Mapping[str, np.ndarray], target: str, where: str
) -> dict[str, dict[str, np.ndarray]]:
    """The tensors by the prefix that they will have, their names without the one they had.

    Raises:
        UsageError: A group is unknown, there are no parameters, or Adam's state is not whole.
    """
    pairs = [(t, f) if target == "flax" else (f, t) for t, f in GROUPS.items()]
    counts = COUNT.keys() if target == "flax" else COUNT.values()
    groups: dict[str, dict[str, np.ndarray]] = {after: {} for _, after in pairs}
    for name, array in tensors.items():
        if name in counts:
            continue
        prefixes = [(before, after) for before, after in pairs if name.startswith(before)]
        if not prefixes:
            accepted = ", ".join(before for before, _ in pairs)
            raise UsageError(f"{where} has {name}, accepted are names that begin with {accepted}")
        before, after = prefixes[0]
        groups[after][name.removeprefix(before)] = array
    (m, v, _, parameters) = (after for _, after in pairs)
    require(bool(groups[parameters]), where, sorted(tensors), "one with parameters too")
    parts = [bool(groups[m]), bool(groups[v]), any(name in tensors for name in counts)]
    require(
        all(parts) or not any(parts), f"Adam's state in {where}", parts, "m, v and count, or none"
    )
    return {after: group for after, group in groups.items() if group}


def _are_names(table: Any) -> bool:
    """Whether it is a table of text."""
    return isinstance(table, dict) and all(isinstance(text, str) for text in table.values())


def _statement(
    metadata: dict[str, str],
    names: Names | None,
    kinds: Kinds | None,
    where: str,
    *,
    is_sealed: bool,
) -> tuple[Names | None, Kinds | None, dict[str, str]]:
    """The names and kinds to go by, and the metadata to write; it has a seal if it is to have one.

    What a conversion writes is sealed; what comes back is, if it was before.
    """
    given: dict[str, Any] = {"names": dict(names or {}), "kinds": kinds}
    if STATED in metadata:
        try:
            stated = parse_json(metadata[STATED])
            names, kinds = stated["names"], stated["kinds"]
            if not _are_names(names) or not (isinstance(kinds, str) or _are_names(kinds)):
                raise TypeError("names and kinds are tables of text")
            seal = {SEAL: ""} if stated.get("sealed") else {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{where} has damaged metadata {STATED!r}: {error}") from error
        for field, value in given.items():
            agreed = not value or value == stated[field]
            require(agreed, field, value, f"{stated[field]}, with which {where} was converted")
        return names, kinds, {k: value for k, value in metadata.items() if k != STATED} | seal
    if kinds is None and metadata.get("schema") == SCHEMA:
        given["kinds"] = "Linear"
    require(given["kinds"] is not None, "kinds", None, f"the kinds of the layers of {where}")
    stated = json.dumps(given | ({"sealed": True} if is_sealed else {}))
    return names, given["kinds"], {**metadata, STATED: stated, SEAL: ""}
