"""A process that trains is stopped at drawn moments, again and again, each time gone on with.

With a checkpoint after each update, most of a small run's time goes into saving, so that most
signals come then. The run that all of them interrupted is compared with one that none did.
"""

import random
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reliability.rows import Row, Try, tally
from benchmarks.reliability.runs import FRAMEWORKS, differing, lines, options, settings, start
from pgcore.checkpoints import CHECKPOINTS, checkpoint_folders, find_checkpoint
from pgcore.config import TrainConfig
from pgcore.errors import UsageError

NUM_KILLS = 100
LONGEST_WAIT_S = 0.5
"""From a process's first checkpoint on; an update and its checkpoint take some 50 ms."""
BEFORE_CHECKPOINTS_S = 6.0
"""Every fourth kill comes within so long of the start, whatever the process has done by then."""


class Stop(NamedTuple):
    """A way to stop a process."""

    name: str
    codes: tuple[int, ...]
    """Exit codes that it may lead to."""
    send: Callable[[subprocess.Popen[str], random.Random], None]
    saves: bool
    """Whether nothing may be lost."""


def _kill(process: subprocess.Popen[str], _: random.Random) -> None:
    process.kill()


KILL = Stop("SIGKILL", (-signal.SIGKILL,), _kill, saves=False)


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """SIGKILL, in either framework."""
    return stopped(((KILL, NUM_KILLS),), rng, folder)


def stopped(stops: Iterable[tuple[Stop, int]], rng: random.Random, folder: Path) -> Iterator[Row]:
    """Each stop so many times, in either framework, and what the runs end as."""
    for framework in FRAMEWORKS:
        for stop, num in stops:
            chain = Chain(framework, stop, rng, folder / f"{framework}-{stop.name}")
            tries = [chain.next() for _ in range(num)]
            name = f"{stop.name} at a drawn moment, {framework}"
            if chain.num_saving:
                name += f" ({chain.num_saving} while a checkpoint was being written)"
            yield tally(name, tries, "updates")
            yield tally(
                f"the run that was stopped {num} times so ends as one that was not", [chain.end()]
            )


def endless(folder: Path, **more: Any) -> TrainConfig:
    """A run with a checkpoint an update, which learns too slowly to be solved."""
    return settings("reinforce", folder, checkpoint_every=1, learning_rate=1e-5, **more)


class Chain:
    """One run that is stopped, gone on with, stopped again, and at last brought to an end."""

    def __init__(self, framework: str, stop: Stop, rng: random.Random, folder: Path) -> None:
        self.framework, self.stop, self.rng = framework, stop, rng
        folder.mkdir()
        self.run, self.whole = folder / "run", folder / "whole"
        self.num_tries = self.num_saving = 0

    def next(self) -> Try:
        """Starts it or goes on with it, stops it, and looks at what is left."""
        self.num_tries += 1
        process = self._start()
        is_early = self.stop is KILL and self.num_tries % 4 == 0
        if is_early:
            time.sleep(self.rng.uniform(0, BEFORE_CHECKPOINTS_S))
        else:
            self._await_checkpoint(process)
            time.sleep(self.rng.uniform(0, LONGEST_WAIT_S))
        try:
            self.stop.send(process, self.rng)
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return Try(False, f"{self.stop.name} did not end it: {process.communicate()[1]!r}")
        return self._look(process.returncode, err)

    def end(self) -> Try:
        """Brings the run to an end one update on, and compares it with one that nothing stopped."""
        last = self._last() + 1
        config = endless(self.whole, until_update=last)
        for arguments in (
            ("resume", self.run, "--until-update", last),
            ("train", *options(config)),
        ):
            _, err = (process := start(self.framework, *arguments)).communicate()
            if process.returncode:
                return Try(False, err)
        parts = differing(self.run, self.whole)
        return Try(not parts, f"after {last} updates other: {', '.join(parts)}")

    def _start(self) -> subprocess.Popen[str]:
        if checkpoint_folders(self.run):
            return start(self.framework, "resume", self.run)
        shutil.rmtree(self.run, ignore_errors=True)  # killed before its first checkpoint
        return start(self.framework, "train", *options(endless(self.run)))

    def _await_checkpoint(self, process: subprocess.Popen[str]) -> None:
        before = self._last()
        while self._last() == before:
            if process.poll() is not None:
                raise RuntimeError(f"it ended by itself: {process.communicate()}")
            time.sleep(0.001)

    def _last(self) -> int:
        return max(checkpoint_folders(self.run), default=0)

    def _look(self, code: int, err: str) -> Try:
        """What is left of the run, and whether it is as it should be."""
        if not checkpoint_folders(self.run):  # killed before there was one
            return Try(code in self.stop.codes, f"exit code {code}: {err}")
        self.num_saving += any((self.run / CHECKPOINTS).glob(".*.partial"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a stop damages no checkpoint
                last = find_checkpoint(self.run).progress.update
        except (UsageError, UserWarning) as error:
            return Try(False, f"after update {self._last()}: {error}")
        done = [int(line["charts/update"]) for line in lines(self.run) if None not in line.values()]
        lost = len(done) - last
        seen = f"{code=}, {last=}, {lost=}, {err!r}"
        in_order = done == [*range(1, len(done) + 1)] and 0 <= lost <= 1
        is_clean = "Traceback" not in err and (lost == 0 or not self.stop.saves)
        return Try(code in self.stop.codes and in_order and is_clean, seen, lost)
