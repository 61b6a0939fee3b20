"""Programs that repeat a comparison: no Hypothesis, no pytest, the inputs written into them."""

import ast
import base64
import importlib
import importlib.machinery
import io
import site
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity.signatures import called
from pgcore.errors import UsageError

LINE = 96
"""Characters of encoded arrays in a line."""
TEST_TOOLS = ("hypothesis", "pytest")

BY_FILE = '''
def load(name, file):
    """The module in a file that can't be imported by its name."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

'''


class _Import(NamedTuple):
    """How another program gets at a function or a class.

    `alias` is what it calls it, `folder` what must be on the path for that, `lines` the statements,
    `file` where it is defined, if it is not installed, and `by_file` whether it is loaded by that.
    """

    alias: str
    folder: str
    lines: str
    file: str
    by_file: bool


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
    imports = [_import(role, function) for role, function in single.items()]
    arrays: list[np.ndarray] = []
    classes: dict[type, _Import] = {}
    literal = _literal(inputs, arrays, classes)
    found = [*imports, *classes.values()]
    data = io.BytesIO()
    numbered: dict[str, Any] = {f"a{i}": array for i, array in enumerate(arrays)}
    np.savez_compressed(data, **numbered)
    encoded = "\n".join(textwrap.wrap(base64.b64encode(data.getvalue()).decode(), LINE))
    arguments = {role: role for role in given if role not in ("reference", "candidate")}
    arguments |= {key: repr(value) for key, value in {**options, "name": name}.items()}
    keywords = ", ".join(f"{key}={value}" for key, value in arguments.items())
    by_file = any(each.by_file for each in found)
    lines = [
        '"""Repeats a comparison of `parity` on the inputs on which it was made."""',
        "",
        *_notes({each.file for each in found}),
        "import base64",
        *(["import importlib.util"] if by_file else []),
        "import io",
        "import sys",
        "",
        "import numpy as np",
        "",
        f"sys.path[:0] = {_folders([each.folder for each in found])!r}",
        "import parity",
        *(BY_FILE.splitlines() if by_file else []),
        *(each.lines for each in found),
        *(f"{role} = {_stages(role, each)}" for role, each in stages.items()),
        "",
        f'ARRAYS = """\n{encoded}\n"""',
        "a = np.load(io.BytesIO(base64.b64decode(ARRAYS)))",
        f"inputs = {literal}",
        "",
        'if __name__ == "__main__":',
        f"    report = parity.{call}(reference, candidate, inputs, {keywords})",
        "    print(report)",
        "    sys.exit(not report.ok)",
    ]
    return "\n".join(lines) + "\n"


def _stages(role: str, stages: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{stage!r}: {role}_{i}" for i, stage in enumerate(stages)) + "}"


def _import(role: str, function: Callable[..., Any]) -> _Import:
    module, qualname = _named(function)
    if not module:
        raise UsageError(
            f"{role} is {called(function)}, accepted is what stands at the top of a module, so "
            "that another program can import it: a function there, or a network made there"
        )
    file = getattr(importlib.import_module(module), "__file__", None)
    if file is None or _is_installed(file):
        return _Import(role, "", _statement(module, qualname, role), "", by_file=False)
    path = Path(file).resolve()
    depth = len(module.split(".")) - (path.name != "__init__.py")
    folder = str(path.parents[depth])
    if _leads_to(module, folder, path):
        return _Import(role, folder, _statement(module, qualname, role), str(path), by_file=False)
    line = f"{role} = load({module!r}, {str(path)!r}).{qualname}"
    return _Import(role, "", line, str(path), by_file=True)


def _statement(module: str, qualname: str, role: str) -> str:
    first, *rest = qualname.split(".")
    line = f"from {module} import {first} as {role if not rest else '_' + role}"
    return f"{line}\n{role} = _{role}.{'.'.join(rest)}" if rest else line


