"""`parity.first_divergence` where one operation, changed, makes every output right."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import parity
from parity.locate.correspondence import wrong_outputs
from parity.locate.forward import Forward
from parity.locate.mutated import Mutations
from parity.locate.reruns import Edit
from parity.locate.search import _recorded
from parity.locate.trials import comes_out_right
from parity.prepared import prepared
from tests.tools.test_locate import line

RNG = np.random.default_rng(28)
NUM_STEPS = 4
STEPS = {
    "params": {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=3)},
    "grads": {"w": RNG.normal(size=(NUM_STEPS, 3, 2)), "b": RNG.normal(size=(NUM_STEPS, 3))},
}


def steps_in_torch(params, grads):
    """Adam's steps with decay of what has two axes, and a warm-up: all scales are one number."""
    moved = {}
    for name, param in params.items():
        first, second = torch.zeros_like(param), torch.zeros_like(param)
        for t, grad in enumerate(grads[name], start=1):
            rate = 0.1 * min(1.0, t / 3)
            if param.ndim > 1:
                param = param * (1 - rate * 0.05)
            first = torch.lerp(first, grad, 0.1)
            second = 0.98 * second + (1 - 0.98) * grad**2
            root = (second / (1 - 0.98**t)).sqrt() + 1e-3
            param = param - rate / (1 - 0.9**t) * first / root
        moved[name] = param
    return moved


def scanned(step, params, grads):
    zeros = jax.tree.map(jnp.zeros_like, params)
    start = params, zeros, zeros, 0
    (moved, *_), _ = jax.lax.scan(lambda carry, now: (step(carry, now), None), start, grads)
    return moved


def unbiased(moment, rate, count):
    return jax.tree.map(lambda each: each / (1 - rate**count), moment)


def moments(first, second, grads):
    first = jax.tree.map(lambda m, g: 0.9 * m + (1 - 0.9) * g, first, grads)
    second = jax.tree.map(lambda v, g: 0.98 * v + (1 - 0.98) * g * g, second, grads)
    return first, second


def steps_right(carry, grads):
    params, first, second, count = carry
    rate = 0.1 * jnp.minimum(1.0, (count + 1) / 3)
    first, second = moments(first, second, grads)
    mean, square = unbiased(first, 0.9, count + 1), unbiased(second, 0.98, count + 1)

    def move(p, m, v):
        change = m / (jnp.sqrt(v) + 1e-3)
        if p.ndim > 1:
            change = change + 0.05 * p
        return p - rate * change

    return jax.tree.map(move, params, mean, square), first, second, count + 1


def with_decay_of_all(carry, grads):
    params, first, second, count = carry
    rate = 0.1 * jnp.minimum(1.0, (count + 1) / 3)
    first, second = moments(first, second, grads)
    mean, square = unbiased(first, 0.9, count + 1), unbiased(second, 0.98, count + 1)

    def move(p, m, v):
        change = m / (jnp.sqrt(v) + 1e-3)

        change = change + 0.05 * p  # here

        return p - rate * change

    return jax.tree.map(move, params, mean, square), first, second, count + 1


def with_another_rate(carry, grads):
    params, first, second, count = carry
    rate = 0.1 * jnp.minimum(1.0, (count + 1) / 3)
    first, second = moments(first, second, grads)

    mean = unbiased(first, 0.98, count + 1)  # here

    square = unbiased(second, 0.98, count + 1)

    def move(p, m, v):
        change = m / (jnp.sqrt(v) + 1e-3)
        if p.ndim > 1:
            change = change + 0.05 * p
        return p - rate * change

    return jax.tree.map(move, params, mean, square), first, second, count + 1


def with_a_warm_up_behind(carry, grads):
    params, first, second, count = carry

    rate = 0.1 * jnp.minimum(1.0, count / 3)  # here

    first, second = moments(first, second, grads)
    mean, square = unbiased(first, 0.9, count + 1), unbiased(second, 0.98, count + 1)

    def move(p, m, v):
        change = m / (jnp.sqrt(v) + 1e-3)
        if p.ndim > 1:
            change = change + 0.05 * p
        return p - rate * change

    return jax.tree.map(move, params, mean, square), first, second, count + 1


def without_a_bound(carry, grads):
    params, first, second, count = carry

    rate = 0.1 * ((count + 1) / 3)  # here

    first, second = moments(first, second, grads)
    mean, square = unbiased(first, 0.9, count + 1), unbiased(second, 0.98, count + 1)

    def move(p, m, v):
        change = m / (jnp.sqrt(v) + 1e-3)
        if p.ndim > 1:
            change = change + 0.05 * p
        return p - rate * change

    return jax.tree.map(move, params, mean, square), first, second, count + 1


WRONG = [with_decay_of_all, with_another_rate, with_a_warm_up_behind, without_a_bound]


def test_a_right_port_of_steps_is_blamed_for_nothing():
    assert (
        parity.first_divergence(steps_in_torch, lambda **x: scanned(steps_right, **x), STEPS)
        is None
    )


@pytest.mark.parametrize("step", WRONG, ids=lambda step: step.__name__)
def test_one_operation_is_wrong_in_every_turn_and_for_every_leaf(step):
    found = parity.first_divergence(steps_in_torch, lambda **x: scanned(step, **x), STEPS)
    assert found.candidate.line == line(step)


