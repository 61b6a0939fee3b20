"""The fast path is the plain one, and PyTorch's: draws bit by bit, the rest by the rule."""

import os
import subprocess
import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import pgjax
from parity import workers
from parity.hazards import Size
from parity.suite.stages import Example, Stage
from parity.suite.updates import _in_torch
from parity.suite.weights import from_flax, jax_policy, to_flax, torch_policy
from parity.tolerance import GATE
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from pgjax import fast, fast_rollout, threefry
from pgjax.optim import make_optimizer
from pgjax.rollout import draw_noise, rollout
from pgtorch import envs as torch_envs
from pgtorch import rollout as torch_rollout
from pgtorch import types as torch_types

AGENTS = pytest.mark.parametrize("agent", ["reinforce", "reparam"])


# --- noise ---------------------------------------------------------------------------------------

DRAWS = {
    threefry.random_bits: jax.random.bits,
    threefry.uniform: jax.random.uniform,
    threefry.gumbel: jax.random.gumbel,
    threefry.normal: jax.random.normal,
    partial(threefry.uniform, low=-0.05, high=0.05): partial(
        jax.random.uniform, minval=-0.05, maxval=0.05
    ),
}


@pytest.mark.parametrize("each", DRAWS, ids=["bits", "uniform", "gumbel", "normal", "within"])
@pytest.mark.parametrize("jit", [False, True])
def test_a_draw_at_a_counter_is_that_element_of_jax_random_bit_by_bit(each, jit):
    shape = 97, 11, 2
    counters = jnp.arange(np.prod(shape), dtype=jnp.uint32).reshape(shape)
    for seed in range(5):
        key, at = jax.random.key(seed), np.random.default_rng(seed).permutation(97)[:13]
        some = (jax.jit(each) if jit else each)(key, counters[at])
        np.testing.assert_array_equal(some, DRAWS[each](key, shape)[at])


def test_keys_are_split_and_folded_as_by_jax_random():
    for seed in range(5):
        key = jax.random.key(seed)
        for num in (2, 3, 7):
            ours = jnp.stack(threefry.split(key, num))
            assert (ours == jax.random.split(key, num)).all()
        for data in (0, 1, 12345, 2**31 - 1):
            assert threefry.fold_in(key, data) == jax.random.fold_in(key, data)
        many = threefry.fold_in(key, jnp.arange(5))
        assert (many == jnp.stack([jax.random.fold_in(key, i) for i in range(5)])).all()
        halves = jnp.stack(threefry.split(many), axis=1)
        assert (halves == jnp.stack([jax.random.split(one) for one in many])).all()


@pytest.mark.parametrize("kind", ["rbg", "float64", "not by counter", "threefry2x32"])
def test_what_threefry_can_not_draw_is_drawn_by_jax_random(kind):
    with jax.enable_x64(kind == "float64"), jax.threefry_partitionable(kind != "not by counter"):
        key = jax.random.key(3, impl="rbg" if kind == "rbg" else "threefry2x32")
        assert threefry.can_draw(key, 30) == (kind == "threefry2x32")
        for each in (threefry.uniform, threefry.gumbel, threefry.normal):
            namesake = getattr(jax.random, each.__name__)
            np.testing.assert_array_equal(threefry.draw(each, key, (5, 3)), namesake(key, (5, 3)))
        assert (jnp.stack(threefry.split(key)) == jax.random.split(key)).all()
        assert threefry.fold_in(key, 9) == jax.random.fold_in(key, 9)
        keys = jnp.stack(threefry.split(key, 3))
        assert (threefry.split(keys)[1][2] == jax.random.split(keys[2])[1]).all()


def test_an_array_beyond_the_counters_first_word_is_not_ours():
    key = jax.random.key(0)
    assert threefry.can_draw(key, 2**32 - 1)
    assert not threefry.can_draw(key, 2**32)


# --- one update on given episodes ----------------------------------------------------------------

SIZES = [Size(4, 2, (24, 12)), Size(4, 2, (5,)), Size(4, 2, (7, 6, 5))]
SETTINGS = {
    "default": {},
    "article": {"normalize": "episode"},
    "returns": {"normalize": "none", "discount": 1.0},
    "clipped": {"max_grad_norm": 0.1},
}
LENGTHS = {
    "default": [1, 29, 17, 2, 30],
    "article": [23],
    "returns": [1, 1, 1],
    "clipped": [*range(1, 31)] * 12,
}
"""Ragged; one episode; of one step; and more columns than a block has, not its multiple."""


def assert_ok(comparison):
    assert not comparison.mismatches, comparison.mismatches


