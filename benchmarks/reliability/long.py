"""Long runs, whose memory and files grow by what is stated and no more; many runs side by side."""

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.reliability.rows import Row, Try, tally
from benchmarks.reliability.runs import FRAMEWORKS, differing, lines, options, settings, start
from pgcore.runs import METRICS, RESULT

SECONDS, ENV_STEPS = 20 * 60, 10**9
"""A long run ends with whichever comes first."""
MEMORY_PER_UPDATE = 1024
"""Bytes: a row of the history, which `train` returns."""
FILES_PER_UPDATE = 256
"""Bytes: a line of metrics.csv. Checkpoints do not add up, for the last two stay."""
SLACK = 64 * 2**20
"""Bytes that a process may come to hold once, after its first tenth: caches, not growth."""
NUM_TOGETHER = 8


class Size(NamedTuple):
    """How large a run is at some time."""

    update: int
    memory: int
    """Bytes of the process that are in memory."""
    files: int
    """Bytes of the run folder."""


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """Many runs side by side, and a long one of each framework, these two at the same time."""
    for framework in FRAMEWORKS:
        yield _together(framework, rng, folder / f"{framework}-together")
    runs = {framework: folder / f"{framework}-long" for framework in FRAMEWORKS}
    begun = {framework: _begin(framework, runs[framework]) for framework in FRAMEWORKS}
    sizes: dict[str, list[Size]] = {framework: [] for framework in FRAMEWORKS}
    until = time.monotonic() + SECONDS
    try:
        while time.monotonic() < until and None in (each.poll() for each in begun.values()):
            time.sleep(SECONDS / 200)
            for framework, run in runs.items():
                if begun[framework].poll() is None and (run / METRICS).exists():
                    sizes[framework].append(_size(begun[framework].pid, run))
    finally:
        for process in begun.values():
            process.terminate()
    for framework, run in runs.items():
        yield _grown(framework, run, sizes[framework], begun[framework].wait())


def _begin(framework: str, folder: Path) -> subprocess.Popen[str]:
    more = {"total_timesteps": ENV_STEPS, "solve_threshold": 501}  # which nobody reaches
    config = settings("reinforce", folder, episodes_per_update=8, **more)
    return start(framework, "train", *options(config), is_heard=False)


def _grown(framework: str, folder: Path, sizes: list[Size], code: int) -> Row:
    """Whether a run grew by no more than what is stated, after its first tenth."""
    env_steps = int(lines(folder)[-1]["global_step"])
    begun, ended = sizes[len(sizes) // 10], sizes[-1]
    updates = ended.update - begun.update
    memory, files = ended.memory - begun.memory, ended.files - begun.files
    is_stated = (
        memory <= SLACK + MEMORY_PER_UPDATE * updates and files <= FILES_PER_UPDATE * updates
    )
    seen = (
        f"{framework}, {SECONDS / 60:.0f} minutes: {ended.update:,} updates, {env_steps:,} steps; "
        f"memory {begun.memory / 2**20:.0f} to {ended.memory / 2**20:.0f} MiB, "
        f"files {files / updates:.0f} bytes an update"
    )
    return tally(seen, [Try(is_stated and code in (0, 143), f"exit code {code}, {begun}, {ended}")])


def _size(pid: int, folder: Path) -> Size:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    files = 0
    for path in folder.rglob("*"):
        try:
            files += path.stat().st_size
        except FileNotFoundError:  # a checkpoint that has just been removed
            continue
    with (folder / METRICS).open("rb") as file:
        updates = sum(1 for _ in file) - 1
    return Size(updates, 1024 * int(kilobytes), files)


def _together(framework: str, rng: random.Random, folder: Path) -> Row:
    """Runs that start at once in one folder tree, each compared with the same run alone."""
    seeds = rng.sample(range(1000), NUM_TOGETHER)
    configs = {
        seed: settings("reparam", folder / "tree" / f"run-{seed}", seed=seed, until_update=20)
        for seed in seeds
    }
    folder.mkdir()
    begun = {seed: start(framework, "train", *options(each)) for seed, each in configs.items()}
    said = {seed: process.communicate() for seed, process in begun.items()}
    tries = []
    for seed, config in configs.items():
        whole = settings("reparam", folder / f"alone-{seed}", seed=seed, until_update=20)
        start(framework, "train", *options(whole)).communicate()
        together, alone = Path(str(config.run_dir)), Path(str(whole.run_dir))
        parts = differing(together, alone) if (together / RESULT).exists() else ["no result"]
        is_well = begun[seed].returncode == 0 and not parts
        tries.append(Try(is_well, f"seed {seed}, other: {', '.join(parts)}; {said[seed]}"))
    return tally(f"{NUM_TOGETHER} runs at once in one folder tree, {framework}", tries)
