"""Categorical DQN: the cross-entropy to a projected distribution over 21 atoms.

Bellemare et al. 2017, https://arxiv.org/abs/1707.06887, algorithm 1.

    Tz_j = clip(r + γ (1 − d) z_j, V_min, V_max)
    m_i = Σ_j clip(1 − |Tz_j − z_i| / Δz, 0, 1) p̄_j(s', a*),    L = −E[w Σ_i m_i log p_i(s, a)]
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

V_MIN, V_MAX, NUM_ATOMS = -5.0, 5.0, 21
DELTA_Z = (V_MAX - V_MIN) / (NUM_ATOMS - 1)

Net = Mapping[str, Any]


def _logits_torch(net: Net, obs: torch.Tensor) -> torch.Tensor:
    hidden = F.relu(F.linear(obs, net["w0"], net["b0"]))
    return F.linear(hidden, net["w1"], net["b1"]).view(obs.shape[0], -1, NUM_ATOMS)


def in_torch(
    *,
    online: Net,
    target: Net,
    obs: torch.Tensor,
    actions: torch.Tensor,
    rewards: torch.Tensor,
    next_obs: torch.Tensor,
    terminated: torch.Tensor,
    weights: torch.Tensor,
    discount: float = 0.95,
) -> dict[str, torch.Tensor]:
    """The loss, the projected distributions, and the priorities."""
    batch = torch.arange(obs.shape[0])
    support = torch.linspace(V_MIN, V_MAX, NUM_ATOMS, dtype=obs.dtype)
    with torch.no_grad():
        next_dist = _logits_torch(target, next_obs).softmax(dim=2)
        best = (next_dist * support).sum(dim=2).argmax(dim=1)
        next_dist = next_dist[batch, best]
        gamma = discount * (~terminated).to(obs.dtype).unsqueeze(1)
        tz = (rewards.unsqueeze(1) + gamma * support).clamp(V_MIN, V_MAX)
        b = (tz - V_MIN) / DELTA_Z
        lower, upper = b.floor().long(), b.ceil().long()
        # Where b is a whole number both are the same atom, which must get all of the mass.
        lower[(upper > 0) & (lower == upper)] -= 1
        upper[(lower < NUM_ATOMS - 1) & (lower == upper)] += 1
        projected = torch.zeros_like(next_dist)
        offset = (batch * NUM_ATOMS).unsqueeze(1)
        flat = projected.view(-1)
        flat.index_add_(0, (lower + offset).view(-1), (next_dist * (upper - b)).view(-1))
        flat.index_add_(0, (upper + offset).view(-1), (next_dist * (b - lower)).view(-1))

    log_dist = F.log_softmax(_logits_torch(online, obs)[batch, actions], dim=1)
    cross_entropy = -(projected * log_dist).sum(dim=1)
    return {
        "loss": (weights * cross_entropy).mean(),
        "projected": projected,
        "priorities": cross_entropy.detach(),
    }


def _logits(net: Net, ob: jax.Array) -> jax.Array:
    """The logits of one observation, of shape (A, N)."""
    hidden = jax.nn.relu(jnp.dot(net["w0"], ob) + net["b0"])
    return (jnp.dot(net["w1"], hidden) + net["b1"]).reshape(-1, NUM_ATOMS)


def _project(atoms: jax.Array, probs: jax.Array, support: jax.Array) -> jax.Array:
    """The mass of `probs` at `atoms` shared between neighbours in `support`."""
    atoms = jnp.clip(atoms, V_MIN, V_MAX)
    distance = jnp.abs(atoms[None, :] - support[:, None]) / DELTA_Z
    return jnp.clip(1 - distance, 0, 1) @ probs


@jax.custom_vjp
def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−Σ m log softmax(logits), whose gradient needs no logarithm."""
    return jax.nn.logsumexp(logits) - jnp.dot(labels, logits)


