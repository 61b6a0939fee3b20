"""A block of cross-attention: queries read from a padded memory, then a layer of two.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1 and sections 3.2.2 and 3.3, with
the normalisation before each part as in Xiong et al. 2020, https://arxiv.org/abs/2002.04745.

    x ← x + W_o concat_h softmax(Q_h K_hᵀ / √d_h) V_h,    Q from LN(x), K and V from LN(memory)
    x ← x + W_2 gelu(W_1 LN(x))

`padding` is true where the memory holds nothing.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.ports.faults import Fault

WIDTH, NUM_HEADS, HIDDEN = 12, 3, 20


class CrossAttentionBlock(torch.nn.Module):
    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_query = torch.nn.LayerNorm(width)
        self.norm_memory = torch.nn.LayerNorm(width)
        self.norm_hidden = torch.nn.LayerNorm(width)
        self.query = torch.nn.Linear(width, width)
        self.key = torch.nn.Linear(width, width, bias=False)
        self.value = torch.nn.Linear(width, width)
        self.out = torch.nn.Linear(width, width)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(width, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, width)
        )

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) as (B, H, T, D / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self, x: torch.Tensor, memory: torch.Tensor, padding: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        read = self.norm_memory(memory)
        q = self.heads(self.query(self.norm_query(x)))
        k, v = self.heads(self.key(read)), self.heads(self.value(read))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(padding[:, None, None, :], -torch.inf)
        weights = F.softmax(scores, dim=-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        x = x + self.mlp(self.norm_hidden(x))
        return {"out": x, "attention": weights.mean(dim=1)}


class Attention(nn.Module):
    """Attention of several heads, without residuals."""

    num_heads: int

    @nn.compact
    def __call__(
        self, x: jax.Array, memory: jax.Array, present: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        width = x.shape[-1]
        size = width // self.num_heads

        def heads(projected: jax.Array) -> jax.Array:
            return projected.reshape(*projected.shape[:-1], self.num_heads, size)

        q = heads(nn.Dense(width, name="query")(x)) * size**-0.5
        k = heads(nn.Dense(width, use_bias=False, name="key")(memory))
        v = heads(nn.Dense(width, name="value")(memory))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
        lowest = jnp.finfo(scores.dtype).min
        scores = jnp.where(present[:, None, None, :], scores, lowest)
        weights = nn.softmax(scores, axis=-1)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        mixed = mixed.reshape(x.shape)
        return nn.Dense(width, name="out")(mixed), weights


class FeedForward(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = nn.gelu(nn.Dense(self.hidden, name="up")(x), approximate=False)
        return nn.Dense(x.shape[-1], name="down")(inner)


class Block(nn.Module):
    """The block, whose attention and layer of two are modules of their own."""

    num_heads: int = NUM_HEADS
    hidden: int = HIDDEN

    def setup(self) -> None:
        self.norm_query = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)
        self.norm_memory = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)
        self.norm_hidden = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)
        self.attention = Attention(self.num_heads)
        self.feed_forward = FeedForward(self.hidden)

    def __call__(self, x: jax.Array, memory: jax.Array, padding: jax.Array) -> dict[str, jax.Array]:
        queries, read = self.norm_query(x), self.norm_memory(memory)
        update, weights = self.attention(queries, read, ~padding)
        x = x + update
        out = x + self.feed_forward(self.norm_hidden(x))
        return {"out": out, "attention": jnp.mean(weights, axis=1)}


class AttentionByHead(nn.Module):
    """The same: one head of one example under two `vmap`s, masked by a weight of zero."""

    num_heads: int

    @nn.compact
    def __call__(
        self, x: jax.Array, memory: jax.Array, present: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        width = x.shape[-1]
        batch, size = x.shape[0], width // self.num_heads

        def head(
            q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            scores = q @ k.T / jnp.sqrt(jnp.asarray(size, q.dtype))
            # What is added to a row of scores does not change the row's softmax.
            shares = jnp.exp(scores - scores.max(axis=1, keepdims=True)) * seen
            shares = shares / shares.sum(axis=1, keepdims=True)
            return shares @ v, shares

        projected = [
            nn.Dense(width, use_bias=name != "key", name=name)(y).reshape(batch, -1, width)
            for name, y in (("query", x), ("key", memory), ("value", memory))
        ]
        q, k, v = (jnp.stack(jnp.split(y, self.num_heads, axis=-1), axis=1) for y in projected)
        over_heads = jax.vmap(head, in_axes=(0, 0, 0, None))
        mixed, weights = jax.vmap(over_heads)(q, k, v, present.astype(x.dtype))
        joined = jnp.concatenate(jnp.unstack(mixed, axis=1), axis=-1)
        return nn.Dense(width, name="out")(joined), weights


class BlockByHead(Block):
    def setup(self) -> None:
        self.norm_query = nn.LayerNorm(epsilon=1e-5)
        self.norm_memory = nn.LayerNorm(epsilon=1e-5)
        self.norm_hidden = nn.LayerNorm(epsilon=1e-5)
        self.attention = AttentionByHead(self.num_heads)
        self.feed_forward = FeedForward(self.hidden)


def _made() -> CrossAttentionBlock:
    """The block with weights that a norm's scale and offset are no exception to."""
    generator = torch.Generator().manual_seed(17)
    module = CrossAttentionBlock(WIDTH, NUM_HEADS, HIDDEN)
    with torch.no_grad():
        for name, param in module.named_parameters():
            draw = torch.randn(param.shape, generator=generator, dtype=torch.float32)
            is_scale = name.startswith("norm") and name.endswith("weight")
            scale = 0.2 if param.ndim == 1 else 1.3 * param.shape[1] ** -0.5
            param.copy_(scale * draw + float(is_scale))
    return module


