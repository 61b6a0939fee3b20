"""Conservative Q-learning: the critics' loss with sampled actions, and its multiplier's.

Kumar et al. 2020, https://arxiv.org/abs/2006.04779, equation 4 and appendix F; actions are uniform,
of the policy at the next observation, and of the policy at the present one.

    gap_i = τ log Σ_a exp((Q_i(s, a) − log q(a)) / τ) − Q_i(s, a_data)
    L = Σ_i E[(Q_i(s, a) − y)²] + α Σ_i (E[gap_i] · c − δ),    L_α = −½ α Σ_i (E[gap_i] · c − δ)
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.distributions import Normal
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

Net = Mapping[str, Any]


def _mlp_torch(net: Net, x: torch.Tensor) -> torch.Tensor:
    return F.linear(F.silu(F.linear(x, net["w0"], net["b0"])), net["w1"], net["b1"])


def _sample_torch(
    actor: Net, obs: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Actions in (−1, 1) and their log-densities, for several draws of noise per observation."""
    mean, log_std = _mlp_torch(actor, obs).unsqueeze(1).chunk(2, dim=-1)
    std = log_std.clamp(-3.0, 1.0).exp()
    before = mean + std * noise
    log_prob = Normal(mean, std).log_prob(before)
    log_prob = log_prob - 2 * (math.log(2) - before - F.softplus(-2 * before))
    return before.tanh(), log_prob.sum(dim=-1)


def _q_torch(net: Net, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Values of (B, N, A) actions, of shape (B, N)."""
    repeated = obs.unsqueeze(1).expand(-1, actions.shape[1], -1)
    return _mlp_torch(net, torch.cat([repeated, actions], dim=-1)).squeeze(-1)


def in_torch(
    *,
    actor: Net,
    critics: Mapping[str, Net],
    critics_target: Mapping[str, Net],
    log_alpha: torch.Tensor,
    obs: torch.Tensor,
    actions: torch.Tensor,
    rewards: torch.Tensor,
    next_obs: torch.Tensor,
    terminated: torch.Tensor,
    random_actions: torch.Tensor,
    noise: torch.Tensor,
    next_noise: torch.Tensor,
    discount: float = 0.99,
    temperature: float = 0.8,
    min_q_weight: float = 2.5,
    threshold: float = 1.5,
) -> dict[str, torch.Tensor]:
    """Both losses, and the mean gap of each critic."""
    num_actions = actions.shape[-1]
    with torch.no_grad():
        new_actions, log_probs = _sample_torch(actor, obs, noise)
        next_actions, next_log_probs = _sample_torch(actor, next_obs, next_noise)
        bootstrap = torch.min(
            _q_torch(critics_target["q1"], next_obs, next_actions[:, :1]),
            _q_torch(critics_target["q2"], next_obs, next_actions[:, :1]),
        ).squeeze(1)
        target = rewards + discount * (~terminated).to(rewards.dtype) * bootstrap

    td_loss = torch.zeros((), dtype=obs.dtype)
    gaps = []
    log_uniform = num_actions * math.log(0.5)
    for net in critics.values():
        taken = _q_torch(net, obs, actions.unsqueeze(1)).squeeze(1)
        td_loss = td_loss + F.mse_loss(taken, target)
        sampled = torch.cat(
            [
                _q_torch(net, obs, random_actions.detach()) - log_uniform,
                _q_torch(net, obs, next_actions) - next_log_probs,
                _q_torch(net, obs, new_actions) - log_probs,
            ],
            dim=1,
        )
        soft = temperature * torch.logsumexp(sampled / temperature, dim=1)
        gaps.append((soft - taken).mean())

    gap = torch.stack(gaps)
    surplus = min_q_weight * gap - threshold
    alpha = log_alpha.exp().clamp(max=1e4)
    return {
        "critic_loss": td_loss + (alpha.detach() * surplus).sum(),
        "alpha_loss": -0.5 * (alpha * surplus.detach()).sum(),
        "gap": gap.detach(),
    }


def _mlp(net: Net, x: jax.Array) -> jax.Array:
    return net["w1"] @ jax.nn.silu(net["w0"] @ x + net["b0"]) + net["b1"]


def _q(net: Net, ob: jax.Array, action: jax.Array) -> jax.Array:
    return _mlp(net, jnp.concatenate([ob, action]))[0]


_qs = jax.vmap(_q, in_axes=(None, None, 0))
"""Values of several actions at one observation."""


def _sample(actor: Net, ob: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One action and its log-density."""
    mean, log_std = jnp.split(_mlp(actor, ob), 2)
    log_std = jnp.clip(log_std, -3.0, 1.0)
    before = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - before - jax.nn.softplus(-2 * before))
    return jnp.tanh(before), jnp.sum(log_normal - log_slope)


_samples = jax.vmap(_sample, in_axes=(None, None, 0))


