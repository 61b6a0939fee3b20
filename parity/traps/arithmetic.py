"""Floating-point arithmetic: what the processor and the compilers do to numbers."""

import numpy as np

from parity.sides import arithmetic
from parity.traps.entries import pair, trap, warning

MANY = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
ONE = np.float32(1)
DISCOUNT = 0.99


def ulps(found, exact) -> float:
    """The largest error of float32 numbers in units of their last place."""
    size = np.spacing(np.abs(exact).astype(np.float32))
    return float(np.round((np.abs(np.asarray(found, np.float64) - exact) / size).max(), 2))


@trap(
    "G01",
    "numbers below the smallest normal one are 0 in XLA",
    "torch.set_flush_denormal(True), or keep |x| > 1.2e-38 (2.2e-308 in float64)",
    x64=False,
)
def subnormals(torch, jnp):
    """Powers of a discount get there. PyTorch keeps them unless it is told otherwise."""
    x = np.array([2e-38, 1.0], np.float32)

    def halved(flush):
        with arithmetic(flush=flush):
            return (torch.tensor(x) * 0.5)[:1]

    return pair(
        torch=halved(False),
        jax=(jnp.array(x) * 0.5)[:1],
        mended={"torch": halved(True)},
    )


@trap(
    "G02",
    "a * b + c is rounded once under jit, and twice without",
    "hold jitted code to a tolerance and to float64; eager JAX rounds as PyTorch does",
    x64=False,
)
def fused(torch, jax, jnp):
    """A fused multiply-add is the more exact of the two; (1 + u)² - 1 - 2u is u² = 2⁻²⁴."""
    a, c = np.array(1 + 2.0**-12, np.float32), np.array(-1 - 2.0**-11, np.float32)
    t, j = torch.tensor(a), jnp.array(a)
    return pair(
        torch=t * t + torch.tensor(c),
        jax=jax.jit(lambda a, b, c: a * b + c)(j, j, c),
        mended={"jax": j * j + c},
    )


@trap(
    "G03",
    "XLA computes otherwise under jit: log(exp(x)) is x",
    "compare eager and jitted JAX, both: an overflow need not show under jit",
    x64=False,
    before="jax 0.11",
)
def rewritten(torch, jax, jnp):
    """In float32 exp(100) is infinite, and so is its logarithm.

    From jax 0.11 on it is under jit too; G13 is what XLA rewrites still.
    """
    x = np.array(100.0, np.float32)
    return pair(
        torch=torch.tensor(x).exp().log(),
        jax=jax.jit(lambda x: jnp.log(jnp.exp(x)))(x),
        mended={"jax": jnp.log(jnp.exp(jnp.array(x)))},
    )


@trap(
    "G04",
    "division by a number: XLA multiplies by its inverse",
    "leave room for more than one unit in the last place, or divide by an array of that shape",
    x64=False,
)
def divided(torch, jax):
    """The largest error of an array over a scalar, as in (x - mean) / std, in units."""
    c = np.float32(0.7)
    exact = MANY.astype(np.float64) / np.float64(c)
    quotient = jax.jit(lambda x, c: x / c)
    return pair(
        torch=ulps(torch.tensor(MANY) / torch.tensor(c), exact),
        jax=ulps(quotient(MANY, c), exact),
        mended={"jax": ulps(quotient(MANY, np.full_like(MANY, c)), exact)},
    )


@warning(
    "G05",
    "exp, log, tanh and others are off by other amounts",
    "a bound for each function, rather than one relative tolerance",
    x64=False,
)
def functions(torch, F, jax, jnp):
    """The largest error of each over 20,001 points, in units in the last place."""
    x = np.linspace(-8, 8, 20001, dtype=np.float32)
    wide = x.astype(np.float64)
    exact = {
        "exp": np.exp(wide),
        "tanh": np.tanh(wide),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "softplus": np.log1p(np.exp(wide)),
        "sin": np.sin(wide),
    }
    t, j = torch.tensor(x), jnp.array(x)
    in_torch = (t.exp(), t.tanh(), t.sigmoid(), F.softplus(t), t.sin())
    in_jax = (jnp.exp(j), jnp.tanh(j), jax.nn.sigmoid(j), jax.nn.softplus(j), jnp.sin(j))
    return pair(
        torch={name: ulps(y, exact[name]) for name, y in zip(exact, in_torch, strict=True)},
        jax={name: ulps(y, exact[name]) for name, y in zip(exact, in_jax, strict=True)},
    )


@warning(
    "G06",
    "tanh is 1 from another x on",
    "clip before atanh, and take the log-determinant in its softplus form",
    x64=False,
)
def saturated(torch, jnp):
    """The first of a hundred thousand points of float32 at which 1 - tanh² is 0."""
    x = np.linspace(7, 10, 100_000, dtype=np.float32)
    return pair(
        torch=x[(torch.tensor(x).tanh() == 1).numpy().argmax()],
        jax=x[np.argmax(np.asarray(jnp.tanh(jnp.array(x))) == 1)],
    )


