"""Modules as plain callables, so that `parity.check` can take them.

A module's weights are the input `params`: a torch module's by torch's names, in which its gradients
are reported too. A Flax or Equinox module gets them by the map of `parity.convert`, inside what is
traced, so that both sides are given, and differentiated in, the very same arrays.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from parity import sides
from parity.convert.layouts import Kinds, Names, layout
from parity.convert.pairs import Layout
from parity.convert.trees import flax_leaves
from parity.equinox_modules import (
    equinox_function,
    equinox_params,
    is_equinox,
    require_no_hidden_module,
)
from parity.flax_modules import linen_function, nnx_function, nnx_params
from parity.inputs import prefixes, require_known
from parity.signatures import require_accepted
from parity.torch_modules import buffers_in, torch_function, torch_params
from pgcore.errors import UsageError

PARAMS = "params"


def kind(side: Any) -> str:
    """`"torch"`, `"linen"`, `"nnx"` or `"equinox"` for a module or its class, else nothing."""
    cls = side if inspect.isclass(side) else type(side)
    # A framework that nobody has imported has no modules here.
    for name, module in {"torch": "torch.nn", "linen": "flax.linen", "nnx": "flax.nnx"}.items():
        if (loaded := sys.modules.get(module)) and issubclass(cls, loaded.Module):
            return name
    return "equinox" if is_equinox(side) else ""


def gets_torch_weights(reference: Any, candidate: Any) -> bool:
    """Whether the candidate is a module of JAX that is given the weights of a torch module."""
    return kind(reference) == "torch" and kind(candidate) in ("linen", "nnx", "equinox")


def takes_params(reference: Any, candidate: Any) -> bool:
    """Whether the candidate is a module whose weights are the input `params`.

    An Equinox module beside a PyTorch function is a function like any other: it has its own.
    """
    return kind(candidate) in ("linen", "nnx") or gets_torch_weights(reference, candidate)


def require_sides(reference: Any, candidate: Any) -> None:
    """Raises a `UsageError` for a module on the wrong side, or the class or a method of one."""
    wrong = {"reference": ("linen", "nnx", "equinox"), "candidate": ("torch",)}
    accepted = {
        "reference": "a torch.nn.Module or a PyTorch callable",
        "candidate": "a Flax module, an Equinox module or a JAX callable",
    }
    for role, side in {"reference": reference, "candidate": candidate}.items():
        if kind(side) and inspect.isclass(side):
            raise UsageError(
                f"{role} is the class {side.__name__}, accepted is a module made of it: "
                f"{side.__name__}(…)"
            )
        if kind(side) in wrong[role]:
            raise UsageError(
                f"{role} is {type(side).__name__}, a {kind(side)} module, accepted is "
                f"{accepted[role]}: PyTorch is the reference, JAX the candidate"
            )
    _require_no_hidden_weights(reference)
    if kind(reference) == "torch":
        require_no_hidden_module(candidate)


def _require_no_hidden_weights(reference: Any) -> None:
    owner: Any = getattr(reference, "__self__", None)
    if kind(owner) == "torch" and any(True for _ in owner.parameters()):
        raise UsageError(
            f"reference is a method of a {type(owner).__name__}, whose weights it would read in "
            "their own precision alone, accepted is the module itself: what it is to compute "
            "belongs into its forward"
        )


def with_params(reference: Any, candidate: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, with the weights of a module among them.

    Raises:
        UsageError: `params` lacks a weight, has one too many or of another shape, or is needed and
            not there; or a torch module's `forward` has no such argument, or lacks one.
    """
    given = dict(inputs)
    if kind(reference) == "torch":
        params = torch_params(reference, given.get(PARAMS))
        require_accepted("reference", reference.forward, [k for k in given if k != PARAMS])
    elif kind(candidate) == "nnx":
        params = nnx_params(candidate, given.get(PARAMS))
    elif kind(candidate) == "linen" and PARAMS not in given:
        raise UsageError(
            f"inputs lacks {PARAMS!r}, and {type(candidate).__name__} is a Linen module, which has "
            "no weights of its own: give those of its init, which the reference gets too"
        )
    else:
        return given
    return {**given, PARAMS: params} if params else given


