"""The tables that were measured and committed, and what has moved since.

A *move* is a verdict that is another one, a remedy that no longer holds or now does, an entry that
can't be measured any more or only now. The values themselves may be others by rounding, by another
processor or another random stream: none of that is a move as long as the verdict stands.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from parity.traps.results import Result, versions

DECISIVE = ("torch", "jax", "flax", "optax")
"""A table is of the installed versions if these are the same; what follows `+` does not count."""


class Table(NamedTuple):
    """Results on certain versions.

    Attributes:
        name: `"newest"`, or `"lowest"`.
        versions: The releases that it was measured with.
        results: What a machine reads of each result, by number.
    """

    name: str
    versions: Mapping[str, str]
    results: Mapping[str, Mapping[str, Any]]

    def __str__(self) -> str:
        return f"{self.name}: " + ", ".join(f"{n} {v}" for n, v in self.versions.items())


class Move(NamedTuple):
    """What is no longer as in a table.

    Attributes:
        id: The entry's number.
        before: What the table says.
        now: What was measured.
    """

    id: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.id}: was {self.before}, and is {self.now}"


@cache
def tables() -> Mapping[str, Table]:
    """The committed tables by name, the newest versions' first."""
    folder = resources.files("parity.traps") / "tables"
    found = {}
    for name in ("newest", "lowest"):
        kept = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        found[name] = Table(name, kept["versions"], kept["results"])
    return found


def nearest() -> Table:
    """The table of the installed versions; the newest's if there is none of these."""
    installed = _decisive(versions())
    known = tables()
    same = [each for each in known.values() if _decisive(each.versions) == installed]
    return (same or [*known.values()])[0]


def is_of_installed(table: Table) -> bool:
    """Whether a table was measured with what is installed."""
    return _decisive(table.versions) == _decisive(versions())


def moved(results: Mapping[str, Result], table: Table | None = None) -> list[Move]:
    """What was measured and is not as in a table; by default that of the installed versions."""
    kept = (nearest() if table is None else table).results
    found = []
    for id, result in results.items():
        before = (
            stated(kept[id]["verdict"], kept[id]["remedy_holds"]) if id in kept else "not there"
        )
        now = stated(result.verdict, result.remedy_holds)
        if before != now:
            reason = f" ({result.reason})" if result.reason else ""
            found.append(Move(id, before, now + reason))
    return found


def stated(verdict: str | None, remedy_holds: bool | None) -> str:
    """A verdict and its remedy's in words."""
    if verdict is None:
        return "not measurable here"
    remedy = {True: ", mended", False: ", and the remedy does not hold", None: ""}[remedy_holds]
    return verdict + remedy


def as_table(results: Mapping[str, Result]) -> dict[str, Any]:
    """What is committed of results, with the installed versions."""
    return {
        "versions": versions(),
        "results": {id: result.plain() for id, result in results.items()},
    }


def _decisive(found: Mapping[str, str]) -> list[str]:
    return [found.get(name, "").partition("+")[0] for name in DECISIVE]
