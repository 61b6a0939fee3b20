"""Proximal policy optimisation of a Gaussian policy, with clipping and an adaptive KL penalty.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equations 7 and 8 and section 4.

    L = E[−min(r A, clip(r, 1−ε, 1+ε) A) + β KL(π_old ‖ π) + c_v (V − R)² / 2 − c_h H]
    β ← β / 2 if KL < KL_target / 1.5,    β ← 2 β if KL > 1.5 KL_target
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

Net = Mapping[str, Any]


def _mlp_torch(net: Net, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(F.linear(x, net["w0"], net["b0"]))
    return F.linear(hidden, net["w1"], net["b1"])


def in_torch(
    *,
    actor: Net,
    critic: Net,
    log_std: torch.Tensor,
    kl_coef: torch.Tensor,
    obs: torch.Tensor,
    actions: torch.Tensor,
    old_mean: torch.Tensor,
    old_log_std: torch.Tensor,
    advantages: torch.Tensor,
    returns: torch.Tensor,
    clip: float = 0.15,
    target_kl: float = 0.02,
    value_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, torch.Tensor]:
    """The loss of one minibatch, its parts, and the next coefficient of the penalty."""
    policy = Independent(Normal(_mlp_torch(actor, obs), log_std.exp()), 1)
    old_policy = Independent(Normal(old_mean, old_log_std.exp()), 1)
    ratio = torch.exp(policy.log_prob(actions) - old_policy.log_prob(actions))

    normalised = (advantages - advantages.mean()) / (advantages.std() + 1e-6)
    surrogate = torch.min(ratio * normalised, ratio.clamp(1 - clip, 1 + clip) * normalised)
    kl = kl_divergence(old_policy, policy).mean()
    value_loss = 0.5 * F.mse_loss(_mlp_torch(critic, obs).squeeze(1), returns)
    entropy = policy.entropy().mean()
    loss = -surrogate.mean() + kl_coef.detach() * kl
    loss = loss + value_coef * value_loss - entropy_coef * entropy

    next_coef = kl_coef.detach()
    if kl > 1.5 * target_kl:
        next_coef = next_coef * 2
    elif kl < target_kl / 1.5:
        next_coef = next_coef / 2
    return {
        "loss": loss,
        "policy_loss": -surrogate.mean(),
        "value_loss": value_loss,
        "kl": kl,
        "entropy": entropy,
        "kl_coef": next_coef,
    }


def _tanh_mlp(net: Net, x: jax.Array) -> jax.Array:
    return net["w1"] @ jnp.tanh(net["w0"] @ x + net["b0"]) + net["b1"]


def _log_density(x: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Of one action under a diagonal Gaussian."""
    z = (x - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * z**2 + log_std + 0.5 * math.log(2 * math.pi))


def _gaussian_kl(
    mean_p: jax.Array, log_std_p: jax.Array, mean_q: jax.Array, log_std_q: jax.Array
) -> jax.Array:
    """KL(p ‖ q)"""
    shift = (mean_p - mean_q) ** 2 * jnp.exp(-2 * log_std_q)
    stretch = jnp.exp(2 * (log_std_p - log_std_q))
    return jnp.sum(log_std_q - log_std_p + 0.5 * (stretch + shift) - 0.5)


def _entropy(log_std: jax.Array) -> jax.Array:
    return jnp.sum(log_std) + 0.5 * log_std.size * math.log(2 * math.pi * math.e)


def _next_coef(coef: jax.Array, kl: jax.Array, target: float) -> jax.Array:
    return jax.lax.cond(
        kl > 1.5 * target,
        lambda x: 2 * x,
        lambda x: jnp.where(kl < target / 1.5, x / 2, x),
        coef,
    )


def in_jax(
    *,
    actor: Net,
    critic: Net,
    log_std: jax.Array,
    kl_coef: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    old_mean: jax.Array,
    old_log_std: jax.Array,
    advantages: jax.Array,
    returns: jax.Array,
    clip: float = 0.15,
    target_kl: float = 0.02,
    value_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, jax.Array]:
    """The same: the losses of one entry of the minibatch under `vmap`."""
    kl_coef = jax.lax.stop_gradient(kl_coef)

    def entry(
        ob: jax.Array,
        action: jax.Array,
        before: jax.Array,
        advantage: jax.Array,
        outcome: jax.Array,
    ) -> dict[str, jax.Array]:
        mean = _tanh_mlp(actor, ob)
        log_ratio = _log_density(action, mean, log_std) - _log_density(action, before, old_log_std)
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
        value = _tanh_mlp(critic, ob)[0]
        return {
            "policy_loss": -jnp.minimum(ratio * advantage, clipped * advantage),
            "value_loss": 0.5 * (outcome - value) ** 2,
            "kl": _gaussian_kl(before, old_log_std, mean, log_std),
            "entropy": _entropy(log_std),
        }

    centred = advantages - jnp.mean(advantages)
    scaled = centred / (jnp.std(advantages, ddof=1) + 1e-6)
    entries = jax.vmap(entry)(obs, actions, old_mean, scaled, returns)
    parts = {name: jnp.mean(each, axis=0) for name, each in entries.items()}
    loss = (
        parts["policy_loss"]
        + kl_coef * parts["kl"]
        + value_coef * parts["value_loss"]
        - entropy_coef * parts["entropy"]
    )
    held_kl = jax.lax.stop_gradient(parts["kl"])
    return {"loss": loss, **parts, "kl_coef": _next_coef(kl_coef, held_kl, target_kl)}


