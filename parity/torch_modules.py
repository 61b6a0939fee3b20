"""A torch module as a callable of its weights and its inputs."""

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from parity import sides
from parity.convert.pairs import require_names
from parity.convert.parameters import numpy_array
from pgcore.errors import UsageError


def torch_function(reference: Any) -> Callable[..., Any]:
    """A torch module as a callable of `params` and what its `forward` takes.

    The callable has a copy of the module. A buffer that is not in `params` has the value that it
    has now, in the precision of the inputs; what a call makes of a buffer ends with the call.

    Raises:
        UsageError: The module can't be copied.
    """
    from torch.func import functional_call

    module = _copied(reference)
    buffers = dict(module.named_buffers())

    def call(params: Mapping[str, Any] | None = None, **inputs: Any) -> Any:
        given = dict(params or {})
        dtype = _floating_dtype([*given.values(), *sides.flat(inputs).values()])
        for name, buffer in buffers.items():
            own = buffer.to(dtype) if buffer.is_floating_point() else buffer
            given[name] = given.get(name, own).detach().clone()
        return functional_call(module, given, (), inputs)

    return call


def buffers_in(module: Any, params: Collection[str]) -> list[str]:
    """Which of `params` are buffers."""
    return [name for name, _ in module.named_buffers() if name in params]


def torch_params(module: Any, given: Any) -> dict[str, Any]:
    """Copies of its parameters by name, a tied one once; of what is given instead, if it is.

    Raises:
        UsageError: What is given lacks a parameter, has another shape, or is no tensor of the
            module.
    """
    own = dict(module.named_parameters())
    if "params" in inspect.signature(module.forward).parameters:
        raise UsageError(
            f"forward of {type(module).__name__} has an argument 'params', which is what its "
            "weights are called here: give check a function that calls the module"
        )
    if given is None:
        return {name: numpy_array(tensor, name) for name, tensor in own.items()}
    if not isinstance(given, Mapping):
        raise UsageError(
            f"inputs['params'] is a {type(given).__name__}, accepted are arrays by torch's names, "
            "as in a state_dict"
        )
    given = {name: numpy_array(tensor, name) for name, tensor in given.items()}
    given = _without_ties(module, own, given)
    state = module.state_dict()
    expected = [*own, *(name for name in state if name in given and name not in own)]
    require_names(given, expected, "inputs['params']", "give what the module's state_dict has")
    for name, array in given.items():
        if tuple(array.shape) != tuple(state[name].shape):
            raise UsageError(
                f"inputs['params'][{name!r}] has the shape {list(array.shape)}, accepted is the "
                f"module's, {list(state[name].shape)}"
            )
    return given


def _without_ties(module: Any, own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given without the further names of a tied weight, which must have its value."""
    first = {id(tensor): name for name, tensor in own.items()}
    kept = dict(given)
    for name, tensor in module.named_parameters(remove_duplicate=False):
        original = first[id(tensor)]
        if name == original or name not in given:
            continue
        if original in given and not np.array_equal(given[original], given[name]):
            raise UsageError(
                f"inputs['params'][{name!r}] differs from {original!r}, which is the same weight "
                f"of {type(module).__name__}: give one of them, {original!r}"
            )
        kept[original] = kept.pop(name) if original not in given else given[original]
        kept.pop(name, None)
    return kept


def _copied(module: Any) -> Any:
    try:
        return copy.deepcopy(module).cpu()
    except Exception as error:
        raise UsageError(
            f"reference, a {type(module).__name__}, can't be copied, and is not to be changed "
            f"({error}): give check one that has not been called yet, or a function that makes it"
        ) from error


def _floating_dtype(tensors: list[Any]) -> Any:
    """The dtype that the floating tensors have."""
    return next(t.dtype for t in tensors if hasattr(t, "dtype") and t.is_floating_point())
