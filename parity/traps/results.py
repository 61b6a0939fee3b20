"""Measures entries of the catalogue on the installed versions."""

import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from parity.traps.entries import Entry, Kind
from parity.traps.families import chosen
from parity.traps.isolation import isolated
from parity.traps.rule import Verdict, readable, verdict

NEEDED = ("torch", "jax", "flax", "optax")
"""Distributions without which nothing can be measured."""
MEASURED_WITH = ("torch", "jax", "jaxlib", "flax", "optax", "numpy")
DIGITS = (6, 9, 12, 17)
"""Significant digits of a value that is kept: so many that two which differ look different."""


class Result(NamedTuple):
    """What an entry gives here.

    Attributes:
        id: The entry's number.
        kind: What it claims of the installed versions: `"trap"`, `"warning"` or `"agreement"`.
        verdict: `"differ"`, `"agree"`, `"both NaN"`, or `None` if it can't be measured here.
        remedy_holds: Whether the two agree with the remedy; `None` if there is none to run.
        values: What both sides give, as plain numbers and texts.
        mended: What both sides give with the remedy; empty if there is none to run.
        reason: Why it can't be measured here; else empty.
    """

    id: str
    kind: Kind
    verdict: Verdict | None
    remedy_holds: bool | None
    values: dict[str, Any]
    mended: dict[str, Any]
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is as the entry claims."""
        if self.kind == "agreement":
            return self.verdict == "agree" and self.remedy_holds is not False
        parts = self.verdict in ("differ", "both NaN")
        return parts and self.remedy_holds is (True if self.kind == "trap" else None)

    def plain(self) -> dict[str, Any]:
        """What a machine reads."""
        return self._asdict() | {"ok": self.ok}


def run(
    ids: Iterable[str] | str | None = None, *, tell: Callable[[Result], Any] | None = None
) -> dict[str, Result]:
    """Measures entries, one after the other; each finds both frameworks as nobody has set them.

    What is set outside (float64 in JAX, subnormals in torch, rounding, seeds) is put back.

    Args:
        ids: Numbers such as `"B01"`, or letters of families; all of them by default.
        tell: Called with each result as soon as it is there.

    Raises:
        UsageError: If an id is none of the catalogue's.
        ModuleNotFoundError: If a framework is not installed.
    """
    entries = chosen(ids)
    for name in NEEDED:
        __import__(name)
    results = {}
    for entry in entries:
        results[entry.id] = measured(entry)
        if tell is not None:
            tell(results[entry.id])
    return results


def measured(entry: Entry) -> Result:
    """One entry's result. What it raises, since an interface is missing say, is its reason."""
    try:
        with isolated(float64=entry.x64):
            return _judged(entry)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Result(entry.id, entry.kind_with(versions()), None, None, {}, {}, reason)


def _judged(entry: Entry) -> Result:
    found = entry.measure()
    sides = {name: readable(value) for name, value in found.sides.items()}
    together = sides | {name: readable(value) for name, value in found.mended.items()}
    holds = verdict(*together.values()) == "agree" if found.mended else None
    return Result(
        entry.id,
        entry.kind_with(versions()),
        verdict(*sides.values(), exact=found.exact),
        holds,
        _pair(sides),
        _pair(together) if found.mended else {},
    )


def versions() -> dict[str, str]:
    """The installed releases that the values depend on, Python's first."""
    python = {"python": platform.python_version()}
    return python | {name: metadata.version(name) for name in MEASURED_WITH}


def _pair(sides: Mapping[str, Any]) -> dict[str, Any]:
    """Both sides as plain numbers, with few digits if they are enough to tell them apart."""
    found = {}
    for digits in DIGITS if verdict(*sides.values()) == "differ" else DIGITS[:1]:
        found = {name: _plain(value, digits) for name, value in sides.items()}
        first, second = found.values()
        if first != second:
            break
    return found


def _plain(value: Any, digits: int) -> Any:
    """Numbers and texts as JSON has them: what is not finite is a text."""
    if isinstance(value, dict):
        return {name: _plain(each, digits) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), digits)
    if isinstance(value, list):
        return [_plain(each, digits) for each in value]
    if isinstance(value, complex):
        return f"{value:g}"
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else str(value)
    return value
