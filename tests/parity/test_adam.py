"""Adam in float32 is as exact as torch's: a sample of `benchmarks.optim_exact`."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import pgjax
import pgtorch
from benchmarks import optim_exact

FEW = 8
"""Roundings: a quotient, a product and a root more than torch makes, and XLA's expm1, off by 5."""


def test_no_part_of_a_step_is_further_off_than_torchs_by_more_than_a_few_roundings():
    found = optim_exact.search_step(betas=(0.0, 0.9, 0.999), epsilons=(1e-8,))
    assert {part: record["excess"] <= FEW for part, record in found.items()} == {
        "m": True,
        "v": True,
        "update": True,
    }, found
    assert all(0 < record["torch"] < FEW for record in found.values())  # so the truth is the truth


def test_rounding_does_not_add_up_over_many_updates_where_it_does_not_in_torch():
    """b1·m + (1 − b1)·g with b1 rounded to float32 ends 218 roundings from the gradient."""
    for row in optim_exact.search_drift(betas=(0.9, 0.99, 0.999), num_steps=2_000):
        for part in ("m", "v"):
            assert row[part]["jax"] <= row[part]["torch"] + FEW, row


@pytest.mark.parametrize("magnitude", [1e-30, 1e-15, 1.0, 1e15, 1e18, 1e20, 1e30])
def test_clipping_gradients_of_any_size_gives_what_torch_gives(magnitude):
    g = (magnitude * np.random.default_rng(0).uniform(1, 2, 100)).astype(np.float32)
    parameter = torch.nn.Parameter(torch.zeros(100))
    parameter.grad = torch.tensor(g)
    pgtorch.clip_by_global_norm(1.0)([parameter])
    ours, _ = pgjax.clip_by_global_norm(1.0).update(jnp.array(g), optax.EmptyState())
    assert parameter.grad is not None
    expected = parameter.grad.numpy()
    assert (expected == 0).all() == (magnitude > 1e18)  # the norm's square overflows
    np.testing.assert_allclose(ours, expected, rtol=FEW * 2.0**-24)
