"""A user's test command, run in a process of its own with one mutant active, or watched."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pgcore.errors import UsageError

STARTUP = Path(__file__).parent / "startup"
WITH_VALUE = ("-X", "-W", "--check-hash-based-pycs")
"""Python's options that another word follows."""
TAIL = 4_000
"""Characters of a command's output that are kept."""


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: Its exit code; `None` if the clock stopped it.
        seconds: How long it took.
        output: The end of what it printed, both streams.
        notes: What its processes took note of: (what, file, line).
    """

    code: int | None
    seconds: float
    output: str
    notes: frozenset[tuple[str, str, int]]


class Processes:
    """Starts the command; `stop` ends all that run, for a person who does not want to wait."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = [program(command[0]), *by_import(command)]
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self, plan: Mapping[str, Any], *, first_failure: bool, seconds: float | None = None
    ) -> Ended:
        """Runs the command under a plan of `startup/sitecustomize.py`, `seconds` at most."""
        with tempfile.TemporaryDirectory(prefix="parity-power-") as folder:
            scratch = Path(folder)
            (scratch / "notes").mkdir()
            whole = {**plan, "notes": str(scratch / "notes")}
            (scratch / "plan.json").write_text(json.dumps(whole), encoding="utf-8")
            environment = _environment(scratch, first_failure=first_failure)
            code, taken = self._wait(environment, scratch / "output", seconds)
            output = (scratch / "output").read_bytes().decode(errors="replace")[-TAIL:]
            return Ended(code, taken, output, _notes(scratch / "notes"))

    def stop(self) -> None:
        """Ends what runs, and starts nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)

    def _wait(
        self, environment: Mapping[str, str], output: Path, seconds: float | None
    ) -> tuple[int | None, float]:
        started = time.monotonic()
        with output.open("wb") as file:
            with self._lock:
                if self._stopped:
                    raise KeyboardInterrupt
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # so that its own children end with it
                )
                self._running.add(process)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _kill(process)
                process.wait()
                with self._lock:
                    self._running.discard(process)
        if self._stopped:
            raise KeyboardInterrupt
        return code, time.monotonic() - started


def by_import(command: Sequence[str]) -> list[str]:
    """A command's arguments; those of `python SCRIPT` with what runs the script by an import.

    >>> by_import(["pytest", "-q"]), by_import(["python", "-m", "port"])
    (['-q'], ['-m', 'port'])
    >>> [Path(each).name for each in by_import(["python", "-X", "dev", "check.py", "-v"])]
    ['-X', 'dev', 'parity_power_main.py', 'check.py', '-v']
    """
    arguments = list(command[1:])
    if not Path(command[0]).name.startswith("python"):
        return arguments
    place = 0
    while place < len(arguments) and arguments[place].startswith("-"):
        if arguments[place] == "-" or arguments[place].startswith(("-m", "-c")):
            return arguments  # standard input, a module, a text
        place += 2 if arguments[place] in WITH_VALUE else 1
    if place < len(arguments) and arguments[place].endswith(".py"):
        arguments.insert(place, str(STARTUP / "parity_power_main.py"))
    return arguments


def program(name: str) -> str:
    """The file of a program: the one beside this interpreter, so that the tests run where this
    package is installed, or else the one on the path.

    Raises:
        UsageError: There is none.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=beside) or shutil.which(name)
    if found is None:
        raise UsageError(
            f"the command after -- begins with {name!r}, and there is no such program; "
            "accepted is what you would type to run your tests, such as pytest -q"
        )
    return found


def _environment(scratch: Path, *, first_failure: bool) -> dict[str, str]:
    """The user's own, with the start-up folder first, and caches of tests elsewhere: a failure
    that was found on one mutant must not be tried first on the next, nor on the right code.
    """
    old = os.environ
    options = f"-o cache_dir={scratch / 'pytest'}" + (" -x" if first_failure else "")
    plugins = [*old.get("PYTEST_PLUGINS", "").split(","), "parity_power_pytest"]
    return {
        **old,
        "PARITY_POWER": str(scratch / "plan.json"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(STARTUP), old.get("PYTHONPATH", "")])),
        "PYTEST_ADDOPTS": f"{old.get('PYTEST_ADDOPTS', '')} {options}".strip(),
        "PYTEST_PLUGINS": ",".join(filter(None, plugins)),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis"),
    }


def _notes(folder: Path) -> frozenset[tuple[str, str, int]]:
    lines = [line for path in folder.iterdir() for line in path.read_text("utf-8").splitlines()]
    return frozenset((what, path, line) for what, path, line in map(json.loads, lines))


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # it has ended, and so have its children
