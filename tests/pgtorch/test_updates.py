"""What an update computes, what it changes, and what it leaves alone."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import pgtorch
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from pgtorch.types import Metrics
from tests.pgtorch.cases import (
    ADAM,
    AGENTS,
    NAN,
    assert_close,
    assert_same_parameters,
    doubles,
    float64_case,
    key,
    state_of,
    with_padding,
)


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
