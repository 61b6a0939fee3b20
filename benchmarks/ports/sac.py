"""Soft actor-critic: the losses of a tanh-Gaussian actor, of twin critics and of the temperature.

Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905, equations 5, 7, 18 and appendix C.

    a = tanh(u) · scale,  u = μ(s) + σ(s) ε
    log π(a|s) = Σ_i log N(u_i; μ_i, σ_i) − log scale − log(1 − tanh² u_i)
    y = r + γ (1 − d) (min_i Q̄_i(s', a') − α log π(a'|s'))
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.distributions import Normal
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
SCALE = 2.0
"""The greatest action."""

Net = Mapping[str, Any]
"""Weights `w0`, `w1`, `w2` as (out, in), and biases `b0`, `b1`, `b2`."""


def _mlp_torch(net: Net, x: torch.Tensor) -> torch.Tensor:
    x = F.relu(F.linear(x, net["w0"], net["b0"]))
    x = F.relu(F.linear(x, net["w1"], net["b1"]))
    return F.linear(x, net["w2"], net["b2"])


def _act_torch(
    actor: Net, obs: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    mean, squashed = _mlp_torch(actor, obs).chunk(2, dim=-1)
    log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(squashed) + 1)
    std = log_std.exp()
    before = mean + std * noise
    # log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)) does not saturate.
    log_slope = 2 * (math.log(2) - before - F.softplus(-2 * before)) + math.log(SCALE)
    log_prob = (Normal(mean, std).log_prob(before) - log_slope).sum(dim=-1)
    return torch.tanh(before) * SCALE, log_prob


def _q_torch(net: Net, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    return _mlp_torch(net, torch.cat([obs, action], dim=-1)).squeeze(-1)


def in_torch(
    *,
    actor: Net,
    q1: Net,
    q2: Net,
    q1_target: Net,
    q2_target: Net,
    log_alpha: torch.Tensor,
    obs: torch.Tensor,
    actions: torch.Tensor,
    rewards: torch.Tensor,
    next_obs: torch.Tensor,
    terminated: torch.Tensor,
    noise: torch.Tensor,
    next_noise: torch.Tensor,
    discount: float = 0.99,
) -> dict[str, torch.Tensor]:
    """The three losses; each is differentiated in its own parameters only."""
    alpha = log_alpha.exp().detach()

    with torch.no_grad():
        next_actions, next_log_probs = _act_torch(actor, next_obs, next_noise)
        next_q = torch.min(
            _q_torch(q1_target, next_obs, next_actions), _q_torch(q2_target, next_obs, next_actions)
        )
        alive = 1 - terminated.to(rewards.dtype)
        target = rewards + alive * discount * (next_q - alpha * next_log_probs)
    critic_loss = F.mse_loss(_q_torch(q1, obs, actions), target) + F.mse_loss(
        _q_torch(q2, obs, actions), target
    )

    new_actions, log_probs = _act_torch(actor, obs, noise)
    held = [{name: value.detach() for name, value in net.items()} for net in (q1, q2)]
    least_q = torch.min(*(_q_torch(net, obs, new_actions) for net in held))
    actor_loss = (alpha * log_probs - least_q).mean()

    target_entropy = -actions.shape[-1]
    alpha_loss = (-log_alpha.exp() * (log_probs.detach() + target_entropy)).mean()
    return {"critic_loss": critic_loss, "actor_loss": actor_loss, "alpha_loss": alpha_loss}


def _mlp_jax(net: Net, *parts: jax.Array) -> jax.Array:
    """The network on the concatenation of `parts`, each multiplied by its own columns."""
    ends = np.cumsum([part.shape[-1] for part in parts])[:-1]
    columns = jnp.split(net["w0"], ends, axis=1)
    hidden = sum((x @ w.T for x, w in zip(parts, columns, strict=True)), net["b0"])
    hidden = jnp.einsum("kh,...h->...k", net["w1"], jax.nn.relu(hidden)) + net["b1"]
    return jax.nn.relu(hidden) @ net["w2"].T + net["b2"]


def _act_jax(actor: Net, obs: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean, squashed = jnp.split(_mlp_jax(actor, obs), 2, axis=-1)
    share = (jnp.tanh(squashed) + 1) / 2
    log_std = share * LOG_STD_MAX + (1 - share) * LOG_STD_MIN
    before = mean + jnp.exp(log_std) * noise
    log_density = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    # 1 − tanh² u = 4 σ(2u) σ(−2u)
    log_slope = jax.nn.log_sigmoid(2 * before) + jax.nn.log_sigmoid(-2 * before) + math.log(4)
    log_prob = jnp.sum(log_density - log_slope, axis=-1)
    return SCALE * jnp.tanh(before), log_prob - mean.shape[-1] * math.log(SCALE)


def _twin_q_jax(first: Net, second: Net, obs: jax.Array, action: jax.Array) -> jax.Array:
    """Both critics' values, of shape (2, B)."""
    twin = jax.tree.map(lambda *leaves: jnp.stack(leaves), dict(first), dict(second))
    return jax.vmap(_mlp_jax, in_axes=(0, None, None))(twin, obs, action)[..., 0]


