"""What follows from a loss: its gradient through the stages, the update, chained steps."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from parity import cases, sides
from parity.pipeline.chained import FIRST_STATE, chain, first_state, own_stepper
from parity.pipeline.feed import SIDES, entries, structure_of
from parity.pipeline.initial import NAMES as INIT
from parity.pipeline.optimizers import (
    SCALES,
    Pair,
    Stepper,
    common_states,
    optax_stepper,
    optax_updates,
    torch_stepper,
    torch_updates,
)
from parity.pipeline.stages import Pass, run_reference
from parity.pipeline.through import fed_loss, route
from parity.tolerance import Comparison, compare
from pgcore.errors import UsageError, require

CLIP = ("clip", "clipped_gradient", "clipped_gradients")
AGED = 3
"""The steps that an optimizer's state is given as having seen."""

STACKED = (
    f"in 'update' the first index is the step, 0 to {len(SCALES) - 1}, from a fresh optimizer: "
    "change is what the step adds to parameters that are zero, params what they are after it, and "
    "m, v and count are the optimizer's own"
)


# --- the gradient --------------------------------------------------------------------------------


def check_gradient(passed: Pass) -> None:
    """Compares the gradient of the loss in `params`, through the stages; feeds the reference's.

    Raises:
        UsageError: The loss is no lone number, or a parameter is not floating.
    """
    feed = passed.feed
    loss = feed.trees["reference"]["loss"]
    if not isinstance(loss, np.ndarray) or loss.shape:
        found = f"shape {loss.shape}" if isinstance(loss, np.ndarray) else type(loss).__name__
        raise UsageError(
            f"stage 'loss' returns {found}, accepted is one number: reduce it there, and return "
            "what else there is from a stage of its own"
        )
    for path, leaf in sides.flat({"params": feed.trees["reference"]["params"]}).items():
        floating = isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating)
        require(floating, path, getattr(leaf, "dtype", leaf), "a floating array")
    functions = {side: _until_loss(passed, side) for side in SIDES}
    calls = {side: fed_loss(feed, side, functions[side]) for side in SIDES}
    arrays = feed.arrays(dict.fromkeys([*feed.roots(), *functions["reference"]]))
    gradient = _slopes(calls["reference"])
    outputs = run_reference("gradient", gradient, arrays)
    if not any(array.any() for array in outputs.values()):
        passed.notes.append(
            "the reference's gradient is zero everywhere: does the loss depend on params?"
        )
    oracle = passed.oracle_of("gradient")
    passed.add("gradient", *_gradients("gradient", calls, arrays, oracle))
    moving = [route(feed, side, functions[side], {"loss"}, "params") for side in SIDES]
    if any("params" in feed.takes[side]["loss"] for side in SIDES) and any(
        len(each.functions) > 1 for each in moving
    ):
        alone = "gradient of the loss alone"
        passed.add(alone, *_alone(passed, alone))
    structure = structure_of(feed.trees["reference"]["params"])
    feed.put("gradient", dict.fromkeys(SIDES, structure), outputs, by_entries=False)
    feed.alias("gradient", "gradients")


def _until_loss(passed: Pass, side: str) -> dict[str, Callable[..., Any]]:
    found = {}
    for stage, function in passed.functions[side].items():
        if stage not in INIT:
            found[stage] = function
        if stage == "loss":
            return found
    return found


def _slopes(loss: Callable[..., Any]) -> Any:
    side = sides.torch_gradients(loss, ["params"])
    return lambda inputs: {_below(path): slope for path, slope in side(inputs).items()}


def _below(path: str) -> str:
    return path.partition("/")[2] or "value"


def _gradients(
    stage: str, calls: Mapping[str, Callable[..., Any]], arrays: dict[str, Any], oracle: Any = None
) -> list[Comparison]:
    third = None if oracle is None else cases.numpy_side(lambda **tree: {"params": oracle(**tree)})
    found = cases.gradients(
        calls["reference"],
        calls["candidate"],
        arrays,
        wrt=["params"],
        stage=stage,
        oracle=third,
    )
    return [
        each._replace(
            mismatches=[
                m if m.leaf == "all" else m._replace(leaf=_below(m.leaf)) for m in each.mismatches
            ],
            verdicts=[v._replace(leaf=_below(v.leaf)) for v in each.verdicts],
        )
        for each in found
    ]


