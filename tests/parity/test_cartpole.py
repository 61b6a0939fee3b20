"""CartPole on both sides against Gymnasium's, each step from Gymnasium's own float64 state.

Whole episodes can't be compared: the pole amplifies the last bit until it is the first.
"""

from functools import cache
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import pgjax.envs.cartpole
import pgtorch.envs.cartpole
from parity import oracle
from parity.sides import x64
from parity.tolerance import GATE

PACKAGES = pytest.mark.parametrize("package", ["pgjax", "pgtorch"])
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
BOUNDS = np.array([5.0, 100.0, 0.5, 100.0])
"""|x| (m), |ẋ| (m/s), |θ| (rad), |θ̇| (rad/s): every state that is asked for."""
LIMITS = {0: 2.4, 2: 12 * 2 * np.pi / 360}
"""By component: where an episode ends."""
FLOAT32_ERROR = 5e-7
"""Of a step in float32, as a share of max(1, the largest number of the state before and after).

Measured: 1.3e-7 there. In a component of its own it would not hold: at θ̇ = 100 rad/s the sum
0.05 θ̇² sin θ ≈ 240 N puts ẋ off by 7e-7 of itself. Within an episode it holds in plain units.
"""


class Steps(NamedTuple):
    """Steps `[N]` as Gymnasium took them."""

    before: np.ndarray
    action: np.ndarray
    time: np.ndarray
    after: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def test_real_episodes_are_of_every_kind():
    steps = real_episodes()
    assert len(steps.before) >= 100_000
    assert (steps.terminated & (np.abs(steps.after[:, 0]) > LIMITS[0])).any()
    assert (steps.terminated & (np.abs(steps.after[:, 2]) > LIMITS[2])).any()
    assert steps.truncated.sum() >= 20
    assert (steps.truncated <= (steps.time == 499)).all()


@PACKAGES
def test_the_observation_of_real_episodes_is_bitwise_gymnasiums(package):
    steps = real_episodes()
    found = play(package, "float64", steps)
    np.testing.assert_array_equal(found.obs.view(np.int32), steps.obs.view(np.int32))


@PACKAGES
@DTYPES
def test_flags_and_reward_of_real_episodes_are_gymnasiums(package, dtype):
    steps = real_episodes() if dtype == "float64" else real_episodes_from_float32()
    found = play(package, dtype, steps)
    np.testing.assert_array_equal(found.reward, steps.reward)
    np.testing.assert_array_equal(found.truncated, steps.truncated)
    unclear = near_a_limit(steps.after, dtype)
    np.testing.assert_array_equal(found.terminated[~unclear], steps.terminated[~unclear])
    assert unclear.sum() < 10


@PACKAGES
def test_the_float64_state_passes_the_gate_from_every_state(package):
    steps = all_states()
    found = play(package, "float64", steps)
    error = np.abs(found.after - steps.after).max(axis=1)
    assert (error <= GATE * np.abs(steps.after).max(axis=1)).all()
    np.testing.assert_array_equal(found.obs.view(np.int32), steps.obs.view(np.int32))
    np.testing.assert_array_equal(found.reward, steps.reward)


@PACKAGES
def test_the_float32_state_is_right_to_rounding(package):
    steps = from_float32(all_states())
    found = play(package, "float32", steps)
    error = np.abs(found.after - steps.after).max(axis=1)
    largest = np.maximum(np.abs(steps.before), np.abs(steps.after)).max(axis=1)
    assert (error <= FLOAT32_ERROR * np.maximum(1.0, largest)).all()
    real = real_episodes_from_float32()
    assert np.abs(play(package, "float32", real).after - real.after).max() <= FLOAT32_ERROR


@PACKAGES
@DTYPES
def test_an_episode_ends_where_gymnasiums_does_but_for_4_ulp_at_the_limit(package, dtype):
    steps = states_about_the_limits(dtype)
    found = play(package, dtype, steps)
    unclear = near_a_limit(steps.after, dtype)
    np.testing.assert_array_equal(found.terminated[~unclear], steps.terminated[~unclear])
    assert 0 < steps.terminated[~unclear].mean() < 1
    # Most of these states are close enough to the limit for one wrong digit in it to show.
    closest = np.min([np.abs(np.abs(steps.after[:, i]) - limit) for i, limit in LIMITS.items()], 0)
    assert np.median(closest) < 100 * np.spacing(np.dtype(dtype).type(2.4))


@PACKAGES
def test_the_500th_step_is_told_as_truncation_even_if_the_pole_falls_then(package):
    steps = all_states()
    for time, truncated in ((498, False), (499, True), (500, True)):
        found = play(package, "float64", steps._replace(time=np.full_like(steps.time, time)))
        np.testing.assert_array_equal(found.truncated, truncated)
        np.testing.assert_array_equal(found.terminated, steps.terminated)


@PACKAGES
@DTYPES
def test_a_reset_starts_at_the_noise(package, dtype):
    noise = (0.05 * np.random.default_rng(0).uniform(-1, 1, (7, 4))).astype(dtype)
    if package == "pgjax":
        with x64(dtype == "float64"):
            state, obs = pgjax.envs.cartpole.reset(jnp.array(noise))
    else:
        state, obs = pgtorch.envs.cartpole.reset(torch.tensor(noise))
    np.testing.assert_array_equal(np.asarray(state.physics), noise)
    np.testing.assert_array_equal(np.asarray(state.time), np.zeros(7, int))
    np.testing.assert_array_equal(np.asarray(obs), noise.astype(np.float32))
    assert np.asarray(state.physics).dtype == noise.dtype
    assert np.asarray(obs).dtype == np.float32


