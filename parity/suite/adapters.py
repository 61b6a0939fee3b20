"""The adapters to Gymnasium: whole episodes of each, against the same played in plain Gymnasium."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import torch

from parity import sides
from parity.suite.family import Direct
from pgjax.envs import gymnasium as jax_gymnasium
from pgtorch.envs import gymnasium as torch_gymnasium

PACKAGES = ("pgjax", "pgtorch")
ENVIRONMENTS = ("CartPole-v1", "MountainCar-v0")
"""One that starts where it is told, and one that starts from seeds."""
MAX_STEPS = 15
"""A CartPole that is pushed one way falls before; one that is pushed to and fro does not."""
NUM_ROUNDS, NUM_EPISODES = 2, 3
"""Episodes are played at once, and then anew by the same environment."""


class _Recorder:
    """What each episode gave until its end, and zeros after it."""

    def __init__(self, obs_dim: int) -> None:
        shape = (NUM_ROUNDS, MAX_STEPS, NUM_EPISODES)
        self.found = {
            "first": np.zeros((NUM_ROUNDS, NUM_EPISODES, obs_dim), np.float32),
            "obs": np.zeros((*shape, obs_dim), np.float32),
            "reward": np.zeros(shape),
            "terminated": np.zeros(shape, bool),
            "truncated": np.zeros(shape, bool),
        }

    def note(self, at: tuple[Any, ...], *outputs: Any) -> None:
        """`obs, reward, terminated, truncated` of a step."""
        names = ("obs", "reward", "terminated", "truncated")
        for name, value in zip(names, outputs, strict=True):
            self.found[name][at] = np.asarray(value)


def episodes(rng: np.random.Generator, package: str, env_id: str) -> Direct:
    """An example: rounds of episodes that end at different steps, for either reason."""
    shape = (NUM_ROUNDS, NUM_EPISODES)
    is_cartpole = env_id == "CartPole-v1"
    noise = (
        rng.uniform(-0.05, 0.05, (*shape, 4)) if is_cartpole else rng.integers(2**31, size=shape)
    )
    action = rng.integers(2, size=(NUM_ROUNDS, MAX_STEPS, NUM_EPISODES))
    action[:, :, 0], action[:, :, 1] = 1, np.arange(MAX_STEPS) % 2
    play = _in_jax if package == "pgjax" else _in_torch
    return Direct(
        f"gymnasium, {package}",
        lambda inputs: _in_gymnasium(env_id, **inputs),
        lambda inputs: play(env_id, **inputs),
        {"noise": noise, "action": action},
    )


def _in_gymnasium(env_id: str, noise: np.ndarray, action: np.ndarray) -> Mapping[str, Any]:
    env = gymnasium.make(env_id, max_episode_steps=MAX_STEPS, disable_env_checker=True)
    spaces: Any = env
    recorder = _Recorder(spaces.observation_space.shape[0])
    for start in np.ndindex(NUM_ROUNDS, NUM_EPISODES):
        if env_id == "CartPole-v1":
            env.reset()
            spaces.unwrapped.state = noise[start]
            recorder.found["first"][start] = noise[start]
        else:
            recorder.found["first"][start], _ = env.reset(seed=int(noise[start]))
        is_over, t = False, 0
        while not is_over:
            at = (start[0], t, start[1])
            obs, reward, terminated, truncated, _ = env.step(int(action[at]))
            recorder.note(at, obs, reward, terminated, truncated)
            is_over, t = terminated or truncated, t + 1
    sizes = (spaces.observation_space.shape[0], spaces.action_space.n, MAX_STEPS)
    return recorder.found | {"sizes": np.array(sizes)}


def _played(env: Any, as_noise: Callable, as_action: Callable, **inputs: Any) -> Mapping[str, Any]:
    noise, action = inputs["noise"], inputs["action"]
    recorder = _Recorder(env.obs_dim)
    for i in range(NUM_ROUNDS):
        state, first = env.reset(as_noise(noise[i]))
        recorder.found["first"][i] = np.asarray(first)
        running = np.ones(NUM_EPISODES, bool)
        for t in range(MAX_STEPS):
            state, *outputs = env.step(state, as_action(action[i, t]))
            obs, reward, terminated, truncated = map(np.asarray, outputs)
            recorder.note(
                (i, t),
                np.where(running[:, None], obs, 0),
                np.where(running, reward, 0),
                running & terminated,
                running & truncated,
            )
            running &= ~(terminated | truncated)
    return recorder.found | {"sizes": np.array([env.obs_dim, env.num_actions, env.max_steps])}


def _in_torch(env_id: str, **inputs: Any) -> Mapping[str, Any]:
    env = torch_gymnasium.GymnasiumEnv(env_id, MAX_STEPS)
    return _played(env, torch.tensor, torch.tensor, **inputs)


def _in_jax(env_id: str, **inputs: Any) -> Mapping[str, Any]:
    with sides.x64(True):
        env = jax_gymnasium.GymnasiumEnv(env_id, MAX_STEPS)
        jitted = env._replace(reset=jax.jit(env.reset), step=jax.jit(env.step))
        return _played(jitted, jnp.array, jnp.array, **inputs)