@cache
def fast_update(config: TrainConfig, size: Size) -> Stage:
    """Inputs `params/*`, `obs [T, B, 4]`, `drawn [T, B, D]` and `length [B]`."""

    def batch(sample, obs, drawn, mask, ones):
        action = (
            drawn[..., 0] > 0 if config.agent == "reinforce" else sample[..., 1] > sample[..., 0]
        )
        return {
            "obs": obs,
            "sample": action * 1 if config.agent == "reinforce" else sample,
            "action": action * 1,
            "reward": ones,
            "mask": mask,
            "terminated": mask[0],
        }

    def of_torch(params, obs, drawn, length):
        policy = torch_policy(config.agent, size)
        module = policy.init(torch.Generator()).to(obs.dtype)
        module.load_state_dict(params)
        mask = torch.arange(len(obs))[:, None] < length
        sample = None
        if config.agent == "reparam":
            sample = policy.sample(policy.apply(module, obs), drawn).detach()
        given = batch(sample, obs, drawn, mask, torch.ones_like(obs[..., 0]))
        return _in_torch(config, size, 1, False)(params, **given)

    def of_jax(params, obs, drawn, length):
        path = fast.find_fast(jax_policy(config.agent, size), pgjax.CartPole(len(obs)))
        assert path is not None
        obs, drawn = (array.transpose(0, 2, 1) for array in (obs, drawn.astype(obs.dtype)))
        episodes = fast.Episodes(obs, drawn, length, length > 0, length.max())
        optimizer = make_optimizer(config)
        first = to_flax(params)
        state = pgjax.TrainState(first, optimizer.init(first), jnp.zeros((), jnp.int32))
        state, metrics = fast.make_fast_update_step(path, optimizer, config)(state, episodes)
        adam = state.opt_state[-1] if config.max_grad_norm else state.opt_state
        return {
            "params": from_flax(state.params),
            "update": state.update,
            "m": from_flax(adam.mu),
            "v": from_flax(adam.nu),
            "metrics": [metrics._asdict()],
        }

    return Stage("fast update", of_torch, of_jax)


def example(config, size, lengths, seed):
    rng = np.random.default_rng(seed)
    shape = 30, len(lengths)
    module = torch_policy(config.agent, size).init(torch.Generator().manual_seed(seed))
    scale = rng.choice([0.3, 1, 3])  # from nearly even to nearly certain
    params = {f"params/{k}": scale * v.double().numpy() for k, v in module.state_dict().items()}
    drawn = rng.normal(size=(*shape, 2))
    if config.agent == "reinforce":
        drawn = np.sign(drawn[..., :1]).astype(int)
    inputs = {**params, "obs": rng.normal(size=(*shape, 4)), "drawn": drawn}
    stage = fast_update(config, size)
    return Example(stage, inputs | {"length": np.array(lengths)})


@AGENTS
@pytest.mark.parametrize("setting", SETTINGS)
def test_an_update_is_pytorchs(agent, setting):
    config = TrainConfig(agent=agent, **SETTINGS[setting])
    size = SIZES[list(SETTINGS).index(setting) % len(SIZES)]
    cases = [example(config, size, LENGTHS[setting], seed) for seed in range(3)]
    comparisons = [comparison for case in cases for comparison in case.compare()]
    for comparison in [*comparisons, *cases[0].vmapped()]:
        assert_ok(comparison)


# --- whole episodes and training steps -----------------------------------------------------------


@cache
def episodes_stage(agent: str) -> Stage:
    """Inputs `params/*`, `reset [B, 4]`, `noise [T, B, 2]`."""

    def of_torch(params, reset, noise):
        policy = torch_policy(agent, SIZES[0])
        module = policy.init(torch.Generator()).to(noise.dtype)
        module.load_state_dict(params)
        env = torch_envs.CartPole(len(noise))
        given = torch_types.Noise(reset, noise)
        return torch_rollout(policy, module, env, given)._asdict()

    def of_jax(params, reset, noise):
        path = fast.find_fast(jax_policy(agent, SIZES[0]), pgjax.CartPole(len(noise)))
        assert path is not None
        params = to_flax(params)
        episodes = fast_rollout.play_on(path, params, reset.T, lambda time: noise[time].T)
        return fast_rollout.to_trajectory(path, params, episodes)._asdict()

    return Stage("fast rollout", of_torch, of_jax)


@AGENTS
def test_episodes_are_those_that_pytorch_plays_on_the_same_noise(agent):
    for seed in range(3):
        params = example(TrainConfig(agent=agent), SIZES[0], [1], seed).inputs
        params = {name: array for name, array in params.items() if name.startswith("params/")}
        rng = np.random.default_rng(seed)
        inputs = params | {
            "reset": rng.uniform(-0.05, 0.05, (5, 4)),
            "noise": rng.gumbel(size=(60, 5, 2))
            if agent == "reinforce"
            else rng.normal(size=(60, 5, 2)),
        }
        case = Example(episodes_stage(agent), inputs, precisions=("float64",))
        for comparison in [*case.compare(), *case.vmapped()]:
            assert_ok(comparison)
        mask = episodes_stage(agent).reference(inputs)["mask"]
        assert not mask.all()  # some have ended


def plain_step(policy, env, optimizer, config):
    update_step = pgjax.make_update_step(policy, optimizer, config)

    def train_step(state, key):
        noise = draw_noise(policy, env, key, config.episodes_per_update)
        return update_step(state, rollout(policy, state.params, env, noise))

    return train_step