def in_jax_batched(
    *,
    actor: Net,
    critic: Net,
    log_std: jax.Array,
    kl_coef: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    old_mean: jax.Array,
    old_log_std: jax.Array,
    advantages: jax.Array,
    returns: jax.Array,
    clip: float = 0.15,
    target_kl: float = 0.02,
    value_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, jax.Array]:
    """The same: whole minibatches, and the ratio's bound by the advantage's sign."""

    def mlp(net: Net, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ net["w0"].T + net["b0"]) @ net["w1"].T + net["b1"]

    def normal(x: jax.Array, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
        return jax.scipy.stats.norm.logpdf(x, mean, jnp.exp(log_scale)).sum(axis=-1)

    mean = mlp(actor, obs)
    ratio = jnp.exp(normal(actions, mean, log_std)) / jnp.exp(
        normal(actions, old_mean, old_log_std)
    )
    num = advantages.size
    deviation = jnp.sqrt(num / (num - 1) * jnp.var(advantages))
    scaled = (advantages - advantages.mean()) / (deviation + 1e-6)
    bound = jnp.where(scaled > 0, 1 + clip, 1 - clip) * scaled
    policy_loss = -jnp.minimum(ratio * scaled, bound).mean()
    value_loss = jnp.mean(jnp.square(mlp(critic, obs)[:, 0] - returns)) / 2
    log_spread = log_std - old_log_std
    distance = (mean - old_mean) / jnp.exp(log_std)
    kl = log_spread + (jnp.exp(-2 * log_spread) + distance**2 - 1) / 2
    kl = kl.sum(axis=1).mean()
    entropy = jnp.sum(log_std + 0.5 + 0.5 * jnp.log(2 * jnp.pi))
    held = jax.lax.stop_gradient(kl_coef)
    factor = 1.0 + (kl > 1.5 * target_kl) - 0.5 * (kl < target_kl / 1.5)
    return {
        "loss": policy_loss + held * kl + value_coef * value_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "kl": kl,
        "entropy": entropy,
        "kl_coef": held * jax.lax.stop_gradient(factor),
    }


def inputs() -> dict[str, Any]:
    """A minibatch of 48; the old policy is near to the new one."""
    rng = np.random.default_rng(16)
    num_obs, num_actions, batch, width = 6, 3, 48, 16

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network(num_outputs: int) -> dict[str, np.ndarray]:
        return {
            "w0": normal(width, num_obs, scale=num_obs**-0.5),
            "b0": normal(width, scale=0.1),
            "w1": normal(num_outputs, width, scale=width**-0.5),
            "b1": normal(num_outputs, scale=0.1),
        }

    actor = network(num_actions)
    log_std = np.array([-0.5, -0.2, 0.1], np.float32)
    old_log_std = log_std + normal(num_actions, scale=0.15)
    obs = normal(batch, num_obs)
    mean = np.tanh(obs @ actor["w0"].T + actor["b0"]) @ actor["w1"].T + actor["b1"]
    old_mean = mean + normal(batch, num_actions, scale=0.15)
    return {
        "actor": actor,
        "critic": network(1),
        "log_std": log_std,
        "kl_coef": np.array(0.7, np.float32),
        "obs": obs,
        "actions": (old_mean + np.exp(old_log_std) * normal(batch, num_actions)).astype(np.float32),
        "old_mean": old_mean.astype(np.float32),
        "old_log_std": old_log_std,
        "advantages": 0.4 + normal(batch, scale=1.7),
        "returns": normal(batch),
    }


FAULTS = (
    Fault(
        "divergence the other way round",
        "_gaussian_kl(before, old_log_std, mean, log_std)",
        "_gaussian_kl(mean, log_std, before, old_log_std)",
    ),
    Fault("shift not halved", "0.5 * (stretch + shift) - 0.5", "0.5 * stretch + shift - 0.5"),
    Fault(
        "log-deviations exchanged",
        "jnp.sum(log_std_q - log_std_p +",
        "jnp.sum(log_std_p - log_std_q +",
    ),
    Fault(
        "variance for deviation",
        "jnp.exp(2 * (log_std_p - log_std_q))",
        "jnp.exp(log_std_p - log_std_q)",
    ),
    Fault(
        "old actions under the new deviation",
        "- _log_density(action, before, old_log_std)",
        "- _log_density(action, before, log_std)",
    ),
    Fault(
        "log-density without its deviation",
        "0.5 * z**2 + log_std + 0.5 * math",
        "0.5 * z**2 + 0.5 * math",
    ),
    Fault(
        "mean over the action's dimensions",
        "return -jnp.sum(0.5 * z**2",
        "return -jnp.mean(0.5 * z**2",
    ),
    Fault(
        "entropy's constant for one dimension",
        "0.5 * log_std.size * math.log(2 * math.pi * math.e)",
        "0.5 * math.log(2 * math.pi * math.e)",
    ),
    Fault(
        "advantages over the population's deviation",
        "jnp.std(advantages, ddof=1)",
        "jnp.std(advantages)",
        "B01",
    ),
    Fault("advantages not centred", "scaled = centred /", "scaled = advantages /"),
    Fault(
        "ratio clipped after the product",
        "clipped * advantage)",
        "jnp.clip(ratio * advantage, 1 - clip, 1 + clip))",
    ),
    Fault("penalty grows and shrinks the wrong way", "kl > 1.5 * target,", "kl < 1.5 * target,"),
    Fault(
        "coefficient follows the loss",
        "kl_coef = jax.lax.stop_gradient(kl_coef)\n",
        "kl_coef = jnp.asarray(kl_coef)\n",
        phase="backward",
    ),
    Fault(
        "mean held fast in the divergence",
        "_gaussian_kl(before, old_log_std, mean, log_std)",
        "_gaussian_kl(before, old_log_std, jax.lax.stop_gradient(mean), log_std)",
        phase="backward",
    ),
)