def test_the_oracle_steps_bitwise_as_gymnasium_does():
    for steps in (real_episodes(), all_states()):
        for i in range(0, len(steps.before), 50):
            step = oracle.cartpole_step(steps.before[i], int(steps.action[i]))
            np.testing.assert_array_equal(step.state, steps.after[i])
            np.testing.assert_array_equal(step.obs, steps.obs[i])
            assert (step.terminated, step.reward) == (steps.terminated[i], steps.reward[i])


# --- Gymnasium's steps ---------------------------------------------------------------------------


@cache
def real_episodes() -> Steps:
    """100,000 steps: half by random actions, half by a controller that balances the pole."""
    env = gymnasium.make("CartPole-v1", disable_env_checker=True)
    rng = np.random.default_rng(0)
    rows = []
    while len(rows) < 100_000:
        is_random = len(rows) < 50_000
        # Pushed by the controller but for some random steps, the pole stands for 500 or falls late.
        share_random = 1.0 if is_random else rng.choice([0.0, 0.3, 0.6])
        # A weak hold on the cart lets some of these episodes end at the edge of the track.
        hold = rng.choice([0.0, 0.1])
        env.reset(seed=int(rng.integers(2**31)))
        ended = False
        time = 0
        while not ended:
            before = env.unwrapped.state.copy()
            x, x_dot, theta, theta_dot = before
            push = int(theta + 0.3 * theta_dot + hold * (x + x_dot) > 0)
            action = int(rng.integers(2)) if rng.random() < share_random else push
            obs, reward, terminated, truncated, _ = env.step(action)
            after = env.unwrapped.state.copy()
            rows.append((before, action, time, after, obs, reward, terminated, truncated))
            ended, time = terminated or truncated, time + 1
    return Steps(*map(np.array, zip(*rows, strict=True)))


@cache
def real_episodes_from_float32() -> Steps:
    return from_float32(real_episodes())


@cache
def all_states() -> Steps:
    """Steps from states all over the bounds, their corners and their axes included."""
    rng = np.random.default_rng(1)
    uniform = rng.uniform(-1, 1, (20_000, 4))
    # Most of a uniform draw is fast; these are slow in some components.
    slow = uniform[:5_000] * 10.0 ** rng.uniform(-6, 0, (5_000, 4))
    corners = rng.choice([-1.0, 0.0, 1.0], (1_000, 4))
    return gymnasium_steps(BOUNDS * np.vstack([uniform, slow, corners]), rng)


@cache
def states_about_the_limits(dtype: str) -> Steps:
    """Steps that end within some ulp of a limit, on either side."""
    rng = np.random.default_rng(2)
    states = BOUNDS * rng.uniform(-1, 1, (8_000, 4))
    for row, component in enumerate(rng.choice([0, 2], len(states))):
        limit = rng.choice([-1, 1]) * LIMITS[component]
        # Velocities within which the step before lies inside the bounds.
        states[row, component + 1] *= 0.2
        start = limit - 0.02 * states[row, component + 1]
        ulps = rng.integers(-50, 51) * np.spacing(np.dtype(dtype).type(limit))
        states[row, component] = start + float(ulps)
    steps = gymnasium_steps(states, rng)
    return steps if dtype == "float64" else from_float32(steps)


def from_float32(steps: Steps) -> Steps:
    """What Gymnasium does from the states as float32 has them."""
    rounded = steps.before.astype(np.float32).astype(float)
    again = gymnasium_steps(rounded, None, steps.action)
    return again._replace(time=steps.time, truncated=steps.truncated)


def gymnasium_steps(
    before: np.ndarray, rng: np.random.Generator | None, action: np.ndarray | None = None
) -> Steps:
    env = gymnasium.make("CartPole-v1", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    if action is None:
        action = rng.integers(2, size=len(before))
    rows = []
    for state, push in zip(before, action, strict=True):
        env.state, env.steps_beyond_terminated = state.copy(), None
        obs, reward, terminated, truncated, _ = env.step(int(push))
        rows.append((env.state.copy(), obs, reward, terminated, truncated))
    return Steps(
        before, action, np.zeros(len(before), int), *map(np.array, zip(*rows, strict=True))
    )


# --- the same steps on either side ---------------------------------------------------------------


def play(package: str, dtype: str, steps: Steps) -> Steps:
    """The same steps, all at once, by one of our packages."""
    physics, action = steps.before.astype(dtype), steps.action.astype(np.int32)
    time = steps.time.astype(np.int32)
    if package == "pgjax":
        cartpole = pgjax.envs.cartpole
        with x64(dtype == "float64"):
            state = cartpole.CartPoleState(jnp.array(physics), jnp.array(time))
            results = jax.jit(cartpole.step)(state, jnp.array(action))
            after, obs, *outcome = jax.tree.map(np.asarray, results)
    else:
        cartpole = pgtorch.envs.cartpole
        state = cartpole.CartPoleState(torch.tensor(physics), torch.tensor(time))
        results = cartpole.step(state, torch.tensor(action))
        after, obs, *outcome = torch.utils._pytree.tree_map(torch.Tensor.numpy, results)
    np.testing.assert_array_equal(after.time, time + 1)
    assert after.physics.dtype == outcome[0].dtype == np.dtype(dtype)
    assert obs.dtype == np.float32
    return Steps(steps.before, action, time, after.physics, obs, *outcome)


def near_a_limit(after: np.ndarray, dtype: str) -> np.ndarray:
    """Whether the next x or θ is within 4 ulp of a limit."""
    return np.any(
        [
            np.abs(np.abs(after[:, i]) - limit) <= 4 * np.spacing(np.dtype(dtype).type(limit))
            for i, limit in LIMITS.items()
        ],
        axis=0,
    )
