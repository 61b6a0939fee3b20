"""All entries by number, and the choice of some of them."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType

from parity.traps import (
    adams,
    arithmetic,
    comparators,
    distributions,
    kinks,
    layers,
    losses,
    optimizers,
    randomness,
    statistics,
    types,
)
from parity.traps.entries import Entry
from pgcore.errors import UsageError

FAMILIES = {
    "A": ("optimizers", (optimizers, adams)),
    "B": ("statistics and normalisation", (statistics,)),
    "C": ("distributions and randomness", (distributions, randomness)),
    "D": ("gradients at kinks", (kinks,)),
    "E": ("layers and losses", (layers, losses)),
    "F": ("dtypes, indices and buffers", (types,)),
    "G": ("floating-point arithmetic", (arithmetic,)),
    "H": ("comparators", (comparators,)),
}
"""By letter: what the family is about, and the modules that have it."""


@cache
def catalogue() -> Mapping[str, Entry]:
    """Every entry, by its number. This loads neither framework."""
    found = {
        each.id: each
        for _, modules in FAMILIES.values()
        for module in modules
        for each in vars(module).values()
        if isinstance(each, Entry)
    }
    return MappingProxyType(dict(sorted(found.items())))


def entry(id: object) -> Entry:
    """The entry of that number, in capitals or not.

    Raises:
        UsageError: If there is none; entries that are near by number or title are offered.
    """
    known = catalogue()
    if isinstance(id, str) and id.strip().upper() in known:
        return known[id.strip().upper()]
    raise UsageError(
        f"id is {id!r}, accepted is a number of the catalogue, {next(iter(known))} to "
        f"{[*known][-1]}: parity traps lists them{_near(str(id).strip())}"
    )


def chosen(ids: Iterable[str] | str | None) -> list[Entry]:
    """The entries of these numbers and families, each once and in order; all if None."""
    if ids is None:
        return [*catalogue().values()]
    given = [ids] if isinstance(ids, str) else [*ids]
    if not given:
        raise UsageError("ids is empty, accepted are numbers such as B01, and letters of families")
    found: dict[str, Entry] = {}
    for each in given:
        letter = each.strip().upper() if isinstance(each, str) else ""
        in_family = [e for e in catalogue().values() if e.family == letter]
        for one in in_family or [entry(each)]:
            found[one.id] = one
    return [found[id] for id in sorted(found)]


def _near(text: str) -> str:
    """Entries that may be meant: by number, or by a word of their titles."""
    known = catalogue()
    near = difflib.get_close_matches(text.upper(), known, n=3, cutoff=0.65)
    if len(text) > 3:
        near = [e.id for e in known.values() if text.lower() in e.title.lower()][:3] or near
    if not near:
        return ""
    return "; did you mean " + ", or ".join(f"{id} ({known[id].title})" for id in near) + "?"
