"""`parity.first_divergence` where PyTorch has no value to put in the place of the wrong one."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

import parity
from parity.locate.repairs import MAX_ORDERS, likeliest_orders
from tests.tools.test_locate import line

RNG = np.random.default_rng(12)
STEP = {name: RNG.normal(size=24) for name in ("param", "grad", "first")}
STEP["second"] = RNG.uniform(0.5, 2.0, size=24)


def stepped(param, grad, first, second):
    """A step of Adam as PyTorch takes it: the rate is folded into the first moment's scale."""
    first = 0.9 * first + 0.1 * grad
    second = 0.99 * second + 0.01 * grad**2
    denominator = second.sqrt() / (1 - 0.99**5) ** 0.5 + 1e-3
    return param * (1 - 0.1 * 0.01) - 0.1 / (1 - 0.9**5) * first / denominator


def test_a_factor_that_pytorch_folds_into_another_is_missed_where_it_is_left_out():
    def in_jax(param, grad, first, second):
        first = 0.9 * first + 0.1 * grad
        second = 0.99 * second + 0.01 * grad**2
        root = jnp.sqrt(second / (1 - 0.99**5)) + 1e-3
        update = first / root  # here
        decayed = update + 0.01 * param
        moved = 0.1 * decayed
        return param - moved

    found = parity.first_divergence(stepped, in_jax, STEP)
    assert found.candidate.line == line(in_jax)


def test_a_number_is_blamed_where_all_that_it_led_to_would_be_right_scaled():
    def in_jax(param, grad, first, second):
        first = 0.9 * first + 0.1 * grad
        second = 0.99 * second + 0.01 * grad**2
        root = jnp.sqrt(second / (1 - 0.99**5)) + 1e-3
        scaled = first / (1 - 0.95**5)  # here
        update = scaled / root
        decayed = update + 0.01 * param
        moved = 0.1 * decayed
        return param - moved

    found = parity.first_divergence(stepped, in_jax, STEP)
    assert abs(found.candidate.line - line(in_jax)) <= 1


def test_a_term_that_pytorch_adds_elsewhere_is_missed_where_the_others_are():
    def in_torch(noise, log_std, slope):
        density = -((noise * log_std.exp()) ** 2) / (2 * log_std.exp() ** 2) - log_std
        return (density - (slope + 0.4) - 0.9).sum(-1)

    def in_jax(noise, log_std, slope):
        density = -0.5 * noise**2 - 0.9  # here

        log_slope = slope
        inner = density - log_slope
        total = jnp.sum(inner, axis=-1)
        return total - noise.shape[-1] * 0.4

    inputs = {name: RNG.normal(size=(16, 3)) for name in ("noise", "log_std", "slope")}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def attended(queries, keys, values):
    """Attention to what came before, by PyTorch's own function."""
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


def softmax(scores, allowed):
    scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    raised = jnp.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


HEADS = {name: RNG.normal(size=(2, 6, 4)) for name in ("queries", "keys", "values")}


def test_a_wrong_mask_is_blamed_where_it_is_made_and_not_where_it_is_used():
    def in_jax(queries, keys, values):
        scores = jnp.einsum("bqd,bkd->bqk", queries / 2, keys)
        length = queries.shape[1]

        allowed = jnp.tri(length, k=-1, dtype=bool)  # here

        weights = softmax(scores, allowed)
        return weights @ values

    found = parity.first_divergence(attended, in_jax, HEADS)
    assert found.candidate.line == line(in_jax)


def test_scores_of_keys_in_queries_are_blamed_where_they_are_made():
    def in_jax(queries, keys, values):
        scores = jnp.einsum("bkd,bqd->bqk", queries / 2, keys)  # here
        length = queries.shape[1]

        allowed = jnp.tri(length, dtype=bool)

        weights = softmax(scores, allowed)
        return weights @ values

    found = parity.first_divergence(attended, in_jax, HEADS)
    assert found.candidate.line == line(in_jax)


