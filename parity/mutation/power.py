"""A test command's power: it is run on each mutant, and what it did not notice is kept.

Everything known so far is in one file, `power.json`, written anew after each mutant. As long as
the command and every file that it imports are the same, another run goes on from there.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.mutation.mutations import Mutation
from parity.mutation.processes import Ended, Processes
from parity.mutation.targets import Watched
from pgcore.errors import UsageError
from pgcore.files.reading import read_file
from pgcore.files.sealed_json import seal, unseal
from pgcore.files.writing import write_atomically

FORMAT = 2
LARGEST = 2**28
"""Bytes of a file that is read."""
KILLED, TIMED_OUT, SURVIVED, NEVER_CALLED = "killed", "timed out", "survived", "never called"
LEAST_SECONDS = 5.0
"""Before the clock stops a command, however short its first run was: machines are busy at times."""


@dataclass
class Power:
    """What is known of a command.

    Attributes:
        command: The command.
        seconds: How long it took on the right code.
        files: The digest of each of the user's files that it imported.
        called: (file, line) of each function that it called.
        scripts: Those of the files that a Python of the command ran as a script.
        outcomes: By a mutant's id: `{"outcome": …, "seconds": …, "code": …, "said": …}`.
    """

    command: list[str]
    seconds: float
    files: dict[str, str]
    called: list[tuple[str, int]]
    scripts: list[str] = field(default_factory=list)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def watched(self) -> Watched:
        """What the first run did."""
        called = frozenset((Path(path), line) for path, line in self.called)
        return Watched(frozenset(map(Path, self.files)), called, frozenset(map(Path, self.scripts)))


def first_run(processes: Processes, command: Sequence[str], root: Path) -> Power:
    """Runs the command on the right code, and watches what it calls.

    Raises:
        UsageError: It fails, or no Python of it can be watched.
    """
    ended = processes.run({"watch": str(root)}, first_failure=False)
    if ended.code != 0:
        raise UsageError(
            f"the command fails on your code as it is, with exit code {ended.code}, so that "
            f"failing says nothing of a mutant; it must pass. It ended with:\n{ended.output}"
        )
    loaded = {path for what, path, _ in ended.notes if what in ("imported", "loaded")}
    if not loaded:
        raise UsageError(
            f"the command imports no Python file below {root}, accepted is one that tests the "
            "code in this folder. (It can't be one that starts Python with -I, -E or -S.)"
        )
    called = sorted((path, line) for what, path, line in ended.notes if what == "called")
    files = {path: _digest(path) for path in sorted(loaded) if Path(path).is_file()}
    scripts = sorted({path for what, path, _ in ended.notes if what == "main"})
    return Power(list(command), ended.seconds, files, called, scripts)


def remembered(path: Path, command: Sequence[str]) -> tuple[Power | None, str]:
    """What an earlier run has found, or why that is of no use now.

    Raises:
        UsageError: The file is there and is none of this command's.
    """
    if not path.exists():
        return None, ""
    try:
        table = unseal(read_file(path, LARGEST))
        if table["format"] != FORMAT:
            raise ValueError(table["format"])
        called = [(each, line) for each, line in table["called"]]
        power = Power(
            table["command"],
            table["seconds"],
            table["files"],
            called,
            table["scripts"],
            table["outcomes"],
        )
        if not all(isinstance(each, dict) for each in (power.files, power.outcomes)):
            raise TypeError("files and outcomes are tables")
        if not all(isinstance(each, dict) for each in power.outcomes.values()):
            raise TypeError("an outcome is a table")
        if not all(isinstance(each, str) for each in power.scripts):
            raise TypeError("a script is a path")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{path} is no file of parity power (of this version); name another folder with --out, "
            "or remove it"
        ) from None
    if power.command != list(command):
        return None, f"{path} is of another command: starting anew"
    for name, digest in power.files.items():
        if not Path(name).is_file() or _digest(name) != digest:
            return None, f"{name} has changed: starting anew"
    return power, ""


def save(path: Path, power: Power) -> None:
    """Writes what is known, whole or not at all."""
    table = {"format": FORMAT, "python": sys.version.split()[0], **vars(power)}
    write_atomically(path, seal(table))


def tried(
    processes: Processes,
    power: Power,
    found: Sequence[Mutation],
    root: Path,
    *,
    jobs: int,
    factor: float,
) -> Iterator[tuple[Mutation, dict[str, Any]]]:
    """Runs the command on each mutant of which nothing is known, and gives what came of it."""
    called = power.watched.called

    def one(mutation: Mutation) -> dict[str, Any]:
        path = root / mutation.file
        if (path, mutation.definition_line) not in called:
            return {"outcome": NEVER_CALLED, "seconds": 0.0, "code": None, "said": ""}
        plan = {"file": str(path), "source": mutation.source}
        seconds = clock(power.seconds, factor)
        return outcome(processes.run(plan, first_failure=True, seconds=seconds))

    waiting = [mutation for mutation in found if mutation.id not in power.outcomes]
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, mutation): mutation for mutation in waiting}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()
            if not all(future.done() for future in futures):
                processes.stop()


def clock(first_run: float, factor: float) -> float:
    """The seconds after which a command that took `first_run` seconds on the right code is stopped.

    >>> clock(0.5, 5), clock(20, 5), clock(20, 1.5)
    (5.0, 100, 30.0)
    """
    return max(LEAST_SECONDS, factor * first_run)


def outcome(ended: Ended) -> dict[str, Any]:
    """What the end of a command says of the mutant that was active in it."""
    if ended.code is None:
        name = TIMED_OUT
    elif ended.code != 0:
        name = KILLED
    elif any(what == "served" for what, _, _ in ended.notes):
        name = SURVIVED
    else:
        name = NEVER_CALLED
    said = [line for line in ended.output.splitlines() if line.strip()]
    last = said[-1][:200] if said and name in (KILLED, TIMED_OUT) else ""
    return {"outcome": name, "seconds": round(ended.seconds, 2), "code": ended.code, "said": last}


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def counts(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many mutants came to which end."""
    names = [each["outcome"] for each in outcomes]
    return {name: names.count(name) for name in (KILLED, TIMED_OUT, SURVIVED, NEVER_CALLED)}
