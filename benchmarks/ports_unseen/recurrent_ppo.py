"""Recurrent PPO: an LSTM replayed over a rollout, advantages by GAE, and the masked clipped loss.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347, with the LSTM and the bookkeeping of
CleanRL's ppo_atari_lstm.py, https://github.com/vwxyzjn/cleanrl, and the mask for padded sequences
of sb3-contrib's RecurrentPPO, https://github.com/Stable-Baselines-Team/stable-baselines3-contrib.

    δ_t = r_t + γ (1 − d_{t+1}) V_{t+1} − V_t,    A_t = δ_t + γ λ (1 − d_{t+1}) A_{t+1}
    L = E[max(−ρ A, −clip(ρ, 1 ± ε) A)] + c₁ ½ E[max((v − R)², (v_clip − R)²)] − c₂ H

`dones[t]` says that `obs[t]` is an episode's first: the state is zero before it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.distributions import Categorical
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

GAMMA, LAMBDA, CLIP, ENTROPY_COEF, VALUE_COEF = 0.97, 0.9, 0.2, 0.02, 0.5

Arrays = Mapping[str, Any]


def _gae_torch(rollout: Arrays) -> torch.Tensor:
    running = (~rollout["dones"]).to(rollout["rewards"].dtype)
    advantages = torch.zeros_like(rollout["rewards"])
    last = torch.zeros_like(rollout["next_value"])
    for t in reversed(range(len(running))):
        if t == len(running) - 1:
            alive, next_values = 1 - rollout["next_done"].to(last.dtype), rollout["next_value"]
        else:
            alive, next_values = running[t + 1], rollout["values"][t + 1]
        delta = rollout["rewards"][t] + GAMMA * next_values * alive - rollout["values"][t]
        advantages[t] = last = delta + GAMMA * LAMBDA * alive * last
    return advantages


def in_torch(*, params: Arrays, rollout: Arrays) -> dict[str, torch.Tensor]:
    """The loss, its parts, the advantages before they are normalised, and the last state."""
    mask, h, c = (rollout[name] for name in ("mask", "h0", "c0"))
    with torch.no_grad():
        advantages = _gae_torch(rollout)
        returns = advantages + rollout["values"]
        seen = advantages[mask]
        normalised = (advantages - seen.mean()) / (seen.std() + 1e-8)

    encoded = torch.tanh(F.linear(rollout["obs"], params["w_enc"], params["b_enc"]))
    weights = (params["w_ih"], params["w_hh"], params["b_ih"], params["b_hh"])
    hiddens = []
    for x, done in zip(encoded, rollout["dones"], strict=True):
        keep = (~done).to(x.dtype).unsqueeze(1)
        h, c = torch.lstm_cell(x, (keep * h, keep * c), *weights)
        hiddens.append(h)
    hidden = torch.stack(hiddens)

    policy = Categorical(logits=F.linear(hidden, params["w_pi"], params["b_pi"]))
    values = F.linear(hidden, params["w_v"], params["b_v"]).squeeze(-1)
    ratio = (policy.log_prob(rollout["actions"]) - rollout["log_probs"]).exp()
    clipped_ratio = ratio.clamp(1 - CLIP, 1 + CLIP)
    policy_loss = torch.max(-normalised * ratio, -normalised * clipped_ratio)[mask].mean()
    near = rollout["values"] + (values - rollout["values"]).clamp(-CLIP, CLIP)
    value_loss = 0.5 * torch.max((values - returns) ** 2, (near - returns) ** 2)[mask].mean()
    entropy = policy.entropy()[mask].mean()
    loss = policy_loss - ENTROPY_COEF * entropy + VALUE_COEF * value_loss
    parts = {"policy_loss": policy_loss, "value_loss": value_loss}
    return {"loss": loss, **parts, "advantages": advantages, "h": h}


class LSTMState(NamedTuple):
    """What the LSTM remembers of each environment."""

    h: jax.Array
    c: jax.Array


def _gae(rewards: jax.Array, values: jax.Array, running: jax.Array) -> jax.Array:
    """The advantages; `values` has one row more, of the observation after the rollout."""
    deltas = rewards + GAMMA * running * values[1:] - values[:-1]

    def backwards(advantage: jax.Array, step: Any) -> tuple[jax.Array, jax.Array]:
        delta, alive = step
        advantage = delta + GAMMA * LAMBDA * alive * advantage
        return advantage, advantage

    return jax.lax.scan(backwards, jnp.zeros_like(deltas[0]), (deltas, running), reverse=True)[1]


def _lstm_step(params: Arrays, state: LSTMState, x: jax.Array) -> LSTMState:
    size = state.h.shape[-1]
    w_x, w_h = (params[name].reshape(4, size, -1) for name in ("w_ih", "w_hh"))
    bias = (params["b_ih"] + params["b_hh"]).reshape(4, 1, size)
    gates = jnp.einsum("bi,gki->gbk", x, w_x) + jnp.einsum("bj,gkj->gbk", state.h, w_h) + bias
    i, f, o = jax.nn.sigmoid(gates[jnp.array([0, 1, 3])])
    c = f * state.c + i * jnp.tanh(gates[2])
    return LSTMState(o * jnp.tanh(c), c)


def _replay(params: Arrays, state: LSTMState, encoded: jax.Array, dones: jax.Array) -> Any:
    def step(state: LSTMState, now: tuple[jax.Array, jax.Array]) -> tuple[LSTMState, jax.Array]:
        x, done = now
        state = jax.tree.map(lambda s: jnp.where(done[:, None], 0.0, s), state)
        state = _lstm_step(params, state, x)
        return state, state.h

    return jax.lax.scan(step, state, (encoded, dones))


def _masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(x * mask) / jnp.sum(mask)


def _normalise(x: jax.Array, mask: jax.Array) -> jax.Array:
    centred = x - _masked_mean(x, mask)
    variance = jnp.sum(mask * jnp.square(centred)) / (jnp.sum(mask) - 1)
    return centred / (jnp.sqrt(variance) + 1e-8)


def in_jax(*, params: Arrays, rollout: Arrays) -> dict[str, jax.Array]:
    """The same by two scans, one of them backwards; the mask is a weight."""
    old_values, dones = rollout["values"], rollout["dones"]
    weight = rollout["mask"].astype(old_values.dtype)
    next_dones = jnp.concatenate([dones[1:], rollout["next_done"][None]])
    all_values = jnp.concatenate([old_values, rollout["next_value"][None]])
    advantages = _gae(rollout["rewards"], all_values, 1 - next_dones.astype(old_values.dtype))
    advantages = jax.lax.stop_gradient(advantages)
    returns = advantages + jax.lax.stop_gradient(old_values)
    normalised = _normalise(advantages, weight)

    encoded = jnp.tanh(rollout["obs"] @ params["w_enc"].T + params["b_enc"])
    state, hidden = _replay(params, LSTMState(rollout["h0"], rollout["c0"]), encoded, dones)
    log_policy = jax.nn.log_softmax(hidden @ params["w_pi"].T + params["b_pi"], axis=-1)
    values = jnp.einsum("tbh,h->tb", hidden, params["w_v"][0]) + params["b_v"]

    taken = jnp.take_along_axis(log_policy, rollout["actions"][..., None], axis=-1)[..., 0]
    ratio = jnp.exp(taken - rollout["log_probs"])
    surrogate = jnp.minimum(ratio * normalised, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * normalised)
    policy_loss = -_masked_mean(surrogate, weight)
    near = old_values + jnp.clip(values - old_values, -CLIP, CLIP)
    errors = jnp.maximum(jnp.square(values - returns), jnp.square(near - returns))
    value_loss = 0.5 * _masked_mean(errors, weight)
    entropy = _masked_mean(-jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1), weight)
    loss = policy_loss - ENTROPY_COEF * entropy + VALUE_COEF * value_loss
    losses = {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss}
    return {**losses, "advantages": advantages, "h": state.h}


def in_jax_by_environment(*, params: Arrays, rollout: Arrays) -> dict[str, jax.Array]:
    """The same: one environment's steps in a loop under `vmap`, GAE by an associative scan."""
    data, mask = jax.lax.stop_gradient(dict(rollout)), rollout["mask"]
    following = jnp.vstack([data["values"][1:], data["next_value"]])
    alive = jnp.where(jnp.vstack([data["dones"][1:], data["next_done"]]), 0.0, GAMMA)

    def join(later: Any, earlier: Any) -> tuple[jax.Array, jax.Array]:
        return later[0] * earlier[0], earlier[1] + earlier[0] * later[1]

    deltas = data["rewards"] + alive * following - data["values"]
    _, advantages = jax.lax.associative_scan(join, (LAMBDA * alive, deltas), reverse=True)
    returns = advantages + data["values"]
    spread = jnp.std(advantages, ddof=1, where=mask)
    scaled = (advantages - jnp.mean(advantages, where=mask)) / (spread + 1e-8)

    def environment(obs: jax.Array, dones: jax.Array, h: jax.Array, c: jax.Array) -> Any:
        logits, values = [], []
        for t in range(obs.shape[0]):
            h, c = (1 - dones[t]) * h, (1 - dones[t]) * c
            x = jnp.tanh(params["w_enc"] @ obs[t] + params["b_enc"])
            gates = params["w_ih"] @ x + params["b_ih"] + params["w_hh"] @ h + params["b_hh"]
            i, f, g, o = jnp.split(gates, 4)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            logits.append(params["w_pi"] @ h + params["b_pi"])
            values.append((params["w_v"] @ h + params["b_v"])[0])
        return jnp.stack(logits), jnp.stack(values), h

    began = rollout["dones"].astype(scaled.dtype)
    over_environments = jax.vmap(environment, in_axes=(1, 1, 0, 0), out_axes=(1, 1, 0))
    logits, values, h = over_environments(rollout["obs"], began, rollout["h0"], rollout["c0"])
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jax.nn.one_hot(rollout["actions"], logits.shape[-1], dtype=logits.dtype)
    ratio = jnp.exp(jnp.sum(chosen * logits, axis=-1) - normaliser - rollout["log_probs"])
    held = jnp.where(scaled > 0, jnp.minimum(ratio, 1 + CLIP), jnp.maximum(ratio, 1 - CLIP))
    near = jnp.clip(values, rollout["values"] - CLIP, rollout["values"] + CLIP)
    errors = jnp.maximum((values - returns) ** 2, (near - returns) ** 2) / 2
    entropies = normaliser - jnp.sum(jax.nn.softmax(logits) * logits, axis=-1)
    each = {"policy_loss": -scaled * held, "value_loss": errors}
    each["loss"] = -scaled * held + VALUE_COEF * errors - ENTROPY_COEF * entropies
    means = {name: jnp.mean(part, where=mask) for name, part in each.items()}
    return {**means, "advantages": advantages, "h": h}


