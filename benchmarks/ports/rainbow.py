"""Parts of Rainbow without its distribution: n-step double Q, dueling heads, replay by priority.

Hessel et al. 2018, https://arxiv.org/abs/1710.02298, whose return stops where an episode ends and
bootstraps where it was merely cut off; heads and the trunk's slope as in Wang et al. 2016,
https://arxiv.org/abs/1511.06581; replay as in Schaul et al. 2016, https://arxiv.org/abs/1511.05952.

    G = Σ_{k<m} γ^k r_k + γ^m (1 − terminated) Q̄(s_m, argmax_a Q(s_m, a)),  m = steps until the end
    w = (N P)^−β / max over the buffer,    P ∝ p^α,    L = E[w huber(Q(s, a) − G)]
    p ← |Q(s, a) − G| + ε,    θ̄ ← (1 − τ) θ̄ + τ θ
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

GAMMA, TAU, DELTA = 0.9, 0.05, 1.0
ALPHA, BETA, LEAST_PRIORITY = 0.6, 0.4, 1e-3

Net = Mapping[str, Any]
Arrays = Mapping[str, Any]
"""The batch: obs (B, O), actions (B), rewards, terminated, truncated (B, n), next_obs (B, n, O),
where `next_obs[:, k]` follows the k-th reward; and `indices` (B), its places in the buffer."""


def _q_torch(net: Net, obs: torch.Tensor) -> torch.Tensor:
    hidden = F.relu(F.linear(obs, net["w_in"], net["b_in"]))
    scale = 1 / math.sqrt(2)
    hidden = scale * hidden + (1 - scale) * hidden.detach()  # both heads' slopes come together
    value = F.linear(hidden, net["w_value"], net["b_value"])
    advantage = F.linear(hidden, net["w_adv"], net["b_adv"])
    return value + advantage - advantage.mean(dim=-1, keepdim=True)


@torch.no_grad()
def _target_torch(online: Net, target: Net, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    rewards = batch["rewards"]
    size, num_steps = rewards.shape
    ended = batch["terminated"] | batch["truncated"]
    ended[:, -1] = True
    last = ended.int().argmax(dim=1)
    steps = torch.arange(num_steps)
    discounts = GAMMA ** steps.to(rewards.dtype)
    total = (rewards * discounts * (steps <= last.unsqueeze(1))).sum(dim=1)
    rows = torch.arange(size)
    final_obs = batch["next_obs"][rows, last]
    best = _q_torch(online, final_obs).argmax(dim=1, keepdim=True)
    value = _q_torch(target, final_obs).gather(1, best).squeeze(1)
    alive = (~batch["terminated"][rows, last]).to(rewards.dtype)
    return total + GAMMA * discounts[last] * alive * value


def in_torch(
    *, online: Net, target: Net, batch: Mapping[str, torch.Tensor], priorities: torch.Tensor
) -> dict[str, Any]:
    """The loss, the errors, the buffer's new priorities and the new target network."""
    wanted = _target_torch(online, target, batch)
    indices = batch["indices"]
    taken = _q_torch(online, batch["obs"]).gather(1, batch["actions"].unsqueeze(1)).squeeze(1)
    losses = F.huber_loss(taken, wanted, reduction="none", delta=DELTA)
    with torch.no_grad():
        probs = priorities**ALPHA / (priorities**ALPHA).sum()
        weights = (len(priorities) * probs[indices]) ** -BETA
        weights = weights / (len(priorities) * probs.min()) ** -BETA
        errors = taken - wanted
        moved = priorities.clone()
        moved[indices] = errors.abs() + LEAST_PRIORITY
        followed = {name: torch.lerp(old, online[name], TAU) for name, old in target.items()}
    loss = (weights * losses).mean()
    return {"loss": loss, "errors": errors, "priorities": moved, "target": followed}


@jax.custom_vjp
def _shared(x: jax.Array) -> jax.Array:
    """What two heads share: as it is, with a slope scaled by 1/√2."""
    return x


_shared.defvjp(lambda x: (x, None), lambda _, slope: (slope / jnp.sqrt(2.0),))


