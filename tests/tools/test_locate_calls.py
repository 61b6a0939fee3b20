"""`parity.first_divergence` where a call does what PyTorch leaves, and where that is compared."""

import jax.numpy as jnp
import numpy as np
import torch

import parity
from tests.tools.test_locate import line

RNG = np.random.default_rng(11)


def test_a_call_for_which_pytorch_has_no_work_is_blamed_and_not_what_it_does():
    def of_torch():
        def normalized(returns, mask, scope):
            returns = torch.where(mask, returns, 0.0)
            if scope == "none":
                return returns
            centred = returns - returns.mean()
            return centred / centred.square().mean().sqrt()

        return normalized

    def of_jax():
        def normalized(returns, mask, scope):
            returns = jnp.where(mask, returns, 0.0)
            if scope == "none":
                return returns
            centred = returns - returns.mean()
            return centred / jnp.sqrt(jnp.square(centred).mean())

        return normalized

    in_torch_normalized, in_jax_normalized = of_torch(), of_jax()

    def in_torch(returns, scores, mask):
        advantages = in_torch_normalized(returns, mask, "none")
        return {"loss": -(scores * advantages).sum()}

    def in_jax(returns, scores, mask):
        advantages = in_jax_normalized(returns, mask, "batch")  # here
        return {"loss": -(scores * advantages).sum()}

    returns, scores = RNG.normal(size=(2, 6, 4)) + 1
    given = {"returns": returns, "scores": scores, "mask": np.tri(6, 4, dtype=bool)}
    found = parity.first_divergence(in_torch, in_jax, given)
    assert found.candidate.line == line(in_jax)


def test_a_function_that_is_itself_compared_is_blamed_inside():
    def of_torch():
        def advantages(returns, mask):
            return torch.where(mask, returns, 0.0)

        return advantages

    def of_jax():
        def advantages(returns, mask):
            returns = jnp.where(mask, returns, 0.0)
            return returns - returns.mean()  # here

        return advantages

    ours, theirs = of_jax(), of_torch()
    found = parity.first_divergence(
        lambda returns, mask: {"advantages": theirs(returns, mask)},
        lambda returns, mask: {"advantages": ours(returns, mask)},
        {"returns": RNG.normal(size=(6, 4)), "mask": np.tri(6, 4, dtype=bool)},
    )
    assert found.candidate.line == line(ours)