def test_a_right_value_that_is_used_rightly_elsewhere_was_put_in_anothers_place():
    def in_torch(x, weight):
        normed = F.layer_norm(x, x.shape[-1:])
        return x + torch.tanh(normed @ weight)

    def in_jax(x, weight):
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)

        update = jnp.tanh(normed @ weight)
        return normed + update  # here

    inputs = {"x": RNG.normal(size=(6, 4)), "weight": RNG.normal(size=(4, 4))}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_a_loop_that_puts_out_what_it_began_a_turn_with_is_blamed_at_its_end():
    def in_torch(state, inputs, starts, weight, bias):
        outputs = []
        for x, start in zip(inputs, starts, strict=True):
            state = state * (~start).double()
            state = torch.tanh(0.5 * state + x)
            outputs.append(state)
        return F.log_softmax(F.linear(torch.stack(outputs), weight, bias), dim=-1)

    def in_jax(state, inputs, starts, weight, bias):
        def turn(state, now):
            x, start = now
            state = jnp.where(start, 0.0, state)
            new = jnp.tanh(0.5 * state + x)
            return new, state  # here

        _, outputs = jax.lax.scan(turn, state, (inputs, starts))

        scores = outputs @ weight.T + bias

        return jax.nn.log_softmax(scores, axis=-1)

    given = {
        "state": RNG.normal(size=3),
        "inputs": RNG.normal(size=(5, 3)),
        "starts": np.array([True, False, False, True, False]),
        "weight": RNG.normal(size=(2, 3)),
        "bias": RNG.normal(size=2),
    }
    found = parity.first_divergence(in_torch, in_jax, given)
    assert found.candidate.line == line(in_jax)


def test_a_loop_that_puts_out_what_pytorch_does_is_not_blamed_for_what_comes_after():
    def in_torch(state, inputs, weight):
        outputs = []
        for x in inputs:
            state = torch.tanh(0.5 * state + x)
            outputs.append(state)
        return torch.sin(torch.stack(outputs)) @ weight

    def in_jax(state, inputs, weight):
        def turn(state, x):
            new = jnp.tanh(0.5 * state + x)
            return new, new

        _, outputs = jax.lax.scan(turn, state, inputs)

        turned = jnp.cos(outputs)  # here

        return turned @ weight

    given = {
        "state": RNG.normal(size=3),
        "inputs": RNG.normal(size=(5, 3)),
        "weight": RNG.normal(size=(3, 3)),
    }
    found = parity.first_divergence(in_torch, in_jax, given)
    assert found.candidate.line == line(in_jax)


def test_zeros_in_the_place_of_an_input_that_is_not_used_are_blamed():
    def in_torch(state, inputs):
        for x in inputs:
            state = torch.tanh(0.5 * state + x)
        return state

    def in_jax(state, inputs):
        begins = jnp.zeros_like(state)  # here

        def turn(state, x):
            faded = 0.5 * state
            return jnp.tanh(faded + x), None

        return jax.lax.scan(turn, begins, inputs)[0]

    given = {"state": RNG.normal(size=3), "inputs": RNG.normal(size=(5, 3))}
    found = parity.first_divergence(in_torch, in_jax, given)
    assert found.candidate.line == line(in_jax)


def test_a_residual_that_is_left_out_is_missed_where_it_would_be_added():
    def in_torch(x, weight):
        def feed_forward(x):
            return torch.tanh(x @ weight) * 2.0

        return x + feed_forward(x)

    def in_jax(x, weight):
        def feed_forward(x):
            return jnp.tanh(x @ weight) * 2.0

        return feed_forward(x)  # here

    inputs = {"x": RNG.normal(size=(6, 4)), "weight": RNG.normal(size=(4, 4))}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_of_too_many_operands_some_orders_are_tried_from_either_end():
    orders = likeliest_orders([*range(4)], [*range(40)], lambda i, j: float(j == 39 - i))
    assert len(orders) <= 2 * MAX_ORDERS
    assert orders[0] == (39, 38, 37, 36)
    assert (0, 1, 2, 3) in orders
    assert len({*likeliest_orders([0, 1], [0, 10, 20], lambda i, j: 0.0)}) == 6