def _alone(passed: Pass, stage: str) -> list[Comparison]:
    """The gradient of a loss that takes the parameters itself, everything else being data."""
    feed = passed.feed
    names = {side: feed.takes[side]["loss"] for side in SIDES}
    calls = {side: feed.call(side, passed.functions[side]["loss"], names[side]) for side in SIDES}
    both = [*dict.fromkeys(["params", *names["reference"], *names["candidate"]])]
    return _gradients(stage, calls, feed.arrays(both))


def name_clipped(passed: Pass, stage: str) -> None:
    """Lets `gradients` be what a stage has clipped, or its entry of that name."""
    known = [str(key) for key in entries(passed.feed.trees["reference"][stage])]
    entry = next((key for key in ("gradients", "gradient") if key in known), None)
    passed.feed.alias(stage, "gradients", entry)


# --- the update ----------------------------------------------------------------------------------


def check_own_update(passed: Pass) -> Any:
    """Compares the user's stage `update`, at several states; returns its structures."""
    feed = passed.feed
    known = feed.trees["reference"]
    zeros, aged = {}, {}
    if "params" in known:
        fresh = first_state(known["params"])
        zeros = {"params": fresh["m"]}
        missing = [name for name in FIRST_STATE if name not in known]
        slopes = known.get("gradients", fresh["m"])
        aged = {name: first_state(known["params"], AGED, slopes)[name] for name in missing}
        for name in missing:
            feed.root(name, fresh[name])
    outputs, structures = passed.compare("update", aged)
    if zeros:
        passed.again("update", "of parameters that are zero", zeros)
    if aged:
        passed.again("update", "the first", {name: known[name] for name in aged} | zeros)
    feed.put("update", structures, outputs)
    return structures["reference"]


def check_optimizer(passed: Pass, optimizer: Pair) -> None:
    """Compares the update that an optimizer makes: a few steps from a fresh state."""
    feed, names = passed.feed, ["params", "gradients"]
    states, lone = common_states(optimizer, feed.trees["reference"]["params"])
    if lone:
        passed.notes.append(
            f"of the optimizer's state {', '.join(lone)} was found on one side alone and not "
            "compared; the steps were"
        )
    arrays = feed.arrays(names)
    for moving in (False, True) if optimizer.name == "the given optimizer" else (False,):
        in_torch = torch_updates(optimizer.torch, states, moving=moving)
        in_optax = optax_updates(optimizer.optax, states, moving=moving)
        calls = {
            side: feed.call(side, function, names)
            for side, function in zip(SIDES, (in_torch, in_optax), strict=True)
        }
        stage = "update, from params" if moving else "update"
        passed.jitted(stage, calls, arrays)
    if any(each.mismatches for each in passed.found["update"]):
        passed.notes.append(STACKED)


# --- chained steps -------------------------------------------------------------------------------


def check_chain(passed: Pass, optimizer: Pair, steps: int) -> None:
    """Compares the parameters after each of several steps with an optimizer."""
    steppers = (torch_stepper(optimizer.torch), optax_stepper(optimizer.optax))
    wanted: dict[str, set[str]] = {side: {"gradients"} for side in SIDES}
    _check_chain(passed, optimizer.name, dict(zip(SIDES, steppers, strict=True)), wanted, steps)


def check_own_chain(passed: Pass, returned: Any, steps: int) -> None:
    """`check_chain` with the user's `update`, which returned this structure."""
    wanted = {side: set(passed.feed.takes[side]["update"]) for side in SIDES}
    steppers = {
        side: own_stepper(
            passed.functions[side]["update"], passed.feed.takes[side]["update"], returned
        )
        for side in SIDES
    }
    _check_chain(passed, "update", steppers, wanted, steps)


def _check_chain(
    passed: Pass,
    name: str,
    steppers: Mapping[str, Stepper],
    wanted: Mapping[str, set[str]],
    steps: int,
) -> None:
    stage = f"{steps} chained steps with {name}"
    chains = {
        side: chain(
            passed.feed,
            side,
            {k: f for k, f in passed.functions[side].items() if k not in (*INIT, "update")},
            steppers[side],
            wanted[side],
            steps,
        )
        for side in SIDES
    }
    roots = [*dict.fromkeys(name for each in chains.values() for name in each.roots)]
    arrays = passed.feed.arrays(roots)
    reference = cases.of_reference(sides.torch_values(chains["reference"]))
    run_reference(stage, reference, arrays)
    passed.add(
        stage,
        cases.reported(
            stage,
            lambda: compare(
                reference,
                sides.jax_values(chains["candidate"], jit=False),
                arrays,
                stage=stage,
                roundings=sides.torch_roundings(reference),
                precisions=("float64",),
            ),
        ),
    )
