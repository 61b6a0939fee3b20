"""Variants of Adam, what float32 does to it over time, and Nesterov's momentum."""

import numpy as np

from parity.traps.descents import GRADIENTS, START, descend_in_optax, descend_in_torch
from parity.traps.entries import agreement, pair, trap


@trap(
    "A15",
    "AMSGrad: PyTorch keeps the largest raw second moment, optax the largest corrected one",
    "correct the largest raw one: jnp.maximum(largest, v) / (1 - b2 ** t)",
)
def amsgrad(torch, jnp, optax):
    """Early corrections are large, so optax's maximum is soon one of the first steps'."""

    def as_in_torch():
        p, m, v, largest = START, 0.0, 0.0, 0.0
        for t, g in enumerate(jnp.array(GRADIENTS), start=1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            largest = jnp.maximum(largest, v)
            p = p - 0.1 * m / (1 - 0.9**t) / (jnp.sqrt(largest / (1 - 0.999**t)) + 1e-8)
        return p

    return pair(
        torch=descend_in_torch(lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True)),
        jax=descend_in_optax(optax.amsgrad(0.1)),
        mended={"jax": as_in_torch()},
    )


@trap(
    "A16",
    "NAdam: PyTorch's momentum follows a schedule, optax.nadam's does not",
    "write the schedule by hand: b1 * (1 - 0.96 ** (0.004 * t) / 2) in the place of b1",
)
def nadam(torch, jnp, optax):
    """The schedule is that of Dozat's paper; optax looks ahead with b1 itself."""

    def momentum(t):
        return 0.9 * (1 - 0.5 * 0.96 ** (0.004 * t))

    def as_in_torch():
        p, m, v, product = START, 0.0, 0.0, np.float32(1)  # PyTorch keeps it in float32
        for t, g in enumerate(jnp.array(GRADIENTS), start=1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            product = product * np.float32(momentum(t))
            now = (1 - momentum(t)) * g / (1 - float(product))
            ahead = momentum(t + 1) * m / (1 - float(product) * momentum(t + 1))
            p = p - 0.1 * (now + ahead) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return p

    return pair(
        torch=descend_in_torch(lambda p: torch.optim.NAdam(p, lr=0.1)),
        jax=descend_in_optax(optax.nadam(0.1)),
        mended={"jax": as_in_torch()},
    )


@agreement(
    "A17",
    "SGD with Nesterov's momentum is the same in both",
    "optax.sgd(lr, momentum=m, nesterov=True) is torch.optim.SGD(..., nesterov=True)",
)
def nesterov(torch, optax):
    """Both look ahead by the momentum of the new buffer."""
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
        jax=descend_in_optax(optax.sgd(0.1, momentum=0.9, nesterov=True)),
    )


@trap(
    "A18",
    "Adam's float32 bias correction is off for hundreds of steps, not in the first alone",
    "correct with a float64 b: 1 - np.float64(b) ** t, as pgjax.adam does",
    x64=False,
)
def adam_over_time(torch, optax, pgjax):
    """The mean of the first 1, 10, 100 and 500 updates, each of which is −1 but for rounding.

    The gradient is 1 at every step. So is the rate: whole numbers of this size are exact.
    """
    counts = np.array([[1], [10], [100], [500]], np.float32)
    steps = counts[:, 0].astype(int) - 1
    ones = {
        "start": np.zeros(1, np.float32),
        "gradients": np.ones((500, 1), np.float32),
        "at": steps,
    }
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.Adam(p, lr=1.0), **ones) / counts,
        jax=descend_in_optax(optax.adam(1.0), **ones) / counts,
        mended={"jax": descend_in_optax(pgjax.adam(1.0), **ones) / counts},
    )
