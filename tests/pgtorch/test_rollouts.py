"""Episodes: one by one, in a vector, on tensors and in Gymnasium."""

from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch

import pgtorch
from pgtorch.envs import cartpole
from pgtorch.envs import gymnasium as gymnasium_adapter
from pgtorch.types import Noise, Trajectory
from tests.pgtorch.cases import AGENTS, GATE, NAN, assert_close, doubles, float64_case, key


@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize("agent", AGENTS)
def test_a_vector_of_episodes_is_each_episode_played_alone_on_the_same_noise(agent, early_exit):
    # Some episodes fall and others run out of time. The noise goes on long after all have ended:
    # what a copy of the environment returns then must not show.
    max_steps = 25
    policy, params, env, noise = float64_case(agent, 12, max_steps)
    noise = noise._replace(policy=policy.draw_noise(key(9), 90, 12).double())
    trajectory = pgtorch.rollout(policy, params, env, noise, early_exit=early_exit)
    trajectory = Trajectory(*(array.detach() for array in trajectory))
    assert trajectory.mask.shape == (90, 12)
    assert 0 < trajectory.terminated.sum() < 12

    single = gymnasium.make("CartPole-v1", max_episode_steps=max_steps)
    for b in range(12):
        single.reset(seed=0)
        single.unwrapped.state = noise.reset[b].numpy()
        obs = noise.reset[b].numpy().astype(np.float32)
        for t in range(max_steps):
            assert trajectory.mask[t, b]
            assert np.array_equal(trajectory.obs[t, b], obs)
            dist = policy.apply(params, torch.tensor(obs))
            sample = policy.sample(dist, noise.policy[t, b])
            assert_close(trajectory.sample[t, b], sample.detach())
            action = policy.action(sample)
            assert trajectory.action[t, b] == action
            obs, reward, terminated, truncated, _ = single.step(action.item())
            assert trajectory.reward[t, b] == reward
            if terminated or truncated:
                break
        assert trajectory.terminated[b] == terminated
        for array in trajectory[:-1]:
            assert not array[t + 1 :, b].any()


def test_an_early_exit_changes_nothing_but_the_number_of_steps_played():
    policy, params, env, noise = float64_case("reparam", 4, max_steps=60)
    num_calls = 0

    def counted(state, action):
        nonlocal num_calls
        num_calls += 1
        return env.step(state, action)

    counting = env._replace(step=counted)
    short = pgtorch.rollout(policy, params, counting, noise)
    longest = int(short.mask.sum(dim=0).max())
    assert num_calls == longest < 60
    full = pgtorch.rollout(policy, params, counting, noise, early_exit=False)
    assert num_calls == longest + 60
    for a, b in zip(short, full, strict=True):
        assert a.shape == b.shape
        assert torch.equal(a, b.detach())


def test_an_episode_longer_than_its_noise_is_cut_without_being_terminated():
    policy, params, env, noise = float64_case("reinforce", 3)
    trajectory = pgtorch.rollout(policy, params, env, noise._replace(policy=noise.policy[:4]))
    assert trajectory.mask.shape == (4, 3)
    assert trajectory.mask.all()
    assert not trajectory.terminated.any()


def test_a_rollout_is_differentiable_only_without_the_early_exit():
    policy, params, _, _ = float64_case("reparam", 3)
    env = pgtorch.CartPole(max_steps=12)
    noise = doubles(pgtorch.draw_noise(policy, env, key(3), 3))
    noise.reset.requires_grad_()
    assert not any(x.requires_grad for x in pgtorch.rollout(policy, params, env, noise))

    trajectory = pgtorch.rollout(policy, params, env, noise, early_exit=False)
    trajectory.sample.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in params.parameters())
    # A first observation is the initial state; the last ones still depend on it.
    (grad,) = torch.autograd.grad(
        pgtorch.rollout(policy, params, env, noise, early_exit=False).obs[0].sum(), noise.reset
    )
    assert torch.equal(grad, torch.ones_like(grad))
    (grad,) = torch.autograd.grad(
        pgtorch.rollout(policy, params, env, noise, early_exit=False).obs[5].sum(), noise.reset
    )
    assert (grad[:, 0] == 1).all()  # moving the start moves the cart by as much
    assert (grad[:, 2] > 1).all()  # a pole that leans more falls faster


class Growth(NamedTuple):
    level: torch.Tensor


def test_what_an_environment_does_after_an_episodes_end_cannot_spoil_the_gradient():
    def step(state, action):
        level = state.level**2 * 1e60  # from 1e-3 to 1e54, and then beyond what float64 holds
        obs = torch.where(state.level > 1, NAN, level)[:, None].expand(-1, 4)
        return Growth(level), obs, torch.ones_like(level), level > 1, level > np.inf

    env = pgtorch.Env(
        reset=lambda noise: (Growth(noise[:, 0]), noise),
        step=step,
        draw_reset=cartpole.draw_reset,
        obs_dim=4,
        num_actions=2,
        max_steps=8,
    )
    policy, params, _, _ = float64_case("reparam", 2)
    reset = torch.full((2, 4), 1e-3, dtype=torch.float64, requires_grad=True)
    noise = Noise(reset, torch.zeros(8, 2, 2, dtype=torch.float64))
    trajectory = pgtorch.rollout(policy, params, env, noise, early_exit=False)
    assert trajectory.mask.sum() == 2
    trajectory.sample.sum().backward()
    for grad in [reset.grad, *(parameter.grad for parameter in params.parameters())]:
        assert torch.isfinite(grad).all()


