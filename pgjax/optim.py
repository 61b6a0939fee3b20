"""Optimizers as optax gradient transformations that step as PyTorch's do."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from pgcore.config import TrainConfig
from pgcore.errors import require, require_betas, require_learning_rate
from pgjax.types import TrainState

_CLIP_NORM_EPS = 1e-6
"""`torch.nn.utils.clip_grad_norm_` divides by the norm plus this."""


def adam(
    learning_rate: float | Array | Callable[[Array], Any],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015) as `torch.optim.Adam` computes it:

        m ← b1·m + (1−b1)·g          v ← b2·v + (1−b2)·g²
        update = −lr / (1−b1ᵗ) · m / (√v / √(1−b2ᵗ) + eps)

    A schedule, such as `optax.linear_schedule(…)`, is a function from the number of updates made
    before, so 0 at the first, to the learning rate.

    The state is `optax.ScaleByAdamState(count, mu, nu)`. In float32 `1 − b2ᵗ` cancels and is off
    by 7e-6 at the first step; `−expm1(t · log b2)`, with the logarithm taken in Python's float64,
    is exact to rounding. So `b1` and `b2` are Python numbers; `learning_rate` may be traced.

    Raises:
        UsageError: One of these is out of range, or, when it is called, a schedule does not
            return a number.
    """
    # One may be traced.
    if not callable(learning_rate) and not isinstance(learning_rate, jax.Array | np.ndarray):
        require_learning_rate(learning_rate)
    require_betas(b1, b2)

    def init(params: Any) -> optax.ScaleByAdamState:
        return optax.ScaleByAdamState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count = jnp.asarray(optax.safe_increment(state.count))
        rate = _rate(learning_rate, state.count)
        mu = jax.tree.map(lambda m, g: _lerp(m, g, 1 - b1), state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)

        def step(m: Array, v: Array) -> Array:
            # A schedule's own dtype is not to change the parameters'.
            step_size = jnp.asarray(rate, m.dtype) / _one_minus_power(b1, count, m.dtype)
            root = jnp.sqrt(v) / jnp.sqrt(_one_minus_power(b2, count, v.dtype))
            return -step_size * (m / (root + eps))

        return jax.tree.map(step, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales gradients by `min(1, max_norm / (norm + 1e-6))`, as `clip_grad_norm_` does.

    A norm beyond the largest number of the dtype makes every gradient 0, as in torch: in float32
    from gradients of 1e19 on.

    Raises:
        UsageError: `max_norm` is not above 0.
    """
    if not isinstance(max_norm, jax.Array | np.ndarray):
        require(max_norm > 0, "max_norm", max_norm, "a number above 0")

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factor = jnp.minimum(max_norm / (optax.tree.norm(updates) + _CLIP_NORM_EPS), 1.0)
        return jax.tree.map(lambda g: g * factor, updates), state

    return optax.GradientTransformation(init, update)


def chain(*transforms: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies transformations in order; the optimizer comes last."""
    return optax.chain(*transforms)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The optimizer that a configuration asks for: Adam, clipped if `max_grad_norm` is set."""
    if config.max_grad_norm is None:
        return adam(config.learning_rate)
    return chain(clip_by_global_norm(config.max_grad_norm), adam(config.learning_rate))


def _apply_gradient(
    optimizer: optax.GradientTransformation, state: TrainState, loss: Array, grads: Any
) -> TrainState:
    """The state after the optimizer's step."""
    # Some of optax's transformations are steered by the loss.
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
        grads, state.opt_state, state.params, value=loss, grad=grads
    )
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.update + 1)


def _rate(learning_rate: Any, count: Array) -> Any:
    """The learning rate of the update before which `count` updates were made."""
    if not callable(learning_rate):
        return learning_rate
    # Of 64 bits under x64: optax's schedules compute in a float as wide as their count.
    rate = learning_rate(count.astype(int))
    is_number = isinstance(rate, int | float | jax.Array | np.ndarray | np.number)
    accepted = "a number, the learning rate after that many updates"
    require(is_number and jnp.ndim(rate) == 0, "learning_rate(count)", rate, accepted)
    return rate


def _lerp(start: Array, end: Array, weight: float) -> Array:
    """`start + weight · (end − start)`, rounded as `torch.lerp` rounds it.

    In float32 `b1 · m + (1 − b1) · g` takes the rounding of `b1` along at each update: a constant
    gradient leads m away from it, by 2e-7 with b1 = 0.9 and by 2e-4 with 0.9999.
    """
    if weight < 0.5:
        return start + weight * (end - start)
    return end - (1 - weight) * (end - start)


def _one_minus_power(base: float, count: Int[Array, ""], dtype: Any) -> Float[Array, ""]:
    """`1 − baseᵗ`, which torch computes in Python's float64 whatever the parameters' dtype.

    In float64 it is computed so here: the cancellation is off by 5e-14 at most, and by torch's own
    amount. In float32 nothing may cancel. (`base = 0` has no logarithm; it gives 1.)
    """
    if base == 0:
        return jnp.ones((), dtype)
    if dtype == jnp.float64:
        return 1 - jnp.power(base, count.astype(dtype))
    return -jnp.expm1(count.astype(dtype) * math.log(base))
