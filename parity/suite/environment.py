"""Stages of CartPole: each step from a given state, against Gymnasium's own environment."""

from functools import cache, partial
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
import torch

from parity.suite.stages import Stage
from pgjax.envs import cartpole as jax_cartpole
from pgtorch.envs import cartpole as torch_cartpole

MAX_STEPS = 500
LIMITS = (1, 20, 200, 1_000)
"""Other numbers of steps than CartPole-v1's own."""
BOUNDS = np.array([5.0, 100.0, 0.5, 100.0])
"""|x| (m), |ẋ| (m/s), |θ| (rad), |θ̇| (rad/s): every state that is asked for."""
X_LIMIT, THETA_LIMIT_RAD = 2.4, 12 * 2 * np.pi / 360
"""Where Gymnasium ends an episode."""
STATES = ("usual", "anywhere", "slow", "corners", "about the limits")
NUM_STATES = 64
PARTS = ("x", "x_dot", "theta", "theta_dot")


def states(
    rng: np.random.Generator, kind: str, max_steps: int = MAX_STEPS
) -> dict[str, np.ndarray]:
    """Inputs `physics [N, 4]`, `time [N]`, `action [N]` of a step.

    `usual`: inside an episode. `slow`: some components of 1e-6 of the bounds. `corners`: at the
    bounds or zero. `about the limits`: the step ends within some ulp (of float64 or of float32) of
    where an episode ends. A quarter of the times are about the step limit.
    """
    uniform = rng.uniform(-1, 1, (NUM_STATES, 4))
    physics = {
        "usual": uniform * [2.4, 2.0, 0.2, 2.0],
        "anywhere": BOUNDS * uniform,
        "slow": BOUNDS * uniform * 10.0 ** rng.uniform(-6, 0, uniform.shape),
        "corners": BOUNDS * rng.choice([-1.0, 0.0, 1.0], uniform.shape),
        "about the limits": _about_the_limits(rng, BOUNDS * uniform),
    }[kind]
    late = np.maximum(rng.integers(max_steps - 3, max_steps + 2, NUM_STATES), 0)
    time = np.where(rng.random(NUM_STATES) < 0.25, late, rng.integers(max_steps, size=NUM_STATES))
    action = rng.integers(2, size=NUM_STATES).astype(np.int32)
    return {"physics": physics, "time": time.astype(np.int32), "action": action}


def _about_the_limits(rng: np.random.Generator, physics: np.ndarray) -> np.ndarray:
    for row in physics:
        component, limit = ((0, X_LIMIT), (2, THETA_LIMIT_RAD))[rng.integers(2)]
        row[component + 1] *= 0.2  # so that the step before lies inside the bounds
        side = rng.choice((-1, 1))
        ulp = np.spacing(np.float32(limit)) if rng.random() < 0.5 else np.spacing(limit)
        row[component] = side * limit - 0.02 * row[component + 1] + rng.integers(-50, 51) * ulp
    return physics


@cache
def step(max_steps: int = MAX_STEPS) -> Stage:
    """Inputs `physics`, `time`, `action`."""

    def outputs(after, rounded, *rest):
        obs, reward, terminated, truncated = rest
        parts = {name: after.physics[..., i] for i, name in enumerate(PARTS)}
        return {
            **parts,
            "time": after.time,
            "obs": obs - rounded,  # bitwise the state after, rounded to float32: a difference of 0
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
        }

    def of_torch(physics, time, action):
        state = torch_cartpole.CartPoleState(physics, time)
        env = torch_cartpole.CartPole(max_steps)
        after, *rest = env.step(state, action)
        limit = {"max_steps": torch.tensor(env.max_steps)}
        return outputs(after, after.physics.to(torch.float32), *rest) | limit

    def of_jax(physics, time, action):
        state = jax_cartpole.CartPoleState(physics, time)
        env = jax_cartpole.CartPole(max_steps)
        after, *rest = env.step(state, action)
        limit = {"max_steps": jnp.asarray(env.max_steps)}
        return outputs(after, after.physics.astype(jnp.float32), *rest) | limit

    def distance(physics, time, action):
        after, *_ = torch_cartpole.step(torch_cartpole.CartPoleState(physics, time), action)
        beyond = torch.stack(
            [after.physics[..., 0].abs() - X_LIMIT, after.physics[..., 2].abs() - THETA_LIMIT_RAD]
        )
        return beyond.amax(dim=0)

    return Stage(
        "environment step" if max_steps == MAX_STEPS else "environment limit",
        of_torch,
        of_jax,
        partial(_in_gymnasium, max_steps),
        decided_by={"terminated": distance},
    )


def _in_gymnasium(
    max_steps: int, physics: np.ndarray, time: np.ndarray, action: np.ndarray
) -> dict[str, Any]:
    """The same steps by Gymnasium's own CartPole, one state after another."""
    env: Any = gymnasium.make("CartPole-v1", disable_env_checker=True).unwrapped
    rows = []
    for state, push in zip(physics, action, strict=True):
        env.state, env.steps_beyond_terminated = state.copy(), None
        obs, reward, terminated, *_ = env.step(int(push))
        off = obs - np.asarray(env.state, np.float32)
        rows.append((*np.asarray(env.state, np.float64), off, reward, terminated))
    *parts, off, reward, terminated = map(np.array, zip(*rows, strict=True))
    return {
        **dict(zip(PARTS, parts, strict=True)),
        "time": time + 1,
        "obs": off,
        "reward": reward,
        "terminated": terminated,
        "truncated": time + 1 >= max_steps,
        "max_steps": np.asarray(max_steps),
    }


@cache
def reset() -> Stage:
    """Input `noise [B, 4]`, which is the initial state itself."""

    def of(cartpole, noise):
        state, obs = cartpole.CartPole().reset(noise)
        return {"physics": state.physics, "time": state.time, "obs": obs}

    def by_hand(noise):
        time = np.zeros(len(noise), np.int32)
        return {"physics": noise, "time": time, "obs": noise.astype(np.float32)}

    return Stage(
        "environment reset",
        torch=lambda noise: of(torch_cartpole, noise),
        jax=lambda noise: of(jax_cartpole, noise),
        oracle=by_hand,
    )
