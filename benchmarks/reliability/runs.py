"""Small runs that go on until they are stopped, and all that one leaves, but for its times."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT
from pgcore.checkpoints import checkpoint_folders, find_checkpoint
from pgcore.config import TrainConfig
from pgcore.runs import CONFIG, METRICS, POLICY, RESULT

FRAMEWORKS = ("pgjax", "pgtorch")
TIMES = {"charts/seconds", "charts/SPS"}
SHORT = TrainConfig(
    hidden_sizes=(8, 6),
    episodes_per_update=2,
    eval_episodes=3,
    total_timesteps=10**9,
    solve_threshold=500,
    seed=7,
)


def settings(agent: str, folder: Path, **more: Any) -> TrainConfig:
    """A small run: one agent clips its gradient before Adam, the other does not."""
    clip = 1.0 if agent == "reparam" else None
    return replace(SHORT, agent=agent, max_grad_norm=clip, run_dir=folder, **more)


def options(config: TrainConfig) -> list[str]:
    """A configuration as arguments of `train`."""
    words = []
    for name, value in config.to_dict().items():
        if isinstance(value, tuple):
            words += [f"--{name.replace('_', '-')}", *map(str, value)]
        elif value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def start(
    framework: str, *arguments: object, is_heard: bool = True, **more: Any
) -> subprocess.Popen[str]:
    """Starts a command of a framework in a process of its own.

    If it is heard, its output can be read and its warnings are errors. `more` is for `Popen`.
    """
    output = subprocess.PIPE if is_heard else subprocess.DEVNULL
    given: dict[str, Any] = {"stdout": output, "stderr": output} | more
    # A signal inside `open` leaves a file to the garbage collector.
    flags = ["-W", "error", "-W", "ignore::ResourceWarning"] if is_heard else ["-W", "ignore"]
    return subprocess.Popen(
        [sys.executable, *flags, "-m", framework, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        **given,
    )


def lines(folder: Path) -> list[dict[str, str]]:
    """metrics.csv as it is written, without the times."""
    found = csv.DictReader((folder / METRICS).read_text().splitlines())
    return [{name: cell for name, cell in line.items() if name not in TIMES} for line in found]


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves, without the times."""
    result = json.loads((folder / RESULT).read_text())
    config = json.loads((folder / CONFIG).read_text())
    newest = next(iter(checkpoint_folders(folder).values()))
    progress = find_checkpoint(newest).progress
    return {
        "rows": lines(folder),
        "policy": (folder / POLICY).read_bytes(),
        "result": {name: value for name, value in result.items() if name != "seconds"},
        "config": {name: value for name, value in config.items() if name != "run_dir"},
        "state": (newest / "state.safetensors").read_bytes(),
        "progress": progress[:-1],  # all but the bytes of metrics.csv, which has the times
    }


def differing(folder: Path, whole: Path) -> list[str]:
    """The parts of a run that are not to the last bit those of another."""
    ended, expected = outcome(folder), outcome(whole)
    return [part for part in expected if ended[part] != expected[part]]
