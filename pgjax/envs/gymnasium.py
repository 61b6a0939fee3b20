"""Any Gymnasium environment as an `Env`, stepped on the host."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Int, Num

from pgcore.gym import CARTPOLE, CARTPOLE_RESET_BOUND, GymEpisodes, gym_spec
from pgjax.envs.base import Env


class _GymnasiumState(NamedTuple):
    """The environment itself stays on the host; its state here is the step count."""

    time: Int[Array, " B"]


def GymnasiumEnv(env_id: str = "CartPole-v1", max_steps: int | None = None) -> Env:
    """A Gymnasium environment whose episodes `rollout` can play, jitted or not.

    CartPole's reset noise is its initial state, any other environment's its seeds. The episodes
    live on the host, one set for each number of episodes: only the newest state can be stepped,
    and `vmap` is refused.

    Raises:
        UsageError: Gymnasium can't make it, or its spaces do not fit (see `pgcore.gym.gym_spec`).
    """
    spec = gym_spec(env_id, max_steps)
    hosts: dict[int, _Host] = {}

    def host(num_episodes: int) -> _Host:
        if num_episodes not in hosts:
            hosts[num_episodes] = _Host(GymEpisodes(env_id, num_episodes, max_steps))
        return hosts[num_episodes]

    def reset(noise: Num[Array, "B ..."]) -> tuple[_GymnasiumState, Array]:
        num_episodes = noise.shape[0]
        shape = jax.ShapeDtypeStruct((num_episodes, spec.obs_dim), jnp.float32)
        obs = io_callback(host(num_episodes).reset, shape, noise, ordered=True)
        return _GymnasiumState(jnp.zeros(num_episodes, jnp.int32)), obs

    def step(
        state: _GymnasiumState, action: Int[Array, " B"]
    ) -> tuple[_GymnasiumState, Array, Array, Array, Array]:
        num_episodes = action.shape[0]
        # Read here: inside the callback, on another thread, x64 may be off.
        dtype = jnp.result_type(float)
        flags = jax.ShapeDtypeStruct((num_episodes,), jnp.bool_)
        shapes = (
            jax.ShapeDtypeStruct((num_episodes, spec.obs_dim), jnp.float32),
            jax.ShapeDtypeStruct((num_episodes,), dtype),
            flags,
            flags,
        )
        play = functools.partial(host(num_episodes).step, dtype)
        results = io_callback(play, shapes, state.time, action, ordered=True)
        return _GymnasiumState(state.time + 1), *results

    def draw_reset(key: Array, num_episodes: int) -> Num[Array, "B ..."]:
        if env_id == CARTPOLE:
            bound = CARTPOLE_RESET_BOUND
            return jax.random.uniform(key, (num_episodes, 4), minval=-bound, maxval=bound)
        return jax.random.randint(key, (num_episodes,), 0, jnp.iinfo(jnp.int32).max)

    return Env(reset, step, draw_reset, spec.obs_dim, spec.num_actions, spec.max_steps)


class _Host:
    """Episodes that know how far they are, so that a stale state is noticed."""

    def __init__(self, episodes: GymEpisodes) -> None:
        self._episodes = episodes
        self._time = 0

    def reset(self, noise: Array) -> np.ndarray:
        self._time = 0
        return self._episodes.reset(np.asarray(noise))

    def step(self, dtype: np.dtype, time: Array, action: Array) -> tuple[np.ndarray, ...]:
        # Episodes that have ended keep their last count, so the running ones hold the largest.
        if (newest := int(np.max(time))) > self._time:
            raise RuntimeError(f"state of step {newest} is ahead of the episodes ({self._time})")
        self._time += 1
        obs, reward, terminated, truncated = self._episodes.step(np.asarray(action))
        return obs, reward.astype(dtype), terminated, truncated
