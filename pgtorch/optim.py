"""Optimizers: torch's own, as functions that still wait for the parameters.

An optimizer here is any callable from parameters to a `torch.optim.Optimizer`, so that
`functools.partial(torch.optim.SGD, lr=0.1)` is one as it stands.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pgcore.config import TrainConfig
from pgcore.errors import UsageError, require, require_betas, require_learning_rate


def adam(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Callable[..., torch.optim.Optimizer]:
    """`torch.optim.Adam` (Kingma & Ba 2015), for the gradient g of update t.

    m ← b1 · m + (1 − b1) · g, v ← b2 · v + (1 − b2) · g²,
    p ← p − learning_rate · m / (1 − b1ᵗ) / (√(v / (1 − b2ᵗ)) + eps).

    Raises:
        UsageError: `learning_rate` is a schedule, or one of these is out of range.
    """
    if callable(learning_rate):
        raise UsageError(
            f"learning_rate is a function, {learning_rate!r}, accepted is a number; to follow a "
            "schedule, step a torch.optim.lr_scheduler on the state's opt_state"
        )
    if not isinstance(learning_rate, Tensor):
        require_learning_rate(learning_rate)
    require_betas(b1, b2)
    return partial(torch.optim.Adam, lr=learning_rate, betas=(b1, b2), eps=eps)


def clip_by_global_norm(max_norm: float) -> Callable[[Iterable[Tensor]], Float[Tensor, ""]]:
    """Clips by the norm over all parameters together: g ← g · min(1, max_norm / (‖g‖ + 1e-6)).

    Returns a function of the parameters that changes their gradients in place and returns ‖g‖:
    `torch.nn.utils.clip_grad_norm_`.

    Raises:
        UsageError: `max_norm` is not above 0.
    """
    require(max_norm > 0, "max_norm", max_norm, "a number above 0")
    return partial(torch.nn.utils.clip_grad_norm_, max_norm=max_norm)


class _Chain(NamedTuple):
    """An optimizer, and the clips that `update_step` applies before each of its steps.

    (A hook on the optimizer would be lost when a state is copied.)
    """

    clips: tuple[Callable[..., Any], ...]
    optimizer: Callable[..., torch.optim.Optimizer]

    def __call__(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        stepper = self.optimizer(parameters)
        require(
            isinstance(stepper, torch.optim.Optimizer),
            "the last transform of chain",
            self.optimizer,
            "one that makes a torch.optim.Optimizer, with the clips before it",
        )
        return stepper


def chain(*transforms: Any) -> Callable[..., torch.optim.Optimizer]:
    """An optimizer with gradient transforms before it: `chain(*clips, optimizer)`.

    `update_step` applies the transforms in order, and then steps.

    Raises:
        UsageError: When it is given the parameters, if the last transform makes no optimizer.
    """
    *clips, optimizer = transforms
    return _Chain(tuple(clips), optimizer)


def make_optimizer(config: TrainConfig) -> Callable[..., torch.optim.Optimizer]:
    """Adam at the config's learning rate, clipped if the config names a `max_grad_norm`."""
    optimizer = adam(config.learning_rate)
    if config.max_grad_norm is None:
        return optimizer
    return chain(clip_by_global_norm(config.max_grad_norm), optimizer)
