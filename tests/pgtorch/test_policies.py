"""Distributions, networks and policies."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import pgtorch
from pgcore.config import TrainConfig
from tests.pgtorch.cases import ADAM, AGENTS, GATE, assert_close, float64_case, key, state_of


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
