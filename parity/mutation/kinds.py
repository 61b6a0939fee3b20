"""The kinds of systematic mistakes, each a function from a node to the changes that make it."""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping

from parity.mutation import calls, operators
from parity.mutation.edits import Change, Code
from pgcore.errors import UsageError, unknown_choice

KINDS: Mapping[str, Callable[[ast.AST, Code], Iterator[Change]]] = {
    "operators": operators.operators,
    "off-by-one": operators.off_by_one,
    "branches": operators.branches,
    "axes": calls.axes,
    "reductions": calls.reductions,
    "arguments": calls.arguments,
    "calls": calls.calls,
    "keywords": calls.keywords,
    "constants": operators.constants,
}
"""By name. Where two kinds make the same text, the first one keeps it."""


def chosen_kinds(kinds: Iterable[str] | None) -> tuple[str, ...]:
    """The names of the kinds that were asked for, all of them by default.

    Raises:
        UsageError: There is no such kind, or none was named.
    """
    if kinds is None:
        return tuple(KINDS)
    names = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for name in names:
        if name not in KINDS:
            raise unknown_choice("kinds", name, KINDS)
    if not names:
        raise UsageError(f"kinds is empty, accepted are {', '.join(KINDS)}")
    return tuple(name for name in KINDS if name in names)
