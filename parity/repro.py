"""Programs that repeat a comparison: no Hypothesis, no pytest, the inputs written into them."""

import base64
import importlib
import io
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pgcore.errors import UsageError

LINE = 96
"""Characters of encoded arrays in a line."""


def script(
    name: str,
    functions: Mapping[str, Callable[..., Any] | None],
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> str:
    """A program that calls `parity.check` and exits with 1 if the two still part.

    Args:
        name: What was compared.
        functions: `reference`, `candidate` and, if there is one, `oracle`.
        inputs: As they were given to `parity.check`.
        options: The other arguments of `parity.check`, as plain values.

    Raises:
        UsageError: A function can't be imported by another program.
    """
    given = {role: function for role, function in functions.items() if function is not None}
    imports = {role: _import(role, function) for role, function in given.items()}
    arrays: dict[str, np.ndarray] = {}
    literal, classes = _literal(inputs, "", arrays)
    found = [*imports.values(), *sorted(classes)]
    folders = sorted({folder for folder, _ in found if folder})
    data = io.BytesIO()
    numbered: dict[str, Any] = {f"a{i}": array for i, array in enumerate(arrays.values())}
    np.savez_compressed(data, **numbered)
    encoded = "\n".join(textwrap.wrap(base64.b64encode(data.getvalue()).decode(), LINE))
    arguments = {role: role for role in given if role == "oracle"}
    arguments |= {key: repr(value) for key, value in {**options, "name": name}.items()}
    call = ", ".join(f"{key}={value}" for key, value in arguments.items())
    lines = [
        '"""Repeats a comparison of `parity.check` on the inputs on which it was made."""',
        "",
        "import base64",
        "import io",
        "import sys",
        "",
        "import numpy as np",
        "",
        *(f"sys.path.insert(0, {folder!r})" for folder in folders),
        "import parity",
        *(line for _, line in found),
        "",
        f'ARRAYS = """\n{encoded}\n"""',
        "a = np.load(io.BytesIO(base64.b64decode(ARRAYS)))",
        f"inputs = {literal}",
        f"report = parity.check(reference, candidate, inputs, {call})",
        "print(report)",
        "sys.exit(not report.ok)",
    ]
    return "\n".join(lines) + "\n"


def _import(role: str, function: Callable[..., Any]) -> tuple[str, str]:
    """The folder that has a function's package, if it is not installed, and the line to import."""
    module, qualname = _home(function)
    if module in (None, "__main__") or "<" in qualname or not _found(module, qualname, function):
        raise UsageError(
            f"{role} is {function!r}, accepted is what stands at the top of a module, so that "
            "another program can import it: a function there, or a network that is made there"
        )
    first, *rest = qualname.split(".")
    line = f"from {module} import {first} as {role if not rest else '_' + role}"
    if rest:
        line += f"\n{role} = _{role}.{'.'.join(rest)}"
    file = getattr(importlib.import_module(module), "__file__", None)
    if file is None or "site-packages" in file:
        return "", line
    path = Path(file).resolve()
    depth = len(module.split(".")) - (path.name != "__init__.py")
    return str(path.parents[depth]), line


def _home(function: Any) -> tuple[str | None, str]:
    """The Python module that has it, and its name there. An instance knows neither."""
    if hasattr(function, "__qualname__"):
        return getattr(function, "__module__", None), function.__qualname__
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is function and name != "__main__":
                return name, attribute
    return None, ""


def _found(module: str, qualname: str, function: Callable[..., Any]) -> bool:
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found is function


def _literal(
    tree: Any, path: str, arrays: dict[str, np.ndarray]
) -> tuple[str, set[tuple[str, str]]]:
    """Python for a tree of arrays and constants, and the imports that it needs."""
    if isinstance(tree, Mapping):
        parts = {key: _literal(each, f"{path}/{key}", arrays) for key, each in tree.items()}
        text = ", ".join(f"{key!r}: {part}" for key, (part, _) in parts.items())
        return f"{{{text}}}", set().union(*(classes for _, classes in parts.values()))
    if isinstance(tree, tuple | list):
        parts = [_literal(each, f"{path}/{i}", arrays) for i, each in enumerate(tree)]
        text = "".join(f"{part}, " for part, _ in parts)
        classes = set().union(*(found for _, found in parts))
        if hasattr(tree, "_fields"):
            alias = f"Class{len(classes)}_{len(path)}"
            return f"{alias}({text})", classes | {_import(alias, type(tree))}
        return (f"[{text}]" if isinstance(tree, list) else f"({text})"), classes
    if isinstance(tree, float):
        return f"float({str(tree)!r})", set()  # nan and inf are no Python
    if not hasattr(tree, "shape"):
        return repr(tree), set()
    arrays[path] = np.array(tree.detach().cpu() if hasattr(tree, "detach") else tree)
    return f"a['a{len(arrays) - 1}']", set()
