"""`parity.first_divergence` where plain numbers, flags, lists and repeated calls are at fault."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

import parity
from parity.locate.torch_tape import record_torch
from tests.tools.test_locate import line, returns_by_scan, returns_in_torch

RNG = np.random.default_rng(11)


def found_line(in_torch, in_jax, inputs, **options):
    found = parity.first_divergence(in_torch, in_jax, inputs, **options)
    assert found is not None
    return found.candidate.line


def test_flags_that_differ_are_a_divergence():
    def in_torch(x):
        return {"twice": 2 * x, "is_large": x > 0.5}

    def in_jax(x):
        is_large = x > 0.25  # here
        return {"twice": x + x, "is_large": is_large}

    x = np.array([0.1, 0.3, 0.4, 0.7])
    assert found_line(in_torch, in_jax, {"x": x}) == line(in_jax)


def test_what_torch_writes_into_a_list_of_tensors_is_seen():
    def in_torch(a, b):
        leaves = [torch.nn.Parameter(torch.zeros_like(x)) for x in (a, b)]
        for leaf, gradient in zip(leaves, (a, b), strict=True):
            leaf.grad = gradient.detach().clone()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        return {"a": leaves[0].grad, "b": leaves[1].grad}

    def right(a, b):
        scale = jnp.minimum(1.0, 1.0 / (jnp.sqrt((a**2).sum() + (b**2).sum()) + 1e-6))
        return {"a": scale * a, "b": scale * b}

    def wrong(a, b):
        squares = (a**2).sum() + (b**2).sum()
        scale = jnp.minimum(1.0, 1.0 / (squares + 1e-6))  # here
        return {"a": scale * a, "b": scale * b}

    inputs = {"a": RNG.normal(size=(3, 4)), "b": RNG.normal(size=5)}
    assert parity.first_divergence(in_torch, right, inputs) is None
    assert abs(found_line(in_torch, wrong, inputs) - line(wrong)) <= 1


def test_a_discount_of_zero_hides_no_line():
    def in_jax(rewards, discount):
        following, rows = jnp.zeros_like(rewards[0]), []
        for reward in rewards[::-1]:
            following = discount * (reward + following)  # here
            rows.append(following)
        return jnp.stack(rows[::-1])

    inputs = {"rewards": RNG.normal(size=(5, 3)), "discount": 0.0}
    assert parity.first_divergence(returns_in_torch, returns_by_scan, inputs) is None
    assert found_line(returns_in_torch, in_jax, inputs) == line(in_jax)


def test_a_count_that_pytorch_has_in_python_alone_is_followed_back():
    def in_torch(m, count):
        power = int(count) + 1
        return m / (1 - 0.9**power)

    def in_jax(m, count):
        power = count + 2  # here
        corrected = m / (1 - 0.9 ** power.astype(m.dtype))
        return corrected

    inputs = {"m": RNG.normal(size=(4, 3)), "count": np.array(3)}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found is not None
    assert line(in_jax) <= found.candidate.line <= line(in_jax) + 1


def test_a_stop_that_is_missing_around_a_helper_is_on_the_line_of_its_call():
    def in_torch(log_probs, advantages, mask):
        weights = torch.where(mask, advantages.detach(), 0.0)
        return -(torch.where(mask, log_probs, 0.0) * weights).sum()

    def masked(x, mask):
        return jnp.where(mask, x, 0.0)

    def in_jax(log_probs, advantages, mask):
        chosen = masked(log_probs, mask)
        return -(chosen * masked(advantages, mask)).sum()  # here

    inputs = {
        "log_probs": RNG.normal(size=(4, 3)),
        "advantages": RNG.normal(size=(4, 3)),
        "mask": RNG.random((4, 3)) > 0.3,
    }
    assert found_line(in_torch, in_jax, inputs) == line(in_jax)


def test_an_operation_too_many_on_what_both_have_is_found():
    def in_torch(x):
        squares = x * x
        shifted = squares - 0.5
        return shifted.sum(-1)

    def in_jax(x):
        shifted = x * x - 0.5
        shifted = shifted + 0.5  # here
        return shifted.sum(-1)

    assert found_line(in_torch, in_jax, {"x": RNG.normal(size=(4, 3))}) == line(in_jax)


def test_unwritten_memory_is_recorded_as_zeros_and_what_overwrites_is_made_of_nothing_before():
    """What lies there by chance would answer to rounding with all of itself, like any value."""

    def in_torch(x):
        torch.use_deterministic_algorithms(True)  # fills what is not written yet with NaN
        try:
            room = torch.empty(2, 3, dtype=torch.float64)
        finally:
            torch.use_deterministic_algorithms(False)
        room.copy_(x)
        return room * 2

    tape = record_torch(in_torch, {"x": RNG.normal(size=(2, 3))}).recording.entries
    made, copied = (
        next(entry for entry in tape if entry.op.startswith(f"aten.{name}"))
        for name in ("empty", "copy_")
    )
    assert not made.array.any()
    assert tape.index(made) not in copied.parents
    assert [tape[place].op for place in copied.parents] == ["input"]


def test_what_is_one_number_everywhere_by_a_mistake_is_found():
    """Only a last reward of 1: without a discount all returns are 1, a number that PyTorch has."""

    def in_torch(rewards, weight, discount):
        following = torch.zeros_like(rewards[0])
        found = []
        for reward in rewards.flip(0):
            following = reward + discount * following
            found.append(following)
        return (torch.stack(found[::-1]) * weight).sum(0)

    def in_jax(rewards, weight, discount):
        def step(following, reward):
            following = reward + 1.0 * following  # here
            return following, following

        returns = jax.lax.scan(step, jnp.zeros_like(rewards[0]), rewards, reverse=True)[1]
        return (returns * weight).sum(0)

    rewards = np.zeros((5, 3))
    rewards[-1] = 1.0
    inputs = {"rewards": rewards, "weight": RNG.normal(size=(5, 3)), "discount": 0.8}
    assert found_line(in_torch, in_jax, inputs) == line(in_jax)


def test_an_input_that_is_not_used_is_no_wrong_call():
    def in_torch(logits, noise):
        return torch.argmax(torch.log_softmax(logits, -1) + noise, -1)

    def greedy(logits):
        return jnp.argmax(logits, -1)  # here

    def in_jax(logits, noise):
        return greedy(logits)

    inputs = {"logits": RNG.normal(size=(6, 3)), "noise": 50 * RNG.normal(size=(6, 3))}
    assert found_line(in_torch, in_jax, inputs) == line(greedy)


def test_a_number_squared_in_python_in_the_body_of_a_scan_is_found_at_its_use():
    def in_jax(rewards, discount):
        def step(following, reward):
            following = reward + discount * discount * following  # here
            return following, following

        return jax.lax.scan(step, jnp.zeros_like(rewards[0]), rewards, reverse=True)[1]

    inputs = {"rewards": RNG.normal(size=(5, 3)), "discount": 0.9}
    assert found_line(returns_in_torch, in_jax, inputs) == line(in_jax)
