"""Means, spreads and normalisation."""

import numpy as np

from parity.traps.entries import pair, trap
from parity.traps.slopes import slope_in_jax, slope_in_torch

ROWS = np.array([1.0, 2.0, 4.0, 8.0])


@trap(
    "B01",
    "std and var divide by n - 1 in PyTorch, by n in jax.numpy",
    "jnp.std(x, ddof=1), or torch.std(x, correction=0); likewise var",
)
def spread(torch, jnp):
    """PyTorch's default is the unbiased estimate, NumPy's and so JAX's that of the population."""
    return pair(
        torch=torch.tensor(ROWS).std(),
        jax=jnp.array(ROWS).std(),
        mended={"jax": jnp.array(ROWS).std(ddof=1)},
    )


@trap(
    "B02",
    "std of one element is NaN in PyTorch, 0 in jax.numpy",
    "guard n == 1, or torch.std(x, correction=0) and jnp.std(x)",
)
def spread_of_one(torch, jnp):
    """An episode of one step: n - 1 is 0."""
    return pair(
        torch=torch.tensor([3.0], dtype=torch.float64).std(),
        jax=jnp.array([3.0]).std(),
        mended={"torch": torch.tensor([3.0], dtype=torch.float64).std(correction=0)},
    )


@trap(
    "B03",
    "the slope of std at zero variance: 0 in PyTorch, NaN in JAX",
    "jnp.sqrt(jnp.var(x) + eps) on both sides",
)
def slope_of_no_spread(torch, jnp):
    """Equal returns: √v has an infinite slope at v = 0, which JAX multiplies by 0."""
    x = np.ones(3)
    return pair(
        torch=slope_in_torch(lambda x: x.std(), x),
        jax=slope_in_jax(lambda x: x.std(), x),
        mended={
            "torch": slope_in_torch(lambda x: torch.sqrt(x.var() + 1e-8), x),
            "jax": slope_in_jax(lambda x: jnp.sqrt(x.var() + 1e-8), x),
        },
    )


@trap(
    "B04",
    "the slope of a norm at the zero vector: 0 in PyTorch, NaN in JAX",
    "jnp.sqrt(jnp.sum(x * x) + eps) on both sides, or optax.safe_norm",
)
def slope_of_no_norm(torch, jnp):
    """PyTorch has a subgradient there, JAX divides 0 by 0."""
    x = np.zeros(2)
    return pair(
        torch=slope_in_torch(lambda x: x.norm(), x),
        jax=slope_in_jax(jnp.linalg.norm, x),
        mended={
            "torch": slope_in_torch(lambda x: torch.sqrt((x * x).sum() + 1e-8), x),
            "jax": slope_in_jax(lambda x: jnp.sqrt((x * x).sum() + 1e-8), x),
        },
    )


@trap(
    "B05",
    "the epsilon of a normalisation: 1e-5 in PyTorch, 1e-6 in Flax",
    "flax.linen.LayerNorm(epsilon=1e-5), or torch.nn.LayerNorm(n, eps=1e-6)",
)
def normalisation_epsilon(torch, F, linen):
    """It shows where the variance is not large beside it."""
    x = np.array([[1e-3, -1e-3]])
    plain = {"use_bias": False, "use_scale": False}
    return pair(
        torch=F.layer_norm(torch.tensor(x), (2,)),
        jax=linen.LayerNorm(**plain).apply({}, x),
        mended={"jax": linen.LayerNorm(epsilon=1e-5, **plain).apply({}, x)},
    )


@trap(
    "B06",
    "Flax's fast variance E[x²] - E[x]² cancels",
    "flax.linen.LayerNorm(epsilon=1e-5, use_fast_variance=False)",
    x64=False,
)
def fast_variance(torch, F, linen):
    """In float32, with a mean a thousand times the spread."""
    x = np.array([[4095.0, 4096.0, 4097.0, 4098.0]], np.float32)
    plain = {"epsilon": 1e-5, "use_bias": False, "use_scale": False}
    return pair(
        torch=F.layer_norm(torch.tensor(x), (4,)),
        jax=linen.LayerNorm(**plain).apply({}, x),
        mended={"jax": linen.LayerNorm(use_fast_variance=False, **plain).apply({}, x)},
    )


@trap(
    "B07",
    "BatchNorm: momentum means the opposite, and only PyTorch's running var is unbiased",
    "flax momentum = 1 - torch momentum; scale the batch's var by n/(n-1) for running stats",
)
def running_statistics(torch, linen):
    """PyTorch's 0.1 is the weight of what is new, Flax's 0.99 of what is kept."""
    x, n = ROWS[:, None], len(ROWS)
    norm = torch.nn.BatchNorm1d(1, dtype=torch.float64)
    norm(torch.tensor(x))

    def running(momentum):
        layer = linen.BatchNorm(
            use_running_average=False, momentum=momentum, use_bias=False, use_scale=False
        )
        fresh = {"batch_stats": {"mean": np.zeros(1), "var": np.ones(1)}}
        return layer.apply(fresh, x, mutable="batch_stats")[1]["batch_stats"]

    kept = running(0.9)
    unbiased = 0.9 + (kept["var"] - 0.9) * n / (n - 1)
    return pair(
        torch={"mean": norm.running_mean, "var": norm.running_var},
        jax=running(0.99),
        mended={"jax": {"mean": kept["mean"], "var": unbiased}},
    )


@trap(
    "B08",
    "median of an even count: the lower one in PyTorch, the mean of two in jax.numpy",
    "torch.quantile(x, 0.5) for jnp.median(x), or jnp.sort(x)[(n - 1) // 2]",
)
def median(torch, jnp):
    """Of four values PyTorch's is the second."""
    return pair(
        torch=torch.tensor(ROWS).median(),
        jax=jnp.median(jnp.array(ROWS)),
        mended={"torch": torch.quantile(torch.tensor(ROWS), 0.5)},
    )
