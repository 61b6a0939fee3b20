"""CartPole-v1 as pure functions, the operations in Gymnasium's order, generic in dtype.

Source: Gymnasium's `classic_control/cartpole.py`, after Barto, Sutton and Anderson (1983) and
Florian (2005), "Correct equations for the dynamics of the cart-pole system".
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pgcore.envs.gym import CARTPOLE_RESET_BOUND
from pgcore.errors import is_int, require
from pgjax.envs.base import Env
from pgjax.threefry import draw, uniform

GRAVITY = 9.8  # m/s²
CART_MASS = 1.0  # kg
POLE_MASS = 0.1  # kg
TOTAL_MASS = POLE_MASS + CART_MASS
HALF_POLE_LENGTH = 0.5  # m
POLE_MASS_LENGTH = POLE_MASS * HALF_POLE_LENGTH
FORCE = 10.0  # N
TIME_STEP = 0.02  # s
X_LIMIT = 2.4  # m
THETA_LIMIT_RAD = 12 * 2 * math.pi / 360


class CartPoleState(NamedTuple):
    """`physics` is `(x, ẋ, θ, θ̇)` in metres, radians and seconds; `time` counts steps."""

    physics: Float[Array, "*batch 4"]
    time: Int[Array, "*batch"]


def reset(noise: Float[Array, "*batch 4"]) -> tuple[CartPoleState, Float[Array, "*batch 4"]]:
    """Starts episodes. The noise *is* the initial state."""
    return CartPoleState(noise, jnp.zeros_like(noise[..., 0], jnp.int32)), _observe(noise)


def step(
    state: CartPoleState, action: Int[Array, "*batch"], max_steps: int = 500
) -> tuple[
    CartPoleState,
    Float[Array, "*batch 4"],
    Float[Array, "*batch"],
    Bool[Array, "*batch"],
    Bool[Array, "*batch"],
]:
    """One explicit Euler step of 0.02 s under a push of 10 N to the right (1) or left (0).

    Returns:
        state, obs (float32), reward (1, the last step's included), terminated (|x| > 2.4 m or
        |θ| > 12°), truncated (`max_steps` reached; both can hold at once).
    """
    physics = jnp.moveaxis(state.physics, -1, 0)
    physics = _move(physics, action == 1, lambda theta: (jnp.sin(theta), jnp.cos(theta)))
    terminated = _is_out(physics[0], physics[2])
    physics = jnp.stack(physics, axis=-1)
    time = state.time + 1
    truncated = time >= max_steps
    reward = jnp.ones_like(physics[..., 0])
    return CartPoleState(physics, time), _observe(physics), reward, terminated, truncated


def _move(
    physics: Float[Array, "4 *batch"],
    is_right: Bool[Array, "*batch"],
    sin_and_cos: Callable[[Array], tuple[Array, Array]],
) -> tuple[Array, Array, Array, Array]:
    """The equations of motion and the Euler step."""
    x, x_dot, theta, theta_dot = physics
    force = jnp.where(is_right, FORCE, -FORCE).astype(x.dtype)
    sin, cos = sin_and_cos(theta)

    temp = (force + POLE_MASS_LENGTH * jnp.square(theta_dot) * sin) / TOTAL_MASS
    theta_acc = (GRAVITY * sin - cos * temp) / (
        HALF_POLE_LENGTH * (4.0 / 3.0 - POLE_MASS * jnp.square(cos) / TOTAL_MASS)
    )
    x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS

    return (
        x + TIME_STEP * x_dot,
        x_dot + TIME_STEP * x_acc,
        theta + TIME_STEP * theta_dot,
        theta_dot + TIME_STEP * theta_acc,
    )


def _is_out(x: Float[Array, "*batch"], theta: Float[Array, "*batch"]) -> Bool[Array, "*batch"]:
    return (jnp.abs(x) > X_LIMIT) | (jnp.abs(theta) > THETA_LIMIT_RAD)


def _is_cartpole(env: Env) -> bool:
    """Whether these are this module's functions, as `CartPole` puts them together."""
    return (
        isinstance(env.step, functools.partial)
        and env.step.func is step
        and env.step.keywords == {"max_steps": env.max_steps}
        and (env.reset, env.draw_reset) == (reset, draw_reset)
    )


def draw_reset(key: Array, num_episodes: int) -> Float[Array, "B 4"]:
    """Initial states, uniform within ±0.05 in each dimension."""
    bound = CARTPOLE_RESET_BOUND
    return draw(uniform, key, (num_episodes, 4), low=-bound, high=bound)


def CartPole(max_steps: int = 500) -> Env:
    """CartPole-v1 as an `Env`.

    Raises:
        UsageError: `max_steps` is no number of steps.
    """
    require(is_int(max_steps, 1), "max_steps", max_steps, "an integer of at least 1")
    return Env(
        reset=reset,
        step=functools.partial(step, max_steps=max_steps),
        draw_reset=draw_reset,
        obs_dim=4,
        num_actions=2,
        max_steps=max_steps,
    )


def _observe(physics: Float[Array, "*batch 4"]) -> Float[Array, "*batch 4"]:
    """The observation is the state rounded to float32, whatever the state's dtype."""
    return physics.astype(jnp.float32)
