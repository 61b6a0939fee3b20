"""Runs of the project's own agents, played until they are solved, with their learning curves."""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from parity.runs.agents import agent_run
from parity.runs.driver import Mode, lockstep
from parity.runs.reports import LockstepReport
from pgcore.config import TrainConfig
from pgcore.solving import SOLVED_WINDOW

NO_LIMIT = 1_000_000
"""Updates; a run ends by its budget of environment steps long before."""


class Progress(NamedTuple):
    """How far a run is."""

    update: int
    env_steps: int
    episodes: int
    recent_mean: float


class Proof(NamedTuple):
    """A run, and the mean return of the episodes of each update.

    `solved` says whether the last 100 training episodes of the reference average the threshold;
    the evaluation of a kept policy is no part of such a run.
    """

    report: LockstepReport
    returns: np.ndarray
    candidate_returns: np.ndarray
    env_steps: int
    solved: bool


def prove(
    config: TrainConfig,
    mode: Mode,
    dtype: str = "float64",
    *,
    updates: int | None = None,
    tell: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Proof:
    """Runs one of our agents until it is solved, its budget is spent, or so many updates are made.

    Args:
        config: The agent, its settings and its budget.
        mode: As in `parity.lockstep`.
        dtype: `"float64"` or `"float32"`.
        updates: How many at most.
        tell: Called after each update.
        options: As `parity.runs.agents.agent_run` has them.
    """
    recent: deque[float] = deque(maxlen=SOLVED_WINDOW)
    returns: list[float] = []
    candidate_returns: list[float] = []
    env_steps = episodes = 0

    def note(update: int, outputs: Any, found: Any = None) -> None:
        nonlocal env_steps, episodes
        metrics, played = outputs["metrics"], outputs["act"]
        recent.extend((played["reward"] * played["mask"]).sum(0).tolist())
        returns.append(float(metrics["mean_return"]))
        if found is not None:
            candidate_returns.append(float(found["metrics"]["mean_return"]))
        env_steps += int(metrics["num_steps"])
        episodes += int(metrics["num_episodes"])
        if tell is not None:
            tell(Progress(update, env_steps, episodes, float(np.mean(recent))))

    def is_solved() -> bool:
        return len(recent) == SOLVED_WINDOW and float(np.mean(recent)) >= config.solve_threshold

    report = lockstep(
        **agent_run(config, dtype, **options)._asdict(),
        updates=updates or NO_LIMIT,
        mode=mode,
        until=lambda _: is_solved() or env_steps >= config.total_timesteps,
        callback=note,
        name=f"{config.agent}, seed {config.seed}, {mode} in {dtype}",
    )
    return Proof(report, np.array(returns), np.array(candidate_returns), env_steps, is_solved())
