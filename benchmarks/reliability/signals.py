"""SIGTERM, Ctrl-C and a second Ctrl-C at drawn moments, as `killed` does it."""

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability.children import AT_ONCE_S
from benchmarks.reliability.killed import Stop, stopped
from benchmarks.reliability.rows import Row

NUM_EACH = 20


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """Each of them, in either framework."""
    return stopped([(stop, NUM_EACH) for stop in STOPS], rng, folder)


def _terminate(process: subprocess.Popen[str], _: random.Random) -> None:
    process.terminate()


def _interrupt(process: subprocess.Popen[str], _: random.Random) -> None:
    process.send_signal(signal.SIGINT)


def _interrupt_twice(process: subprocess.Popen[str], rng: random.Random) -> None:
    process.send_signal(signal.SIGINT)
    time.sleep(rng.uniform(0, 0.05))
    process.send_signal(signal.SIGINT)
    process.wait(AT_ONCE_S)


STOPS = (
    Stop("SIGTERM, which saves and exits with 143,", (143,), _terminate, saves=True),
    Stop("Ctrl-C, which saves and exits with 130,", (130,), _interrupt, saves=True),
    Stop("Ctrl-C twice, which ends it at once,", (130, -signal.SIGINT), _interrupt_twice, False),
)
