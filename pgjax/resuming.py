"""Going on with a run in its own folder, as if it had never been interrupted."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from pgcore.training.bookkeeping import Result, Update
from pgcore.training.loop import run
from pgcore.training.reopening import reopen
from pgjax.checkpoint import _load, _require_fit, _stored_keys
from pgjax.envs.registry import make_env
from pgjax.train import _begin, _make_parts, _make_trainer, _run_keys


def resume(
    run_dir: str | Path,
    *,
    total_timesteps: int | None = None,
    until_update: int | None = None,
    env_timeout: float | None = None,
    callback: Callable[[Update], None] | None = None,
) -> Result:
    """Goes on with a run of either framework in its own folder, from its newest good checkpoint.

    A run of this framework, with the same versions, cores and flags, goes on bitwise as if it had
    never been interrupted. Whatever is otherwise is said in a `ResumeWarning`.

    Args:
        run_dir: The run folder.
        total_timesteps: Another budget; by default the run's own.
        until_update: Pause again after this many updates, counted from the run's beginning.
        env_timeout: Another time limit of the environment's calls; by default the run's own.
        callback: Called with an `Update` after each new update.

    Returns:
        What `train` returns, of the whole run.

    Raises:
        UsageError: It is no run folder or has no good checkpoint, the run is solved, its budget is
            spent, or another process is at it. Nothing is changed.
        RunError: A reward, an observation, a parameter, the loss or its gradient is not finite.
    """
    started = time.perf_counter()
    with reopen(
        run_dir,
        "pgjax",
        total_timesteps=total_timesteps,
        until_update=until_update,
        env_timeout=env_timeout,
    ) as before:
        config = before.config
        found = _load(before.stored, str(run_dir))
        _require_fit(found.state.params, config, make_env(config.env_id))
        keys = _stored_keys(before.stored.state) or jax.jit(_run_keys)(np.uint32(config.seed))[1:]
        programs = _begin(_make_parts(config), found.state, keys[0])
        return run(
            config,
            found.policy,
            found.state,
            _make_trainer(config, programs, *keys),
            callback=callback,
            started=started,
            resumed=before.with_kept(found.kept_params),
        )
