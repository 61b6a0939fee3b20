"""Run folders: what a training run leaves behind.

| file               | holds                                                               |
| ------------------ | ------------------------------------------------------------------- |
| config.json        | the `TrainConfig`                                                   |
| system.json        | framework, versions, cores, flags                                   |
| metrics.csv        | one row an update, columns named as CleanRL's                       |
| policy.safetensors | the kept policy, in the neutral schema; replaced when a better comes |
| result.json        | how it ended; absent while the run goes on                          |

A run of several seeds leaves a folder of such folders, `seed-N` for each, with a table of them,
seeds.csv.
"""

import csv
import datetime
import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path
from typing import Any, TextIO

from pgcore.config import TrainConfig
from pgcore.errors import UsageError, require
from pgcore.evaluation import Evaluation
from pgcore.files import write_atomically
from pgcore.gym import gym_spec
from pgcore.metrics import CSV_COLUMNS, Row, SolvedAt, parse_rows
from pgcore.schema import read_policy

CONFIG, SYSTEM, METRICS, POLICY, RESULT = (
    "config.json",
    "system.json",
    "metrics.csv",
    "policy.safetensors",
    "result.json",
)
SEEDS = "seeds.csv"
"""What a folder of several seeds has and a single run has not."""
REPORTED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "gymnasium", "numpy")
REPORTED_FLAGS = ("XLA_FLAGS", "JAX_ENABLE_X64", "JAX_PLATFORMS", "OMP_NUM_THREADS")


class RunFolder:
    """One run's folder. Make a new one with `create`, read an old one with `open`."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path = path
        self.config = config
        self._metrics: TextIO | None = None

    @classmethod
    def create(cls, config: TrainConfig, framework: str) -> "RunFolder":
        """Makes the folder `config.run_dir`.

        Raises:
            UsageError: The folder exists already, or it cannot be made.
        """
        path = Path(str(config.run_dir))
        require_absent(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"run_dir {str(path)!r} cannot be made: {error}") from error
        run = cls(path, config)
        run._write_json(CONFIG, config.to_dict())
        run._write_json(SYSTEM, _system(framework))
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Opens a folder that a run made.

        Raises:
            UsageError: It is no run folder, or its configuration cannot be read.
        """
        return cls(path, TrainConfig.from_dict(_read_table(path / CONFIG)))

    def check_policy(self) -> None:
        """Raises a `UsageError` if the policy file is not what the configuration says."""
        file, spec = read_policy(self.policy_path), gym_spec(self.config.env_id)
        found = (file.agent, file.env, file.obs_dim, file.num_actions)
        expected = (self.config.agent, spec.env_id, spec.obs_dim, spec.num_actions)
        require(
            found == expected,
            f"policy file {str(self.policy_path)!r} (agent, env, observations, actions)",
            found,
            f"what {CONFIG} says, {expected}",
        )

    @property
    def policy_path(self) -> Path:
        """Where the kept policy is."""
        return self.path / POLICY

    def read_rows(self) -> list[Row]:
        """Reads metrics.csv, as far as it is written.

        Raises:
            UsageError: It is missing, damaged, or without a row.
        """
        path = self.path / METRICS
        try:
            rows = parse_rows(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{str(self.path)!r} has no update to read: {error}") from error
        except (ValueError, csv.Error) as error:
            raise UsageError(f"{str(path)!r} is damaged: {error}") from error
        if not rows:
            raise UsageError(f"{str(path)!r} holds no row: the run's first update is not done")
        return rows

    def append(self, row: Row) -> None:
        """Adds a row to metrics.csv."""
        if self._metrics is None:
            self._metrics = (self.path / METRICS).open("x", newline="", buffering=1)
            csv.writer(self._metrics).writerow(CSV_COLUMNS.values())
        csv.writer(self._metrics).writerow(getattr(row, name) for name in CSV_COLUMNS)

    def finish(self, ended: str, solved_at: SolvedAt | None, evaluation: Evaluation | None) -> None:
        """Closes the folder and writes result.json.

        Args:
            ended: `"solved"`, `"budget spent"`, `"interrupted"` or `"failed"`.
            solved_at: What it took, if it was solved.
            evaluation: The kept policy's; None if there was no update.
        """
        self.close()
        result = {
            "ended": ended,
            "solved_at": solved_at._asdict() if solved_at else None,
            "evaluation": evaluation.summary() if evaluation else None,
        }
        self._write_json(RESULT, result)

    def close(self) -> None:
        """Closes metrics.csv."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _write_json(self, name: str, values: object) -> None:
        write_atomically(self.path / name, (json.dumps(values, indent=2) + "\n").encode())


def open_runs(path: Path) -> list[RunFolder]:
    """Opens a run folder, or each `seed-N` in a folder of several seeds, in order of N.

    Raises:
        UsageError: It is neither, or a configuration cannot be read.
    """
    if not (path / SEEDS).exists():
        return [RunFolder.open(path)]
    numbered = {
        int(match[1]): folder
        for folder in path.iterdir()
        if (match := re.fullmatch(r"seed-(\d+)", folder.name))
    }
    if not numbered:
        raise UsageError(f"{str(path)!r} has a {SEEDS}, but no folder seed-N")
    return [RunFolder.open(folder) for _, folder in sorted(numbered.items())]


def read_framework(path: Path) -> str:
    """Which framework made the run, or the folder of several seeds, at `path`.

    Raises:
        UsageError: Its system.json cannot be read or does not say.
    """
    framework = _read_table(path / SYSTEM).get("framework")
    if not isinstance(framework, str):
        raise UsageError(f"{str(path / SYSTEM)!r} is damaged: it names no framework")
    return framework


def _read_table(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a run folder.

    Raises:
        UsageError: It is missing, or it is no JSON object.
    """
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{str(path.parent)!r} is no run folder: {error}") from error
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{str(path)!r} is damaged: it holds no table")
    return values


def default_run_dir(config: TrainConfig, framework: str) -> str:
    """A path under runs/ that no other run has."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return str(Path("runs") / f"{framework}-{config.agent}-seed{config.seed}-{now}")


def require_absent(path: Path) -> None:
    """Raises a `UsageError` if there is something at `path`: runs are not mixed."""
    if path.exists():
        raise UsageError(f"run_dir {str(path)!r} exists; give a path that does not (--run-dir)")


def _system(framework: str) -> dict[str, object]:
    versions = {}
    for package in REPORTED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "framework": framework,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
        "flags": {flag: os.environ.get(flag) for flag in REPORTED_FLAGS},
    }
