"""The file: safetensors in which no byte can change unseen.

The header's metadata begins with the schema and a SHA-256 of the header, in which is a SHA-256 of
each array. So a damaged byte is found, and it is known what it is a byte of. (A digest finds
damage. It is no signature: who wants to deceive makes a new one.)
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from parity.recordings.leaves import DTYPES, Leaf
from pgcore.errors import UsageError, is_int, require
from pgcore.files.reading import LARGEST_JSON, open_file, parse_json
from pgcore.files.tensors import to_bytes

VERSION = 1
SCHEMA = "policy-gradient-parity/recording/"
"""Name of the schema; its version follows."""
_LENGTH = 8
"""A file begins with the length of its header, in so many bytes."""
_DIGEST = 64
_FIRST = b'{"__metadata__":{"schema":"%b' % SCHEMA.encode()
_BEGINNING = re.compile(re.escape(_FIRST) + b'(\\d{1,9})","sha256":"([0-9a-f]{64})",')
_NAMES = {stored: name for name, stored in DTYPES.items()}


def sealed(leaves: Mapping[str, Leaf], about: Mapping[str, Any]) -> bytes:
    """The bytes of a recording: arrays by name, and what is said about them."""
    data = {name: np.frombuffer(leaf.to_bytes(), _stored(leaf)) for name, leaf in leaves.items()}
    digests = {name: _sha256(leaf.to_bytes()) for name, leaf in leaves.items()}
    metadata = {
        "schema": f"{SCHEMA}{VERSION}",
        "sha256": "0" * _DIGEST,
        "arrays": json.dumps(digests),
        "recording": json.dumps(about),
    }
    shaped = {name: array.reshape(leaves[name].array.shape) for name, array in data.items()}
    file = to_bytes(shaped, metadata)
    end = _LENGTH + int.from_bytes(file[:_LENGTH], "little")
    header = json.loads(file[_LENGTH:end])
    header = {"__metadata__": header["__metadata__"], **header}  # it is looked for at the start
    for name, leaf in leaves.items():
        header[name]["dtype"] = DTYPES[leaf.dtype]
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # what follows is aligned
    accepted = f"at most {LARGEST_JSON:,} bytes: record fewer stages in one file"
    require(len(text) <= LARGEST_JSON, "what a recording says of its arrays", len(text), accepted)
    start = len(text).to_bytes(_LENGTH, "little") + text
    at = start.index(b"0" * _DIGEST)
    return start[:at] + _sha256(start).encode() + start[at + _DIGEST :] + file[end:]


def _stored(leaf: Leaf) -> str:
    return "<u2" if leaf.dtype == "bfloat16" else leaf.array.dtype.newbyteorder("<").str


def unsealed(path: Path, where: str) -> tuple[dict[str, Leaf], dict[str, Any]]:
    """What `sealed` made a file of.

    No more is read than the file holds, whatever its header says.

    Raises:
        UsageError: It can't be read, is no recording, is damaged or of a newer schema.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_LENGTH)
            length = int.from_bytes(start, "little")
            beginning = file.read(min(length, len(_FIRST)))
            _require_beginning(beginning, size, where)
            if length > size - _LENGTH:
                end = f"it should end at byte {_LENGTH + length:,}, the file has {size:,}"
                raise _unusable(where, f"header: {end}")
            if length > LARGEST_JSON:
                raise _unusable(where, f"header: it has {length:,} bytes")
            start += beginning + file.read(length - len(beginning))
            _require_header(start, where)
            digests, told, ends = _told(start, where)
            _require_length(size - len(start), ends, where)
            data = file.read(size - len(start))
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror or error}") from error
    return _arrays(start + data, digests, where), told


def _told(start: bytes, where: str) -> tuple[dict[str, str], dict[str, Any], dict[str, int]]:
    """What the header says: the arrays' digests, what is said about them, where each ends."""
    try:
        header = parse_json(start[_LENGTH:])
        about = header.pop("__metadata__")
        digests, told = parse_json(about["arrays"]), parse_json(about["recording"])
        ends = {name: entry["data_offsets"][1] for name, entry in header.items()}
        if not all(is_int(end, 0) for end in ends.values()):
            raise ValueError("an array that ends nowhere")
        if not all(isinstance(digest, str) for digest in digests.values()):
            raise ValueError("a digest that is none")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unusable(where, f"header: {error!r}") from error
    return digests, told, ends


def _require_length(size: int, ends: Mapping[str, int], where: str) -> None:
    """Raises unless the arrays are all that follows the header, before any of it is read."""
    total = max(ends.values(), default=0)
    if size < total:
        in_order = sorted(ends, key=lambda name: ends[name])
        first = next(name for name in in_order if ends[name] > size)
        raise _unusable(where, f"array {first!r}: the file ends {total - size:,} bytes early")
    if size > total:
        raise _unusable(where, f"end: {size - total:,} bytes follow the last array")


def _require_beginning(beginning: bytes, size: int, where: str) -> None:
    """Raises unless a file begins as recordings do; what is shorter was cut."""
    if not _FIRST.startswith(beginning) or (beginning == b"" and size >= _LENGTH):
        raise UsageError(
            f"{where} does not begin as the files of parity.record do: it is something else, or "
            "its header is damaged"
        )
    if len(beginning) < len(_FIRST):
        raise _unusable(where, f"header: it has {size:,} bytes, fewer than any recording")


def _require_header(start: bytes, where: str) -> None:
    """Raises unless the header is the one that was written."""
    found = _BEGINNING.match(start, _LENGTH)
    if found is None:
        raise _unusable(where, "header: it names no schema and no SHA-256")
    version, (first, last) = int(found[1]), found.span(2)
    intact = found[2].decode() == _sha256(start[:first] + b"0" * _DIGEST + start[last:])
    if version != VERSION:
        unless = "" if intact else ", unless its header is damaged"
        raise UsageError(
            f"{where} is of schema {version}{unless}, accepted is schema {VERSION}: a newer "
            "version of policy-gradient-parity wrote it, install that to read it"
        )
    if not intact:
        raise _unusable(where, "header: its SHA-256 is another than when it was written")


def _arrays(file: bytes, digests: Mapping[str, str], where: str) -> dict[str, Leaf]:
    try:
        stored = dict(safetensors.deserialize(file))
    except safetensors.SafetensorError as error:
        raise _unusable(where, f"header: {error}") from error
    if stored.keys() != digests.keys():
        raise _unusable(where, "header: the arrays and their digests have other names")
    leaves = {}
    for name, digest in digests.items():  # safetensors has an order of its own
        entry = stored[name]
        data, dtype = bytes(entry["data"]), entry["dtype"]
        if dtype not in _NAMES:
            raise UsageError(f"{where} has {name!r} of {dtype}, accepted are {', '.join(_NAMES)}")
        if _sha256(data) != digest:
            raise _unusable(where, f"array {name!r}: its SHA-256 is another than when written")
        try:
            leaves[name] = Leaf.from_bytes(_NAMES[dtype], tuple(entry["shape"]), data)
        except (ValueError, OverflowError) as error:  # no elements, of a size that no array has
            raise _unusable(where, f"array {name!r}: {error}") from error
    return leaves


def _unusable(where: str, what: str) -> UsageError:
    return UsageError(f"{where} is damaged in its {what}; record it, or copy it, again")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
