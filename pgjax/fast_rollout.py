"""Whole episodes of the article's two agents on CartPole, for `pgjax.fast`.

Features first: arrays are `[features, B]`, so each layer is `W·h + b` with the episodes side by
side in the fast axis. Each step draws its own part of the noise (`pgjax.threefry`), bitwise what
`draw_noise` has there, so what no episode lives to see is never drawn.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pgcore.errors import require
from pgjax.envs import cartpole
from pgjax.envs.base import Env
from pgjax.heads import HEADS, Head, forward
from pgjax.policies import Policy, _AgentApply
from pgjax.rollout import _any_running
from pgjax.threefry import can_draw, split
from pgjax.types import Trajectory

WRITTEN_OUT = 16
"""Terms of each sum of a matrix product, up to which a rollout makes no call of it."""
FEW_NUMBERS = 4096
"""Numbers that are multiplied, up to which it makes none."""


class Episodes(NamedTuple):
    """What was played, features first: all that the update needs.

    `drawn` is what the score is of: the action as ±1 `[T, 1, B]`, or the Gaussian agent's noise
    `[T, A, B]`. Nobody plays longer than `num_steps`. What lies beyond an episode's length is
    finite.
    """

    obs: Float[Array, "T O B"]
    drawn: Float[Array, "T D B"]
    length: Int[Array, " B"]
    terminated: Bool[Array, " B"]
    num_steps: Int[Array, ""]


class Fast(NamedTuple):
    """The fast path of a policy and an environment."""

    policy: Policy
    env: Env
    head: Head


def find_fast(policy: Policy, env: Env) -> Fast | None:
    """The fast path, if these are one of the two agents and our own CartPole, as they were made."""
    apply = policy.apply
    if not isinstance(apply, _AgentApply) or policy[2:] != apply.others:
        return None
    fits = cartpole._is_cartpole(env) and apply.dims == (env.obs_dim, env.num_actions)
    return Fast(policy, env, HEADS[apply.agent]) if fits else None


def play(
    fast: Fast, params: Any, key: Array, num_episodes: int, axis_name: str | None = None
) -> Episodes:
    """Plays whole episodes with the noise that `draw_noise` makes of the key.

    Of several keys `[K]` it plays as many for each, K · `num_episodes` together. Inside a
    `shard_map`, given the mesh's `axis_name`, each device plays its share of them.

    Raises:
        UsageError: The devices can't have equal shares.
    """
    keys = key.reshape(-1)
    reset_keys, policy_keys = split(keys)
    reset = jax.vmap(fast.env.draw_reset, (0, None))(reset_keys, num_episodes)
    first, share = 0, num_episodes
    if axis_name is not None:
        num_devices = jax.lax.axis_size(axis_name)
        accepted = f"a multiple of the {num_devices} devices"
        require(num_episodes % num_devices == 0, "num_episodes", num_episodes, accepted)
        share = num_episodes // num_devices
        first = jax.lax.axis_index(axis_name) * share
        reset = jax.lax.dynamic_slice_in_dim(reset, first, share, axis=1)
    noise_at = _noise_by_step(fast, policy_keys, num_episodes, first, share)
    return play_on(fast, params, reset.reshape(-1, 4).T, noise_at)


def play_on(
    fast: Fast,
    params: Any,
    reset: Float[Array, "4 B"],
    noise_at: Callable[[Array], Float[Array, "A B"]],
) -> Episodes:
    """`rollout`, features first, on the noise that `noise_at(t)` gives."""
    head, max_steps = fast.head, fast.env.max_steps
    layers = head.layers(params)
    dtype = layers[0][0].dtype

    def step(loop: _Loop) -> _Loop:
        obs = loop.physics.astype(jnp.float32)
        outputs = forward(layers, obs.astype(dtype), _product)[1]
        is_right, drawn = head.decide(outputs, loop.noise)
        physics = jnp.stack(cartpole._move(loop.physics, is_right, _sin_and_cos))
        fell = loop.running & cartpole._is_out(physics[0], physics[2])
        return _Loop(
            time=loop.time + 1,
            # Ahead of its step: what a step computes XLA may compute again for each of its uses.
            noise=noise_at(loop.time + 1),
            # A finished episode stays where it is, so that all that is recorded is finite.
            physics=jnp.where(loop.running, physics, loop.physics),
            running=loop.running & ~fell,
            terminated=loop.terminated | fell,
            length=loop.length + loop.running,
            obs=jax.lax.dynamic_update_index_in_dim(loop.obs, obs, loop.time, 0),
            drawn=jax.lax.dynamic_update_index_in_dim(loop.drawn, drawn, loop.time, 0),
        )

    # Made from the reset noise, and so, under `shard_map`, split over devices as it is.
    zero = jnp.zeros_like(reset[0])
    nobody = zero.astype(jnp.bool_)
    start = _Loop(
        time=jnp.zeros((), jnp.int32),
        noise=noise_at(jnp.zeros((), jnp.int32)),
        physics=reset,
        running=~nobody,
        terminated=nobody,
        length=zero.astype(jnp.int32),
        obs=jnp.broadcast_to(zero.astype(jnp.float32), (max_steps, *reset.shape)),
        drawn=jnp.broadcast_to(zero.astype(dtype), (max_steps, head.num_drawn, reset.shape[1])),
    )
    end = jax.lax.while_loop(
        lambda loop: (loop.time < max_steps) & _any_running(loop.running), step, start
    )
    return Episodes(end.obs, end.drawn, end.length, end.terminated, end.time)


class _Loop(NamedTuple):
    time: Int[Array, ""]
    noise: Float[Array, "A B"]
    physics: Float[Array, "4 B"]
    running: Bool[Array, " B"]
    terminated: Bool[Array, " B"]
    length: Int[Array, " B"]
    obs: Float[Array, "T 4 B"]
    drawn: Float[Array, "T D B"]


def to_trajectory(fast: Fast, params: Any, episodes: Episodes) -> Trajectory:
    """The episodes as `rollout` gives them."""
    mask = jnp.arange(fast.env.max_steps)[:, None] < episodes.length
    obs = jnp.where(mask[..., None], episodes.obs.transpose(0, 2, 1), 0)
    drawn = episodes.drawn.transpose(0, 2, 1)
    if fast.head is HEADS["reinforce"]:
        sample = action = jnp.where(mask, drawn[..., 0] > 0, 0).astype(int)
    else:
        sample = fast.policy.sample(fast.policy.apply(params, obs), drawn)
        sample = jnp.where(mask[..., None], sample, 0)
        action = jnp.where(mask, fast.policy.action(sample), 0)
    return Trajectory(obs, sample, action, mask.astype(drawn.dtype), mask, episodes.terminated)


def _product(weight: Float[Array, "M K"], columns: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """`weight @ columns`; if these are few, as a sum of K outer products.

    XLA makes one loop of that and of what is around it; a call of its product costs more than to
    multiply so few, and of a `vmap` it is one call a lane.
    """
    num_terms = weight.shape[1]
    if num_terms > WRITTEN_OUT or columns.size > FEW_NUMBERS:
        return weight @ columns
    terms = [weight[:, k : k + 1] * columns[k : k + 1] for k in range(num_terms)]
    return functools.reduce(jnp.add, terms)


def _noise_by_step(
    fast: Fast, keys: Array, num_episodes: int, first: Any, share: int
) -> Callable[[Array], Float[Array, "A B"]]:
    """`time -> noise` of `share` of each key's episodes, from number `first` on."""
    num_steps, num_actions = fast.env.max_steps, fast.env.num_actions
    if not can_draw(keys, num_steps * num_episodes * num_actions):
        noise = jax.vmap(fast.policy.draw_noise, (0, None, None), 1)(keys, num_steps, num_episodes)
        own = jax.lax.dynamic_slice_in_dim(noise, first, share, axis=2)
        return lambda time: own[time].reshape(-1, num_actions).T

    # Their words, taken out once for all steps; one key's stay scalars, which is faster.
    words = jax.random.key_data(keys)
    of_column = words[0] if len(keys) == 1 else jnp.repeat(words, share, axis=0)
    episode = jnp.tile(jnp.arange(share, dtype=jnp.uint32), len(keys))
    episode = episode + jnp.asarray(first).astype(jnp.uint32)
    action = jnp.arange(num_actions, dtype=jnp.uint32)[:, None]

    def noise_at(time: Array) -> Float[Array, "A B"]:
        before = time.astype(jnp.uint32) * jnp.uint32(num_episodes) + episode
        return fast.head.draw(of_column, before * jnp.uint32(num_actions) + action)

    return noise_at


def _sin_and_cos(angle: Float[Array, " B"]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Both by their series, to beyond float64 for the 12° that a running episode stays within.

    The first terms left out are θ¹⁷/17! and θ¹⁶/16!, below 7e-25 there. XLA calls a function of
    the C library for each number instead.
    """
    square = angle * angle
    sin = cos = jnp.zeros_like(angle)
    for power in range(14, -1, -2):
        sign = -1 if power % 4 else 1
        sin = sign / math.factorial(power + 1) + square * sin
        cos = sign / math.factorial(power) + square * cos
    return angle * sin, cos
