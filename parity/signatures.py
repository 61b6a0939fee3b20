"""Whether a function takes what it is to be given by name, said before it is called."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pgcore.errors import UsageError, unknown_choice


def called(function: Any) -> str:
    """What a reader knows a callable by: its name, or a lambda's file and line."""
    if not hasattr(function, "__qualname__"):
        inner = getattr(function, "func", None)  # functools.partial's
        return f"partial of {called(inner)}" if inner else type(function).__name__
    name = function.__qualname__.rpartition("<locals>.")[2]
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return function.__name__  # torch's own say that they are of a private class
    if name.endswith("<lambda>"):
        return f"lambda at {Path(code.co_filename).name}:{code.co_firstlineno}"
    return name


def require_inputs(inputs: Any, reference: Any = None) -> None:
    """Raises a `UsageError` unless `inputs` is a mapping from names."""
    accepted = "a mapping from what the functions call an input to its value"
    if not isinstance(inputs, Mapping):
        names = [*(_parameters(reference) or {"x": None})]
        example = ", ".join(f"{name!r}: …" for name in names)
        raise UsageError(
            f"inputs is of type {type(inputs).__name__}, accepted is {accepted}: {{{example}}}"
        )
    for name in inputs:
        if not isinstance(name, str):
            raise UsageError(f"inputs has the key {name!r}, accepted is {accepted}, a string")


def require_callable(role: str, function: Any, *, optional: bool = False) -> None:
    """Raises a `UsageError` for what can't be called; nothing at all may be `optional`."""
    if not callable(function) and not (optional and function is None):
        kind = type(function).__name__
        raise UsageError(f"{role} is of type {kind}, accepted is a function or a module")


def require_accepted(
    role: str, function: Callable[..., Any], names: Collection[str] | Mapping[str, str]
) -> None:
    """Raises a `UsageError` unless a function can be called with these keywords.

    Where it has other names than the inputs, `names` is a mapping from theirs to its own. What
    can't be read is not judged.
    """
    parameters = _parameters(function)
    if parameters is None:
        return
    own = names if isinstance(names, Mapping) else dict(zip(names, names, strict=True))
    given = [*own.values()]
    for parameter in parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise UsageError(
                f"the {role} takes {parameter.name!r} by position alone, accepted is a function "
                f"that takes its inputs by name: wrap it, {_wrapped(function, given)}"
            )
    by_name = {
        name: p
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    lacking = [n for n, p in by_name.items() if p.default is p.empty and n not in given]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name, called_by_it in own.items():
            if called_by_it not in by_name:
                error = unknown_choice(f"an input of the {role}", called_by_it, by_name)
                raise UsageError(f"{error}. {_remedy(role, name, lacking, by_name)}")
    if lacking:
        raise UsageError(
            f"inputs has {', '.join(given) or 'nothing'}, and the {role} needs {lacking[0]!r} too: "
            f"give it in inputs{_or_rename(role, lacking[0])}"
        )


def explained(role: str, function: Callable[..., Any], names: Collection[str]) -> Any:
    """A function whose parameters can't be read, with its `TypeError` turned into a `UsageError`.

    Any other function is returned as it is.
    """
    if _parameters(function) is not None:
        return function

    def call(**inputs: Any) -> Any:
        try:
            return function(**inputs)
        except TypeError as error:
            raise UsageError(
                f"the {role}, {called(function)}, raised TypeError: {error}. It is called with "
                f"{', '.join(names)} by name; if it does not take these, wrap it: "
                f"{_wrapped(function, names)}"
            ) from error

    return call


def _parameters(function: Any) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(getattr(function, "forward", function)).parameters
    except (TypeError, ValueError):
        return None


def _wrapped(function: Any, names: Collection[str]) -> str:
    arguments = ", ".join(names)
    return f"lambda {arguments}: {called(function)}({arguments})"


def _remedy(role: str, name: str, lacking: list[str], parameters: Collection[str]) -> str:
    close = difflib.get_close_matches(name, parameters, n=1)
    guess = lacking[0] if len(lacking) == 1 else close[0] if close else "…"
    if role == "candidate":
        return f"Say what the candidate calls it: rename={{{name!r}: {guess!r}}}"
    return (
        f"Inputs go by the reference's names: call it {guess!r}, and give "
        f"rename={{{guess!r}: {name!r}}} if the candidate calls it {name!r}"
    )


def _or_rename(role: str, name: str) -> str:
    return f", or say in rename= which input is called {name!r}" if role == "candidate" else ""
