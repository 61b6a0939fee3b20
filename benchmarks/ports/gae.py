"""Generalised advantage estimation over a rollout of several environments.

Schulman et al. 2016, https://arxiv.org/abs/1506.02438, equation 16. `dones[t]` says that an episode
ended just before step t, so that what follows step t counts if `dones[t + 1]` is false.

    δ_t = r_t + γ (1 − d_{t+1}) V_{t+1} − V_t
    A_t = δ_t + γ λ (1 − d_{t+1}) A_{t+1}
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.ports.faults import Fault


def in_torch(
    *,
    rewards: torch.Tensor,
    values: torch.Tensor,
    dones: torch.Tensor,
    next_value: torch.Tensor,
    next_done: torch.Tensor,
    discount: float = 0.99,
    trace_decay: float = 0.95,
) -> dict[str, torch.Tensor]:
    """Advantages, the returns that values are fitted to, and the fit's loss."""
    num_steps = rewards.shape[0]
    advantages = torch.zeros_like(rewards)
    last = torch.zeros_like(next_value)
    for t in reversed(range(num_steps)):
        if t == num_steps - 1:
            following, alive = next_value, 1.0 - next_done.to(rewards.dtype)
        else:
            following, alive = values[t + 1], 1.0 - dones[t + 1].to(rewards.dtype)
        delta = rewards[t] + discount * following * alive - values[t]
        advantages[t] = last = delta + discount * trace_decay * alive * last
    returns = (advantages + values).detach()
    value_loss = 0.5 * ((values - returns) ** 2).mean()
    return {"advantages": advantages, "returns": returns, "value_loss": value_loss}


def _deltas_jax(
    rewards: jax.Array, values: jax.Array, next_value: jax.Array, discounts: jax.Array
) -> jax.Array:
    """All temporal differences at once."""
    following = jnp.concatenate([values[1:], next_value[None]], axis=0)
    return rewards + discounts * following - values


def _shifted(dones: jax.Array, next_done: jax.Array) -> jax.Array:
    """Whether an episode ended just after each step."""
    return jnp.vstack([dones, next_done])[1:]


