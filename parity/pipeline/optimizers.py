"""The stage `update`, made of an optimizer: the same steps with torch's and with optax's."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from parity import sides
from parity.pipeline.feed import rebuilt
from pgcore.errors import UsageError, unknown_choice

LEARNING_RATE = 1e-2
SCALES = (1.0, -0.5, 2.0**-7)
"""What the gradient is multiplied by, step by step. One step from a fresh state shows neither of
Adam's decay rates; powers of two keep it a float32 number."""

TORCH_STATE = {"exp_avg": "m", "exp_avg_sq": "v", "momentum_buffer": "momentum"}
OPTAX_STATE = {"mu": "m", "nu": "v", "trace": "momentum"}
"""What either calls an optimizer's arrays, and what a report does."""


class Pair(NamedTuple):
    """One optimizer twice: `parameters -> torch.optim.Optimizer`, and optax's transformation."""

    name: str
    torch: Callable[..., Any]
    optax: Any


class Stepper(NamedTuple):
    """The update of a chained step.

    Attributes:
        init: From the parameters and everything known to the first state.
        step: From everything known, `params` and `gradients` too, and the state, to the new
            parameters and state.
    """

    init: Callable[[Any, Mapping[str, Any]], Any]
    step: Callable[[Mapping[str, Any], Any], tuple[Any, Any]]


def pair(optimizer: Any) -> Pair:
    """The optimizer that `check_pipeline` is asked for.

    Raises:
        UsageError: It is neither a known name nor a pair.
    """
    if isinstance(optimizer, str):
        if optimizer not in _NAMED:
            raise unknown_choice("optimizer", optimizer, [*_NAMED, "a pair (torch's, optax's)"])
        return _NAMED[optimizer]()
    try:
        in_torch, in_optax = optimizer
        if not (callable(in_torch) and callable(in_optax.update)):
            raise TypeError
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"optimizer is {optimizer!r}, accepted is 'adam', 'sgd', or a pair of a function from "
            "parameters to a torch.optim.Optimizer and an optax GradientTransformation"
        ) from error
    return Pair("the given optimizer", in_torch, in_optax)


def _adam() -> Pair:
    import pgjax.optim
    import pgtorch.optim

    return Pair("adam", pgtorch.optim.adam(LEARNING_RATE), pgjax.optim.adam(LEARNING_RATE))


def _sgd() -> Pair:
    from functools import partial

    import optax
    import torch

    return Pair("sgd", partial(torch.optim.SGD, lr=LEARNING_RATE), optax.sgd(LEARNING_RATE))


_NAMED = {"adam": _adam, "sgd": _sgd}


# --- in torch ------------------------------------------------------------------------------------


def torch_updates(make: Callable[..., Any], states: Collection[str], *, moving: bool) -> Any:
    """`update(params, gradients)`: what a few steps from a fresh state leave behind, stacked.

    With `moving` the parameters after each step, from `params`. Without it, the change that the
    step makes to parameters of zero: added to larger ones its error would be lost in their
    rounding; and the states of these names.
    """

    def update(params: Any, gradients: Any) -> dict[str, Any]:
        import torch

        slopes = sides.flat({"g": gradients})
        start = sides.flat({"g": params})
        held = {
            path: torch.nn.Parameter(start[path].clone() if moving else torch.zeros_like(slope))
            for path, slope in slopes.items()
        }
        stepper = make([*held.values()])
        found: dict[str, list[Any]] = {}
        for scale in SCALES:
            for path, parameter in held.items():
                parameter.grad = scale * slopes[path]
            stepper.step()
            left = {"params" if moving else "change": held}
            if not moving:
                left |= _torch_states(stepper, held, states)
            for path, leaf in _paths(left).items():
                found.setdefault(path, []).append(leaf.detach().clone())
            for parameter in () if moving else held.values():
                parameter.data.zero_()
        return {path: torch.stack(leaves) for path, leaves in found.items()}

    return update


