"""V-trace: IMPALA's targets and loss for a rollout of an older policy.

Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, equation 1, remark 1 and section 4.2; the
loss is summed, as there.

    ρ_t = min(ρ̄, π(a_t|s_t) / μ(a_t|s_t)),    c_t = λ min(c̄, π/μ)
    δ_t = ρ_t (r_t + γ_t V_{t+1} − V_t)
    v_t = V_t + δ_t + γ_t c_t (v_{t+1} − V_{t+1})
    L = −Σ ρ_t log π(a_t|s_t) (r_t + γ_t v_{t+1} − V_t) + c₁ Σ (v_t − V_t)² / 2 − c₂ Σ H
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

Params = Mapping[str, Any]


@torch.no_grad()
def _targets_torch(
    log_rhos: torch.Tensor,
    discounts: torch.Tensor,
    rewards: torch.Tensor,
    values: torch.Tensor,
    bootstrap: torch.Tensor,
    clip_rho: float,
    clip_c: float,
    trace_decay: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """v_t, and what log π is multiplied by."""
    rhos = log_rhos.exp()
    clipped = rhos.clamp(max=clip_rho)
    traces = trace_decay * rhos.clamp(max=clip_c)
    next_values = torch.cat([values[1:], bootstrap.unsqueeze(0)])
    deltas = clipped * (rewards + discounts * next_values - values)

    excess = torch.zeros_like(bootstrap)
    reversed_targets = []
    for t in range(rewards.shape[0] - 1, -1, -1):
        excess = deltas[t] + discounts[t] * traces[t] * excess
        reversed_targets.append(excess + values[t])
    targets = torch.stack(reversed_targets[::-1])
    next_targets = torch.cat([targets[1:], bootstrap.unsqueeze(0)])
    return targets, clipped * (rewards + discounts * next_targets - values)


def in_torch(
    *,
    params: Params,
    obs: torch.Tensor,
    actions: torch.Tensor,
    behaviour_logits: torch.Tensor,
    rewards: torch.Tensor,
    terminated: torch.Tensor,
    discount: float = 0.99,
    trace_decay: float = 0.95,
    clip_rho: float = 1.2,
    clip_c: float = 1.0,
    baseline_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, torch.Tensor]:
    """The loss, its parts and the targets; `obs` has one row more, for the bootstrap."""
    hidden = F.relu(F.linear(obs, params["w0"], params["b0"]))
    logits = F.linear(hidden, params["w_policy"], params["b_policy"])[:-1]
    estimates = F.linear(hidden, params["w_value"], params["b_value"]).squeeze(-1)
    values, bootstrap = estimates[:-1], estimates[-1]

    taken = F.nll_loss(F.log_softmax(logits, -1).flatten(0, 1), actions.flatten(), reduction="none")
    log_probs = -taken.view_as(rewards)
    behaviour = torch.log_softmax(behaviour_logits, dim=-1)
    behaviour_log_probs = behaviour.gather(-1, actions[..., None]).squeeze(-1)

    targets, advantages = _targets_torch(
        log_probs - behaviour_log_probs,
        discount * (1 - terminated.to(rewards.dtype)),
        rewards,
        values,
        bootstrap,
        clip_rho,
        clip_c,
        trace_decay,
    )
    policy_loss = -(log_probs * advantages).sum()
    baseline_loss = 0.5 * (targets - values).square().sum()
    entropy = -(F.softmax(logits, dim=-1) * F.log_softmax(logits, dim=-1)).sum()
    return {
        "loss": policy_loss + baseline_coef * baseline_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "baseline_loss": baseline_loss,
        "entropy": entropy,
        "targets": targets,
    }


def _network_jax(params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits and values of every step."""
    hidden = jax.nn.relu(jnp.tensordot(obs, params["w0"], axes=(-1, 1)) + params["b0"])
    logits = hidden @ params["w_policy"].T + params["b_policy"]
    return logits, jnp.squeeze(hidden @ params["w_value"].T, axis=-1) + params["b_value"]


