"""A recurrent policy: a GRU over a rollout whose state is cleared where an episode begins.

Cho et al. 2014, https://arxiv.org/abs/1406.1078, in the form of cuDNN and PyTorch, where the reset
gate multiplies the state after its weights.

    r, z = σ(W_r x + b_r + U_r h + c_r), σ(W_z x + b_z + U_z h + c_z)
    n = tanh(W_n x + b_n + r (U_n h + c_n)),    h' = (1 − z) n + z h
    L = −E[A log π(a|h')] − c H, over the steps that are no padding
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
"""`w_ih`, `w_hh`, `b_ih`, `b_hh` hold the gates r, z, n one below the other, as `GRUCell` does."""


def _cell_torch(params: Params, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    input_r, input_z, input_n = F.linear(x, params["w_ih"], params["b_ih"]).chunk(3, dim=1)
    state_r, state_z, state_n = F.linear(h, params["w_hh"], params["b_hh"]).chunk(3, dim=1)
    r = torch.sigmoid(input_r + state_r)
    z = torch.sigmoid(input_z + state_z)
    n = torch.tanh(input_n + r * state_n)
    return (1 - z) * n + z * h


def in_torch(
    *,
    params: Params,
    obs: torch.Tensor,
    starts: torch.Tensor,
    state: torch.Tensor,
    actions: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    entropy_coef: float = 0.01,
) -> dict[str, torch.Tensor]:
    """The loss, every step's log-probability of its action, and the last state."""
    outputs = []
    for x, start in zip(obs, starts, strict=True):
        state = state * (~start).to(state.dtype).unsqueeze(1)
        state = _cell_torch(params, x, state)
        outputs.append(state)
    hidden = torch.stack(outputs)
    logits = F.linear(hidden, params["w_out"], params["b_out"])

    all_log_probs = F.log_softmax(logits, dim=-1)
    log_probs = all_log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    entropy = -(all_log_probs.exp() * all_log_probs).sum(dim=-1)
    weights = mask.to(obs.dtype)
    objective = log_probs * advantages + entropy_coef * entropy
    return {
        "loss": -(objective * weights).sum() / weights.sum(),
        "log_probs": log_probs,
        "state": state,
    }