def _q(net: Net, obs: jax.Array) -> jax.Array:
    """The values of all actions for one observation."""
    hidden = _shared(jax.nn.relu(net["w_in"] @ obs + net["b_in"]))
    value = net["w_value"] @ hidden + net["b_value"]
    advantage = net["w_adv"] @ hidden + net["b_adv"]
    return value + (advantage - jnp.mean(advantage))


class Window(NamedTuple):
    """The n steps after one observation."""

    rewards: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_obs: jax.Array


def _n_step_target(online: Net, target: Net, window: Window) -> jax.Array:
    num_steps = window.rewards.shape[0]
    ended = window.terminated | window.truncated
    going_on = jnp.cumprod(jnp.where(ended, 0.0, 1.0))
    reached = jnp.concatenate([jnp.ones(1), going_on[:-1]])
    discounts = GAMMA ** jnp.arange(num_steps)
    total = jnp.sum(discounts * reached * window.rewards)
    length = jnp.sum(reached).astype(int)
    final_obs = window.next_obs[length - 1]
    best = jnp.argmax(_q(online, final_obs))
    bootstrap = _q(target, final_obs)[best]
    bootstrap = jnp.where(window.terminated[length - 1], 0.0, bootstrap)
    return total + GAMMA**length * bootstrap


def _importance(priorities: jax.Array, indices: jax.Array) -> jax.Array:
    raised = priorities**ALPHA
    probs = raised / jnp.sum(raised)
    weights = (priorities.size * probs) ** -BETA
    return weights[indices] / jnp.max(weights)


def _huber(error: jax.Array) -> jax.Array:
    size = jnp.abs(error)
    return jnp.where(size <= DELTA, 0.5 * jnp.square(error), DELTA * (size - 0.5 * DELTA))


def in_jax(*, online: Net, target: Net, batch: Arrays, priorities: jax.Array) -> dict[str, Any]:
    """The same: one transition's error under `vmap`."""
    indices = batch["indices"]

    def td_error(obs: jax.Array, action: jax.Array, window: Window) -> jax.Array:
        wanted = jax.lax.stop_gradient(_n_step_target(online, target, window))
        return _q(online, obs)[action] - wanted

    window = Window(*(batch[name] for name in Window._fields))
    errors = jax.vmap(td_error)(batch["obs"], batch["actions"], window)
    weights = jax.lax.stop_gradient(_importance(priorities, indices))
    loss = jnp.mean(weights * _huber(errors))
    errors = jax.lax.stop_gradient(errors)
    moved = jax.lax.stop_gradient(priorities).at[indices].set(jnp.abs(errors) + LEAST_PRIORITY)
    online, target = jax.lax.stop_gradient((dict(online), dict(target)))
    followed = jax.tree.map(lambda new, old: TAU * new + (1 - TAU) * old, online, target)
    return {"loss": loss, "errors": errors, "priorities": moved, "target": followed}


