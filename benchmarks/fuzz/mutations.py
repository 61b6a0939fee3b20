"""Changes of a file that know what a file is: of values in its JSON, of cells in its table.

Changes of bytes break a header nearly always, so that what is said in it would never be doubted.
"""

import copy
import json
import random
from typing import Any

from benchmarks.fuzz.targets import CHECKPOINT_FILES, packed, unpacked
from benchmarks.reliability import forged

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308, 5e-324, -0.0,
    "", "0", "-1", "a", "F32", "BF16", "float64", "reparam", "../../x", "\0", "\x1b[2J", "\u202e",
    "0x1p99999", "nan", "inf", "x" * 300, [], {}, [[]], [0], [1, 2], [2**62, 4], [0, 2**62],
    {"": 0},
)  # fmt: skip
"""Values that code is seldom written for."""
TEXT = (b"nan", b"inf", b"-1", b"1e999", b"", b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"9" * 5000)


def mutated(target: str, data: bytes, rng: random.Random) -> bytes:
    """Some bytes that differ from `data` in one thing or a few."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = _once(target, data, rng)
    return data


def _once(target: str, data: bytes, rng: random.Random) -> bytes:
    try:
        if rng.random() < 0.25:
            return of_bytes(data, rng)
        if target == "checkpoint":
            files = unpacked(data)
            name = rng.choice(CHECKPOINT_FILES)
            files[name] = _of_file(name, files[name], rng)
            return packed(files)
        return _of_file(target, data, rng)
    except (ValueError, LookupError, TypeError, RecursionError):  # it is no such file any more
        return of_bytes(data, rng)


def _of_file(name: str, data: bytes, rng: random.Random) -> bytes:
    if name == "metrics":
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        cells = lines[at].split(b",")
        cells[rng.randrange(len(cells))] = rng.choice(TEXT)
        lines[at] = b",".join(cells)
        return b"\n".join(lines)
    if name in ("config", "power", "system", "checkpoint.json"):
        return json.dumps(of_value(json.loads(data), rng)).encode()
    header, tensors = forged.header_of(data)
    header = of_value(header, rng)
    return forged.safetensors(header, of_bytes(tensors, rng) if rng.random() < 0.2 else tensors)


def of_value(value: Any, rng: random.Random) -> Any:
    """A tree of plain values with one of them another; JSON inside of text is a tree too."""
    value = copy.deepcopy(value)
    places = [*_places(value)]
    if not places:
        return rng.choice(ODD)
    parent, key = rng.choice(places)
    inner = parent[key]
    if isinstance(inner, str) and inner[:1] in ("{", "["):
        parent[key] = json.dumps(of_value(json.loads(inner), rng))
        return value
    match rng.randrange(5):
        case 0 if isinstance(parent, dict):
            parent[rng.choice(("", "x", "../x", "\x1b", "0", f"{key}2"))] = parent.pop(key)
        case 1:
            del parent[key]
        case 2:
            other, at = rng.choice(places)
            parent[key] = copy.deepcopy(other[at])
        case _:
            parent[key] = copy.deepcopy(rng.choice(ODD))
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Where values are: the table or list that each is in, and its key there."""
    found, waiting = [], [value]
    while waiting:
        each = waiting.pop()
        keys = (
            [*each]
            if isinstance(each, dict)
            else range(len(each))
            if isinstance(each, list)
            else ()
        )
        for key in keys:
            found.append((each, key))
            waiting.append(each[key])
    return found


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bytes more, fewer or others."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((0, 1, 1, 4, 8, 100)))
    if rng.random() < 0.5:
        return data[:at] + rng.randbytes(end - at) + data[end:]
    put = rng.choice((b"", rng.randbytes(1), rng.randbytes(8), data[:end][-8:], rng.choice(TEXT)))
    return data[:at] + put + data[end:]
