"""The stage `init`: its laws compared, and its parameters at seed 0 fed."""

from typing import Any

import numpy as np

from parity.cases import of_reference, reported
from parity.pipeline.draws import compare_draws, leaves_of
from parity.pipeline.feed import SIDES, parameters, structure_of
from parity.pipeline.stages import Pass
from pgcore.errors import UsageError, require

NAMES = ("init", "initialisation", "initialization")
SEED = "seed"


def check_init(passed: Pass, stage: str) -> None:
    """Compares the stage, which is a function of `seed` and of inputs that are no arrays.

    Raises:
        UsageError: It takes no seed, or something else; or the reference's raises.
    """
    feed = passed.feed
    constants = {
        name: feed.trees["reference"][name]
        for name in feed.inputs
        if isinstance(feed.trees["reference"][name], str | bool | int | float)
    }
    calls: dict[str, Any] = {}
    for side in SIDES:
        function = passed.functions[side][stage]
        names = parameters(function, {**constants, SEED: 0}, f"stage {stage!r} of the {side}")
        require(SEED in names, f"stage {stage!r} of the {side}", function, "a function of seed")
        known = {name: constants[name] for name in names if name != SEED}
        calls[side] = _seeded(function, known)
    try:
        drawn = calls["reference"](0)
    except Exception as error:
        raise UsageError(
            f"stage {stage!r} of the reference raised {type(error).__name__}: {error}; accepted is "
            "one that makes parameters from a seed"
        ) from error
    both = {**calls, "reference": of_reference(calls["reference"])}
    passed.add(stage, reported(stage, lambda: compare_draws(**both, stage=stage)))
    wide = {
        leaf: array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array
        for leaf, array in leaves_of(drawn).items()
    }
    feed.put(stage, dict.fromkeys(SIDES, structure_of(drawn)), wide)
    if "params" not in feed.trees["reference"]:
        feed.alias(stage, "params")
    feed.drawn = [*feed.binds[stage]]


def _seeded(function: Any, known: dict[str, Any]) -> Any:
    return lambda seed: function(**{SEED: seed}, **known)