def _log_prob_jax(logits: jax.Array, actions: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(logits, actions[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _targets_jax(
    ratio: jax.Array,
    discounts: jax.Array,
    rewards: jax.Array,
    values: jax.Array,
    bootstrap: jax.Array,
    clip_rho: float,
    clip_c: float,
    trace_decay: float,
) -> tuple[jax.Array, jax.Array]:
    """v_t, and what log π is multiplied by, from a scan that carries v and V of the next step."""

    def step(
        later: tuple[jax.Array, jax.Array], now: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        next_target, next_value = later
        ratio, discount, reward, value = now
        rho = jnp.minimum(clip_rho, ratio)
        trace = jnp.minimum(clip_c, ratio) * trace_decay
        error = reward + discount * next_value - value
        target = value + rho * error + discount * trace * (next_target - next_value)
        advantage = rho * (reward + discount * next_target - value)
        return (target, value), (target, advantage)

    steps = (ratio, discounts, rewards, values)
    _, (targets, advantages) = jax.lax.scan(step, (bootstrap, bootstrap), steps, reverse=True)
    return targets, advantages


def in_jax(
    *,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    behaviour_logits: jax.Array,
    rewards: jax.Array,
    terminated: jax.Array,
    discount: float = 0.99,
    trace_decay: float = 0.95,
    clip_rho: float = 1.2,
    clip_c: float = 1.0,
    baseline_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, jax.Array]:
    """The same, targets from one scan."""
    all_logits, all_values = _network_jax(params, obs)
    logits = all_logits[:-1]
    values, bootstrap = all_values[:-1], all_values[-1]
    log_probs = _log_prob_jax(logits, actions)
    ratio = jnp.exp(log_probs - _log_prob_jax(behaviour_logits, actions))
    discounts = jnp.where(terminated, 0.0, discount)

    thresholds = (clip_rho, clip_c, trace_decay)
    made = _targets_jax(ratio, discounts, rewards, values, bootstrap, *thresholds)
    targets, advantages = jax.lax.stop_gradient(made)

    policy_loss = -jnp.vdot(advantages, log_probs)
    baseline_loss = jnp.sum(optax.l2_loss(values, targets))
    entropy = jnp.sum(optax.softmax_cross_entropy(logits, jax.nn.softmax(logits)))
    return {
        "loss": policy_loss + baseline_coef * baseline_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "baseline_loss": baseline_loss,
        "entropy": entropy,
        "targets": targets,
    }


def in_jax_associative(
    *,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    behaviour_logits: jax.Array,
    rewards: jax.Array,
    terminated: jax.Array,
    discount: float = 0.99,
    trace_decay: float = 0.95,
    clip_rho: float = 1.2,
    clip_c: float = 1.0,
    baseline_coef: float = 0.5,
    entropy_coef: float = 0.01,
) -> dict[str, jax.Array]:
    """The same: v − V from composed affine maps, one-hot actions, the policy by `vmap`."""
    logits, all_values = jax.vmap(_network_jax, in_axes=(None, 0))(params, obs)
    log_policy = jax.nn.log_softmax(logits[:-1])
    chosen = jax.nn.one_hot(actions, logits.shape[-1], dtype=logits.dtype)
    log_probs = jnp.einsum("tba,tba->tb", log_policy, chosen)
    log_behaviour = jnp.sum(jax.nn.log_softmax(behaviour_logits) * chosen, axis=-1)
    entropy = -jnp.vdot(jnp.exp(log_policy), log_policy)

    held = jax.lax.stop_gradient(all_values)
    ratio = jnp.exp(jax.lax.stop_gradient(log_probs) - log_behaviour)
    alive = discount * (1 - terminated.astype(rewards.dtype))
    rho, trace = jnp.clip(ratio, max=clip_rho), trace_decay * jnp.clip(ratio, max=clip_c)
    deltas = rho * (rewards + alive * held[1:] - held[:-1])

    def compose(
        later: tuple[jax.Array, jax.Array], sooner: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return later[0] * sooner[0], sooner[0] * later[1] + sooner[1]

    _, excess = jax.lax.associative_scan(compose, (alive * trace, deltas), reverse=True)
    targets = jax.lax.stop_gradient(excess + held[:-1])
    next_targets = jnp.vstack([targets[1:], held[-1]])
    advantages = jax.lax.stop_gradient(rho * (rewards + alive * next_targets - held[:-1]))

    policy_loss = -jnp.sum(advantages * log_probs)
    baseline_loss = jnp.sum((all_values[:-1] - targets) ** 2) / 2
    return {
        "loss": policy_loss + baseline_coef * baseline_loss - entropy_coef * entropy,
        "policy_loss": policy_loss,
        "baseline_loss": baseline_loss,
        "entropy": entropy,
        "targets": targets,
    }


def inputs() -> dict[str, Any]:
    """16 steps of 8 environments, and a network with one layer of 32."""
    rng = np.random.default_rng(8)
    num_steps, num_envs, num_obs, num_actions, width = 16, 8, 6, 4, 32

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    return {
        "params/w0": normal(width, num_obs, scale=1.4 * num_obs**-0.5),
        "params/b0": normal(width, scale=0.1),
        "params/w_policy": normal(num_actions, width, scale=width**-0.5),
        "params/b_policy": normal(num_actions, scale=0.1),
        "params/w_value": normal(1, width, scale=width**-0.5),
        "params/b_value": normal(1, scale=0.1),
        "obs": normal(num_steps + 1, num_envs, num_obs),
        "actions": rng.integers(num_actions, size=(num_steps, num_envs)),
        "behaviour_logits": normal(num_steps, num_envs, num_actions, scale=0.7),
        "rewards": normal(num_steps, num_envs),
        "terminated": rng.random((num_steps, num_envs)) < 0.1,
    }


FAULTS = (
    Fault(
        "ratio upside down",
        "jnp.exp(log_probs - _log_prob_jax(behaviour_logits, actions))",
        "jnp.exp(_log_prob_jax(behaviour_logits, actions) - log_probs)",
    ),
    Fault("ratio left as its logarithm", "ratio = jnp.exp(log_probs -", "ratio = (log_probs -"),
    Fault("logits not normalised", "chosen - jax.nn.logsumexp(logits, axis=-1)", "chosen"),
    Fault("greatest in place of least", "rho = jnp.minimum(clip_rho", "rho = jnp.maximum(clip_rho"),
    Fault(
        "traces by the other threshold",
        "jnp.minimum(clip_c, ratio)",
        "jnp.minimum(clip_rho, ratio)",
    ),
    Fault(
        "thresholds swapped", "thresholds = (clip_rho, clip_c,", "thresholds = (clip_c, clip_rho,"
    ),
    Fault("traces do not decay", "ratio) * trace_decay", "ratio)"),
    Fault("error without its weight", "value + rho * error +", "value + error +"),
    Fault(
        "the value not taken from the next target",
        "trace * (next_target - next_value)",
        "trace * next_target",
    ),
    Fault(
        "advantage from the next value",
        "advantage = rho * (reward + discount * next_target",
        "advantage = rho * (reward + discount * next_value",
    ),
    Fault("target carried as value", "return (target, value), (", "return (target, target), ("),
    Fault(
        "values one step late",
        "values, bootstrap = all_values[:-1]",
        "values, bootstrap = all_values[1:]",
    ),
    Fault(
        "ends one step late",
        "jnp.where(terminated, 0.0",
        "jnp.where(jnp.roll(terminated, 1, 0), 0.0",
    ),
    Fault("forward in time", "steps, reverse=True)", "steps)"),
    Fault("mean of the baseline's errors", "jnp.sum(optax.l2_loss", "jnp.mean(optax.l2_loss"),
    Fault("activation left out", "jax.nn.relu(jnp.tensordot", "(jnp.tensordot"),
    Fault(
        "targets and advantages move the network",
        "targets, advantages = jax.lax.stop_gradient(made)",
        "targets, advantages = made",
        phase="backward",
    ),
    Fault(
        "advantages move the network",
        "targets, advantages = jax.lax.stop_gradient(made)",
        "targets, advantages = jax.lax.stop_gradient(made[0]), made[1]",
        phase="backward",
    ),
)
