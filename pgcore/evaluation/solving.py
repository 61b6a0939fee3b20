"""When a policy is evaluated, which one is kept, and when an environment counts as solved."""

import math
import warnings
from collections import deque
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from pgcore.config import TrainConfig
from pgcore.evaluation.playing import Evaluation

SOLVED_WINDOW = 100
"""Training episodes that "solved" averages over."""


HIGHEST_RETURNS = {
    "CartPole-v0": 200.0,
    "CartPole-v1": 500.0,
    "Acrobot-v1": 0.0,
    "MountainCar-v0": -1.0,
}
"""Undiscounted returns that no episode exceeds: a reward a step up to the step limit, a cost a step
but the last, a cost a step. Of other environments nothing is known."""


class UnreachableThreshold(UserWarning):
    """No policy can reach the threshold, so the run will spend its whole budget."""


class Kept(NamedTuple):
    """The best policy so far, by evaluation."""

    params: Any
    evaluation: Evaluation
    update: int
    """The update whose episodes these parameters played (they are what it started from)."""


class SolveRule:
    """Keeps the best policy and says when the environment is solved.

    Whenever a batch's mean return reaches the best so far, the parameters that played it are
    evaluated on fresh episodes, and the best evaluation is kept. Solved: the last 100 training
    episodes average at least the threshold, and so does the kept evaluation. (Policies keep
    oscillating after they first cross the threshold, so neither alone is enough.) A kept evaluation
    that is as high as can be ends the evaluations: none could be better.

    Args:
        threshold: What both averages have to reach.
        highest: The highest return that an episode can have, if it is known.
    """

    def __init__(self, threshold: float, highest: float = math.inf) -> None:
        self.threshold = threshold
        self.highest = highest
        self.recent: deque[float] = deque(maxlen=SOLVED_WINDOW)
        self.best_batch_mean = -math.inf
        self.kept: Kept | None = None

    def record(self, returns: np.ndarray) -> bool:
        """Counts a batch's returns; true if what played it should be evaluated."""
        self.recent.extend(float(value) for value in returns)
        mean = float(np.mean(returns))
        promising = mean >= self.best_batch_mean
        self.best_batch_mean = max(self.best_batch_mean, mean)
        return promising and not (self.kept and self.kept.evaluation.mean >= self.highest)

    def offer(self, candidate: Kept) -> None:
        """Keeps `candidate` if it evaluates better than what is kept."""
        if self.kept is None or candidate.evaluation.mean > self.kept.evaluation.mean:
            self.kept = candidate

    @property
    def recent_mean(self) -> float:
        """Mean return of the last 100 training episodes, or of all if fewer."""
        return sum(self.recent) / len(self.recent)

    @property
    def solved(self) -> bool:
        """Whether both averages have reached the threshold, over a full window."""
        return (
            len(self.recent) == SOLVED_WINDOW
            and self.recent_mean >= self.threshold
            and self.kept is not None
            and self.kept.evaluation.mean >= self.threshold
        )


def highest_return(env_id: str) -> float:
    """What no episode's undiscounted return exceeds; infinite where nothing is known."""
    return HIGHEST_RETURNS.get(env_id, math.inf)


def unreachable_threshold(config: TrainConfig) -> str | None:
    """Why `solve_threshold` can't be reached, or None if it may be."""
    highest = highest_return(config.env_id)
    if config.solve_threshold <= highest:
        return None
    usual = gymnasium.spec(config.env_id).reward_threshold
    return (
        f"solve_threshold is {config.solve_threshold:g}, but no episode of {config.env_id} returns "
        f"more than {highest:g}: the run will spend its whole budget of "
        f"{config.total_timesteps:,} environment steps"
        + (f" (Gymnasium's own threshold is {usual:g})" if usual is not None else "")
    )


def warn_of_threshold(config: TrainConfig) -> None:
    """Warns whoever called `train` of a threshold that can't be reached."""
    if reason := unreachable_threshold(config):
        warnings.warn(reason, UnreachableThreshold, stacklevel=4)
