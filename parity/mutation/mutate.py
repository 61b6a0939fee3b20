"""`mutate`: wrong variants of a function, to be called here and now.

A variant is made by running the statement at the top of its module that defines it once more, with
the mistake in it, in a copy of the module's namespace. So decorators, defaults and the rest of a
class are as the user wrote them, a function that calls itself calls its variant, and nothing else
of the module runs again. A function inside of another is put together from its new code and the
variables that it closes over.
"""

import __future__

import ast
import importlib.abc
import importlib.util
import inspect
import linecache
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from parity.mutation.kinds import chosen_kinds
from parity.mutation.mutations import Mutation, is_of, mutations
from pgcore.errors import UsageError

ACCEPTED = "a function, a method or a class that is written in a Python file"
FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)


@dataclass(frozen=True)
class Mutant:
    """A wrong variant of a function; calling it calls the variant.

    Attributes:
        mutation: What is wrong, where, with the whole source text.
    """

    mutation: Mutation
    _make: Callable[[Mutation], Any]

    @property
    def id(self) -> str:
        """The same in every run, as long as the function is."""
        return self.mutation.id

    @property
    def kind(self) -> str:
        """The sort of mistake: `"operators"`, `"axes"`, …"""
        return self.mutation.kind

    @property
    def line(self) -> int:
        """The line of the file."""
        return self.mutation.line

    @property
    def summary(self) -> str:
        """What is wrong, in a few words."""
        return self.mutation.summary

    @property
    def diff(self) -> str:
        """A unified diff from the right source to the wrong one."""
        return self.mutation.diff

    @cached_property
    def fn(self) -> Any:
        """The variant itself, made when it is first asked for.

        Raises:
            Exception: Whatever its definition raises, if the mistake is in a default, say.
        """
        return self._make(self.mutation)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the variant returns."""
        return self.fn(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.mutation.file}:{self.line} {self.kind}: {self.summary}"


def mutate(fn: Any, *, kinds: Iterable[str] | None = None) -> list[Mutant]:
    """Systematic wrong variants of a function, a method, or all methods of a class.

    The text of its file is the truth. What wraps a function otherwise than by a decorator, as
    `step = jax.jit(f)` does, is not around its variants.

    Args:
        fn: What is written in a Python file with `def` or `class`. Methods of an object stay
            bound to it.
        kinds: The sorts of mistakes, of `parity.mutation.KINDS`; all by default.

    Raises:
        UsageError: `fn` is something else, or was changed on disk; there is no such kind.
    """
    names = chosen_kinds(kinds)
    plain = _plain(fn)
    path = _path(plain)
    text = importlib.util.decode_source(path.read_bytes())
    name = plain.__qualname__.replace("<locals>.", "")
    nested = "<locals>" in plain.__qualname__
    if nested and inspect.isclass(plain):
        raise _refused(fn, "a class inside of a function: mutate the function around it")
    if nested and plain is not _unbound(fn):
        raise _refused(fn, "decorated inside of a function: give the one without its decorator")
    try:
        found = [m for m in mutations(text, _shown(path), names) if is_of(m, name)]
    except SyntaxError as error:
        raise _refused(fn, f"of {path}, which is no Python any more: {error}") from None
    if nested:
        # Its defaults were worked out when the function around it ran.
        first = plain.__code__.co_firstlineno
        found = [m for m in found if m.line >= first]
    return [Mutant(mutation, partial(_made, fn, plain, nested)) for mutation in found]


def _plain(fn: Any) -> Any:
    """The function or class below all decorators and bindings."""
    if isinstance(fn, partial):
        raise _refused(fn, "a partial: give its .func")
    plain = inspect.unwrap(_unbound(fn)) if callable(fn) else fn
    plain = _unbound(plain)
    if inspect.isbuiltin(plain) or inspect.ismethoddescriptor(plain):
        raise _refused(fn, "a function of C, which has no source")
    if not isinstance(plain, types.FunctionType | type):
        kind = type(fn).__name__
        raise _refused(fn, f"of type {kind}: give a function, or the class of an object")
    if plain.__name__ == "<lambda>":
        raise _refused(fn, "a lambda, which has no name in its file: write it with def")
    return plain


def _unbound(fn: Any) -> Any:
    return fn.__func__ if inspect.ismethod(fn) else fn


def _path(plain: Any) -> Path:
    try:
        path = Path(inspect.getsourcefile(plain) or "")
    except TypeError:
        path = Path()
    if not path.is_file():
        raise _refused(plain, "without a source file (typed in, built in, or made by a program)")
    return path


def _refused(fn: Any, why: str) -> UsageError:
    return UsageError(f"fn is {fn!r}, {why}. Accepted is {ACCEPTED}")


def _shown(path: Path) -> str:
    here = Path.cwd()
    return path.resolve().relative_to(here).as_posix() if path.is_relative_to(here) else path.name


def _made(fn: Any, plain: Any, nested: bool, mutation: Mutation) -> Any:
    """The variant that `mutation` makes of `fn`, whose innermost function is `plain`."""
    namespace = _namespace(plain)
    flags = plain.__code__.co_flags & FUTURE if isinstance(plain, types.FunctionType) else 0
    loader = _Statement(mutation, flags)
    if nested:
        return _bound(fn, _closed(plain, loader.code, dict(namespace)))
    module = types.ModuleType(namespace.get("__name__", "mutant"))
    module.__dict__.update(namespace)
    loader.exec_module(module)
    found: Any = module
    for part in plain.__qualname__.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    if isinstance(found, types.FunctionType) and "__class__" in found.__code__.co_freevars:
        # super() looks for the class that the user's objects are of.
        cells = dict(zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True))
        new = dict(zip(found.__code__.co_freevars, found.__closure__ or (), strict=True))
        closure = tuple((new | cells)[name] for name in found.__code__.co_freevars)
        defaults, named = found.__defaults__, found.__kwdefaults__
        found = types.FunctionType(
            found.__code__, module.__dict__, found.__name__, defaults, closure
        )
        found.__kwdefaults__ = named
    return _bound(fn, found)


def _bound(fn: Any, found: Any) -> Any:
    return types.MethodType(found, fn.__self__) if inspect.ismethod(fn) else found


def _namespace(plain: Any) -> dict[str, Any]:
    if isinstance(plain, types.FunctionType):
        return plain.__globals__
    return vars(importlib.import_module(plain.__module__))


def _closed(plain: types.FunctionType, code: types.CodeType, names: dict[str, Any]) -> Any:
    """A function inside of another, with its new code and the variables of the old one."""
    found = next(each for each in _codes(code) if each.co_qualname == plain.__qualname__)
    cells = dict(zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True))
    itself = types.CellType()
    cells[plain.__name__] = itself  # one that calls itself calls the variant
    closure = tuple(cells[name] for name in found.co_freevars)
    made = types.FunctionType(found, names, plain.__name__, plain.__defaults__, closure)
    made.__kwdefaults__ = plain.__kwdefaults__
    itself.cell_contents = made
    return made


def _codes(code: types.CodeType) -> Iterable[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


class _Statement(importlib.abc.InspectLoader):
    """Lets Python's own import machinery run the one statement that a mutation is in."""

    def __init__(self, mutation: Mutation, flags: int) -> None:
        name = f"<mutant {mutation.id}>"
        tree = ast.parse(mutation.source)
        start = min(edit.start for edit in mutation.edits)
        code = mutation.code
        places = [code.start(each) for each in ast.parse(code.text).body]
        chosen = max(number for number, place in enumerate(places) if place <= start)
        flags |= any(
            isinstance(each, ast.ImportFrom) and each.module == "__future__"
            and any(alias.name == "annotations" for alias in each.names)
            for each in tree.body
        ) * __future__.annotations.compiler_flag  # fmt: skip
        only = ast.Module([tree.body[chosen]], [])
        self.code: types.CodeType = compile(only, name, "exec", flags=flags, dont_inherit=True)
        # So that tracebacks, inspect and what compiles from source see the variant's lines.
        lines = mutation.source.splitlines(keepends=True)
        linecache.cache[name] = (len(mutation.source), None, lines, name)

    def get_source(self, fullname: str) -> str | None:
        """Nothing: the code is compiled already."""
        return None

    def get_code(self, fullname: str) -> types.CodeType:
        """The code of the statement alone."""
        return self.code