def searched(in_torch, in_jax, inputs):
    """A search of its own, with JAX's runs: what other parts of it would find too is left out."""
    ready = prepared(in_torch, in_jax, inputs, wrt=None, rename=None, kinds=None)
    partners, sets, runs = _recorded(ready.in_torch, ready.in_jax, ready.given.arrays)
    return Forward(partners, runs, wrong_outputs(partners, range(len(sets)))), runs


@pytest.mark.parametrize("step", WRONG, ids=lambda step: step.__name__)
def test_the_change_alone_says_which_operation_it_is(step):
    search, runs = searched(steps_in_torch, lambda **x: scanned(step, **x), STEPS)
    change = Mutations(search, runs).found()
    value = search.jax.values[change.members[0]]
    assert line(step) in {value.place_at(depth).line for depth in range(len(value.marks))}


def test_a_difference_the_other_way_round_is_one_change():
    def in_jax(x, y):
        gap = y - x  # here
        return {"gap": jnp.exp(gap)}

    inputs = {"x": RNG.normal(size=6), "y": RNG.normal(size=6)}
    search, runs = searched(lambda x, y: {"gap": (x - y).exp()}, in_jax, inputs)
    change = Mutations(search, runs).structural()
    assert search.jax.values[change.members[0]].place.line == line(in_jax)


def test_what_makes_a_right_output_wrong_is_not_taken():
    def in_torch(x):
        return {"kept": 2 * x, "turned": -2 * x}

    def in_jax(x):
        doubled = 2 * x
        return {"kept": jnp.abs(doubled) * jnp.sign(doubled), "turned": doubled * 1.0}

    search, runs = searched(in_torch, in_jax, {"x": RNG.normal(size=6)})
    first, last = min(search.jax.consumers()[0]), search.jax.outputs["turned"]
    for index, is_right in ((first, False), (last, True)):
        edits = {index: Edit({}, np.negative)}
        assert comes_out_right(search, runs, lambda s, edits=edits: edits) == is_right


def test_operands_the_other_way_round_are_blamed_where_they_are():
    def in_torch(x, y):
        return {"gap": ((x - y).exp() * 3).cumsum(0), "sum": (x - y).exp().sum()}

    def in_jax(x, y):
        gap = y - x  # here

        grown = jnp.exp(gap)

        return {"gap": jnp.cumsum(grown * 3), "sum": jnp.sum(grown)}

    inputs = {"x": RNG.normal(size=6), "y": RNG.normal(size=6)}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def rms_in_torch(param, grads):
    square = torch.zeros_like(param)
    for grad in grads:
        square = 0.95 * square + 0.05 * grad**2
        param = param - 0.1 * grad / (square.sqrt() + 1e-2)
    return param


def test_what_a_library_made_is_blamed_where_it_was_asked_for():
    def optimizer():
        return optax.chain(
            optax.scale_by_rms(decay=0.9, eps=1e-2, eps_in_sqrt=False),  # here
            optax.scale(-0.1),
        )

    def in_jax(param, grads):
        made = optimizer()
        state = made.init(param)

        for grad in grads:
            updates, state = made.update(grad, state, param)

            param = optax.apply_updates(param, updates)
        return param

    inputs = {"param": RNG.normal(size=5), "grads": RNG.normal(size=(3, 5))}
    found = parity.first_divergence(rms_in_torch, in_jax, inputs)
    assert found.candidate.line == line(optimizer)


def test_two_numbers_of_a_line_in_one_anothers_place_are_blamed_there():
    def in_torch(old, new):
        return {name: torch.lerp(each, new[name], 0.2) for name, each in old.items()}

    def in_jax(old, new):
        apart = jax.tree.map(lambda o, n: (o + n) / 2 + (o - n) / 2, old, new)

        return jax.tree.map(lambda o, n: 0.2 * o + 0.8 * n, apart, new)  # here

    inputs = {
        key: {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=3)} for key in ("old", "new")
    }
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_axes_the_other_way_round_in_every_use_are_blamed_where_they_were_made():
    def in_torch(wanted, current, tau):
        pairs = wanted[:, None, :] - current[:, :, None]
        below = (pairs < 0).double()
        return {
            "loss": ((tau[None, :, None] - below).abs() * pairs**2).sum(1).mean(),
            "errors": pairs.abs().mean((1, 2)),
        }

    def in_jax(wanted, current, tau):
        def tilted(u, tau):
            below = (u < 0).astype(tau.dtype)
            return jnp.abs(tau - below) * u**2

        def transition(wanted, current):
            u = wanted[:, None] - current[None, :]  # here

            losses = jax.vmap(jax.vmap(tilted, (0, None)), (0, 0))(u, tau)

            return jnp.mean(jnp.sum(losses, 0)), jnp.mean(jnp.abs(u))

        losses, errors = jax.vmap(transition)(wanted, current)
        return {"loss": jnp.mean(losses), "errors": errors}

    inputs = {
        "wanted": RNG.normal(size=(4, 5)),
        "current": RNG.normal(size=(4, 5)),
        "tau": (np.arange(5) + 0.5) / 5,
    }
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_a_change_that_makes_a_right_output_wrong_is_no_explanation():
    def in_torch(online, target):
        followed = {name: torch.lerp(old, online[name], 0.1) for name, old in target.items()}
        return {"gap": online["w"].exp() - target["w"], "target": followed}

    def in_jax(online, target):
        gap = jnp.exp(online["w"]) - target["w"]

        followed = jax.tree.map(lambda o, n: 0.1 * o + (1 - 0.1) * n, target, online)  # here

        return {"gap": gap, "target": followed}

    inputs = {
        key: {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=3)} for key in ("online", "target")
    }
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)
