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
from collections.abc import Iterator
from pathlib import Path

import pgtorch
from benchmarks.reliability.children import (
    AT_ONCE_S,
    LAST,
    LONGEST_S,
    arguments_of,
    ended,
    forked,
    heed_signals,
    in_terminal,
    num_updates,
    redirect,
    redirect_both,
    running,
    to_a_closed_pipe,
    until,
    without,
)
from benchmarks.reliability.rows import Row, Try, tally
from benchmarks.reliability.runs import differing, options, settings, start
from pgcore.checkpoints import checkpoint_folders, find_checkpoint

IGNORE = signal.SIG_IGN
NUM_RACES, NUM_TRIES, NUM_STOPS = 20, 3, 10


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
            redirect(1, error)
            redirect(2, error)
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
            ended(forked(words, redirect_both, said))
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
        child, terminal = in_terminal(
            run, rng, lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
        )
        os.close(terminal)
        code, parts = ended(child), differing(run, whole)
        yield Try(code == 0 and not parts, f"exit {code}, other: {parts}")


def ignored(folder: Path, whole: Path) -> Iterator[Try]:
    """What was told to ignore these before it began goes on ignoring them."""
    for _ in range(NUM_TRIES):
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)

        def deaf() -> None:
            redirect_both()
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
        preexec_fn=lambda: (heed_signals(), os.login_tty(terminal)),
    )
    os.close(terminal)
    until(lambda: len(checkpoint_folders(run)) > 1, process.pid)
    os.close(control)
    code = process.wait(LONGEST_S)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_checkpoint(run)
    yield Try(code == 129, f"SIGHUP: exit {code}")


def goes_on(run: Path, whole: Path, what: str, *, is_last_saved: bool = False) -> Try:
    """Goes on from a checkpoint that is good, and compares, unless the run is past that already."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last = find_checkpoint(run).progress.update
        if is_last_saved and last != num_updates(run):
            return Try(False, f"{what}: saved {last} of {num_updates(run)} updates")
        if last >= LAST:
            return Try(True, what)
        pgtorch.resume(run, until_update=LAST)
    parts = differing(run, whole)
    return Try(not parts, f"{what}: other: {', '.join(parts)}")


UNREAD = {
    "the standard output is a closed pipe": to_a_closed_pipe(1),
    "the standard error is a closed pipe": to_a_closed_pipe(2),
    "both are closed pipes": to_a_closed_pipe(1, 2),
    "the standard error is closed": without(2),
    "all three are closed": without(0, 1, 2),
    "the disk of the output is full": lambda: redirect_both("/dev/full"),
}
