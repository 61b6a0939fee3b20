"""The PyTorch side against the article's loop, written out slowly, and against definitions.

Where two computations differ only in the order of float64 operations they are held to `GATE`,
relative to the largest number of an array: about 10⁵ roundings, far below any change of meaning.
"""

import copy
import math
from functools import partial
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

import pgtorch
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from pgtorch.envs import cartpole
from pgtorch.envs import gymnasium as gymnasium_adapter
from pgtorch.types import Metrics, Noise, TrainState, Trajectory

GATE = 1e-11
AGENTS = ("reinforce", "reparam")
NAN = float("nan")
ADAM = pgtorch.adam(1e-2)


def key(seed=0):
    return torch.Generator().manual_seed(seed)


def doubles(noise):
    return Noise(noise.reset.double(), noise.policy.double())


def float64_case(agent, num_episodes, max_steps=500, seed=0):
    """A policy, float64 parameters, Gymnasium's CartPole and float64 noise."""
    env = pgtorch.make_env("CartPole-v1", max_steps)
    policy = pgtorch.make_policy(agent, env.obs_dim, env.num_actions)
    params = policy.init(key(seed)).double()
    noise = doubles(pgtorch.draw_noise(policy, env, key(seed + 1), num_episodes))
    return policy, params, env, noise


def state_of(params, optimizer=ADAM):
    params = copy.deepcopy(params)
    update = torch.zeros((), dtype=torch.int32)
    return TrainState(params, optimizer(params.parameters()), update)


def assert_close(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.all(np.abs(actual - expected) <= GATE * np.abs(expected).max(initial=0.0))


def assert_same_parameters(actual, expected, *, exactly=False):
    expected = dict(expected.named_parameters())
    assert [name for name, _ in actual.named_parameters()] == list(expected)
    for name, parameter in actual.named_parameters():
        if exactly:
            assert torch.equal(parameter, expected[name])
        else:
            assert_close(parameter.detach(), expected[name].detach())


def ragged_mask(lengths, num_steps):
    return torch.arange(num_steps)[:, None] < torch.tensor(lengths)


def with_padding(trajectory, value):
    """The trajectory with `value` (a garbage action, in an integer array) outside the mask."""
    mask = trajectory.mask

    def pad(array):
        garbage = torch.tensor(value if array.is_floating_point() else -99, dtype=array.dtype)
        return torch.where(mask.reshape(mask.shape + (1,) * (array.ndim - 2)), array, garbage)

    fields = ("obs", "sample", "action", "reward")
    return trajectory._replace(**{name: pad(getattr(trajectory, name)) for name in fields})


# --- The article's loop --------------------------------------------------------------------------


def article_episode(agent, model, noise):
    """One episode, a log-probability with its graph and a reward for each step."""
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    env.unwrapped.state = noise.reset[0].numpy()
    obs = noise.reset[0].numpy().astype(np.float32)
    log_probs, rewards, done = [], [], False
    while not done:
        draw = noise.policy[len(rewards), 0]
        x = torch.from_numpy(obs.astype(np.float64))
        x = torch.relu(model.linear1(x))
        x = torch.relu(model.linear2(x))
        if agent == "reinforce":
            log_p = torch.log(torch.softmax(model.linear3(x), dim=0))
            action = torch.argmax(log_p + draw)
            log_prob = log_p[action]
        else:
            mu = torch.tanh(model.mu_linear(x))
            std = torch.exp(0.5 * torch.tanh(model.logvar_linear(x)))
            z = (mu + std * draw).detach()
            log_prob = torch.distributions.Normal(mu, std).log_prob(z).sum(axis=-1)
            action = torch.argmax(z)
        obs, reward, terminated, truncated, _ = env.step(action.item())
        log_probs.append(log_prob)
        rewards.append(reward)
        done = terminated or truncated
    return log_probs, rewards


def article_update(agent, model, optimizer, noise, discount):
    log_probs, rewards = article_episode(agent, model, noise)
    discounted = []
    for t in range(len(rewards)):
        discounted.append(sum(discount ** (s - t) * rewards[s] for s in range(t, len(rewards))))
    discounted = np.array(discounted)
    discounted -= np.mean(discounted)
    discounted /= np.std(discounted)
    loss = torch.stack([-p * g for p, g in zip(log_probs, discounted, strict=True)]).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), len(rewards)


