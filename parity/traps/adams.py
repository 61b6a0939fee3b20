"""Variants of Adam, what float32 does to it over time, and Nesterov's momentum."""

import numpy as np

from parity.traps.descents import descend_in_optax, descend_in_torch
from parity.traps.entries import agreement, pair, trap, warning


@warning(
    "A15",
    "AMSGrad: PyTorch keeps the largest raw second moment, optax the largest corrected one",
    "write PyTorch's as an optax transformation, or compare without amsgrad",
)
def amsgrad(torch, optax):
    """Early corrections are large, so optax's maximum is soon one of the first steps'."""
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True)),
        jax=descend_in_optax(optax.amsgrad(0.1)),
    )


@warning(
    "A16",
    "NAdam: PyTorch's momentum follows a schedule, optax.nadam's does not",
    "write the schedule of torch.optim.NAdam by hand: momentum_decay is 4e-3",
)
def nadam(torch, optax):
    """PyTorch has b1 · (1 − 0.96^(t · momentum_decay) / 2) in the place of b1."""
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.NAdam(p, lr=0.1)),
        jax=descend_in_optax(optax.nadam(0.1)),
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
