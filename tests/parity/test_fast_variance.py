"""Torch's norms with Flax's fast variance, E[x²] − E[x]²: the same function, rounded otherwise."""

import copy

import numpy as np
import pytest
import torch

from parity.convert.fast_variance import fast_variance
from parity.tolerance import GATE, SLACK

T = torch.nn
NORMS = [
    (T.LayerNorm(8), (5, 8)),
    (T.LayerNorm([3, 8]), (5, 3, 8)),
    (T.LayerNorm(8, bias=False), (5, 8)),
    (T.LayerNorm(8, elementwise_affine=False), (2, 3, 8)),
    (T.GroupNorm(2, 4), (5, 4)),
    (T.GroupNorm(2, 4), (5, 4, 3, 3)),
    (T.GroupNorm(2, 4, affine=False), (5, 4, 3)),
]


@pytest.fixture(params=NORMS, ids=str)
def pair(request):
    """A norm with weights that are no ones and zeros, the same with the other variance, inputs."""
    norm, shape = request.param
    rng = np.random.default_rng(0)
    norm = copy.deepcopy(norm).double().requires_grad_(False)
    for weight in norm.parameters():
        weight.copy_(torch.tensor(rng.normal(size=weight.shape)))
    fast = copy.deepcopy(norm)
    fast_variance([""])(fast)
    return norm, fast, torch.tensor(rng.normal(size=shape))


def largest(array):
    return float(abs(array).max())


def test_it_is_the_variance_where_nothing_cancels_and_alone_there(pair):
    norm, fast, x = pair
    assert largest(fast(x) - norm(x)) <= GATE * largest(norm(x))
    far = x + 1e6  # E[x²] is of 1e12, whose rounding is a part in 1e4 of a variance of 1
    of_inputs = SLACK * torch.finfo(far.dtype).eps * largest(far)  # which a plain variance keeps to
    assert largest(fast(far) - norm(far)) > of_inputs


def test_a_variance_that_is_rounded_below_zero_is_zero(pair):
    _, fast, x = pair
    flat = 1e9 * x.flatten()[0].abs() + torch.zeros_like(x)  # E[x²] rounds by more than epsilon
    values = torch.linspace(0.1, 1, 50, dtype=torch.float64)
    assert all(fast(value * flat).isfinite().all() for value in values)
