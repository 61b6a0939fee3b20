"""Safetensors whose bytes depend on what they hold, and on nothing else."""

import json
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import load, save

_LENGTH = 8
"""A file begins with the length of its header, in so many bytes."""


def to_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with the metadata in its own order.

    (The library draws a new order on every run.)
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # ascontiguousarray makes one axis of none.
    contiguous = {name: array.reshape(tensors[name].shape) for name, array in contiguous.items()}
    data = save(contiguous, dict(metadata) or None)
    header, length = _header(data)
    if metadata:
        header["__metadata__"] = dict(metadata)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return data[:_LENGTH] + text.ljust(length) + data[_LENGTH + length :]


def from_bytes(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a safetensors file and its metadata, both in the file's order.

    Raises:
        SafetensorError: It is no such file, or damaged.
        KeyError: It holds numbers of a type that NumPy lacks.
    """
    tensors = load(data)
    header, _ = _header(data)
    metadata = header.pop("__metadata__", {})
    return {name: tensors[name] for name in header}, metadata


def _header(data: bytes) -> tuple[dict, int]:
    length = int.from_bytes(data[:_LENGTH], "little")
    return json.loads(data[_LENGTH : _LENGTH + length]), length