def in_jax(
    *,
    actor: Net,
    q1: Net,
    q2: Net,
    q1_target: Net,
    q2_target: Net,
    log_alpha: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    noise: jax.Array,
    next_noise: jax.Array,
    discount: float = 0.99,
) -> dict[str, jax.Array]:
    """The three losses, the critics' under one `vmap`."""
    alpha = jnp.exp(log_alpha)
    held_alpha = jax.lax.stop_gradient(alpha)

    next_actions, next_log_probs = _act_jax(actor, next_obs, next_noise)
    next_q = _twin_q_jax(q1_target, q2_target, next_obs, next_actions)
    soft_value = jnp.min(next_q, axis=0) - held_alpha * next_log_probs
    target = jnp.where(terminated, rewards, rewards + discount * soft_value)
    predictions = _twin_q_jax(q1, q2, obs, actions)
    held_target = jax.lax.stop_gradient(target)
    errors = optax.squared_error(predictions, jnp.broadcast_to(held_target, predictions.shape))
    critic_loss = jnp.sum(jnp.mean(errors, axis=1))

    new_actions, log_probs = _act_jax(actor, obs, noise)
    held1, held2 = jax.lax.stop_gradient((q1, q2))
    least_q = _twin_q_jax(held1, held2, obs, new_actions).min(axis=0)
    actor_loss = jnp.mean(held_alpha * log_probs) - jnp.mean(least_q)

    surplus = jax.lax.stop_gradient(log_probs) - actions.shape[-1]
    alpha_loss = -alpha * jnp.mean(surplus)
    return {"critic_loss": critic_loss, "actor_loss": actor_loss, "alpha_loss": alpha_loss}


