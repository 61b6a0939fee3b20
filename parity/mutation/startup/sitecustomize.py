"""Runs at the start of every Python process of a test command that `parity power` has started.

`PARITY_POWER` names a JSON file that says what to do. With `"file"` and `"source"` that file's
source is the given one wherever it is imported, so that exactly one mutant is active and nothing
on the disk changes. With `"watch"` every function below that folder takes note that it was called.
Bytecode of what is changed is neither read nor written. Notes are lines of files in `"notes"`.

The folder of this file is all that is put on the path: only the standard library is used here.
"""

import ast
import atexit
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
import tokenize
import types
from pathlib import Path
from typing import Any

CALLED = "parity_called_"
"""Without underscores in front, which would make it another name inside of a class."""
LEFT_OUT = ("site-packages", "dist-packages", "__pycache__", "node_modules")


def start(plan: dict[str, Any]) -> None:
    """Changes how Python gets the code of source files, for the rest of this process."""
    notes = Path(plan["notes"]) / f"{os.getpid()}"
    original = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> Any:
        path = os.path.realpath(self.path)
        if path == plan.get("file"):
            note(notes, "served", path, 0)
            _show(self.path, plan["source"])
            # By the loader's own way, for it may add checks (jaxtyping's does).
            return self.source_to_code(_encoded(plan["source"]), self.path)
        if "watch" in plan and is_below(path, plan["watch"]):
            note(notes, "imported", path, 0)
            return _watched(self, path, notes)
        return original(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code
    if "watch" in plan:
        atexit.register(note_loaded, plan)


def is_below(path: str, folder: str) -> bool:
    """Whether a file is the user's own: in their folder, not in an environment inside of it."""
    if not path.startswith(os.path.join(folder, "")):
        return False
    parts = os.path.relpath(path, folder).split(os.sep)
    return not any(part in LEFT_OUT or part.startswith(".") for part in parts)


def note(notes: Path, what: str, path: str, line: int) -> None:
    """Adds a line to this process's notes."""
    with notes.open("a", encoding="utf-8") as file:
        file.write(json.dumps([what, path, line]) + "\n")


def note_main(plan: dict[str, Any], path: str) -> None:
    """Notes a script that the command runs itself: by default it is no target, being the test."""
    note(Path(plan["notes"]) / f"{os.getpid()}", "main", path, 0)


def note_loaded(plan: dict[str, Any]) -> None:
    """Notes every loaded file of the user's, those that pytest has rewritten too."""
    for name, module in list(sys.modules.items()):
        # A script has lost its `__file__` by the time that it has run.
        loader = getattr(module, "__loader__", None)
        file = getattr(module, "__file__", None) or getattr(loader, "path", None)
        path = os.path.realpath(file) if isinstance(file, str) else ""
        if path.endswith(".py") and is_below(path, plan["watch"]):
            note(Path(plan["notes"]) / f"{os.getpid()}", "loaded", path, 0)
            if name == "__main__" and getattr(module, "__spec__", None) is None:
                note_main(plan, path)


def _watched(loader: importlib.machinery.SourceFileLoader, path: str, notes: Path) -> Any:
    """The code of a file in which every function first notes that it was called."""
    seen: set[int] = set()

    def called(line: int) -> None:
        if line not in seen:
            seen.add(line)
            note(notes, "called", path, line)

    # One function for each file, found by every module of it through `builtins`.
    import builtins

    name = f"{CALLED}{abs(hash(path))}"
    setattr(builtins, name, called)
    tree = ast.parse(importlib.util.decode_source(loader.get_data(loader.path)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            call = ast.Call(ast.Name(name, ast.Load()), [ast.Constant(node.lineno)], [])
            statement = ast.copy_location(ast.Expr(call), first)
            node.body.insert(1 if is_docstring else 0, ast.fix_missing_locations(statement))
    if type(loader).source_to_code is not importlib.machinery.SourceFileLoader.source_to_code:
        # It may add checks, as jaxtyping's does, and takes a text. (Whose lines are numbered
        # otherwise than the file's, in this first run alone.)
        return loader.source_to_code(ast.unparse(tree).encode(), loader.path)
    return compile(tree, loader.path, "exec", dont_inherit=True)


def _encoded(source: str) -> bytes:
    """A source text in the encoding that it declares."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source.encode()).readline)
    return source.encode(encoding)


def _show(name: str, source: str) -> None:
    """Lets tracebacks, `inspect` and what compiles from source see the lines that run."""
    import linecache

    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)


def load_next() -> None:
    """Runs the `sitecustomize` that this one stands before, if there is one."""
    here = os.path.dirname(os.path.realpath(__file__))
    path = [each for each in sys.path if os.path.realpath(each or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(types.ModuleType(spec.name))


if __name__ == "sitecustomize":
    _plan_file = os.environ.get("PARITY_POWER")
    if _plan_file:
        PLAN = json.loads(Path(_plan_file).read_text(encoding="utf-8"))
        start(PLAN)
    load_next()
