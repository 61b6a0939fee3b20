"""Where a person's code had a library make a function, which is called elsewhere.

An optimizer's `update` runs code that belongs to `optax.scale_by_rms(...)`: what is wrong there was
written where that was called, and not where its update is.
"""

import dis
import linecache
from collections.abc import Sequence
from functools import cache
from types import CodeType

Mark = tuple[CodeType, int]
"""A code object and the offset of an instruction in it."""
NAMING = frozenset(["LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL", "LOAD_NAME"])


def factory_call(library: Sequence[CodeType], caller: CodeType) -> Mark | None:
    """The one place in the caller's file at which the innermost such function was asked for.

    Args:
        library: The frames of a library's code, the innermost first, that the caller led to.
        caller: The person's code.
    """
    for code in library:
        name, closure, _ = code.co_qualname.partition(".<locals>")
        places = _named(caller.co_filename).get(name, ()) if closure else ()
        if len(places) == 1:
            return places[0]
    return None


@cache
def _named(file: str) -> dict[str, list[Mark]]:
    """By name, where a file's code names something."""
    try:
        open_ = [compile("".join(linecache.getlines(file)), file, "exec", dont_inherit=True)]
    except (SyntaxError, ValueError):
        return {}
    found: dict[str, list[Mark]] = {}
    while open_:
        code = open_.pop()
        open_ += [each for each in code.co_consts if isinstance(each, CodeType)]
        for instruction in dis.get_instructions(code):
            if instruction.opname in NAMING:
                place = code, instruction.offset
                found.setdefault(str(instruction.argval), []).append(place)
    return found
