"""What the command `resume` does, for `pgjax` and `pgtorch` alike."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from pgcore.checkpoints import ResumeWarning
from pgcore.commands.framework import Framework
from pgcore.commands.training import train_one
from pgcore.envs.gym import gym_spec
from pgcore.errors import printable, require
from pgcore.evaluation.solving import UnreachableThreshold
from pgcore.training.reopening import Reopened, reopen


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was paused, interrupted or killed, in its own folder."""

    run_dir: tyro.conf.Positional[Path]
    """The run folder. Either framework's will do."""
    until_update: int | None = None
    """Pause again after this many updates, counted from the run's beginning."""
    total_timesteps: int | None = None
    """Another budget of environment steps; by default the run's own."""
    env_id: str | None = None
    """The run's environment. Needed only where it names a module to import, MODULE:ID: a run
    folder alone can't have code run."""
    env_timeout: float | None = None
    """Another time limit, in seconds, of a reset or step of the environment, 0 for none; by default
    the run's own."""
    json: bool = False
    """Print one JSON object instead of sentences."""


def resume(name: str, load: Callable[[], Framework], command: Resume) -> int:
    """Goes on with a run, shows progress, says how it ended, and returns the exit code."""
    run_dir = command.run_dir
    if command.env_id is not None:
        gym_spec(command.env_id)  # which imports its module
    before = _look(name, command)  # before a framework is waited for
    last = before.stored.progress
    print(
        f"{name}: {run_dir} goes on after update {last.update}, "
        f"{last.env_steps:,} environment steps",
        file=sys.stderr,
    )
    go = partial(
        load().resume,
        run_dir,
        **_changes(command),
    )
    with warnings.catch_warnings():
        for said in (ResumeWarning, UnreachableThreshold):  # above, and when the run began
            warnings.simplefilter("ignore", said)
        return train_one(name, go, before.config, run_dir, as_json=command.json)


def _look(name: str, command: Resume) -> Reopened:
    """The run that is to go on, as it is found; what there is to know of it is printed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResumeWarning)
        with reopen(command.run_dir, name, **_changes(command)) as before:
            pass
    for warning in caught:
        print(printable(f"{name}: warning: {warning.message}"), file=sys.stderr)
    given, found = command.env_id, before.config.env_id
    require(given in (None, found), "env_id", given, f"that of the run, {found!r}")
    return before


def _changes(command: Resume) -> dict[str, Any]:
    """What is to be otherwise than the run began with; None where it is not."""
    return {
        "total_timesteps": command.total_timesteps,
        "until_update": command.until_update,
        "env_timeout": command.env_timeout,
    }
