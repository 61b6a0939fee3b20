"""A recurrent policy: an LSTM unrolled over time, whose state is reset where an episode begins.

Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; unrolled as the learners
of IMPALA do it, Espeholt et al. 2018, https://arxiv.org/abs/1802.01561.

    i, f, g, o = W_ih x + b_ih + W_hh h + b_hh
    c' = σ(f) c + σ(i) tanh(g),    h' = σ(o) tanh(c')

`resets[t]` says that `obs[t]` is the first of an episode: h and c are zero before it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.distributions import Categorical
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

Net = Mapping[str, Any]
"""`w_in`, `b_in` of the encoder; `w_ih`, `w_hh`, `b_ih`, `b_hh` of the cell; `w_pi`, `b_pi`, `w_v`,
`b_v` of the heads. Weights are (out, in)."""


def in_torch(
    *,
    params: Net,
    obs: torch.Tensor,
    actions: torch.Tensor,
    resets: torch.Tensor,
    h0: torch.Tensor,
    c0: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """What a learner needs of an unrolled policy, and the state that it ends in."""
    h, c = h0, c0
    encoded = torch.tanh(F.linear(obs, params["w_in"], params["b_in"]))
    outputs = []
    for x, reset in zip(encoded, resets, strict=True):
        keep = (~reset).to(obs.dtype).unsqueeze(1)
        h, c = h * keep, c * keep
        gates = F.linear(x, params["w_ih"], params["b_ih"])
        gates = gates + F.linear(h, params["w_hh"], params["b_hh"])
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    core = torch.stack(outputs)
    policy = Categorical(logits=F.linear(core, params["w_pi"], params["b_pi"]))
    values = F.linear(core, params["w_v"], params["b_v"]).squeeze(-1)
    return {
        "log_probs": policy.log_prob(actions),
        "entropy": policy.entropy().mean(),
        "values": values,
        "h": h,
        "c": c,
    }


def _dense(params: Net, name: str, x: jax.Array) -> jax.Array:
    return jnp.matmul(x, params[f"w_{name}"].T) + params[f"b_{name}"]


def _cell(
    params: Net, state: tuple[jax.Array, jax.Array], projected: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One step of one environment, whose input is projected beforehand."""
    h, c = state
    size = h.shape[-1]
    # One block of rows for each gate.
    recurrent = jnp.einsum("gkh,h->gk", params["w_hh"].reshape(4, size, size), h)
    i, f, g, o = projected.reshape(4, size) + recurrent + params["b_hh"].reshape(4, size)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _heads(params: Net, core: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_policy = jax.nn.log_softmax(_dense(params, "pi", core), axis=-1)
    return log_policy, _dense(params, "v", core)[..., 0]


def in_jax(
    *,
    params: Net,
    obs: jax.Array,
    actions: jax.Array,
    resets: jax.Array,
    h0: jax.Array,
    c0: jax.Array,
) -> dict[str, jax.Array]:
    """The same: a scan over time for one environment, under `vmap` over environments."""

    def step(
        state: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        x, reset = now
        h, c = state
        h = jnp.where(reset, 0.0, h)
        c = jnp.where(reset, 0.0, c)
        h, c = _cell(params, (h, c), x)
        return (h, c), h

    def unroll(
        x: jax.Array, reset: jax.Array, h: jax.Array, c: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        (h, c), core = jax.lax.scan(step, (h, c), (x, reset))
        return core, h, c

    encoded = jnp.tanh(_dense(params, "in", obs))
    projected = _dense(params, "ih", encoded)
    core, h, c = jax.vmap(unroll, in_axes=(1, 1, 0, 0), out_axes=(1, 0, 0))(
        projected, resets, h0, c0
    )
    log_policy, values = _heads(params, core)
    taken = jnp.take_along_axis(log_policy, actions[..., None], axis=-1)
    entropy = -jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1)
    return {
        "log_probs": taken[..., 0],
        "entropy": jnp.mean(entropy),
        "values": values,
        "h": h,
        "c": c,
    }


def in_jax_in_place(
    *,
    params: Net,
    obs: jax.Array,
    actions: jax.Array,
    resets: jax.Array,
    h0: jax.Array,
    c0: jax.Array,
) -> dict[str, jax.Array]:
    """The same: a `fori_loop` that writes into a buffer, one product for input and state."""
    both = jnp.concatenate([params["w_ih"], params["w_hh"]], axis=1)
    bias = params["b_ih"] + params["b_hh"]
    encoded = jnp.tanh(jnp.einsum("tbi,ki->tbk", obs, params["w_in"]) + params["b_in"])
    keep = 1 - resets.astype(obs.dtype)[..., None]

    def body(
        t: int, carry: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        h, c, core = carry
        x = jnp.concatenate([encoded[t], keep[t] * h], axis=1)
        i, f, g, o = jnp.split(x @ both.T + bias, 4, axis=1)
        c = jax.nn.sigmoid(f) * keep[t] * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jnp.tanh(c) / (1 + jnp.exp(-o))
        return h, c, core.at[t].set(h)

    core = jnp.zeros((obs.shape[0], *h0.shape), obs.dtype)
    h, c, core = jax.lax.fori_loop(0, obs.shape[0], body, (h0, c0, core))
    logits = core @ params["w_pi"].T + params["b_pi"]
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jax.nn.one_hot(actions, logits.shape[-1], dtype=obs.dtype)
    mean_logit = jnp.sum(jax.nn.softmax(logits) * logits, axis=-1)
    return {
        "log_probs": jnp.sum(chosen * logits, axis=-1) - normaliser,
        "entropy": jnp.mean(normaliser - mean_logit),
        "values": (core @ params["w_v"].T + params["b_v"]).squeeze(-1),
        "h": h,
        "c": c,
    }


def inputs() -> dict[str, Any]:
    """16 steps of 8 environments; episodes begin at the first step, and anywhere."""
    rng = np.random.default_rng(15)
    num_steps, num_envs, num_obs, width, num_actions = 16, 8, 5, 10, 4

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    sizes = {
        "in": (width, num_obs),
        "ih": (4 * width, width),
        "hh": (4 * width, width),
        "pi": (num_actions, width),
        "v": (1, width),
    }
    params = {}
    for name, (num_out, num_in) in sizes.items():
        params[f"w_{name}"] = normal(num_out, num_in, scale=1.2 * num_in**-0.5)
        params[f"b_{name}"] = normal(num_out, scale=0.2)
    resets = rng.random((num_steps, num_envs)) < 0.12
    resets[0, ::3] = True
    return {
        "params": params,
        "obs": normal(num_steps, num_envs, num_obs),
        "actions": rng.integers(num_actions, size=(num_steps, num_envs)),
        "resets": resets,
        "h0": normal(num_envs, width, scale=0.5),
        "c0": normal(num_envs, width, scale=0.8),
    }


FAULTS = (
    Fault("gates in another order", "i, f, g, o = projected", "i, g, f, o = projected"),
    Fault("one bias only", ' + params["b_hh"].reshape(4, size)', "", "E15"),
    Fault("recurrent blocks transposed", '"gkh,h->gk"', '"ghk,h->gk"', "E09"),
    Fault("cell's state not reset", "        c = jnp.where(reset, 0.0, c)\n", ""),
    Fault("hidden state not reset", "        h = jnp.where(reset, 0.0, h)\n", ""),
    Fault("reset everywhere else", "h = jnp.where(reset, 0.0, h)", "h = jnp.where(reset, h, 0.0)"),
    Fault(
        "reset after the step",
        "        h = jnp.where(reset, 0.0, h)\n"
        "        c = jnp.where(reset, 0.0, c)\n"
        "        h, c = _cell(params, (h, c), x)\n",
        "        h, c = _cell(params, (h, c), x)\n"
        "        h = jnp.where(reset, 0.0, h)\n"
        "        c = jnp.where(reset, 0.0, c)\n",
    ),
    Fault("one added to the forget gate", "jax.nn.sigmoid(f) * c", "jax.nn.sigmoid(f + 1) * c"),
    Fault(
        "cell's state not squashed",
        "return jax.nn.sigmoid(o) * jnp.tanh(c), c",
        "return jax.nn.sigmoid(o) * c, c",
    ),
    Fault("cell's state put out", "return (h, c), h\n", "return (h, c), c\n"),
    Fault("state exchanged", "core, h, c = jax.vmap(unroll", "core, c, h = jax.vmap(unroll"),
    Fault(
        "unrolled from zero",
        "jax.lax.scan(step, (h, c), (x, reset))",
        "jax.lax.scan(step, (jnp.zeros_like(h), jnp.zeros_like(c)), (x, reset))",
    ),
    Fault(
        "softmax over environments",
        'jax.nn.log_softmax(_dense(params, "pi", core), axis=-1)',
        'jax.nn.log_softmax(_dense(params, "pi", core), axis=1)',
    ),
    Fault(
        "state held fast between steps",
        "h, c = _cell(params, (h, c), x)",
        "h, c = _cell(params, jax.lax.stop_gradient((h, c)), x)",
        phase="backward",
    ),
)
