"""Files that are not as they were written: each one is named, and nothing of it is taken for true.

Every byte of a file is changed and every length of it cut, up to 64 KiB; of larger ones a sample
is. What a fault must lead to is that a reader which uses the file refuses it by its name, and that
none reads anything else than it read before.
"""

import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.rows import Row, Try, tally
from pgcore.checkpoints import checkpoint_folders, find_checkpoint, read_checkpoint
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from pgcore.files.schema import PolicyFile, read_policy
from pgcore.files.sums import SUMS
from pgcore.plots.curves import read_runs
from pgcore.runs import RESULT, RunFolder
from pgcore.training.reopening import reopen

EVERY = 2**16
"""Bytes up to which each is tried, and how many of a larger file are."""
NUM_WORKERS = 6
CHECKPOINT_FILES = ("state.safetensors", "policy.safetensors", "checkpoint.json")
PARITY_FILES = ("policy.safetensors", "x.parity", "x.tape", "flax.safetensors", "power.json")
NUM_OFFERED = 100
"""Faults of each kind after which a run is asked for its newest good checkpoint."""
Reader = Callable[[], Any]
"""Reads something and gives what a person would get; a `UsageError` refuses it."""


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
    for what, faults in _faults(rng, newer / file, another):
        name = f"checkpoint: {file}, {what}"
        yield tally(name, (_named(newer, fault, file) for fault in faults))
        drawn = rng.sample(faults, min(NUM_OFFERED, len(faults)))
        name += ": the one before is used"
        yield tally(name, (_passed_over(run, newer, fault) for fault in drawn))


def of_changed_places(rng: random.Random, folder: Path) -> Iterator[Row]:
    """Whole checkpoints that are where another should be."""
    run = folder / "run"
    newer, older = checkpoint_folders(run).values()
    other = folder / "other"
    yield tally("checkpoint: another run's, whole", _exchanged(run, newer, other))
    yield tally("checkpoint: the two of a run exchanged", [_swapped(run, newer, older)])


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
        for what, faults in _faults(rng, run / file, [other / file]):
            name = f"{state} run: {file}, {what}"
            used = {each: readers[each] for each in USED_BY.get(file, readers)}
            yield tally(name, _refused(used, faults, file, must=state == "ended"))


def of_seeds(rng: random.Random, folder: Path) -> Iterator[Row]:
    """What `eval` and `plot` read of a folder of several seeds."""
    run = folder / "seeds"
    readers = {"plot": lambda: _plotted(run), "eval": lambda: _evaluated(run / "seed-3")}
    for file in ("seeds.csv", "system.json"):
        for what, faults in _faults(rng, run / file, []):
            yield tally(f"seeds: {file}, {what}", _refused(readers, faults, file, must=False))
    file = "metrics.csv"
    for what, faults in _faults(rng, run / "seed-3" / file, [run / "seed-5" / file]):
        yield tally(f"seeds: {file}, {what}", _refused(readers, faults, file))


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
    for what, faults in _faults(rng, path, []):
        if what != "removed" or path != power:  # without one, parity power begins anew
            yield tally(f"{file}, {what}", _refused({"": readers[path]}, faults, file))


Fault = Callable[[], Callable[[], None]]
"""Damages a file, and gives what mends it."""


def _faults(rng: random.Random, path: Path, others: list[Path]) -> Iterator[tuple[str, list]]:
    """What can happen to a file, and each way in which it does."""
    whole = path.read_bytes()
    places = range(len(whole))
    if len(whole) > EVERY:
        places = sorted(rng.sample(places, EVERY))

    def with_(data: bytes | None) -> Fault:
        def damage() -> Callable[[], None]:
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            return lambda: put_back(path, whole)

        return damage

    def flipped(at: int) -> Fault:
        data = bytearray(whole)
        data[at] ^= rng.randrange(1, 256)
        return with_(bytes(data))

    yield "each byte", [flipped(at) for at in places]
    yield "each length", [with_(whole[:at]) for at in places]
    yield "removed", [with_(None)]
    found = [other.read_bytes() for other in others]
    if others and any(data != whole for data in found):
        yield "another's", [with_(data) for data in found if data != whole]


def put_back(path: Path, data: bytes) -> None:
    """Puts a file back as it was."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _named(folder: Path, fault: Fault, file: str) -> Try:
    mend = fault()
    try:
        read_checkpoint(folder)
        return Try(False, "it is read")
    except UsageError as error:
        # Whole files that do not belong together can't tell which of them is the wrong one.
        return Try(file in str(error) or folder.name in str(error), str(error))
    except Exception as error:
        return Try(False, repr(error))
    finally:
        mend()


def _passed_over(run: Path, newer: Path, fault: Fault) -> Try:
    mend = fault()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = find_checkpoint(run).progress.update
        said = " ".join(str(each.message) for each in caught)
        return Try(found == 1 and newer.name in said, f"update {found} is used; {said}")
    except Exception as error:
        return Try(False, repr(error))
    finally:
        mend()


def _exchanged(run: Path, newer: Path, other: Path) -> Iterator[Try]:
    kept = run / "kept"
    newer.rename(kept)
    shutil.copytree(other / "checkpoints" / newer.name, newer)
    yield _passed_over(run, newer, lambda: lambda: None)
    shutil.rmtree(newer)
    kept.rename(newer)


def _swapped(run: Path, newer: Path, older: Path) -> Try:
    """Neither is what its name says, so that neither is used."""
    kept = run / "kept"
    for source, target in ((newer, kept), (older, newer), (kept, older)):
        source.rename(target)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return Try(False, f"update {find_checkpoint(run).progress.update} is used")
    except UsageError as error:
        return Try(newer.name in str(error) and older.name in str(error), str(error))
    finally:
        for source, target in ((newer, kept), (older, newer), (kept, older)):
            source.rename(target)


def _refused(
    readers: Mapping[str, Reader], faults: list[Fault], file: str, *, must: bool = True
) -> Iterator[Try]:
    """Whether each fault is refused by the file's name, or said, and nothing else is ever read.

    `must` is False where a byte may be another and say the same, such as a space in a JSON file.
    """
    before = {name: reader() for name, reader in readers.items()}
    for number, fault in enumerate(faults):
        mend = fault()
        wrong, num_refused = [], 0
        for name, reader in readers.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    if (found := reader()) != before[name]:
                        wrong.append(f"{name} reads something else: {str(found)[:200]}")
            except (UsageError, UserWarning) as error:
                num_refused += 1
                if file not in str(error):
                    wrong.append(f"{name} does not name it: {error}")
            except Exception as error:
                wrong.append(f"{name}: {error!r}")
        mend()
        if must and not num_refused:
            wrong.append("nobody refuses it")
        yield Try(not wrong, f"number {number}: {'; '.join(wrong)}")


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