def in_jax_by_example(
    *,
    actor: Net,
    q1: Net,
    q2: Net,
    q1_target: Net,
    q2_target: Net,
    log_alpha: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    noise: jax.Array,
    next_noise: jax.Array,
    discount: float = 0.99,
) -> dict[str, jax.Array]:
    """The same: one transition's losses under `vmap`, tanh's slope from cosh."""
    held = jax.lax.stop_gradient({"q1": q1, "q2": q2, "alpha": jnp.exp(log_alpha)})

    def mlp(net: Net, x: jax.Array) -> jax.Array:
        for layer in range(2):
            x = jax.nn.relu(net[f"w{layer}"] @ x + net[f"b{layer}"])
        return net["w2"] @ x + net["b2"]

    def act(ob: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, squashed = mlp(actor, ob).reshape(2, -1)
        log_std = LOG_STD_MIN + (LOG_STD_MAX - LOG_STD_MIN) * jax.nn.sigmoid(2 * squashed)
        before = mean + jnp.exp(log_std) * draw
        log_normal = jax.scipy.stats.norm.logpdf(draw) - log_std
        return SCALE * jnp.tanh(before), jnp.sum(
            log_normal - jnp.log(SCALE) + 2 * jnp.log(jnp.cosh(before))
        )

    def example(
        ob: jax.Array,
        action: jax.Array,
        reward: jax.Array,
        next_ob: jax.Array,
        done: jax.Array,
        draw: jax.Array,
        next_draw: jax.Array,
    ) -> tuple[jax.Array, ...]:
        next_action, next_log_prob = act(next_ob, next_draw)
        after = jnp.concatenate([next_ob, next_action])
        next_q = jnp.minimum(mlp(q1_target, after)[0], mlp(q2_target, after)[0])
        target = reward + discount * (1 - done) * (next_q - held["alpha"] * next_log_prob)
        here = jnp.concatenate([ob, action])
        critic_losses = [
            (jax.lax.stop_gradient(target) - mlp(net, here)[0]) ** 2 for net in (q1, q2)
        ]
        new_action, log_prob = act(ob, draw)
        new = jnp.concatenate([ob, new_action])
        least = jnp.minimum(mlp(held["q1"], new)[0], mlp(held["q2"], new)[0])
        alpha_loss = jnp.exp(log_alpha) * (action.size - jax.lax.stop_gradient(log_prob))
        return critic_losses[0] + critic_losses[1], held["alpha"] * log_prob - least, alpha_loss

    losses = jax.vmap(example)(
        obs, actions, rewards, next_obs, terminated.astype(rewards.dtype), noise, next_noise
    )
    names = ("critic_loss", "actor_loss", "alpha_loss")
    return {name: loss.mean() for name, loss in zip(names, losses, strict=True)}


def inputs() -> dict[str, Any]:
    """A batch of 64, and five networks with two layers of 32."""
    rng = np.random.default_rng(1)
    num_obs, num_actions, batch = 11, 3, 64

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network(name: str, num_inputs: int, num_outputs: int) -> dict[str, np.ndarray]:
        arrays = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise((num_inputs, 32, 32, num_outputs))):
            arrays[f"{name}/w{layer}"] = normal(fan_out, fan_in, scale=1.2 * fan_in**-0.5)
            arrays[f"{name}/b{layer}"] = normal(fan_out, scale=0.1)
        return arrays

    critics = [
        network(name, num_obs + num_actions, 1) for name in ("q1", "q2", "q1_target", "q2_target")
    ]
    return {
        **network("actor", num_obs, 2 * num_actions),
        **{name: array for critic in critics for name, array in critic.items()},
        "log_alpha": np.array(-1.2, np.float32),
        "obs": normal(batch, num_obs),
        "actions": SCALE * np.tanh(normal(batch, num_actions)),
        "rewards": normal(batch),
        "next_obs": normal(batch, num_obs),
        "terminated": rng.random(batch) < 0.2,
        "noise": normal(batch, num_actions),
        "next_noise": normal(batch, num_actions),
    }


FAULTS = (
    Fault("log-density of a standard normal", "-0.5 * noise**2 - log_std -", "-0.5 * noise**2 -"),
    Fault("tanh's slope added", "log_density - log_slope", "log_density + log_slope"),
    Fault("tanh's slope short of a constant", "+ math.log(4)", "+ math.log(2)"),
    Fault(
        "scale left out of the log-density",
        "log_prob - mean.shape[-1] * math.log(SCALE)",
        "log_prob",
    ),
    Fault(
        "scale counted for one action only",
        "mean.shape[-1] * math.log(SCALE)",
        "math.log(SCALE)",
    ),
    Fault("mean over action dimensions", "log_prob = jnp.sum(", "log_prob = jnp.mean("),
    Fault(
        "log-std's bounds swapped",
        "share * LOG_STD_MAX + (1 - share) * LOG_STD_MIN",
        "share * LOG_STD_MIN + (1 - share) * LOG_STD_MAX",
    ),
    Fault("the greater critic in the target", "jnp.min(next_q, axis=0)", "jnp.max(next_q, axis=0)"),
    Fault(
        "online critics in the target",
        "_twin_q_jax(q1_target, q2_target, next_obs",
        "_twin_q_jax(q1, q2, next_obs",
    ),
    Fault(
        "next action of the present observation",
        "_act_jax(actor, next_obs, next_noise)",
        "_act_jax(actor, obs, next_noise)",
    ),
    Fault(
        "half of the squared error",
        "optax.squared_error(",
        "optax.l2_loss(",
        "E04",
    ),
    Fault(
        "activation left out of the second layer",
        "return jax.nn.relu(hidden) @",
        "return hidden @",
    ),
    Fault(
        "target not held fast",
        "held_target = jax.lax.stop_gradient(target)",
        "held_target = target",
        phase="backward",
    ),
    Fault(
        "actor's loss moves the critics",
        "held1, held2 = jax.lax.stop_gradient((q1, q2))",
        "held1, held2 = q1, q2",
        phase="backward",
    ),
    Fault(
        "new actions held fast in the actor's loss",
        "_twin_q_jax(held1, held2, obs, new_actions)",
        "_twin_q_jax(held1, held2, obs, jax.lax.stop_gradient(new_actions))",
        phase="backward",
    ),
)
