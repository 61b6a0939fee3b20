"""Which functions are mutated: those that were named, or those that the tests call."""

import ast
import importlib.util
import random
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from parity.mutation.mutations import Mutation, is_of, mutations
from parity.mutation.sites import definitions
from parity.mutation.startup.sitecustomize import LEFT_OUT
from pgcore.errors import UsageError, unknown_choice

TESTS = {"tests", "test", "testing"}


class Watched(NamedTuple):
    """What the right code did in the first run.

    Attributes:
        loaded: Files of the user's that were imported, tests too.
        called: (file, line of the `def`) of each of their functions that was called.
        scripts: Those of the loaded files that Python ran as a script.
    """

    loaded: frozenset[Path]
    called: frozenset[tuple[Path, int]]
    scripts: frozenset[Path] = frozenset()


def targets(
    of: Sequence[str], kinds: Collection[str], watched: Watched, root: Path
) -> list[Mutation]:
    """The mutants to be tried, in the order of the files and lines.

    Args:
        of: `MODULE`, `MODULE:FUNCTION`, or the same with a file's path. If there is none, every
            function below `root`, outside of tests and scripts, that the first run called.
        kinds: Names of kinds.
        watched: What the first run did.
        root: The user's folder.

    Raises:
        UsageError: There is no such module, file or function.
    """
    if not of:
        found = [m for path in sorted(watched.loaded - watched.scripts) if not is_test(path, root)
                 for m in _of_file(path, kinds, root)]  # fmt: skip
        return [m for m in found if (root / m.file, m.definition_line) in watched.called]
    chosen: dict[str, Mutation] = {}
    for target in of:
        module, _, function = target.partition(":")
        path = _file(target, module, watched.loaded, root)
        if function:
            _require_function(module, function, [path])
        found = _of_file(path, kinds, root)
        chosen |= {m.id: m for m in found if not function or is_of(m, function)}
    return list(chosen.values())


def require_there(of: Sequence[str], root: Path) -> None:
    """Raises a `UsageError` for what is surely none, before anything runs: that may take long."""
    below: frozenset[Path] = frozenset()
    for target in of:
        module, _, function = target.partition(":")
        if not module.endswith(".py") and not below:
            below = frozenset(path for path in root.rglob("*.py") if _is_own(path, root))
        path = _file(target, module, below, root)
        if function:
            parts = module.split(".")
            tails = [Path(*parts).with_suffix(".py"), Path(*parts, "__init__.py")]
            same = [each for each in below if _ends_with(each, tails)]
            _require_function(module, function, same or [path])


def _require_function(module: str, function: str, paths: Sequence[Path]) -> None:
    """Raises a `UsageError` unless one of the files defines the function, method or class."""
    names: set[str] = set()
    for path in paths:
        try:
            tree = ast.parse(importlib.util.decode_source(path.read_bytes()))
        except SyntaxError as error:
            raise UsageError(f"{path} is no Python: {error}") from None
        names |= {name for name, _ in definitions(tree)}
    names |= {name.rpartition(".")[0] for name in names if "." in name}
    if function not in names:
        raise unknown_choice(f"of: the function in {module}", function, sorted(names))


def _is_own(path: Path, root: Path) -> bool:
    folders = path.relative_to(root).parts[:-1]
    return not any(part in LEFT_OUT or part.startswith(".") for part in folders)


def sample(found: Sequence[Mutation], number: int | None, seed: int) -> list[Mutation]:
    """At most `number` of them, drawn with a seed, in their order."""
    if number is None or len(found) <= number:
        return list(found)
    places = sorted(random.Random(seed).sample(range(len(found)), number))
    return [found[place] for place in places]


def is_test(path: Path, root: Path) -> bool:
    """Whether a file is part of the tests, by the names that pytest goes by."""
    name, folders = path.stem, path.relative_to(root).parts[:-1]
    is_named = name.startswith("test_") or name.endswith("_test") or name == "conftest"
    return is_named or not TESTS.isdisjoint(folders)


def _of_file(path: Path, kinds: Collection[str], root: Path) -> list[Mutation]:
    text = importlib.util.decode_source(path.read_bytes())
    try:
        return list(mutations(text, path.relative_to(root).as_posix(), kinds))
    except SyntaxError as error:
        raise UsageError(f"{path} is no Python: {error}") from None


def _file(target: str, module: str, known: Collection[Path], root: Path) -> Path:
    """The file of a module: one that is known, or one that lies where its name says."""
    if module.endswith(".py"):
        path = (root / module).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path
        raise UsageError(f"of is {target!r}, and there is no file {module!r} below {root}")
    parts = module.split(".")
    tails = [Path(*parts).with_suffix(".py"), Path(*parts, "__init__.py")]
    found = [path for path in sorted(known) if _ends_with(path, tails)]
    found += [root / tail for tail in tails if (root / tail).is_file()]
    if found:
        return min(found, key=lambda path: len(path.parts)).resolve()
    names = [".".join(_module(path, root)) for path in _own(known, root)]
    raise unknown_choice("of", target, sorted(names))


def _ends_with(path: Path, tails: Iterable[Path]) -> bool:
    return any(path.parts[-len(tail.parts) :] == tail.parts for tail in tails)


def _own(paths: Iterable[Path], root: Path) -> list[Path]:
    return [path for path in paths if not is_test(path, root)]


def _module(path: Path, root: Path) -> tuple[str, ...]:
    parts = path.relative_to(root).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts
