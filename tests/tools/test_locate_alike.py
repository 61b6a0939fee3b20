"""`parity.first_divergence` where what is wrong is one number, or one flag, everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

import parity
import pgjax
import pgtorch
from tests.tools.test_locate import line

RNG = np.random.default_rng(11)


def test_a_loop_of_which_each_row_is_one_number_everywhere_is_found_as_a_whole():
    discounts = {"torch": 0.99, "jax": 0.8}  # written on no line where something is computed

    def in_torch(rewards, mask, scores):
        returns = pgtorch.discounted_returns(rewards, mask, discounts["torch"])
        return {"loss": (torch.where(mask, returns, 0) * scores).sum()}

    def in_jax(rewards, mask, scores):
        returns = pgjax.discounted_returns(rewards, mask, discounts["jax"])
        return {"loss": (jnp.where(mask, returns, 0) * scores).sum()}

    rewards = np.zeros((5, 3))
    rewards[-1] = 1
    given = {"rewards": rewards, "mask": rewards >= 0, "scores": RNG.normal(size=(5, 3))}
    found = parity.first_divergence(in_torch, in_jax, given)
    assert found.candidate.line == line(pgjax.discounted_returns, "+ discount * following")


def test_flags_that_are_all_alike_in_pytorch_alone_are_found():
    x = RNG.normal(size=(6, 3))
    limit = x.var(0).max() * (1 + 1e-9)  # all are below it, but not if they move a little

    def in_torch(x):
        variance = (x - x.mean(0)).square().mean(0)
        is_flat = variance.sqrt() <= 1e-5
        return torch.where(is_flat, 0, x / torch.where(is_flat, 1, variance).sqrt())

    def in_jax(x):
        variance = jnp.square(x - x.mean(0)).mean(0)
        is_flat = variance <= limit  # here
        root = jnp.sqrt(jnp.where(is_flat, 1, variance))
        ratio = x / root
        kept = ~is_flat
        return jnp.where(kept, ratio, 0)

    found = parity.first_divergence(in_torch, in_jax, {"x": x})
    assert found.candidate.line == line(in_jax)


def test_slopes_go_through_complex_numbers():
    def in_torch(x, phases):
        return {"turned": x[0] * phases.cos() - x[1] * phases.sin()}

    def in_jax(x, phases):
        return {"turned": (jax.lax.complex(x[0], x[1]) * jnp.exp(1j * phases)).real}

    inputs = {"x": np.random.default_rng(3).normal(size=(2, 5)), "phases": np.linspace(0.1, 1, 5)}
    assert parity.first_divergence(in_torch, in_jax, inputs) is None


def test_a_while_loop_under_vmap_ends_for_each_on_its_own():
    def in_torch(starts):
        found = []
        for start in starts:
            total, count = start, 0
            while total < 4.0:
                total, count = total * 1.5, count + 1
            found.append(total + count)
        return {"ends": torch.stack(found)}

    def in_jax(starts):
        def end(start):
            def turn(carry):
                total, count = carry
                return total * 1.5, count + 1

            total, count = jax.lax.while_loop(lambda carry: carry[0] < 4.0, turn, (start, 0))
            return total + count

        return {"ends": jax.vmap(end)(starts)}

    def wrong(starts):
        return {"ends": 1.5 * in_jax(starts)["ends"]}  # here

    inputs = {"starts": np.array([0.3, 1.0, 3.9, 5.0])}
    assert parity.first_divergence(in_torch, in_jax, inputs) is None
    found = parity.first_divergence(in_torch, wrong, inputs)
    assert found.candidate.line == line(wrong)
