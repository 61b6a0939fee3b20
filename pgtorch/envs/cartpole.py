"""CartPole-v1 as a pure function of tensors, operation for operation Gymnasium's.

Barto, Sutton & Anderson 1983; equations of motion as corrected by Florian 2007
(https://coneural.org/florian/papers/05_cart_pole.pdf), without friction.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pgcore.envs.gym import CARTPOLE_RESET_BOUND
from pgcore.errors import is_int, require
from pgtorch.envs.base import Env

GRAVITY = 9.8  # m/s²
CART_MASS = 1.0  # kg
POLE_MASS = 0.1  # kg
TOTAL_MASS = POLE_MASS + CART_MASS
HALF_POLE_LENGTH = 0.5  # m
POLE_MASS_LENGTH = POLE_MASS * HALF_POLE_LENGTH
FORCE = 10.0  # N, of either action
TIME_STEP = 0.02  # s
X_LIMIT = 2.4  # m
THETA_LIMIT_RAD = 12 * 2 * math.pi / 360


class CartPoleState(NamedTuple):
    """Position, velocity, angle and angular velocity, and the steps taken."""

    physics: Float[Tensor, "*batch 4"]
    time: Int[Tensor, "*batch"]


def reset(noise: Float[Tensor, "*batch 4"]) -> tuple[CartPoleState, Float[Tensor, "*batch 4"]]:
    """Starts at `noise`, which is the initial state itself; its dtype is the simulation's."""
    time = torch.zeros(noise.shape[:-1], dtype=torch.int32, device=noise.device)
    return CartPoleState(noise, time), _observe(noise)


def step(
    state: CartPoleState, action: Int[Tensor, "*batch"], max_steps: int = 500
) -> tuple[
    CartPoleState,
    Float[Tensor, "*batch 4"],
    Float[Tensor, "*batch"],
    Bool[Tensor, "*batch"],
    Bool[Tensor, "*batch"],
]:
    """One Euler step of 20 ms under a push to the right (action 1) or to the left (action 0).

    With cart position x, pole angle θ, push F, pole half-length l and masses m (pole), M (total):

    q = (F + m l θ̇² sin θ) / M
    θ̈ = (g sin θ − q cos θ) / (l (4/3 − m cos² θ / M))
    ẍ = q − m l θ̈ cos θ / M

    Ends where |x| > 2.4 m or |θ| > 12° afterwards (terminated), or at `max_steps` (truncated).
    """
    x, x_dot, theta, theta_dot = state.physics.unbind(dim=-1)
    force = torch.where(action == 1, FORCE, -FORCE).to(x)
    cos_theta = torch.cos(theta)
    sin_theta = torch.sin(theta)

    # The order of operations is Gymnasium's, for the same rounding.
    push = (force + POLE_MASS_LENGTH * torch.square(theta_dot) * sin_theta) / TOTAL_MASS
    theta_acc = (GRAVITY * sin_theta - cos_theta * push) / (
        HALF_POLE_LENGTH * (4.0 / 3.0 - POLE_MASS * torch.square(cos_theta) / TOTAL_MASS)
    )
    x_acc = push - POLE_MASS_LENGTH * theta_acc * cos_theta / TOTAL_MASS

    x = x + TIME_STEP * x_dot
    x_dot = x_dot + TIME_STEP * x_acc
    theta = theta + TIME_STEP * theta_dot
    theta_dot = theta_dot + TIME_STEP * theta_acc

    physics = torch.stack((x, x_dot, theta, theta_dot), dim=-1)
    time = state.time + 1
    terminated = (x.abs() > X_LIMIT) | (theta.abs() > THETA_LIMIT_RAD)
    truncated = time >= max_steps
    return (
        CartPoleState(physics, time),
        _observe(physics),
        torch.ones_like(x),
        terminated,
        truncated,
    )


def draw_reset(key: torch.Generator, num_episodes: int) -> Float[Tensor, "B 4"]:
    """Initial states, uniform in ±0.05."""
    uniform = torch.rand((num_episodes, 4), generator=key, device=key.device)
    return CARTPOLE_RESET_BOUND * (2 * uniform - 1)


def CartPole(max_steps: int = 500) -> Env:
    """The environment: 2 actions (push left, push right), reward 1 for every step.

    Raises:
        UsageError: `max_steps` is no number of steps.
    """
    require(is_int(max_steps, 1), "max_steps", max_steps, "an integer of at least 1")
    return Env(
        reset=reset,
        step=partial(step, max_steps=max_steps),
        draw_reset=draw_reset,
        obs_dim=4,
        num_actions=2,
        max_steps=max_steps,
    )


def _observe(physics: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Gymnasium observes the state rounded to float32."""
    return physics.to(torch.float32)
