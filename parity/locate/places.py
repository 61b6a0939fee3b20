"""Where in a person's source a value was computed: frames of the stack, and lines of text.

A *mark* is a code object and the offset of an instruction in it, which is what both Python's frames
and JAX's tracebacks have; the stack of marks is the innermost first. What belongs to a framework or
to the standard library is no place of a person's, and neither is what runs the comparison.
"""

import importlib.util
import inspect
import linecache
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from parity.locate.factories import Mark, factory_call

FRAMEWORKS = (
    *("torch", "jax", "jaxlib", "flax", "optax", "numpy", "chex", "equinox", "distrax", "rlax"),
    *("jaxtyping", "beartype", "typeguard", "einops", "opt_einsum", "pytest", "_pytest", "pluggy"),
)
"""Packages whose lines are not shown: what a person wrote is the line that calls them."""
OURS = ("suite", "mutants")
"""The folders of `parity` that hold code to be compared, and none that compares."""


class Location(NamedTuple):
    """A place in a person's source.

    Attributes:
        file: The file's name, as Python has it.
        line: The line, from 1.
        code: Its text, without indentation.
        column: Where the expression begins in `code`, from 0, if that is known.
        end_column: Where it ends; at the line's end, if it goes on.
        function: The function that the line is in.
        module: The path of the module that computes there, `"body.0"`, if one does.
        iteration: How often a loop had come by before, if it is in one.
    """

    file: str
    line: int
    code: str
    column: int | None = None
    end_column: int | None = None
    function: str = ""
    module: str = ""
    iteration: int | None = None

    def __str__(self) -> str:
        inside = f" in {self.module}" if self.module else ""
        at = "" if self.iteration is None else f", iteration {self.iteration}"
        return f"{self.file}:{self.line}{inside}{at}: {self.code}"


def own_marks(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """The marks of a person's code, up to where the comparison called it.

    Of a function that a library made, the innermost is where it was asked for.
    """
    kept: list[Mark] = []
    library: list[CodeType] = []
    for code, offset in marks:
        owner = _owner(code.co_filename)
        if owner == "parity":
            break
        if owner == "person":
            if not kept and library and (made := factory_call(library, code)) is not None:
                kept.append(made)
            kept.append((code, offset))
        elif not kept and not code.co_filename.startswith(_wrapping()):
            library.append(code)
    return tuple(kept)


WRAPPING = ("torch", "jax", "numpy")
"""Frameworks whose functions that make functions, `jax.vmap` say, only wrap a person's."""


@cache
def _wrapping() -> tuple[str, ...]:
    return tuple(folder for folder in _libraries() if Path(folder).name in WRAPPING)


@cache
def _owner(file: str) -> str:
    """`"person"`, `"parity"` or `"library"`: whose code a file holds."""
    if file.startswith("<"):  # a cell of a notebook has lines, generated code has none
        return "person" if linecache.getlines(file) or file == "<stdin>" else "library"
    if any(file.startswith(f"{_PARITY}{folder}/") for folder in OURS):
        return "person"
    if file.startswith(_PARITY):
        return "parity"
    return "library" if file.startswith(_libraries()) else "person"


_PARITY = f"{Path(__file__).resolve().parent.parent}/"


@cache
def _libraries() -> tuple[str, ...]:
    found = []
    for name in FRAMEWORKS:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found.append(f"{folder}/")
    paths = sysconfig.get_paths()
    # Site-packages lie inside the standard library's folder, and may hold a person's package.
    standard = Path(paths["stdlib"])
    inside = [each for each in standard.iterdir() if each.name != "site-packages"]
    return (*found, *(f"{each}/" if each.is_dir() else str(each) for each in inside))


class Span(NamedTuple):
    """The lines and columns of an expression; columns count bytes, as Python has them."""

    line: int
    end_line: int
    column: int | None
    end_column: int | None


@cache
def _spans(code: CodeType) -> list[tuple[int | None, ...]]:
    return list(code.co_positions())


def span(mark: Mark) -> Span:
    """The expression that was being computed there."""
    code, offset = mark
    positions = _spans(code)
    line, end_line, column, end_column = positions[min(offset // 2, len(positions) - 1)]
    line = line or code.co_firstlineno
    return Span(line, end_line or line, column, end_column)


def location(mark: Mark, *, module: str = "", iteration: int | None = None) -> Location:
    """The place of a mark, with its text."""
    file, where = mark[0].co_filename, span(mark)
    text = linecache.getline(file, where.line).rstrip("\n")
    code = text.strip()
    indent = len(text) - len(text.lstrip())
    column = end_column = None
    if where.column is not None and where.end_column is not None and code:
        start = len(text.encode()[: where.column].decode(errors="ignore"))
        end = len(text.encode()[: where.end_column].decode(errors="ignore"))
        column = max(start - indent, 0)
        end_column = end - indent if where.end_line == where.line else len(code)
    function = mark[0].co_qualname.replace("<locals>.", "")
    return Location(file, where.line, code, column, end_column, function, module, iteration)


def is_own(code: CodeType) -> bool:
    """Whether code is a person's."""
    return _owner(code.co_filename) == "person"


def line_of(code: CodeType, line: int) -> Location:
    """A line of a function as a place."""
    text = linecache.getline(code.co_filename, line).strip()
    return Location(code.co_filename, line, text, function=code.co_qualname)


def of_callable(function: Any) -> Location:
    """Where a callable is defined; of one that has no source its name."""
    code = code_of(function)
    if code is not None:
        return location((code, 0))._replace(column=None, end_column=None)
    function = inspect.unwrap(function)
    name = getattr(function, "__qualname__", type(function).__name__)
    of = getattr(function, "__module__", None) or type(function).__module__
    return Location(f"<{of}>", 0, name)


def code_of(function: Any) -> CodeType | None:
    """The code that a callable runs, if it is a person's."""
    function = inspect.unwrap(function)
    owner = function if hasattr(function, "__code__") else getattr(function, "func", function)
    forward = getattr(type(owner), "forward", None) or type(owner).__call__
    code = getattr(owner, "__code__", None) or getattr(forward, "__code__", None)
    return code if code is not None and is_own(code) else None
