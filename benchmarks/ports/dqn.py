"""Double DQN with a dueling head: the Huber loss of a prioritised batch.

van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461; Wang et al. 2016,
https://arxiv.org/abs/1511.06581, equation 9; Schaul et al. 2016, https://arxiv.org/abs/1511.05952.

    Q(s, a) = V(s) + A(s, a) − mean_b A(s, b)
    y = r + γ (1 − d) Q̄(s', argmax_a Q(s', a)),    L = E[w huber(Q(s, a) − y)]
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

Net = Mapping[str, Any]


def _q_torch(net: Net, obs: torch.Tensor) -> torch.Tensor:
    hidden = F.relu(F.linear(obs, net["w0"], net["b0"]))
    hidden = F.relu(F.linear(hidden, net["w1"], net["b1"]))
    value = F.linear(hidden, net["w_value"], net["b_value"])
    advantage = F.linear(hidden, net["w_advantage"], net["b_advantage"])
    return value + advantage - advantage.mean(dim=1, keepdim=True)


def in_torch(
    *,
    online: Net,
    target: Net,
    obs: torch.Tensor,
    actions: torch.Tensor,
    rewards: torch.Tensor,
    next_obs: torch.Tensor,
    terminated: torch.Tensor,
    probabilities: torch.Tensor,
    capacity: int = 10_000,
    beta: float = 0.4,
    discount: float = 0.99,
    delta: float = 1.0,
) -> dict[str, torch.Tensor]:
    """The loss, and the new priorities of the batch."""
    with torch.no_grad():
        best = _q_torch(online, next_obs).argmax(dim=1, keepdim=True)
        next_q = _q_torch(target, next_obs).gather(1, best).squeeze(1)
        wanted = rewards + discount * next_q * (~terminated).to(rewards.dtype)
        weights = (capacity * probabilities) ** -beta
        weights = weights / weights.max()

    taken = _q_torch(online, obs).gather(1, actions.unsqueeze(1)).squeeze(1)
    losses = F.huber_loss(taken, wanted, reduction="none", delta=delta)
    return {
        "loss": (weights * losses).mean(),
        "priorities": (taken - wanted).abs().detach() + 1e-6,
        "mean_q": taken.mean().detach(),
    }


def _q_jax(net: Net, obs: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(obs @ net["w0"].T + net["b0"])
    hidden = jax.nn.relu(jnp.dot(hidden, net["w1"].T) + net["b1"])
    heads = jnp.concatenate([net["w_value"], net["w_advantage"]])
    biases = jnp.concatenate([net["b_value"], net["b_advantage"]])
    value, advantage = jnp.split(jnp.einsum("bh,oh->bo", hidden, heads) + biases, [1], axis=1)
    return value + (advantage - jnp.mean(advantage, axis=1, keepdims=True))


def _weights_jax(probabilities: jax.Array, capacity: int, beta: float) -> jax.Array:
    """(N P)^−β over its greatest, in logarithms: N cancels."""
    log_weights = -beta * jnp.log(probabilities)
    return jnp.exp(log_weights - jnp.max(log_weights))


def in_jax(
    *,
    online: Net,
    target: Net,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    probabilities: jax.Array,
    capacity: int = 10_000,
    beta: float = 0.4,
    discount: float = 0.99,
    delta: float = 1.0,
) -> dict[str, jax.Array]:
    """The loss, with one-hot actions on both sides of the error."""
    num_actions = online["b_advantage"].shape[0]
    best = jnp.argmax(_q_jax(online, next_obs), axis=-1)
    greedy = jax.nn.one_hot(best, num_actions, dtype=obs.dtype)
    next_q = jnp.sum(greedy * _q_jax(target, next_obs), axis=-1)
    wanted = jnp.where(terminated, rewards, rewards + discount * next_q)

    chosen = jax.nn.one_hot(actions, num_actions, dtype=obs.dtype)
    taken = jnp.einsum("ba,ba->b", _q_jax(online, obs), chosen)
    error = jax.lax.stop_gradient(wanted) - taken
    weights = jax.lax.stop_gradient(_weights_jax(probabilities, capacity, beta))
    loss = jnp.mean(weights * optax.huber_loss(error, delta=delta))
    return {
        "loss": loss,
        "priorities": jax.lax.stop_gradient(jnp.abs(error)) + 1e-6,
        "mean_q": jax.lax.stop_gradient(jnp.mean(taken)),
    }


def in_jax_by_example(
    *,
    online: Net,
    target: Net,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    probabilities: jax.Array,
    capacity: int = 10_000,
    beta: float = 0.4,
    discount: float = 0.99,
    delta: float = 1.0,
) -> dict[str, jax.Array]:
    """The same: one transition's error under `vmap`, Huber's loss from a clipped error."""

    def q(net: Net, ob: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(net["w0"] @ ob + net["b0"])
        hidden = jax.nn.relu(net["w1"] @ hidden + net["b1"])
        advantage = net["w_advantage"] @ hidden + net["b_advantage"]
        return advantage - advantage.mean() + (net["w_value"] @ hidden + net["b_value"])

    def temporal_difference(
        ob: jax.Array, action: jax.Array, reward: jax.Array, next_ob: jax.Array, done: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        next_q = q(target, next_ob)[jnp.argmax(q(online, next_ob))]
        wanted = reward + jnp.where(done, 0.0, discount) * next_q
        taken = q(online, ob)[action]
        return taken - jax.lax.stop_gradient(wanted), taken

    error, taken = jax.vmap(temporal_difference)(obs, actions, rewards, next_obs, terminated)
    inner = jnp.clip(error, -delta, delta)
    huber = inner * (error - inner / 2)
    weights = jax.lax.stop_gradient((probabilities / probabilities.min()) ** -beta)
    priorities, mean_q = jax.lax.stop_gradient((jnp.abs(error) + 1e-6, taken.mean()))
    return {"loss": (weights * huber).mean(), "priorities": priorities, "mean_q": mean_q}


def inputs() -> dict[str, Any]:
    """A batch of 128, and two networks with two layers of 32."""
    rng = np.random.default_rng(2)
    num_obs, num_actions, batch = 6, 4, 128

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network(name: str) -> dict[str, np.ndarray]:
        sizes = {
            "0": (num_obs, 32),
            "1": (32, 32),
            "_value": (32, 1),
            "_advantage": (32, num_actions),
        }
        arrays = {}
        for layer, (fan_in, fan_out) in sizes.items():
            arrays[f"{name}/w{layer}"] = normal(fan_out, fan_in, scale=1.4 * fan_in**-0.5)
            arrays[f"{name}/b{layer}"] = normal(fan_out, scale=0.1)
        return arrays

    return {
        **network("online"),
        **network("target"),
        "obs": normal(batch, num_obs),
        "actions": rng.integers(num_actions, size=batch),
        "rewards": normal(batch),
        "next_obs": normal(batch, num_obs),
        "terminated": rng.random(batch) < 0.15,
        "probabilities": rng.uniform(1e-5, 1e-3, size=batch).astype(np.float32),
    }


FAULTS = (
    Fault(
        "action chosen by the target network",
        "jnp.argmax(_q_jax(online, next_obs), axis=-1)",
        "jnp.argmax(_q_jax(target, next_obs), axis=-1)",
    ),
    Fault(
        "next value of the online network",
        "greedy * _q_jax(target, next_obs)",
        "greedy * _q_jax(online, next_obs)",
    ),
    Fault(
        "next value at the present observation",
        "greedy * _q_jax(target, next_obs)",
        "greedy * _q_jax(target, obs)",
    ),
    Fault(
        "bootstrap past the end",
        "jnp.where(terminated, rewards, rewards + discount * next_q)",
        "rewards + discount * next_q",
    ),
    Fault(
        "bootstrap at the end only",
        "jnp.where(terminated, rewards, rewards + discount * next_q)",
        "jnp.where(terminated, rewards + discount * next_q, rewards)",
    ),
    Fault(
        "squared error for Huber's", "optax.huber_loss(error, delta=delta)", "optax.l2_loss(error)"
    ),
    Fault(
        "no half in the squared error",
        "optax.huber_loss(error, delta=delta)",
        "jnp.square(error)",
        "E04",
    ),
    Fault("sum over the batch", "loss = jnp.mean(weights", "loss = jnp.sum(weights"),
    Fault(
        "advantages centred over the batch",
        "jnp.mean(advantage, axis=1, keepdims=True)",
        "jnp.mean(advantage, axis=0, keepdims=True)",
    ),
    Fault(
        "greatest advantage for their mean",
        "jnp.mean(advantage, axis=1, keepdims=True)",
        "jnp.max(advantage, axis=1, keepdims=True)",
    ),
    Fault(
        "square weight not transposed",
        'jnp.dot(hidden, net["w1"].T)',
        'jnp.dot(hidden, net["w1"])',
        "E09",
    ),
    Fault("heads without biases", "hidden, heads) + biases", "hidden, heads)"),
    Fault(
        "weights over their sum",
        "jnp.exp(log_weights - jnp.max(log_weights))",
        "jax.nn.softmax(log_weights)",
    ),
    Fault(
        "target not held fast",
        "error = jax.lax.stop_gradient(wanted) - taken",
        "error = wanted - taken",
        phase="backward",
    ),
)
