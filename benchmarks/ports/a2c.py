"""Advantage actor-critic with n-step returns and Gaussian actions.

Mnih et al. 2016, https://arxiv.org/abs/1602.01783, section 4 and algorithm S3. Returns that reach
the rollout's end are cut there. `discounts` are γ (1 − d_t): zero where step t ended an episode.

    G_t = r_t + γ_t r_{t+1} + … + γ_t ⋯ γ_{t+n−1} V(s_{t+n})
    L = −E[log π(a_t|s_t) (G_t − V(s_t))] + c₁ E[(G_t − V(s_t))²] / 2 − c₂ H
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.distributions import Independent, Normal
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

Params = Mapping[str, Any]
NUM_STEPS = 5


def _returns_torch(
    rewards: torch.Tensor, discounts: torch.Tensor, values: torch.Tensor, n: int
) -> torch.Tensor:
    """G_t from its definition; `values` has one row more than `rewards`."""
    num_times = rewards.shape[0]
    returns = []
    for t in range(num_times):
        end = min(t + n, num_times)
        total, weight = torch.zeros_like(rewards[t]), torch.ones_like(rewards[t])
        for k in range(t, end):
            total = total + weight * rewards[k]
            weight = weight * discounts[k]
        returns.append(total + weight * values[end])
    return torch.stack(returns)


def in_torch(
    *,
    params: Params,
    obs: torch.Tensor,
    actions: torch.Tensor,
    rewards: torch.Tensor,
    discounts: torch.Tensor,
    value_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, torch.Tensor]:
    """The loss and its parts; `obs` has one row more than `rewards`, for the bootstrap."""
    hidden = torch.tanh(F.linear(obs, params["w0"], params["b0"]))
    hidden = torch.tanh(F.linear(hidden, params["w1"], params["b1"]))
    values = F.linear(hidden, params["w_value"], params["b_value"]).squeeze(-1)
    mean = F.linear(hidden[:-1], params["w_mean"], params["b_mean"])
    policy = Independent(Normal(mean, params["log_std"].exp().expand_as(mean)), 1)

    returns = _returns_torch(rewards, discounts, values.detach(), NUM_STEPS)
    advantages = returns - values[:-1]
    policy_loss = -(policy.log_prob(actions) * advantages.detach()).mean()
    value_loss = 0.5 * advantages.pow(2).mean()
    entropy = policy.entropy().mean()
    return {
        "loss": policy_loss + value_coef * value_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "mean_return": returns.mean().detach(),
    }


def _torso_jax(params: Params, obs: jax.Array) -> jax.Array:
    hidden = obs
    for layer in ("0", "1"):
        hidden = jnp.einsum("tbi,oi->tbo", hidden, params["w" + layer])
        hidden = jnp.tanh(hidden + params["b" + layer])
    return hidden


def _log_prob_jax(actions: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    scaled = (actions - mean) * jnp.exp(-log_std)
    quadratic = -0.5 * jnp.sum(scaled**2, axis=-1)
    constant = 0.5 * mean.shape[-1] * math.log(2 * math.pi)
    return quadratic - jnp.sum(log_std) - constant


def _returns_jax(rewards: jax.Array, discounts: jax.Array, values: jax.Array, n: int) -> jax.Array:
    """All G_t together: n backups, padded so that those past the end change nothing."""
    num_times = rewards.shape[0]
    rewards = jnp.pad(rewards, ((0, n - 1), (0, 0)))
    discounts = jnp.pad(discounts, ((0, n - 1), (0, 0)), constant_values=1.0)
    bootstraps = values[jnp.minimum(jnp.arange(num_times) + n, num_times)]
    returns = bootstraps
    for lag in reversed(range(n)):
        window = slice(lag, lag + num_times)
        returns = rewards[window] + discounts[window] * returns
    return returns


def in_jax(
    *,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    discounts: jax.Array,
    value_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, jax.Array]:
    """The loss and its parts, densities by hand."""
    features = _torso_jax(params, obs)
    values = features @ params["w_value"][0] + params["b_value"]
    mean = (features @ params["w_mean"].T + params["b_mean"])[:-1]
    log_std = params["log_std"]
    log_probs = _log_prob_jax(actions, mean, log_std)

    held = jax.lax.stop_gradient(values)
    returns = _returns_jax(rewards, discounts, held, NUM_STEPS)
    advantages = returns - held[:-1]
    policy_loss = -jnp.mean(jax.lax.stop_gradient(advantages) * log_probs)
    value_loss = jnp.mean(optax.l2_loss(values[:-1], returns))
    entropy = jnp.sum(log_std + 0.5 * math.log(2 * math.pi * math.e))
    return {
        "loss": policy_loss + value_coef * value_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "mean_return": jax.lax.stop_gradient(jnp.mean(returns)),
    }


def in_jax_by_environment(
    *,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    discounts: jax.Array,
    value_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, jax.Array]:
    """The same: each environment under `vmap`, G as a matrix of weights times the rewards."""

    def heads(ob: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = jnp.tanh(params["w0"] @ ob + params["b0"])
        hidden = jnp.tanh(params["w1"] @ hidden + params["b1"])
        mean = params["w_mean"] @ hidden + params["b_mean"]
        return mean, (params["w_value"] @ hidden + params["b_value"])[0]

    def environment(
        obs: jax.Array, actions: jax.Array, rewards: jax.Array, discounts: jax.Array
    ) -> tuple[jax.Array, ...]:
        num_times = rewards.shape[0]
        mean, values = jax.vmap(heads)(obs)
        later, now = jnp.arange(num_times + 1), jnp.arange(num_times)[:, None]
        lag = later - now
        # Row t: the product of the discounts from t on; 1 at t itself, 0 before it.
        factors = jnp.where(lag >= 1, jnp.concatenate([discounts[:1], discounts]), 1.0)
        weights = jnp.where(lag >= 0, jnp.cumprod(factors, axis=1), 0.0)
        last = jnp.minimum(now + NUM_STEPS, num_times)
        summed = jnp.where(later < last, weights, 0.0)[:, :-1] @ rewards
        bootstraps = jax.lax.stop_gradient(values)
        returns = summed + jnp.where(later == last, weights, 0.0) @ bootstraps
        log_prob = jax.scipy.stats.norm.logpdf(actions, mean[:-1], jnp.exp(params["log_std"]))
        advantages = jax.lax.stop_gradient(returns - values[:-1])
        value_loss = (returns - values[:-1]) ** 2 / 2
        return -advantages * log_prob.sum(-1), value_loss, returns

    parts = jax.vmap(environment, in_axes=1)(obs, actions, rewards, discounts)
    policy_loss, value_loss, mean_return = (part.mean() for part in parts)
    entropy = jnp.sum(params["log_std"]) + actions.shape[-1] * (1 + math.log(2 * math.pi)) / 2
    return {
        "loss": policy_loss + value_coef * value_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "mean_return": jax.lax.stop_gradient(mean_return),
    }


def inputs() -> dict[str, Any]:
    """16 steps of 8 environments, and a network with two layers of 32."""
    rng = np.random.default_rng(4)
    num_times, num_envs, num_obs, num_actions, width = 16, 8, 5, 2, 32

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    ended = rng.random((num_times, num_envs)) < 0.1
    return {
        "params/w0": normal(width, num_obs, scale=num_obs**-0.5),
        "params/b0": normal(width, scale=0.1),
        "params/w1": normal(width, width, scale=width**-0.5),
        "params/b1": normal(width, scale=0.1),
        "params/w_value": normal(1, width, scale=width**-0.5),
        "params/b_value": normal(1, scale=0.1),
        "params/w_mean": normal(num_actions, width, scale=width**-0.5),
        "params/b_mean": normal(num_actions, scale=0.1),
        "params/log_std": normal(num_actions, scale=0.3) - np.float32(0.5),
        "obs": normal(num_times + 1, num_envs, num_obs),
        "actions": normal(num_times, num_envs, num_actions),
        "rewards": normal(num_times, num_envs),
        "discounts": np.where(ended, 0, 0.99).astype(np.float32),
    }


FAULTS = (
    Fault(
        "square weight not transposed",
        'jnp.einsum("tbi,oi->tbo", hidden, params["w" + layer])',
        'hidden @ (params["w1"] if layer == "1" else params["w0"].T)',
        "E09",
    ),
    Fault(
        "bias left out",
        'hidden = jnp.tanh(hidden + params["b" + layer])',
        "hidden = jnp.tanh(hidden)",
    ),
    Fault(
        "scaled by the variance",
        "(actions - mean) * jnp.exp(-log_std)",
        "(actions - mean) * jnp.exp(-2 * log_std)",
    ),
    Fault(
        "log-density without its normaliser",
        "quadratic - jnp.sum(log_std)",
        "quadratic + jnp.sum(log_std)",
    ),
    Fault("constant of one dimension", "0.5 * mean.shape[-1] * math.log", "0.5 * math.log"),
    Fault(
        "discounts padded with zeros",
        "((0, n - 1), (0, 0)), constant_values=1.0)",
        "((0, n - 1), (0, 0)))",
    ),
    Fault(
        "bootstrap one step early",
        "jnp.arange(num_times) + n, num",
        "jnp.arange(num_times) + n - 1, num",
    ),
    Fault("backups in the wrong order", "for lag in reversed(range(n))", "for lag in range(n)"),
    Fault("bootstrap of the last value only", "returns = bootstraps\n", "returns = values[-1:]\n"),
    Fault(
        "reward discounted too",
        "rewards[window] + discounts[window] * returns",
        "discounts[window] * (rewards[window] + returns)",
    ),
    Fault("next state's value as baseline", "returns - held[:-1]", "returns - held[1:]"),
    Fault(
        "no half in the squared error", "optax.l2_loss(values", "optax.squared_error(values", "E04"
    ),
    Fault("entropy without e", "2 * math.pi * math.e", "2 * math.pi"),
    Fault(
        "mean of the entropy's dimensions",
        "entropy = jnp.sum(log_std",
        "entropy = jnp.mean(log_std",
    ),
    Fault(
        "bootstrap moves the values",
        "held = jax.lax.stop_gradient(values)",
        "held = values",
        phase="backward",
    ),
)
