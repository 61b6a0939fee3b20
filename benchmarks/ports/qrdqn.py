"""Quantile-regression DQN: the quantile Huber loss between all pairs of quantiles.

Dabney et al. 2018, https://arxiv.org/abs/1710.10044, equations 9 and 10 and algorithm 1.

    u_ij = r + γ (1 − d) θ̄_j(s', a*) − θ_i(s, a),    τ̂_i = (2i + 1) / 2N
    ρ(u) = |τ̂ − 1{u < 0}| huber_κ(u) / κ,    L = E[Σ_i mean_j ρ_i(u_ij)]
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

NUM_QUANTILES = 11

Net = Mapping[str, Any]


def _quantiles_torch(net: Net, obs: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(F.linear(obs, net["w0"], net["b0"]))
    hidden = torch.tanh(F.linear(hidden, net["w1"], net["b1"]))
    return F.linear(hidden, net["w2"], net["b2"]).unflatten(1, (-1, NUM_QUANTILES))


def in_torch(
    *,
    online: Net,
    target: Net,
    obs: torch.Tensor,
    actions: torch.Tensor,
    rewards: torch.Tensor,
    next_obs: torch.Tensor,
    terminated: torch.Tensor,
    discount: float = 0.97,
    kappa: float = 0.7,
) -> dict[str, torch.Tensor]:
    """The loss, and the mean absolute error of each transition."""
    index = actions.view(-1, 1, 1).expand(-1, 1, NUM_QUANTILES)
    with torch.no_grad():
        following = _quantiles_torch(target, next_obs)
        greedy = following.mean(dim=2).argmax(dim=1).view(-1, 1, 1)
        following = following.gather(1, greedy.expand(-1, 1, NUM_QUANTILES)).squeeze(1)
        alive = 1 - terminated.to(obs.dtype)
        wanted = rewards[:, None] + alive[:, None] * discount * following

    current = _quantiles_torch(online, obs).gather(1, index).squeeze(1)
    tau = (torch.arange(NUM_QUANTILES, dtype=obs.dtype) + 0.5) / NUM_QUANTILES
    # Axes: transition, quantile of the prediction, quantile of the target.
    pairwise = wanted[:, None, :] - current[:, :, None]
    small = pairwise.abs().clamp(max=kappa)
    huber = 0.5 * small**2 + kappa * (pairwise.abs() - small)
    tilt = (tau[None, :, None] - (pairwise.detach() < 0).to(obs.dtype)).abs()
    loss = (tilt * huber / kappa).sum(dim=1).mean(dim=1).mean()
    return {"loss": loss, "errors": pairwise.abs().mean(dim=(1, 2)).detach()}


def _quantiles(net: Net, ob: jax.Array) -> jax.Array:
    """The quantiles of one observation, of shape (A, N)."""

    def layer(x: jax.Array, name: str) -> jax.Array:
        return net[f"w{name}"] @ x + net[f"b{name}"]

    hidden = jnp.tanh(layer(ob, "0"))
    hidden = jnp.tanh(layer(hidden, "1"))
    return jnp.reshape(layer(hidden, "2"), (-1, NUM_QUANTILES))


@jax.custom_jvp
def _huber(u: jax.Array, kappa: float) -> jax.Array:
    size = jnp.abs(u)
    return jnp.where(size <= kappa, 0.5 * size**2, kappa * (size - 0.5 * kappa))


@_huber.defjvp
def _huber_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """The slope is u itself, held within ±κ; κ is a constant."""
    u, kappa = primals
    return _huber(u, kappa), jnp.clip(u, -kappa, kappa) * tangents[0]


def _tilted(u: jax.Array, tau: jax.Array, kappa: float) -> jax.Array:
    """ρ(u) for one pair."""
    below = (u < 0).astype(tau.dtype)
    return jnp.abs(tau - below) * _huber(u, kappa) / kappa


def in_jax(
    *,
    online: Net,
    target: Net,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    discount: float = 0.97,
    kappa: float = 0.7,
) -> dict[str, jax.Array]:
    """The same: one pair of quantiles under two `vmap`s, under one over transitions."""
    tau = (2 * jnp.arange(NUM_QUANTILES, dtype=obs.dtype) + 1) / (2 * NUM_QUANTILES)
    over_targets = jax.vmap(_tilted, in_axes=(0, None, None))
    over_pairs = jax.vmap(over_targets, in_axes=(0, 0, None))

    def transition(
        ob: jax.Array, action: jax.Array, reward: jax.Array, next_ob: jax.Array, done: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        following = _quantiles(target, next_ob)
        best = jnp.argmax(jnp.mean(following, axis=-1))
        wanted = reward + discount * (1 - done) * following[best]
        wanted = jax.lax.stop_gradient(wanted)
        current = _quantiles(online, ob)[action]
        u = wanted[None, :] - current[:, None]
        losses = jnp.sum(over_pairs(u, tau, kappa), axis=0)
        return jnp.mean(losses), jnp.mean(jnp.abs(u))

    done = terminated.astype(obs.dtype)
    losses, errors = jax.vmap(transition)(obs, actions, rewards, next_obs, done)
    return {"loss": jnp.mean(losses), "errors": jax.lax.stop_gradient(errors)}


def in_jax_by_target(
    *,
    online: Net,
    target: Net,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    discount: float = 0.97,
    kappa: float = 0.7,
) -> dict[str, jax.Array]:
    """The same: a scan over the quantiles of the target adds up what each of them asks for."""

    def quantiles(net: Net, x: jax.Array) -> jax.Array:
        for layer in range(2):
            x = jnp.tanh(x @ net[f"w{layer}"].T + net[f"b{layer}"])
        return (x @ net["w2"].T + net["b2"]).reshape(x.shape[0], -1, NUM_QUANTILES)

    rows = jnp.arange(obs.shape[0])
    following = quantiles(target, next_obs)
    following = following[rows, following.sum(axis=2).argmax(axis=1)]
    rate = jnp.where(terminated, 0.0, discount)[:, None]
    wanted = jax.lax.stop_gradient(rewards[:, None] + rate * following)
    current = quantiles(online, obs)[rows, actions]
    tau = jnp.linspace(0, 1, 2 * NUM_QUANTILES + 1, dtype=obs.dtype)[1::2]

    def add(
        totals: tuple[jax.Array, jax.Array], column: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        u = column[:, None] - current
        weight = jnp.where(u < 0, 1 - tau, tau)
        loss = jnp.sum(weight * optax.huber_loss(u, delta=kappa), axis=1)
        return (totals[0] + loss, totals[1] + jnp.mean(jnp.abs(u), axis=1)), None

    start = (jnp.zeros_like(rewards), jnp.zeros_like(rewards))
    (losses, errors), _ = jax.lax.scan(add, start, wanted.T)
    loss = jnp.mean(losses) / (kappa * NUM_QUANTILES)
    return {"loss": loss, "errors": jax.lax.stop_gradient(errors) / NUM_QUANTILES}


def inputs() -> dict[str, Any]:
    """A batch of 24 with four actions, and two networks with two layers of 16."""
    rng = np.random.default_rng(13)
    num_obs, num_actions, batch, width = 6, 4, 24, 16

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network() -> dict[str, np.ndarray]:
        arrays = {}
        sizes = ((num_obs, width), (width, width), (width, num_actions * NUM_QUANTILES))
        for layer, (fan_in, fan_out) in enumerate(sizes):
            arrays[f"w{layer}"] = normal(fan_out, fan_in, scale=1.2 * fan_in**-0.5)
            arrays[f"b{layer}"] = normal(fan_out, scale=0.1)
        return arrays

    return {
        "online": network(),
        "target": network(),
        "obs": normal(batch, num_obs),
        "actions": rng.integers(num_actions, size=batch),
        "rewards": normal(batch),
        "next_obs": normal(batch, num_obs),
        "terminated": rng.random(batch) < 0.2,
    }


FAULTS = (
    Fault(
        "quantiles not at their midpoints",
        "(2 * jnp.arange(NUM_QUANTILES, dtype=obs.dtype) + 1) / (2 * NUM_QUANTILES)",
        "(jnp.arange(NUM_QUANTILES, dtype=obs.dtype) + 1) / NUM_QUANTILES",
    ),
    Fault("tilted the other way", "below = (u < 0)", "below = (u > 0)"),
    Fault("tilt without its size", "jnp.abs(tau - below) *", "(tau - below) *"),
    Fault("not divided by kappa", "_huber(u, kappa) / kappa", "_huber(u, kappa)"),
    Fault(
        "outer branch of another slope",
        "kappa * (size - 0.5 * kappa)",
        "size - 0.5 * kappa",
    ),
    Fault("no half in the inner branch", "0.5 * size**2", "size**2"),
    Fault(
        "pairs transposed",
        "wanted[None, :] - current[:, None]",
        "wanted[:, None] - current[None, :]",
    ),
    Fault(
        "quantile goes with the target",
        "jax.vmap(over_targets, in_axes=(0, 0, None))",
        "jax.vmap(over_targets, in_axes=(1, 0, None))",
    ),
    Fault(
        "greedy in the greatest quantile",
        "jnp.argmax(jnp.mean(following, axis=-1))",
        "jnp.argmax(jnp.max(following, axis=-1))",
    ),
    Fault(
        "next quantiles of the online network",
        "following = _quantiles(target, next_ob)",
        "following = _quantiles(online, next_ob)",
    ),
    Fault("summed over both", "return jnp.mean(losses), jnp", "return jnp.sum(losses), jnp"),
    Fault(
        "activation left out",
        'hidden = jnp.tanh(layer(hidden, "1"))',
        'hidden = layer(hidden, "1")',
    ),
    Fault(
        "slope of the inner branch everywhere",
        "jnp.clip(u, -kappa, kappa) * tangents[0]",
        "u * tangents[0]",
        phase="backward",
    ),
    Fault(
        "target not held fast",
        "wanted = jax.lax.stop_gradient(wanted)",
        "wanted = jnp.asarray(wanted)",
        phase="backward",
    ),
)
