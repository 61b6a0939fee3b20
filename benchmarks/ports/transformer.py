"""A transformer block: causal attention and a GELU layer, each behind a layer norm.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1, with the norms in front as in
Xiong et al. 2020, https://arxiv.org/abs/2002.04745.

    y = x + W_o attention(norm₁(x)) + b_o,    z = y + W_2 gelu(W_1 norm₂(y) + b_1) + b_2
    attention = softmax(q kᵀ / √d, over keys no later than the query) v, for each head
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

Params = Mapping[str, Any]
"""Weights are (out, in); the rows of `w_qkv` are those of q, k and v, each head by head."""


def _attention_torch(params: Params, x: torch.Tensor, num_heads: int) -> torch.Tensor:
    batch, length, width = x.shape
    q, k, v = F.linear(x, params["w_qkv"], params["b_qkv"]).split(width, dim=2)
    q = q.view(batch, length, num_heads, width // num_heads).transpose(1, 2)
    k = k.view(batch, length, num_heads, width // num_heads).transpose(1, 2)
    v = v.view(batch, length, num_heads, width // num_heads).transpose(1, 2)
    scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    later = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
    weights = F.softmax(scores.masked_fill(later, -torch.inf), dim=-1)
    mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
    return F.linear(mixed, params["w_o"], params["b_o"])


def in_torch(*, params: Params, x: torch.Tensor, num_heads: int = 4) -> torch.Tensor:
    """The block's output, shaped as its input: batch, length, width."""
    width = x.shape[-1]
    normed = F.layer_norm(x, (width,), params["scale1"], params["shift1"], eps=1e-5)
    x = x + _attention_torch(params, normed, num_heads)
    normed = F.layer_norm(x, (width,), params["scale2"], params["shift2"], eps=1e-5)
    hidden = F.gelu(F.linear(normed, params["w_1"], params["b_1"]))
    return x + F.linear(hidden, params["w_2"], params["b_2"])


def _norm_jax(x: jax.Array, scale: jax.Array, shift: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon) * scale + shift


@jax.custom_vjp
def _masked_softmax(scores: jax.Array, allowed: jax.Array) -> jax.Array:
    """The softmax over the last axis where `allowed`; only its result is kept for the gradient."""
    least = jnp.finfo(scores.dtype).min
    shifted = jnp.where(allowed, scores, least)
    raised = jnp.exp(shifted - jnp.max(shifted, axis=-1, keepdims=True))
    return raised / jnp.sum(raised, axis=-1, keepdims=True)


