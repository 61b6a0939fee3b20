"""Returns, advantages and the loss against their definitions."""

import math

import numpy as np
import pytest
import torch

import pgtorch
from tests.pgtorch.cases import GATE, NAN, assert_close, key, ragged_mask


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


def test_integer_rewards_of_one_step_have_returns_that_are_floats():
    rewards, mask = torch.tensor([[2, 3]]), torch.tensor([[True, False]])
    returns = pgtorch.discounted_returns(rewards, mask, 0.5)
    assert returns.dtype == torch.get_default_dtype()
    assert returns.tolist() == [[2.0, 0.0]]
    longer = pgtorch.discounted_returns(
        torch.ones(2, 1, dtype=torch.int64), mask[:, :1].expand(2, 1), 0.5
    )
    assert longer.tolist() == [[1.5], [1.0]]


def test_a_scope_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="scope is 'episodes'.*did you mean 'episode'"):
        pgtorch.normalize_returns(torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool), "episodes")


def test_an_episode_without_steps_has_advantages_of_zero():
    mask = torch.tensor([[False, True], [False, True]])
    returns = torch.tensor([[NAN, 1.0], [NAN, 3.0]], dtype=torch.float64)
    advantages = pgtorch.normalize_returns(returns, mask)
    assert advantages[:, 0].tolist() == [0.0, 0.0]
    assert_close(advantages[:, 1], np.array([-1.0, 1.0]))
