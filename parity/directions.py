"""The directions in which the processor rounds."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_DIRECTIONS = {
    "x86_64": (0x800, 0x400, 0xC00),
    "aarch64": (0x400000, 0x800000, 0xC00000),
}
"""C's FE_UPWARD, FE_DOWNWARD and FE_TOWARDZERO, by processor."""


def rounding_directions() -> tuple[int, ...]:
    """The directions that `rounding` can set here, besides to nearest; empty if none."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return _DIRECTIONS.get(machine, ()) if _floating_point_environment() else ()


@contextmanager
def rounding(direction: int) -> Iterator[None]:
    """Rounds this thread's floating-point operations in a direction, then as before."""
    environment = _floating_point_environment()
    before = 0 if environment is None else environment.fegetround()
    if environment is None or environment.fesetround(direction) != 0:
        raise RuntimeError(f"the rounding direction {direction:#x} can't be set here")
    try:
        yield
    finally:
        environment.fesetround(before)


@cache
def _floating_point_environment() -> Any:
    """The C library, if it can set the rounding direction."""
    if platform.system() not in ("Linux", "Darwin"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "fesetround") else None