def _masked_softmax_forward(scores: jax.Array, allowed: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights = _masked_softmax(scores, allowed)
    return weights, weights


def _masked_softmax_backward(weights: jax.Array, slope: jax.Array) -> tuple[jax.Array, None]:
    mean_slope = jnp.sum(weights * slope, axis=-1, keepdims=True)
    return weights * (slope - mean_slope), None


_masked_softmax.defvjp(_masked_softmax_forward, _masked_softmax_backward)


def _attention_jax(params: Params, x: jax.Array, num_heads: int) -> jax.Array:
    *_, length, width = x.shape
    weight = params["w_qkv"].reshape(3, num_heads, width // num_heads, width)
    bias = params["b_qkv"].reshape(3, 1, num_heads, 1, width // num_heads)
    q, k, v = jnp.einsum("bti,phdi->pbhtd", x, weight) + bias
    scores = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k)
    allowed = jnp.tril(jnp.ones((length, length), bool))
    weights = _masked_softmax(scores, allowed)
    mixed = jnp.einsum("bhqk,bhkd->bqhd", weights, v)
    merged = mixed.reshape(x.shape)
    return merged @ params["w_o"].T + params["b_o"]


def in_jax(*, params: Params, x: jax.Array, num_heads: int = 4) -> jax.Array:
    """The same by einsum, the softmax's gradient by hand."""
    attended = _attention_jax(params, _norm_jax(x, params["scale1"], params["shift1"]), num_heads)
    middle = x + attended
    normed = _norm_jax(middle, params["scale2"], params["shift2"])
    inner = jnp.dot(normed, params["w_1"].T) + params["b_1"]
    hidden = jax.nn.gelu(inner, approximate=False)
    return middle + (hidden @ params["w_2"].T + params["b_2"])


def in_jax_by_head(*, params: Params, x: jax.Array, num_heads: int = 4) -> jax.Array:
    """The same: one sequence and one head under `vmap`, the library's softmax and standardising."""

    def head(weight: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
        q, k, v = x @ weight.mT + bias[:, None]
        scores = q @ k.T / math.sqrt(k.shape[1])
        seen = jnp.arange(len(x))[:, None] >= jnp.arange(len(x))
        return jax.nn.softmax(scores, axis=1, where=seen) @ v

    def sequence(x: jax.Array) -> jax.Array:
        width = x.shape[1]
        normed = jax.nn.standardize(x, epsilon=1e-5) * params["scale1"] + params["shift1"]
        weight = params["w_qkv"].reshape(3, num_heads, -1, width)
        bias = params["b_qkv"].reshape(3, num_heads, -1)
        mixed = jax.vmap(head, in_axes=(1, 1, None), out_axes=1)(weight, bias, normed)
        x = x + mixed.reshape(x.shape) @ params["w_o"].T + params["b_o"]
        normed = jax.nn.standardize(x, epsilon=1e-5) * params["scale2"] + params["shift2"]
        inner = normed @ params["w_1"].T + params["b_1"]
        hidden = inner * jax.scipy.stats.norm.cdf(inner)
        return x + hidden @ params["w_2"].T + params["b_2"]

    return jax.vmap(sequence)(x)


def inputs() -> dict[str, Any]:
    """3 sequences of 10, of width 32."""
    rng = np.random.default_rng(6)
    batch, length, width = 3, 10, 32

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    return {
        "params/scale1": 1 + normal(width, scale=0.1),
        "params/shift1": normal(width, scale=0.1),
        "params/w_qkv": normal(3 * width, width, scale=1.5 * width**-0.5),
        "params/b_qkv": normal(3 * width, scale=0.3),
        "params/w_o": normal(width, width, scale=width**-0.5),
        "params/b_o": normal(width, scale=0.1),
        "params/scale2": 1 + normal(width, scale=0.1),
        "params/shift2": normal(width, scale=0.1),
        "params/w_1": normal(4 * width, width, scale=width**-0.5),
        "params/b_1": normal(4 * width, scale=0.1),
        "params/w_2": normal(width, 4 * width, scale=(4 * width) ** -0.5),
        "params/b_2": normal(width, scale=0.1),
        "x": normal(batch, length, width),
    }


FAULTS = (
    Fault(
        "GELU's tanh approximation",
        "jax.nn.gelu(inner, approximate=False)",
        "jax.nn.gelu(inner)",
        "E01",
    ),
    Fault("another epsilon in the norms", "epsilon: float = 1e-5", "epsilon: float = 1e-6", "B05"),
    Fault(
        "norms by the sample's variance",
        "variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)",
        "variance = jnp.var(x, axis=-1, keepdims=True, ddof=1)",
        "B01",
    ),
    Fault(
        "norm without centring", "centred = x - jnp.mean(x, axis=-1, keepdims=True)", "centred = x"
    ),
    Fault(
        "norm over the sequence",
        "variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)",
        "variance = jnp.mean(jnp.square(centred), axis=(-2, -1), keepdims=True)",
    ),
    Fault("scores over the root of the width", "q * q.shape[-1] ** -0.5", "q * width**-0.5"),
    Fault(
        "queries do not see themselves",
        "jnp.tril(jnp.ones((length, length), bool))",
        "jnp.tril(jnp.ones((length, length), bool), -1)",
    ),
    Fault(
        "queries see later keys alone",
        "jnp.tril(jnp.ones((length, length), bool))",
        "jnp.triu(jnp.ones((length, length), bool))",
    ),
    Fault(
        "heads are the last axis of the weight",
        ".reshape(3, num_heads, width // num_heads, width)",
        ".reshape(3, -1, num_heads, width).swapaxes(1, 2)",
    ),
    Fault("queries and keys swapped", "q, k, v = jnp.einsum", "k, q, v = jnp.einsum"),
    Fault(
        "softmax over the queries",
        "raised / jnp.sum(raised, axis=-1",
        "raised / jnp.sum(raised, axis=-2",
    ),
    Fault("heads merged across time", '"bhqk,bhkd->bqhd", weights', '"bhqk,bhkd->bhqd", weights'),
    Fault(
        "square weight not transposed", 'merged @ params["w_o"].T', 'merged @ params["w_o"]', "E09"
    ),
    Fault(
        "the first norm twice",
        '_norm_jax(middle, params["scale2"], params["shift2"])',
        '_norm_jax(middle, params["scale1"], params["shift1"])',
    ),
    Fault("residual of the normed value", "return middle + (hidden", "return normed + (hidden"),
    Fault(
        "softmax's gradient without its mean",
        "return weights * (slope - mean_slope), None",
        "return weights * slope, None",
        phase="backward",
    ),
    Fault(
        "softmax's gradient summed over the queries",
        "mean_slope = jnp.sum(weights * slope, axis=-1, keepdims=True)",
        "mean_slope = jnp.sum(weights * slope, axis=-2, keepdims=True)",
        phase="backward",
    ),
)