def _named(function: Callable[..., Any]) -> tuple[str, str]:
    """Module and name under which a program finds a function; empty where there is none."""
    if not hasattr(function, "__qualname__"):
        return _home(function)
    qualname = getattr(function, "__qualname__", "")
    module = getattr(function, "__module__", None)
    if module and module != "__main__" and _found(module, qualname, function):
        return module, qualname
    name = getattr(function, "__name__", "")
    # torch's own functions say of themselves that they are in no module.
    return ("torch", name) if module is None and _found("torch", name, function) else ("", "")


def _home(instance: Any) -> tuple[str, str]:
    """The module at the top of which an instance stands, which itself knows neither."""
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is instance and name != "__main__":
                return name, attribute
    return "", ""


def _found(module: str, qualname: str, function: Callable[..., Any]) -> bool:
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found is function


def _leads_to(module: str, folder: str, path: Path) -> bool:
    """Whether a program that looks in `folder` first imports this file under this name.

    Not if a folder has a name that Python has no room for (`my-tests`), nor if it is no package
    and another package, installed or Python's own, has its name (`test`).
    """
    names = module.split(".")
    own = path.parent if path.name == "__init__.py" else path.with_suffix("")
    if not all(name.isidentifier() for name in names) or own.parts[-len(names) :] != (*names,):
        return False
    spec = importlib.machinery.PathFinder.find_spec(names[0], [folder, *sys.path])
    if spec is None or names[0] in sys.builtin_module_names:
        return False
    places = spec.submodule_search_locations or [spec.origin or ""]
    top = Path(folder, names[0] if len(names) > 1 or own is path.parent else path.name)
    return any(Path(place).resolve() == top for place in [*places][:1])


def _folders(folders: list[str]) -> list[str]:
    """What the path of the program begins with: the run's own folders, then the functions'."""
    found = [str(Path(entry).resolve()) for entry in sys.path if Path(entry).is_dir()]
    found += sorted({folder for folder in folders if folder})
    return [entry for entry in dict.fromkeys(found) if not _is_installed(entry)]


def _is_installed(path: str) -> bool:
    """Whether a path belongs to Python or to what is installed, which any program finds."""
    libraries = [
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    libraries += [*site.getsitepackages(), site.getusersitepackages()]
    resolved = Path(path).resolve()
    return any(resolved.is_relative_to(Path(library).resolve()) for library in libraries)


def _notes(files: set[str]) -> list[str]:
    """Comments on the files that need more than the comparison does."""
    lines = []
    for file in sorted(filter(None, files)):
        if tools := [tool for tool in TEST_TOOLS if tool in _imported(file)]:
            lines += [
                f"# {Path(file).name} imports {' and '.join(tools)}, so this program does too.",
                "# With the compared functions in a module of their own it would not.",
            ]
    return lines


def _imported(file: str) -> set[str]:
    """The packages that a file imports."""
    names = []
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return {name.partition(".")[0] for name in names}


def _literal(tree: Any, arrays: list[np.ndarray], classes: dict[type, _Import]) -> str:
    """Python for a tree of arrays and constants; its arrays and named tuples are added."""
    if isinstance(tree, Mapping):
        text = ", ".join(f"{key!r}: {_literal(tree[key], arrays, classes)}" for key in tree)
        return f"{{{text}}}"
    if isinstance(tree, tuple | list):
        text = "".join(f"{_literal(each, arrays, classes)}, " for each in tree)
        if hasattr(tree, "_fields"):
            kind = type(tree)
            if kind not in classes:
                classes[kind] = _import(f"{kind.__name__}{len(classes)}", kind)
            return f"{classes[kind].alias}({text})"
        return f"[{text}]" if isinstance(tree, list) else f"({text})"
    if isinstance(tree, float):
        return f"float({str(tree)!r})"  # nan and inf are no Python
    if not hasattr(tree, "shape"):
        return repr(tree)
    arrays.append(np.array(tree.detach().cpu() if hasattr(tree, "detach") else tree))
    return f"a['a{len(arrays) - 1}']"
