"""The state of RMSprop and of wrapped optimizers handed over in the middle of a run, both ways, and
every state that the other side has no place for.
"""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from parity import convert
from pgcore.errors import UsageError

LR = 0.01
RMS = {"decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False}


def rms(scale, momentum=None):
    trace = [] if momentum is None else [optax.trace(momentum)]
    return optax.chain(scale(**RMS), *trace, optax.scale_by_learning_rate(LR))


def module():
    """A convolution and a Linear, whose arrays change places on the way."""
    return torch.nn.ModuleDict({"conv": torch.nn.Conv1d(2, 3, 2), "fc": torch.nn.Linear(3, 2)})


SHAPES = {
    "conv": {"kernel": (2, 2, 3), "bias": (3,)},
    "fc": {"kernel": (3, 2), "bias": (2,)},
}
PARAMS = jax.tree.map(np.zeros, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
CASES = {
    "AdamW": (
        lambda p: torch.optim.AdamW(p, LR, weight_decay=0.1), optax.adamw(LR, weight_decay=0.1)),
    "AdamW, biases not decayed": (
        lambda p: torch.optim.AdamW(p, LR, weight_decay=0.0),
        optax.adamw(LR, weight_decay=0.1, mask=jax.tree.map(lambda _: False, PARAMS))),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, LR), optax.rmsprop(LR, **RMS)),
    "RMSprop, centered": (
        lambda p: torch.optim.RMSprop(p, LR, centered=True), optax.rmsprop(LR, **RMS, centered=True)
    ),
    "RMSprop, momentum": (
        lambda p: torch.optim.RMSprop(p, LR, momentum=0.9), rms(optax.scale_by_rms, 0.9)),
    "RMSprop, centered, momentum": (
        lambda p: torch.optim.RMSprop(p, LR, centered=True, momentum=0.9),
        rms(optax.scale_by_stddev, 0.9)),
    "Adam, injected": (
        lambda p: torch.optim.Adam(p, LR), optax.inject_hyperparams(optax.adam)(LR)),
    "SGD, injected": (
        lambda p: torch.optim.SGD(p, LR, momentum=0.9),
        optax.inject_hyperparams(optax.sgd)(LR, momentum=0.9)),
    "Adam, in MultiSteps of one": (
        lambda p: torch.optim.Adam(p, LR), optax.MultiSteps(optax.adam(LR), 1)),
    "Adam, clipped, masked": (
        lambda p: torch.optim.Adam(p, LR),
        optax.masked(
            optax.chain(optax.clip(9.0), optax.adam(LR)), jax.tree.map(lambda _: True, PARAMS))),
}  # fmt: skip


def slopes(net, seed):
    rng = np.random.default_rng(seed)
    return {n: torch.tensor(rng.normal(size=p.shape)).to(p) for n, p in net.named_parameters()}


def step(net, optimizer, seed):
    for name, slope in slopes(net, seed).items():
        net.get_parameter(name).grad = slope
    optimizer.step()


KINDS = {"conv": "Conv1d", "fc": "Linear"}


def optax_step(update, params, state, net, seed):
    gradients = convert.to_flax(slopes(net, seed), PARAMS, kinds=KINDS)
    updates, state = update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        scale = np.max(np.abs(np.asarray(y, float)), initial=0.0)
        assert np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0.0) <= 1e-11 * scale


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_handed_to_optax_goes_on_there_and_is_handed_back(case):
    # Torch alone makes 6 steps; the other run makes steps 2 to 4 in optax. State and parameters
    # are compared by the gate's first term after each handover.
    make, optimizer = CASES[case]
    with jax.enable_x64(True):
        alone, other = module().double(), module().double()
        other.load_state_dict(alone.state_dict())
        reference, stepper = make(alone.parameters()), make(other.parameters())
        for i in range(2):
            step(alone, reference, i)
            step(other, stepper, i)
        params = convert.to_flax(other, PARAMS)
        state = convert.optimizer_to_flax(stepper, other, optimizer.init(params))
        update = jax.jit(optimizer.update)
        for i in range(2, 4):
            step(alone, reference, i)
            params, state = optax_step(update, params, state, other, i)
        assert_close(params, convert.to_flax(alone, PARAMS))
        assert_close(state, convert.optimizer_to_flax(reference, alone, state))
        other.load_state_dict(convert.to_torch(params, other))
        count = 4 if case.startswith("RMSprop") else None
        made = convert.optimizer_to_torch(state, stepper, other, count=count)
        stepper.load_state_dict(made)
        for entries, own in zip(
            made["state"].values(), reference.state_dict()["state"].values(), strict=True
        ):
            assert set(entries) == {key for key, value in own.items() if value is not None}
            assert_close(dict(entries), {key: own[key] for key in entries})
        for i in range(4, 6):
            step(alone, reference, i)
            step(other, stepper, i)
        assert_close(dict(other.state_dict()), dict(alone.state_dict()))


