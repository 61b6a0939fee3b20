"""What lies at the edge of the conventions means the same in both frameworks and in the oracle."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import pgjax
import pgtorch
from parity import oracle
from pgcore.config import TrainConfig
from pgcore.errors import UsageError

MASK = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 0]], bool)  # a hole, a late start, an end


def in_both(name, *arrays, **options):
    """`pgjax`'s and `pgtorch`'s results of a function of that name, in float64."""
    with jax.enable_x64(True):
        in_jax = np.array(getattr(pgjax, name)(*map(jnp.array, arrays), **options))
    return in_jax, getattr(pgtorch, name)(*map(torch.tensor, arrays), **options).numpy()


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_a_return_stops_at_a_hole_in_the_mask_and_is_zero_in_it(discount):
    rewards = np.random.default_rng(0).normal(size=MASK.shape)
    expected = oracle.discounted_returns(rewards, MASK, discount)
    assert not expected[~MASK].any()
    assert expected[0, 0] == rewards[0, 0]
    for got in in_both("discounted_returns", rewards, MASK, discount=discount):
        # One product and one sum a step: each entry is off by less than 2 u of the largest.
        assert np.max(np.abs(got - expected)) <= 2 * 5 * 2**-53 * np.max(np.abs(expected))


def test_integer_rewards_have_returns_that_are_no_integers():
    rewards, mask = np.ones((3, 1), np.int32), np.ones((3, 1), bool)
    for got in in_both("discounted_returns", rewards, mask, discount=0.5):
        assert got.ravel().tolist() == [1.75, 1.5, 1.0]


@pytest.mark.parametrize("scope", ["episode", "batch", "none"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_return_that_is_not_finite_is_never_taken_for_an_advantage_of_zero(scope, bad):
    returns, mask = np.array([[1.0, 3.0], [bad, 1.0], [2.0, 1.5]]), np.ones((3, 2), bool)
    for got in in_both("normalize_returns", returns, mask, scope=scope):
        assert not np.isfinite(got[1, 0])
        assert np.isfinite(got[:, 1]).all() == (scope != "batch")


@pytest.mark.parametrize("framework", [pgjax, pgtorch])
def test_training_stops_at_a_reward_that_is_nan(framework):
    """The update's loss and gradient are NaN, which the host loop refuses to go on with."""
    trajectory, array = (
        (pgjax.Trajectory, jnp.array) if framework is pgjax else (pgtorch.Trajectory, torch.tensor)
    )
    key = jax.random.key(0) if framework is pgjax else torch.Generator().manual_seed(0)
    policy, optimizer = framework.make_policy("reinforce", 4, 2), framework.adam(1e-2)
    reward = np.ones((3, 1), np.float32)
    reward[1] = np.nan
    episode = trajectory(
        obs=array(np.ones((3, 1, 4), np.float32)),
        sample=array(np.zeros((3, 1), np.int64)),
        action=array(np.zeros((3, 1), np.int64)),
        reward=array(reward),
        mask=array(np.ones((3, 1), bool)),
        terminated=array(np.ones(1, bool)),
    )
    state = framework.init(key, policy, optimizer)
    _, metrics = framework.make_update_step(policy, optimizer, TrainConfig())(state, episode)
    assert np.isnan(float(metrics.loss))
    assert np.isnan(float(metrics.grad_norm))


def test_a_float64_policy_keeps_its_dtype_or_is_refused(tmp_path):
    path = str(tmp_path / "policy.safetensors")
    module = pgtorch.make_policy("reinforce", 4, 2).init(torch.Generator()).double()
    pgtorch.save_policy(path, TrainConfig(), module)
    with pytest.raises(UsageError, match="float64.*enable_x64"):
        pgjax.load_policy(path)
    with jax.enable_x64(True):
        tensors = pgjax.params_to_tensors(pgjax.load_policy(path)[1])
    written = pgtorch.params_to_tensors(module)
    assert all(np.array_equal(tensors[name], written[name]) for name in written)


SHARDED = """
import functools, jax, numpy as np
from jax.sharding import PartitionSpec as P
import pgjax

env = pgjax.CartPole(max_steps=50)
policy = pgjax.make_policy("reparam", 4, 2)
params = policy.init(jax.random.key(0))
noise = pgjax.draw_noise(policy, env, jax.random.key(1), 4)
mesh = jax.make_mesh((2,), ("b",), axis_types=(jax.sharding.AxisType.Auto,))
for early_exit in (True, False):
    play = functools.partial(pgjax.rollout, policy, early_exit=early_exit)
    sharded = jax.shard_map(
        lambda params, noise: play(params, env, noise),
        mesh=mesh,
        in_specs=(P(), pgjax.Noise(P("b"), P(None, "b"))),
        out_specs=pgjax.Trajectory(*[P(None, "b")] * 5, P("b")),
    )
    one, other = jax.jit(sharded)(params, noise), jax.jit(lambda: play(params, env, noise))()
    assert all(np.array_equal(a, b) for a, b in zip(one, other)), early_exit
print("equal")
"""


def test_a_rollout_sharded_over_two_devices_plays_the_same_episodes():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={"PYTHONPATH": ".", **flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "equal\n", result.stderr
