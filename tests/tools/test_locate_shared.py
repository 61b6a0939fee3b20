"""`parity.first_divergence` where what is wrong is shared, not used, or handed on elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

import parity
from parity.locate.matching import Partners
from parity.locate.search import _recorded
from tests.tools.test_locate import line

RNG = np.random.default_rng(29)
KEPT = {"x": RNG.normal(size=(5, 3)), "y": RNG.normal(size=(5, 3))}
ENDED = np.array([[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]], bool)


def masked_in_torch(x, y, ended):
    alive = 1 - ended.double()
    return {
        "x": (x * alive * 0.9).cumsum(0),
        "y": (y * 0.9 * 0.8 * alive).cumsum(0),
    }


def test_a_mask_that_two_formulas_lack_is_missed_in_what_they_share():
    def in_jax(x, y, ended):
        discounts = jnp.full_like(x, 0.9)  # here

        first = discounts * x

        second = discounts * 0.8 * y

        return {"x": jnp.cumsum(first, axis=0), "y": jnp.cumsum(second, axis=0)}

    found = parity.first_divergence(masked_in_torch, in_jax, {**KEPT, "ended": ENDED})
    assert found.candidate.line == line(in_jax)


def test_flags_that_are_wrong_are_blamed_and_not_what_they_mask():
    def in_jax(x, y, ended):
        others = jnp.roll(ended, 1, axis=0)  # here

        discounts = jnp.where(others, 0.0, 0.9)

        first = discounts * x

        second = discounts * 0.8 * y

        return {"x": jnp.cumsum(first, axis=0), "y": jnp.cumsum(second, axis=0)}

    found = parity.first_divergence(masked_in_torch, in_jax, {**KEPT, "ended": ENDED})
    assert found.candidate.line == line(in_jax)


STATES = {
    "xs": RNG.normal(size=(5, 3, 4)),
    "resets": ENDED,
    "weight": RNG.normal(size=(4, 4)),
    "bias": RNG.normal(size=4),
    "h": RNG.normal(size=(3, 4)),
    "c": RNG.normal(size=(3, 4)),
}


def unrolled_in_torch(xs, resets, weight, bias, h, c):
    found = []
    for x, reset in zip(xs, resets, strict=True):
        keep = (~reset).double().unsqueeze(1)
        h, c = h * keep, c * keep
        gate = x + torch.nn.functional.linear(h, weight, bias)
        c = torch.sigmoid(gate) * c + torch.tanh(gate)
        h = torch.tanh(c)
        found.append(h)
    return {"hs": torch.stack(found), "h": h, "c": c}


def cell(weight, bias, h, c, x):
    moved = h @ weight.T
    gate = x + moved + bias
    c = jax.nn.sigmoid(gate) * c + jnp.tanh(gate)
    return jnp.tanh(c), c


def unrolled(step, xs, resets, weight, bias, h, c):
    def turn(carry, now):
        carry = step(weight, bias, *carry, *now)
        return carry, carry[0]

    (h, c), hs = jax.lax.scan(turn, (h, c), (xs, resets))
    return {"hs": hs, "h": h, "c": c}


def test_a_state_that_is_not_reset_is_missed_where_the_flags_are_at_hand():
    def without_h(weight, bias, h, c, x, reset):
        c = jnp.where(reset[:, None], 0.0, c)
        return cell(weight, bias, h, c, x)  # here

    def without_c(weight, bias, h, c, x, reset):
        h = jnp.where(reset[:, None], 0.0, h)
        return cell(weight, bias, h, c, x)  # here

    for step in (without_h, without_c):
        found = parity.first_divergence(
            unrolled_in_torch, lambda step=step, **inputs: unrolled(step, **inputs), STATES
        )
        assert found.candidate.line == line(step)


def step_right(weight, bias, h, c, x, reset):
    h, c = (jnp.where(reset[:, None], 0.0, each) for each in (h, c))
    return cell(weight, bias, h, c, x)


def test_two_states_that_are_not_used_are_blamed_on_what_is_used_instead():
    def in_jax(h, c, **inputs):
        start = jnp.zeros_like(h), jnp.zeros_like(c)  # here

        return unrolled(step_right, h=start[0], c=start[1], **inputs)

    found = parity.first_divergence(unrolled_in_torch, in_jax, STATES)
    assert found.candidate.line == line(in_jax)


def test_outputs_in_one_anothers_place_are_blamed_where_they_were_told_apart():
    def in_jax(**inputs):
        def both():
            found = unrolled(step_right, **inputs)

            return found["hs"], found["h"], found["c"]

        hs, c, h = both()  # here

        return {"hs": hs, "h": h, "c": c}

    found = parity.first_divergence(unrolled_in_torch, in_jax, STATES)
    assert found.candidate.line == line(in_jax)


def test_what_every_turn_goes_on_with_has_a_partner_whatever_lines_it_comes_from():
    def in_torch(values, last):
        found = []
        for t in reversed(range(len(values))):
            if t == len(values) - 1:
                following = torch.exp(last)
            else:
                following = torch.exp(values[t + 1])
            found.insert(0, 0.9 * following)
        return torch.stack(found)

    def in_jax(values, last):
        following = jnp.exp(jnp.concatenate([values[1:], last[None]]))
        return 0.9 * following

    inputs = {"values": RNG.normal(size=(5, 3)), "last": RNG.normal(size=3)}
    partners, *_ = _recorded(
        lambda **x: {"out": in_torch(**x)}, lambda **x: {"out": in_jax(**x)}, inputs
    )
    assert isinstance(partners, Partners)
    following = next(v for v in partners.jax.values if v.op == "exp")
    assert any(len(theirs) == 5 for theirs in partners.of_jax[following.index])


def test_a_step_that_is_left_out_stands_in_the_function_that_takes_such_steps():
    def in_torch(x, weights):
        hidden = torch.tanh(x @ weights[0])
        hidden = torch.tanh(hidden @ weights[1])
        return hidden @ weights[2]

    def layer(x, weight):
        return x @ weight

    def in_jax(x, weights):
        hidden = jnp.tanh(layer(x, weights[0]))

        hidden = layer(hidden, weights[1])  # here

        return layer(hidden, weights[2])

    inputs = {"x": RNG.normal(size=(5, 3)), "weights": RNG.normal(size=(3, 3, 3))}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_a_factor_that_is_left_out_is_missed_in_the_formula_and_not_in_the_sum():
    def in_torch(x, tau):
        return ((tau - (x < 0).double()).abs() * x**2 / 0.7).sum(1)

    def tilted(x, tau):
        below = (x < 0).astype(x.dtype)
        return jnp.abs(tau - below) * x**2  # here

    def in_jax(x, tau):
        pairs = tilted(x, tau)

        return jnp.sum(pairs, axis=1)

    inputs = {"x": RNG.normal(size=(5, 4)), "tau": (np.arange(4) + 0.5) / 4}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(tilted)


def test_several_wrong_values_of_one_line_are_mended_row_by_row():
    def in_torch(q, k, turn):
        def turned(x):
            first, second = x.chunk(2, dim=-1)
            return x * turn.cos() + torch.cat([-second, first], dim=-1) * turn.sin()

        q, k = turned(q.transpose(1, 2)), turned(k.transpose(1, 2))
        return torch.nn.functional.scaled_dot_product_attention(q, k, k)

    def turned(x, turn):
        first, second = x[..., ::2], x[..., 1::2]
        beside = jnp.concatenate([-second, first], axis=-1)  # here
        return x * jnp.cos(turn) + beside * jnp.sin(turn)

    def in_jax(q, k, turn):
        q, k = turned(q, turn[:, None]), turned(k, turn[:, None])

        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(4)

        return jnp.einsum("bhqk,bkhd->bhqd", jax.nn.softmax(scores), k)

    shape = 2, 5, 3, 4
    inputs = {"q": RNG.normal(size=shape), "k": RNG.normal(size=shape)}
    found = parity.first_divergence(in_torch, in_jax, {**inputs, "turn": RNG.normal(size=(5, 4))})
    assert abs(found.candidate.line - line(turned)) <= 1
