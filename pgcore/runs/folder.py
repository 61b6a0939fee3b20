"""Run folders: what a training run leaves behind.

| file               | holds                                                                |
| ------------------ | -------------------------------------------------------------------- |
| config.json        | the `TrainConfig`                                                    |
| system.json        | framework, versions, cores, flags                                    |
| metrics.csv        | one row an update, columns named as CleanRL's                        |
| policy.safetensors | the kept policy, in the neutral schema; replaced when a better comes |
| result.json        | how it ended; absent while the run goes on                           |
| SHA256SUMS         | of the files above, once it has ended: see `pgcore.files.sums`       |
| checkpoints/       | what it goes on from: see `pgcore.checkpoints`                       |

A run of several seeds leaves a folder of such folders, `seed-N` for each, with a table of them,
seeds.csv.
"""

import csv
import hashlib
import os
from pathlib import Path
from typing import Any

from pgcore.config import TrainConfig
from pgcore.envs.gym import gym_spec, require_imported
from pgcore.errors import UsageError, require
from pgcore.evaluation.solving import Kept
from pgcore.files.reading import LARGEST_JSON, open_file, parse_json, read_file
from pgcore.files.schema import PolicyFile, read_policy, write_policy
from pgcore.files.sealed_json import to_json
from pgcore.files.sums import SUMS, digest, require_sums, write_sums
from pgcore.files.writing import write_atomically
from pgcore.runs.making import make_folder
from pgcore.runs.metrics import Row, SolvedAt, lines_of, parse_rows
from pgcore.runs.metrics_file import MetricsFile, Position
from pgcore.runs.system import system

CONFIG, SYSTEM, METRICS, POLICY, RESULT = (
    "config.json",
    "system.json",
    "metrics.csv",
    "policy.safetensors",
    "result.json",
)
FRAMEWORKS = ("pgjax", "pgtorch")
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
        values = read_table(path / CONFIG)
        if not has_seeds(path) and any(path.glob("seed-*")):
            raise UsageError(f"{str(path)!r} is of several seeds, but its {SEEDS} is missing")
        try:
            return cls(path, TrainConfig.from_dict(values))
        except UsageError as error:
            raise UsageError(f"{str(path / CONFIG)!r} is damaged: {error}") from error

    def check_policy(self) -> None:
        """Raises a `UsageError` if there is no policy, or not the one that `config.json` says."""
        if not self.policy_path.exists():
            raise UsageError(f"{str(self.path)!r} has no {POLICY}: its first update is not done")
        file, config = read_policy(self.policy_path), self.config
        where = f"policy file {str(self.policy_path)!r}"
        found = (file.agent, file.env, file.hidden_sizes)
        expected = (config.agent, config.env_id, config.hidden_sizes)
        accepted = f"what {CONFIG} says, {expected}"
        require(found == expected, f"{where} (agent, env, hidden)", found, accepted)
        require_imported(config.env_id, str(self.path / CONFIG))
        spec = gym_spec(config.env_id)
        found, expected = (file.obs_dim, file.num_actions), (spec.obs_dim, spec.num_actions)
        accepted = f"what {config.env_id} has, {expected}"
        require(found == expected, f"{where} (observations, actions)", found, accepted)
        self.require_as_it_ended(CONFIG, POLICY)

    def require_as_it_ended(self, *names: str) -> None:
        """Raises a `UsageError` if the run has ended, and a file is not as it was then."""
        if (self.path / RESULT).exists():
            require_sums(self.path, *names, RESULT)

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
            with open_file(path) as file:
                rows = parse_rows(lines_of(file))
        except OSError as error:
            raise UsageError(f"{str(self.path)!r} has no update to read: {error}") from error
        except (ValueError, csv.Error) as error:
            raise UsageError(f"{str(path)!r} is damaged: {error}") from error
        if not rows:
            raise UsageError(f"{str(path)!r} holds no row: the run's first update is not done")
        return rows

    def position(self) -> Position:
        """Where metrics.csv ends, which is made if it is not there."""
        if self._metrics is None:
            self._metrics = MetricsFile.create(self.path / METRICS)
        return self._metrics.position

    def append(self, row: Row) -> Position:
        """Adds a row to metrics.csv and returns where that ends."""
        self.position()
        assert self._metrics is not None
        self._metrics.append(row)
        self._last = row
        return self._metrics.position

    def cut(self, end: Position) -> None:
        """Takes back what metrics.csv has beyond `end`."""
        assert self._metrics is not None
        self._metrics.rewind(end)

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
        for name in (RESULT, SUMS):
            (self.path / name).unlink(missing_ok=True)
        write_policy(self.policy_path, policy)
        self._metrics.rewind(end)
        self._last = rows[-1]
        noted = read_table(self.path / SYSTEM)
        before = noted.get("resumed")
        begun = {"after_update": rows[-1].update} | system
        noted["resumed"] = [*(before if isinstance(before, list) else []), begun]
        write_atomically(self.path / SYSTEM, to_json(noted))
        write_atomically(self.path / CONFIG, to_json(config.to_dict()))
        self.config = config

    def finish(
        self,
        ended: str,
        solved_at: SolvedAt | None,
        kept: Kept | None,
        error: BaseException | None = None,
    ) -> None:
        """Closes the folder and writes result.json, with SHA256SUMS of all.

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
        written = to_json(result)
        left = [name for name in (CONFIG, SYSTEM, METRICS, POLICY) if (self.path / name).exists()]
        digests = {name: digest(self.path / name) for name in left}
        write_sums(self.path, digests | {RESULT: hashlib.sha256(written).hexdigest()})
        write_atomically(self.path / RESULT, written)

    def close(self) -> None:
        """Closes metrics.csv, which unlocks it."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


def has_seeds(path: Path) -> bool:
    """Whether `path` is a folder of several seeds."""
    return os.path.exists(path / SEEDS)  # which, unlike Path.exists, takes a name of any length


def read_framework(path: Path) -> str:
    """Which framework made the run, or the folder of several seeds, at `path`.

    Raises:
        UsageError: Its system.json cannot be read or does not say.
    """
    framework = read_table(path / SYSTEM).get("framework")
    if framework not in FRAMEWORKS:
        raise UsageError(f"{str(path / SYSTEM)!r} is damaged: it names no framework")
    return framework


def read_table(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a run folder.

    Raises:
        UsageError: It is missing, or it is no JSON object.
    """
    try:
        values = parse_json(read_file(path, LARGEST_JSON))
    except OSError as error:
        raise UsageError(f"{str(path.parent)!r} is no run folder: {error}") from error
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{str(path)!r} is damaged: it holds no table")
    return values