def torch_stepper(make: Callable[..., Any]) -> Stepper:
    """Steps on a chain's own numbers; the state is the optimizer and what it holds."""

    def init(params: Any, known: Mapping[str, Any]) -> Any:
        import torch

        held = {
            path: torch.nn.Parameter(leaf.detach().clone())
            for path, leaf in sides.flat({"g": params}).items()
        }
        return held, make([*held.values()])

    def step(known: Mapping[str, Any], state: Any) -> tuple[Any, Any]:
        held, stepper = state
        for path, slope in sides.flat({"g": known["gradients"]}).items():
            held[path].grad = slope.clone()
        stepper.step()
        after = {path: parameter.detach().clone() for path, parameter in held.items()}
        return rebuilt({"g": known["params"]}, after)["g"], state

    return Stepper(init, step)


def _torch_states(stepper: Any, held: Mapping[str, Any], states: Collection[str]) -> dict:
    """The states of these names, each a leaf or leaves by the path of their parameter."""
    found: dict[str, Any] = {}
    for path, parameter in held.items():
        for key, value in stepper.state[parameter].items():
            if value is None:
                continue
            if TORCH_STATE.get(key) in states:
                found.setdefault(TORCH_STATE[key], {})[path] = value.clone()
            elif key == "step" and "count" in states:
                found["count"] = value.clone().long()
    return found


def _paths(left: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by path, without the `g` that they were flattened under."""
    return {
        path.replace("/g/", "/", 1).removesuffix("/g"): leaf
        for path, leaf in sides.flat(left).items()
    }


# --- in optax ------------------------------------------------------------------------------------


def optax_updates(transform: Any, states: Collection[str], *, moving: bool) -> Any:
    """`torch_updates` with an optax transformation."""

    def update(params: Any, gradients: Any) -> dict[str, Any]:
        import jax
        import jax.numpy as jnp

        def step(carry: Any, scale: Any) -> tuple[Any, Any]:
            at, state = carry
            slopes = jax.tree.map(lambda g: scale.astype(g.dtype) * g, gradients)
            change, state = transform.update(slopes, state, at)
            if moving:
                at = jax.tree.map(lambda p, c: p + c, at, change)
                return (at, state), _paths({"params": {"g": at}})
            known = _optax_states(state)
            left = {name: known[name] for name in states}
            return (at, state), _paths({"change": {"g": change}, **left})

        at = params if moving else jax.tree.map(jnp.zeros_like, gradients)
        return jax.lax.scan(step, (at, transform.init(at)), jnp.array(SCALES))[1]

    return update


def optax_stepper(transform: Any) -> Stepper:
    """`torch_stepper` with an optax transformation."""

    def step(known: Mapping[str, Any], state: Any) -> tuple[Any, Any]:
        import jax

        params = known["params"]
        change, state = transform.update(known["gradients"], state, params)
        return jax.tree.map(lambda p, c: p + c, params, change), state

    return Stepper(lambda params, known: transform.init(params), step)


def common_states(both: Pair, params: Any) -> tuple[list[str], list[str]]:
    """The states that both optimizers have, and those that only one of them has.

    `params` is a tree of float64 arrays.
    """
    import torch

    tensors = {path: torch.tensor(leaf) for path, leaf in sides.flat({"g": params}).items()}
    held = {path: torch.nn.Parameter(tensor) for path, tensor in tensors.items()}
    stepper = both.torch([*held.values()])
    for parameter in held.values():
        parameter.grad = torch.zeros_like(parameter)
    stepper.step()
    names = [*TORCH_STATE.values(), "count"]
    in_torch = {*_torch_states(stepper, held, names)}
    in_optax = {*_optax_states(both.optax.init(params))}
    found = [name for name in names if name in in_torch & in_optax]
    return found, sorted(in_torch ^ in_optax)


def _optax_states(state: Any) -> dict[str, Any]:
    """The moments, wherever they are in a chain, and the count that lies beside them."""
    if not isinstance(state, tuple):
        return {}
    fields = getattr(state, "_fields", ())
    own: dict[str, Any] = dict(zip(fields, state, strict=False))
    found = {name: {"g": own[field]} for field, name in OPTAX_STATE.items() if field in own}
    if found:
        return found | ({"count": own["count"]} if "count" in own else {})
    for child in state:
        found |= _optax_states(child)
    return found
