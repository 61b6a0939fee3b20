"""JAX's own random numbers, any of them by itself, in one loop.

`jax.random` makes the element at flat index i of an array from the counter i alone:

    (y₀, y₁) = Threefry-2x32-20(key, (0, i)),   bits_i = y₀ xor y₁      (Salmon et al. 2011)

so what one step of a rollout needs can be drawn in that step, bitwise as it is in the whole array.
The rounds are written out here, and XLA makes one loop of them; `jax.random` takes four rounds at a
time through memory on a CPU, which takes more than twice as long, and longer to compile. A test
compares every function with its namesake, bit by bit.

Where a key or a setting makes `jax.random` draw otherwise (float64 too), it draws.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
LARGEST_SIZE = 2**32 - 1
"""An array of more elements needs the counter's other word, which is 0 here."""


def is_ours(key: Array) -> bool:
    """Whether `jax.random` would draw, from this key, what these functions do."""
    settings: Any = jax.config
    return (
        str(jax.random.key_impl(key)) == "threefry2x32"
        and settings.jax_default_prng_impl == "threefry2x32"  # what a raw key is taken for
        and bool(settings.jax_threefry_partitionable)
    )


def can_draw(key: Array, size: int) -> bool:
    """Whether the elements of an array of floats, of this size, are those of these functions."""
    return is_ours(key) and jnp.result_type(float) == jnp.float32 and size <= LARGEST_SIZE


def draw(
    each: Callable[..., Array], key: Array, shape: tuple[int, ...], **bounds: float
) -> Float[Array, "..."]:
    """The whole array: `each` is `uniform`, with its bounds, `gumbel` or `normal`."""
    if not can_draw(key, math.prod(shape)):
        namesake = getattr(jax.random, each.__name__)
        names = {"low": "minval", "high": "maxval"}
        return namesake(key, shape, float, **{names[k]: v for k, v in bounds.items()})
    return each(key, jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape), **bounds)


def split(key: Array, num: int = 2) -> tuple[Array, ...]:
    """The keys of `jax.random.split(key, num)`; of an array of keys, `num` such arrays."""
    if not is_ours(key):
        keys = jax.random.split if key.ndim == 0 else jax.vmap(jax.random.split, (0, None))
        return tuple(jnp.moveaxis(keys(key, num), -1, 0))
    counters = jnp.arange(num, dtype=jnp.uint32)
    data = jax.random.key_data(key)[..., None, :]
    y0, y1 = _threefry(data, jnp.zeros_like(counters), counters)
    return tuple(_as_keys(y0[..., i], y1[..., i]) for i in range(num))


def fold_in(key: Array, data: Any) -> Array:
    """`jax.random.fold_in(key, data)`; of an array of data, an array of keys."""
    data = jnp.asarray(data).astype(jnp.uint32)
    if not is_ours(key):
        fold = jax.random.fold_in if data.ndim == 0 else jax.vmap(jax.random.fold_in, (None, 0))
        return fold(key, data)
    return _as_keys(*_threefry(key, jnp.zeros_like(data), data))


def _as_keys(y0: Array, y1: Array) -> Array:
    return jax.random.wrap_key_data(jnp.stack([y0, y1], axis=-1))


def random_bits(key: Array, counters: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The elements of `jax.random.bits(key, …)` at these flat indices."""
    y0, y1 = _threefry(key, jnp.zeros_like(counters), counters)
    return y0 ^ y1


# Compiled as `jax.random` is: multiplying and adding are one operation there, rounded once.
@functools.partial(jax.jit, static_argnames=("low", "high"))
def uniform(
    key: Array,
    counters: UInt32[Array, "*shape"],
    low: float | np.floating = 0,
    high: float | np.floating = 1,
) -> Float[Array, "*shape"]:
    """The elements of `jax.random.uniform(key, …)`, in [low, high) and float32.

    23 random bits are the mantissa of a number in [1, 2).
    """
    mantissa = random_bits(key, counters) >> jnp.uint32(9)
    one = jnp.uint32(0x3F800000)
    unit = jax.lax.bitcast_convert_type(mantissa | one, jnp.float32) - np.float32(1)
    start, width = np.float32(low), np.float32(high) - np.float32(low)
    return jnp.maximum(start, unit * width + start)


@jax.jit
def gumbel(key: Array, counters: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The elements of `jax.random.gumbel(key, …)`: `−log(−log u)`, u above 0."""
    return -jnp.log(-jnp.log(uniform(key, counters, low=np.finfo(np.float32).tiny)))


@jax.jit
def normal(key: Array, counters: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The elements of `jax.random.normal(key, …)`: `√2 · erf⁻¹(u)`, u in (−1, 1)."""
    above = np.nextafter(np.float32(-1), np.float32(0))
    return np.float32(math.sqrt(2)) * jax.lax.erf_inv(uniform(key, counters, low=above))


@jax.jit  # traced once for each shape: its 110 operations are most of what a run traces
def _threefry(key: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds; an array of keys is broadcast against the counters."""
    data = jax.random.key_data(key)
    k0, k1 = data[..., 0], data[..., 1]
    schedule = (k0, k1, k0 ^ k1 ^ _PARITY)
    x0, x1 = x0 + schedule[0], x1 + schedule[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << np.uint32(distance)) | (x1 >> np.uint32(32 - distance)))
        x0 = x0 + schedule[(group + 1) % 3]
        x1 = x1 + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1
