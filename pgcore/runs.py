"""Run folders: what a training run leaves behind.

| file               | holds                                                               |
| ------------------ | ------------------------------------------------------------------- |
| config.json        | the `TrainConfig`                                                   |
| system.json        | framework, versions, cores, flags                                   |
| metrics.csv        | one row an update, columns named as CleanRL's                       |
| policy.safetensors | the kept policy, in the neutral schema; replaced when a better comes |
| result.json        | how it ended; absent while the run goes on                          |
| checkpoints/       | what it goes on from: see `pgcore.checkpoints`                      |

A run of several seeds leaves a folder of such folders, `seed-N` for each, with a table of them,
seeds.csv.
"""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

from pgcore.config import TrainConfig
from pgcore.errors import UsageError, require
from pgcore.files import write_atomically
from pgcore.gym import gym_spec
from pgcore.metrics import Row, SolvedAt, parse_rows
from pgcore.metrics_file import MetricsFile, Position
from pgcore.run_dirs import make_folder
from pgcore.schema import PolicyFile, read_policy, write_policy
from pgcore.solving import Kept
from pgcore.system import system

CONFIG, SYSTEM, METRICS, POLICY, RESULT = (
    "config.json",
    "system.json",
    "metrics.csv",
    "policy.safetensors",
    "result.json",
)
SEEDS = "seeds.csv"
"""What a folder of several seeds has and a single run has not."""


