"""The state of Adam and of SGD between `torch.optim` and optax.

| torch, for each parameter | optax, a tree like the parameters |
| --- | --- |
| `exp_avg`, `exp_avg_sq`, `step` of `Adam` and `AdamW` | `ScaleByAdamState(mu, nu, count)` |
| `momentum_buffer` of `SGD` with momentum | `TraceState(trace)` |
| nothing, of `SGD` without | no such state |

The state may sit anywhere in a chain. Hyperparameters are not part of it: optax keeps them in the
transformation's closure, so that the two learning rates agree is for the caller to see to.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity.convert.layouts import Kinds, Layout, Names, layout, require_names, require_shapes
from parity.convert.parameters import (
    flax_leaves,
    flax_tree,
    numpy_array,
    require_like,
    torch_tensor,
)
from pgcore.errors import UsageError, require, unknown_choice


class _Rule(NamedTuple):
    """How one optimizer's state is called: optax's type, its fields by torch's keys, its count."""

    state: str
    fields: Mapping[str, str]
    counts: bool


_RULES = {
    "Adam": _Rule("ScaleByAdamState", {"exp_avg": "mu", "exp_avg_sq": "nu"}, counts=True),
    "SGD": _Rule("TraceState", {"momentum_buffer": "trace"}, counts=False),
    "SGD without momentum": _Rule("", {}, counts=False),
}


def optimizer_to_flax(
    optimizer: Any,
    module: Any,
    template: Any,
    *,
    names: Names | None = None,
    kinds: Kinds | None = None,
) -> Any:
    """The state of an optax optimizer, with what a torch optimizer remembers.

    Args:
        optimizer: A `torch.optim.Adam`, `AdamW` or `SGD` that steps all parameters of `module`.
        module: The torch module.
        template: The state to be replaced, `optimizer.init(params)`.
        names: As in `to_flax`: torch module paths to Flax module paths.
        kinds: As in `to_flax`.

    Raises:
        UsageError: As `to_flax`; or either state has something that the other has no place for (an
            AMSGrad maximum, a dampened buffer, the count of a schedule), the parameters have not
            all made the same number of steps, or the optimizer is none of these.
    """
    rule = _rule(optimizer)
    parameters = _parameters(optimizer, module)
    found = _parameter_layout(module, parameters, names, kinds)
    count, moments = _torch_state(optimizer, rule, parameters)

    def replaced(state: Any) -> Any:
        fields = {}
        for key, field in rule.fields.items():
            arrays = found.to_flax(moments[key], f"{key} of the optimizer")
            tree = getattr(state, field)
            require_like(arrays, flax_leaves(tree), found)
            fields[field] = flax_tree(arrays, tree)
        if rule.counts:
            dtype = np.asarray(next(iter(flax_leaves(state.count).values()))).dtype
            fields["count"] = flax_tree({"": np.array(count, dtype)}, state.count)
        return state._replace(**fields)

    return _replace_state(template, rule, replaced)


def optimizer_to_torch(
    opt_state: Any,
    optimizer: Any,
    module: Any,
    *,
    names: Names | None = None,
    kinds: Kinds | None = None,
) -> dict[str, Any]:
    """What `optimizer.load_state_dict` takes, with what an optax optimizer remembers.

    A state in which nothing has happened yet is torch's empty one.

    Args:
        opt_state: The optax state.
        optimizer: The torch optimizer; it gives the groups with their hyperparameters.
        module: The torch module whose parameters it steps.
        names: As in `to_flax`: torch module paths to Flax module paths.
        kinds: As in `to_flax`.

    Raises:
        UsageError: As `optimizer_to_flax`.
    """
    import torch

    rule = _rule(optimizer)
    parameters = _parameters(optimizer, module)
    found = _parameter_layout(module, parameters, names, kinds)
    moments: dict[str, dict[str, np.ndarray]] = {}
    count = 0

    def read(state: Any) -> Any:
        nonlocal count
        for key, field in rule.fields.items():
            leaves = flax_leaves(getattr(state, field))
            arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
            moments[key] = found.to_torch(arrays, f"{field} of the optax state")
        if rule.counts:
            [leaf] = flax_leaves(state.count).values()
            count = int(leaf)
        return state

    _replace_state(opt_state, rule, read)
    for key, arrays in moments.items():
        shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        axes = {pair.torch: pair.axes for pair in found.pairs}
        require_shapes(arrays, shapes, axes, f"{key} of the torch optimizer")
    groups = optimizer.state_dict()["param_groups"]
    if not moments or (
        count == 0 and not any(a.any() for m in moments.values() for a in m.values())
    ):
        return {"state": {}, "param_groups": groups}
    # torch counts in a float tensor, of 64 bits only where that is the default.
    wide = torch.get_default_dtype() == torch.float64
    step = {"step": torch.tensor(count, dtype=torch.float64 if wide else torch.float32)}
    by_name = {
        name: {key: torch_tensor(arrays[name], name) for key, arrays in moments.items()}
        for name in parameters
    }
    state = {
        index: by_name[name] | ({"step": step["step"].clone()} if rule.counts else {})
        for index, name in enumerate(parameters)
    }
    return {"state": state, "param_groups": groups}


