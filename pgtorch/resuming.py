"""Continuing a run where it was paused, interrupted or killed."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pgcore.training.bookkeeping import Result, Update
from pgcore.training.loop import run
from pgcore.training.reopening import reopen
from pgtorch.checkpoint import _load, _require_fit, _stored_keys
from pgtorch.envs.registry import make_env
from pgtorch.train import _make_trainer, _one_thread, _run_keys


def resume(
    run_dir: str | Path,
    *,
    total_timesteps: int | None = None,
    until_update: int | None = None,
    env_timeout: float | None = None,
    callback: Callable[[Update], None] | None = None,
) -> Result:
    """Continues a run, whichever framework began it, where its newest good checkpoint left it.

    If it was this one, in the same versions on the same cores, the run ends bitwise as one that
    was never interrupted. If not, a `ResumeWarning` says what differs. The run stays in its folder.

    Args:
        run_dir: The run folder.
        total_timesteps: A budget instead of the run's own.
        until_update: The update after which to pause again, counted from the run's beginning.
        env_timeout: Another time limit of the environment's calls; by default the run's own.
        callback: Called with a `pgcore.Update` after each update that is added.

    Returns:
        The result of the whole run, as `train` has it.

    Raises:
        UsageError: It is no run folder or has no good checkpoint, the run is solved, its budget is
            spent, or another process is at it. Nothing is changed.
        RunError: A reward, an observation, a parameter, the loss or its gradient is not finite.
    """
    started = time.perf_counter()
    with (
        reopen(
            run_dir,
            "pgtorch",
            total_timesteps=total_timesteps,
            until_update=until_update,
            env_timeout=env_timeout,
        ) as before,
        _one_thread(),
    ):
        config, update = before.config, before.stored.progress.update
        env = make_env(config.env_id, timeout=config.env_timeout or None)
        found = _load(before.stored, str(run_dir))
        _require_fit(found.state.params, config, env)
        keys = _stored_keys(before.stored.state) or _run_keys(_seed_after(config.seed, update))
        trainer = _make_trainer(config, found.policy, env, *keys)
        return run(
            config,
            found.policy,
            found.state,
            trainer,
            callback=callback,
            started=started,
            resumed=before.with_kept(found.kept_params),
        )


def _seed_after(seed: int, update: int) -> int:
    """The seed of a stream of its own for a run that goes on after `update`."""
    return int(np.random.SeedSequence([seed, update]).generate_state(1, np.uint64)[0])