class RunFolder:
    """One run's folder. Make a new one with `create`, read an old one with `open`."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path = path
        self.config = config
        self._metrics: MetricsFile | None = None
        self._last: Row | None = None

    @classmethod
    def create(cls, config: TrainConfig, framework: str) -> "RunFolder":
        """Makes the folder `config.run_dir`.

        Raises:
            UsageError: The folder exists already, or it cannot be made.
        """
        path = Path(str(config.run_dir))
        make_folder(path, {CONFIG: to_json(config.to_dict()), SYSTEM: to_json(system(framework))})
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Opens a folder that a run made.

        Raises:
            UsageError: It is no run folder, or its configuration cannot be read.
        """
        values = _read_table(path / CONFIG)
        try:
            return cls(path, TrainConfig.from_dict(values))
        except UsageError as error:
            raise UsageError(f"{str(path / CONFIG)!r} is damaged: {error}") from error

    def check_policy(self) -> None:
        """Raises a `UsageError` if there is no policy, or not the one that `config.json` says."""
        if not self.policy_path.exists():
            raise UsageError(f"{str(self.path)!r} has no {POLICY}: its first update is not done")
        file, config = read_policy(self.policy_path), self.config
        spec = gym_spec(config.env_id)
        found = (file.agent, file.env, file.obs_dim, file.num_actions, file.hidden_sizes)
        sizes = (spec.obs_dim, spec.num_actions, config.hidden_sizes)
        expected = (config.agent, spec.env_id, *sizes)
        require(
            found == expected,
            f"policy file {str(self.policy_path)!r} (agent, env, observations, actions, hidden)",
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

    def append(self, row: Row) -> Position:
        """Adds a row to metrics.csv and returns where that ends."""
        if self._metrics is None:
            self._metrics = MetricsFile.create(self.path / METRICS)
        self._metrics.append(row)
        self._last = row
        return self._metrics.position

    def require_present(self) -> None:
        """Raises an `OSError` if the folder is no longer where it was."""
        if self._metrics is not None:
            self._metrics.require_present()

    def sync(self) -> None:
        """Makes sure that the rows are on the disk."""
        if self._metrics is not None:
            self._metrics.sync()

    def lock(self) -> None:
        """Keeps other processes off a run that is to go on, until it is closed.

        Raises:
            UsageError: Another process has it, or it cannot be written to.
        """
        self._metrics = MetricsFile.open(self.path / METRICS)

    def rewind(
        self,
        config: TrainConfig,
        policy: PolicyFile,
        rows: list[Row],
        end: Position,
        system: dict[str, Any],
    ) -> None:
        """Puts the locked folder back to the end of an update, for the run to go on from there.

        Each step leaves a folder that can be resumed again.

        Args:
            config: The settings to go on with.
            policy: What was kept then.
            rows: The rows until then.
            end: Where they end in metrics.csv.
            system: The framework that goes on, versions, cores; system.json gets it.
        """
        assert self._metrics is not None
        write_policy(self.policy_path, policy)
        self._metrics.rewind(end)
        self._last = rows[-1]
        noted = _read_table(self.path / SYSTEM)
        before = noted.get("resumed")
        begun = {"after_update": rows[-1].update} | system
        noted["resumed"] = [*(before if isinstance(before, list) else []), begun]
        write_atomically(self.path / SYSTEM, to_json(noted))
        write_atomically(self.path / CONFIG, to_json(config.to_dict()))
        (self.path / RESULT).unlink(missing_ok=True)
        self.config = config

    def finish(
        self,
        ended: str,
        solved_at: SolvedAt | None,
        kept: Kept | None,
        error: BaseException | None = None,
    ) -> None:
        """Closes the folder and writes result.json.

        Args:
            ended: `"solved"`, `"budget spent"`, `"paused"`, `"interrupted"` or `"failed"`.
            solved_at: What it took, if it was solved.
            kept: The kept policy; None if there was no update.
            error: What ended it, if it did not end by itself.
        """
        self.close()
        last = self._last
        result = {
            "ended": ended,
            "env_steps": last.env_steps if last else 0,
            "episodes": last.episodes if last else 0,
            "updates": last.update if last else 0,
            "seconds": last.seconds if last else None,
            "solved_at": solved_at._asdict() if solved_at else None,
            "kept_update": kept.update if kept else None,
            "evaluation": kept.evaluation.summary() if kept else None,
            "error": str(error) or type(error).__name__ if error else None,
        }
        write_atomically(self.path / RESULT, to_json(result))

    def close(self) -> None:
        """Closes metrics.csv, which unlocks it."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


def to_json(values: object) -> bytes:
    """The text of a JSON file."""
    return (json.dumps(values, indent=2) + "\n").encode()


def has_seeds(path: Path) -> bool:
    """Whether `path` is a folder of several seeds."""
    return os.path.exists(path / SEEDS)  # which, unlike Path.exists, takes a name of any length


def open_runs(path: Path) -> list[RunFolder]:
    """Opens a run folder, or each `seed-N` in a folder of several seeds, in order of N.

    Raises:
        UsageError: It is neither, or a configuration cannot be read.
    """
    if not has_seeds(path):
        return [RunFolder.open(path)]
    numbered = {
        int(match[1]): folder
        for folder in path.iterdir()
        if (match := re.fullmatch(r"seed-(\d+)", folder.name))
    }
    if not numbered:
        raise UsageError(f"{str(path)!r} has a {SEEDS}, but no folder seed-N")
    return [RunFolder.open(folder) for _, folder in sorted(numbered.items())]


def open_begun(path: Path, file: str) -> tuple[list[RunFolder], list[str]]:
    """The runs in a folder of several seeds that have `file`, and the seeds that lack it.

    A seed that was stopped before its first update, or never began, has neither policy nor metrics.

    Raises:
        UsageError: No seed has it, or a configuration cannot be read.
    """
    runs = [run for run in open_runs(path) if (run.path / file).exists()]
    if not runs:
        raise UsageError(f"no seed in {str(path)!r} has a {file}: no first update is done")
    with (path / SEEDS).open(newline="") as table:
        seeds = [line["seed"] for line in csv.DictReader(table)]
    begun = {str(run.config.seed) for run in runs}
    return runs, [seed for seed in seeds if seed not in begun]


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
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{str(path)!r} is damaged: it holds no table")
    return values
