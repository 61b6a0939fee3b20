"""REINFORCE with a learned baseline over episodes of different lengths.

Williams 1992, https://doi.org/10.1007/BF00992696, with returns to go and a value as in Sutton and
Barto 2018, section 13.4.

    G_t = r_t + γ G_{t+1},    A = (G − V − mean) / (std + ε),    over all steps that were made
    L = −E[A_t log π(a_t|s_t)] + c E[(V(s_t) − G_t)²] / 2 − c_h E[H_t]

Arrays are (T, B); episode b has `lengths[b]` steps, and what follows them is garbage.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.distributions import Categorical
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from benchmarks.ports.faults import Fault

Net = Mapping[str, Any]
"""`w`, `b` of the body; `w_pi`, `b_pi`, `w_v`, `b_v` of the heads. Weights are (out, in)."""


def _returns_torch(rewards: torch.Tensor, discount: float) -> torch.Tensor:
    """Of one episode, from its end to its beginning."""
    returns = []
    following = torch.zeros((), dtype=rewards.dtype)
    for reward in reversed(rewards.unbind()):
        following = reward + discount * following
        returns.insert(0, following)
    return torch.stack(returns)


def in_torch(
    *,
    params: Net,
    obs: torch.Tensor,
    actions: torch.Tensor,
    rewards: torch.Tensor,
    lengths: torch.Tensor,
    discount: float = 0.93,
    value_coef: float = 0.4,
    entropy_coef: float = 0.02,
    eps: float = 1e-4,
) -> dict[str, torch.Tensor]:
    """The loss and its parts, and the returns with zeros after each episode."""
    sizes = lengths.tolist()
    with torch.no_grad():
        by_episode = [
            _returns_torch(rewards[:size, episode], discount) for episode, size in enumerate(sizes)
        ]
        returns = torch.cat(by_episode)

    def steps(x: torch.Tensor) -> torch.Tensor:
        """The steps that were made, one episode after another."""
        return torch.cat([x[:size, episode] for episode, size in enumerate(sizes)])

    hidden = torch.tanh(F.linear(steps(obs), params["w"], params["b"]))
    policy = Categorical(logits=F.linear(hidden, params["w_pi"], params["b_pi"]))
    values = F.linear(hidden, params["w_v"], params["b_v"]).squeeze(1)

    advantages = (returns - values).detach()
    advantages = (advantages - advantages.mean()) / (advantages.std() + eps)
    policy_loss = -(advantages * policy.log_prob(steps(actions))).mean()
    value_loss = 0.5 * F.mse_loss(values, returns)
    entropy = policy.entropy().mean()
    return {
        "loss": policy_loss + value_coef * value_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "returns": pad_sequence(by_episode),
    }


def _returns_to_go(rewards: jax.Array, length: jax.Array, discount: float) -> jax.Array:
    """Of one episode: as many turns of the loop as it has steps, zeros after them."""

    def body(turn: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        following, returns = carry
        t = length - 1 - turn
        following = rewards[t] + discount * following
        return following, returns.at[t].set(following)

    start = (jnp.zeros((), rewards.dtype), jnp.zeros_like(rewards))
    return jax.lax.fori_loop(0, length, body, start)[1]


def _masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.sum(mask)


def _normalised(x: jax.Array, mask: jax.Array, eps: float) -> jax.Array:
    """Zero mean and unit deviation over the steps in `mask`; torch's deviation divides by n − 1."""
    centred = jnp.where(mask, x - _masked_mean(x, mask), 0.0)
    variance = jnp.sum(centred**2) / (jnp.sum(mask) - 1)
    return centred / (jnp.sqrt(variance) + eps)