def test_cartpole_on_tensors_follows_gymnasium_from_each_of_its_float64_states():
    single = gymnasium.make("CartPole-v1")
    rng = np.random.default_rng(0)
    for _ in range(20):
        single.reset(seed=int(rng.integers(2**31)))
        done = False
        while not done:
            before = cartpole.CartPoleState(
                torch.tensor(single.unwrapped.state), torch.tensor(0, dtype=torch.int32)
            )
            action = int(rng.integers(2))
            obs, reward, done, _, _ = single.step(action)
            after, mine, my_reward, terminated, _ = cartpole.step(before, torch.tensor(action))
            assert_close(after.physics, single.unwrapped.state)
            assert mine.dtype == torch.float32
            np.testing.assert_array_max_ulp(mine.numpy(), obs, maxulp=1)
            assert (float(my_reward), bool(terminated)) == (reward, done)


def test_cartpole_on_tensors_ends_where_gymnasium_ends():
    single = gymnasium.make("CartPole-v1").unwrapped
    single.reset(seed=0)
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, size=(500, 4)) * [3.0, 5.0, 0.3, 5.0]
    state = cartpole.CartPoleState(torch.tensor(states), torch.zeros(500, dtype=torch.int32))
    after, _, _, terminated, _ = cartpole.step(state, torch.arange(500) % 2)
    assert 0 < terminated.sum() < 500
    for b in range(500):
        single.state, single.steps_beyond_terminated = states[b], None
        assert single.step(b % 2)[2] == terminated[b]
        # Sums of terms of about the state's size: near zero they cancel.
        assert np.abs(after.physics[b].numpy() - single.state).max() <= GATE


def test_cartpole_is_truncated_at_its_step_limit_and_not_before():
    env = pgtorch.CartPole(max_steps=3)
    state, _ = env.reset(torch.zeros(2, 5, 4))  # any leading dimensions
    for t in range(1, 4):
        action = torch.full((2, 5), t % 2)
        state, obs, reward, terminated, truncated = env.step(state, action)
        assert obs.shape == (2, 5, 4)
        assert reward.shape == terminated.shape == truncated.shape == (2, 5)
        assert (truncated == (t == 3)).all()
        assert not terminated.any()


def test_both_cartpoles_give_the_same_trajectory():
    policy, params, env, noise = float64_case("reinforce", 6, max_steps=50)
    theirs = pgtorch.rollout(policy, params, env, noise)
    mine = pgtorch.rollout(policy, params, pgtorch.CartPole(max_steps=50), noise)
    for name in ("action", "reward", "mask", "terminated"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name))
    np.testing.assert_array_max_ulp(mine.obs.numpy(), theirs.obs.numpy(), maxulp=1)


def test_an_environment_may_reuse_the_memory_of_its_observations(monkeypatch):
    class Reusing(gymnasium_adapter.GymEpisodes):
        def __init__(self, env_id, num_episodes, max_steps=None):
            self.buffers = (
                np.zeros((num_episodes, 4), np.float32),
                np.zeros(num_episodes),
                np.zeros(num_episodes, bool),
                np.zeros(num_episodes, bool),
            )

        def reset(self, noise):
            return self.buffers[0]

        def step(self, action):
            for buffer in self.buffers[:2]:
                buffer += 1
            return self.buffers

    monkeypatch.setattr(gymnasium_adapter, "GymEpisodes", Reusing)
    policy, params, env, noise = float64_case("reinforce", 2, max_steps=4)
    trajectory = pgtorch.rollout(policy, params, env, noise)
    assert trajectory.obs[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert trajectory.reward[:, 0].tolist() == [1, 2, 3, 4]


def test_other_environments_are_reset_by_seeds():
    env = pgtorch.make_env("Acrobot-v1", max_steps=5)
    seeds = env.draw_reset(key(), 3)
    assert not seeds.is_floating_point()
    _, obs = env.reset(seeds)
    single = gymnasium.make("Acrobot-v1")
    for b in range(3):
        assert np.array_equal(obs[b], single.reset(seed=int(seeds[b]))[0])
    policy = pgtorch.make_policy("reparam", env.obs_dim, env.num_actions)
    params = policy.init(key())
    trajectory = pgtorch.rollout(policy, params, env, pgtorch.draw_noise(policy, env, key(), 3))
    assert trajectory.obs.shape == (5, 3, 6)
    assert trajectory.reward.dtype == torch.float32
