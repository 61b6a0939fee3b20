"""Proximal policy optimisation: the clipped loss on one minibatch of discrete actions.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equations 7 and 9, with the value clipping
and the normalised advantages of the usual implementations.

    L = E[max(−r A, −clip(r, 1−ε, 1+ε) A)] + c₁ L_value − c₂ H,    r = π(a|s) / π_old(a|s)
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.distributions import Categorical
from torch.nn import functional as F

from benchmarks.ports.faults import Fault


def _mlp_torch(net: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for layer in (0, 1):
        x = torch.tanh(F.linear(x, net[f"w{layer}"], net[f"b{layer}"]))
    return F.linear(x, net["w2"], net["b2"])


def in_torch(
    *,
    actor: Mapping[str, torch.Tensor],
    critic: Mapping[str, torch.Tensor],
    obs: torch.Tensor,
    actions: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    returns: torch.Tensor,
    old_values: torch.Tensor,
    clip: float = 0.2,
    entropy_coef: float = 0.01,
    value_coef: float = 0.5,
) -> dict[str, torch.Tensor]:
    """The loss and its parts."""
    policy = Categorical(logits=_mlp_torch(actor, obs))
    log_ratio = policy.log_prob(actions) - old_log_probs
    ratio = log_ratio.exp()
    with torch.no_grad():
        approx_kl = ((ratio - 1) - log_ratio).mean()

    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    clipped_ratio = torch.clamp(ratio, 1 - clip, 1 + clip)
    policy_loss = torch.max(-advantages * ratio, -advantages * clipped_ratio).mean()

    values = _mlp_torch(critic, obs).squeeze(-1)
    clipped_values = old_values + torch.clamp(values - old_values, -clip, clip)
    squared = torch.max((values - returns) ** 2, (clipped_values - returns) ** 2)
    value_loss = 0.5 * squared.mean()

    entropy = policy.entropy().mean()
    return {
        "loss": policy_loss - entropy_coef * entropy + value_coef * value_loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": approx_kl,
    }


def _mlp_jax(net: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(jnp.einsum("...i,hi->...h", x, net["w0"]) + net["b0"])
    hidden = jnp.tanh(jnp.einsum("...h,kh->...k", hidden, net["w1"]) + net["b1"])
    return net["b2"] + hidden @ net["w2"].T


def _standardised(x: jax.Array) -> jax.Array:
    return (x - jnp.mean(x)) / (jnp.std(x, ddof=1) + 1e-8)


def in_jax(
    *,
    actor: Mapping[str, jax.Array],
    critic: Mapping[str, jax.Array],
    obs: jax.Array,
    actions: jax.Array,
    old_log_probs: jax.Array,
    advantages: jax.Array,
    returns: jax.Array,
    old_values: jax.Array,
    clip: float = 0.2,
    entropy_coef: float = 0.01,
    value_coef: float = 0.5,
) -> dict[str, jax.Array]:
    """The loss and its parts, with one-hot actions and the least of two surrogates."""
    logits = _mlp_jax(actor, obs)
    values = _mlp_jax(critic, obs)[:, 0]
    all_log_probs = jax.nn.log_softmax(logits, axis=-1)
    chosen = jax.nn.one_hot(actions, logits.shape[-1], dtype=logits.dtype)
    log_probs = jnp.sum(all_log_probs * chosen, axis=-1)

    ratio = jnp.exp(log_probs - old_log_probs)
    scaled = _standardised(advantages)
    surrogate = jnp.minimum(ratio * scaled, jnp.clip(ratio, 1 - clip, 1 + clip) * scaled)
    policy_loss = -jnp.mean(surrogate)

    near = jnp.clip(values, old_values - clip, old_values + clip)
    worst = jnp.maximum(jnp.square(returns - values), jnp.square(returns - near))
    value_loss = jnp.mean(worst) / 2

    entropy = -jnp.mean(jnp.sum(jnp.exp(all_log_probs) * all_log_probs, axis=-1))
    approx_kl = jnp.mean(ratio - 1 - (log_probs - old_log_probs))
    return {
        "loss": policy_loss + value_coef * value_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": jax.lax.stop_gradient(approx_kl),
    }


def in_jax_by_example(
    *,
    actor: Mapping[str, jax.Array],
    critic: Mapping[str, jax.Array],
    obs: jax.Array,
    actions: jax.Array,
    old_log_probs: jax.Array,
    advantages: jax.Array,
    returns: jax.Array,
    old_values: jax.Array,
    clip: float = 0.2,
    entropy_coef: float = 0.01,
    value_coef: float = 0.5,
) -> dict[str, jax.Array]:
    """The same: one example's loss under `vmap`, and the clipping by the advantage's sign."""

    def example(
        ob: jax.Array,
        action: jax.Array,
        old_log_prob: jax.Array,
        advantage: jax.Array,
        target: jax.Array,
        old_value: jax.Array,
    ) -> tuple[jax.Array, ...]:
        logits = _mlp_jax(actor, ob)
        log_normaliser = jax.nn.logsumexp(logits)
        log_ratio = logits[action] - log_normaliser - old_log_prob
        ratio = jnp.exp(log_ratio)
        held = jnp.where(advantage > 0, jnp.minimum(ratio, 1 + clip), jnp.maximum(ratio, 1 - clip))
        entropy = log_normaliser - jnp.dot(jax.nn.softmax(logits), logits)
        value = _mlp_jax(critic, ob)[0]
        near = old_value + jnp.clip(value - old_value, -clip, clip)
        error = jnp.maximum((value - target) ** 2, (near - target) ** 2)
        return -advantage * held, 0.5 * error, entropy, jnp.expm1(log_ratio) - log_ratio

    scaled = (advantages - advantages.mean()) / (jnp.sqrt(jnp.var(advantages, ddof=1)) + 1e-8)
    parts = jax.vmap(example)(obs, actions, old_log_probs, scaled, returns, old_values)
    policy_loss, value_loss, entropy, approx_kl = (part.mean() for part in parts)
    return {
        "loss": policy_loss + value_coef * value_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": jax.lax.stop_gradient(approx_kl),
    }


def inputs() -> dict[str, Any]:
    """A minibatch of 256, and two networks with two layers of 64."""
    rng = np.random.default_rng(0)
    num_obs, num_actions, batch = 8, 6, 256

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network(name: str, num_outputs: int) -> dict[str, np.ndarray]:
        sizes = (num_obs, 64, 64, num_outputs)
        arrays = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            arrays[f"{name}/w{layer}"] = normal(fan_out, fan_in, scale=fan_in**-0.5)
            arrays[f"{name}/b{layer}"] = normal(fan_out, scale=0.1)
        return arrays

    returns = normal(batch)
    return {
        **network("actor", num_actions),
        **network("critic", 1),
        "obs": normal(batch, num_obs),
        "actions": rng.integers(num_actions, size=batch),
        "old_log_probs": -np.log(np.float32(num_actions)) + normal(batch, scale=0.3),
        "advantages": 0.5 + normal(batch, scale=2.0),
        "returns": returns,
        "old_values": returns + normal(batch, scale=0.3),
    }


FAULTS = (
    Fault("advantages divided by the population's std", "jnp.std(x, ddof=1)", "jnp.std(x)", "B01"),
    Fault("the greatest surrogate", "jnp.minimum(ratio * scaled", "jnp.maximum(ratio * scaled"),
    Fault(
        "ratio upside down",
        "jnp.exp(log_probs - old_log_probs)",
        "jnp.exp(old_log_probs - log_probs)",
    ),
    Fault(
        "ratio not clipped above",
        "jnp.clip(ratio, 1 - clip, 1 + clip)",
        "jnp.maximum(ratio, 1 - clip)",
    ),
    Fault("advantages not normalised", "scaled = _standardised(advantages)", "scaled = advantages"),
    Fault(
        "values clipped around the returns",
        "jnp.clip(values, old_values - clip, old_values + clip)",
        "jnp.clip(values, returns - clip, returns + clip)",
    ),
    Fault("the least value error", "worst = jnp.maximum", "worst = jnp.minimum"),
    Fault("half lost in the value loss", "jnp.mean(worst) / 2", "jnp.mean(worst)"),
    Fault(
        "values of the actor's network", "_mlp_jax(critic, obs)[:, 0]", "_mlp_jax(actor, obs)[:, 0]"
    ),
    Fault("values keep an axis of one", "_mlp_jax(critic, obs)[:, 0]", "_mlp_jax(critic, obs)"),
    Fault(
        "square weight not transposed",
        '"...h,kh->...k", hidden',
        '"...h,hk->...k", hidden',
        "E09",
    ),
    Fault(
        "softmax over the batch",
        "jax.nn.log_softmax(logits, axis=-1)",
        "jax.nn.log_softmax(logits, axis=0)",
    ),
    Fault("entropy with a wrong sign", "entropy = -jnp.mean", "entropy = jnp.mean"),
    Fault(
        "probabilities held fast in the entropy",
        "jnp.sum(jnp.exp(all_log_probs) * all_log_probs, axis=-1)",
        "jnp.sum(jax.lax.stop_gradient(jnp.exp(all_log_probs)) * all_log_probs, axis=-1)",
        phase="backward",
    ),
)
