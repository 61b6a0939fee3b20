"""Who else there is: a second process, nobody who reads, a terminal that goes, an impatient person.

`pgtorch`'s processes are forked from this one, which has loaded torch; `pgjax`'s begin anew.
"""

import os
import pty
import random
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pgtorch
from benchmarks.reliability.rows import Row, Try, tally
from benchmarks.reliability.runs import differing, options, settings, start
from pgcore.checkpoints import checkpoint_folders, find_checkpoint
from pgcore.cli import run_cli
from pgcore.commands import Framework

LAST = 12
"""Updates of a run that is left alone."""
NUM_RACES, NUM_TRIES, NUM_STOPS = 20, 3, 10
LONGEST_S = 240.0
AT_ONCE_S = 20.0
"""In which an impatient person's process ends, on a machine that has other things to do."""


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """Races, second processes, closed pipes, terminals that go, ignored and repeated signals."""
    whole = folder / "whole"
    pgtorch.train(settings("reparam", whole, until_update=LAST, checkpoint_every=1))
    yield tally("two begin a run in one folder at once", races(folder))
    yield tally("a second resumes, or begins, a run that goes on", seconds(rng, folder, whole))
    yield tally("nobody reads: a closed pipe, closed streams", unread(folder, whole))
    yield tally("the terminal goes away, SIGHUP", hung_up(rng, folder, whole))
    yield tally("the terminal goes away, SIGHUP is ignored", ignored_hangup(rng, folder, whole))
    yield tally("SIGINT and SIGHUP, both ignored", ignored(folder, whole))
    yield tally("Ctrl-C twice, drawn times apart", twice(rng, folder, whole))
    yield tally("closed pipes, and a terminal that goes away, pgjax", by_pgjax(folder))


def races(folder: Path) -> Iterator[Try]:
    """Two processes each time; exactly one wins, and its run is whole."""
    for number in range(NUM_RACES):
        run, errors = folder / "race", [folder / "first", folder / "second"]
        shutil.rmtree(run, ignore_errors=True)
        read, write = os.pipe()

        def wait(error: Path, read: int = read) -> None:
            _redirect(1, error)
            _redirect(2, error)
            os.read(read, 1)  # both come back at once, when the other end is closed

        arguments = arguments_of(run, until_update=1)
        children = [forked(arguments, wait, error, close=write) for error in errors]
        os.close(write)
        codes = [ended(child) for child in children]
        os.close(read)
        said = "".join(error.read_text() for error in errors)
        is_told = "exists; give a path that does not" in said
        is_alone = [path.name for path in folder.glob(".race*")] == []
        is_whole = find_checkpoint(run).progress.update == 1
        yield Try(
            sorted(codes) == [0, 2] and is_told and is_alone and is_whole,
            f"race {number}: exit codes {codes}: {said[-300:]}",
        )


def seconds(rng: random.Random, folder: Path, whole: Path) -> Iterator[Try]:
    """The second is told; the first is stopped then, and its run goes on as if it were alone."""
    for _ in range(NUM_TRIES):
        run, said = folder / "run", folder / "said"
        first = running(run, said, rng)
        codes = [
            ended(forked(words, _redirect_both, said))
            for words in (["resume", str(run)], arguments_of(run))
        ]
        os.kill(first, signal.SIGTERM)
        code, text = ended(first), said.read_text()
        is_told = "is being written by another process" in text and "exists; give a path" in text
        if codes != [2, 2] or code != 143 or not is_told:
            yield Try(False, f"exit {codes}, the first {code}: {text[-300:]}")
        else:
            yield goes_on(run, whole, "with a second process")


def unread(folder: Path, whole: Path) -> Iterator[Try]:
    """A run whose output nobody reads ends as one whose output is read, with exit code 0."""
    for what, prepare in UNREAD.items():
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        code = ended(forked(arguments_of(run), prepare))
        parts = differing(run, whole)
        yield Try(code == 0 and not parts, f"{what}: exit {code}, other: {parts}")


def hung_up(rng: random.Random, folder: Path, whole: Path) -> Iterator[Try]:
    """The other end of a run's terminal is closed: the system sends SIGHUP, and output fails."""
    for _ in range(NUM_TRIES):
        run = folder / "run"
        child, terminal = in_terminal(run, rng)
        os.close(terminal)
        code = ended(child)
        if code != 129:
            yield Try(False, f"exit {code}")
        else:
            yield goes_on(run, whole, "after SIGHUP", is_last_saved=True)


def ignored_hangup(rng: random.Random, folder: Path, whole: Path) -> Iterator[Try]:
    """As under `nohup`, or `trap '' HUP`: the run goes on to its end without a terminal."""
    for _ in range(NUM_TRIES):
        run = folder / "run"
        child, terminal = in_terminal(run, rng, lambda: signal.signal(signal.SIGHUP, IGNORE))
        os.close(terminal)
        code, parts = ended(child), differing(run, whole)
        yield Try(code == 0 and not parts, f"exit {code}, other: {parts}")


def ignored(folder: Path, whole: Path) -> Iterator[Try]:
    """What was told to ignore these before it began goes on ignoring them."""
    for _ in range(NUM_TRIES):
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)

        def deaf() -> None:
            _redirect_both()
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, IGNORE)

        child = until(run.exists, forked(arguments_of(run), deaf))
        for _ in range(20):
            os.kill(child, signal.SIGINT)
            os.kill(child, signal.SIGHUP)
            time.sleep(0.01)
        code, parts = ended(child), differing(run, whole)
        yield Try(code == 0 and not parts, f"exit {code}, other: {parts}")


