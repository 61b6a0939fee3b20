"""What a trap of the catalogue is called, and how it is mended: the catalogue alone says so."""

from collections.abc import Callable

from parity.locate.signatures.clues import Clues, Found, Signature
from parity.traps.families import catalogue


def catalogued(trap: str, check: Callable[[Clues], Found | None]) -> Signature:
    """The signature of an entry of the catalogue."""
    entry = catalogue()[trap]
    return Signature(trap, entry.title, entry.remedy, check)


def named(trap: str) -> tuple[str, str, str]:
    """What a `Found` says of an entry of the catalogue: its remedy, number and title."""
    entry = catalogue()[trap]
    return entry.remedy, trap, entry.title