def in_jax_backwards(
    *, online: Net, target: Net, batch: Arrays, priorities: jax.Array
) -> dict[str, Any]:
    """The same: the batch at once, returns by a scan from the last step, optax's Huber loss."""

    def q(net: Net, obs: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(jnp.einsum("...o,ho->...h", obs, net["w_in"]) + net["b_in"])
        held = jax.lax.stop_gradient(hidden)
        hidden = held + (hidden - held) / math.sqrt(2)
        advantage = hidden @ net["w_adv"].T + net["b_adv"]
        centred = advantage - advantage.mean(axis=-1, keepdims=True)
        return hidden @ net["w_value"].T + net["b_value"] + centred

    def one_back(later: jax.Array, now: Any) -> tuple[jax.Array, None]:
        reward, terminated, truncated, value = now
        later = jnp.where(truncated, value, later)
        return reward + GAMMA * jnp.where(terminated, 0.0, later), None

    greedy = jax.nn.one_hot(q(online, batch["next_obs"]).argmax(axis=-1), online["b_adv"].size)
    values = jnp.sum(greedy * q(target, batch["next_obs"]), axis=-1)
    steps = (batch["rewards"].T, batch["terminated"].T, batch["truncated"].T, values.T)
    wanted, _ = jax.lax.scan(one_back, values[:, -1], steps, reverse=True)
    taken = jnp.take_along_axis(q(online, batch["obs"]), batch["actions"][:, None], axis=1)[:, 0]

    losses = optax.huber_loss(taken, jax.lax.stop_gradient(wanted), delta=DELTA)
    # Both N and the sum of all priorities cancel.
    relative = jax.lax.stop_gradient(priorities[batch["indices"]] / jnp.min(priorities))
    errors, moved, followed = jax.lax.stop_gradient(
        (taken - wanted, priorities, optax.incremental_update(dict(online), dict(target), TAU))
    )
    loss = jnp.vdot(relative ** (-ALPHA * BETA), losses) / losses.size
    moved = moved.at[batch["indices"]].set(jnp.abs(errors) + LEAST_PRIORITY)
    return {"loss": loss, "errors": errors, "priorities": moved, "target": followed}


def inputs() -> dict[str, Any]:
    """32 of 50 transitions, each with 4 steps after it, and two networks of width 12."""
    rng = np.random.default_rng(29)
    num_obs, width, num_actions, size, num_steps, capacity = 5, 12, 4, 32, 4, 50

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network() -> dict[str, np.ndarray]:
        arrays = {}
        sizes = (("in", width, num_obs), ("value", 1, width), ("adv", num_actions, width))
        for name, num_out, num_in in sizes:
            arrays[f"w_{name}"] = normal(num_out, num_in, scale=1.4 * num_in**-0.5)
            arrays[f"b_{name}"] = normal(num_out, scale=0.2)
        return arrays

    draws = rng.random((size, num_steps))
    return {
        "online": network(),
        "target": network(),
        "batch": {
            "obs": normal(size, num_obs),
            "actions": rng.integers(num_actions, size=size),
            "rewards": normal(size, num_steps),
            "terminated": draws < 0.12,
            "truncated": draws > 0.85,
            "next_obs": normal(size, num_steps, num_obs),
            "indices": rng.permutation(capacity)[:size],
        },
        "priorities": rng.uniform(0.1, 3.0, size=capacity).astype(np.float32),
    }


FAULTS = (
    Fault("bootstrap discounted once", "total + GAMMA**length *", "total + GAMMA *"),
    Fault(
        "no bootstrap where cut off",
        "jnp.where(window.terminated[length - 1], 0.0, bootstrap)",
        "jnp.where(ended[length - 1], 0.0, bootstrap)",
    ),
    Fault(
        "next episode's rewards after a cut",
        "ended = window.terminated | window.truncated",
        "ended = window.terminated",
    ),
    Fault(
        "last reward left out",
        "jnp.sum(discounts * reached * window.rewards)",
        "jnp.sum(discounts * going_on * window.rewards)",
    ),
    Fault(
        "bootstrap always at the last step",
        "final_obs = window.next_obs[length - 1]",
        "final_obs = window.next_obs[-1]",
    ),
    Fault(
        "advantages not centred",
        "return value + (advantage - jnp.mean(advantage))",
        "return value + advantage",
    ),
    Fault("priorities not raised to α", "raised = priorities**ALPHA", "raised = priorities"),
    Fault(
        "weights' sign", "(priorities.size * probs) ** -BETA", "(priorities.size * probs) ** BETA"
    ),
    Fault(
        "greatest weight of the batch",
        "weights[indices] / jnp.max(weights)",
        "weights[indices] / jnp.max(weights[indices])",
    ),
    Fault("weights inside the Huber loss", "weights * _huber(errors)", "_huber(weights * errors)"),
    Fault("no half in the linear part", "(size - 0.5 * DELTA)", "(size - DELTA)"),
    Fault(
        "target and online exchanged", "TAU * new + (1 - TAU) * old", "(1 - TAU) * new + TAU * old"
    ),
    Fault(
        "target not held fast",
        "wanted = jax.lax.stop_gradient(_n_step_target(online, target, window))",
        "wanted = _n_step_target(online, target, window)",
        phase="backward",
    ),
    Fault(
        "trunk's slope not scaled",
        'hidden = _shared(jax.nn.relu(net["w_in"] @ obs + net["b_in"]))',
        'hidden = jax.nn.relu(net["w_in"] @ obs + net["b_in"])',
        phase="backward",
    ),
)
