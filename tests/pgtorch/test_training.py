"""Randomness, errors, files and whole training runs."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import pgtorch
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from tests.pgtorch.cases import (
    ADAM,
    AGENTS,
    assert_same_parameters,
    key,
)


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
