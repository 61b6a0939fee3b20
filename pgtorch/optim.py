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
from pgcore.errors import is_real, require, require_betas, require_learning_rate


def adam(
    learning_rate: float | Callable[[int], Any],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Callable[..., torch.optim.Optimizer]:
    """`torch.optim.Adam` (Kingma & Ba 2015), for the gradient g of update t.

    m ← b1 · m + (1 − b1) · g, v ← b2 · v + (1 − b2) · g²,
    p ← p − learning_rate · m / (1 − b1ᵗ) / (√(v / (1 − b2ᵗ)) + eps).

    A schedule is a function from the number of updates made before, so 0 at the first, to the
    learning rate.

    Raises:
        UsageError: One of these is out of range, or, when it is called, what a schedule returns.
    """
    require_betas(b1, b2)
    if callable(learning_rate):
        return partial(_ScheduledAdam, schedule=learning_rate, betas=(b1, b2), eps=eps)
    if not isinstance(learning_rate, Tensor):
        require_learning_rate(learning_rate)
    return partial(torch.optim.Adam, lr=learning_rate, betas=(b1, b2), eps=eps)


class _ScheduledAdam(torch.optim.Adam):
    """torch's Adam, which asks a schedule for the learning rate before each step.

    The count is that of Adam's own state: a state that is copied or loaded goes on where it was.
    (A hook is lost when a state is copied, and a scheduler beside the optimizer is not copied.)
    """

    def __init__(
        self, params: Iterable[Tensor], schedule: Callable[[int], Any], **options: Any
    ) -> None:
        self.schedule = schedule
        super().__init__(params, lr=self._rate(0), **options)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"schedule": self.schedule}

    def step(self, closure: Any = None) -> Any:
        count = max((int(state["step"]) for state in self.state.values()), default=0)
        for group in self.param_groups:
            group["lr"] = self._rate(count)
        # torch runs an optimizer's hooks around this method already, and around Adam's own.
        step: Any = torch.optim.Adam.step
        return (step.__wrapped__ if getattr(step, "hooked", False) else step)(self, closure)

    def _rate(self, count: int) -> float:
        rate = self.schedule(count)
        value = rate.item() if isinstance(rate, Tensor) and rate.ndim == 0 else rate
        is_rate = is_real(value) and value >= 0
        require(is_rate, f"learning_rate({count})", rate, "a finite number, 0 or above")
        return float(value)


def clip_by_global_norm(max_norm: float) -> Callable[[Iterable[Tensor]], Float[Tensor, ""]]:
    """Clips by the norm over all parameters together: g ← g · min(1, max_norm / (‖g‖ + 1e-6)).

    Returns a function of the parameters that changes their gradients in place and returns ‖g‖:
    `torch.nn.utils.clip_grad_norm_`. A norm beyond the largest number of the dtype makes every
    gradient 0: in float32 from gradients of 1e19 on.

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