def assert_near(ours, theirs):
    """Within the gate's first term, in float64; counts are equal."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        assert not np.abs(one - other).max() > GATE * np.abs(other).max()


@AGENTS
@pytest.mark.parametrize("episodes", [1, 3, 40])
def test_training_steps_are_those_of_the_plain_path(agent, episodes):
    config = TrainConfig(agent=agent, episodes_per_update=episodes)
    with jax.enable_x64(True):
        policy, env = pgjax.make_policy(agent, 4, 2), pgjax.CartPole(max_steps=100)
        optimizer = make_optimizer(config)
        state = pgjax.init(jax.random.key(1), policy, optimizer)
        given = policy, env, optimizer, config
        assert fast.find_fast(policy, env) is not None
        keys = jax.random.split(jax.random.key(2), 4)
        ours = jax.jit(partial(jax.lax.scan, pgjax.make_train_step(*given)))(state, keys)
        # Only ours is compiled as users do: of the plain one other tests show that it is right.
        plain = jax.jit(
            partial(jax.lax.scan, plain_step(*given)), compiler_options=workers.known(workers.QUICK)
        )
        assert_near(ours, plain(state, keys))


SHARDED = """
import jax, numpy as np
from jax.sharding import PartitionSpec as P
import pgjax
from pgjax import fast
jax.config.update("jax_enable_x64", True)

config = pgjax.TrainConfig(agent={agent!r}, episodes_per_update=6)
policy, env = pgjax.make_policy(config.agent, 4, 2), pgjax.CartPole(max_steps=60)
optimizer = pgjax.make_optimizer(config)
state = pgjax.init(jax.random.key(0), policy, optimizer)
path = fast.find_fast(policy, env)
mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
step = fast.make_fast_train_step(path, optimizer, config, axis_name="devices")
halves = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=P(), out_specs=P()))
alone = jax.jit(
    fast.make_fast_train_step(path, optimizer, config), compiler_options={quick}
)
ours, theirs = jax.device_put(state, jax.sharding.NamedSharding(mesh, P())), state
for seed in range(3):
    ours, our_metrics = halves(ours, jax.random.key(seed))
    theirs, their_metrics = alone(theirs, jax.random.key(seed))
    pairs = zip(jax.tree.leaves((ours, our_metrics)), jax.tree.leaves((theirs, their_metrics)))
    for a, b in pairs:
        assert not np.abs(a - np.asarray(b)).max() > {gate} * np.abs(b).max(), (a, b)
print("equal")
"""


@AGENTS
def test_two_devices_make_the_update_of_one(agent):
    quick = workers.known(workers.QUICK)  # for the one; the two are compiled as users do
    result = subprocess.run(
        [sys.executable, "-c", SHARDED.format(agent=agent, gate=GATE, quick=quick)],
        env=os.environ
        | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "equal\n", result.stderr


def test_devices_that_can_not_have_equal_shares_are_refused():
    policy, env = pgjax.make_policy("reinforce", 4, 2), pgjax.CartPole()
    path, params = fast.find_fast(policy, env), policy.init(jax.random.key(0))
    assert path is not None

    def play(device):
        return fast.play(path, params, jax.random.key(0), 5, "devices").length

    with pytest.raises(UsageError, match="num_episodes is 5, accepted is a multiple of the 2 dev"):
        jax.eval_shape(jax.vmap(play, axis_name="devices"), jnp.arange(2))


# --- what takes it -------------------------------------------------------------------------------


def test_only_the_two_agents_on_our_own_cartpole_as_they_were_made_take_the_fast_path():
    policy, env = pgjax.make_policy("reinforce", 4, 2), pgjax.CartPole()
    own_start = policy._replace(init=lambda key: {})
    assert fast.find_fast(policy, env)
    assert fast.find_fast(own_start, env)
    others = [
        policy._replace(entropy=lambda dist: dist.entropy()),
        policy._replace(apply=lambda params, obs: policy.apply(params, obs)),
        pgjax.from_callable({}, lambda params, obs: obs[..., :2], 2),
    ]
    assert not any(fast.find_fast(other, env) for other in others)
    for change in ({"step": lambda state, action: env.step(state, action)}, {"max_steps": 400}):
        assert fast.find_fast(policy, env._replace(**change)) is None
    assert fast.find_fast(policy, env._replace(draw_reset=lambda key, n: jnp.zeros((n, 4)))) is None
    three = pgjax.make_policy("reinforce", 4, 3)
    assert fast.find_fast(three, env) is None


def test_sine_and_cosine_are_exact_as_far_as_a_pole_may_lean():
    with jax.enable_x64(True):
        angle = np.linspace(-0.2095, 0.2095, 2001)
        sin, cos = fast_rollout._sin_and_cos(jnp.asarray(angle))
        np.testing.assert_array_max_ulp(np.asarray(sin), np.sin(angle), 2)
        np.testing.assert_array_max_ulp(np.asarray(cos), np.cos(angle), 2)
