"""Types of numbers, indices that are out of range, and memory that is shared."""

import numpy as np

from parity.traps.entries import outcome, pair, trap

LARGE = 2**40 + 7
OUTSIDE = 3
ALIGNMENT = 64
"""Bytes. What begins at a multiple of it JAX can use as it lies."""


@trap(
    "F01",
    "float64 becomes float32 in JAX without a word",
    "cast where numbers come in, torch.tensor(x, dtype=torch.float32); or enable x64, and write "
    "no float32 out: jnp.asarray(x, dtype=y.dtype)",
    x64=False,
)
def float64_in(torch, jnp):
    """A third, which float32 rounds."""
    x = np.array(1 / 3)
    return pair(
        torch=str(torch.tensor(x).numpy().dtype),
        jax=str(jnp.array(x).dtype),
        mended={"torch": str(torch.tensor(x, dtype=torch.float32).numpy().dtype)},
    )


@trap(
    "F02",
    "int64 becomes int32 in JAX, and its upper half is lost",
    "count in Python's integers, or enable x64",
    x64=False,
)
def int64_in(torch, jax, jnp):
    """A count of steps, or a seed, of 2⁴⁰ + 7."""
    with jax.enable_x64(True):
        wide = jnp.array(np.array(LARGE))
    return pair(
        torch=torch.tensor(np.array(LARGE)),
        jax=jnp.array(np.array(LARGE)),
        mended={"jax": wide},
    )


@trap(
    "F03",
    "an index out of range raises in PyTorch; JAX takes the last entry",
    "jax.experimental.checkify with index_checks, or .at[i].get(mode='fill', fill_value=jnp.nan)",
)
def index_out_of_range(torch, jnp, checkify):
    """An action that is one too large. (jnp.take and take_along_axis give NaN.)"""
    x, last = np.array([1.0, 2.0, 3.0]), jnp.array(OUTSIDE)
    checked = checkify.checkify(lambda x, i: x[i], errors=checkify.index_checks)
    return pair(
        torch=outcome(lambda: torch.tensor(x)[OUTSIDE]),
        jax=outcome(lambda: jnp.array(x)[last]),
        mended={"jax": outcome(lambda: checked(jnp.array(x), last)[0].throw() or "passes")},
    )


@trap(
    "F04",
    "scatter with an index twice: PyTorch keeps one, JAX adds",
    "x.index_add_(0, i, v) <-> x.at[i].add(v)",
)
def scattered(torch, jnp):
    """x[i] += v reads, adds and writes back: the second write wins."""
    i, v = np.array([0, 0]), np.array([1.0, 1.0])
    assigned, added = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    assigned[torch.tensor(i)] += torch.tensor(v)
    return pair(
        torch=assigned,
        jax=jnp.zeros(2).at[i].add(v),
        mended={"torch": added.index_add_(0, torch.tensor(i), torch.tensor(v))},
    )


@trap(
    "F05",
    "one_hot of a class out of range raises in PyTorch; JAX gives a row of zeros",
    "jax.experimental.checkify.check(action < n, ...), or look at actions before they are used",
)
def one_hot(torch, F, jax, jnp, checkify):
    """A padded action then has no weight, and no error either."""

    def validated(action):
        checkify.check(action < OUTSIDE, "there is no such action")
        return jax.nn.one_hot(action, OUTSIDE)

    action = jnp.array([OUTSIDE])
    return pair(
        torch=outcome(lambda: F.one_hot(torch.tensor([OUTSIDE]), OUTSIDE)),
        jax=outcome(lambda: jax.nn.one_hot(action, OUTSIDE)),
        mended={
            "jax": outcome(lambda: checkify.checkify(validated)(action[0])[0].throw() or "passes")
        },
    )


@trap(
    "F06",
    "integers: torch.mean raises and torch.sum widens; jnp.mean is a float, jnp.sum overflows",
    "cast to a floating type first",
    x64=False,
)
def integers(torch, jnp):
    """Of two int32 numbers whose sum is beyond int32."""
    x = np.array([2**31 - 1, 2**30], np.int32)
    t, j = torch.tensor(x), jnp.array(x)
    return pair(
        torch={"mean": outcome(lambda: t.mean()), "sum": t.sum()},
        jax={"mean": outcome(lambda: j.mean()), "sum": j.sum()},
        mended={
            "torch": {"mean": t.float().mean(), "sum": t.float().sum()},
            "jax": {"mean": j.astype(float).mean(), "sum": j.astype(float).sum()},
        },
    )


@trap(
    "F07",
    "memory is shared: torch.from_numpy always does, jnp.array copies",
    "torch.tensor(x) and jnp.array(x) copy; jnp.asarray may not",
)
def shared_memory(torch, jnp):
    """What each sees after the environment has written 7 into its buffer of observations."""
    room = np.zeros(2 * ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    buffer = room[start : start + 8].view(np.float64)
    shared, copied, in_jax = torch.from_numpy(buffer), torch.tensor(buffer), jnp.array(buffer)
    in_jax.block_until_ready()
    buffer[0] = 7.0
    return pair(torch=shared, jax=in_jax, mended={"torch": copied})


@trap(
    "F08",
    "an array that comes from JAX can't be written into",
    "np.array(x), torch.tensor(np.asarray(x)): a copy, not from_numpy or as_tensor",
)
def read_only(torch, jnp):
    """Whether what NumPy sees of it is writeable. PyTorch wraps it all the same, with a warning."""
    return pair(
        torch=torch.zeros(1).numpy().flags.writeable,
        jax=np.asarray(jnp.zeros(1)).flags.writeable,
        mended={"jax": np.array(jnp.zeros(1)).flags.writeable},
    )


@trap(
    "F09",
    "a NumPy float64 number times a float32 array: float64 in JAX, float32 in PyTorch",
    "float(c) for what is a hyperparameter",
)
def numpy_scalar(torch, jnp):
    """With x64, as in a proof: PyTorch takes it for a plain number, JAX for an array."""
    c, x = np.float64(0.5), np.ones(2, np.float32)
    return pair(
        torch=str((torch.tensor(x) * c).numpy().dtype),
        jax=str((jnp.array(x) * c).dtype),
        mended={"jax": str((jnp.array(x) * float(c)).dtype)},
    )


@trap(
    "F10",
    "1 - done of a truth value raises in PyTorch, and is an integer in JAX",
    "(~done).double() and (~done).astype(float)",
)
def one_minus_done(torch, jnp):
    """PyTorch has no minus for truth values."""
    done = np.array([True, False])
    return pair(
        torch=outcome(lambda: 1 - torch.tensor(done)),
        jax=outcome(lambda: 1 - jnp.array(done)),
        mended={"torch": (~torch.tensor(done)).double(), "jax": (~jnp.array(done)).astype(float)},
    )
