"""The gradient of a function in either framework."""

from collections.abc import Callable
from typing import Any

import numpy as np


def slope_in_torch(function: Callable[[Any], Any], x: np.ndarray) -> Any:
    """The gradient of the sum of what a function of a tensor gives."""
    import torch

    leaf = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def slope_in_jax(function: Callable[[Any], Any], x: np.ndarray) -> Any:
    """The gradient of the sum of what a function of an array gives, jitted."""
    import jax
    import jax.numpy as jnp

    return jax.jit(jax.grad(lambda leaf: jnp.sum(function(leaf))))(jnp.array(x))