def twice(rng: random.Random, folder: Path, whole: Path) -> Iterator[Try]:
    """The second ends the process at once, even while it saves; the folder is good all the same."""
    for number in range(NUM_STOPS):
        run, said = folder / "run", folder / "said"
        child = running(run, said, rng)
        apart = rng.uniform(0, 0.1) if number % 2 else 0.0
        os.kill(child, signal.SIGINT)
        time.sleep(apart)
        os.kill(child, signal.SIGINT)
        began = time.monotonic()
        code, took = ended(child), time.monotonic() - began
        what = f"{1000 * apart:.0f} ms apart"
        if code != 130 or took > AT_ONCE_S:
            yield Try(False, f"{what}: exit {code} after {took:.1f} s: {said.read_text()[-300:]}")
        else:
            yield goes_on(run, whole, what)


def by_pgjax(folder: Path) -> Iterator[Try]:
    """One process of each kind in JAX: hung up in its terminal, and both streams closed pipes."""
    run, whole = folder / "jax", folder / "jax-whole"
    words = options(settings("reparam", whole, until_update=LAST, checkpoint_every=1))
    process = start("pgjax", "train", *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole_code = process.wait(LONGEST_S)
    read, write = os.pipe()
    os.close(read)
    words = options(settings("reparam", run, until_update=LAST, checkpoint_every=1))
    process = start("pgjax", "train", *words, stdout=write, stderr=write)
    os.close(write)
    code = process.wait(LONGEST_S)
    parts = differing(run, whole)
    yield Try((whole_code, code) == (0, 0) and not parts, f"closed pipes: {code}, other: {parts}")
    shutil.rmtree(run)
    control, terminal = pty.openpty()
    words = options(settings("reparam", run, checkpoint_every=1))
    process = start(
        "pgjax",
        "train",
        *words,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=lambda: os.login_tty(terminal),
    )
    os.close(terminal)
    until(lambda: len(checkpoint_folders(run)) > 1, process.pid)
    os.close(control)
    code = process.wait(LONGEST_S)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_checkpoint(run)
    yield Try(code == 129, f"SIGHUP: exit {code}")


# --- processes


IGNORE = signal.SIG_IGN


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
    arguments: list[str], prepare: Callable[..., None], *more: Any, close: int | None = None
) -> None:
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if close is not None:
            os.close(close)
        prepare(*more)
        code = run_cli("pgtorch", _load, arguments)
    finally:
        os._exit(code)


def _load() -> Framework:
    return Framework(
        pgtorch.train, pgtorch.resume, pgtorch.train_seeds, pgtorch.load_policy, pgtorch.make_act
    )


def running(run: Path, said: Path, rng: random.Random) -> int:
    """A run without an end, a drawn number of updates after its beginning."""
    shutil.rmtree(run, ignore_errors=True)
    said.unlink(missing_ok=True)
    child = forked(arguments_of(run, until_update=None), _redirect_both, said)
    return until(lambda: _num_updates(run) >= rng.randrange(1, LAST - 3), child)


def in_terminal(
    run: Path, rng: random.Random, prepare: Callable[[], object] = lambda: None
) -> tuple[int, int]:
    """A run in a terminal of its own, some updates after its beginning, and the other end."""
    shutil.rmtree(run, ignore_errors=True)
    child, terminal = pty.fork()
    if child == 0:
        prepare()
        _become(arguments_of(run), lambda: None)
    return until(lambda: _num_updates(run) >= rng.randrange(1, LAST - 6), child), terminal


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


def goes_on(run: Path, whole: Path, what: str, *, is_last_saved: bool = False) -> Try:
    """Goes on from a checkpoint that is good, and compares, unless the run is past that already."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last = find_checkpoint(run).progress.update
        if is_last_saved and last != _num_updates(run):
            return Try(False, f"{what}: saved {last} of {_num_updates(run)} updates")
        if last >= LAST:
            return Try(True, what)
        pgtorch.resume(run, until_update=LAST)
    parts = differing(run, whole)
    return Try(not parts, f"{what}: other: {', '.join(parts)}")


def _num_updates(run: Path) -> int:
    path = run / "metrics.csv"
    return path.read_bytes().count(b"\n") - 1 if path.exists() and checkpoint_folders(run) else 0


def _redirect(number: int, path: Path | str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, number)
    os.close(file)


def _redirect_both(path: Path | str = os.devnull) -> None:
    _redirect(1, path)
    _redirect(2, path)


def _to_a_closed_pipe(*numbers: int) -> Callable[[], None]:
    def prepare() -> None:
        _redirect_both()
        read, write = os.pipe()
        for number in numbers:
            os.dup2(write, number)
        os.close(write)
        os.close(read)

    return prepare


def _without(*numbers: int) -> Callable[[], None]:
    def prepare() -> None:
        _redirect_both()
        for number in numbers:
            os.close(number)

    return prepare


UNREAD = {
    "the standard output is a closed pipe": _to_a_closed_pipe(1),
    "the standard error is a closed pipe": _to_a_closed_pipe(2),
    "both are closed pipes": _to_a_closed_pipe(1, 2),
    "the standard error is closed": _without(2),
    "all three are closed": _without(0, 1, 2),
    "the disk of the output is full": lambda: _redirect_both("/dev/full"),
}