REFERENCE = _made()
CANDIDATE = Block()
CANDIDATE_BY_HEAD = BlockByHead()
RENAME = {
    "query": "attention/query",
    "key": "attention/key",
    "value": "attention/value",
    "params/out": "attention/out",
    "mlp.0": "feed_forward/up",
    "mlp.2": "feed_forward/down",
}
KINDS: dict[str, str] = {}


def inputs() -> dict[str, Any]:
    """Eight examples of five queries; between three and nine of nine memories are there."""
    rng = np.random.default_rng(17)
    batch, num_queries, num_memories = 8, 5, 9
    lengths = rng.integers(3, num_memories + 1, size=batch)
    return {
        "x": rng.normal(size=(batch, num_queries, WIDTH)).astype(np.float32),
        "memory": (0.3 + rng.normal(size=(batch, num_memories, WIDTH))).astype(np.float32),
        "padding": np.arange(num_memories)[None, :] >= lengths[:, None],
    }


FAULTS = (
    Fault("scaled by the whole width", "(x)) * size**-0.5", "(x)) * width**-0.5"),
    Fault("not scaled", "(x)) * size**-0.5", "(x))"),
    Fault(
        "heads innermost",
        "return projected.reshape(*projected.shape[:-1], self.num_heads, size)",
        "return projected.reshape(*projected.shape[:-1], size, self.num_heads).swapaxes(-1, -2)",
    ),
    Fault("second residual left out", "out = x + self.feed", "out = self.feed"),
    Fault(
        "padding read and the rest not",
        "self.attention(queries, read, ~padding)",
        "self.attention(queries, read, padding)",
    ),
    Fault(
        "padding not masked",
        "scores = jnp.where(present[:, None, None, :], scores, lowest)",
        "scores = jnp.asarray(scores)",
    ),
    Fault("masked with zero", "scores, lowest)", "scores, 0.0)"),
    Fault("softmax over queries", "nn.softmax(scores, axis=-1)", "nn.softmax(scores, axis=-2)"),
    Fault(
        "heads joined without their axis moved",
        'jnp.einsum("bhqk,bkhd->bqhd", weights, v)',
        'jnp.einsum("bhqk,bkhd->bhqd", weights, v)',
    ),
    Fault(
        "norms exchanged",
        "self.norm_query(x), self.norm_memory(memory)",
        "self.norm_memory(x), self.norm_query(memory)",
    ),
    Fault(
        "residual of what is normalised",
        "x = x + update",
        "x = queries + update",
    ),
    Fault("tanh's GELU", "(x), approximate=False)", "(x))", "E01"),
    Fault(
        "another ε in one norm",
        "self.norm_memory = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)",
        "self.norm_memory = nn.LayerNorm(use_fast_variance=False)",
        "B05",
    ),
    Fault(
        "attention held fast",
        'jnp.einsum("bhqk,bkhd->bqhd", weights, v)',
        'jnp.einsum("bhqk,bkhd->bqhd", jax.lax.stop_gradient(weights), v)',
        phase="backward",
    ),
)