def _rule(optimizer: Any) -> _Rule:
    import torch

    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        return _RULES["Adam"]
    if not isinstance(optimizer, torch.optim.SGD):
        accepted = ("Adam", "AdamW", "SGD")
        raise unknown_choice("the optimizer", type(optimizer).__name__, accepted)
    momenta = {group["momentum"] for group in optimizer.param_groups}
    require(len(momenta) == 1, "momentum", momenta, "one for all groups, as optax has it")
    if momenta == {0}:
        return _RULES["SGD without momentum"]
    for group in optimizer.param_groups:
        # optax has no dampening: its trace would go on otherwise than the buffer.
        require(group["dampening"] == 0, "dampening", group["dampening"], "0")
    return _RULES["SGD"]


def _parameters(optimizer: Any, module: Any) -> dict[str, Any]:
    """The parameters by name, in the optimizer's order, which is that of its `state_dict`."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    stepped = [p for group in optimizer.param_groups for p in group["params"]]
    if foreign := sum(id(parameter) not in names for parameter in stepped):
        raise UsageError(f"the optimizer steps {foreign} parameters that the module does not have")
    found = {names[id(parameter)]: parameter for parameter in stepped}
    require_names(found, list(names.values()), "the optimizer")
    return found


def _parameter_layout(
    module: Any, parameters: Mapping[str, Any], names: Names | None, kinds: Kinds | None
) -> Layout:
    """The module's map without its buffers, of which an optimizer knows nothing."""
    pairs = layout(module, names=names, kinds=kinds).pairs
    return Layout(tuple(pair for pair in pairs if pair.torch in parameters))


def _torch_state(
    optimizer: Any, rule: _Rule, parameters: Mapping[str, Any]
) -> tuple[int, dict[str, dict[str, np.ndarray]]]:
    """The count, and arrays by torch's key and the parameter's name; zeros before any step."""
    expected = [*rule.fields, *(["step"] if rule.counts else [])]
    counts: dict[str, float] = {}
    moments: dict[str, dict[str, np.ndarray]] = {key: {} for key in rule.fields}
    for name, parameter in parameters.items():
        found = optimizer.state.get(parameter, {})
        state = {key: value for key, value in found.items() if value is not None}
        if state or rule.counts:
            counts[name] = float(state.get("step", 0))
        if state and set(state) != set(expected):
            accepted = ", ".join(expected) or "nothing"
            raise UsageError(f"state of {name} has {', '.join(state)}, accepted is {accepted}")
        for key in rule.fields:
            value = state.get(key)
            value = np.zeros_like(numpy_array(parameter, name)) if value is None else value
            moments[key][name] = numpy_array(value, f"{key} of {name}")
    if len(set(counts.values())) > 1:
        steps = ", ".join(f"{name} {count:g}" for name, count in counts.items())
        raise UsageError(
            f"steps of the parameters are {steps}, accepted is one number, for optax counts once: "
            "a parameter without a gradient is not stepped by torch"
        )
    return int(next(iter(counts.values()), 0)), moments


def _replace_state(opt_state: Any, rule: _Rule, replaced: Callable[[Any], Any]) -> Any:
    """The optax state with the one state that the rule names replaced, nothing else left over."""
    import optax

    wanted = getattr(optax, rule.state) if rule.state else None
    seen = 0

    def walk(node: Any, path: str) -> Any:
        nonlocal seen
        if wanted is not None and isinstance(node, wanted):
            seen += 1
            return replaced(node)
        if isinstance(node, tuple):
            fields = getattr(node, "_fields", range(len(node)))
            children = [
                walk(child, f"{path}/{field}") for field, child in zip(fields, node, strict=True)
            ]
            return type(node)(*children) if hasattr(node, "_fields") else tuple(children)
        if leaves := flax_leaves(node):
            raise UsageError(
                f"the optax state has {', '.join(_join(path, leaf) for leaf in leaves)} left over: "
                "the torch optimizer has nothing of the kind"
            )
        return node

    result = walk(opt_state, type(opt_state).__name__ if hasattr(opt_state, "_fields") else "")
    accepted = f"one {rule.state}, for the torch optimizer has such a state"
    require(
        seen == (wanted is not None), f"number of {rule.state} in the optax state", seen, accepted
    )
    return result


def _join(path: str, leaf: str) -> str:
    return f"{path}/{leaf}".strip("/")
