"""Evaluation of any policy in the real Gymnasium environment."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pgcore.agents import find_agent
from pgcore.envs.deadline import Deadline
from pgcore.envs.gym import GymEpisodes, draw_reset, gym_spec
from pgcore.errors import RunError, require, require_count, require_seed
from pgcore.evaluation.statistics import bootstrap_interval

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`act(obs [B, O], noise [B, A]) -> actions [B]`: a policy with its parameters bound."""


class Evaluation(NamedTuple):
    """Undiscounted returns of whole episodes, `[num_episodes]`."""

    returns: np.ndarray

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    def summary(self, *, interval: bool = True) -> dict[str, object]:
        """The figures as plain values, for JSON."""
        figures: dict[str, object] = {
            "episodes": len(self.returns),
            "mean_return": self.mean,
            "std_return": float(np.std(self.returns)),
        }
        return figures | ({"interval_95": list(self.interval())} if interval else {})

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
    timeout: float | None = None,
) -> Evaluation:
    """Plays whole episodes in the Gymnasium environment and returns what they earned.

    Args:
        act: The policy, NumPy to NumPy.
        agent: Its name, which says what noise it acts on.
        env_id: The environment.
        episodes: How many, all started together.
        seed: Seed of the initial states and of the noise, from 0 to 2^32 - 1. Both frameworks'
            policies meet the same episodes under the same seed.
        greedy: Act on zero noise, which is the most likely action.
        timeout: Seconds that one reset or step of the environment may take, by default any.

    Raises:
        UsageError: There is no such agent, `episodes` or `seed` is out of range, Gymnasium can't
            make the environment or its spaces do not fit, or `act` returns no such actions.
        RunError: The environment returned an observation or a reward that is not finite, or did
            what else an `EnvironmentFault` is for.
    """
    require(callable(act), "act", act, "a function, such as make_act(policy, params)")
    require_count("episodes", episodes)
    require_seed(seed)
    draw_noise = find_agent(agent).draw_noise
    rng = np.random.default_rng(seed)
    envs = GymEpisodes(gym_spec(env_id), episodes, Deadline(timeout))
    try:
        obs = envs.reset(draw_reset(rng, env_id, episodes))
        returns, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
        shape = (episodes, envs.spec.num_actions)
        step = 0
        while running.any():
            _require_finite("the observation", obs, running, step, env_id)
            noise = np.zeros(shape) if greedy else draw_noise(rng, shape)
            actions = np.asarray(act(obs, noise))
            _require_actions(actions, shape)
            obs, reward, terminated, truncated = envs.step(actions)
            step += 1
            _require_finite("the reward", reward, running, step, env_id)
            with np.errstate(over="ignore"):
                returns += np.where(running, reward, 0.0)
            _require_finite("the return", returns, running, step, env_id)
            running &= ~(terminated | truncated)
    finally:
        envs.close()
    return Evaluation(returns)


def _require_actions(actions: np.ndarray, shape: tuple[int, int]) -> None:
    """Raises a `UsageError` unless there is one action for each episode, `[B]`."""
    num_episodes, num_actions = shape
    is_one_each = actions.shape == (num_episodes,) and np.issubdtype(actions.dtype, np.integer)
    require(
        is_one_each and actions.min() >= 0 and actions.max() < num_actions,
        "what act returns",
        actions,
        f"{num_episodes} integers, one an episode, from 0 to {num_actions - 1}",
    )


def _require_finite(
    name: str, values: np.ndarray, running: np.ndarray, step: int, env_id: str
) -> None:
    """Raises a `RunError` if a running episode's values, `[B]` or `[B, O]`, are not finite."""
    is_bad = running & ~np.isfinite(values).reshape(len(running), -1).all(axis=1)
    if is_bad.any():
        episode = int(np.argmax(is_bad))
        raise RunError(
            f"{name} after step {step} of episode {episode + 1} of {env_id} is "
            f"{values[episode].tolist()}; what an environment returns must be finite"
        )