def inputs() -> dict[str, Any]:
    """10 steps of 6 environments, an LSTM of 8, three actions."""
    rng = np.random.default_rng(31)
    num_steps, num_envs, num_obs, width, num_actions = 10, 6, 4, 8, 3

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    params = {}
    sizes = (("enc", width, num_obs), ("pi", num_actions, width), ("v", 1, width))
    for name, num_out, num_in in sizes:
        params[f"w_{name}"] = normal(num_out, num_in, scale=1.5 * num_in**-0.5)
        params[f"b_{name}"] = normal(num_out, scale=0.2)
    for name in ("ih", "hh"):
        params[f"w_{name}"] = normal(4 * width, width, scale=1.2 * width**-0.5)
        params[f"b_{name}"] = normal(4 * width, scale=0.2)
    both = (num_steps, num_envs)
    rollout = {
        "obs": normal(*both, num_obs),
        "actions": rng.integers(num_actions, size=both),
        "log_probs": -np.log(np.float32(num_actions)) + normal(*both, scale=0.3),
        "rewards": normal(*both),
        "values": normal(*both, scale=0.5),
        "dones": rng.random(both) < 0.15,
        "next_value": normal(num_envs, scale=0.5),
        "next_done": np.arange(num_envs) % 3 == 1,
        "mask": np.arange(num_steps)[:, None] < rng.integers(6, num_steps + 1, size=num_envs),
        "h0": normal(num_envs, width, scale=0.5),
        "c0": normal(num_envs, width, scale=0.8),
    }
    return {"params": params, "rollout": rollout}


