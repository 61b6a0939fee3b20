"""Whole updates: what the suite's comparison can't see, since it allows for rounding."""

import numpy as np
import pytest

from parity import hazards
from parity.hazards import SIZES
from parity.suite.drawing_learning import CONFIGS
from parity.suite.families import families
from parity.suite.stages import jax_side, torch_side
from parity.suite.updates import update_step
from pgcore.config import TrainConfig

AGENTS = pytest.mark.parametrize("agent", ["reinforce", "reparam"])


def example(agent, padding, seed):
    draw = next(f.draw for f in families() if f.name == f"whole update {agent}")
    return draw(
        np.random.default_rng(seed),
        config="default",
        mask="ragged",
        reward="normal",
        padding=padding,
    )


@AGENTS
def test_an_update_does_not_depend_on_the_padding(agent):
    """Not only to rounding: the padding is replaced before it is computed with."""
    stage = update_step(TrainConfig(agent=agent, **CONFIGS["default"]), SIZES[0])
    sides = torch_side(stage.torch), jax_side(stage.jax, True)
    given = [example(agent, padding, 3).inputs for padding in hazards.PADDINGS]
    # What is data is alike; only what is drawn into the padding differs.
    mask = given[0]["mask"]
    assert all((each["reward"][mask] == given[0]["reward"][mask]).all() for each in given)
    for side in sides:
        clean, *others = [side(inputs) for inputs in given]
        for other in others:
            for leaf, array in other.items():
                np.testing.assert_array_equal(array, clean[leaf], err_msg=leaf)


@AGENTS
def test_nothing_changes_its_inputs(agent):
    stage = update_step(TrainConfig(agent=agent, **CONFIGS["default"]), SIZES[0])
    inputs = example(agent, "nan", 5).inputs
    before = {name: array.copy() for name, array in inputs.items()}
    torch_side(stage.torch)(inputs)
    jax_side(stage.jax, True)(inputs)
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