def _cross_entropy_fwd(
    logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _cross_entropy(logits, labels), (jax.nn.softmax(logits), labels)


def _cross_entropy_bwd(
    kept: tuple[jax.Array, jax.Array], slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    probs, labels = kept
    return slope * (probs - labels), jnp.zeros_like(labels)


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


def in_jax(
    *,
    online: Net,
    target: Net,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    weights: jax.Array,
    discount: float = 0.95,
) -> dict[str, jax.Array]:
    """The same: one transition under `vmap`, the projection as a product with a matrix of hats."""
    support = jnp.linspace(V_MIN, V_MAX, NUM_ATOMS, dtype=obs.dtype)

    def projected_target(reward: jax.Array, next_ob: jax.Array, done: jax.Array) -> jax.Array:
        dist = jax.nn.softmax(_logits(target, next_ob), axis=-1)
        best = jnp.argmax(dist @ support)
        moved = reward + discount * jnp.where(done, 0.0, support)
        return _project(moved, dist[best], support)

    def example(ob: jax.Array, action: jax.Array, labels: jax.Array) -> jax.Array:
        return _cross_entropy(_logits(online, ob)[action], labels)

    projected = jax.vmap(projected_target)(rewards, next_obs, terminated)
    projected = jax.lax.stop_gradient(projected)
    losses = jax.vmap(example)(obs, actions, projected)
    return {
        "loss": jnp.mean(weights * losses),
        "projected": projected,
        "priorities": jax.lax.stop_gradient(losses),
    }


def in_jax_scattered(
    *,
    online: Net,
    target: Net,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    weights: jax.Array,
    discount: float = 0.95,
) -> dict[str, jax.Array]:
    """The same: batched, each atom's mass scattered to its neighbours in a loop over atoms."""
    rows = jnp.arange(obs.shape[0])
    support = V_MIN + DELTA_Z * jnp.arange(NUM_ATOMS, dtype=obs.dtype)

    def logits(net: Net, x: jax.Array) -> jax.Array:
        hidden = jnp.maximum(x @ net["w0"].T + net["b0"], 0)
        return (hidden @ net["w1"].T + net["b1"]).reshape(x.shape[0], -1, NUM_ATOMS)

    after = jax.lax.stop_gradient(logits(target, next_obs))
    dist = jnp.exp(jax.nn.log_softmax(after, axis=-1))
    dist = dist[rows, jnp.einsum("ban,n->ba", dist, support).argmax(axis=-1)]
    gamma = discount * (1 - terminated.astype(obs.dtype))
    held_rewards = jax.lax.stop_gradient(rewards)

    def share_out(atom: int, mass: jax.Array) -> jax.Array:
        place = (held_rewards + gamma * support[atom] - V_MIN) / DELTA_Z
        place = jnp.clip(place, 0, NUM_ATOMS - 1)
        lower = jnp.minimum(jnp.floor(place).astype(int), NUM_ATOMS - 2)
        upper_share = place - lower
        mass = mass.at[rows, lower].add(dist[:, atom] * (1 - upper_share))
        return mass.at[rows, lower + 1].add(dist[:, atom] * upper_share)

    projected = jax.lax.fori_loop(0, NUM_ATOMS, share_out, jnp.zeros_like(dist))
    chosen = jnp.take_along_axis(logits(online, obs), actions[:, None, None], axis=1)[:, 0]
    losses = -jnp.sum(projected * jax.nn.log_softmax(chosen), axis=-1)
    priorities = jax.lax.stop_gradient(losses)
    loss = jnp.dot(weights, losses) / obs.shape[0]
    return {"loss": loss, "projected": projected, "priorities": priorities}


def inputs() -> dict[str, Any]:
    """A batch of 32 with three actions, and two networks with one layer of 20."""
    rng = np.random.default_rng(12)
    num_obs, num_actions, batch, width = 5, 3, 32, 20

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network() -> dict[str, np.ndarray]:
        return {
            "w0": normal(width, num_obs, scale=1.4 * num_obs**-0.5),
            "b0": normal(width, scale=0.1),
            "w1": normal(num_actions * NUM_ATOMS, width, scale=1.4 * width**-0.5),
            "b1": normal(num_actions * NUM_ATOMS, scale=0.1),
        }

    return {
        "online": network(),
        "target": network(),
        "obs": normal(batch, num_obs),
        "actions": rng.integers(num_actions, size=batch),
        "rewards": normal(batch, scale=1.5),
        "next_obs": normal(batch, num_obs),
        "terminated": rng.random(batch) < 0.2,
        "weights": rng.uniform(0.2, 1.0, size=batch).astype(np.float32),
    }


FAULTS = (
    Fault(
        "atoms not clipped", "atoms = jnp.clip(atoms, V_MIN, V_MAX)", "atoms = jnp.asarray(atoms)"
    ),
    Fault(
        "distance not in steps of the support",
        "jnp.abs(atoms[None, :] - support[:, None]) / DELTA_Z",
        "jnp.abs(atoms[None, :] - support[:, None])",
    ),
    Fault(
        "projection transposed",
        "atoms[None, :] - support[:, None]",
        "atoms[:, None] - support[None, :]",
    ),
    Fault(
        "support short of its end",
        "NUM_ATOMS, dtype=obs.dtype)\n\n    def projected_target",
        "NUM_ATOMS, endpoint=False, dtype=obs.dtype)\n\n    def projected_target",
    ),
    Fault(
        "logits laid out atoms first",
        'net["b1"]).reshape(-1, NUM_ATOMS)',
        'net["b1"]).reshape(NUM_ATOMS, -1).T',
    ),
    Fault(
        "softmax over actions",
        "jax.nn.softmax(_logits(target, next_ob), axis=-1)",
        "jax.nn.softmax(_logits(target, next_ob), axis=0)",
    ),
    Fault(
        "greedy in the likeliest atom",
        "jnp.argmax(dist @ support)",
        "jnp.argmax(jnp.max(dist, axis=-1))",
    ),
    Fault(
        "next distribution of the online network",
        "_logits(target, next_ob)",
        "_logits(online, next_ob)",
    ),
    Fault(
        "reward discounted",
        "reward + discount * jnp.where(done, 0.0, support)",
        "discount * (reward + jnp.where(done, 0.0, support))",
    ),
    Fault(
        "bootstrap past the end",
        "jnp.where(done, 0.0, support)",
        "support",
    ),
    Fault(
        "distribution averaged over actions",
        "_project(moved, dist[best], support)",
        "_project(moved, dist.mean(axis=0), support)",
    ),
    Fault(
        "weights over their sum",
        "jnp.mean(weights * losses)",
        "jnp.average(losses, weights=weights)",
    ),
    Fault(
        "slope's sign",
        "slope * (probs - labels)",
        "slope * (labels - probs)",
        phase="backward",
    ),
    Fault(
        "slope from above dropped",
        "return slope * (probs - labels),",
        "return probs - labels,",
        phase="backward",
    ),
)
