"""The line of a value that no operation made: an input, or a number, that is handed on as it is.

It has no line of its own. Where the code computes what belongs there, that line is shown: what it
made is not handed on. Otherwise it is the `return` of the function of the same name as the other
side's, or where the output is written by its name.
"""

from collections.abc import Callable, Iterable
from typing import Any

from parity.locate.places import Location, code_of
from parity.locate.syntax import named_in, return_of
from parity.locate.tape import Tape, Value


def line_without(
    tape: Tape, other: Value | None, alike: Iterable[int], function: Callable[..., Any], path: str
) -> Location | None:
    """Where one side hands on an output that no operation of its own made.

    Args:
        tape: That side's values.
        other: What the other side has in its place.
        alike: This side's values that are the same as that.
        function: This side's callable.
        path: The output's path.
    """
    made = [place for each in alike if (place := tape.values[each].place) is not None]
    if made:
        return made[0]
    if other is not None and other.marks and (place := _by_name(tape, other)) is not None:
        return place
    code = code_of(function)
    if code is None:
        return None
    return named_in(code, path.rpartition("/")[2]) or return_of(code)


def _by_name(tape: Tape, other: Value) -> Location | None:
    """The `return` of the innermost function that has the name of one that led to a value.

    A port keeps the names of functions.
    """
    codes = {code.co_name: code for value in tape.values for code, _ in value.marks}
    found = (codes[code.co_name] for code, _ in other.marks if code.co_name in codes)
    return next((place for code in found if (place := return_of(code)) is not None), None)