def _forward(params: Net, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of all actions, and the value."""
    hidden = jnp.tanh(jnp.einsum("tbo,ho->tbh", obs, params["w"]) + params["b"])
    logits = hidden @ params["w_pi"].T + params["b_pi"]
    value = jnp.einsum("tbh,h->tb", hidden, params["w_v"][0]) + params["b_v"]
    return jax.nn.log_softmax(logits), value


def in_jax(
    *,
    params: Net,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    lengths: jax.Array,
    discount: float = 0.93,
    value_coef: float = 0.4,
    entropy_coef: float = 0.02,
    eps: float = 1e-4,
) -> dict[str, jax.Array]:
    """The same on padded arrays with a mask."""
    mask = jnp.arange(rewards.shape[0])[:, None] < lengths[None, :]
    held = jax.lax.stop_gradient(rewards)
    returns = jax.vmap(_returns_to_go, in_axes=(1, 0, None), out_axes=1)(held, lengths, discount)

    log_policy, values = _forward(params, obs)
    taken = jnp.take_along_axis(log_policy, actions[:, :, None], axis=2)[:, :, 0]
    advantages = jax.lax.stop_gradient(returns - values)
    advantages = _normalised(advantages, mask, eps)
    policy_loss = -_masked_mean(advantages * taken, mask)
    value_loss = 0.5 * _masked_mean((values - returns) ** 2, mask)
    entropy = _masked_mean(-jnp.sum(jnp.exp(log_policy) * log_policy, axis=2), mask)
    loss = policy_loss + value_coef * value_loss - entropy_coef * entropy
    return {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "returns": returns,
    }


def in_jax_by_step(
    *,
    params: Net,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    lengths: jax.Array,
    discount: float = 0.93,
    value_coef: float = 0.4,
    entropy_coef: float = 0.02,
    eps: float = 1e-4,
) -> dict[str, jax.Array]:
    """The same: returns by a reverse scan, moments from raw sums, one step under two `vmap`s."""
    num_steps = rewards.shape[0]
    made = (jnp.arange(num_steps)[:, None] < lengths).astype(rewards.dtype)
    held = jax.lax.stop_gradient(jnp.where(made > 0, rewards, 0.0))

    def backup(following: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array]:
        now = reward + discount * following
        return now, now

    _, returns = jax.lax.scan(backup, jnp.zeros_like(held[0]), held, reverse=True)

    def step(ob: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        hidden = jnp.tanh(params["w"] @ ob + params["b"])
        logits = params["w_pi"] @ hidden + params["b_pi"]
        normaliser = jax.nn.logsumexp(logits)
        value = params["w_v"] @ hidden + params["b_v"]
        entropy = normaliser - jax.nn.softmax(logits) @ logits
        return logits[action] - normaliser, entropy, value[0]

    log_probs, entropies, values = jax.vmap(jax.vmap(step))(obs, actions)
    num = lengths.sum()
    raw = jax.lax.stop_gradient(returns - values)
    mean = jnp.vdot(made, raw) / num
    variance = (jnp.vdot(made, raw**2) - num * mean**2) / (num - 1)
    advantages = (raw - mean) / (jnp.sqrt(variance) + eps)
    policy_loss = -jnp.vdot(made * advantages, log_probs) / num
    value_loss = jnp.vdot(made, jnp.square(returns - values)) / (2 * num)
    entropy = jnp.vdot(made, entropies) / num
    return {
        "loss": policy_loss - entropy_coef * entropy + value_coef * value_loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "returns": returns,
    }


def inputs() -> dict[str, Any]:
    """Ten episodes of 4 to 16 steps; what follows them is drawn like all else."""
    rng = np.random.default_rng(19)
    num_steps, num_episodes, num_obs, width, num_actions = 16, 10, 6, 12, 4

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    lengths = rng.integers(4, num_steps, size=num_episodes)
    lengths[3] = num_steps
    return {
        "params": {
            "w": normal(width, num_obs, scale=num_obs**-0.5),
            "b": normal(width, scale=0.1),
            "w_pi": normal(num_actions, width, scale=1.5 * width**-0.5),
            "b_pi": normal(num_actions, scale=0.1),
            "w_v": normal(1, width, scale=width**-0.5),
            "b_v": normal(1, scale=0.1),
        },
        "obs": normal(num_steps, num_episodes, num_obs),
        "actions": rng.integers(num_actions, size=(num_steps, num_episodes)),
        "rewards": 0.5 + normal(num_steps, num_episodes),
        "lengths": lengths,
    }


FAULTS = (
    Fault("loop starts one step late", "t = length - 1 - turn", "t = length - turn"),
    Fault(
        "loop over the padding as well",
        "jax.lax.fori_loop(0, length, body, start)",
        "jax.lax.fori_loop(0, rewards.shape[0], body, start)",
    ),
    Fault(
        "first step left out",
        "jax.lax.fori_loop(0, length, body, start)",
        "jax.lax.fori_loop(0, length - 1, body, start)",
    ),
    Fault("forward in time", "t = length - 1 - turn", "t = turn"),
    Fault(
        "own reward discounted",
        "following = rewards[t] + discount * following",
        "following = discount * (rewards[t] + following)",
    ),
    Fault(
        "return put in place before it is made",
        "return following, returns.at[t].set(following)",
        "return following, returns.at[t].set(carry[0])",
    ),
    Fault("mask one step longer", "[:, None] < lengths[None, :]", "[:, None] <= lengths[None, :]"),
    Fault(
        "mean over the padding as well",
        "jnp.sum(jnp.where(mask, x, 0.0)) / jnp.sum(mask)",
        "jnp.mean(jnp.where(mask, x, 0.0))",
    ),
    Fault(
        "variance over n",
        "jnp.sum(centred**2) / (jnp.sum(mask) - 1)",
        "jnp.sum(centred**2) / jnp.sum(mask)",
        "B01",
    ),
    Fault(
        "padding counted in the centre",
        "jnp.where(mask, x - _masked_mean(x, mask), 0.0)",
        "jnp.where(mask, x - jnp.mean(x), 0.0)",
    ),
    Fault(
        "advantages not normalised",
        "advantages = _normalised(advantages, mask, eps)",
        "advantages = jnp.where(mask, advantages, 0.0)",
    ),
    Fault(
        "entropy of the padding",
        "_masked_mean(-jnp.sum(jnp.exp(log_policy) * log_policy, axis=2), mask)",
        "jnp.mean(-jnp.sum(jnp.exp(log_policy) * log_policy, axis=2))",
    ),
    Fault(
        "baseline moved by the policy's loss",
        "advantages = jax.lax.stop_gradient(returns - values)",
        "advantages = returns - values",
        phase="backward",
    ),
    Fault(
        "probabilities held fast in the entropy",
        "-jnp.sum(jnp.exp(log_policy) * log_policy, axis=2)",
        "-jnp.sum(jax.lax.stop_gradient(jnp.exp(log_policy)) * log_policy, axis=2)",
        phase="backward",
    ),
)
