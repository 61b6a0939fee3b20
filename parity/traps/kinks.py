"""Gradients where a function has none, or several."""

import numpy as np

from parity.traps.entries import agreement, pair, trap
from parity.traps.slopes import slope_in_jax, slope_in_torch

ZERO = np.zeros(1)


@trap(
    "D01",
    "relu'(0): jnp.maximum(x, 0) gives half the slope",
    "jax.nn.relu(x) <-> torch.relu(x)",
)
def relu(torch, jax, jnp):
    """It splits the slope among equal operands; torch.clamp(x, min=0) gives all of it."""
    return pair(
        torch=slope_in_torch(torch.relu, ZERO),
        jax=slope_in_jax(lambda x: jnp.maximum(x, 0), ZERO),
        mended={"jax": slope_in_jax(jax.nn.relu, ZERO)},
    )


@trap(
    "D02",
    "the slope of clip at its bound",
    "jnp.where(x > hi, hi, jnp.where(x < lo, lo, x)), and torch.where likewise",
)
def clip(torch, jnp):
    """Exactly on a bound jnp.clip lets half of the slope pass, lax.clamp nothing.

    PyTorch's clamp lets all of it pass, from torch 2.14 on nothing, or half if the bounds are
    tensors.
    """
    x, lo, hi = np.array([-1.0, 0.5, 1.0]), -1.0, 1.0

    def in_torch(x):
        return torch.where(x > hi, hi, torch.where(x < lo, lo, x))

    def in_jax(x):
        return jnp.where(x > hi, hi, jnp.where(x < lo, lo, x))

    return pair(
        torch=slope_in_torch(lambda x: x.clamp(lo, hi), x),
        jax=slope_in_jax(lambda x: jnp.clip(x, lo, hi), x),
        mended={"torch": slope_in_torch(in_torch, x), "jax": slope_in_jax(in_jax, x)},
    )


@trap(
    "D03",
    "the slope of max among equal values",
    "torch.amax(x, dim) <-> jnp.max(x, axis)",
)
def tied_maximum(torch, jnp):
    """torch.max(x, dim) gives all of it to one; torch.amax, x.max() and jnp.max divide it."""
    x = np.array([2.0, 2.0, 1.0])
    return pair(
        torch=slope_in_torch(lambda x: x.max(0).values, x),
        jax=slope_in_jax(lambda x: x.max(0), x),
        mended={"torch": slope_in_torch(lambda x: x.amax(0), x)},
    )


@trap(
    "D04",
    "the slope of |x| at 0: 0 in PyTorch, 1 in JAX",
    "x * jnp.sign(x), x * torch.sign(x)",
)
def absolute(torch, jnp):
    """PyTorch has the sign, which is 0; JAX takes 0 for positive."""
    return pair(
        torch=slope_in_torch(torch.abs, ZERO),
        jax=slope_in_jax(jnp.abs, ZERO),
        mended={
            "torch": slope_in_torch(lambda x: x * torch.sign(x), ZERO),
            "jax": slope_in_jax(lambda x: x * jnp.sign(x), ZERO),
        },
    )


@trap(
    "D05",
    "NaN through where: the branch that is not taken has a slope",
    "a safe value inside: where(x > 0, log(where(x > 0, x, 1)), 0); NaN fails a comparison",
)
def where(torch, jnp):
    """0 times infinity, in both frameworks: a comparison that forgives NaN calls it the same."""

    def safe(xp, x):
        return xp.where(x > 0, xp.log(xp.where(x > 0, x, 1.0)), 0.0)

    return pair(
        torch=slope_in_torch(lambda x: torch.where(x > 0, x.log(), 0.0), ZERO),
        jax=slope_in_jax(lambda x: jnp.where(x > 0, jnp.log(x), 0.0), ZERO),
        mended={
            "torch": slope_in_torch(lambda x: safe(torch, x), ZERO),
            "jax": slope_in_jax(lambda x: safe(jnp, x), ZERO),
        },
    )


