"""`check_pipeline`: stage after stage, each fed by the reference, then gradient, update, chain."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from parity import hints, repro
from parity.cases import joined
from parity.pipeline import training
from parity.pipeline.feed import Feed
from parity.pipeline.initial import NAMES as INIT
from parity.pipeline.initial import check_init
from parity.pipeline.networks import as_functions
from parity.pipeline.optimizers import Pair, pair
from parity.pipeline.stages import Pass
from parity.report import Report
from parity.signatures import require_callable, require_inputs
from parity.tolerance import Comparison
from pgcore.errors import UsageError, is_int, require, unknown_choice

Stages = Mapping[str, Callable[..., Any]]


def check_pipeline(
    reference: Stages,
    candidate: Stages,
    inputs: Mapping[str, Any],
    *,
    steps: int = 3,
    optimizer: Any = "adam",
    rename: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | str | None = None,
    oracle: Stages | None = None,
    expect_nonfinite: Collection[str] = (),
    deciders: Stages | None = None,
    name: str | None = None,
) -> Report:
    """Holds a JAX algorithm against a PyTorch one, stage by stage: the first that parts is named.

    A stage's callable gets its arguments by parameter name: from `inputs`, and from the outputs of
    earlier stages, each called as its stage is; the entries of a mapping or named tuple are known
    by their own names too, unless these are taken. A stage is *fed* the float64 reference's
    outputs, rounded once to float32, so that a stage that is wrong spoils no other. Its values are
    compared in float64 and float32, with the candidate eager, jitted and vmapped.

    Some stages are more than that:

    - `init` (or `initialisation`): a function of `seed`, whose laws are compared, not the numbers
      (`parity.pipeline.draws` says how, with the probability of a false alarm). Without an input
      `params`, its parameters at seed 0 are the `params` of later stages.
    - `loss`: one number. With parameters `params`, `gradient` follows: of each leaf, through all
      stages from `params` to the loss, at the values that are fed. So a missing or needless
      `stop_gradient` in any stage shows: what is data to the algorithm (a sample, an advantage)
      must be stopped by the stage that makes it. Later stages know the reference's gradient as
      `gradient` and `gradients`; after a stage `clip` or `clipped_gradient`, `gradients` is that.
    - `update`: `update(params, gradients, m, v, count)`, say, returning a mapping with `params`,
      `m`, `v` and `count`. What of `m`, `v` and `count` the inputs lack is made: as after a few
      steps, and fresh. Without such a stage the optimizer's own update is compared.

    Then `steps` whole steps are chained, in float64, each side on its own numbers, and the
    parameters after each are compared; once more with SGD, since Adam hides a wrong scale.

    Args:
        reference: PyTorch callables by stage, in order. It sets the yardstick. One may be a
            `torch.nn.Module`, whose weights are then the input `params`, by torch's names.
        candidate: JAX callables by the same stages in the same order. One may be a Flax module,
            Linen or NNX, which gets `params` as in `check`.
        inputs: Arrays, trees of them, or plain numbers and strings, as in `check`.
        steps: How many steps are chained, at least 1.
        optimizer: `"adam"`, `"sgd"`, or a pair: a function from parameters to a torch optimizer,
            and an optax transformation. Used where there is no stage `update`.
        rename: Where a stage is a Flax module: what it calls an argument, and, beside a torch
            module, which Flax module is which torch module, as in `check`.
        kinds: Where a stage is a module on both sides, as in `check`.
        oracle: NumPy callables by stage (`gradient` is one), for bugs that both sides share.
        expect_nonfinite: Stages, or outputs as `stage/leaf`, that may hold values which are not
            finite, in the same places.
        deciders: By stage, a PyTorch callable that gives what a discrete output is decided by: the
            scores whose largest wins, or the distance to a threshold.
        name: What the report calls it.

    Returns:
        A report in pipeline order. A candidate's stage that raises or can't be jitted has parted,
        and those after it are compared all the same.

    Raises:
        UsageError: The stages differ, a parameter has no value, a stage gives other results when
            it is called again, or one of the reference's raises.
    """
    require(is_int(steps, 1), "steps", steps, "an integer of at least 1")
    _require_same_stages(reference, candidate)
    require_inputs(inputs)
    _require_known(reference, oracle, expect_nonfinite, deciders)
    in_torch, in_jax, inputs = as_functions(reference, candidate, inputs, rename, kinds)
    feed = Feed(inputs, [*reference])
    passed = Pass(feed, in_torch, in_jax, oracle or {}, deciders or {}, expect_nonfinite)
    _run(passed, [*reference], steps, pair(optimizer))
    comparisons = [_meaning_first(joined(stage, each)) for stage, each in passed.found.items()]
    notes = _first_parts(comparisons)
    notes += hints.expect_nonfinite(_nonfinite(passed.found, [*reference]))
    title = name or "pipeline"
    functions = {
        "reference": reference,
        "candidate": candidate,
        "oracle": oracle,
        "deciders": deciders,
    }
    options: dict[str, Any] = {
        "steps": steps,
        "optimizer": optimizer,
        "rename": None if rename is None else dict(rename),
        "kinds": dict(kinds) if isinstance(kinds, Mapping) else kinds,
        "expect_nonfinite": [*expect_nonfinite],
    }
    return Report(
        title,
        comparisons,
        [*notes, *feed.notes, *passed.notes],
        lambda: _script(title, functions, inputs, options),
    )


def _meaning_first(comparison: Comparison) -> Comparison:
    """A stage's comparison, its mismatches in float64 before those that may be rounding alone."""
    ordered = sorted(comparison.mismatches, key=lambda mismatch: mismatch.dtype == "float32")
    return comparison._replace(mismatches=ordered)