@pytest.mark.parametrize("agent", AGENTS)
def test_with_one_episode_per_update_training_is_the_articles_loop(agent):
    policy, model, env, _ = float64_case(agent, 1)
    config = TrainConfig(agent=agent, episodes_per_update=1, normalize="episode", discount=0.97)
    update_step = pgtorch.make_update_step(policy, ADAM, config)
    state = state_of(model)
    article_adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    noises = key(7)
    for update in range(1, 7):
        noise = doubles(pgtorch.draw_noise(policy, env, noises, 1))
        loss, num_steps = article_update(agent, model, article_adam, noise, 0.97)
        trajectory = pgtorch.rollout(policy, state.params, env, noise)
        state, metrics = update_step(state, trajectory)
        assert int(metrics.num_steps) == num_steps
        assert_close(metrics.loss, loss)
        assert int(state.update) == update
        assert_same_parameters(state.params, model)


@pytest.mark.parametrize("agent", AGENTS)
def test_a_batch_of_episodes_is_the_mean_of_the_articles_losses(agent):
    policy, params, env, noise = float64_case(agent, 5, max_steps=40)
    config = TrainConfig(agent=agent, episodes_per_update=5, normalize="episode", discount=0.97)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    state = state_of(params, optimizer)
    trajectory = pgtorch.rollout(policy, params, env, noise)
    pgtorch.make_update_step(policy, optimizer, config)(state, trajectory)

    # SGD is linear in the gradient: the mean of the five single-episode steps is the batch's step.
    steps = []
    for b in range(5):
        alone = state_of(params, optimizer)
        episode = Trajectory(
            *(array[:, b : b + 1] for array in trajectory[:-1]), trajectory.terminated[b : b + 1]
        )
        pgtorch.make_update_step(policy, optimizer, config)(alone, episode)
        steps.append(list(alone.params.parameters()))
    for parameter, *singles in zip(state.params.parameters(), *steps, strict=True):
        assert_close(parameter.detach(), torch.stack(singles).mean(dim=0).detach())


# --- Rollout and environments --------------------------------------------------------------------


@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize("agent", AGENTS)
def test_a_vector_of_episodes_is_each_episode_played_alone_on_the_same_noise(agent, early_exit):
    # Some episodes fall and others run out of time. The noise goes on long enough for the episodes
    # that Gymnasium starts after them to fall, too, which must not show.
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


# --- Returns, advantages, loss -------------------------------------------------------------------


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_discounted_returns_are_the_sum_of_what_follows(discount):
    lengths = [1, 7, 12]
    mask = ragged_mask(lengths, 12)
    rewards = torch.randn(12, 3, generator=key(), dtype=torch.float64)
    returns = pgtorch.discounted_returns(torch.where(mask, rewards, NAN), mask, discount)
    assert returns[~mask].eq(0).all()
    for b, length in enumerate(lengths):
        for t in range(length):
            following = [discount ** (s - t) * rewards[s, b].item() for s in range(t, length)]
            # The terms may cancel: the bound is relative to their size, which is about 1.
            assert abs(returns[t, b].item() - math.fsum(following)) <= GATE


@pytest.mark.parametrize("scope", ["episode", "batch"])
def test_advantages_are_numpys_standard_scores_over_their_scope(scope):
    mask = ragged_mask([2, 9, 12], 12)
    returns = torch.randn(12, 3, generator=key(), dtype=torch.float64) + 3
    advantages = pgtorch.normalize_returns(torch.where(mask, returns, NAN), mask, scope)
    assert advantages[~mask].eq(0).all()
    groups = [mask] if scope == "batch" else [mask & (torch.arange(3) == b) for b in range(3)]
    for group in groups:
        g = returns[group].numpy()
        assert_close(advantages[group], (g - np.mean(g)) / np.std(g))


