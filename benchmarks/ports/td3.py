"""Twin delayed deterministic policy gradient: the losses of both critics and of the actor.

Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477, algorithm 1.

    ã = clip(μ̄(s') + clip(σ ε, −c, c), −a_max, a_max)
    y = r + γ (1 − d) min_i Q̄_i(s', ã),    L_Q = Σ_i E[(Q_i(s, a) − y)²],    L_μ = −E[Q_1(s, μ(s))]

The actor and the averages θ̄ ← τ θ + (1 − τ) θ̄ are due at every `policy_delay`-th step.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

MAX_ACTION = 1.5

Net = Mapping[str, Any]
"""Weights `w0`, `w1`, `w2` as (out, in), and biases `b0`, `b1`, `b2`."""


def _mlp_torch(net: Net, x: torch.Tensor) -> torch.Tensor:
    x = F.relu(F.linear(x, net["w0"], net["b0"]))
    x = F.relu(F.linear(x, net["w1"], net["b1"]))
    return F.linear(x, net["w2"], net["b2"])


def _q_torch(net: Net, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    return _mlp_torch(net, torch.cat([obs, action], dim=1))


def in_torch(
    *,
    actor: Net,
    critics: Mapping[str, Net],
    actor_target: Net,
    critics_target: Mapping[str, Net],
    obs: torch.Tensor,
    actions: torch.Tensor,
    rewards: torch.Tensor,
    next_obs: torch.Tensor,
    terminated: torch.Tensor,
    noise: torch.Tensor,
    step: int = 4,
    policy_delay: int = 2,
    discount: float = 0.98,
    policy_noise: float = 0.4,
    noise_clip: float = 0.5,
    tau: float = 0.05,
) -> dict[str, torch.Tensor]:
    """Both losses, the mean value that the batch is fitted to, and the actor's new average."""
    with torch.no_grad():
        smoothing = (noise * policy_noise).clamp(-noise_clip, noise_clip)
        next_actions = MAX_ACTION * torch.tanh(_mlp_torch(actor_target, next_obs))
        next_actions = (next_actions + smoothing).clamp(-MAX_ACTION, MAX_ACTION)
        q1 = _q_torch(critics_target["q1"], next_obs, next_actions)
        q2 = _q_torch(critics_target["q2"], next_obs, next_actions)
        not_done = 1.0 - terminated.to(rewards.dtype)
        target_q = rewards.unsqueeze(1) + not_done.unsqueeze(1) * discount * torch.min(q1, q2)

    current_q1 = _q_torch(critics["q1"], obs, actions)
    current_q2 = _q_torch(critics["q2"], obs, actions)
    critic_loss = F.mse_loss(current_q1, target_q) + F.mse_loss(current_q2, target_q)

    actor_loss = torch.zeros_like(critic_loss)
    averaged = actor_target["w2"]
    if step % policy_delay == 0:
        held = {name: value.detach() for name, value in critics["q1"].items()}
        proposed = MAX_ACTION * torch.tanh(_mlp_torch(actor, obs))
        actor_loss = -_q_torch(held, obs, proposed).mean()
        averaged = torch.lerp(actor_target["w2"], actor["w2"], tau)
    return {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "mean_target": target_q.mean(),
        "averaged_w2": averaged.detach(),
    }


def _mlp(net: Net, x: jax.Array) -> jax.Array:
    """The network on one vector."""
    for layer in ("0", "1"):
        x = jax.nn.relu(net["w" + layer] @ x + net["b" + layer])
    return net["w2"] @ x + net["b2"]


def _policy(net: Net, ob: jax.Array) -> jax.Array:
    return MAX_ACTION * jnp.tanh(_mlp(net, ob))


def _value(net: Net, ob: jax.Array, action: jax.Array) -> jax.Array:
    return _mlp(net, jnp.concatenate([ob, action]))[0]


def _smoothed(action: jax.Array, draw: jax.Array, scale: float, bound: float) -> jax.Array:
    """An action near the given one that can be taken."""
    shift = jnp.clip(scale * draw, -bound, bound)
    return jnp.clip(action + shift, -MAX_ACTION, MAX_ACTION)