@agreement(
    "D06",
    "x ** y at x = 0: the slopes in the exponent and in the base are the same",
    "both give 0 and infinity; where(x > 0, x, 1) before the power keeps either finite",
)
def power(torch, jnp):
    """d 0ʸ/dy at y = 2, and d √x/dx at 0."""
    two = np.array([2.0])
    return pair(
        torch={
            "in y": slope_in_torch(lambda y: torch.zeros(1, dtype=y.dtype) ** y, two),
            "in x": slope_in_torch(lambda x: x**0.5, ZERO),
        },
        jax={
            "in y": slope_in_jax(lambda y: jnp.zeros(1) ** y, two),
            "in x": slope_in_jax(lambda x: x**0.5, ZERO),
        },
    )


@trap(
    "D07",
    "softmax of a row that is all minus infinity is NaN in both",
    "mask with finfo(x.dtype).min before it, and leave no row without an entry",
)
def masked_row(torch, jax, jnp):
    """A fully masked row: both are wrong alike, and parity does not show it."""
    row = np.full(2, -np.inf)
    lowest = np.finfo(np.float64).min
    masked = np.full(2, lowest)
    return pair(
        torch=torch.softmax(torch.tensor(row), -1),
        jax=jax.nn.softmax(jnp.array(row)),
        mended={
            "torch": torch.softmax(torch.tensor(masked), -1),
            "jax": jax.nn.softmax(jnp.array(masked)),
        },
    )


@trap(
    "D08",
    "the slope of xlogy or a·log a at 0",
    "jnp.where(a > 0, a, 1) inside the logarithm, on both sides",
)
def entropy_slope(torch, jax, jnp):
    """xlogy(0, 0) is 0 in both; its slope in the first operand is 0 in PyTorch, log 0 in JAX."""
    y = 0.0

    def safe(xp, a):
        return a * xp.log(xp.where(a > 0, a, 1.0))

    return pair(
        torch=slope_in_torch(lambda a: torch.special.xlogy(a, torch.tensor(y)), ZERO),
        jax=slope_in_jax(lambda a: jax.scipy.special.xlogy(a, y), ZERO),
        mended={
            "torch": slope_in_torch(lambda a: safe(torch, a), ZERO),
            "jax": slope_in_jax(lambda a: safe(jnp, a), ZERO),
        },
    )


@agreement(
    "D09",
    "the slope of cumprod with a zero in the chain is the same",
    "both are right there; exp(cumsum(log(x))) is not",
)
def cumulative_product(torch, jnp):
    """A mask or a discount of 0 in a product over time."""
    x = np.array([0.9, 0.0, 0.5])
    return pair(
        torch=slope_in_torch(lambda x: x.cumprod(0), x),
        jax=slope_in_jax(jnp.cumprod, x),
    )


@trap(
    "D10",
    "gradients in complex numbers are conjugates of each other",
    "jnp.conj(jax.grad(f)(z)) is torch's gradient",
)
def complex_slope(torch, jax, jnp):
    """Of |z|² at 1 + 2i: PyTorch's points along the steepest ascent."""
    z = np.array([1.0 + 2.0j])
    slope = slope_in_jax(lambda z: (z * z.conj()).real, z)
    return pair(
        torch=slope_in_torch(lambda z: (z * z.conj()).real, z),
        jax=slope,
        mended={"jax": jnp.conj(slope)},
    )


@agreement(
    "D11",
    "the slope of min or max of two equal values",
    "torch.minimum <-> jnp.minimum, not where(a < b, a, b)",
)
def equal_pair(torch, jnp):
    """Both give half to each, as PPO's minimum of two equal surrogates has it."""
    x = np.array([1.0, 1.0])
    return pair(
        torch=slope_in_torch(lambda x: torch.minimum(x[0], x[1]), x),
        jax=slope_in_jax(lambda x: jnp.minimum(x[0], x[1]), x),
    )