def test_scope_none_leaves_the_returns_as_they_are():
    mask = ragged_mask([1, 3], 3)
    returns = torch.arange(6.0).reshape(3, 2)
    unchanged = pgtorch.normalize_returns(torch.where(mask, returns, NAN), mask, "none")
    assert torch.equal(unchanged, torch.where(mask, returns, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_returns_that_differ_by_rounding_alone_teach_nothing(dtype):
    # Column 0 has one step, column 1 equal returns, column 2 equal ones up to rounding, column 3
    # none but zeros; column 4 has a deviation just above 1e-5 of its largest return.
    ulp = torch.finfo(dtype).eps
    mask = ragged_mask([1, 4, 4, 4, 4], 4)
    returns = torch.tensor(
        [
            [5.0, 0.1, 1.0, 0.0, 1.0],
            [NAN, 0.1, 1.0 + ulp, 0.0, 1.0 - 3e-5],
            [NAN, 0.1, 1.0, 0.0, 1.0],
            [NAN, 0.1, 1.0 + ulp, 0.0, 1.0 - 3e-5],
        ],
        dtype=dtype,
        requires_grad=True,
    )
    advantages = pgtorch.normalize_returns(returns, mask, "episode")
    assert advantages[:, :4].eq(0).all()
    assert (advantages[:, 4].sign() == torch.tensor([1.0, -1.0, 1.0, -1.0])).all()
    (advantages * torch.arange(4)[:, None]).sum().backward()
    assert torch.isfinite(returns.grad).all()


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_no_reward_is_too_large_or_too_small_to_be_normalised(scale):
    mask = ragged_mask([4, 6], 6)
    returns = torch.randn(6, 2, generator=key(), dtype=torch.float64)
    for scope in ("episode", "batch"):
        expected = pgtorch.normalize_returns(returns, mask, scope)
        assert_close(pgtorch.normalize_returns(scale * returns, mask, scope), expected)


def test_the_derivatives_of_returns_and_advantages_are_those_of_their_definitions():
    mask = ragged_mask([3, 5], 5)
    returns = torch.randn(5, 2, generator=key(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda rewards: pgtorch.discounted_returns(rewards, mask, 0.9), (returns,)
    )
    for scope in ("episode", "batch"):
        assert torch.autograd.gradcheck(
            lambda g, scope=scope: pgtorch.normalize_returns(g, mask, scope), (returns,)
        )


def test_the_loss_is_minus_the_sum_over_time_averaged_over_episodes():
    mask = ragged_mask([2, 3], 3)
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0], [NAN, -5.0]], requires_grad=True)
    advantages = torch.tensor([[10.0, 1.0], [-1.0, 2.0], [NAN, 3.0]], requires_grad=True)
    loss = pgtorch.reinforce_loss(log_probs, advantages, mask)
    # Episode 0: −1·10 + −3·−1 = −7. Episode 1: −2·1 + −4·2 + −5·3 = −25. −(−7 − 25) / 2 = 16.
    assert loss.item() == 16.0
    loss.backward()
    expected = [[-5.0, -0.5], [0.5, -1.0], [0.0, -1.5]]  # −advantage / 2 inside the mask
    assert log_probs.grad.tolist() == expected
    assert advantages.grad is None


def test_episode_returns_are_not_discounted_and_end_with_the_episode():
    rewards = torch.tensor([[1.0, 2.0], [NAN, 3.0]])
    assert pgtorch.episode_returns(rewards, ragged_mask([1, 2], 2)).tolist() == [1.0, 5.0]


# --- Distributions, networks, policies -----------------------------------------------------------


def test_categorical_has_the_softmaxs_probabilities():
    logits = np.array([[0.5, -1.0, 2.0], [700.0, 0.0, -700.0]])
    dist = pgtorch.Categorical(torch.tensor(logits))
    for row in range(2):
        log_z = np.logaddexp.reduce(logits[row])
        for a in range(3):
            log_prob = dist.log_prob(torch.tensor([a, a]))[row]
            assert_close(log_prob, logits[row, a] - log_z)
    p = np.exp(logits[0] - np.logaddexp.reduce(logits[0]))
    assert_close(dist.entropy()[0], -np.sum(p * np.log(p)))
    assert 0 <= dist.entropy()[1] <= GATE


def test_categorical_samples_the_highest_score_and_of_equals_the_first():
    dist = pgtorch.Categorical(torch.tensor([1.0, 3.0, 3.0, 0.0]))
    assert dist.sample(torch.zeros(4)) == 1
    assert dist.sample(torch.tensor([0.0, -5.0, -5.0, 9.0])) == 3


