"""The tables that were measured and committed, and what has moved since.

A *move* is a verdict that is another one, a remedy that no longer holds or now does, an entry that
can't be measured any more or only now. The values themselves may be others by rounding, by another
processor or another random stream: none of that is a move as long as the verdict stands.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple, get_args

from parity.traps.entries import release
from parity.traps.results import Result, versions

Name = Literal["newest", "pinned", "lowest"]
NAMES: tuple[Name, ...] = get_args(Name)
"""The committed tables: of the newest releases that the project accepts, of `constraints.txt`, and
of the lowest that it accepts."""
DECISIVE = ("jax", "torch", "flax", "optax")
"""A table is of the installed versions if these are the same; what follows `+` does not count. If
no table is, they decide in this order which is the nearest."""


class Table(NamedTuple):
    """Results on certain versions.

    Attributes:
        name: One of `NAMES`.
        versions: The releases that it was measured with, Python's included.
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
    """The committed tables by name, in the order of `NAMES`."""
    folder = resources.files("parity.traps") / "tables"
    found = {}
    for name in NAMES:
        kept = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        found[name] = Table(name, kept["versions"], kept["results"])
    return found


def nearest() -> Table:
    """The table of the installed versions, or the nearest to them.

    That is the one whose minor release of jax is the installed one; of several such, the one whose
    torch's is, and so on; of equals, the first of `NAMES`.
    """
    installed = versions()

    def likeness(table: Table) -> tuple[bool, ...]:
        minors = (_same(table.versions, installed, name, digits=2) for name in DECISIVE)
        return is_of_installed(table), *minors

    return max(tables().values(), key=likeness)


def is_of_installed(table: Table) -> bool:
    """Whether a table was measured with what is installed."""
    installed = versions()
    return all(_same(table.versions, installed, name) for name in DECISIVE)


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
    """A verdict and its remedy's in words. What agrees is in no need of being mended."""
    if verdict is None:
        return "not measurable here"
    if remedy_holds is False:
        return f"{verdict}, and the remedy does not hold"
    return f"{verdict}, mended" if remedy_holds and verdict != "agree" else verdict


def as_table(results: Mapping[str, Result]) -> dict[str, Any]:
    """What is committed of results, with the installed versions."""
    return {
        "versions": versions(),
        "results": {id: result.plain() for id, result in results.items()},
    }


def _same(
    first: Mapping[str, str], second: Mapping[str, str], name: str, digits: int | None = None
) -> bool:
    """Whether two have the same release of a distribution, to so many numbers of it."""
    return release(first[name])[:digits] == release(second[name])[:digits]
