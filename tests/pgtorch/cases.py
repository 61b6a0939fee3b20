"""Cases and comparisons that the tests of the PyTorch side share.

Where two computations differ only in the order of float64 operations they are held to `GATE`,
relative to the largest number of an array: about 10⁵ roundings, far below any change of meaning.
"""

import copy

import numpy as np
import torch

import pgtorch
from pgtorch.types import Noise, TrainState

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
