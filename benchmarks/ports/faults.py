"""A fault that a person makes when porting, as a change of text in a port's JAX side."""

from typing import NamedTuple

TABLE = "\nFAULTS = ("
"""What a port's list of faults begins with. It repeats the texts that it changes."""


class Fault(NamedTuple):
    """One fault of a port.

    Attributes:
        name: What is wrong, in a few words.
        old: Text of the port that is right; it occurs once above the list of faults.
        new: What is written in its place.
        trap: Its number in the catalogue of traps, `"B01"`, if it is one of these.
        phase: `"forward"`, or `"backward"` if every output is right and only slopes are wrong.
    """

    name: str
    old: str
    new: str
    trap: str | None = None
    phase: str = "forward"


def faulty(source: str, fault: Fault) -> str:
    """The text of a port with the fault in it; the lines above it stay where they are.

    Raises:
        ValueError: The text to be changed is not there exactly once.
    """
    port, table, rest = source.partition(TABLE)
    if (found := port.count(fault.old)) != 1:
        raise ValueError(f"{fault.name!r}: {fault.old!r} occurs {found} times, accepted is once")
    return port.replace(fault.old, fault.new) + table + rest
