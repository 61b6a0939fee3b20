"""Variants of the adapters to Gymnasium."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity.mutants.variants import Patch, Variant
from pgcore.envs.gym import GymSpec
from pgjax.envs import gymnasium as jax_gymnasium
from pgtorch.envs import gymnasium as torch_gymnasium

MODULES = {"pgjax": jax_gymnasium, "pgtorch": torch_gymnasium}


def of_adapters() -> Iterator[Variant]:
    """How episodes start, what a step is told, and what is told of it."""

    def both(name: str, kind: str, wrong: Callable[[Any], Any], what: str) -> Iterator[Variant]:
        for package, module in MODULES.items():
            patch = Patch(module, what, wrong, ((module, "GymnasiumEnv"),))
            yield Variant(f"{name}, from Gymnasium", kind, package, (patch,))

    def told(name: str, kind: str, change: Callable) -> Iterator[Variant]:
        return both(name, kind, lambda right: _telling(right, change), "GymEpisodes")

    def started(name: str, reset: Callable) -> Iterator[Variant]:
        return both(name, "environment", lambda right: _starting(right, reset), "GymEpisodes")

    ended = "terminated against truncated"
    yield from told(
        "terminated and truncated exchanged",
        ended,
        lambda before, obs, reward, over, cut: (obs, reward, cut, over),
    )
    yield from told(
        "truncation told as termination",
        ended,
        lambda before, obs, reward, over, cut: (obs, reward, over | cut, cut),
    )
    yield from told(
        "the step before is observed",
        "environment",
        lambda before, obs, reward, over, cut: (before, reward, over, cut),
    )
    yield from told(
        "rewards dropped",
        "environment",
        lambda before, obs, reward, over, cut: (obs, 0 * reward, over, cut),
    )
    yield from told(
        "no reward for the last step",
        "environment",
        lambda before, obs, reward, over, cut: (obs, reward * ~(over | cut), over, cut),
    )
    yield from started("first states not set", _without_state)
    yield from started("started from other seeds", _unseeded)
    # In PyTorch a reset makes new episodes, which could not have been left as they were.
    yield next(started("not started anew", _once))
    yield from both("all play the first one's action", "environment", _following, "GymEpisodes")
    yield from both(
        "the registered step limit",
        ended,
        lambda right: lambda env_id, max_steps=None: right(env_id),
        "gym_spec",
    )


def _telling(right: Any, change: Callable) -> Any:
    """Episodes that tell `change(observation before, *what the step gave)`."""

    class Episodes(right):
        def reset(self, noise: np.ndarray) -> np.ndarray:
            self.before = super().reset(noise)
            return self.before

        def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
            before, outputs = self.before, super().step(action)
            self.before = outputs[0]
            return change(before, *outputs)

    return Episodes


def _starting(right: Any, reset: Callable) -> Any:
    """Episodes that start by `reset(episodes, right reset, noise)`."""

    class Episodes(right):
        def __init__(self, spec: GymSpec, *more: Any) -> None:
            super().__init__(spec, *more)
            self.obs: Any = None

        def reset(self, noise: np.ndarray) -> np.ndarray:
            self.obs = reset(self, super().reset, noise)
            return self.obs

    return Episodes


def _following(right: Any) -> Any:
    class Episodes(right):
        def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
            return super().step(np.full_like(action, action[0]))

    return Episodes


def _without_state(episodes: Any, right: Callable, noise: np.ndarray) -> np.ndarray:
    obs = right(noise)
    if noise.ndim == 2:  # CartPole's, which it observes but does not start at
        for env in episodes._envs.envs:
            env.unwrapped.state = np.zeros(4)
    return obs


def _unseeded(episodes: Any, right: Callable, noise: np.ndarray) -> np.ndarray:
    return right(noise if noise.ndim == 2 else noise + 1)


def _once(episodes: Any, right: Callable, noise: np.ndarray) -> np.ndarray:
    return right(noise) if episodes.obs is None else episodes.obs