@pytest.mark.parametrize("case", CASES)
def test_the_state_comes_back_to_the_last_bit(case):
    make, optimizer = CASES[case]
    net = module()
    reference = make(net.parameters())
    for i in range(3):
        step(net, reference, i)
    template = optimizer.init(jax.tree.map(jnp.array, PARAMS))
    state = convert.optimizer_to_flax(reference, net, template)
    count = 3 if case.startswith("RMSprop") else None
    back = convert.optimizer_to_torch(state, reference, net, count=count)
    for index, entries in reference.state_dict()["state"].items():
        for key, value in entries.items():
            if value is not None:
                assert torch.equal(back["state"][index][key], value), key


def test_the_counts_of_schedules_are_carried_if_asked():
    net = module()
    reference = torch.optim.AdamW(net.parameters(), LR)
    for i in range(3):
        step(net, reference, i)
    schedule = optax.linear_schedule(1.0, 0.0, 5)
    for optimizer in (optax.adamw(schedule), optax.inject_hyperparams(optax.adam)(schedule)):
        template = optimizer.init(jax.tree.map(jnp.array, PARAMS))
        with pytest.raises(UsageError, match="count.* left over"):
            convert.optimizer_to_flax(reference, net, template)
        state = convert.optimizer_to_flax(reference, net, template, schedules=True)
        counts = optax.tree.get_all_with_path(state, "count")
        assert {int(count) for _, count in counts} == {3}
        back = convert.optimizer_to_torch(state, reference, net, schedules=True)
        assert back["state"][0]["step"] == 3
    template = optax.adamw(schedule).init(jax.tree.map(jnp.array, PARAMS))
    state = convert.optimizer_to_flax(reference, net, template, schedules=True)
    moved = (state[0]._replace(count=jnp.array(4)), *state[1:])
    with pytest.raises(UsageError, match="the number of steps is .* 4, .* 3, accepted is one"):
        convert.optimizer_to_torch(moved, reference, net, schedules=True)


def test_what_both_sides_mask_is_no_part_of_the_state():
    net = module()
    reference = torch.optim.Adam(net["fc"].parameters(), LR)
    step(net, reference, 0)
    mask = {"conv": False, "fc": True}
    template = optax.masked(optax.adam(LR), mask).init(jax.tree.map(jnp.array, PARAMS))
    state = convert.optimizer_to_flax(reference, net, template)
    np.testing.assert_array_equal(
        state.inner_state[0].mu["fc"]["kernel"],
        reference.state[net["fc"].weight]["exp_avg"].numpy().T,
    )
    back = convert.optimizer_to_torch(state, reference, net)
    assert torch.equal(back["state"][0]["exp_avg"], reference.state[net["fc"].weight]["exp_avg"])
    whole = torch.optim.Adam(net.parameters(), LR)
    with pytest.raises(UsageError, match="lacks .*conv/"):
        convert.optimizer_to_flax(whole, net, template)


