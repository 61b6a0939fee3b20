"""The state of an optimizer between `torch.optim` and optax.

| torch, for each parameter | optax, a tree like the parameters |
| --- | --- |
| `exp_avg`, `exp_avg_sq`, `step` of `Adam` and `AdamW` | `ScaleByAdamState(mu, nu, count)` |
| `square_avg` of `RMSprop` | `ScaleByRmsState(nu)` |
| `square_avg`, `grad_avg` of `RMSprop`, centered | `ScaleByRStdDevState(nu, mu)` |
| `momentum_buffer` of `RMSprop` and `SGD` with momentum | `TraceState(trace)` |
| nothing, of `SGD` without | no such state |

The states may sit anywhere in a chain, in `inject_hyperparams` and in `MultiSteps` between two
steps. Hyperparameters are not part of them: optax keeps them in the transformation's closure or as
injected, torch in its groups, and that the two learning rates agree is for the caller to see to.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.convert.chains import Counted, replace_states
from parity.convert.layouts import Kinds, Names, layout
from parity.convert.pairs import Layout, require_names, require_shapes
from parity.convert.parameters import numpy_array, require_like, torch_tensor
from parity.convert.rules import Rule, find_rule
from parity.convert.trees import flax_leaves, flax_tree
from pgcore.errors import UsageError, require


def optimizer_to_flax(
    optimizer: Any,
    module: Any,
    template: Any,
    *,
    names: Names | None = None,
    kinds: Kinds | None = None,
    schedules: bool = False,
) -> Any:
    """The state of an optax optimizer, with what a torch optimizer remembers.

    Args:
        optimizer: A `torch.optim.Adam`, `AdamW`, `RMSprop` or `SGD` that steps the parameters of
            `module` that optax does: all, unless some are masked.
        module: The torch module.
        template: The state to be replaced, `optimizer.init(params)`.
        names: As in `to_flax`: torch module paths to Flax module paths.
        kinds: As in `to_flax`.
        schedules: The counts of optax's schedules are the number of steps made: torch's schedule,
            which its optimizer knows nothing of, moves once a step too. Without it they are left
            over.

    Raises:
        UsageError: As `to_flax`; or either state has something that the other has no place for (an
            AMSGrad maximum, a dampened buffer, a momentum that optax scales by the learning rate),
            the parameters have not all made the same number of steps, a parameter is stepped that
            Flax has no place for, or the optimizer is none of these.
    """
    rule = find_rule(optimizer)
    parameters = _parameters(optimizer, module)
    count, moments = _torch_state(optimizer, rule, parameters)
    if schedules and count is None:
        raise UsageError("schedules is True, accepted is False: torch's SGD counts no steps")

    def replaced(name: str, state: Any) -> Any:
        fields = {}
        for key, field in rule.states[name].items():
            tree = getattr(state, field)
            found = _parameter_layout(module, parameters, names, kinds, flax_leaves(tree))
            arrays = found.to_flax(moments[key], f"{key} of the optimizer")
            require_like(arrays, flax_leaves(tree), found)
            fields[field] = flax_tree(arrays, tree)
        if rule.counted_by == name:
            fields["count"] = counted(state.count)
        return state._replace(**fields)

    def counted(leaf: Any) -> Any:
        dtype = np.asarray(next(iter(flax_leaves(leaf).values()))).dtype
        return flax_tree({"": np.array(count or 0, dtype)}, leaf)

    return replace_states(template, rule, replaced, counted, schedules=schedules)


def optimizer_to_torch(
    opt_state: Any,
    optimizer: Any,
    module: Any,
    *,
    names: Names | None = None,
    kinds: Kinds | None = None,
    schedules: bool = False,
    count: int | None = None,
) -> dict[str, Any]:
    """What `optimizer.load_state_dict` takes, with what an optax optimizer remembers.

    A state in which nothing has happened yet is torch's empty one.

    Args:
        opt_state: The optax state.
        optimizer: The torch optimizer; it gives the groups with their hyperparameters.
        module: The torch module whose parameters it steps.
        names: As in `to_flax`: torch module paths to Flax module paths.
        kinds: As in `to_flax`.
        schedules: As in `optimizer_to_flax`; the counts must agree.
        count: The number of steps made, of `RMSprop`: torch counts them and reads them nowhere,
            optax does not count them, unless in `inject_hyperparams` or a schedule.

    Raises:
        UsageError: As `optimizer_to_flax`; or the number of steps is not known, or two counts of it
            differ.
    """
    import torch

    rule = find_rule(optimizer)
    parameters = _parameters(optimizer, module)
    moments: dict[str, dict[str, np.ndarray]] = {}
    counts = Counted(None if count is None else {"count=": count})

    def read(name: str, state: Any) -> Any:
        for key, field in rule.states[name].items():
            leaves = flax_leaves(getattr(state, field))
            found = _parameter_layout(module, parameters, names, kinds, leaves)
            arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
            moments[key] = found.to_torch(arrays, f"{field} of the optax state")
            shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
            axes = {pair.torch: pair.axes for pair in found.pairs}
            require_shapes(moments[key], shapes, axes, f"{key} of the torch optimizer")
        if rule.counted_by == name:
            counts.read(name, state.count)
        return state

    replace_states(opt_state, rule, read, counts.leaf, schedules=schedules)
    groups = optimizer.state_dict()["param_groups"]
    made = counts.agreed()
    is_fresh = not any(a.any() for m in moments.values() for a in m.values())
    if not moments or (not made and is_fresh):
        return {"state": {}, "param_groups": groups}
    if rule.counts and made is None:
        raise UsageError(
            "count is None, accepted is the number of steps made: torch counts them and the optax "
            "state does not"
        )
    # torch counts in a float tensor, of 64 bits only where that is the default.
    wide = torch.get_default_dtype() == torch.float64
    step = torch.tensor(made or 0, dtype=torch.float64 if wide else torch.float32)
    state = {
        index: {
            **{key: torch_tensor(arrays[name], name) for key, arrays in moments.items()},
            **({"step": step.clone()} if rule.counts else {}),
        }
        for index, name in enumerate(parameters)
    }
    return {"state": state, "param_groups": groups}


def _parameters(optimizer: Any, module: Any) -> dict[str, Any]:
    """The parameters by name, in the optimizer's order, which is that of its `state_dict`."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    stepped = [p for group in optimizer.param_groups for p in group["params"]]
    if foreign := sum(id(parameter) not in names for parameter in stepped):
        raise UsageError(f"the optimizer steps {foreign} parameters that the module does not have")
    return {names[id(parameter)]: parameter for parameter in stepped}


