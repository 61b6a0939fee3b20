"""The command `parity where FILE::CASE`."""

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

from pgcore.errors import UsageError, unknown_choice

ACCEPTED = (
    "a test that uses the fixture parity, a function without arguments that returns (reference, "
    "candidate, inputs), or such a tuple or a dict of first_divergence's arguments"
)


@dataclass(frozen=True)
class Where:
    """Name the source lines at which a PyTorch and a JAX computation first part."""

    case: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE::CASE")]
    """A Python file, and in it a test or the two functions with their inputs."""
    json: bool = False
    """Print one JSON object instead of a text."""

    def run(self) -> int:
        """Prints what was found and returns the exit code: 1 if the two part."""
        file, separator, name = self.case.partition("::")
        if not separator or not name:
            raise UsageError(f"case is {self.case!r}, accepted is FILE::CASE, {ACCEPTED}")
        path = Path(file)
        if not path.is_file():
            raise UsageError(f"case is {self.case!r}, and there is no file {file!r}")
        if name.startswith("test"):
            return _tested(self.case, as_json=self.json)
        return _shown(_searched(_case(_loaded(path), name, file)), as_json=self.json)


def _loaded(path: Path) -> ModuleType:
    """The module in a file, which may import what lies beside it."""
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"case names {str(path)!r}, accepted is a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _case(module: ModuleType, name: str, file: str) -> Mapping[str, Any]:
    """The arguments of `first_divergence`."""
    if not hasattr(module, name):
        known = [each for each in vars(module) if not each.startswith("_")]
        raise unknown_choice(f"the case in {file}", name, known)
    found = getattr(module, name)
    if isinstance(found, Callable):
        found = found()
    if isinstance(found, tuple) and len(found) == 3:
        found = dict(zip(("reference", "candidate", "inputs"), found, strict=True))
    needed = {"reference", "candidate", "inputs"}
    if not isinstance(found, Mapping) or not needed <= {*found}:
        raise UsageError(
            f"{file}::{name} is of type {type(found).__name__}, accepted is {ACCEPTED}"
        )
    return found


def _searched(case: Mapping[str, Any]) -> Any:
    from parity.locate.divergence import first_divergence

    options = {name: value for name, value in case.items() if name in ("wrt", "rename", "kinds")}
    return first_divergence(case["reference"], case["candidate"], case["inputs"], **options)


def _shown(found: Any, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"parts": found is not None} | ({} if found is None else found.plain())))
    else:
        print("nothing parts, in float64" if found is None else found)
    return 0 if found is None else 1


def _tested(case: str, *, as_json: bool) -> int:
    """The last comparison of a test that did not agree; pytest's own words only if it can't run."""
    import contextlib
    import io

    import pytest

    found: list[Any] = []

    class Last:
        def pytest_sessionfinish(self, session: pytest.Session) -> None:
            recorder: Any = session.config.pluginmanager.get_plugin("parity-recorder")
            last = recorder.current.last if recorder else None
            found.append(None if last is None else last)
            found.append(recorder.current.checks if recorder else 0)

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main([case, "-q", "-p", "no:cacheprovider", "-p", "no:xdist"], [Last()])
    if code not in (0, 1) or not found or not found[1]:
        problem = said.getvalue().strip() or f"pytest ended with {code}"
        raise UsageError(
            f"{case} compared nothing, accepted is {ACCEPTED}; pytest said:\n{problem}"
        )
    report = found[0]
    if report is None:
        return _shown(None, as_json=as_json)
    if as_json:
        print(json.dumps({"parts": True, "report": json.loads(report.to_json())}))
    else:
        print(report)
    return 1
