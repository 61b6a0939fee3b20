"""What is recorded as a function: a function, or a module of torch, Flax or Equinox, as one."""

import inspect
import linecache
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from parity import modules, sides
from parity.arrays import cast, is_floating
from parity.convert.layouts import Kinds, Names, kinds_of
from parity.inputs import Inputs
from parity.locate.places import Location
from parity.recordings.leaves import paths
from parity.recordings.running import Framework, Runner
from parity.signatures import require_accepted, require_callable
from pgcore.errors import UsageError, unknown_choice

OF_KIND = {"torch": "torch", "linen": "jax", "nnx": "jax", "equinox": "jax"}
"""What the modules of each library compute in."""


class Asked(NamedTuple):
    """How a function is to be called.

    Attributes:
        rename: What it calls an input or an output, by what the recording calls it.
        names: For a JAX module with weights by torch's names, its modules by torch's, as in
            `parity.convert`.
        kinds: The kinds of these; `None` for weights by its own names.
        rounded: Whether inputs are rounded to float32, or stay as they are.
    """

    rename: Mapping[str, str] = {}
    names: Names | None = None
    kinds: Kinds | None = None
    rounded: bool = True


AS_IT_IS = Asked()


def runner(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    framework: str,
    place: Location,
    role: str,
    asked: Asked = AS_IT_IS,
) -> Runner:
    """Checks a function and what it is to be given.

    Raises:
        UsageError: The framework is unknown, the function can't be called with these inputs by
            name, none of them is a floating array, or a module lacks a weight.
    """
    if framework not in get_args(Framework):
        raise unknown_choice("framework", framework, get_args(Framework))
    require_callable(role, function)
    kind = modules.kind(function)
    if kind and inspect.isclass(function):
        raise UsageError(f"{role} is the class {function.__name__}, accepted is a module of it")
    if kind and OF_KIND[kind] != framework:
        raise UsageError(
            f"{role} is a {kind} module to be run in {framework}, accepted is "
            f"framework={OF_KIND[kind]!r}, or a function of its inputs, the weights among them"
        )
    by_torch = asked.names is not None or asked.kinds is not None
    if by_torch and kind not in ("linen", "nnx", "equinox"):
        raise UsageError(
            f"names and kinds are given for the {role}, which is no module of Flax or Equinox, "
            "accepted is None: no weights are converted"
        )
    as_function, inputs, of_map = _as_function(function, kind, inputs, role, asked)
    names = {name: asked.rename.get(name, name) for name in inputs}
    if kind:
        names.pop(modules.PARAMS, None)
    require_accepted(role, _called(function, kind), names)
    given = Inputs(inputs)
    if not asked.rounded:
        as_given = {path: leaf for path, leaf in paths(inputs, role).items() if is_floating(leaf)}
        given.arrays |= cast(as_given, np.float64)
        given.notes.clear()
    notes = (*given.notes, *modules.notes(function, inputs), *of_map)
    call = given.call_renamed(as_function, asked.rename)
    kinds = _kinds(function, kind, inputs, asked)
    return Runner(framework, given, call, role, place, notes, kinds)  # pyright: ignore[reportArgumentType]


def _as_function(
    function: Any, kind: str, inputs: Mapping[str, Any], role: str, asked: Asked
) -> tuple[Callable[..., Any], Mapping[str, Any], list[str]]:
    """A module as a function of `params` and its inputs, its weights among these, and notes."""
    if asked.names is not None or asked.kinds is not None:
        params = inputs.get(modules.PARAMS)
        if not isinstance(params, Mapping):
            raise UsageError(
                f"names and kinds are given for the {role}, and its inputs lack 'params', accepted "
                "are the torch module's weights, by torch's names"
            )
        found = modules.layout_for(function, params, [*params], asked.names or {}, asked.kinds)
        return modules.jax_function(function, found), inputs, modules.merged_in(found)
    given = modules.with_own_params(function, inputs)
    if kind in ("", "torch"):
        return modules.reference_function(function), given, []
    if modules.PARAMS in given:  # NNX counts layers by integers, a file by text
        given[modules.PARAMS] = sides.nested(sides.flat(given[modules.PARAMS]))
    return modules.jax_function(function, None), given, []


def _kinds(
    function: Any, kind: str, inputs: Mapping[str, Any], asked: Asked
) -> Mapping[str, str] | None:
    """What a map to another framework has to know, which no array says."""
    params = inputs.get(modules.PARAMS, {})
    if kind == "torch":
        return kinds_of(function, [*params])
    if isinstance(asked.kinds, str):
        return dict.fromkeys((name.rpartition(".")[0] for name in params), asked.kinds)
    return asked.kinds or ({} if asked.names is not None else None)


def taken(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    rename: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Those of the inputs that a function takes by name, all if it can't be read.

    A module takes `params` too.
    """
    kind = modules.kind(function)
    try:
        parameters = inspect.signature(_called(function, kind)).parameters
    except (TypeError, ValueError):
        return dict(inputs)
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return dict(inputs)
    accepted: Collection[str] = {*parameters, *([modules.PARAMS] if kind else [])}
    return {
        name: value for name, value in inputs.items() if (rename or {}).get(name, name) in accepted
    }


def _called(function: Any, kind: str) -> Any:
    """What a module's arguments are the arguments of."""
    if kind in ("linen", "nnx", "equinox"):
        return function.__call__
    return getattr(function, "forward", function)


def written(function: Any) -> Location | None:
    """The line at which a function, or what a module computes, is defined."""
    inner = inspect.unwrap(_called(function, modules.kind(function)))
    code = getattr(inner, "__code__", None)
    return None if code is None else place(code.co_filename, code.co_firstlineno)


def place(file: str, line: int) -> Location:
    """Without what only this machine has: a path from the working folder, or the name alone."""
    code = linecache.getline(file, line).strip()
    path = Path(file)
    inside = path.is_relative_to(Path.cwd())
    return Location(str(path.relative_to(Path.cwd())) if inside else path.name, line, code)