def _parameter_layout(
    module: Any,
    parameters: Mapping[str, Any],
    names: Names | None,
    kinds: Kinds | None,
    like: Mapping[str, Any],
) -> Layout:
    """The module's map without what an optimizer does not step.

    Raises:
        UsageError: A parameter that Flax has is not stepped, or one is that it has no place for.
    """
    own = {name for name, _ in module.named_parameters()}
    pairs = [p for p in layout(module, names=names, kinds=kinds, like=like).pairs if p.torch in own]
    # What neither side steps (it is masked) is none of theirs.
    carried = [
        pair
        for pair in pairs
        if pair.leaf.role == "carried" and (pair.torch in parameters or pair.flax in like)
    ]
    if lone := [p for p in pairs if p.torch in parameters and p.leaf.role != "carried"]:
        raise UsageError(
            f"the optimizer steps {lone[0].torch}{lone[0].leaf}, for which Flax has no array of "
            "its own: torch steps two biases there, optax one for both. Accepted is an optimizer "
            "without it, the tensor zeros and with requires_grad_(False), or a layer without biases"
        )
    require_names(parameters, list(dict.fromkeys(p.torch for p in carried)), "the optimizer")
    return Layout(tuple(carried))


def _torch_state(
    optimizer: Any, rule: Rule, parameters: Mapping[str, Any]
) -> tuple[int | None, dict[str, dict[str, np.ndarray]]]:
    """The count, and arrays by torch's key and the parameter's name; zeros before any step."""
    expected = [*rule.keys, *(["step"] if rule.counts else [])]
    counts: dict[str, float] = {}
    moments: dict[str, dict[str, np.ndarray]] = {key: {} for key in rule.keys}
    for name, parameter in parameters.items():
        found = optimizer.state.get(parameter, {})
        state = {key: value for key, value in found.items() if value is not None}
        if state or rule.counts:
            counts[name] = float(state.get("step", 0))
        if state and set(state) != set(expected):
            accepted = ", ".join(expected) or "nothing"
            raise UsageError(f"state of {name} has {', '.join(state)}, accepted is {accepted}")
        for key in rule.keys:
            value = state.get(key)
            value = np.zeros_like(numpy_array(parameter, name)) if value is None else value
            moments[key][name] = numpy_array(value, f"{key} of {name}")
    if len(set(counts.values())) > 1:
        steps = ", ".join(f"{name} {count:g}" for name, count in counts.items())
        raise UsageError(
            f"steps of the parameters are {steps}, accepted is one number, for optax counts once: "
            "a parameter without a gradient is not stepped by torch"
        )
    made = int(next(iter(counts.values()), 0))
    require(made < 2**31, "the number of steps", made, "one that int32 can hold, as optax counts")
    return (made if rule.counts else None), moments
