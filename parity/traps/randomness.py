"""Random numbers, and choices among equals."""

import numpy as np

from parity.traps.entries import agreement, pair, trap, warning

NOISE = np.random.default_rng(0).normal(size=3)


@trap(
    "C08",
    "the same seed gives other numbers",
    "draw the noise once, in NumPy, and hand it to both: parity.NoiseTape",
)
def same_seed(torch, jax, jnp):
    """The generators are unlike: no seed makes one framework draw what the other does."""
    return pair(
        torch=torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        jax=jax.random.normal(jax.random.key(0), (3,)),
        mended={"torch": torch.tensor(NOISE), "jax": jnp.array(NOISE)},
    )


@warning(
    "C09",
    "the largest number that a float32 normal sampler can give",
    "hand the noise in, and compare no extreme quantiles",
    x64=False,
)
def largest_normal(jnp, lax):
    """JAX takes erf⁻¹ of a uniform number below 1; PyTorch's is Box and Muller's √(-2 ln u).

    PyTorch's smallest u is 2⁻²⁴; the largest uniform number of JAX is the one next to 1.
    """
    below_one = np.nextafter(np.float32(1), np.float32(0))
    return pair(
        torch=np.float32(np.sqrt(-2 * np.log(2.0**-24))),
        jax=jnp.sqrt(jnp.float32(2)) * lax.erf_inv(jnp.array(below_one)),
    )


@agreement(
    "C10",
    "ties: PyTorch and JAX take the first of equal choices",
    "jnp.argmax(x, -1) <-> torch.argmax(x, -1), flipped on neither side",
)
def ties(torch, jnp):
    """On a CPU; NaN wins over any number in both."""
    x = np.array([[1.0, 3.0, 3.0], [1.0, np.nan, 3.0]])
    return pair(torch=torch.tensor(x).argmax(-1), jax=jnp.argmax(jnp.array(x), -1))


@trap(
    "C12",
    "a key that is used twice gives the same noise twice",
    "jax.random.split the key before each use",
)
def key_used_twice(torch, jax):
    """Whether two draws, one after the other, are the same."""
    generator = torch.Generator().manual_seed(0)
    key = jax.random.key(0)
    one, other = jax.random.split(key)

    def alike(draw, *sources):
        return bool((draw(sources[0]) == draw(sources[1])).all())

    return pair(
        torch=alike(lambda g: torch.randn(3, generator=g), generator, generator),
        jax=alike(lambda key: jax.random.normal(key, (3,)), key, key),
        mended={"jax": alike(lambda key: jax.random.normal(key, (3,)), one, other)},
    )


@warning(
    "C13",
    "JAX's random numbers depend on its version and on jax_threefry_partitionable",
    "keep the noise itself in files, not the seed",
)
def partitionable(jax):
    """Both sides are JAX; the setting's default was changed between releases."""

    def drawn(setting):
        with jax.threefry_partitionable(setting):
            return jax.random.normal(jax.random.key(0), (3,))

    return pair(partitionable=drawn(True), otherwise=drawn(False))


@trap(
    "C14",
    "the order of equal values: torch.topk has none that is promised, lax.top_k the first",
    "torch.sort(x, stable=True, descending=True), or break ties by a second key",
)
def order_of_equals(torch, jnp, lax):
    """The places of the three largest of 64 equal values."""
    x = np.zeros(64, np.float32)
    stable = torch.sort(torch.tensor(x), stable=True, descending=True)
    return pair(
        torch=torch.topk(torch.tensor(x), 3).indices,
        jax=lax.top_k(jnp.array(x), 3)[1],
        mended={"torch": stable.indices[:3]},
    )