def test_the_state_over_an_equinox_module_is_converted():
    net = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(3, 3)])})
    mlp = eqx.nn.MLP(3, 3, 3, 0, key=jax.random.key(0))
    reference = torch.optim.AdamW(net.parameters(), LR)
    step(net, reference, 0)
    template = optax.adamw(LR).init(eqx.filter(mlp, eqx.is_array))
    state = convert.optimizer_to_flax(reference, net, template)
    own = reference.state[net["layers"][0].weight]["exp_avg"]
    np.testing.assert_array_equal(state[0].mu.layers[0].weight, own.numpy())
    assert jax.tree.structure(state) == jax.tree.structure(template)
    back = convert.optimizer_to_torch(state, reference, net)
    assert torch.equal(back["state"][0]["exp_avg"], own)


def lstm_state(**kwargs):
    net = torch.nn.ModuleDict({"rnn": torch.nn.LSTMCell(3, 3)})
    net["rnn"].bias_hh.requires_grad_(False).zero_()
    chosen = [p for p in net.parameters() if p.requires_grad or kwargs]
    reference = torch.optim.Adam(chosen, LR)
    zeros = (jnp.zeros(3), jnp.zeros(3))
    params = nn.LSTMCell(3).init(jax.random.key(0), zeros, jnp.zeros(3))
    return reference, net, optax.adam(LR).init({"rnn": params["params"]})


def test_a_recurrent_layer_is_stepped_alike_only_with_one_bias():
    reference, net, template = lstm_state()
    step(net, reference, 0)
    state = convert.optimizer_to_flax(reference, net, template)
    back = convert.optimizer_to_torch(state, reference, net)
    for index, entries in reference.state_dict()["state"].items():
        assert all(torch.equal(back["state"][index][key], entries[key]) for key in entries)
    reference, net, template = lstm_state(both=True)
    with pytest.raises(UsageError, match=r"steps rnn.bias_hh.*, for which Flax has no array"):
        convert.optimizer_to_flax(reference, net, template)


BAD = [
    (
        lambda p: torch.optim.RMSprop(p, LR, momentum=0.9),
        optax.rmsprop(LR, **RMS, momentum=0.9),
        "does not follow ScaleByRmsState.*it holds -lr times torch's momentum_buffer",
    ),
    (lambda p: torch.optim.RMSprop(p), optax.rmsprop(LR, centered=True), "0/mu/.* left over"),
    (lambda p: torch.optim.RMSprop(p), optax.rmsprop(LR, bias_correction=True), "left over"),
    (lambda p: torch.optim.RMSprop(p), optax.rmsprop(LR, momentum=0.9), "2/trace/.* left over"),
    (lambda p: torch.optim.Adam(p), optax.apply_if_finite(optax.adam(LR), 3), "finite.*left over"),
    (lambda p: torch.optim.Adam(p), optax.lion(LR), "left over|number of ScaleByAdamState"),
]


@pytest.mark.parametrize(("make", "optimizer", "message"), BAD, ids=[m for *_, m in BAD])
def test_a_state_that_has_no_counterpart_is_an_error(make, optimizer, message):
    net = module()
    template = optimizer.init(jax.tree.map(jnp.array, PARAMS))
    with pytest.raises(UsageError, match=message):
        convert.optimizer_to_flax(make(net.parameters()), net, template)


def test_steps_half_gathered_are_an_error():
    net = module()
    optimizer = optax.MultiSteps(optax.adam(LR), 2)
    params = jax.tree.map(jnp.array, PARAMS)
    state = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)[1]
    with pytest.raises(UsageError, match="mini_step is 1, accepted is a state between two steps"):
        convert.optimizer_to_torch(state, torch.optim.Adam(net.parameters()), net)


def test_a_number_of_steps_that_nobody_counted_has_to_be_given():
    net = module()
    reference = torch.optim.RMSprop(net.parameters(), LR)
    step(net, reference, 0)
    template = optax.rmsprop(LR).init(jax.tree.map(jnp.array, PARAMS))
    state = convert.optimizer_to_flax(reference, net, template)
    with pytest.raises(UsageError, match="count is None, accepted is the number of steps made"):
        convert.optimizer_to_torch(state, reference, net)
