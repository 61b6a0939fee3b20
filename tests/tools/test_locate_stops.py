"""`parity.first_divergence` where a slope is stopped, or is not, on one side alone."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

import parity
from tests.tools.test_locate import line

RNG = np.random.default_rng(14)


def test_a_stop_in_every_turn_of_a_loop_is_blamed_on_its_own_line():
    def in_torch(weight, xs, state):
        for x in xs:
            state = torch.tanh(state @ weight + x)
        return state.sum()

    def in_jax(weight, xs, state):
        def turn(state, x):
            state = jax.lax.stop_gradient(state)  # here

            moved = state @ weight

            return jnp.tanh(moved + x), None

        last, _ = jax.lax.scan(turn, state, xs)
        return last.sum()

    inputs = {
        "weight": RNG.normal(size=(3, 3)),
        "xs": RNG.normal(size=(4, 3)),
        "state": RNG.normal(size=3),
    }
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.phase == "backward"
    assert found.candidate.line == line(in_jax)


def test_what_is_handed_on_though_it_is_at_hand_held_fast_is_blamed_at_the_call():
    def in_torch(values, rewards):
        def targets(rewards, values):
            return rewards + 0.9 * values[1:]

        errors = values[:-1] - targets(rewards, values.detach())
        return (errors**2).mean() - values.detach().mean()

    def in_jax(values, rewards):
        def targets(rewards, values):
            following = values[1:]

            faded = 0.9 * following

            return rewards + faded

        held = jax.lax.stop_gradient(values)
        errors = values[:-1] - targets(rewards, values)  # here
        return jnp.square(errors).mean() - held.mean()

    inputs = {"values": RNG.normal(size=6), "rewards": RNG.normal(size=5)}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.phase == "backward"
    assert found.candidate.line == line(in_jax)


def test_parameters_that_a_call_should_not_move_are_blamed_at_that_call():
    def in_torch(one, two, obs, action):
        def value(net, action):
            hidden = torch.relu(obs @ net["w"].T + action @ net["v"].T)
            return hidden @ net["out"]

        errors = (value(one, obs) - 1) ** 2 + (value(two, obs) - 1) ** 2
        one, two = ({k: x.detach() for k, x in net.items()} for net in (one, two))
        least = torch.minimum(value(one, action), value(two, action))
        return {"critics": errors.mean(), "actor": -least.mean()}

    def in_jax(one, two, obs, action):
        def value(net, action):
            hidden = jax.nn.relu(obs @ net["w"].T + action @ net["v"].T)
            return hidden @ net["out"]

        def twin(action):
            nets = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, two)
            return jax.vmap(value, in_axes=(0, None))(nets, action)

        errors = jnp.square(twin(obs) - 1).sum(axis=0)

        least = twin(action).min(axis=0)  # here
        return {"critics": errors.mean(), "actor": -least.mean()}

    def net():
        return {
            "w": RNG.normal(size=(8, 3)),
            "v": RNG.normal(size=(8, 3)),
            "out": RNG.normal(size=8),
        }

    inputs = {"one": net(), "two": net(), "obs": RNG.normal(size=(4, 3))}
    inputs["action"] = RNG.normal(size=(4, 3))
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.phase == "backward"
    assert abs(found.candidate.line - line(in_jax)) <= 1
