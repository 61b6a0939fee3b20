"""What pytest loads in a process that `parity power` has started (by `PYTEST_PLUGINS`).

pytest reads test modules and conftest files itself, to rewrite their assertions. The mutated file
must be left to Python, whose loader was changed by `sitecustomize`, or it would be the right one.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import pytest

START_UP: Any = sys.modules.get("sitecustomize")
PLAN = getattr(START_UP, "PLAN", {})


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: Any) -> None:
    """Makes pytest's import hook decline the mutated file."""
    hook = early_config.pluginmanager.rewrite_hook
    original = getattr(hook, "find_spec", None)  # there is none with --assert=plain
    if original is None:
        return

    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        spec = original(name, path, target)
        return None if spec is not None and _is_ours(spec.origin or "") else spec

    hook.find_spec = find_spec


def _is_ours(file: str) -> bool:
    """Whether a file is the mutated one, or one whose calls are watched: test modules are not."""
    path, name = os.path.realpath(file), os.path.basename(file)
    is_test = name.startswith("test_") or name.endswith("_test.py")
    if "watch" in PLAN:
        return not is_test and START_UP.is_below(path, PLAN["watch"])
    return path == PLAN.get("file")


def pytest_sessionfinish() -> None:
    """Notes what was loaded: a worker of xdist may end without the notes of its exit."""
    if "watch" in PLAN:
        START_UP.note_loaded(PLAN)
