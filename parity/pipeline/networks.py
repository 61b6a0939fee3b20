"""Modules as stages: their weights are the input `params`, as in `parity.check`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from parity import modules
from parity.flax_modules import nnx_params
from parity.pipeline.initial import NAMES as INIT
from parity.torch_modules import torch_params
from pgcore.errors import UsageError

PARAMS = modules.PARAMS
Stages = Mapping[str, Callable[..., Any]]
FLAX = ("linen", "nnx")


def as_functions(
    reference: Stages,
    candidate: Stages,
    inputs: Mapping[str, Any],
    rename: Mapping[str, str] | None,
    kinds: Any,
) -> tuple[Stages, Stages, dict[str, Any]]:
    """The stages with functions of `params` in place of modules, and the inputs with `params`.

    Raises:
        UsageError: Two stages are different modules; a module is on the wrong side, lacks a weight
            or has one too many; `rename` or `kinds` names nothing.
    """
    stages = [
        s
        for s in reference
        if modules.kind(reference[s]) or modules.takes_params(reference[s], candidate[s])
    ]
    for stage in stages:
        modules.require_sides(reference[stage], candidate[stage])
    _require_one(reference, stages, "reference")
    _require_one(candidate, stages, "candidate")
    given = dict(inputs)
    for stage in stages:
        given = _with_params(reference, candidate[stage], reference[stage], given)
    arguments, names = _divided(candidate, stages, rename or {})
    both = [s for s in stages if modules.kind(reference[s]) and modules.kind(candidate[s])]
    if kinds is not None and not both:
        raise UsageError(
            f"kinds is {kinds!r}, accepted is None where no stage is a torch module on one side "
            "and a Flax module on the other: no weights are converted"
        )
    left, right = dict(reference), dict(candidate)
    for stage in stages:
        module: Any = reference[stage]
        theirs: Any = candidate[stage]
        if modules.kind(module):
            left[stage] = _taking(modules.reference_function(module), module.forward, {})
        if modules.takes_params(module, theirs):
            params = given.get(PARAMS, _own(module))
            own = (names, kinds) if stage in both else ({}, None)
            function = modules.candidate_function(module, theirs, params, *own)
            right[stage] = _taking(function, theirs.__call__, arguments)
    return left, right, given


def _require_one(stages: Stages, named: list[str], side: str) -> None:
    """Two modules would each take all of `params`."""
    found = {id(stages[s]): s for s in named if modules.kind(stages[s])}
    if len(found) > 1:
        several = ", ".join(map(repr, found.values()))
        raise UsageError(
            f"the stages {several} of the {side} are modules of their own, accepted is one, whose "
            "weights are the input params: make one module of them, or give functions of params, "
            "such as lambda params, obs: torch.func.functional_call(actor, params['actor'], (obs,))"
        )


def _with_params(
    stages: Stages, candidate: Any, reference: Any, given: dict[str, Any]
) -> dict[str, Any]:
    if PARAMS not in given and any(stage in INIT for stage in stages):
        return given  # the initialisation makes them
    if modules.kind(reference):
        params = torch_params(reference, given.get(PARAMS))
    elif modules.kind(candidate) == "nnx":
        params = nnx_params(candidate, given.get(PARAMS))
    elif PARAMS in given:
        return given
    else:
        return modules.with_params(reference, candidate, given)
    return {**given, PARAMS: params} if params else given


def _own(module: Any) -> list[str]:
    return [name for name, _ in module.named_parameters()] if modules.kind(module) else []


def _divided(
    candidate: Stages, stages: list[str], rename: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The entries of `rename` that name an argument of a Flax module, by its name, and the rest."""
    flax = [candidate[s] for s in stages if modules.kind(candidate[s])]
    taken = {name for module in flax for name in inspect.signature(module.__call__).parameters}
    arguments = {
        new: old for old, new in rename.items() if new in taken and not old.startswith("params/")
    }
    names = {
        old.removeprefix("params/"): new for old, new in rename.items() if arguments.get(new) != old
    }
    if not flax:
        for old in rename:
            raise UsageError(
                f"rename is {old!r}, accepted is None where no stage is a Flax module: stages take "
                "their arguments by name"
            )
    return arguments, names


def _taking(
    function: Callable[..., Any], model: Callable[..., Any], arguments: Mapping[str, str]
) -> Callable[..., Any]:
    """A function of `params` and what `model` takes, which stages know by other names."""
    found = inspect.signature(model).parameters.values()
    by_name = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    theirs = {arguments.get(p.name, p.name): p.name for p in by_name}

    def call(params: Any = None, **inputs: Any) -> Any:
        return function(params=params, **{theirs[name]: x for name, x in inputs.items()})

    keyword = inspect.Parameter.KEYWORD_ONLY
    call.__signature__ = inspect.Signature(
        [
            inspect.Parameter(PARAMS, keyword, default=None),
            *(p.replace(name=old, kind=keyword) for old, p in zip(theirs, by_name, strict=True)),
        ]
    )
    return call
