"""Checkpoints: all that a run needs to go on, as plain safetensors and JSON.

`RUN/checkpoints/update-000040/` is written whole or not at all, and holds:

| file               | holds                                                                     |
| ------------------ | ------------------------------------------------------------------------- |
| state.safetensors  | parameters and Adam's state by neutral name, `update`, the random streams |
|                    | `random.KIND.train` and `.evaluation`, the kept evaluation `kept.returns` |
| policy.safetensors | the kept policy                                                           |
| checkpoint.json    | schema, framework, versions, configuration, counters, how far metrics.csv |
|                    | was written, SHA-256 of the files, and of itself                          |

Between two updates no episode is under way, so an environment has no state to be stored.
"""

import hashlib
import re
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from pgcore.config import TrainConfig
from pgcore.errors import UsageError, is_int, is_real, require
from pgcore.files.reading import Unfit, open_file, read_file
from pgcore.files.schema import PolicyFile, Tensors, policy_to_bytes, read_policy
from pgcore.files.sealed_json import seal, unseal
from pgcore.files.tensors import LARGEST_FILE, from_bytes, to_bytes
from pgcore.files.writing import sync_folder, write_folder
from pgcore.runs import CONFIG, METRICS, POLICY, RunFolder
from pgcore.runs.metrics_file import Position

CHECKPOINTS = "checkpoints"
STATE, CHECKPOINT = "state.safetensors", "checkpoint.json"
SCHEMA_NAME, SCHEMA_VERSION = "policy-gradient-checkpoint", 1
NUM_KEPT = 2
"""Checkpoints of a run that stay: the last one, and one more in case it is damaged."""
LARGEST_JSON, LARGEST_ROW = 1_000_000, 1_000
"""Bytes of a checkpoint.json and of a row of metrics.csv. Ours have some 5,000 and 150; more is
not read."""


class ResumeWarning(UserWarning):
    """Something to know about a run that goes on from a checkpoint."""


class Damaged(UsageError):
    """A checkpoint is not as it was written; an older one may be."""


class Progress(NamedTuple):
    """What a run had counted by the end of an update."""

    update: int
    env_steps: int
    episodes: int
    recent_returns: tuple[float, ...]
    """The window of the solve rule."""
    best_batch_mean: float
    kept_update: int
    metrics: Position


class StoredCheckpoint(NamedTuple):
    """A checkpoint as it is stored."""

    config: TrainConfig
    system: dict[str, Any]
    """Framework, versions, cores and flags that made it."""
    progress: Progress
    state: Tensors
    policy: PolicyFile

    @property
    def framework(self) -> str:
        """`"pgjax"` or `"pgtorch"`."""
        return str(self.system.get("framework"))


def checkpoint_folders(run_dir: Path) -> dict[int, Path]:
    """A run's checkpoints by their update, the newest first.

    Raises:
        UsageError: Their folder is a link: what is in another place is not this run's to remove.
    """
    parent = run_dir / CHECKPOINTS
    require(not parent.is_symlink(), "checkpoints", str(parent), "a folder, not a link to one")
    found = {
        int(match[1]): path
        for path in (parent.iterdir() if parent.is_dir() else ())
        if (match := re.fullmatch(r"update-(\d{6,12})", path.name)) and not path.is_symlink()
    }
    return dict(sorted(found.items(), reverse=True))


def write_checkpoint(run_dir: Path, stored: StoredCheckpoint) -> None:
    """Writes a checkpoint of the run, on the disk when this returns, and removes old ones.

    Raises:
        OSError: It cannot be written. The older ones are still there.
    """
    parent = run_dir / CHECKPOINTS
    if not parent.is_dir():
        parent.mkdir()
        sync_folder(run_dir)
    progress = stored.progress
    files = {STATE: to_bytes(stored.state, {}), POLICY: policy_to_bytes(stored.policy)}
    table = {
        "schema": f"{SCHEMA_NAME}/{SCHEMA_VERSION}",
        "system": stored.system,
        "config": stored.config.to_dict(),
        "progress": progress._asdict() | {"metrics": progress.metrics._asdict()},
        "files": {name: _measure(data)._asdict() for name, data in files.items()},
    }
    files[CHECKPOINT] = seal(table)
    write_folder(parent / f"update-{progress.update:06d}", files)
    _remove_others(run_dir, progress.update)


def find_checkpoint(path: Path) -> StoredCheckpoint:
    """Reads a run's newest good checkpoint, or the one whose own folder `path` is.

    A damaged one is named in a `ResumeWarning` and passed over for the one before.

    Raises:
        UsageError: `path` is neither, has none that is good, or a newer version wrote it.
    """
    if (path / CHECKPOINT).exists():
        return read_checkpoint(path)
    RunFolder.open(path)
    damaged: list[str] = []
    for update, folder in checkpoint_folders(path).items():
        try:
            stored = read_checkpoint(folder)
            _require_of(update, stored, folder)
            read_metrics(path, stored.progress.metrics)
        except Damaged as error:
            said = str(error)
            damaged.append(said if folder.name in said else f"{str(folder)!r}: {said}")
            continue
        for reason in damaged:
            text = f"{reason}; the checkpoint after update {stored.progress.update} is used instead"
            warnings.warn(text, ResumeWarning, stacklevel=3)
        return stored
    if damaged:
        raise UsageError(f"{str(path)!r} has no good checkpoint: {'; '.join(damaged)}")
    raise UsageError(
        f"{str(path)!r} has no checkpoint: its first update is not done, or it was trained with "
        "checkpoint_every 0 or beside other seeds; train again, into another folder"
    )


