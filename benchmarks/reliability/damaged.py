"""Files that are not as they were written: each one is named, and nothing of it is taken for true.

Every byte of a file is changed and every length of it cut, up to 64 KiB; of larger ones a sample
is. What a fault must lead to is that a reader which uses the file refuses it by its name, and that
none reads anything else than it read before.
"""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.refusals import (
    Reader,
    damages,
    exchanged,
    named,
    passed_over,
    refused,
    swapped,
)
from benchmarks.reliability.rows import Row, tally
from pgcore.checkpoints import checkpoint_folders
from pgcore.config import TrainConfig
from pgcore.files.schema import PolicyFile, read_policy
from pgcore.files.sums import SUMS
from pgcore.plots.curves import read_runs
from pgcore.runs import RESULT, RunFolder
from pgcore.training.reopening import reopen

NUM_WORKERS = 6
CHECKPOINT_FILES = ("state.safetensors", "policy.safetensors", "checkpoint.json")
PARITY_FILES = ("policy.safetensors", "x.parity", "x.tape", "flax.safetensors", "power.json")
NUM_OFFERED = 100
"""Faults of each kind after which a run is asked for its newest good checkpoint."""
USED_BY = {
    "config.json": ("eval", "plot", "resume"),
    "metrics.csv": ("plot", "resume"),
    "policy.safetensors": ("eval",),
    "system.json": ("plot",),
}
"""The files of a run beside its checkpoints, and the commands that read them."""


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """Checkpoints of the default size, the other files of runs, and parity's files."""
    import pgtorch

    for name, seed in (("run", 0), ("other", 1)):
        config = TrainConfig(
            until_update=2, checkpoint_every=1, eval_episodes=2, run_dir=folder / name, seed=seed
        )
        pgtorch.train(config)
    config = TrainConfig(total_timesteps=1, eval_episodes=2, run_dir=folder / "seeds")
    pgtorch.train_seeds(config, (3, 5))
    jobs: list[tuple[Any, ...]] = [(of_checkpoints, file) for file in CHECKPOINT_FILES]
    jobs += [(of_changed_places,), (of_runs, "ended"), (of_runs, "killed"), (of_seeds,)]
    jobs += [(of_parity, file) for file in PARITY_FILES]
    with ProcessPoolExecutor(NUM_WORKERS, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_job, folder, rng.randrange(2**32), *job) for job in jobs]
        for future in futures:
            yield from future.result()


def _job(folder: Path, seed: int, of: Callable[..., Iterator[Row]], *words: str) -> list[Row]:
    """The rows of some files, from copies of their own."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(folder, place, dirs_exist_ok=True)
        return [*of(random.Random(seed), Path(place), *words)]


def of_checkpoints(rng: random.Random, folder: Path, file: str) -> Iterator[Row]:
    """The newest of a run's two checkpoints is damaged: it is named, and the other one is used."""
    run = folder / "run"
    newer, older = checkpoint_folders(run).values()
    another = [folder / "other/checkpoints" / newer.name / file, older / file]
    for what, faults in damages(rng, newer / file, another):
        name = f"checkpoint: {file}, {what}"
        yield tally(name, (named(newer, fault, file) for fault in faults))
        drawn = rng.sample(faults, min(NUM_OFFERED, len(faults)))
        name += ": the one before is used"
        yield tally(name, (passed_over(run, newer, fault) for fault in drawn))


def of_changed_places(rng: random.Random, folder: Path) -> Iterator[Row]:
    """Whole checkpoints that are where another should be."""
    run = folder / "run"
    newer, older = checkpoint_folders(run).values()
    other = folder / "other"
    yield tally("checkpoint: another run's, whole", exchanged(run, newer, other))
    yield tally("checkpoint: the two of a run exchanged", [swapped(run, newer, older)])