def in_jax(
    *,
    rewards: jax.Array,
    values: jax.Array,
    dones: jax.Array,
    next_value: jax.Array,
    next_done: jax.Array,
    discount: float = 0.99,
    trace_decay: float = 0.95,
) -> dict[str, jax.Array]:
    """The same by a reverse scan over differences that are made beforehand."""
    ended = _shifted(dones, next_done)
    discounts = jnp.where(ended, 0.0, discount)
    deltas = _deltas_jax(rewards, values, next_value, discounts)

    def step(later: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, decay = now
        advantage = delta + decay * later
        return advantage, advantage

    start = jnp.zeros_like(next_value)
    _, advantages = jax.lax.scan(step, start, (deltas, discounts * trace_decay), reverse=True)
    returns = jax.lax.stop_gradient(advantages + values)
    value_loss = jnp.mean(jnp.square(returns - values)) / 2
    return {"advantages": advantages, "returns": returns, "value_loss": value_loss}


def in_jax_associative(
    *,
    rewards: jax.Array,
    values: jax.Array,
    dones: jax.Array,
    next_value: jax.Array,
    next_done: jax.Array,
    discount: float = 0.99,
    trace_decay: float = 0.95,
) -> dict[str, jax.Array]:
    """The same: the affine maps A ↦ δ + γλ A composed by an associative scan."""
    discounts = discount * (1 - _shifted(dones, next_done).astype(rewards.dtype))
    deltas = _deltas_jax(rewards, values, next_value, discounts)

    def after(
        later: tuple[jax.Array, jax.Array], sooner: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        (slope_b, shift_b), (slope_a, shift_a) = later, sooner
        return slope_a * slope_b, shift_a + slope_a * shift_b

    maps = (trace_decay * discounts, deltas)
    _, advantages = jax.lax.associative_scan(after, maps, reverse=True)
    returns = jax.lax.stop_gradient(advantages) + jax.lax.stop_gradient(values)
    value_loss = 0.5 * jnp.mean((values - returns) ** 2)
    return {"advantages": advantages, "returns": returns, "value_loss": value_loss}


def in_jax_by_matrix(
    *,
    rewards: jax.Array,
    values: jax.Array,
    dones: jax.Array,
    next_value: jax.Array,
    next_done: jax.Array,
    discount: float = 0.99,
    trace_decay: float = 0.95,
) -> dict[str, jax.Array]:
    """The same: A_t = Σ_k (γλ)^{k−t} δ_k over the later steps k of the same episode."""
    num_steps = rewards.shape[0]
    bootstraps = jnp.concatenate([values, next_value[None]])[1:]
    ended = jnp.concatenate([dones[1:], next_done[None]])
    deltas = rewards - values + jnp.where(ended, 0.0, discount * bootstraps)
    episode = jnp.cumsum(dones, axis=0)
    lag = jnp.arange(num_steps)[None, :] - jnp.arange(num_steps)[:, None]
    power = (discount * trace_decay) ** jnp.maximum(lag, 0)
    same = (lag >= 0)[..., None] & (episode[:, None] == episode[None, :])
    advantages = jnp.einsum("tk,tkb,kb->tb", power, same.astype(rewards.dtype), deltas)
    returns = jax.lax.stop_gradient(values + advantages)
    value_loss = jnp.mean((returns - values) ** 2 / 2)
    return {"advantages": advantages, "returns": returns, "value_loss": value_loss}


def inputs() -> dict[str, Any]:
    """16 steps of 8 environments, in which several episodes end."""
    rng = np.random.default_rng(3)
    num_steps, num_envs = 16, 8
    next_done = np.zeros(num_envs, bool)
    next_done[[2, 5]] = True
    return {
        "rewards": (0.5 + rng.normal(size=(num_steps, num_envs))).astype(np.float32),
        "values": rng.normal(size=(num_steps, num_envs)).astype(np.float32),
        "dones": rng.random((num_steps, num_envs)) < 0.12,
        "next_value": rng.normal(size=num_envs).astype(np.float32),
        "next_done": next_done,
    }


FAULTS = (
    Fault(
        "ends one step early",
        "ended = _shifted(dones, next_done)",
        "ended = dones",
    ),
    Fault("ends rolled round", "jnp.vstack([dones, next_done])[1:]", "jnp.roll(dones, -1, axis=0)"),
    Fault(
        "values rolled round",
        "following = jnp.concatenate([values[1:], next_value[None]], axis=0)",
        "following = jnp.roll(values, -1, axis=0)",
    ),
    Fault("bootstrap not discounted", "rewards + discounts * following", "rewards + following"),
    Fault("value added", "discounts * following - values", "discounts * following + values"),
    Fault("ends forgotten", "jnp.where(ended, 0.0, discount)", "jnp.full_like(rewards, discount)"),
    Fault(
        "ends the wrong way round",
        "jnp.where(ended, 0.0, discount)",
        "jnp.where(ended, discount, 0.0)",
    ),
    Fault("trace without its decay", "(deltas, discounts * trace_decay)", "(deltas, discounts)"),
    Fault(
        "trace across ends",
        "(deltas, discounts * trace_decay)",
        "(deltas, jnp.full_like(deltas, discount * trace_decay))",
    ),
    Fault("forward in time", "trace_decay), reverse=True)", "trace_decay))"),
    Fault("later advantage put out", "return advantage, advantage", "return advantage, later"),
    Fault(
        "trace begins with the bootstrap",
        "start = jnp.zeros_like(next_value)",
        "start = next_value",
    ),
    Fault(
        "returns from rewards",
        "returns = jax.lax.stop_gradient(advantages + values)",
        "returns = jax.lax.stop_gradient(advantages + rewards)",
    ),
    Fault(
        "returns move the values",
        "returns = jax.lax.stop_gradient(advantages + values)",
        "returns = advantages + values",
        phase="backward",
    ),
    Fault(
        "trace held fast",
        "advantage = delta + decay * later",
        "advantage = delta + decay * jax.lax.stop_gradient(later)",
        phase="backward",
    ),
)
