"""A few steps of an optimizer in either framework, from the same start on the same gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

START = np.array([1.0, -0.5])
GRADIENTS = np.random.default_rng(0).normal(size=(20, 2))


def descend_in_torch(
    optimizer: Callable[[list[Any]], Any],
    start: np.ndarray = START,
    gradients: Sequence[np.ndarray] | np.ndarray = GRADIENTS,
    rates: Sequence[float] = (),
    at: Any = -1,
) -> np.ndarray:
    """The parameters after the last step, or after those at other places.

    `optimizer` makes torch's of a list of parameters; `rates` are the learning rates of the steps.
    """
    import torch

    parameter = torch.tensor(start, requires_grad=True)
    steps = optimizer([parameter])
    found = []
    for step, gradient in enumerate(gradients):
        if rates:
            steps.param_groups[0]["lr"] = rates[step]
        parameter.grad = torch.tensor(gradient)
        steps.step()
        found.append(parameter.detach().numpy().copy())
    return np.array(found)[at]


def descend_in_optax(
    optimizer: Any,
    start: np.ndarray = START,
    gradients: Sequence[np.ndarray] | np.ndarray = GRADIENTS,
    at: Any = -1,
) -> Any:
    """The parameters after the last step of an optax transformation, or after other ones."""
    import jax

    def step(carry: Any, gradient: Any) -> Any:
        parameters, state = carry
        updates, state = optimizer.update(gradient, state, parameters)
        parameters = parameters + updates
        return (parameters, state), parameters

    @jax.jit
    def descend(start: Any, gradients: Any) -> Any:
        return jax.lax.scan(step, (start, optimizer.init(start)), gradients)[1]

    return descend(start, np.array(gradients))[at]
