"""A learning rate that follows a schedule: both twins, the oracle, and optax around ours."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import pgjax
import pgtorch
from parity import convert, oracle, sides
from parity.suite.stages import oracle_side
from parity.tolerance import compare
from pgcore.errors import UsageError

NUM_STEPS = 8
SHAPES = {"w": (3, 2), "b": (2,)}
SCHEDULES = {
    "linear, to its end and on": (
        lambda count: 0.1 * (1 - min(count, 5) / 5),
        optax.linear_schedule(0.1, 0.0, 5),
    ),
    "warm-up from 0": (
        lambda count: 0.1 * min(count, 3) / 3,
        optax.linear_schedule(0.0, 0.1, 3),
    ),
    "exponential": (
        lambda count: 0.1 * 0.5**count,
        optax.exponential_decay(0.1, 1, 0.5),
    ),
    "in pieces": (
        lambda count: 0.1 if count < 3 else 0.01,
        lambda count: jnp.where(count < 3, 0.1, 0.01),
    ),
    "a number for each update": (
        lambda count: torch.linspace(0.1, 0.02, NUM_STEPS, dtype=torch.float64)[count],
        lambda count: jnp.linspace(0.1, 0.02, NUM_STEPS)[count],
    ),
}
EACH = pytest.mark.parametrize("name", SCHEDULES)


def in_torch(schedule):
    def run(params, gradients):
        parameters = {name: torch.nn.Parameter(p.clone()) for name, p in params.items()}
        adam = pgtorch.adam(schedule)(parameters.values())
        for t in range(NUM_STEPS):
            for name, parameter in parameters.items():
                parameter.grad = gradients[name][t].clone()
            adam.step()
        state = {name: adam.state[parameter] for name, parameter in parameters.items()}
        return {
            "params": parameters,
            "m": {name: s["exp_avg"] for name, s in state.items()},
            "v": {name: s["exp_avg_sq"] for name, s in state.items()},
        }

    return sides.torch_values(run)


def in_jax(schedule, jit=True):
    adam = pgjax.adam(schedule)

    def run(params, gradients):
        state = adam.init(params)
        for t in range(NUM_STEPS):
            change, state = adam.update({name: g[t] for name, g in gradients.items()}, state)
            params = optax.apply_updates(params, change)
        return {"params": params, "m": state.mu, "v": state.nu}

    return sides.jax_values(run, jit=jit)


def by_hand(schedule):
    def run(params, gradients):
        zeros = {name: np.zeros_like(p) for name, p in params.items()}
        step = oracle.AdamStep(params, zeros, zeros, 0)
        for t in range(NUM_STEPS):
            now = {name: g[t] for name, g in gradients.items()}
            step = oracle.adam_step(
                step.params, now, step.m, step.v, t, learning_rate=float(schedule(t))
            )
        return {"params": step.params, "m": step.m, "v": step.v}

    return oracle_side(run)


def steps(seed=0):
    rng = np.random.default_rng(seed)
    drawn = {f"params/{name}": rng.normal(size=shape) for name, shape in SHAPES.items()}
    drawn |= {
        f"gradients/{name}": rng.normal(size=(NUM_STEPS, *shape)) for name, shape in SHAPES.items()
    }
    return {name: array.astype(np.float32).astype(np.float64) for name, array in drawn.items()}


def judge(reference, candidate, **options):
    return compare(
        reference, candidate, steps(), roundings=sides.torch_roundings(reference), **options
    )


@EACH
@pytest.mark.parametrize("jit", [True, False], ids=["jitted", "eager"])
def test_eight_steps_by_a_schedule_are_the_same_in_both_and_by_definition(name, jit):
    torchs, jaxs = SCHEDULES[name]
    judge(in_torch(torchs), in_jax(jaxs, jit), oracle=by_hand(torchs)).assert_ok()


@EACH
@pytest.mark.parametrize("off", [1, -1], ids=["one ahead", "one behind"])
def test_a_counter_that_is_off_by_one_is_seen_on_either_side(name, off):
    torchs, jaxs = SCHEDULES[name]
    right = in_torch(torchs)

    def at(count):
        return min(max(count + off, 0), NUM_STEPS - 1)

    ahead = in_jax(lambda count: jaxs(jnp.clip(count + off, 0, NUM_STEPS - 1)))
    assert not judge(right, ahead, precisions=("float64",)).ok
    wrong = in_torch(lambda count: torchs(at(count)))
    assert not judge(wrong, in_jax(jaxs), precisions=("float64",), oracle=by_hand(torchs)).ok


def test_a_constant_schedule_is_the_number():
    for number, schedule in (
        (in_torch(0.1), in_torch(lambda count: 0.1)),
        (in_jax(0.1), in_jax(optax.constant_schedule(0.1))),
    ):
        for leaf, array in number(steps()).items():
            np.testing.assert_array_equal(array, schedule(steps())[leaf], err_msg=leaf)


# --- torch: the optimizer is an object that is copied, saved and hooked


def stepped(num_steps, parameter=None, adam=None):
    """A parameter after some steps by a schedule, from the state of another optimizer or anew."""
    parameter = torch.nn.Parameter(torch.zeros(2)) if parameter is None else parameter
    adam = adam or pgtorch.adam(lambda count: 10.0**-count)([parameter])
    for _ in range(num_steps):
        parameter.grad = torch.ones(2)
        adam.step()
    return parameter, adam


def test_a_copied_state_goes_on_where_it_was_and_leaves_the_other_alone():
    straight, _ = stepped(4)
    parameter, adam = stepped(2)
    again, copied = stepped(2, *copy.deepcopy((parameter, adam)))
    assert torch.equal(again, straight)
    assert not torch.equal(parameter, straight)
    assert torch.equal(stepped(2, parameter, adam)[0], straight)
    assert copied.schedule is adam.schedule


def test_a_loaded_state_goes_on_where_it_was_and_holds_no_function(tmp_path):
    straight, _ = stepped(4)
    parameter, adam = stepped(2)
    torch.save(adam.state_dict(), tmp_path / "adam.pt")
    _, fresh = stepped(0, parameter)
    fresh.load_state_dict(torch.load(tmp_path / "adam.pt", weights_only=True))
    assert torch.equal(stepped(2, parameter, fresh)[0], straight)


def test_hooks_run_once_a_step():
    stepped(1, adam=torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]))  # hooks Adam's own
    parameter, adam = stepped(0)
    calls = []
    adam.register_step_pre_hook(lambda *_: calls.append("before"))
    adam.register_step_post_hook(lambda *_: calls.append("after"))
    stepped(2, parameter, adam)
    assert calls == ["before", "after"] * 2


def test_the_state_is_carried_between_the_frameworks_and_goes_on_by_the_schedule():
    module = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        module.weight.zero_()
    _, adam = stepped(0, module.weight, pgtorch.adam(lambda count: 10.0**-count)([module.weight]))
    ours = pgjax.adam(lambda count: 10.0**-count)
    gradient = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)

    def step():
        module.weight.grad = torch.tensor(gradient.T)
        adam.step()

    step(), step()
    params = {"kernel": jnp.array(module.weight.detach().numpy().T)}
    state = convert.optimizer_to_flax(adam, module, ours.init(params))
    assert int(state.count) == 2
    change, state = ours.update({"kernel": jnp.array(gradient)}, state, params)
    before = module.weight.detach().clone()
    step()
    moved = (module.weight.detach() - before).numpy().T
    # The third step is by 10⁻²: gradients are all alike, so each entry moves by about that.
    np.testing.assert_allclose(np.abs(moved), 1e-2, rtol=1e-3)
    # A weight near 1.1 is rounded by 6e-8, before and after: 1.2e-5 of a move of 1e-2.
    np.testing.assert_allclose(change["kernel"], moved, rtol=1e-4)
    back = convert.optimizer_to_torch(state, adam, module)
    assert back["state"][0]["step"] == 3


@pytest.mark.parametrize("rate", [-0.1, float("nan"), "fast", None], ids=str)
def test_a_schedule_that_returns_no_learning_rate_is_refused_in_torch(rate):
    with pytest.raises(UsageError, match=r"learning_rate\(0\) is .*, accepted is a finite number"):
        stepped(0, adam=pgtorch.adam(lambda count: rate)([torch.nn.Parameter(torch.zeros(2))]))
    parameter, adam = stepped(
        0, p := torch.nn.Parameter(torch.zeros(2)), pgtorch.adam(lambda c: [0.1, rate][c])([p])
    )
    with pytest.raises(UsageError, match=r"learning_rate\(1\)"):
        stepped(2, parameter, adam)


@pytest.mark.parametrize(
    "rate", ["fast", None, np.ones(3), optax.sgd(0.1)], ids=["word", "none", "array", "optimizer"]
)
def test_a_schedule_that_returns_no_number_is_refused_in_jax(rate):
    ours = pgjax.adam(lambda count: rate)
    params = jnp.zeros(2)
    with pytest.raises(UsageError, match=r"learning_rate\(count\) is .*, accepted is a number"):
        ours.update(params, ours.init(params), params)


# --- JAX: ours inside of optax's transformations, and optax's in place of ours

SCHEDULE = optax.linear_schedule(0.1, 0.0, 4)
GRADIENTS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}


def run(optimizer, gradients, params=None):
    """The change at each of several updates, jitted, and the last state."""
    params = params or jax.tree.map(jnp.zeros_like, gradients[0])
    update, state, changes = jax.jit(optimizer.update), optimizer.init(params), []
    for each in gradients:
        change, state = update(each, state, params)
        params = optax.apply_updates(params, change)
        changes.append(change)
    return changes, state


def assert_same(found, expected):
    for path, leaf in jax.tree.leaves_with_path(expected):
        np.testing.assert_array_equal(dict(jax.tree.leaves_with_path(found))[path], leaf, str(path))
    assert jax.tree.structure(found) == jax.tree.structure(expected)


def halved(tree):
    return jax.tree.map(lambda leaf: leaf / 2, tree)


PLAIN, _ = run(pgjax.adam(SCHEDULE), [GRADIENTS] * 3)


def test_in_a_chain_with_optaxs_transformations_it_takes_what_comes_before():
    chained = optax.chain(optax.scale(2.0), pgjax.adam(SCHEDULE), optax.scale(0.5))
    doubled, _ = run(pgjax.adam(SCHEDULE), [jax.tree.map(lambda g: 2 * g, GRADIENTS)] * 3)
    assert_same(run(chained, [GRADIENTS] * 3)[0], halved(doubled))


def test_inject_hyperparams_with_a_schedule_is_the_schedule():
    make = optax.inject_hyperparams(pgjax.adam, static_args=("b1", "b2", "eps"))
    changes, state = run(make(learning_rate=SCHEDULE), [GRADIENTS] * 3)
    assert_same(changes, PLAIN)
    assert state.hyperparams["learning_rate"] == SCHEDULE(2)  # that of the last update


def test_apply_if_finite_neither_steps_nor_counts_where_a_gradient_is_nan():
    broken = {"w": jnp.array([jnp.nan, 1.0]), "b": jnp.array([1.0])}
    guarded = optax.apply_if_finite(pgjax.adam(SCHEDULE), max_consecutive_errors=3)
    changes, state = run(guarded, [GRADIENTS, broken, GRADIENTS, GRADIENTS])
    assert_same([changes[0], *changes[2:]], PLAIN)
    assert_same(changes[1], jax.tree.map(jnp.zeros_like, GRADIENTS))
    assert state.inner_state.count == 3


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "x64"])
def test_multi_steps_counts_its_own_updates_and_keeps_the_dtype(x64):
    with jax.enable_x64(x64):  # where a schedule's dtype is no longer that of the parameters
        accumulated = optax.MultiSteps(pgjax.adam(SCHEDULE), every_k_schedule=2)
        twice = jax.tree.map(lambda g: 2 * g, GRADIENTS)
        zero = jax.tree.map(jnp.zeros_like, GRADIENTS)
        changes, state = run(accumulated, [twice, zero] * 3)
        expected, _ = run(pgjax.adam(SCHEDULE), [GRADIENTS] * 3)
        assert_same(changes[1::2], expected)
        assert_same(changes[::2], [zero] * 3)
        assert state.inner_opt_state.count == 3
        assert {leaf.dtype for leaf in jax.tree.leaves(changes)} == {jnp.dtype("float32")}


def test_masked_and_multi_transform_step_the_leaves_that_are_theirs():
    masked = optax.masked(pgjax.adam(SCHEDULE), {"w": True, "b": False})
    for found, expected in zip(run(masked, [GRADIENTS] * 3)[0], PLAIN, strict=True):
        assert_same(found, {"w": expected["w"], "b": GRADIENTS["b"]})
    parts = {"adam": pgjax.adam(SCHEDULE), "sgd": optax.sgd(0.5)}
    split = optax.multi_transform(parts, {"w": "adam", "b": "sgd"})
    for found, expected in zip(run(split, [GRADIENTS] * 3)[0], PLAIN, strict=True):
        assert_same(found, {"w": expected["w"], "b": -0.5 * GRADIENTS["b"]})


ENV = pgjax.CartPole(max_steps=8)
POLICY = pgjax.make_policy("reinforce", ENV.obs_dim, ENV.num_actions, hidden_sizes=(4,))
CONFIG = pgjax.TrainConfig(episodes_per_update=2)
OURS = pgjax.adam(optax.linear_schedule(0.1, 0.0, 2))


def steered_by_the_loss():
    def update(updates, state, params=None, *, value, **extra):
        del params, extra
        return jax.tree.map(lambda g: jnp.where(jnp.isfinite(value), g, 0), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


OPTIMIZERS = {
    "ours": OURS,
    "ours, clipped": pgjax.chain(pgjax.clip_by_global_norm(1.0), OURS),
    "optax.adam": optax.adam(optax.linear_schedule(0.1, 0.0, 2)),
    "optax.adamw in a chain": optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(0.1, 0.0, 2))
    ),
    "apply_if_finite": optax.apply_if_finite(OURS, 2),
    "inject_hyperparams": optax.inject_hyperparams(pgjax.adam, static_args=("b1", "b2", "eps"))(
        learning_rate=optax.linear_schedule(0.1, 0.0, 2)
    ),
    "multi_transform": optax.multi_transform(
        {"all": OURS, "none": optax.set_to_zero()},
        lambda params: jax.tree.map(lambda _: "all", params),
    ),
    "masked": optax.masked(OURS, lambda params: jax.tree.map(lambda _: True, params)),
    "extra arguments": optax.chain(steered_by_the_loss(), OURS),
    "reduce_on_plateau": optax.chain(OURS, optax.contrib.reduce_on_plateau()),
    "multi_steps": optax.MultiSteps(OURS, 1).gradient_transformation(),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_step_takes_any_of_them_and_stands_still_where_the_schedule_ends(name):
    optimizer = OPTIMIZERS[name]
    train_step = pgjax.make_train_step(POLICY, ENV, optimizer, CONFIG)
    state = pgjax.init(jax.random.key(0), POLICY, optimizer)
    trail = []
    jitted = jax.jit(train_step)
    for key in jax.random.split(jax.random.key(1), 3):
        state, _ = jitted(state, key)
        trail.append(state.params)
    first, second, third = (np.concatenate([x.ravel() for x in jax.tree.leaves(p)]) for p in trail)
    assert np.isfinite(third).all()
    assert (first != second).any()
    assert (second == third).all()  # the third learning rate is 0


def test_a_training_step_in_torch_takes_a_schedule_in_a_chain_and_stands_still_where_it_ends():
    env = pgtorch.CartPole(max_steps=8)
    policy = pgtorch.make_policy("reinforce", env.obs_dim, env.num_actions, hidden_sizes=(4,))
    adam = pgtorch.adam(lambda count: 0.1 * max(0, 1 - count / 2))
    optimizer = pgtorch.chain(pgtorch.clip_by_global_norm(1.0), adam)
    train_step = pgtorch.make_train_step(policy, env, optimizer, pgtorch.TrainConfig())
    key = torch.Generator().manual_seed(0)
    state, trail = pgtorch.init(key, policy, optimizer), []
    for _ in range(3):
        state, _ = train_step(state, key)
        trail.append(torch.cat([p.detach().ravel().clone() for p in state.params.parameters()]))
    assert (trail[0] != trail[1]).any()
    assert torch.equal(trail[1], trail[2])
