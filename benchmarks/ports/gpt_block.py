"""A small GPT: tied embeddings, pre-norm blocks with rotary positions, and the next token's loss.

Radford et al. 2019 as in nanoGPT, https://github.com/karpathy/nanoGPT/blob/master/model.py, whose
learned positions are replaced by the rotary ones of Su et al. 2021,
https://arxiv.org/abs/2104.09864, in the form that turns the two halves of a head.

    x = E[token],    x ← x + attention(norm(x)),    x ← x + W_2 gelu(W_1 norm(x)),  for each block
    L = −mean over labels that are not ignored of log softmax(E norm(x))[label]
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

IGNORED = -1
ROTARY_BASE = 100.0

Params = Mapping[str, Any]
"""`wte`, `ln_f_scale`, `ln_f_shift`, and `blocks`, whose arrays have the block as first axis."""


def _rotary_torch(x: torch.Tensor) -> torch.Tensor:
    """Queries or keys, of shape (batch, heads, time, size), turned by their times."""
    length, size = x.shape[-2:]
    inv_freq = ROTARY_BASE ** -(torch.arange(0, size, 2, dtype=x.dtype) / size)
    angles = torch.outer(torch.arange(length, dtype=x.dtype), inv_freq)
    angles = torch.cat([angles, angles], dim=-1)
    x1, x2 = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-x2, x1], dim=-1) * angles.sin()


def _block_torch(block: Params, x: torch.Tensor, num_heads: int) -> torch.Tensor:
    batch, length, width = x.shape
    normed = F.layer_norm(x, (width,), block["ln_1_scale"], block["ln_1_shift"])
    qkv = F.linear(normed, block["w_attn"], block["b_attn"])
    q, k, v = (
        part.view(batch, length, num_heads, -1).transpose(1, 2) for part in qkv.split(width, dim=2)
    )
    y = F.scaled_dot_product_attention(_rotary_torch(q), _rotary_torch(k), v, is_causal=True)
    y = y.transpose(1, 2).contiguous().view(batch, length, width)
    x = x + F.linear(y, block["w_proj"], block["b_proj"])
    normed = F.layer_norm(x, (width,), block["ln_2_scale"], block["ln_2_shift"])
    hidden = F.gelu(F.linear(normed, block["w_fc"], block["b_fc"]))
    return x + F.linear(hidden, block["w_out"], block["b_out"])


def in_torch(
    *, params: Params, tokens: torch.Tensor, labels: torch.Tensor, num_heads: int = 3
) -> dict[str, torch.Tensor]:
    """The loss and the logits."""
    x = F.embedding(tokens, params["wte"])
    for layer in range(params["blocks"]["w_attn"].shape[0]):
        block = {name: stacked[layer] for name, stacked in params["blocks"].items()}
        x = _block_torch(block, x, num_heads)
    x = F.layer_norm(x, x.shape[-1:], params["ln_f_scale"], params["ln_f_shift"])
    logits = F.linear(x, params["wte"])
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    return {"loss": loss, "logits": logits}


@jax.custom_jvp
def _gelu(x: jax.Array) -> jax.Array:
    return x * jax.scipy.special.ndtr(x)


@_gelu.defjvp
def _gelu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    below = jax.scipy.special.ndtr(x)
    density = jnp.exp(-0.5 * jnp.square(x)) / jnp.sqrt(2 * jnp.pi)
    return x * below, (below + x * density) * dx


def _layer_norm(x: jax.Array, scale: jax.Array, shift: jax.Array, eps: float = 1e-5) -> jax.Array:
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.var(x, axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + eps) * scale + shift


def _rotary_tables(length: int, half: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of shape (time, 1, half)."""
    inv_freq = 1.0 / ROTARY_BASE ** (jnp.arange(half, dtype=dtype) / half)
    angles = jnp.einsum("t,f->tf", jnp.arange(length, dtype=dtype), inv_freq)[:, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    cos, sin = tables
    x1, x2 = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)