def _unroll_jax(
    params: Params, obs: jax.Array, starts: jax.Array, state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The last state and all states; the gates' parts from the inputs are made all at once."""
    from_inputs = jnp.einsum("tbi,gi->tbg", obs, params["w_ih"]) + params["b_ih"]
    weight_r, weight_z, weight_n = jnp.split(params["w_hh"], 3)
    bias_r, bias_z, bias_n = jnp.split(params["b_hh"], 3)

    def step(h: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        gates, start = now
        h = jnp.where(start[:, None], 0.0, h)
        input_r, input_z, input_n = jnp.split(gates, 3, axis=-1)
        r = jax.nn.sigmoid(input_r + h @ weight_r.T + bias_r)
        z = jax.nn.sigmoid(input_z + h @ weight_z.T + bias_z)
        n = jnp.tanh(input_n + r * (h @ weight_n.T + bias_n))
        new = n + z * (h - n)
        return new, new

    return jax.lax.scan(step, state, (from_inputs, starts))


def in_jax(
    *,
    params: Params,
    obs: jax.Array,
    starts: jax.Array,
    state: jax.Array,
    actions: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    entropy_coef: float = 0.01,
) -> dict[str, jax.Array]:
    """The same by a scan; the action's log-probability is a cross-entropy."""
    state, hidden = _unroll_jax(params, obs, starts, state)
    logits = hidden @ params["w_out"].T + params["b_out"]
    log_probs = -optax.softmax_cross_entropy_with_integer_labels(logits, actions)
    entropy = optax.safe_softmax_cross_entropy(logits, jax.nn.softmax(logits, axis=-1))
    policy_loss = -jnp.mean(advantages * log_probs, where=mask)
    loss = policy_loss - entropy_coef * jnp.mean(entropy, where=mask)
    return {"loss": loss, "log_probs": log_probs, "state": state}


def in_jax_by_environment(
    *,
    params: Params,
    obs: jax.Array,
    starts: jax.Array,
    state: jax.Array,
    actions: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    entropy_coef: float = 0.01,
) -> dict[str, jax.Array]:
    """The same: one environment's steps in a Python loop, under `vmap`."""

    def cell(h: jax.Array, x: jax.Array) -> jax.Array:
        inputs = (params["w_ih"] @ x + params["b_ih"]).reshape(3, -1)
        states = (params["w_hh"] @ h + params["b_hh"]).reshape(3, -1)
        r, z = jax.nn.sigmoid(inputs[:2] + states[:2])
        return z * h + (1 - z) * jnp.tanh(inputs[2] + r * states[2])

    def environment(
        obs: jax.Array, starts: jax.Array, h: jax.Array, actions: jax.Array
    ) -> tuple[jax.Array, ...]:
        log_probs, entropies = [], []
        for t in range(obs.shape[0]):
            h = cell((1 - starts[t]) * h, obs[t])
            logits = params["w_out"] @ h + params["b_out"]
            log_normaliser = jax.nn.logsumexp(logits)
            log_probs.append(logits[actions[t]] - log_normaliser)
            entropies.append(log_normaliser - jax.nn.softmax(logits) @ logits)
        return jnp.stack(log_probs), jnp.stack(entropies), h

    began = starts.astype(obs.dtype)
    by_environment = jax.vmap(environment, in_axes=(1, 1, 0, 1), out_axes=(1, 1, 0))
    log_probs, entropy, state = by_environment(obs, began, state, actions)
    objective = advantages * log_probs + entropy_coef * entropy
    loss = -jnp.sum(jnp.where(mask, objective, 0.0)) / jnp.sum(mask)
    return {"loss": loss, "log_probs": log_probs, "state": state}


def inputs() -> dict[str, Any]:
    """12 steps of 8 environments with episodes that begin midway, and a state of 16."""
    rng = np.random.default_rng(5)
    num_steps, num_envs, num_obs, num_actions, width = 12, 8, 6, 4, 16

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    return {
        "params/w_ih": normal(3 * width, num_obs, scale=num_obs**-0.5),
        "params/w_hh": normal(3 * width, width, scale=width**-0.5),
        "params/b_ih": normal(3 * width, scale=0.2),
        "params/b_hh": normal(3 * width, scale=0.2),
        "params/w_out": normal(num_actions, width, scale=width**-0.5),
        "params/b_out": normal(num_actions, scale=0.1),
        "obs": normal(num_steps, num_envs, num_obs),
        "starts": rng.random((num_steps, num_envs)) < 0.15,
        "state": normal(num_envs, width, scale=0.5),
        "actions": rng.integers(num_actions, size=(num_steps, num_envs)),
        "advantages": normal(num_steps, num_envs),
        "mask": np.arange(num_steps)[:, None] < rng.integers(6, num_steps, size=num_envs),
    }


FAULTS = (
    Fault(
        "gates in another order",
        "input_r, input_z, input_n = jnp.split(gates, 3, axis=-1)",
        "input_z, input_r, input_n = jnp.split(gates, 3, axis=-1)",
    ),
    Fault(
        "weights of the state in another order",
        "weight_r, weight_z, weight_n = jnp.split",
        "weight_z, weight_r, weight_n = jnp.split",
    ),
    Fault(
        "state's bias of the candidate outside the reset gate",
        "r * (h @ weight_n.T + bias_n)",
        "r * (h @ weight_n.T) + bias_n",
        "E15",
    ),
    Fault(
        "no bias for the state's part of the candidate",
        "r * (h @ weight_n.T + bias_n)",
        "r * (h @ weight_n.T)",
        "E15",
    ),
    Fault(
        "reset before the weights",
        "r * (h @ weight_n.T + bias_n)",
        "(r * h) @ weight_n.T + bias_n",
    ),
    Fault("square weight not transposed", "h @ weight_z.T", "h @ weight_z", "E09"),
    Fault("update gate the wrong way round", "new = n + z * (h - n)", "new = h + z * (n - h)"),
    Fault("candidate not squashed", "n = jnp.tanh(input_n", "n = (input_n"),
    Fault(
        "episodes' starts forgotten", "gates, start = now", "gates, start = now[0], now[1] & False"
    ),
    Fault(
        "state kept only where an episode starts",
        "jnp.where(start[:, None], 0.0, h)",
        "jnp.where(start[:, None], h, 0.0)",
    ),
    Fault(
        "state cleared one step late",
        "(from_inputs, starts))",
        "(from_inputs, jnp.roll(starts, 1, axis=0)))",
    ),
    Fault("state before the step put out", "return new, new", "return new, h"),
    Fault(
        "unroll from a state of zeros",
        "jax.lax.scan(step, state,",
        "jax.lax.scan(step, jnp.zeros_like(state),",
    ),
    Fault(
        "padding counts",
        "jnp.mean(advantages * log_probs, where=mask)",
        "jnp.mean(advantages * log_probs)",
    ),
    Fault(
        "mean over all steps of a masked sum",
        "jnp.mean(entropy, where=mask)",
        "jnp.mean(entropy * mask)",
    ),
    Fault(
        "state held fast between steps",
        "jnp.where(start[:, None], 0.0, h)",
        "jnp.where(start[:, None], 0.0, jax.lax.stop_gradient(h))",
        phase="backward",
    ),
)
