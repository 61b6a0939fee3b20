"""Whole updates on given episodes, in float64: everything that an update changes or reports."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import hazards, sides
from parity.hazards import SIZES
from parity.strategies import SEEDS
from parity.tolerance import compare
from pgcore.config import TrainConfig
from tests.parity import stages, updates
from tests.parity.test_stages import prefixed

AGENTS = pytest.mark.parametrize("agent", stages.AGENTS)
CONFIGS = {
    "default": {},
    "article": {"normalize": "episode"},
    "clipped": {"normalize": "none", "max_grad_norm": 0.3, "learning_rate": 0.1, "discount": 0.8},
}
few = settings(max_examples=max(settings.default.max_examples // 8, 10))


@AGENTS
@pytest.mark.parametrize("name", CONFIGS)
@few
@given(
    seed=SEEDS,
    mask=st.sampled_from(hazards.MASKS),
    reward=st.sampled_from(("ones", "normal", "equal_returns", "sparse", "zeros")),
    padding=st.sampled_from(hazards.PADDINGS),
    shape=st.sampled_from(hazards.EPISODES[:2]),
)
def test_an_update_agrees_whatever_the_padding_holds(
    agent, name, seed, mask, reward, padding, shape
):
    config = TrainConfig(agent=agent, **CONFIGS[name])
    inputs, outside = update_inputs(config, SIZES[0], [seed], shape, mask, reward, padding)
    check(config, SIZES[0], inputs, padding=outside).assert_ok()


@AGENTS
@few
@given(seed=SEEDS, mask=st.sampled_from(hazards.MASKS))
def test_four_chained_updates_agree(agent, seed, mask):
    config = TrainConfig(agent=agent)
    seeds = [seed, seed + 1, seed + 2, seed + 3]
    inputs, outside = update_inputs(config, SIZES[1], seeds, (5, 5), mask, "normal", "nan")
    check(config, SIZES[1], inputs, num_updates=4, padding=outside).assert_ok()


@AGENTS
def test_an_update_with_plain_gradient_descent_agrees(agent):
    """Adam hides a wrong scale of the gradient; SGD shows it (trap A13)."""
    config = TrainConfig(agent=agent, learning_rate=0.5)
    inputs, outside = update_inputs(config, SIZES[0], [1], (5, 5), "ragged", "normal", "nan")
    compare(
        updates.torch_side(config, SIZES[0], sgd=True),
        updates.jax_side(config, SIZES[0], sgd=True),
        inputs,
        stage="update with SGD",
        padding=outside,
        precisions=("float64",),
    ).assert_ok()


@AGENTS
def test_an_update_does_not_depend_on_the_padding(agent):
    """Not only to rounding: the padding is replaced before it is computed with."""
    config = TrainConfig(agent=agent)
    runs = []
    for padding in hazards.PADDINGS:
        inputs, _ = update_inputs(config, SIZES[0], [3], (5, 5), "ragged", "normal", padding)
        runs.append(
            [side(config, SIZES[0])(inputs) for side in (updates.torch_side, updates.jax_side)]
        )
    for run in runs[1:]:
        for side, clean in zip(run, runs[0], strict=True):
            for leaf, array in side.items():
                np.testing.assert_array_equal(array, clean[leaf], err_msg=leaf)


@AGENTS
def test_a_jitted_update_equals_an_eager_one(agent):
    config = TrainConfig(agent=agent)
    inputs, outside = update_inputs(config, SIZES[0], [4], (5, 5), "ragged", "normal", "nan")
    compare(
        updates.jax_side(config, SIZES[0], jit=False),
        updates.jax_side(config, SIZES[0]),
        inputs,
        stage="jitted update",
        padding=outside,
        precisions=("float64",),
    ).assert_ok()


@AGENTS
def test_a_vmapped_update_equals_a_loop_of_updates(agent):
    config = TrainConfig(agent=agent)
    sets = [
        update_inputs(config, SIZES[0], [seed], (5, 5), mask, "normal", "zeros")[0]
        for seed, mask in enumerate(("full", "ragged", "one_short"))
    ]
    single = updates.jax_updates(config, SIZES[0])
    loop = sides.jax_values(single)

    def one_by_one(inputs):
        runs = [loop({name: array[i] for name, array in inputs.items()}) for i in range(len(sets))]
        return {leaf: np.stack([run[leaf] for run in runs]) for leaf in runs[0]}

    together = sides.jax_values(lambda **inputs: jax.vmap(lambda one: single(**one))(inputs))
    inputs = {name: np.stack([one[name] for one in sets]) for name in sets[0]}
    compare(
        one_by_one, together, inputs, stage="vmapped update", precisions=("float64",)
    ).assert_ok()


@AGENTS
def test_nothing_changes_its_inputs(agent):
    config = TrainConfig(agent=agent)
    inputs, _ = update_inputs(config, SIZES[0], [5], (5, 5), "ragged", "normal", "nan")
    before = {name: array.copy() for name, array in inputs.items()}
    updates.torch_side(config, SIZES[0])(inputs)
    updates.jax_side(config, SIZES[0])(inputs)
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


# --- helpers -------------------------------------------------------------------------------------


def check(config, size, inputs, *, padding, num_updates=1, jit=True):
    """JAX against PyTorch against the oracle, in float64: the updates are chained."""
    reference = updates.torch_side(config, size, num_updates=num_updates)
    by_hand = updates.oracle_updates(config, num_updates=num_updates)
    return compare(
        reference,
        updates.jax_side(config, size, num_updates=num_updates, jit=jit),
        inputs,
        stage="update step",
        oracle=stages.oracle_side(by_hand),
        roundings=sides.torch_roundings(reference),
        padding=padding,
        precisions=("float64",),
    )


def update_inputs(config, size, seeds, shape, mask, reward, padding):
    """Parameters and one batch for each seed, and where each array is padding."""
    params = hazards.params(np.random.default_rng(seeds[0]), config.agent, size, "initial")
    batches = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        batch = hazards.batch(
            rng,
            config.agent,
            size,
            shape,
            mask_hazard=mask,
            reward_hazard=reward,
            discount=config.discount,
        )
        filled = {
            name: hazards.padded(rng, getattr(batch, name), batch.mask, padding)
            for name in ("obs", "sample", "action", "reward")
        }
        batches.append(batch._replace(**filled))
    inputs = updates.stacked(batches) if len(seeds) > 1 else batches[0]._asdict()
    outside = {
        name: ~inputs["mask"].reshape(inputs["mask"].shape + (1,) * extra)
        for name, extra in (
            ("obs", 1),
            ("reward", 0),
            ("sample", inputs["sample"].ndim - inputs["mask"].ndim),
        )
    }
    return {**prefixed("params", params), **inputs}, outside
