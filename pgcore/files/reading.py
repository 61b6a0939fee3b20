"""Files as they are read: plain files alone, no larger than they may be, JSON that is no trick.

What a file says is data of somebody else's. No more of it is read than its kind can need, a pipe
or a device is never waited for, and nothing that it names is imported, run or followed.
"""

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

LARGEST_JSON = 8_000_000
"""Bytes of a JSON file, and of a header. Ours have some thousands."""
MOST_VALUES = 500_000
"""Values in one JSON text: short text can be many objects, each of which takes memory."""


class Unfit(OSError):
    """A file that is there and is not read, for what it is."""


def open_file(path: Path) -> BinaryIO:
    """Opens a plain file to be read.

    Raises:
        OSError: It cannot be opened. `Unfit` if it is a folder, a pipe or a device, of which
            reading would never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unfit(errno.EINVAL, "it is no file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, largest: int) -> bytes:
    """What a plain file of at most `largest` bytes holds.

    Raises:
        OSError: As `open_file`, and `Unfit` if it is larger.
    """
    with open_file(path) as file:
        require_size(file, largest)
        return file.read(largest)


def require_size(file: BinaryIO, largest: int) -> int:
    """How many bytes an open file has; raises an `Unfit` if they are more than `largest`."""
    size = os.fstat(file.fileno()).st_size
    if size > largest:
        raise Unfit(errno.EFBIG, f"it has {size:,} bytes, more than {largest:,}")
    return size


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says, if it says one thing and is of a sane size.

    Raises:
        ValueError: It is no JSON, has a key twice, a number that is not finite or has thousands of
            digits, is nested without end, or has more than `MOST_VALUES` values.
    """
    if isinstance(text, bytes):
        text = text.decode()
    if sum(map(text.count, "[{,")) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    try:
        return json.loads(
            text, object_pairs_hook=_each_once, parse_constant=_finite, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in table if names.count(name) > 1)
        raise ValueError(f"it has the key {twice[:100]!r} twice")
    return table


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it has the number {text[:100]}, which is not finite")
    return value
