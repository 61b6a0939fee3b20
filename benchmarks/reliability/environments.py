"""Environments that misbehave: the run stops by name, and goes on from there when that is mended.

Each fault comes at drawn steps of a short run. Then the fault is mended, and the run goes on; what
it ends as is compared to the last bit with a run whose environment was good all the time.
"""

import importlib
import os
import random
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.reliability.misbehaving import HANGS, LENGTH, NEVER, RESETS, STEPS, Misbehaves, name
from benchmarks.reliability.rows import Row, Try, tally
from benchmarks.reliability.runs import FRAMEWORKS, differing, options, settings, start
from pgcore.checkpoints import find_checkpoint
from pgcore.config import TrainConfig
from pgcore.errors import RunError
from pgcore.files.schema import read_policy
from pgcore.runs import POLICY, RESULT, RunFolder

LAST = 6
"""Updates of a run."""
NUM_STEPS = 2 * 2 * LENGTH * LAST
"""Steps of a run: of two training episodes an update, and of two of its evaluation."""
TRIES = {"pgtorch": 12, "pgjax": 1}
"""Of each fault: JAX compiles each run anew."""
TIMEOUT_S = 1.0
LONGEST_S = 300.0
"""Seconds in which a process has to end, on a machine that has other things to do."""


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """Numbers, exceptions and kinds, then good but odd environments, then those that hang."""
    for framework in FRAMEWORKS:
        whole = folder / framework / "whole"
        train(framework, "good", whole)
        for title, faults in GROUPS.items():
            # JAX's episodes keep their copies of the environment: no more are made.
            possible = [fault for fault in faults if (framework, fault) != ("pgjax", MAKE)]
            tries = each(framework, possible, TRIES[framework], rng, folder / framework)
            yield tally(f"{title}, {framework}", tries)
        yield tally(f"odd but allowed, {framework}", odd(framework, folder / framework))
    for framework in FRAMEWORKS:
        yield tally(f"a step that hangs, {framework}", hangs(framework, rng, folder / framework))


NUMBERS = ("reward-nan", "reward-inf", "reward-1e38", "reward-1e300", "obs-nan", "obs-inf")
NUMBERS += ("obs-1e300", "reset-nan")
MAKE = "make-raises"
RAISES = ("raises", "exits", "raises-a-run-error", "reset-raises", MAKE)
OLD = ("old-step", "old-reset")
GROUPS = {
    "numbers: NaN, infinite, 1e38, 1e300": NUMBERS,
    "the environment raises": RAISES,
    "Gym's old API": OLD,
    "something of another kind is returned": tuple(
        fault for fault in (*STEPS, *RESETS) if fault not in (*NUMBERS, *RAISES, *OLD)
    ),
}


def config_of(fault: str, folder: Path, **more: Any) -> TrainConfig:
    """A short run whose environment has this fault. No evaluation is as good as can be."""
    given = {"env_id": name(fault), "eval_episodes": 2, "solve_threshold": LENGTH + 1, **more}
    return settings("reinforce", folder, **given)


def train(framework: str, fault: str, folder: Path, after: int = NEVER) -> None:
    """Trains in this process; the fault comes after so many steps."""
    Misbehaves.steps_left = after
    package = importlib.import_module(framework)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "close.. of", UserWarning)
        package.train(config_of(fault, folder, until_update=LAST))


def each(
    framework: str, faults: Iterable[str], num: int, rng: random.Random, parent: Path
) -> Iterator[Try]:
    """Brings each of these faults about at drawn steps."""
    for fault in faults:
        # The last reset comes before the last evaluation's steps.
        last = NUM_STEPS if fault in STEPS else NUM_STEPS - 2 * LENGTH
        for _ in range(num):
            yield stopped_and_mended(framework, fault, rng.randrange(2 * LENGTH, last), parent)


def stopped_and_mended(framework: str, fault: str, after: int, parent: Path) -> Try:
    """One fault, after so many steps."""
    folder, what = parent / "run", f"{fault} after {after} steps"
    shutil.rmtree(folder, ignore_errors=True)
    expected = {**STEPS, **RESETS}.get(fault, (None, "cannot be made: RuntimeError: no licence"))[1]
    try:
        train(framework, fault, folder, after)
        return Try(False, f"{what}: nothing was said")
    except RunError as error:
        if not re.search(expected, str(error)):
            return Try(False, f"{what}: {error}")
    return goes_on(framework, folder, parent / "whole", what)


def goes_on(framework: str, folder: Path, whole: Path, what: str) -> Try:
    """Mends the environment and goes on, if an update was done; what was kept is good."""
    Misbehaves.steps_left = NEVER
    if not (folder / POLICY).exists():
        return Try(not (folder / "checkpoints").exists(), f"{what}: a checkpoint and no policy")
    read_policy(folder / POLICY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_checkpoint(folder).progress.update
        done = len(RunFolder.open(folder).read_rows())
        if found != done:
            return Try(False, f"{what}: the checkpoint is of {found}, and {done} were done")
        importlib.import_module(framework).resume(folder, until_update=LAST)
    # Its environment has another name, which is all that may differ.
    parts = [part for part in differing(folder, whole) if part not in ("policy", "config")]
    return Try(not parts, f"{what}: gone on, other: {', '.join(parts)}")


def odd(framework: str, parent: Path) -> Iterator[Try]:
    """What has to train as the good one: ends twice, ends by its limit alone, won't be closed."""
    for fault in ("ends-twice", "endless", "close-raises"):
        folder = parent / "odd"
        shutil.rmtree(folder, ignore_errors=True)
        train(framework, fault, folder)
        parts = [part for part in differing(folder, parent / "whole") if part in ("rows", "state")]
        yield Try(not parts, f"{fault}: other {', '.join(parts)}")


def hangs(framework: str, rng: random.Random, parent: Path) -> Iterator[Try]:
    """A command whose environment hangs, in Python and in C, ends by itself with all saved."""
    for fault in HANGS:
        after = rng.randrange(2 * 2 * LENGTH, NUM_STEPS)
        folder = parent / f"hangs-{fault}"
        # A checkpoint a row: C that holds Python's lock leaves no time to save.
        config = config_of(
            fault, folder, until_update=LAST, env_timeout=TIMEOUT_S, checkpoint_every=1
        )
        os.environ["MISBEHAVE_AFTER"] = str(after)  # which a process inherits
        began = time.monotonic()
        process = start(framework, "train", *options(config))
        try:
            _, err = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
        what = f"{fault} after {after} steps, {time.monotonic() - began:.0f} s"
        holds_lock = fault == "hangs-in-c-with-the-lock"
        said = "Timeout (0:00:0" if holds_lock else f"has not returned within {TIMEOUT_S:g} s"
        if process.returncode != 1 or said not in err or (not holds_lock and "Traceback" in err):
            yield Try(False, f"{what}: exit {process.returncode}, {err[-300:]!r}")
        elif (folder / RESULT).exists() == holds_lock:
            yield Try(False, f"{what}: result.json is there, or is not")
        else:
            yield goes_on(framework, folder, parent / "whole", what)