FAULTS = (
    Fault(
        "state reset after the step",
        "        state = jax.tree.map(lambda s: jnp.where(done[:, None], 0.0, s), state)\n"
        "        state = _lstm_step(params, state, x)\n",
        "        state = _lstm_step(params, state, x)\n"
        "        state = jax.tree.map(lambda s: jnp.where(done[:, None], 0.0, s), state)\n",
    ),
    Fault(
        "cell's state not reset",
        "jax.tree.map(lambda s: jnp.where(done[:, None], 0.0, s), state)",
        "state._replace(h=jnp.where(done[:, None], 0.0, state.h))",
    ),
    Fault("input and forget gates exchanged", "i, f, o = jax.nn.sig", "f, i, o = jax.nn.sig"),
    Fault("square weight not transposed", '"bj,gkj->gbk"', '"bk,gkj->gbj"', "E09"),
    Fault(
        "advantages cut one step early",
        'jnp.concatenate([dones[1:], rollout["next_done"][None]])',
        "dones",
    ),
    Fault("bootstrap into the next episode", "GAMMA * running * values", "GAMMA * values"),
    Fault("no λ in the advantages", "GAMMA * LAMBDA * alive * adv", "GAMMA * alive * adv"),
    Fault(
        "returns of normalised advantages",
        "advantages + jax.lax.stop_gradient(old_values)",
        "_normalise(advantages, weight) + jax.lax.stop_gradient(old_values)",
    ),
    Fault("the population's std", "/ (jnp.sum(mask) - 1)", "/ jnp.sum(mask)", "B01"),
    Fault("padding counts in the means", "(x * mask) / jnp.sum(mask)", "(x * mask) / mask.size"),
    Fault("change added to the new value", "near = old_values + jnp", "near = values + jnp"),
    Fault(
        "advantages not held fast",
        "jax.lax.stop_gradient(advantages)",
        "advantages",
        None,
        "backward",
    ),
    Fault(
        "cell's state held fast between steps",
        "c = f * state.c + i",
        "c = f * jax.lax.stop_gradient(state.c) + i",
        phase="backward",
    ),
    Fault(
        "value loss does not reach the LSTM",
        '"tbh,h->tb", hidden,',
        '"tbh,h->tb", jax.lax.stop_gradient(hidden),',
        phase="backward",
    ),
)