def with_own_params(module: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, with the weights of any module by its own names; Linen's are to be given.

    Raises:
        UsageError: They are needed and not there, or not those of the module.
    """
    params = None
    if kind(module) == "torch":
        params = torch_params(module, inputs.get(PARAMS))
    elif kind(module) == "equinox" and PARAMS not in inputs:
        params = equinox_params(module)
    return {**inputs, PARAMS: params} if params else with_params(None, module, inputs)


def held_buffers(reference: Any, inputs: Mapping[str, Any]) -> list[str]:
    """The inputs that are buffers of a torch module: PyTorch differentiates in none."""
    if kind(reference) != "torch":
        return []
    return [f"{PARAMS}/{name}" for name in buffers_in(reference, inputs.get(PARAMS, {}))]


def notes(reference: Any, inputs: Mapping[str, Any]) -> list[str]:
    """What a reader should know: the numbers of a torch module that are no inputs."""
    if kind(reference) != "torch":
        return []
    return [
        f"buffer {name} is a constant, the module's own in {str(buffer.dtype).split('.')[-1]}"
        for name, buffer in reference.named_buffers()
        if buffer.is_floating_point() and name not in inputs.get(PARAMS, {})
    ]


def reference_function(reference: Any) -> Callable[..., Any]:
    """A torch module as a callable of `params` and what its `forward` takes; a callable as it is.

    Raises:
        UsageError: The module can't be copied.
    """
    return torch_function(reference) if kind(reference) == "torch" else reference


def divided(
    reference: Any,
    candidate: Any,
    inputs: Mapping[str, Any],
    rename: Names,
    outputs: Collection[str],
) -> tuple[dict[str, str], dict[str, str]]:
    """The entries of `rename` for inputs and outputs, and those for modules, as `convert` has them.

    An entry is an input's or an output's if there is one of that name. `params/body.0` is always a
    module's.

    Raises:
        UsageError: An entry names nothing, or a Flax module's `__call__` has no such argument, or
            lacks one.
    """
    is_module = takes_params(reference, candidate)
    if not gets_torch_weights(reference, candidate):
        own, modules = dict(rename), {}
        known = prefixes([*sides.flat(inputs), *outputs])
    else:
        known = prefixes([*sides.flat({k: v for k, v in inputs.items() if k != PARAMS}), *outputs])
        own = {old: new for old, new in rename.items() if old in known}
        modules = {old.removeprefix("params/"): rename[old] for old in rename if old not in own}
        names = inputs.get(PARAMS, {})
        paths = (path for path in modules if path)  # the root is the empty path
        require_known("rename", paths, [*known, *modules_of(names)])
    require_known("rename", own, known)
    theirs = {name: own.get(name, name) for name in inputs if not (is_module and name == PARAMS)}
    require_accepted("candidate", candidate.__call__ if is_module else candidate, theirs)
    return own, modules


def candidate_function(
    reference: Any,
    candidate: Any,
    params: Collection[str],
    names: Names,
    kinds: Kinds | None,
) -> Callable[..., Any]:
    """A JAX module as a callable of `params` and what its `__call__` takes; a callable as it is.

    `params` are torch's, by name, if the reference is a torch module, and else a tree like Flax's.

    Raises:
        UsageError: As `convert.layout`; or `kinds` is given where nothing is converted.
    """
    if gets_torch_weights(reference, candidate):
        return jax_function(candidate, layout_for(candidate, reference, params, names, kinds))
    if kinds is not None:
        raise UsageError(
            f"kinds is {kinds!r}, accepted is None unless the reference is a torch module and the "
            "candidate a Flax or Equinox module: no weights are converted"
        )
    return jax_function(candidate, None) if takes_params(reference, candidate) else candidate


def merged(
    reference: Any, candidate: Any, params: Collection[str], names: Names, kinds: Kinds | None
) -> list[str]:
    """What a reader should know of biases that are added on the way, for the candidate has one."""
    if not gets_torch_weights(reference, candidate):
        return []
    return merged_in(layout_for(candidate, reference, params, names, kinds))


def merged_in(found: Layout) -> list[str]:
    """The same of a map."""
    pairs = {(p.torch, p.flax) for p in found.pairs if p.leaf.role == "added"}
    tensors = list(dict.fromkeys(name for name, _ in sorted(pairs)))
    if not tensors:
        return []
    note = (
        f"{', '.join(tensors)}: added to the other bias, for the candidate has one for the sum of "
        "both; torch, which steps both, trains otherwise"
    )
    return [note]


def layout_for(
    candidate: Any, source: Any, params: Collection[str], names: Names, kinds: Kinds | None
) -> Layout:
    """The map from torch's weights to a JAX module's; `source` is a torch module, or its tensors.

    Raises:
        UsageError: As `convert.layout`.
    """
    # What a Linen module has is known when it is called.
    like = None if kind(candidate) == "linen" else flax_leaves(candidate)
    return layout(source, names=names, kinds=kinds, only=params, like=like)


def jax_function(module: Any, found: Layout | None) -> Callable[..., Any]:
    """A module of JAX as a callable of `params`, torch's by a layout or its own, and its inputs."""
    make = {"linen": linen_function, "nnx": nnx_function, "equinox": equinox_function}
    return make[kind(module)](module, found)


def modules_of(names: Collection[str]) -> list[str]:
    """The paths of the modules that these tensors are of, and their own; the root is left out."""
    return [path.replace("/", ".") for path in prefixes(n.replace(".", "/") for n in names)]
