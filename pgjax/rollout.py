"""Playing whole episodes on noise that is given."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pgcore.errors import require, require_count
from pgjax.envs.base import Env
from pgjax.policies import Policy
from pgjax.threefry import split
from pgjax.types import Noise, Trajectory

_CHUNK_STEPS = 20
"""Steps between two looks at whether all episodes have ended."""


class _Carry(NamedTuple):
    state: Any
    obs: Float[Array, "B O"]
    running: Bool[Array, " B"]
    terminated: Bool[Array, " B"]


def draw_noise(policy: Policy, env: Env, key: Array, num_episodes: int) -> Noise:
    """Noise for `num_episodes` episodes, long enough for the environment's step limit.

    Raises:
        UsageError: `num_episodes` is no number of episodes.
    """
    require_count("num_episodes", num_episodes)
    reset_key, policy_key = split(key)
    return Noise(
        reset=env.draw_reset(reset_key, num_episodes),
        policy=policy.draw_noise(policy_key, env.max_steps, num_episodes),
    )


def rollout(
    policy: Policy, params: Any, env: Env, noise: Noise, *, early_exit: bool = True
) -> Trajectory:
    """Plays one episode for each column of the noise, all started together.

    Args:
        policy: How to act.
        params: Its parameters.
        env: The environment.
        noise: `noise.policy [T, B, A]` sets the longest episode, T, and the number B.
        early_exit: Stop soon after the last episode has ended. `False` plays all T steps in one
            scan, which reverse-mode differentiation needs; the trajectory is the same.

    Returns:
        A trajectory of length T. Everything outside its mask is zero.

    Raises:
        UsageError: The noise is not of one shape with the environment: a missing axis would
            broadcast, and an action too many be played as another.
    """
    expected = (*noise.policy.shape[:1], *noise.reset.shape[:1], env.num_actions)
    accepted = f"[T, B, A]: B = {expected[-2]} as in noise.reset, A = {env.num_actions} actions"
    require(noise.policy.shape == expected, "shape of noise.policy", noise.policy.shape, accepted)
    state, obs = env.reset(noise.reset)
    # Made from the observation, and so, under `shard_map`, split over devices as it is.
    ended = jnp.zeros_like(obs[:, 0], jnp.bool_)
    carry = _Carry(state, obs, running=~ended, terminated=ended)

    def step(carry: _Carry, noise: Float[Array, "B A"]) -> tuple[_Carry, tuple[Array, ...]]:
        sample = policy.sample(policy.apply(params, carry.obs), noise)
        action = policy.action(sample)
        state, obs, reward, terminated, truncated = env.step(carry.state, action)
        record = (carry.obs, sample, action, reward)
        now = carry.running
        following = _Carry(
            state=jax.tree.map(lambda new, old: _where(now, new, old), state, carry.state),
            obs=_where(now, obs, carry.obs),
            running=now & ~(terminated | truncated),
            terminated=carry.terminated | (now & terminated),
        )
        return following, (*(_where(now, array, jnp.zeros_like(array)) for array in record), now)

    play = _scan_until_ended if early_exit else jax.lax.scan
    carry, (obs, sample, action, reward, mask) = play(step, carry, noise.policy)
    return Trajectory(obs, sample, action, reward, mask, carry.terminated)


def _scan_until_ended(step: Any, carry: _Carry, xs: Float[Array, "T B A"]) -> tuple[_Carry, Any]:
    """`lax.scan(step, carry, xs)` in chunks that stop once no episode runs; the rest is zeros."""
    num_steps = xs.shape[0]
    num_chunks = -(-num_steps // _CHUNK_STEPS)
    if num_chunks == 1:
        return jax.lax.scan(step, carry, xs)
    # A last chunk that is too short is filled up; what it records is cut off again below.
    padding = [(0, num_chunks * _CHUNK_STEPS - num_steps)] + [(0, 0)] * (xs.ndim - 1)
    chunks = jnp.pad(xs, padding).reshape(num_chunks, _CHUNK_STEPS, *xs.shape[1:])
    record = jax.eval_shape(step, carry, xs[0])[1]
    zero = jnp.zeros_like(xs[0, 0, 0])  # split over devices as the noise is
    records = jax.tree.map(
        lambda r: jnp.broadcast_to(zero.astype(r.dtype), (*chunks.shape[:2], *r.shape)), record
    )

    def must_go_on(loop: tuple[Array, _Carry, Any]) -> Bool[Array, ""]:
        index, carry, _ = loop
        return (index < num_chunks) & _any_running(carry.running)

    def play_chunk(loop: tuple[Array, _Carry, Any]) -> tuple[Array, _Carry, Any]:
        index, carry, records = loop
        carry, chunk = jax.lax.scan(step, carry, chunks[index])
        return index + 1, carry, jax.tree.map(lambda r, c: r.at[index].set(c), records, chunk)

    start = (jnp.zeros((), jnp.int32), carry, records)
    _, carry, records = jax.lax.while_loop(must_go_on, play_chunk, start)
    return carry, jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:])[:num_steps], records)


@jax.custom_batching.custom_vmap
def _any_running(running: Bool[Array, "..."]) -> Bool[Array, ""]:
    """Whether any episode runs; under `vmap`, in any of the mapped rollouts.

    Steps after an episode's end record zeros, so going on for another rollout's sake changes
    nothing. A condition of one's own for each rollout would make `vmap` copy all records at every
    turn of the loop.
    """
    return jnp.any(running)


@_any_running.def_vmap
def _any_running_in_all(
    axis_size: int, in_batched: list[bool], running: Bool[Array, "..."]
) -> tuple[Bool[Array, ""], bool]:
    return _any_running(running), False


def _where(condition: Bool[Array, " B"], x: Array, y: Array) -> Array:
    """`where` with the condition along the leading axis of `x` and `y`."""
    return jnp.where(condition.reshape(-1, *[1] * (x.ndim - 1)), x, y)