def of_runs(rng: random.Random, folder: Path, state: str) -> Iterator[Row]:
    """What `eval`, `plot` and `resume` read of a run beside its checkpoints."""
    run, other = folder / "run", folder / "other"
    readers = {"eval": lambda: _evaluated(run), "plot": lambda: _plotted(run)}
    readers["resume"] = lambda: _resumed(run)
    files = [*USED_BY, SUMS]
    if state == "killed":
        for name in (RESULT, SUMS):
            (run / name).unlink()
        # A policy is read as one that is alone, below: that of a run like this one is as good as
        # its own, until SHA256SUMS says which.
        files = ["config.json", "metrics.csv", "system.json"]
    for file in files:
        for what, faults in damages(rng, run / file, [other / file]):
            name = f"{state} run: {file}, {what}"
            used = {each: readers[each] for each in USED_BY.get(file, readers)}
            yield tally(name, refused(used, faults, file, must=state == "ended"))


def of_seeds(rng: random.Random, folder: Path) -> Iterator[Row]:
    """What `eval` and `plot` read of a folder of several seeds."""
    run = folder / "seeds"
    readers = {"plot": lambda: _plotted(run), "eval": lambda: _evaluated(run / "seed-3")}
    for file in ("seeds.csv", "system.json"):
        for what, faults in damages(rng, run / file, []):
            yield tally(f"seeds: {file}, {what}", refused(readers, faults, file, must=False))
    file = "metrics.csv"
    for what, faults in damages(rng, run / "seed-3" / file, [run / "seed-5" / file]):
        yield tally(f"seeds: {file}, {what}", refused(readers, faults, file))


def of_parity(rng: random.Random, folder: Path, file: str) -> Iterator[Row]:
    """Policies alone, and the files that `parity` writes and reads."""
    import parity
    from parity.convert.files import convert_file
    from parity.mutation.power import Power, remembered, save

    policy = folder / "run/policy.safetensors"
    lone = folder / "policy.safetensors"
    shutil.copy(policy, lone)
    # A tape as long as CartPole's longest episode would be sampled: this one is tried whole.
    tape, flax, power = (folder / name for name in ("x.tape", "flax.safetensors", "power.json"))
    parity.NoiseTape("reinforce", 8, 2, 2).save(tape, updates=2)
    convert_file(policy, flax)
    save(power, Power(["pytest"], 1.0, {}, [("a.py", 3)], [], {"a": {"outcome": "killed"}}))
    recorded = folder / "x.parity"
    with parity.record(recorded) as record:
        record.inputs(returns=np.arange(5.0))
        record.call("mean", lambda returns: returns.mean(), wrt=["returns"], framework="torch")
        record.noise(parity.NoiseTape("reinforce", 8, 2, 2), updates=1)

    def back() -> bytes:
        with tempfile.TemporaryDirectory() as place:
            convert_file(flax, Path(place) / "torch")
            return (Path(place) / "torch").read_bytes()

    readers: dict[Path, Reader] = {
        lone: lambda: _plain(read_policy(lone)),
        recorded: lambda: parity.Recording.load(recorded) and None,
        tape: lambda: [each.tobytes() for each in parity.NoiseTape.load(tape).update(0)],
        flax: back,
        power: lambda: remembered(power, ["pytest"])[1],
    }
    path = folder / file
    for what, faults in damages(rng, path, []):
        if what != "removed" or path != power:  # without one, parity power begins anew
            yield tally(f"{file}, {what}", refused({"": readers[path]}, faults, file))


def _evaluated(path: Path) -> Any:
    run = RunFolder.open(path)
    run.check_policy()
    return run.config.agent, run.config.env_id, _plain(read_policy(run.policy_path))


def _plotted(path: Path) -> Any:
    [run] = read_runs([path])
    config = run.config
    about = (config.agent, config.env_id, config.solve_threshold, run.framework, run.num_seeds)
    return about, run.histories


def _resumed(path: Path) -> Any:
    with reopen(path, "pgtorch") as run:
        state = {name: array.tobytes() for name, array in run.stored.state.items()}
        return run.config, run.stored.progress, run.rows, state, _plain(run.stored.policy)


def _plain(policy: PolicyFile) -> Any:
    return policy.agent, policy.env, {n: a.tobytes() for n, a in policy.tensors.items()}
