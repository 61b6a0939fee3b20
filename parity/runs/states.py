"""States of a run as named arrays: trees, with PyTorch modules and optimizers among them.

A state is what one step hands to the next. In a tree of mappings, named tuples and sequences a
`torch.nn.Module` stands for its parameters and buffers, a `torch.optim.Optimizer` for what it
remembers of each parameter, by the parameter's name: `opt_state/exp_avg/linear1.weight`. Gradients
are no state.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from parity.arrays import is_floating
from pgcore.errors import UsageError

COUNT = "step"
"""torch's optimizers count their steps in a floating tensor of this name. A count is an integer."""

Change = Callable[[str, Any], Any]
"""A leaf's name and its value, to its new value."""


def leaves(state: Any, numbers: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of a state by name, as copies; with `numbers`, plain numbers in that dtype too."""
    found: dict[str, np.ndarray] = {}

    def note(path: str, leaf: Any) -> Any:
        if is_array(leaf):
            found[path or "value"] = as_numpy(leaf)
        elif numbers is not None and isinstance(leaf, int | float):
            array = np.asarray(leaf)
            found[path or "value"] = array.astype(numbers) if is_floating(array) else array
        return leaf

    _walk(state, note, "", _parameter_names(state))
    return found


def replaced(state: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A copy of a state with these arrays in it, in their precision; others stay.

    Raises:
        UsageError: Something in the state can't be copied.
    """
    try:
        own = copy.deepcopy(state)
    except Exception as error:
        raise UsageError(
            f"the state is a {type(state).__name__} that can't be copied ({error}); accepted are "
            "trees of arrays, torch modules and torch optimizers; what a step reads from elsewhere "
            "belongs to its inputs"
        ) from error

    def put(path: str, leaf: Any) -> Any:
        name = path or "value"
        return _like(leaf, arrays[name]) if name in arrays else leaf

    return _walk(own, put, "", _parameter_names(own))


def first_difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> str | None:
    """The name of the first array that is not the same in both, to the last bit."""
    for name in {**one, **other}:
        is_in_both = name in one and name in other
        if not (is_in_both and np.array_equal(one[name], other[name], equal_nan=True)):
            return name
    return None


def differ(before: Any, after: Any) -> bool:
    """Whether any array of two states differs."""
    return first_difference(leaves(before), leaves(after)) is not None


def one_ulp(arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Every floating number moved to one of its two neighbours, up or down by chance; 0 stays."""

    def moved(array: np.ndarray) -> np.ndarray:
        towards = rng.choice((-np.inf, np.inf), size=array.shape).astype(array.dtype)
        moves = np.isfinite(array) & (array != 0)
        return np.where(moves, np.nextafter(array, towards), array)

    return {name: moved(x) if is_floating(x) else x for name, x in arrays.items()}


def as_numpy(leaf: Any) -> np.ndarray:
    """A copy of an array of any framework."""
    if hasattr(leaf, "detach"):
        return leaf.detach().cpu().numpy().copy()
    return np.array(leaf)


def in_torch(tree: Any) -> Any:
    """A tree with PyTorch tensors for its arrays."""
    import torch

    return _arrays_changed(tree, lambda leaf: torch.tensor(as_numpy(leaf)))


def in_jax(tree: Any) -> Any:
    """A tree with JAX arrays for its arrays."""
    import jax.numpy as jnp

    return _arrays_changed(tree, lambda leaf: jnp.array(as_numpy(leaf)))


def _arrays_changed(tree: Any, change: Callable[[Any], Any]) -> Any:
    return _walk(tree, lambda _, leaf: change(leaf) if is_array(leaf) else leaf, "", {})


def require_known(tree: Any, what: str) -> None:
    """Raises a `UsageError` where a tree holds what would not be looked at."""

    def known(path: str, leaf: Any) -> Any:
        is_complex = is_array(leaf) and "complex" in str(leaf.dtype)
        if (is_array(leaf) and not is_complex) or isinstance(leaf, int | float | str):
            return leaf
        kind = "complex numbers" if is_complex else f"a {type(leaf).__name__}"
        raise UsageError(
            f"{what} has {kind} at {path or 'its top'}, accepted are mappings, named tuples, "
            "sequences, torch modules and optimizers, and in them arrays and plain numbers; give a "
            "dataclass by its fields, and complex numbers as their two parts"
        )

    _walk(tree, known, "", _parameter_names(tree))


def run_precision(state: Any) -> str:
    """The precision of a state's floating arrays, `"float64"` or `"float32"`.

    Raises:
        UsageError: They are not all alike, or there is none.
    """
    floating = {name: str(x.dtype) for name, x in leaves(state).items() if is_floating(x)}
    kinds = {*floating.values()}
    if len(kinds) == 1 and kinds <= {"float64", "float32"}:
        return kinds.pop()
    found = ", ".join(f"{name} {dtype}" for name, dtype in floating.items()) or "none"
    raise UsageError(
        f"floating arrays of the state are {found}; accepted are one at least, and float64 for all "
        "or float32 for all"
    )


def form(tree: Any) -> Any:
    """What a tree is made of, arrays and all else that is no tree being alike."""
    if isinstance(tree, Mapping):
        return {key: form(child) for key, child in tree.items()}
    if isinstance(tree, tuple | list):
        return (type(tree).__name__, *map(form, tree))
    return "leaf"


def _walk(node: Any, change: Change, path: str, names: Mapping[int, str]) -> Any:
    """The tree with its arrays changed; modules and optimizers are changed in place."""

    def below(name: Any, child: Any) -> Any:
        return _walk(child, change, f"{path}/{name}" if path else str(name), names)

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(node, torch.nn.Module):
        _change_module(node, below)
    elif torch is not None and isinstance(node, torch.optim.Optimizer):
        _change_optimizer(node, below, names)
    elif isinstance(node, Mapping):
        return _rebuilt(node, {key: below(key, child) for key, child in node.items()})
    elif isinstance(node, tuple) and (fields := getattr(node, "_fields", None)):
        return type(node)(*(below(name, x) for name, x in zip(fields, node, strict=True)))
    elif isinstance(node, tuple | list):
        return type(node)(below(i, child) for i, child in enumerate(node))
    elif node is not None:
        return change(path, node)
    return node


def is_array(leaf: Any) -> bool:
    """Whether this is an array of NumPy, PyTorch or JAX."""
    if isinstance(leaf, np.ndarray | np.generic):
        return True
    jax, torch = sys.modules.get("jax"), sys.modules.get("torch")
    return (torch is not None and isinstance(leaf, torch.Tensor)) or (
        jax is not None and isinstance(leaf, jax.Array)
    )


def _change_module(module: Any, change: Callable[[str, Any], Any]) -> None:
    for name, parameter in module.named_parameters():
        data = parameter.data  # each access gives another tensor of the same memory
        if (new := change(name, data)) is not data:
            parameter.data = new
            parameter.grad = None  # it may be of another precision, and is no state
    for name, buffer in module.named_buffers():
        if (new := change(name, buffer)) is not buffer:
            buffer.data = new


def _change_optimizer(
    optimizer: Any, change: Callable[[str, Any], Any], names: Mapping[int, str]
) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    lists = [
        f"{type(optimizer).__name__}'s {key}"
        for remembered in optimizer.state.values()
        for key, value in remembered.items()
        if isinstance(value, list | tuple | dict)
    ]
    if type(optimizer).__name__ == "LBFGS":  # whose copies can't even make a step
        lists.append("LBFGS's history")
    if lists:
        raise UsageError(
            f"the state has {lists[0]}, accepted are optimizers that remember arrays and "
            "numbers for each parameter; make what another remembers part of the state yourself, "
            "as a tree of arrays"
        )
    for index, parameter in enumerate(parameters):
        remembered = optimizer.state.get(parameter, {})
        for key, value in remembered.items():
            if not is_array(value):
                continue
            given = value.round().long() if key == COUNT else value
            if value.ndim == 0 and key != COUNT and value.is_floating_point():
                given = value.to(parameter.dtype)  # NAdam's, say, which is float32 in any run
            new = change(f"{key}/{names.get(id(parameter), str(index))}", given)
            if new is not given:
                remembered[key] = new.to(value.dtype) if value.ndim == 0 else new


def _parameter_names(tree: Any) -> dict[int, str]:
    """The names of all parameters of the modules in a tree, with the module's path if several."""
    modules = dict(_modules(tree, ""))
    return {
        id(parameter): name if len(modules) == 1 else f"{path}/{name}"
        for path, module in modules.items()
        for name, parameter in module.named_parameters()
    }


def _modules(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tree, torch.nn.Module):
        yield path, tree
        return
    named: Any = ()
    if isinstance(tree, Mapping):
        named = tree.items()
    elif isinstance(tree, tuple | list):
        named = enumerate(tree)
    for name, child in named:
        yield from _modules(child, f"{path}/{name}" if path else str(name))


def _rebuilt(node: Mapping[Any, Any], children: dict[Any, Any]) -> Any:
    return children if type(node) is dict else type(node)(children)  # pyright: ignore[reportCallIssue]


def _like(leaf: Any, array: np.ndarray) -> Any:
    """The array as what the leaf is: a tensor, a JAX array, or NumPy's."""
    if hasattr(leaf, "detach"):
        import torch

        return torch.tensor(array, device=leaf.device)
    if isinstance(leaf, np.ndarray | np.generic):
        return array.copy()
    import jax.numpy as jnp

    return jnp.array(array)
