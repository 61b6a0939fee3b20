"""Safetensors whose bytes depend on what they hold, and in which no byte can change unseen.

A sealed file has in its metadata `sha256`, the SHA-256 of the file with 64 zeros in that place.
Every reader of safetensors reads it. (A digest finds damage. It is no signature.)
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load, save

from pgcore.errors import UsageError
from pgcore.files.reading import LARGEST_JSON, open_file, parse_json, require_size

LARGEST_FILE = 2**28
"""Bytes of a policy or of a state; the widest layers that a run can have need less."""
SEAL = "sha256"
"""The metadata's entry."""
_LENGTH = 8
"""A file begins with the length of its header, in so many bytes."""
_NO_DIGEST = "0" * 64

Contents = tuple[dict[str, np.ndarray], dict[str, str]]
"""Tensors by name, and metadata."""


def to_bytes(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], *, seal: bool = False
) -> bytes:
    """A safetensors file with the metadata in its own order.

    (The library draws a new order on every run.) `seal` adds the entry `sha256` to it.
    """
    metadata = {name: value for name, value in metadata.items() if name != SEAL or not seal}
    if seal:
        metadata[SEAL] = _NO_DIGEST
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # ascontiguousarray makes one axis of none.
    contiguous = {name: array.reshape(tensors[name].shape) for name, array in contiguous.items()}
    data = save(contiguous, dict(metadata) or None)
    length = int.from_bytes(data[:_LENGTH], "little")
    header = json.loads(data[_LENGTH : _LENGTH + length])
    if metadata:
        header["__metadata__"] = dict(metadata)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    data = data[:_LENGTH] + text.ljust(length) + data[_LENGTH + length :]
    return _with_digest(data, _NO_DIGEST, hashlib.sha256(data).hexdigest()) if seal else data


def from_bytes(
    data: bytes, where: str = "the file", known: Collection[str] | None = None
) -> Contents:
    """The tensors of a safetensors file and its metadata, both in the file's order.

    Args:
        data: The file.
        where: What to call it.
        known: What the metadata may have beside its seal; None takes anything.

    Raises:
        UsageError: It is no such file, is damaged, or holds numbers of a type that NumPy lacks.
    """
    header = _header(data, len(data), where)
    metadata = header.pop("__metadata__", {})
    unknown = sorted(set(metadata) - {*known, SEAL}) if known is not None else []
    if unknown:
        raise UsageError(
            f"{where} is damaged, or a newer version's: its metadata has {unknown[0]!r}"
        )
    if SEAL in metadata and not _is_sealed(data, metadata[SEAL]):
        raise UsageError(
            f"{where} is damaged: it is not what was written (by its SHA-256); take {SEAL!r} out "
            "of its metadata if you changed it yourself"
        )
    try:
        tensors = load(data)
        return {name: tensors[name] for name in header}, metadata
    except KeyError as error:
        raise UsageError(f"{where} has {error} numbers, which NumPy lacks") from error
    except (safetensors.SafetensorError, ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{where} cannot be read: {error}") from error


def read_tensors(
    path: Path, where: str, known: Collection[str] | None = None, largest: int | None = None
) -> Contents:
    """`from_bytes` of a file, of which no more is read than its header says.

    Args:
        path: The file.
        where: What to call it.
        known: As in `from_bytes`.
        largest: Bytes that it may have; None takes any number.

    Raises:
        UsageError: It cannot be read, is larger, or is as in `from_bytes`.
    """
    try:
        with open_file(path) as file:
            size = require_size(file, largest if largest is not None else 2**63)
            start = file.read(_LENGTH)
            start += file.read(min(int.from_bytes(start, "little"), LARGEST_JSON))
            _header(start, size, where)
            return from_bytes(start + file.read(size - len(start)), where, known)
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror or error}") from error


def _header(start: bytes, size: int, where: str) -> dict[str, Any]:
    """The header that a file of `size` bytes starts with; a `UsageError` unless it adds up."""
    length = int.from_bytes(start[:_LENGTH], "little")
    if size < _LENGTH or length > size - _LENGTH or length > LARGEST_JSON:
        raise UsageError(
            f"{where} cannot be read: it is no safetensors file, or cut: its header would have "
            f"{length:,} bytes, and it has {size:,}"
        )
    try:
        header = parse_json(start[_LENGTH : _LENGTH + length])
        metadata = header.get("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that is no text")
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((entry["data_offsets"][1] for entry in entries), default=0)
        if end != size - _LENGTH - length:
            raise ValueError(f"tensors of {end} bytes, where {size - _LENGTH - length:,} follow")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{where} cannot be read: its header is damaged: {error}") from error
    return header


def _is_sealed(data: bytes, digest: str) -> bool:
    if not digest.isascii():  # half of a surrogate pair has no bytes
        return False
    return hashlib.sha256(_with_digest(data, digest, _NO_DIGEST)).hexdigest() == digest


def _with_digest(data: bytes, before: str, after: str) -> bytes:
    """The file with another text in the place of its digest."""
    found, put = (f'"{SEAL}":"{digest}"'.encode() for digest in (before, after))
    return data.replace(found, put, 1)