def in_jax(
    *,
    actor: Net,
    critics: Mapping[str, Net],
    actor_target: Net,
    critics_target: Mapping[str, Net],
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    noise: jax.Array,
    step: int = 4,
    policy_delay: int = 2,
    discount: float = 0.98,
    policy_noise: float = 0.4,
    noise_clip: float = 0.5,
    tau: float = 0.05,
) -> dict[str, jax.Array]:
    """The same: one transition at a time under `vmap`, the delay as a `cond`."""

    def bootstrapped(
        reward: jax.Array, next_ob: jax.Array, done: jax.Array, draw: jax.Array
    ) -> jax.Array:
        action = _policy(actor_target, next_ob)
        action = _smoothed(action, draw, policy_noise, noise_clip)
        first = _value(critics_target["q1"], next_ob, action)
        second = _value(critics_target["q2"], next_ob, action)
        return reward + jnp.where(done, 0.0, discount * jnp.minimum(first, second))

    targets = jax.vmap(bootstrapped)(rewards, next_obs, terminated, noise)
    targets = jax.lax.stop_gradient(targets)

    def critic_error(ob: jax.Array, action: jax.Array, target: jax.Array) -> jax.Array:
        first = _value(critics["q1"], ob, action)
        second = _value(critics["q2"], ob, action)
        return (first - target) ** 2 + (second - target) ** 2

    critic_loss = jnp.mean(jax.vmap(critic_error)(obs, actions, targets))

    def updated(_: None) -> tuple[jax.Array, jax.Array]:
        held = jax.lax.stop_gradient(critics["q1"])
        values = jax.vmap(lambda ob: _value(held, ob, _policy(actor, ob)))(obs)
        return -jnp.mean(values), tau * actor["w2"] + (1 - tau) * actor_target["w2"]

    def kept(_: None) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros((), obs.dtype), jnp.asarray(actor_target["w2"])

    actor_loss, averaged = jax.lax.cond(step % policy_delay == 0, updated, kept, None)
    return {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "mean_target": jnp.mean(targets),
        "averaged_w2": jax.lax.stop_gradient(averaged),
    }


def in_jax_stacked(
    *,
    actor: Net,
    critics: Mapping[str, Net],
    actor_target: Net,
    critics_target: Mapping[str, Net],
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    noise: jax.Array,
    step: int = 4,
    policy_delay: int = 2,
    discount: float = 0.98,
    policy_noise: float = 0.4,
    noise_clip: float = 0.5,
    tau: float = 0.05,
) -> dict[str, jax.Array]:
    """The same: whole batches, both critics as one stack of weights."""

    def mlp(net: Net, x: jax.Array) -> jax.Array:
        for layer in range(3):
            x = jnp.einsum("...oi,...bi->...bo", net[f"w{layer}"], x)
            x = x + net[f"b{layer}"][..., None, :]
            x = x if layer == 2 else jax.nn.relu(x)
        return x

    def stacked(pair: Mapping[str, Net]) -> Net:
        return jax.tree.map(lambda *each: jnp.stack(each), dict(pair["q1"]), dict(pair["q2"]))

    def both(pair: Net, ob: jax.Array, action: jax.Array) -> jax.Array:
        x = jnp.concatenate([ob, action], axis=-1)
        return mlp(pair, jnp.broadcast_to(x, (2, *x.shape)))[..., 0]

    smoothing = jnp.minimum(jnp.maximum(policy_noise * noise, -noise_clip), noise_clip)
    before = jnp.tanh(mlp(actor_target, next_obs)) + smoothing / MAX_ACTION
    next_actions = MAX_ACTION * jnp.clip(before, -1, 1)
    least = both(stacked(critics_target), next_obs, next_actions).min(axis=0)
    targets = jax.lax.stop_gradient(rewards + discount * (1 - terminated.astype(obs.dtype)) * least)
    errors = both(stacked(critics), obs, actions) - targets[None]
    critic_loss = 2 * jnp.mean(errors**2)
    is_due = step % policy_delay == 0
    held = stacked(jax.lax.stop_gradient(critics))
    proposed = MAX_ACTION * jnp.tanh(mlp(actor, obs))
    actor_loss = -both(held, obs, proposed)[0].mean() if is_due else jnp.zeros((), obs.dtype)
    share = tau if is_due else 0.0
    averaged = actor_target["w2"] + share * (actor["w2"] - actor_target["w2"])
    return {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "mean_target": targets.mean(),
        "averaged_w2": jax.lax.stop_gradient(averaged),
    }