@trap(
    "G07",
    "sums are taken in another order",
    "compare in float64; in float32 leave room for √n · eps · Σ|x|",
    x64=False,
)
def order_of_sums(torch, jax, jnp):
    """The sum and the last running sum of a hundred thousand numbers, to the last bit."""

    def in_torch(x):
        return {"sum": x.sum(), "cumsum": x.cumsum(0)[-1]}

    def in_jax(x):
        return {"sum": x.sum(), "cumsum": x.cumsum()[-1]}

    with jax.enable_x64(True):
        exact = in_jax(jnp.array(MANY.astype(np.float64)))
    return pair(
        torch=in_torch(torch.tensor(MANY)),
        jax=in_jax(jnp.array(MANY)),
        exact=True,
        mended={"torch": in_torch(torch.tensor(MANY).double()), "jax": exact},
    )


@trap(
    "G08",
    "a product of matrices is summed in another order",
    "|error| <= gamma_K · |A||B| entry by entry; on a GPU highest precision on both sides",
    x64=False,
)
def product(torch, jax, jnp):
    """Rows of 512 numbers, to the last bit. A relative tolerance fails where entries cancel."""
    a, b = MANY[: 64 * 512].reshape(64, 512), MANY[-512 * 64 :].reshape(512, 64)
    with jax.enable_x64(True):
        exact = jnp.array(a.astype(np.float64)) @ jnp.array(b.astype(np.float64))
    return pair(
        torch=(torch.tensor(a) @ torch.tensor(b))[0, :3],
        jax=(jnp.array(a) @ jnp.array(b))[0, :3],
        exact=True,
        mended={
            "torch": (torch.tensor(a).double() @ torch.tensor(b).double())[0, :3],
            "jax": exact[0, :3],
        },
    )


@trap(
    "G09",
    "on a GPU JAX multiplies matrices in TF32 by default, PyTorch only convolves in it",
    "jax.config.update('jax_default_matmul_precision', 'highest'), and "
    "torch.backends.cudnn.allow_tf32 = False",
)
def fast_products(torch, jax):
    """The settings, which decide it on a GPU that has TF32; a CPU has not."""
    in_torch = torch.get_float32_matmul_precision()
    in_jax = jax.config.jax_default_matmul_precision or "the fastest"
    with jax.default_matmul_precision("highest"):
        mended = jax.config.jax_default_matmul_precision
    return pair(torch=in_torch, jax=in_jax, mended={"jax": mended})


@trap(
    "G10",
    "discounted returns by dividing by powers of the discount: they underflow",
    "a reverse recursion on both sides, lax.scan(..., reverse=True)",
    x64=False,
)
def returns(torch, jax, jnp, lax):
    """A thousand steps with a discount of 0.9: 0.9ᵗ is 0 in float32 before the end."""
    rewards, discount = np.ones(1000, np.float32), 0.9
    total, found = torch.zeros(()), []
    for reward in torch.tensor(rewards).flip(0):
        total = reward + discount * total
        found.append(total)

    def step(after, reward):
        here = reward + discount * after
        return here, here

    powers = jnp.float32(discount) ** jnp.arange(len(rewards))
    divided = jnp.cumsum((rewards * powers)[::-1])[::-1] / powers
    ends = np.array([0, -1])
    return pair(
        torch=torch.stack(found).flip(0)[ends],
        jax=divided[ends],
        mended={
            "jax": lax.scan(step, jnp.float32(0), rewards, reverse=True)[1][jnp.array([0, -1])]
        },
    )


@trap(
    "G11",
    "powers of a float32 discount: 0.99 itself is rounded, and a thousand steps show it",
    "compute them in float64, or on the host, and round the result",
    x64=False,
)
def powers(jnp):
    """0.99⁹⁹⁹ of Python's 0.99, as PyTorch's loops have it, and of float32's."""
    exact = np.float32(DISCOUNT**999)
    return pair(
        torch=exact,
        jax=jnp.float32(DISCOUNT) ** 999,
        mended={"jax": jnp.array(np.float64(DISCOUNT) ** 999)},
    )


@trap(
    "G12",
    "hyperparameters: float64 in PyTorch's optimizers, rounded to float32 in JAX",
    "compute with them on the host in float64, and round the result",
    x64=False,
)
def hyperparameters(jnp):
    """1 - 0.999: the rounding of 0.999 is a thousand times larger beside 0.001."""
    return pair(
        torch=np.float32(1 - 0.999),
        jax=1 - jnp.float32(0.999),
        mended={"jax": jnp.array(1 - np.float64(0.999))},
    )


@trap(
    "G13",
    "XLA computes otherwise under jit: constants are gathered, (x + 1e8) - 1e8 is x",
    "jax.lax.optimization_barrier around what is to be rounded by itself; or hand the constants in",
    x64=False,
)
def gathered(torch, jax, jnp, lax):
    """In float32 1e8 + 1 is 1e8. Rounding by adding a large number works only in eager JAX."""
    x, large = np.array([1.0, 3.0], np.float32), 1e8

    def rounded(x):
        return lax.optimization_barrier(x + large) - large

    return pair(
        torch=(torch.tensor(x) + large) - large,
        jax=jax.jit(lambda x: (x + large) - large)(jnp.array(x)),
        mended={"jax": jax.jit(rounded)(jnp.array(x))},
    )
