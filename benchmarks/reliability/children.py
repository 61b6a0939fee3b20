"""`pgtorch` in processes that are forked from this one, which has loaded torch."""

import os
import pty
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reliability.runs import options, settings
from pgcore.checkpoints import checkpoint_folders
from pgtorch import cli as pgtorch_cli

LAST = 12
"""Updates of a run that is left alone."""
LONGEST_S = 240.0
AT_ONCE_S = 20.0
"""In which an impatient person's process ends, on a machine that has other things to do."""


def arguments_of(run: Path, **more: Any) -> list[str]:
    """`train` with a checkpoint after each update."""
    given = {"until_update": LAST, "checkpoint_every": 1} | more
    return ["train", *options(settings("reparam", run, **given))]


def forked(
    arguments: list[str], prepare: Callable[..., None], *more: Any, close: int | None = None
) -> int:
    """`pgtorch` with these arguments in a process of its own, after `prepare`; its number."""
    child = os.fork()
    if child == 0:
        _become(arguments, prepare, *more, close=close)
    return child


def _become(
    arguments: list[str], prepare: Callable[..., object], *more: Any, close: int | None = None
) -> None:
    code = 99
    try:
        heed_signals()
        if close is not None:
            os.close(close)
        prepare(*more)
        code = pgtorch_cli.main(arguments)
    finally:
        os._exit(code)


def heed_signals() -> None:
    """As in a terminal, though `nohup` or a shell's background job had signals ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def running(run: Path, said: Path, rng: random.Random) -> int:
    """A run without an end, a drawn number of updates after its beginning."""
    shutil.rmtree(run, ignore_errors=True)
    said.unlink(missing_ok=True)
    child = forked(arguments_of(run, until_update=None), redirect_both, said)
    return until(lambda: num_updates(run) >= rng.randrange(1, LAST - 3), child)


def in_terminal(
    run: Path, rng: random.Random, prepare: Callable[[], object] = lambda: None
) -> tuple[int, int]:
    """A run in a terminal of its own, some updates after its beginning, and the other end."""
    shutil.rmtree(run, ignore_errors=True)
    child, terminal = pty.fork()
    if child == 0:
        _become(arguments_of(run), prepare)
    return until(lambda: num_updates(run) >= rng.randrange(1, LAST - 6), child), terminal


def until(condition: Callable[[], bool], child: int) -> int:
    """Waits for it, and gives the process back."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError(f"process {child} did not begin")
        time.sleep(0.001)
    return child


def ended(child: int) -> int:
    """A process's exit code, minus the number of the signal that killed it."""
    deadline = time.monotonic() + LONGEST_S
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def num_updates(run: Path) -> int:
    """Updates that are in metrics.csv, once there is a checkpoint."""
    path = run / "metrics.csv"
    return path.read_bytes().count(b"\n") - 1 if path.exists() and checkpoint_folders(run) else 0


def redirect(number: int, path: Path | str) -> None:
    """Has one of this process's streams written to a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, number)
    os.close(file)


def redirect_both(path: Path | str = os.devnull) -> None:
    """Has what this process says written to a file."""
    redirect(1, path)
    redirect(2, path)


def to_a_closed_pipe(*numbers: int) -> Callable[[], None]:
    """What makes these streams of a process pipes that nobody reads."""

    def prepare() -> None:
        redirect_both()
        read, write = os.pipe()
        for number in numbers:
            os.dup2(write, number)
        os.close(write)
        os.close(read)

    return prepare


def without(*numbers: int) -> Callable[[], None]:
    """What closes these streams of a process."""

    def prepare() -> None:
        redirect_both()
        for number in numbers:
            os.close(number)

    return prepare