def inputs() -> dict[str, Any]:
    """A batch of 32, and six networks with two layers of 24."""
    rng = np.random.default_rng(11)
    num_obs, num_actions, batch, width = 7, 2, 32, 24

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network(num_inputs: int, num_outputs: int) -> dict[str, np.ndarray]:
        arrays = {}
        sizes = ((num_inputs, width), (width, width), (width, num_outputs))
        for layer, (fan_in, fan_out) in enumerate(sizes):
            arrays[f"w{layer}"] = normal(fan_out, fan_in, scale=1.3 * fan_in**-0.5)
            arrays[f"b{layer}"] = normal(fan_out, scale=0.1)
        return arrays

    def critics() -> dict[str, dict[str, np.ndarray]]:
        return {name: network(num_obs + num_actions, 1) for name in ("q1", "q2")}

    return {
        "actor": network(num_obs, num_actions),
        "critics": critics(),
        "actor_target": network(num_obs, num_actions),
        "critics_target": critics(),
        "obs": normal(batch, num_obs),
        "actions": (MAX_ACTION * np.tanh(normal(batch, num_actions))).astype(np.float32),
        "rewards": normal(batch),
        "next_obs": normal(batch, num_obs),
        "terminated": rng.random(batch) < 0.2,
        "noise": normal(batch, num_actions),
    }


FAULTS = (
    Fault("noise not clipped", "jnp.clip(scale * draw, -bound, bound)", "scale * draw"),
    Fault("noise clipped before it is scaled", "jnp.clip(scale * draw,", "scale * jnp.clip(draw,"),
    Fault(
        "smoothed action not clipped",
        "return jnp.clip(action + shift, -MAX_ACTION, MAX_ACTION)",
        "return action + shift",
    ),
    Fault(
        "next action of the online actor",
        "action = _policy(actor_target, next_ob)",
        "action = _policy(actor, next_ob)",
    ),
    Fault(
        "no smoothing",
        "action = _smoothed(action, draw, policy_noise, noise_clip)",
        "action = _smoothed(action, draw, 0.0, noise_clip)",
    ),
    Fault(
        "arguments of the smoothing exchanged",
        "_smoothed(action, draw, policy_noise, noise_clip)",
        "_smoothed(action, draw, noise_clip, policy_noise)",
    ),
    Fault(
        "one target critic twice",
        'second = _value(critics_target["q2"]',
        'second = _value(critics_target["q1"]',
    ),
    Fault("mean of the twin critics", "jnp.minimum(first, second)", "0.5 * (first + second)"),
    Fault(
        "reward dropped at the end",
        "reward + jnp.where(done, 0.0, discount * jnp.minimum(first, second))",
        "jnp.where(done, 0.0, reward + discount * jnp.minimum(first, second))",
    ),
    Fault(
        "halved critic loss",
        "critic_loss = jnp.mean(jax.vmap",
        "critic_loss = 0.5 * jnp.mean(jax.vmap",
        "E04",
    ),
    Fault(
        "actor judged by the second critic",
        'held = jax.lax.stop_gradient(critics["q1"])',
        'held = jax.lax.stop_gradient(critics["q2"])',
    ),
    Fault(
        "average the wrong way round",
        'tau * actor["w2"] + (1 - tau) * actor_target["w2"]',
        '(1 - tau) * actor["w2"] + tau * actor_target["w2"]',
    ),
    Fault(
        "actor's loss moves the critic",
        'held = jax.lax.stop_gradient(critics["q1"])',
        'held = critics["q1"]',
        phase="backward",
    ),
    Fault(
        "targets not held fast",
        "targets = jax.lax.stop_gradient(targets)",
        "targets = 1.0 * targets",
        phase="backward",
    ),
)
