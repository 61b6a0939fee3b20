"""A row of the table of faults."""

from collections.abc import Iterable
from typing import NamedTuple


class Try(NamedTuple):
    """One time that a fault was brought about."""

    survived: bool
    """Whether the run went on, or the file was refused, as the page says it is."""
    what: str
    """Which time it was, and what was seen: printed if it was not survived."""
    lost: int = 0
    """What was lost, in the row's unit."""


class Row(NamedTuple):
    """A fault, how often it was brought about, and what became of it."""

    fault: str
    tries: int
    survived: int
    lost: str
    """The most that one time lost, in words."""
    failures: list[str]
    """What was seen each time that it was not survived."""


def tally(fault: str, tries: Iterable[Try], unit: str = "") -> Row:
    """The row of a fault.

    Args:
        fault: What was done, as the table says it.
        tries: Each time. They may be made as they are asked for.
        unit: Of what is lost, such as "updates"; without one nothing may be.

    Raises:
        ValueError: There is no try, or something was lost and there is no unit for it.
    """
    seen = list(tries)
    most = max(each.lost for each in seen)
    if most and not unit:
        raise ValueError(f"{fault}: {most} lost: of what?")
    lost = f"at most {most:,} {unit}" if most else "nothing"
    failures = [each.what for each in seen if not each.survived]
    return Row(fault, len(seen), len(seen) - len(failures), lost, failures)
