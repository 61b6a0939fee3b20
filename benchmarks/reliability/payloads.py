"""What is put into a file that was made to do harm."""

import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability import forged

STEERING = "\x1b[2J\x1b]0;owned\x07\u202e"
"""Clears a terminal, names its window, and has what follows run from right to left."""
Payload = bytes | Callable[[], bytes]
"""What is put into a file; what is large is made when it is."""


class _Executed:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def pickles(canary: Path) -> dict[str, bytes]:
    """Pickles that make a folder when they are loaded, bare and as files that hold one."""
    found = {f"protocol {n}": pickle.dumps(_Executed(canary), n) for n in (0, 2, 5)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:  # as torch.save writes one
        file.writestr("archive/data.pkl", found["protocol 2"])
        file.writestr("archive/version", "3\n")
    array = io.BytesIO()
    np.save(array, np.array([_Executed(canary)], object), allow_pickle=True)
    return found | {"torch.save's": archive.getvalue(), "np.save's": array.getvalue()}


@cache
def bombs() -> dict[str, bytes]:
    """Some thousand bytes that would be 100 megabytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("policy.npy", bytes(10**8))
    return {"gzip": gzip.compress(bytes(10**8)), "zip": archive.getvalue()}


def not_files() -> dict[str, Callable[[Path], object]]:
    """What is there under a file's name and is none, or is another's."""
    devices = ("/dev/zero", "/dev/full", "/dev/urandom", "/etc/passwd")
    linked = {f"link to {each}": lambda path, to=each: path.symlink_to(to) for each in devices}
    return {"pipe": os.mkfifo, "folder": Path.mkdir, **linked}


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


@cache
def _many_tensors() -> bytes:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return forged.safetensors({f"layer{i}": entry for i in range(300_000)})


def headers(file: str) -> dict[str, Payload]:
    """Headers that do not fit what follows them, and claims that no machine has memory for."""
    seal = forged.recording if file == "x.parity" else forged.tensor_file
    about = {"schema": "policy-gradient-parity/1", "agent": "reinforce", "env": "CartPole-v1"}
    if file == "x.parity":
        about = {"schema": "policy-gradient-parity/recording/1", "sha256": "", "arrays": "{}"}
        about["recording"] = "{}"
    if file == "x.tape":
        about = {"schema": "policy-gradient-parity/tape/1", "agent": "reinforce"}

    def of(data: bytes, **entries: Any) -> bytes:
        return seal({"__metadata__": about} | entries, data)

    def entry(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    good = entry([2], [0, 8])
    text = json.dumps(good)
    return {
        "length 2^63": (2**63).to_bytes(8, "little") + b"{}",
        "length 2^64 - 1": (2**64 - 1).to_bytes(8, "little") + b"{}" * 100,
        "length 0": bytes(16),
        "half a header": forged.safetensors(b'{"a":{"dtype":"F32"'),
        "no table": forged.safetensors([1, 2]),
        "a header of 100 MB": lambda: (10**8).to_bytes(8, "little") + b'{"a":"' + b" " * 10**8,
        "300,000 tensors": _many_tensors,
        "nested without end": forged.safetensors(b'{"a":' + b"[" * 10**6),
        "a name twice": forged.safetensors(f'{{"a":{text},"a":{text}}}'.encode(), bytes(8)),
        "metadata of numbers": forged.safetensors({"__metadata__": {"schema": 1}, "a": good}),
        "overlapping": of(bytes(8), a=good, b=entry([2], [0, 8])),
        "out of range": of(bytes(8), a=entry([2], [0, 2**40])),
        "before the beginning": of(bytes(8), a=entry([2], [-8, 0])),
        "backwards": of(bytes(8), a=entry([2], [8, 0])),
        "between bytes": of(bytes(8), a=entry([2], [0.0, 8.0])),
        "beyond 2^64": of(bytes(8), a=entry([2], [0, 2**70])),
        "a shape of 2^62": of(bytes(8), a=entry([2**62, 4], [0, 8])),
        "a shape of 0 and 2^62": of(b"", a=entry([0, 2**62, 2**62], [0, 0])),
        "a shape below 0": of(bytes(8), a=entry([-1, -2], [0, 8])),
        "a shape that is text": of(bytes(8), a=entry("22", [0, 8])),
        "a million axes": of(bytes(4), a=entry([1] * 400_000, [0, 4])),
        "a type that is none": of(bytes(8), a=entry([2], [0, 8], "PICKLE")),
        "a type that NumPy lacks": of(bytes(2), a=entry([2], [0, 2], "F8_E4M3")),
        "a path as a name": of(bytes(8), **{"../../../outside/victim": good}),
        "steering a terminal": of(bytes(8), **{STEERING: good}),
    }


def json_bombs() -> dict[str, Payload]:
    """JSON that is short and costs much, says two things, or is no JSON."""
    return {
        "nested 1,000,000 deep": b"[" * 10**6,
        "objects 100,000 deep": b'{"a":' * 10**5 + b"1" + b"}" * 10**5,
        "100 MB of digits": lambda: b'{"seed":' + b"9" * 10**8 + b"}",
        "a million digits": b'{"seed":' + b"9" * 10**6 + b"}",
        "a million lists": b'{"seed":[' + b"[]," * 10**6 + b"[]]}",
        "a key twice": b'{"seed":1,"seed":2}',
        "NaN": b'{"learning_rate":NaN}',
        "Infinity": b'{"discount":-Infinity}',
        "1e999": b'{"discount":1e999}',
        "megabytes of text": b'{"agent":"' + b"A" * 5 * 10**6 + b'"}',
        "a YAML tag": b"!!python/object/apply:os.system ['true']\n",
        "steering a terminal": json.dumps({STEERING: 1}, ensure_ascii=False).encode(),
    }