def _stack(pair: Mapping[str, Net]) -> Any:
    """Both critics as one, whose arrays have a first axis of two."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(dict(each) for each in pair.values()))


def in_jax(
    *,
    actor: Net,
    critics: Mapping[str, Net],
    critics_target: Mapping[str, Net],
    log_alpha: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    random_actions: jax.Array,
    noise: jax.Array,
    next_noise: jax.Array,
    discount: float = 0.99,
    temperature: float = 0.8,
    min_q_weight: float = 2.5,
    threshold: float = 1.5,
) -> dict[str, jax.Array]:
    """The same: one critic at one transition, under `vmap` over both."""
    log_uniform = -actions.shape[-1] * math.log(2.0)

    def bootstrap(ob: jax.Array, action: jax.Array) -> jax.Array:
        values = jax.vmap(_q, in_axes=(0, None, None))(_stack(critics_target), ob, action)
        return jnp.min(values)

    def prepare(row: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """What is data to the critics."""
        new, log_probs = _samples(actor, row["obs"], row["noise"])
        following, next_log_probs = _samples(actor, row["next_obs"], row["next_noise"])
        future = bootstrap(row["next_obs"], following[0])
        target = row["reward"] + discount * jnp.where(row["done"], 0.0, future)
        proposals = jnp.concatenate([row["random"], following, new])
        uniform = jnp.full(row["random"].shape[0], log_uniform, proposals.dtype)
        densities = jnp.concatenate([uniform, next_log_probs, log_probs])
        return {"target": target, "proposals": proposals, "densities": densities}

    def critic(
        net: Net, ob: jax.Array, action: jax.Array, data: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        taken = _q(net, ob, action)
        sampled = _qs(net, ob, data["proposals"]) - data["densities"]
        soft = temperature * jax.nn.logsumexp(sampled / temperature)
        return (taken - data["target"]) ** 2, soft - taken

    rows = {
        "obs": obs,
        "next_obs": next_obs,
        "noise": noise,
        "next_noise": next_noise,
        "random": random_actions,
        "reward": rewards,
        "done": terminated,
    }
    data = jax.lax.stop_gradient(jax.vmap(prepare)(rows))
    over_batch = jax.vmap(critic, in_axes=(None, 0, 0, 0))
    over_critics = jax.vmap(over_batch, in_axes=(0, None, None, None))
    errors, gaps = over_critics(_stack(critics), obs, actions, data)
    gap = jnp.mean(gaps, axis=1)
    surplus = min_q_weight * gap - threshold
    alpha = jnp.minimum(jnp.exp(log_alpha), 1e4)
    conservative = jax.lax.stop_gradient(alpha) * jnp.sum(surplus)
    return {
        "critic_loss": jnp.sum(jnp.mean(errors, axis=1)) + conservative,
        "alpha_loss": -alpha * jnp.mean(jax.lax.stop_gradient(surplus)),
        "gap": jax.lax.stop_gradient(gap),
    }


def in_jax_streaming(
    *,
    actor: Net,
    critics: Mapping[str, Net],
    critics_target: Mapping[str, Net],
    log_alpha: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_obs: jax.Array,
    terminated: jax.Array,
    random_actions: jax.Array,
    noise: jax.Array,
    next_noise: jax.Array,
    discount: float = 0.99,
    temperature: float = 0.8,
    min_q_weight: float = 2.5,
    threshold: float = 1.5,
) -> dict[str, jax.Array]:
    """The same: whole batches, and a scan over sampled actions that keeps a running log-sum."""

    def mlp(net: Net, x: jax.Array) -> jax.Array:
        hidden = x @ net["w0"].T + net["b0"]
        return (hidden * jax.nn.sigmoid(hidden)) @ net["w1"].T + net["b1"]

    def value(net: Net, ob: jax.Array, action: jax.Array) -> jax.Array:
        return mlp(net, jnp.concatenate([ob, action], axis=-1)).squeeze(-1)

    def sample(ob: jax.Array, draws: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_std = jnp.split(mlp(actor, ob)[:, None, :], 2, axis=-1)
        std = jnp.exp(jnp.clip(log_std, -3, 1))
        action = jnp.tanh(mean + std * draws)
        density = jax.scipy.stats.norm.logpdf(draws) - jnp.log(std) - jnp.log1p(-(action**2))
        return action, density.sum(axis=-1)

    new, log_probs = jax.lax.stop_gradient(sample(obs, noise))
    following, next_log_probs = jax.lax.stop_gradient(sample(next_obs, next_noise))
    futures = [value(net, next_obs, following[:, 0]) for net in critics_target.values()]
    alive = 1 - terminated.astype(obs.dtype)
    target = jax.lax.stop_gradient(rewards + discount * alive * jnp.minimum(*futures))

    proposals = jax.lax.stop_gradient(jnp.concatenate([new, random_actions, following], axis=1))
    uniform = jnp.full(random_actions.shape[:2], actions.shape[-1] * math.log(0.5), obs.dtype)
    densities = jnp.concatenate([log_probs, uniform, next_log_probs], axis=1)
    td_loss, gaps = jnp.zeros((), obs.dtype), []
    for net in critics.values():

        def accumulate(
            total: jax.Array, now: tuple[jax.Array, jax.Array], net: Net = net
        ) -> tuple[jax.Array, None]:
            score = (value(net, obs, now[0]) - now[1]) / temperature
            return jnp.logaddexp(total, score), None

        first = (value(net, obs, proposals[:, 0]) - densities[:, 0]) / temperature
        rest = (jnp.moveaxis(proposals[:, 1:], 1, 0), densities[:, 1:].T)
        total, _ = jax.lax.scan(accumulate, first, rest)
        taken = value(net, obs, actions)
        td_loss += jnp.mean(jnp.square(taken - target))
        gaps.append(jnp.mean(temperature * total) - jnp.mean(taken))
    gap = jnp.stack(gaps)
    surplus = min_q_weight * gap - threshold
    alpha = jnp.exp(log_alpha)
    return {
        "critic_loss": td_loss + jnp.dot(jnp.full(2, jax.lax.stop_gradient(alpha)), surplus),
        "alpha_loss": -jnp.sum(alpha * jax.lax.stop_gradient(surplus)) / 2,
        "gap": jax.lax.stop_gradient(gap),
    }


def inputs() -> dict[str, Any]:
    """A batch of 16, and five sampled actions of each sort."""
    rng = np.random.default_rng(18)
    num_obs, num_actions, batch, num_samples, width = 5, 2, 16, 5, 14

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def network(num_inputs: int, num_outputs: int) -> dict[str, np.ndarray]:
        return {
            "w0": normal(width, num_inputs, scale=1.3 * num_inputs**-0.5),
            "b0": normal(width, scale=0.1),
            "w1": normal(num_outputs, width, scale=1.3 * width**-0.5),
            "b1": normal(num_outputs, scale=0.1),
        }

    uniform = rng.uniform(-1, 1, size=(batch, num_samples, num_actions))
    return {
        "actor": network(num_obs, 2 * num_actions),
        "critics": {name: network(num_obs + num_actions, 1) for name in ("q1", "q2")},
        "critics_target": {name: network(num_obs + num_actions, 1) for name in ("q1", "q2")},
        "log_alpha": np.array(0.3, np.float32),
        "obs": normal(batch, num_obs),
        "actions": np.tanh(normal(batch, num_actions)),
        "rewards": normal(batch),
        "next_obs": normal(batch, num_obs),
        "terminated": rng.random(batch) < 0.2,
        "random_actions": uniform.astype(np.float32),
        "noise": normal(batch, num_samples, num_actions),
        "next_noise": normal(batch, num_samples, num_actions),
    }


FAULTS = (
    Fault(
        "density of the uniform actions inverted",
        "-actions.shape[-1] * math.log(2.0)",
        "actions.shape[-1] * math.log(2.0)",
    ),
    Fault("uniform over one dimension", "-actions.shape[-1] * math.log(2.0)", "-math.log(2.0)"),
    Fault(
        "sampled values not weighted",
        '_qs(net, ob, data["proposals"]) - data["densities"]',
        '_qs(net, ob, data["proposals"])',
    ),
    Fault(
        "densities in another order",
        "jnp.concatenate([uniform, next_log_probs, log_probs])",
        "jnp.concatenate([uniform, log_probs, next_log_probs])",
    ),
    Fault(
        "next actions of the present observation",
        '_samples(actor, row["next_obs"], row["next_noise"])',
        '_samples(actor, row["obs"], row["next_noise"])',
    ),
    Fault(
        "noise used twice", 'row["next_obs"], row["next_noise"])', 'row["next_obs"], row["noise"])'
    ),
    Fault(
        "temperature inside only",
        "temperature * jax.nn.logsumexp(sampled / temperature)",
        "jax.nn.logsumexp(sampled / temperature)",
    ),
    Fault(
        "mean log-sum",
        "temperature * jax.nn.logsumexp(sampled / temperature)",
        "temperature * (jax.nn.logsumexp(sampled / temperature) - math.log(sampled.size))",
    ),
    Fault("data's value left out of the gap", "** 2, soft - taken", "** 2, soft"),
    Fault("tanh's slope left out", "jnp.sum(log_normal - log_slope)", "jnp.sum(log_normal)"),
    Fault("greatest of the target critics", "return jnp.min(values)", "return jnp.max(values)"),
    Fault(
        "weight on the threshold too",
        "min_q_weight * gap - threshold\n    alpha = jnp.minimum",
        "min_q_weight * (gap - threshold)\n    alpha = jnp.minimum",
    ),
    Fault(
        "policy moved by the critics' loss",
        "data = jax.lax.stop_gradient(jax.vmap(prepare)(rows))",
        "data = jax.vmap(prepare)(rows)",
        phase="backward",
    ),
    Fault(
        "multiplier moved by the critics' loss",
        "conservative = jax.lax.stop_gradient(alpha) * jnp.sum(surplus)",
        "conservative = alpha * jnp.sum(surplus)",
        phase="backward",
    ),
)