def require_as_counted(run: RunFolder) -> None:
    """Raises a `UsageError` if what a run has written is not what its newest checkpoint says.

    Where there is none, or it can't be read (the run may go on and replace it), nothing is known.
    """
    for folder in [*checkpoint_folders(run.path).values()][:1]:
        try:
            stored = read_checkpoint(folder)
        except UsageError:
            return
        read_metrics(run.path, stored.progress.metrics)
        for name in ("agent", "env_id", "solve_threshold"):
            begun, now = getattr(stored.config, name), getattr(run.config, name)
            where = f"{name} in {str(run.path / CONFIG)!r}"
            require(begun == now, where, now, f"what the run began with, {begun!r}")


def read_metrics(run_dir: Path, position: Position) -> str:
    """metrics.csv up to there.

    Raises:
        Damaged: That much of it is not what the run had written.
    """
    path = run_dir / METRICS
    try:
        with open_file(path) as file:
            data = file.read(position.num_bytes)
    except OSError as error:
        raise Damaged(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    if _measure(data) != position:
        raise Damaged(
            f"{str(path)!r} is damaged, or of another run: it does not begin with the "
            f"{position.num_bytes:,} bytes that the checkpoint has counted"
        )
    return data.decode()


def read_checkpoint(path: Path) -> StoredCheckpoint:
    """Reads the checkpoint in the folder `path`.

    Raises:
        UsageError: It is of another schema. A `Damaged` one if a file is missing, or is not
            byte by byte what was written.
    """
    table = _read_table(path / CHECKPOINT)
    try:
        config, progress = TrainConfig.from_dict(table["config"]), _progress(table["progress"])
        found = {name: Position(**table["files"][name]) for name in (STATE, POLICY)}
        data = {name: _read(path / name, position) for name, position in found.items()}
        state, _ = from_bytes(data[STATE], f"file {str(path / STATE)!r}")
        policy = read_policy(path / POLICY)
        stored = StoredCheckpoint(config, dict(table["system"]), progress, state, policy)
        _require_whole(stored)
    except Damaged:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = str(error) if isinstance(error, UsageError) else repr(error)
        raise Damaged(f"checkpoint {str(path)!r} is no checkpoint of a run: {reason}") from error
    return stored


def _require_of(update: int, stored: StoredCheckpoint, folder: Path) -> None:
    """Raises a `Damaged` unless it is the checkpoint that its folder's name says."""
    if stored.progress.update != update:
        found = stored.progress.update
        raise Damaged(f"checkpoint {str(folder)!r} is damaged: it is that of update {found}")


def _require_whole(stored: StoredCheckpoint) -> None:
    """Raises a `ValueError` unless the parts belong together."""
    update, returns = stored.state["update"], stored.state["kept.returns"]
    if update.shape != () or int(update) != stored.progress.update:
        raise ValueError(f"its state is of update {update.tolist()}")
    if returns.ndim != 1 or not len(returns):
        raise ValueError(f"kept.returns is of shape {list(returns.shape)}")
    if stored.policy.agent != stored.config.agent:
        raise ValueError(f"its policy is of agent {stored.policy.agent!r}")


def _progress(table: dict[str, Any]) -> Progress:
    progress = Progress(**table)
    counts = (progress.update, progress.env_steps, progress.episodes, progress.kept_update)
    returns = [*progress.recent_returns, progress.best_batch_mean]
    if not all(is_int(count, 1) for count in counts) or not all(map(is_real, returns)):
        raise ValueError(f"progress is {table}")
    metrics = Position(**table["metrics"])
    if not is_int(metrics.num_bytes, 1, LARGEST_ROW * (progress.update + 1)):
        raise ValueError(f"metrics is {table['metrics']}")
    return progress._replace(recent_returns=tuple(progress.recent_returns), metrics=metrics)


def _remove_others(run_dir: Path, update: int) -> None:
    """Removes all but this checkpoint and the last before it, and what a killed process left.

    A later one is damaged, or the run would not have gone on from before it.
    """
    folders = checkpoint_folders(run_dir)
    kept = sorted((number for number in folders if number <= update), reverse=True)[:NUM_KEPT]
    for number, path in folders.items():
        if number not in kept:
            shutil.rmtree(path, ignore_errors=True)
    for partial in (run_dir / CHECKPOINTS).glob(".update-*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def _read_table(path: Path) -> dict[str, Any]:
    """Reads a checkpoint.json, of which no byte may be another than it was."""
    data = _read(path)
    try:
        table = unseal(data)
    except ValueError as error:
        raise Damaged(f"{str(path)!r} is damaged: {error}") from error
    name, _, version = str(table.get("schema")).partition("/")
    if name != SCHEMA_NAME or not version.isdecimal():
        raise Damaged(f"schema of {str(path)!r} is {table.get('schema')!r}, not {SCHEMA_NAME}/N")
    if int(version) > SCHEMA_VERSION:
        raise UsageError(
            f"schema of {str(path)!r} is {table['schema']}, accepted is up to version "
            f"{SCHEMA_VERSION}: a newer policy-gradient-parity wrote it, resume with that one"
        )
    return table


def _read(path: Path, expected: Position | None = None) -> bytes:
    """Reads a file that is to be `expected`, or else no larger than a checkpoint.json is."""
    try:
        largest = LARGEST_JSON if expected is None else min(expected.num_bytes, LARGEST_FILE)
        data = read_file(path, largest)
    except Unfit as error:
        raise Damaged(f"{str(path)!r} is damaged: {error.strerror}") from error
    except OSError as error:
        raise Damaged(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    if expected is not None and _measure(data) != expected:
        raise Damaged(f"{str(path)!r} is damaged: it is not what was written (by its SHA-256)")
    return data


def _measure(data: bytes) -> Position:
    return Position(len(data), hashlib.sha256(data).hexdigest())
