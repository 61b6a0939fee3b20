"""Programs that repeat a comparison: no Hypothesis, no pytest, the inputs written into them."""

import base64
import importlib
import io
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
    functions: Mapping[str, Any],
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    call: str = "check",
) -> str:
    """A program that calls `parity.check` and exits with 1 if the two still part.

    Args:
        name: What was compared.
        functions: `reference`, `candidate` and, if there is one, `oracle`: each a callable, or a
            mapping from stage to callable.
        inputs: As they were given to `parity.check`.
        options: The other arguments of `parity.check`, as plain values.
        call: The function of `parity` that is called, if not `check`.

    Raises:
        UsageError: A function can't be imported by another program.
    """
    given = {role: function for role, function in functions.items() if function is not None}
    stages = {role: each for role, each in given.items() if isinstance(each, Mapping)}
    single = {role: function for role, function in given.items() if role not in stages}
    for role, each in stages.items():
        single |= {f"{role}_{i}": function for i, function in enumerate(each.values())}
    imports = {role: _import(role, function) for role, function in single.items()}
    arrays: dict[str, np.ndarray] = {}
    literal, classes = _literal(inputs, "", arrays)
    found = [*imports.values(), *sorted(classes)]
    folders = sorted({folder for folder, _ in found if folder})
    data = io.BytesIO()
    numbered: dict[str, Any] = {f"a{i}": array for i, array in enumerate(arrays.values())}
    np.savez_compressed(data, **numbered)
    encoded = "\n".join(textwrap.wrap(base64.b64encode(data.getvalue()).decode(), LINE))
    arguments = {role: role for role in given if role not in ("reference", "candidate")}
    arguments |= {key: repr(value) for key, value in {**options, "name": name}.items()}
    keywords = ", ".join(f"{key}={value}" for key, value in arguments.items())
    lines = [
        '"""Repeats a comparison of `parity` on the inputs on which it was made."""',
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
        *(f"{role} = {_stages(role, each)}" for role, each in stages.items()),
        "",
        f'ARRAYS = """\n{encoded}\n"""',
        "a = np.load(io.BytesIO(base64.b64decode(ARRAYS)))",
        f"inputs = {literal}",
        f"report = parity.{call}(reference, candidate, inputs, {keywords})",
        "print(report)",
        "sys.exit(not report.ok)",
    ]
    return "\n".join(lines) + "\n"


def _stages(role: str, stages: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{stage!r}: {role}_{i}" for i, stage in enumerate(stages)) + "}"


def _import(role: str, function: Callable[..., Any]) -> tuple[str, str]:
    """The folder that has a function's package, if it is not installed, and the line to import."""
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or "<" in qualname or not _found(module, qualname, function):
        raise UsageError(
            f"{role} is {function!r}, accepted is what stands at the top of a module, so that "
            "another program can import it"
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