def _first_parts(comparisons: Iterable[Comparison]) -> list[str]:
    """Where the two first part, and where first in float64 if that is later."""
    parted = [each.mismatches[0] for each in comparisons if each.mismatches]
    if not parted:
        return []
    line = f"first parts at stage {parted[0].stage!r}"
    if parted[0].dtype == "float32":
        exact = next((each.stage for each in parted if each.dtype != "float32"), None)
        line += ", in float32 alone, by more than rounding may; "
        line += "in float64 they mean the same" if exact is None else f"in float64 at {exact!r}"
    return [line]


def _nonfinite(found: Mapping[str, list[Comparison]], stages: list[str]) -> list[str]:
    """The outputs that both sides have not finite, as `expect_nonfinite` names them."""
    return [
        stage if leaf == "value" else f"{stage}/{leaf}"
        for stage in stages
        for leaf in hints.both_nonfinite(found.get(stage, ()))
    ]


def _require_known(
    reference: Stages,
    oracle: Stages | None,
    expect_nonfinite: Collection[str],
    deciders: Stages | None,
) -> None:
    known = [stage for stage in reference if stage not in INIT]
    with_gradient = [*dict.fromkeys([*known, "gradient"])]
    for field, names, accepted in (
        ("oracle", oracle or (), with_gradient if "loss" in known else known),
        ("expect_nonfinite", expect_nonfinite, known),
        ("deciders", deciders or (), known),
    ):
        for each in names:
            if each.partition("/")[0] not in accepted:
                raise unknown_choice(field, each, accepted)


def _script(
    title: str, functions: Mapping[str, Any], inputs: Mapping[str, Any], options: dict[str, Any]
) -> str:
    is_name = isinstance(options["optimizer"], str)
    accepted = "'adam' or 'sgd' for a program, which has no other way to name one"
    require(is_name, "optimizer", options["optimizer"], accepted)
    return repro.script(title, functions, inputs, options, "check_pipeline")


def _run(passed: Pass, stages: list[str], steps: int, optimizer: Pair) -> None:
    """The stages in order, and what follows from a loss."""
    known, returned = passed.feed.trees["reference"], None
    for stage in stages:
        if stage in INIT:
            check_init(passed, stage)
        elif stage == "update":
            returned = training.check_own_update(passed)
        else:
            passed.stage(stage)
        if stage == "loss" and "params" in known and "gradient" not in stages:
            training.check_gradient(passed)
        elif stage == "gradient":
            passed.feed.alias(stage, "gradients")
        elif stage in training.CLIP:
            training.name_clipped(passed, stage)
    if not {"params", "gradients"} <= {*known} or not {"loss", "gradient"} & {*stages}:
        passed.notes.append(
            "no gradient, update of an optimizer or chained step was compared: these take a stage "
            "'loss', and 'params' among the inputs or from a stage 'init'"
        )
        return
    if returned is None:
        training.check_optimizer(passed, optimizer)
        training.check_chain(passed, optimizer, steps)
    else:
        training.check_own_chain(passed, returned, steps)
    if returned is not None or optimizer.name != "sgd":
        # Adam hides a wrong scale of the gradient.
        training.check_chain(passed, pair("sgd"), steps)


def _require_same_stages(reference: Stages, candidate: Stages) -> None:
    for role, stages in (("reference", reference), ("candidate", candidate)):
        if not isinstance(stages, Mapping):
            raise UsageError(
                f"{role} is of type {type(stages).__name__}, accepted is a mapping from stage name "
                "to callable, in pipeline order"
            )
        for stage, function in stages.items():
            require_callable(f"stage {stage!r} of the {role}", function)
    require(bool(reference), "reference", "empty", "a mapping with at least one stage")
    if [*reference] != [*candidate]:
        raise UsageError(
            f"candidate has the stages {', '.join(candidate)}, accepted are the reference's in "
            f"their order: {', '.join(reference)}"
        )
    for stage in reference:
        is_name = isinstance(stage, str) and stage and "/" not in stage
        require(bool(is_name), "a stage", stage, "a name without a slash")
    if sum(stage in INIT for stage in reference) > 1:
        raise UsageError(f"reference has more than one of {', '.join(INIT)}, accepted is one")
