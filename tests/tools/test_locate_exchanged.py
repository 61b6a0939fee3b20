"""`parity.first_divergence` where two things stand in one another's place."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

import parity
from tests.tools.test_locate import line

RNG = np.random.default_rng(13)


def cell(x, state, w_x, w_h):
    """A gated unit: PyTorch multiplies all gates' weights at once."""
    gates = (x @ w_x.T + state @ w_h.T).chunk(2, dim=-1)
    return torch.sigmoid(gates[0]) * state + torch.tanh(gates[1])


def test_pieces_that_are_exchanged_are_blamed_where_they_are_cut():
    def in_torch(xs, state, w_x, w_h):
        for x in xs:
            state = cell(x, state, w_x, w_h)
        return state

    def in_jax(xs, state, w_x, w_h):
        from_inputs = xs @ w_x.T
        into_new, into_gate = jnp.split(w_h, 2)  # here

        def turn(state, gates):
            gate, new = jnp.split(gates, 2)
            gate = jax.nn.sigmoid(gate + into_gate @ state)
            new = jnp.tanh(new + into_new @ state)
            return gate * state + new, None

        return jax.lax.scan(turn, state, from_inputs)[0]

    inputs = {
        "xs": RNG.normal(size=(4, 5)),
        "state": RNG.normal(size=3),
        "w_x": RNG.normal(size=(6, 5)),
        "w_h": RNG.normal(size=(6, 3)),
    }
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_two_parts_parameters_that_are_exchanged_are_blamed_where_they_are_used_first():
    def in_torch(params, x, memory):
        def normed(part, x):
            return F.layer_norm(x, (4,), part["scale"], part["shift"])

        queries, keys = normed(params["first"], x), normed(params["second"], memory)
        return F.scaled_dot_product_attention(queries, keys, memory)

    def in_jax(params, x, memory):
        def normed(part, x):
            centred = x - x.mean(-1, keepdims=True)
            root = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
            return centred / root * part["scale"] + part["shift"]

        queries = normed(params["second"], x)  # here
        keys = normed(params["first"], memory)

        scores = queries @ keys.T / 2
        weights = jax.nn.softmax(scores, axis=-1)
        return weights @ memory

    scales, shifts = RNG.normal(size=(2, 2, 4))
    inputs = {
        "params": {
            "first": {"scale": scales[0], "shift": shifts[0]},
            "second": {"scale": scales[1], "shift": shifts[1]},
        },
        "x": RNG.normal(size=(5, 4)),
        "memory": RNG.normal(size=(7, 4)),
    }
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert abs(found.candidate.line - line(in_jax)) <= 1


def test_an_axis_that_is_split_the_other_way_is_blamed_where_it_is_split():
    def in_torch(x, memory):
        queries = x.reshape(5, 2, 4).transpose(0, 1)
        keys = memory.reshape(7, 2, 4).transpose(0, 1)
        return torch.softmax(queries @ keys.mT, dim=-1)

    def in_jax(x, memory):
        def heads(x):
            return x.reshape(-1, 4, 2).transpose(2, 0, 1)  # here

        queries, keys = heads(x), heads(memory)
        scores = jnp.einsum("hqd,hkd->hqk", queries, keys)
        shifted = scores - scores.max(-1, keepdims=True)
        return jnp.exp(shifted) / jnp.exp(shifted).sum(-1, keepdims=True)

    inputs = {"x": RNG.normal(size=(5, 8)), "memory": RNG.normal(size=(7, 8))}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert abs(found.candidate.line - line(in_jax)) <= 2
