"""Evaluation of any policy in the real Gymnasium environment."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pgcore.agents import find_agent
from pgcore.errors import require
from pgcore.gym import GymEpisodes, draw_reset, gym_spec
from pgcore.statistics import bootstrap_interval

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`act(obs [B, O], noise [B, A]) -> actions [B]`: a policy with its parameters bound."""


class Evaluation(NamedTuple):
    """Undiscounted returns of whole episodes, `[num_episodes]`."""

    returns: np.ndarray

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    def summary(self) -> dict[str, object]:
        """The figures as plain values, for JSON."""
        return {
            "episodes": len(self.returns),
            "mean_return": self.mean,
            "std_return": float(np.std(self.returns)),
            "interval_95": list(self.interval()),
        }

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """A bootstrap confidence interval of the mean (seeded, so repeatable)."""
        low, high = bootstrap_interval(np.mean, self.returns, level)
        return float(low), float(high)


def evaluate(
    act: Act,
    agent: str,
    env_id: str = "CartPole-v1",
    *,
    episodes: int = 100,
    seed: int = 0,
    greedy: bool = False,
) -> Evaluation:
    """Plays whole episodes in the Gymnasium environment and returns what they earned.

    Args:
        act: The policy, NumPy to NumPy.
        agent: Its name, which says what noise it acts on.
        env_id: The environment.
        episodes: How many, all started together.
        seed: Seed of the initial states and of the noise. Both frameworks' policies meet the
            same episodes under the same seed.
        greedy: Act on zero noise, which is the most likely action.
    """
    require(episodes >= 1, "episodes", episodes, "an integer of at least 1")
    rng = np.random.default_rng(seed)
    envs = GymEpisodes(gym_spec(env_id), episodes)
    try:
        obs = envs.reset(draw_reset(rng, env_id, episodes))
        returns, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
        shape = (episodes, envs.spec.num_actions)
        while running.any():
            noise = np.zeros(shape) if greedy else find_agent(agent).draw_noise(rng, shape)
            obs, reward, terminated, truncated = envs.step(act(obs, noise))
            returns += np.where(running, reward, 0.0)
            running &= ~(terminated | truncated)
    finally:
        envs.close()
    return Evaluation(returns)
