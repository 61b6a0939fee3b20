"""Files as somebody makes them who knows the formats and can compute a SHA-256.

A digest finds damage and is no signature, so what is read has to be refused for what it says too.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgcore.files.sealed_json import seal

LENGTH, NO_DIGEST = 8, "0" * 64


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it."""
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    return json.loads(data[LENGTH:end]), data[end:]


def safetensors(header: Any, tensors: bytes = b"") -> bytes:
    """A file of this header; one that is bytes already is taken as it is."""
    text = header if isinstance(header, bytes) else _text(header)
    return len(text).to_bytes(LENGTH, "little") + text + tensors


def tensor_file(header: Mapping[str, Any], tensors: bytes = b"") -> bytes:
    """A policy, a tape or a converted file with the seal that fits what it holds now."""
    plain = dict(header)
    plain["__metadata__"] = plain.get("__metadata__", {}) | {"sha256": NO_DIGEST}
    return _with_digest(safetensors(plain, tensors))


def recording(header: Mapping[str, Any], tensors: bytes = b"") -> bytes:
    """A recording whose arrays and header have the digests that fit what it holds now."""
    plain = {"__metadata__": dict(header["__metadata__"])} | dict(header)
    about = dict(plain["__metadata__"])
    arrays = {name: entry for name, entry in plain.items() if name != "__metadata__"}
    digests = {name: _digest_of(entry, tensors) for name, entry in arrays.items()}
    about |= {"sha256": NO_DIGEST, "arrays": json.dumps(digests)}
    start = safetensors({"__metadata__": about} | arrays)
    return _with_digest(start) + tensors


def checkpoint(folder: Path, **changes: Any) -> None:
    """Gives a checkpoint's checkpoint.json these entries, and the digests of its files as they are.

    (`files=…` among the changes is taken as it is.)
    """
    path = folder / "checkpoint.json"
    table = json.loads(path.read_bytes())
    del table["sha256"]
    for name in table["files"]:
        if (folder / name).is_file():
            data = (folder / name).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            table["files"][name] = {"num_bytes": len(data), "sha256": digest}
    path.write_bytes(seal(table | changes))


def _text(header: Any) -> bytes:
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()


def _digest_of(entry: Any, tensors: bytes) -> str:
    try:
        start, end = entry["data_offsets"]
        return hashlib.sha256(tensors[start:end]).hexdigest()
    except (TypeError, ValueError, KeyError):
        return NO_DIGEST


def _with_digest(data: bytes) -> bytes:
    return data.replace(NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode(), 1)
