"""Files that somebody made to do harm, in every place from which a file is read.

Each attempt is made in a process of its own. It must be refused, within a second of the processor
and with 200 MB of memory beyond the imports, by an error that a person can read: nothing is run
that a file brings, nothing is written outside of the run's folder, no terminal is steered.
"""

import importlib
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.attacks import Attack, attacks
from benchmarks.reliability.attempts import REFUSED, Outcome, attempt, steers_the_terminal
from benchmarks.reliability.rows import Row, Try, tally

LOADED = (
    *("parity.convert.files", "parity.recordings.schema", "parity.recordings.comparing"),
    *("pgjax.checkpoint", "pgtorch.checkpoint", "pgtorch.resuming"),
)
"""What the readers import when they are first asked, which is no part of an attempt."""
NUM_WORKERS = 4
VICTIM = b"what is outside\n"


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """A row for each kind of attack."""
    # Whatever was measured before, the attempts begin in a process that has imported, no more.
    found: dict[str, list[Try]] = {}
    with ProcessPoolExecutor(NUM_WORKERS, mp_context=get_context("spawn")) as pool:
        pool.submit(make_good, folder).result()
    with ProcessPoolExecutor(NUM_WORKERS, mp_context=get_context("spawn")) as pool:
        for part in pool.map(attempted, [folder] * NUM_WORKERS, range(NUM_WORKERS)):
            for kind, tries in part.items():
                found.setdefault(kind, []).extend(tries)
    for kind, tries in found.items():
        yield tally(f"hostile: {kind}", tries)


def attempted(place: Path, worker: int) -> dict[str, list[Try]]:
    """Makes a worker's share of the attempts, and gives what came of them by kind."""
    good, folder = place / "good", place / str(worker)
    folder.mkdir()
    here, canary = folder / "here", folder / "canary"
    readers = READERS()
    found: dict[str, list[Try]] = {}
    for number, attack in enumerate(attacks(canary)):
        for reader in attack.readers if number % NUM_WORKERS == worker else ():
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(good, here)
            attack.place(here)
            before = outside(here)
            seen = attempt(lambda name=reader: _from(here, readers[name]), folder)
            wrong = faults(attack, seen)
            if canary.exists():
                wrong.append("code was run")
                canary.rmdir()
            if outside(here) != before:
                wrong.append("something outside was written")
            said = f"{attack.name} by {reader}: {', '.join(wrong)}: {seen.said[-300:]}"
            found.setdefault(attack.kind, []).append(Try(not wrong, said))
    return found


def faults(attack: Attack, seen: Outcome) -> list[str]:
    """What is not as it should be in an attempt's outcome."""
    wrong = []
    if attack.goes_on and seen.code != 0:
        wrong.append(f"it does not go on, code {seen.code}")
    if not attack.goes_on and seen.code != REFUSED:
        wrong.append(f"it is not refused, code {seen.code}")
    if not attack.goes_on and not seen.is_frugal:
        wrong.append(f"it took {seen.seconds:.1f} s and {seen.megabytes:.0f} MB")
    if steers_the_terminal(seen.said):
        wrong.append("it steers the terminal")
    return wrong


def outside(folder: Path) -> dict[str, bytes]:
    """What is beside the files that are read."""
    files = sorted(path for path in (folder / "outside").rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def make_good(place: Path) -> None:
    """One good file of each kind, from small runs, in the folder `good`."""
    import parity
    import pgtorch
    from parity.mutation.power import Power, save
    from pgcore.config import TrainConfig

    folder = place / "good"
    small = TrainConfig(hidden_sizes=(2,), eval_episodes=2, episodes_per_update=2)
    pgtorch.train(replace(small, until_update=2, checkpoint_every=1, run_dir=folder / "run"))
    pgtorch.train_seeds(replace(small, total_timesteps=1, run_dir=folder / "seeds"), (0, 1))
    shutil.copy(folder / "run/policy.safetensors", folder / "weights.safetensors")
    parity.NoiseTape("reinforce", 3, 2, 2).save(folder / "x.tape", updates=1)
    with parity.record(folder / "x.parity") as record:
        record.inputs(x=np.arange(3.0))
        record.call("mean", lambda x: x.mean(), framework="numpy")
    save(folder / "power.json", Power(["pytest"], 1.0, {}, []))
    (folder / "outside").mkdir()
    (folder / "outside/victim").write_bytes(VICTIM)


def _from(folder: Path, read: Callable[[], Any]) -> Any:
    """Reads from inside a folder, of which Python imports modules too, as in a person's shell."""
    os.chdir(folder)
    sys.path.insert(0, "")
    return read()


def READERS() -> dict[str, Callable[[], Any]]:
    """What reads files, each as a user has it. All that they import is imported here."""
    import parity
    import parity.cli
    import pgjax
    import pgtorch
    import pgtorch.cli
    from parity.mutation import power
    from pgcore.cli import run_cli

    for module in LOADED:
        importlib.import_module(module)
    framework = pgtorch.cli._load()

    def command(*words: str) -> Callable[[], Any]:
        return lambda: run_cli("pgtorch", lambda: framework, words)

    def of_parity(*words: str) -> Callable[[], Any]:
        return lambda: parity.cli.main(words)

    def both(name: str, path: str) -> Callable[[], Any]:
        def read() -> None:
            for package in (pgtorch, pgjax):
                getattr(package, name)(path)

        return read

    newest = "run/checkpoints/update-000002"
    return {
        "eval": command("eval", "run", "--episodes", "2"),
        "resume": command("resume", "run", "--until-update", "3"),
        "go_on": command("resume", "run", "--until-update", "3"),
        "plot": command("plot", "run"),
        "eval_seeds": command("eval", "seeds", "--episodes", "2"),
        "plot_seeds": command("plot", "seeds"),
        "load_policy": both("load_policy", "run/policy.safetensors"),
        "load_checkpoint": both("load_checkpoint", "run"),
        "load_one": both("load_checkpoint", newest),
        "recording": of_parity("recording", "x.parity"),
        "diff": of_parity("diff", "x.parity", "x.parity"),
        "convert": of_parity("convert", "weights.safetensors", "out", "--kinds", "Linear"),
        "tape": lambda: parity.NoiseTape.load("x.tape") and None,
        "power": lambda: power.remembered(Path("power.json"), ["pytest"]) and None,
    }