def _attention(block: Params, x: jax.Array, num_heads: int) -> jax.Array:
    batch, length, width = x.shape
    size = width // num_heads
    qkv = x @ block["w_attn"].T + block["b_attn"]
    q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, num_heads, size), 2, 0)
    tables = _rotary_tables(length, size // 2, x.dtype)
    q, k = _rotate(q, tables), _rotate(k, tables)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(size)
    causal = jnp.arange(length)[:, None] >= jnp.arange(length)[None, :]
    weights = jax.nn.softmax(jnp.where(causal, scores, jnp.finfo(x.dtype).min), axis=-1)
    y = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width)
    return y @ block["w_proj"].T + block["b_proj"]


def _mlp(block: Params, x: jax.Array) -> jax.Array:
    hidden = _gelu(jnp.einsum("btc,fc->btf", x, block["w_fc"]) + block["b_fc"])
    return jnp.einsum("btf,cf->btc", hidden, block["w_out"]) + block["b_out"]


def _masked_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    counted = labels != IGNORED
    safe = jnp.where(counted, labels, 0)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    picked = jnp.take_along_axis(log_probs, safe[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(counted, picked, 0.0)) / jnp.sum(counted)


def in_jax(
    *, params: Params, tokens: jax.Array, labels: jax.Array, num_heads: int = 3
) -> dict[str, jax.Array]:
    """The same by a scan over the stacked blocks."""
    wte = params["wte"]

    def apply_block(x: jax.Array, block: Params) -> tuple[jax.Array, None]:
        normed = _layer_norm(x, block["ln_1_scale"], block["ln_1_shift"])
        x = x + _attention(block, normed, num_heads)
        normed = _layer_norm(x, block["ln_2_scale"], block["ln_2_shift"])
        return x + _mlp(block, normed), None

    x = jax.lax.scan(apply_block, wte[tokens], dict(params["blocks"]))[0]
    x = _layer_norm(x, params["ln_f_scale"], params["ln_f_shift"])
    logits = jnp.einsum("btc,vc->btv", x, wte)
    return {"loss": _masked_cross_entropy(logits, labels), "logits": logits}


def in_jax_by_sequence(
    *, params: Params, tokens: jax.Array, labels: jax.Array, num_heads: int = 3
) -> dict[str, jax.Array]:
    """The same: one sequence and one head under `vmap`, positions turned as complex numbers."""
    vocabulary, width = params["wte"].shape
    size = width // num_heads

    def norm(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
        return jax.nn.standardize(x, epsilon=1e-5) * scale + shift

    def turned(x: jax.Array) -> jax.Array:
        speeds = jnp.exp(-jnp.log(ROTARY_BASE) * jnp.arange(0, size, 2) / size)
        phases = jnp.exp(1j * jnp.arange(x.shape[0])[:, None] * speeds)
        z = jax.lax.complex(x[:, : size // 2], x[:, size // 2 :]) * phases
        return jnp.concatenate([z.real, z.imag], axis=1).astype(x.dtype)

    def head(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        scores = turned(q) @ turned(k).T * size**-0.5
        causal = jnp.tril(jnp.ones_like(scores, dtype=bool))
        return jax.nn.softmax(scores, axis=1, where=causal) @ v

    def sequence(tokens: jax.Array) -> jax.Array:
        x = jax.nn.one_hot(tokens, vocabulary, dtype=params["wte"].dtype) @ params["wte"]
        for layer in range(params["blocks"]["w_attn"].shape[0]):
            block = jax.tree.map(lambda stacked, at=layer: stacked[at], dict(params["blocks"]))
            normed = norm(x, block["ln_1_scale"], block["ln_1_shift"])
            qkv = jnp.dot(normed, block["w_attn"].T) + block["b_attn"]
            q, k, v = (part.reshape(-1, num_heads, size) for part in jnp.split(qkv, 3, axis=1))
            y = jax.vmap(head, in_axes=1, out_axes=1)(q, k, v).reshape(x.shape)
            x = x + jnp.dot(y, block["w_proj"].T) + block["b_proj"]
            normed = norm(x, block["ln_2_scale"], block["ln_2_shift"])
            inner = jnp.dot(normed, block["w_fc"].T) + block["b_fc"]
            hidden = jax.nn.gelu(inner, approximate=False)
            x = x + jnp.dot(hidden, block["w_out"].T) + block["b_out"]
        return norm(x, params["ln_f_scale"], params["ln_f_shift"]) @ params["wte"].T

    logits = jax.vmap(sequence)(tokens)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return {"loss": jnp.mean(losses, where=labels != IGNORED), "logits": logits}


def inputs() -> dict[str, Any]:
    """3 sequences of 9 tokens of 15, two blocks of width 24; the first labels are a prompt's."""
    rng = np.random.default_rng(27)
    vocabulary, width, num_layers, batch, length = 15, 24, 2, 3, 9

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    sizes = {"attn": (3, 1), "proj": (1, 1), "fc": (4, 1), "out": (1, 4)}
    blocks = {}
    for name, size in sizes.items():
        num_out, num_in = (width * each for each in size)
        blocks[f"w_{name}"] = normal(num_layers, num_out, num_in, scale=1.3 * num_in**-0.5)
        blocks[f"b_{name}"] = normal(num_layers, num_out, scale=0.1)
    for name in ("ln_1", "ln_2"):
        blocks[f"{name}_scale"] = 1 + normal(num_layers, width, scale=0.2)
        blocks[f"{name}_shift"] = normal(num_layers, width, scale=0.1)
    text = rng.integers(vocabulary, size=(batch, length + 1))
    prompts = np.array([2, 0, 4])
    return {
        "params/wte": normal(vocabulary, width, scale=0.5),
        "params/ln_f_scale": 1 + normal(width, scale=0.2),
        "params/ln_f_shift": normal(width, scale=0.1),
        "params/blocks": blocks,
        "tokens": text[:, :-1],
        "labels": np.where(np.arange(length) < prompts[:, None], IGNORED, text[:, 1:]),
    }


FAULTS = (
    Fault("GELU's tanh approximation", "hidden = _gelu(", "hidden = jax.nn.gelu(", "E01"),
    Fault(
        "ignored labels count as the first token",
        "-jnp.sum(jnp.where(counted, picked, 0.0)) / jnp.sum(counted)",
        "-jnp.mean(picked)",
        "E06",
    ),
    Fault(
        "labels shifted once more",
        "_masked_cross_entropy(logits, labels),",
        "_masked_cross_entropy(logits[:, :-1], labels[:, 1:]),",
    ),
    Fault(
        "one token ahead is seen",
        "jnp.arange(length)[:, None] >= jnp.arange(length)[None, :]",
        "jnp.arange(length)[:, None] + 1 >= jnp.arange(length)[None, :]",
    ),
    Fault("keys not turned", "_rotate(q, tables), _rotate(k, tables)", "_rotate(q, tables), k"),
    Fault(
        "turned the other way",
        "[x1 * cos - x2 * sin, x2 * cos + x1 * sin]",
        "[x1 * cos + x2 * sin, x2 * cos - x1 * sin]",
    ),
    Fault(
        "neighbours turned, not halves",
        "x1, x2 = jnp.split(x, 2, axis=-1)",
        "x1, x2 = x[..., ::2], x[..., 1::2]",
    ),
    Fault(
        "frequencies over the head's size",
        "(jnp.arange(half, dtype=dtype) / half)",
        "(jnp.arange(half, dtype=dtype) / (2 * half))",
    ),
    Fault(
        "heads are the last axis of the projection",
        "jnp.moveaxis(qkv.reshape(batch, length, 3, num_heads, size), 2, 0)",
        "jnp.moveaxis(qkv.reshape(batch, length, 3, size, num_heads).swapaxes(3, 4), 2, 0)",
    ),
    Fault(
        "residual of the normed value",
        "x = x + _attention(block, normed, num_heads)",
        "x = normed + _attention(block, normed, num_heads)",
    ),
    Fault(
        "no norm before the head",
        '    x = _layer_norm(x, params["ln_f_scale"], params["ln_f_shift"])\n',
        "",
    ),
    Fault(
        "head's weights held fast",
        'jnp.einsum("btc,vc->btv", x, wte)',
        'jnp.einsum("btc,vc->btv", x, jax.lax.stop_gradient(wte))',
        phase="backward",
    ),
    Fault(
        "norms' variance held fast",
        "variance = jnp.var(x, axis=-1, keepdims=True)",
        "variance = jax.lax.stop_gradient(jnp.var(x, axis=-1, keepdims=True))",
        phase="backward",
    ),
    Fault(
        "GELU's slope lacks a term", "(below + x * density) * dx", "below * dx", phase="backward"
    ),
)