def test_gumbel_noise_samples_in_proportion_to_the_probabilities():
    policy = pgtorch.make_policy("reinforce", 4, 3)
    noise = policy.draw_noise(key(), 100, 200)
    p = torch.tensor([0.2, 0.5, 0.3])
    actions = pgtorch.Categorical(p.log().expand(100, 200, 3)).sample(noise)
    shares = torch.bincount(actions.flatten()) / actions.numel()
    # 5 standard deviations of a share over 20,000 draws: a false alarm in about 10⁶ seeds.
    assert ((shares - p).abs() <= 5 * (p * (1 - p) / 20_000).sqrt()).all()


def test_normal_noise_has_mean_0_and_variance_1():
    noise = pgtorch.make_policy("reparam", 4, 2).draw_noise(key(), 100, 200)
    assert noise.shape == (100, 200, 2)
    # 5 standard deviations over 40,000 draws: of the mean 1/√n, of the variance √(2/n).
    assert abs(noise.mean().item()) <= 5 / math.sqrt(40_000)
    assert abs(noise.var().item() - 1) <= 5 * math.sqrt(2 / 40_000)


def test_normal_is_per_dimension_and_its_policy_sums():
    loc, scale, z = (np.array(x) for x in ([0.5, -1.0], [0.7, 2.0], [1.0, 0.25]))
    dist = pgtorch.Normal(torch.tensor(loc), torch.tensor(scale))
    assert_close(dist.sample(torch.tensor([1.0, -1.0])), loc + scale * [1.0, -1.0])
    log_prob = -((z - loc) ** 2) / (2 * scale**2) - np.log(scale) - 0.5 * np.log(2 * np.pi)
    entropy = 0.5 + 0.5 * np.log(2 * np.pi) + np.log(scale)
    assert_close(dist.log_prob(torch.tensor(z)), log_prob)
    assert_close(dist.entropy(), entropy)
    policy = pgtorch.make_policy("reparam", 4, 2)
    assert_close(policy.log_prob(dist, torch.tensor(z)), log_prob.sum())
    assert_close(policy.entropy(dist), entropy.sum())
    assert policy.action(torch.tensor([[1.0, 2.0], [3.0, 3.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("agent", AGENTS)
def test_the_networks_have_the_articles_layers(agent):
    params = pgtorch.make_policy(agent, 4, 2).init(key())
    shapes = {name: tuple(tensor.shape) for name, tensor in params.state_dict().items()}
    heads = ["linear3"] if agent == "reinforce" else ["mu_linear", "logvar_linear"]
    layers = {"linear1": (24, 4), "linear2": (12, 24), **dict.fromkeys(heads, (2, 12))}
    expected = {}
    for name, (out, size_in) in layers.items():
        expected |= {f"{name}.weight": (out, size_in), f"{name}.bias": (out,)}
    assert shapes == expected
    deep = pgtorch.make_policy(agent, 4, 2, (8, 8, 8)).init(key()).state_dict()
    assert deep["linear3.weight"].shape == (8, 8)


def test_the_gaussian_heads_start_small_and_their_spread_is_bounded():
    params = pgtorch.make_policy("reparam", 4, 2).init(key())
    for head in (params.mu_linear, params.logvar_linear):
        for tensor in (head.weight, head.bias):
            assert 0 < tensor.abs().max() <= pgtorch.networks.HEAD_INIT_BOUND == 3e-3
    assert params.linear2.weight.abs().max() > 3e-3
    params.logvar_linear.bias.data.fill_(1e9)
    params.mu_linear.bias.data.fill_(-1e9)
    mu, std = params(torch.randn(5, 4, generator=key()))
    assert (mu == -1).all()
    assert torch.equal(std, torch.full_like(std, 0.5).exp())


def test_apply_takes_observations_in_any_dtype_and_with_any_leading_dimensions():
    for dtype in (torch.float32, torch.float64):
        policy = pgtorch.make_policy("reinforce", 4, 2)
        params = policy.init(key()).to(dtype)
        for obs in (torch.zeros(4, dtype=torch.float64), torch.zeros(2, 3, 4)):
            logits = policy.apply(params, obs).logits
            assert logits.dtype == dtype
            assert logits.shape == (*obs.shape[:-1], 2)


def test_act_is_the_policy_in_numpy_and_greedy_without_noise():
    for agent in AGENTS:
        policy, params, env, noise = float64_case(agent, 6, max_steps=5)
        trajectory = pgtorch.rollout(policy, params, env, noise)
        act = pgtorch.make_act(policy, params)
        actions = act(trajectory.obs[2].numpy(), noise.policy[2].numpy())
        assert isinstance(actions, np.ndarray)
        assert np.issubdtype(actions.dtype, np.integer)
        assert np.array_equal(actions, trajectory.action[2])
        greedy = act(trajectory.obs[2].numpy(), np.zeros((6, 2)))
        assert np.array_equal(greedy, policy.apply(params, trajectory.obs[2])[0].argmax(dim=-1))


def test_any_module_is_a_policy_and_learns_as_the_agent_with_its_weights_does():
    policy, params, env, noise = float64_case("reinforce", 3, max_steps=40)
    plain = nn.Sequential(
        nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 2)
    ).double()
    for mine, theirs in zip(plain.parameters(), params.parameters(), strict=True):
        mine.data.copy_(theirs)
    plain_policy = pgtorch.from_callable(plain, lambda module, obs: module(obs), 2)
    state, plain_state = state_of(params), pgtorch.init(key(), plain_policy, ADAM)
    config = TrainConfig(agent="reinforce")
    for chosen, current in ((policy, state), (plain_policy, plain_state)):
        trajectory = pgtorch.rollout(chosen, current.params, env, noise)
        pgtorch.make_update_step(chosen, ADAM, config)(current, trajectory)
    pairs = zip(plain_state.params.parameters(), state.params.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    # `init` copied: the module that was given has not learned.
    assert torch.equal(plain[0].weight, params.linear1.weight)
    assert not torch.equal(plain[0].weight, plain_state.params[0].weight)


def test_any_module_can_be_a_gaussian_policy():
    plain = nn.Linear(4, 3)
    policy = pgtorch.from_callable(
        plain, lambda module, obs: (module(obs), torch.ones(3)), 3, "normal"
    )
    dist = policy.apply(plain, torch.zeros(5, 4))
    noise = policy.draw_noise(key(), 1, 5)[0]
    assert torch.equal(policy.sample(dist, noise), plain.bias + noise)
    assert policy.log_prob(dist, noise).shape == (5,)


# --- Updates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", AGENTS)
def test_metrics_are_what_they_say(agent):
    policy, params, env, noise = float64_case(agent, 4, max_steps=30)
    trajectory = pgtorch.rollout(policy, params, env, noise)
    config = TrainConfig(agent=agent, max_grad_norm=1e-3)
    optimizer = pgtorch.make_optimizer(config)
    update_step = pgtorch.make_update_step(policy, optimizer, config)
    _, metrics = update_step(state_of(params, optimizer), trajectory)

    lengths = trajectory.mask.sum(dim=0)
    entropies = []
    for t, b in trajectory.mask.nonzero():
        entropies.append(policy.entropy(policy.apply(params, trajectory.obs[t, b])).item())
    assert_close(metrics.entropy, np.mean(entropies))
    assert metrics.mean_return == lengths.double().mean()  # the reward of each step is 1
    assert (int(metrics.num_episodes), int(metrics.num_steps)) == (4, int(lengths.sum()))
    assert metrics.num_episodes.dtype == metrics.num_steps.dtype == torch.int32

    # The gradient of the loss, clipped to 1e-3 before Adam, is reported as it was.
    sgd = partial(torch.optim.SGD, lr=1.0)
    state = state_of(params, sgd)
    pgtorch.make_update_step(policy, sgd, config)(state, trajectory)
    moved = [a - b for a, b in zip(params.parameters(), state.params.parameters(), strict=True)]
    assert metrics.grad_norm > 1e-3
    assert_close(metrics.grad_norm, math.sqrt(sum((m**2).sum().item() for m in moved)))
    assert not any(metric.requires_grad for metric in metrics)


@pytest.mark.parametrize("padding", [NAN, float("inf"), -1e30])
@pytest.mark.parametrize("agent", AGENTS)
def test_what_lies_outside_the_mask_changes_nothing(agent, padding):
    policy, params, env, noise = float64_case(agent, 6, max_steps=30)
    trajectory = pgtorch.rollout(policy, params, env, noise)
    assert not trajectory.mask.all()
    for scope in ("episode", "batch", "none"):
        update_step = pgtorch.make_update_step(
            policy, ADAM, TrainConfig(agent=agent, normalize=scope)
        )
        clean, metrics = update_step(state_of(params), trajectory)
        padded, padded_metrics = update_step(state_of(params), with_padding(trajectory, padding))
        assert_same_parameters(padded.params, clean.params, exactly=True)
        assert metrics == padded_metrics
        assert all(torch.isfinite(metric) for metric in metrics)


def test_no_gradient_runs_through_the_samples():
    policy, params, _, _ = float64_case("reparam", 3)
    env = pgtorch.CartPole(max_steps=20)
    noise = doubles(pgtorch.draw_noise(policy, env, key(3), 3))
    update_step = pgtorch.make_update_step(policy, ADAM, TrainConfig(agent="reparam"))
    detached, attached = state_of(params), state_of(params)
    update_step(detached, pgtorch.rollout(policy, detached.params, env, noise))
    trajectory = pgtorch.rollout(policy, attached.params, env, noise, early_exit=False)
    assert trajectory.sample.requires_grad
    _, metrics = update_step(attached, trajectory)
    assert_same_parameters(attached.params, detached.params)
    assert metrics.grad_norm > 0


def test_clipping_and_adam_are_torchs_own_calls():
    policy, params, env, noise = float64_case("reparam", 3, max_steps=30)
    config = TrainConfig(agent="reparam", max_grad_norm=0.01, learning_rate=3e-3)
    optimizer = pgtorch.make_optimizer(config)
    update_step = pgtorch.make_update_step(policy, optimizer, config)
    state, model = state_of(params, optimizer), copy.deepcopy(params)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(3):
        trajectory = pgtorch.rollout(policy, state.params, env, noise)
        dist = policy.apply(model, trajectory.obs)
        returns = pgtorch.discounted_returns(trajectory.reward, trajectory.mask, config.discount)
        advantages = pgtorch.normalize_returns(returns, trajectory.mask, config.normalize)
        log_probs = policy.log_prob(dist, trajectory.sample)
        loss = pgtorch.reinforce_loss(log_probs, advantages, trajectory.mask)
        adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        adam.step()
        _, metrics = update_step(state, trajectory)
        assert norm > 0.01  # so the clip was at work
        assert_close(metrics.grad_norm, norm)
        assert_same_parameters(state.params, model, exactly=True)


@pytest.mark.parametrize("copied", [False, True])
def test_a_chain_runs_its_clips_in_order_before_the_step_of_a_copied_state_too(copied):
    policy, params, env, noise = float64_case("reparam", 2, max_steps=20)
    calls = []

    def note(name):
        return lambda parameters: calls.append((name, parameters[0].grad.clone()))

    clip = pgtorch.clip_by_global_norm(1e-3)
    optimizer = pgtorch.chain(note("first"), clip, note("last"), partial(torch.optim.SGD, lr=1.0))
    state = state_of(params, optimizer)
    state = copy.deepcopy(state) if copied else state
    before = next(state.params.parameters()).detach().clone()
    trajectory = pgtorch.rollout(policy, params, env, noise)
    _, metrics = pgtorch.make_update_step(policy, optimizer, TrainConfig(agent="reparam"))(
        state, trajectory
    )
    (first, raw), (last, clipped) = calls
    assert (first, last) == ("first", "last")
    assert metrics.grad_norm > 1e-3
    assert_close(clipped, raw * 1e-3 / (metrics.grad_norm + 1e-6))
    assert_close(next(state.params.parameters()).detach(), before - clipped)


def test_a_chain_must_end_in_an_optimizer():
    clip = pgtorch.clip_by_global_norm(1.0)
    with pytest.raises(UsageError, match="the last transform of chain"):
        pgtorch.chain(pgtorch.adam(1e-2), clip)([nn.Parameter(torch.zeros(2))])


def test_only_an_update_changes_what_it_is_given_and_returns_the_same_state():
    policy, params, env, noise = float64_case("reparam", 4, max_steps=30)
    before = copy.deepcopy((params.state_dict(), noise))
    trajectory = pgtorch.rollout(policy, params, env, noise)
    pgtorch.rollout(policy, params, pgtorch.CartPole(30), noise)
    pgtorch.rollout(policy, params, pgtorch.CartPole(30), noise, early_exit=False)
    dist = policy.apply(params, trajectory.obs)
    policy.sample(dist, noise.policy), policy.entropy(dist)
    policy.log_prob(dist, trajectory.sample)
    played = copy.deepcopy(trajectory)
    returns = pgtorch.discounted_returns(trajectory.reward, trajectory.mask, 0.9)
    for scope in ("episode", "batch", "none"):
        returns_before = returns.clone()
        pgtorch.normalize_returns(returns, trajectory.mask, scope).add_(1)
        assert torch.equal(returns, returns_before)
    pgtorch.reinforce_loss(returns, returns, trajectory.mask)
    pgtorch.episode_returns(trajectory.reward, trajectory.mask)
    pgtorch.make_act(policy, params)(played.obs[0].numpy(), noise.policy[0].numpy())
    pgtorch.tensors_to_params(pgtorch.params_to_tensors(params), params)
    pgtorch.from_callable(params, lambda module, obs: module(obs), 2, "normal").init(key())

    state = state_of(params)
    update_step = pgtorch.make_update_step(policy, ADAM, TrainConfig(agent="reparam"))
    returned, metrics = update_step(state, trajectory)
    assert returned is state
    assert isinstance(metrics, Metrics)
    assert int(state.update) == 1
    assert not torch.equal(state.params.linear1.weight, params.linear1.weight)
    after = (params.state_dict(), noise)
    for a, b in zip(
        [*before[0].values(), *before[1]], [*after[0].values(), *after[1]], strict=True
    ):
        assert torch.equal(a, b)
    for a, b in zip(played, trajectory, strict=True):
        assert torch.equal(a, b)


def test_a_training_step_is_noise_rollout_and_update():
    policy, params, env, _ = float64_case("reinforce", 1, max_steps=30)
    config = TrainConfig(episodes_per_update=3)
    one, other = state_of(params), state_of(params)
    pgtorch.make_train_step(policy, env, ADAM, config)(one, key(5))
    noise = pgtorch.draw_noise(policy, env, key(5), 3)
    trajectory = pgtorch.rollout(policy, other.params, env, noise)
    pgtorch.make_update_step(policy, ADAM, config)(other, trajectory)
    assert_same_parameters(one.params, other.params, exactly=True)


@pytest.mark.parametrize("agent", AGENTS)
def test_float64_parameters_and_noise_keep_everything_in_float64(agent):
    for make_env in (pgtorch.make_env, lambda *_: pgtorch.CartPole(20)):
        policy, params, _, _ = float64_case(agent, 1)
        env = make_env("CartPole-v1", 20)
        noise = doubles(pgtorch.draw_noise(policy, env, key(), 2))
        trajectory = pgtorch.rollout(policy, params, env, noise)
        assert trajectory.obs.dtype == torch.float32  # as Gymnasium observes
        assert trajectory.reward.dtype == torch.float64
        assert trajectory.sample.dtype == (torch.int64 if agent == "reinforce" else torch.float64)
        update_step = pgtorch.make_update_step(policy, ADAM, TrainConfig(agent=agent))
        state, metrics = update_step(state_of(params), trajectory)
        assert {p.dtype for p in state.params.parameters()} == {torch.float64}
        assert {m.dtype for m in metrics[:4]} == {torch.float64}


# --- Randomness, errors, files, training ---------------------------------------------------------


@pytest.mark.parametrize("agent", AGENTS)
def test_a_generator_decides_everything_and_nothing_else_advances(agent):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    env = pgtorch.make_env()
    policy = pgtorch.make_policy(agent, 4, 2)

    def draw(generator):
        state = pgtorch.init(generator, policy, ADAM)
        return [*state.params.parameters(), *pgtorch.draw_noise(policy, env, generator, 2)]

    same, again, other = draw(key(1)), draw(key(1)), draw(key(2))
    assert all(torch.equal(a, b) for a, b in zip(same, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(same, other, strict=True))
    generator = key(1)
    assert not any(torch.equal(a, b) for a, b in zip(draw(generator), draw(generator), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_states_are_uniform_in_cartpoles_range():
    states = pgtorch.make_env().draw_reset(key(), 1000)
    assert states.shape == (1000, 4)
    assert states.abs().max() <= 0.05
    # Uniform on ±0.05: the mean of 4,000 draws deviates by 0.05 / √3 / √4000, five times at most,
    # and no draw lies in the outer 1% of the range with probability 0.99⁴⁰⁰⁰ < 10⁻¹⁷.
    assert abs(states.mean().item()) <= 5 * 0.05 / math.sqrt(3 * 4000)
    assert states.min() < -0.049
    assert states.max() > 0.049


def test_an_unknown_name_is_told_with_what_is_accepted_and_the_closest_match():
    message = r"agent is 'reinforse', accepted are reinforce, reparam; did you mean 'reinforce'\?"
    with pytest.raises(ValueError, match=message):
        pgtorch.make_policy("reinforse", 4, 2)
    with pytest.raises(ValueError, match="distribution is 'gauss', accepted are categorical, norm"):
        pgtorch.from_callable(nn.Linear(4, 2), lambda m, x: m(x), 2, "gauss")
    with pytest.raises(ValueError, match=r"scope is 'episodes', .* did you mean 'episode'"):
        pgtorch.normalize_returns(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), "episodes")
    with pytest.raises(UsageError, match="CartPoll"):
        pgtorch.make_env("CartPoll-v1")


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_policy_comes_back_as_it_was(agent, dtype, tmp_path):
    config = TrainConfig(agent=agent, hidden_sizes=(7, 5, 3))
    policy = pgtorch.make_policy(agent, 4, 2, config.hidden_sizes)
    params = policy.init(key()).to(dtype)
    pgtorch.save_policy(tmp_path / "policy.safetensors", config, params)
    _, loaded = pgtorch.load_policy(tmp_path / "policy.safetensors")
    assert type(loaded) is type(params)
    assert next(loaded.parameters()).dtype == dtype
    assert_same_parameters(loaded, params, exactly=True)


def test_tensors_that_do_not_fit_are_refused():
    policy = pgtorch.make_policy("reinforce", 4, 2, (4,))
    params = policy.init(key())
    tensors = pgtorch.params_to_tensors(params)
    missing = {name: array for name, array in tensors.items() if name != "linear2.bias"}
    transposed = tensors | {"linear2.weight": tensors["linear2.weight"].T}
    for bad, named in (
        (missing, "linear2.bias"),
        (tensors | {"linear9.bias": np.zeros(2)}, "linear9.bias"),
        (transposed, "linear2.weight"),
    ):
        with pytest.raises(UsageError, match=named):
            pgtorch.tensors_to_params(bad, params)


def test_parameters_and_their_tensors_are_copies_of_one_another():
    params = pgtorch.make_policy("reinforce", 4, 2).init(key())
    before = params.linear1.weight.detach().clone()
    tensors = pgtorch.params_to_tensors(params)
    tensors["linear1.weight"][:] = 0
    loaded = pgtorch.tensors_to_params(tensors, params)
    tensors["linear1.weight"][:] = 1
    assert loaded.linear1.weight.eq(0).all()
    assert torch.equal(params.linear1.weight, before)
    assert torch.equal(loaded.linear2.weight, params.linear2.weight)


def test_training_is_decided_by_its_seed_and_not_by_how_much_is_evaluated():
    def losses(**changes):
        config = TrainConfig(**({"total_timesteps": 400, "eval_episodes": 2} | changes))
        rows = []
        result = pgtorch.train(config, callback=lambda update: rows.append(update.row))
        assert rows == result.history
        assert result.history[-1].env_steps >= 400
        return [(row.loss, row.env_steps, row.mean_return) for row in rows], result

    first, result = losses()
    assert losses()[0] == losses(eval_episodes=5)[0] == first
    assert losses(seed=1)[0] != first
    assert len(result.evaluation.returns) == 2
    assert result.solved_at is None


def test_the_kept_parameters_are_those_that_were_evaluated():
    kept = []
    config = TrainConfig(total_timesteps=600, eval_episodes=3)
    result = pgtorch.train(
        config,
        callback=lambda update: kept.append(
            (update.kept.update, copy.deepcopy(update.kept.params.state_dict()))
        ),
    )
    # Training goes on in place; what is kept must not move with it.
    number, params = kept[-1]
    first = next(params for update, params in kept if update == number)
    for name, tensor in result.params.state_dict().items():
        assert torch.equal(tensor, first[name])
        assert torch.equal(tensor, params[name])


def test_solved_is_told_when_training_and_evaluation_both_reach_the_threshold():
    config = TrainConfig(agent="reparam", solve_threshold=15.0, eval_episodes=5)
    result = pgtorch.train(config)
    assert result.solved_at is not None
    assert result.solved_at.episodes >= 100
    assert result.evaluation.mean >= 15.0
