"""Opening a run's folder to go on with the run from its newest checkpoint."""

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pgcore.checkpoints import ResumeWarning, StoredCheckpoint, find_checkpoint, read_metrics
from pgcore.config import TrainConfig
from pgcore.envs.gym import require_imported
from pgcore.errors import UsageError, require
from pgcore.evaluation import Evaluation
from pgcore.evaluation.solving import Kept, SolveRule, highest_return
from pgcore.runs import CONFIG, METRICS, RunFolder, has_seeds
from pgcore.runs.metrics import Row, parse_rows
from pgcore.runs.system import differences, system

MAY_CHANGE = ("run_dir", "total_timesteps", "until_update", "checkpoint_every", "env_timeout")
"""Settings in which a run may go on otherwise than it began: no update depends on them."""

COUNTED = ("total_timesteps", "checkpoint_every")
"""Those of them that are taken from config.json, where it should be told if they are others."""


class Reopened(NamedTuple):
    """A run that is to go on. Its folder is locked, and not changed yet."""

    config: TrainConfig
    """The settings to go on with."""
    folder: RunFolder
    stored: StoredCheckpoint
    rows: list[Row]
    rule: SolveRule
    """As it was, but that the kept policy's parameters are not a framework's yet."""

    def with_kept(self, params: Any) -> "Reopened":
        """With the kept policy's parameters in the framework that goes on."""
        assert self.rule.kept is not None
        self.rule.kept = self.rule.kept._replace(params=params)
        return self


@contextmanager
def reopen(
    run_dir: str | Path,
    framework: str,
    *,
    total_timesteps: int | None = None,
    until_update: int | None = None,
    env_timeout: float | None = None,
) -> Iterator[Reopened]:
    """Locks a run's folder while open, and finds what the run goes on from.

    What is not as in a run that was never interrupted is a `ResumeWarning`.

    Args:
        run_dir: The run folder.
        framework: What is to go on with it.
        total_timesteps: Another budget, instead of the run's own.
        until_update: Where to pause again; by default it does not.
        env_timeout: Another time limit, instead of the run's own.

    Raises:
        UsageError: It is no run folder or has no good checkpoint, the run is solved, its budget is
            spent, `until_update` is behind it, or another process is at it.
    """
    path = Path(run_dir)
    require(not has_seeds(path), "run_dir", str(path), "the folder of one run: seeds can't go on")
    folder = RunFolder.open(path)
    if (path / METRICS).exists():  # without it there is no good checkpoint
        folder.lock()
    try:
        stored = find_checkpoint(path)
        config = _config(folder, stored, total_timesteps, until_update, env_timeout)
        require_imported(config.env_id, str(path / CONFIG))
        folder.require_as_it_ended(CONFIG)
        rule = _rule(stored)
        _require_unfinished(path, config, stored, rule)
        rows = _rows(path, stored)
        if note := _note(stored, framework):
            warnings.warn(note, ResumeWarning, stacklevel=4)
        yield Reopened(config, folder, stored, rows, rule)
    finally:
        folder.close()


def _config(
    folder: RunFolder,
    stored: StoredCheckpoint,
    total_timesteps: int | None,
    until_update: int | None,
    env_timeout: float | None,
) -> TrainConfig:
    for field in dataclasses.fields(TrainConfig):
        begun, now = getattr(stored.config, field.name), getattr(folder.config, field.name)
        if field.name not in MAY_CHANGE and begun != now:
            path = str(folder.path / CONFIG)
            require(False, f"{field.name} in {path!r}", now, f"what the run began with, {begun!r}")
        if field.name in COUNTED and begun != now and total_timesteps is None:
            text = f"{field.name} in {str(folder.path / CONFIG)!r} is {now}, which is used, "
            text += f"and was {begun} when the checkpoint was made"
            warnings.warn(text, ResumeWarning, stacklevel=5)
    budget = folder.config.total_timesteps if total_timesteps is None else total_timesteps
    timeout = folder.config.env_timeout if env_timeout is None else env_timeout
    return replace(
        folder.config,
        run_dir=folder.path,
        total_timesteps=budget,
        until_update=until_update,
        env_timeout=timeout,
    )


def _rule(stored: StoredCheckpoint) -> SolveRule:
    config, progress = stored.config, stored.progress
    rule = SolveRule(config.solve_threshold, highest_return(config.env_id))
    rule.recent.extend(progress.recent_returns)
    rule.best_batch_mean = progress.best_batch_mean
    rule.kept = Kept(None, Evaluation(stored.state["kept.returns"]), progress.kept_update)
    return rule


def _require_unfinished(
    path: Path, config: TrainConfig, stored: StoredCheckpoint, rule: SolveRule
) -> None:
    update, env_steps = stored.progress.update, stored.progress.env_steps
    if rule.solved:
        raise UsageError(
            f"{str(path)!r} is solved, after update {update}: there is nothing to go on with"
        )
    more = f"more than {env_steps:,}, the environment steps that are done (--total-timesteps)"
    require(config.total_timesteps > env_steps, "total_timesteps", config.total_timesteps, more)
    is_ahead = config.until_update is None or config.until_update > update
    more = f"more than {update}, the updates that are done"
    require(is_ahead, "until_update", config.until_update, more)


def _rows(path: Path, stored: StoredCheckpoint) -> list[Row]:
    try:
        rows = parse_rows(read_metrics(path, stored.progress.metrics))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{str(path / METRICS)!r} is damaged: {error}") from error
    last, update = rows[-1].update if rows else 0, stored.progress.update
    is_whole = len(rows) == last == update
    require(is_whole, f"the last row of {str(path / METRICS)!r}", last, f"that of update {update}")
    return rows


def _note(stored: StoredCheckpoint, framework: str) -> str | None:
    """What to say of a run that does not go on as if it had never been interrupted."""
    update, before = stored.progress.update, stored.framework
    if before != framework:
        return (
            f"update {update} was made by {before}: parameters, Adam's state and the counters go "
            f"over exactly, but random numbers can't, so {framework} goes on with its own stream "
            "for this seed and update"
        )
    changed = differences(stored.system, system(framework))
    if not changed:
        return None
    return (
        "this will not be bitwise the run that was never interrupted, for update "
        f"{update} was made elsewhere: {', '.join(changed)}"
    )
