"""Runs PyTorch and JAX callables on NumPy arrays, so that the two can be compared.

A *side* is a function from named NumPy arrays to named NumPy arrays, as `parity.tolerance` takes
it. Its precision is that of the floating arrays it is given. A callable gets its inputs by
keyword, as copies; a name with a slash is an entry of a mapping, `params/linear1.weight` the
entry `"linear1.weight"` of the argument `params`. What it returns may be an array or any nest of
mappings, named tuples and sequences; leaves are named likewise, a lone array `value`.

What is no array (a Python number, a string) is a hyperparameter: it is passed on as it is, and
constant in a jitted function.

Frameworks are imported where they are used: either may be absent.
"""

import ctypes
import math
import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from parity.arrays import is_floating, nudge
from parity.tolerance import NUM_NUDGES, Function

Arrays = Mapping[str, Any]
Side = Callable[[Arrays], dict[str, np.ndarray]]

COTANGENT = "cotangent/"
"""Prefix of the inputs that a gradient's cotangents arrive under: `cotangent/<output>`."""


# --- PyTorch -------------------------------------------------------------------------------------


def torch_values(function: Callable[..., Any]) -> Side:
    """The outputs of a torch callable. Float32 runs flush subnormals, as XLA's do (trap G01)."""

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        with arithmetic(flush=precision(inputs) == "float32"):
            outputs = function(**nested(_tensors(inputs)))
            return {leaf: _from_torch(value) for leaf, value in flat(outputs).items()}

    return run


def torch_gradients(function: Callable[..., Any], wrt: Collection[str] | None = None) -> Side:
    """Gradients of Σ cotangent · output in the inputs `wrt`, by default every floating one.

    The cotangent of output `leaf` is the input `cotangent/<leaf>`, or 1 where there is none and
    the output is a scalar. A gradient of `None` is zero.
    """
    import torch

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        with arithmetic(flush=precision(inputs) == "float32"):
            arrays, cotangents = _split(inputs)
            tensors = _tensors(arrays)
            names = _differentiated(arrays, wrt)
            for name in names:
                tensors[name].requires_grad_()
            outputs = flat(function(**nested(tensors)))
            total = torch.zeros(())
            for leaf, weight in _weights(outputs, cotangents).items():
                total = total + (torch.tensor(weight).to(outputs[leaf]) * outputs[leaf]).sum()
            if not total.requires_grad:
                return {name: np.zeros_like(arrays[name]) for name in names}
            slopes = torch.autograd.grad(total, [tensors[n] for n in names], allow_unused=True)
            return {
                name: np.zeros_like(arrays[name]) if slope is None else _from_torch(slope)
                for name, slope in zip(names, slopes, strict=True)
            }

    return run


def torch_sensitivity(
    function: Callable[..., Any],
) -> Callable[[Arrays], dict[str, dict[str, np.ndarray]]]:
    """∂output/∂input of each scalar output of a torch callable, for `tolerance.compare`."""
    import torch

    def run(inputs: Arrays) -> dict[str, dict[str, np.ndarray]]:
        with arithmetic(flush=False):
            tensors = _tensors(inputs)
            names = _differentiated(inputs, None)
            for name in names:
                tensors[name].requires_grad_()
            slopes: dict[str, dict[str, np.ndarray]] = {}
            for leaf, output in flat(function(**nested(tensors))).items():
                if output.ndim or not output.requires_grad:
                    continue
                by_name = torch.autograd.grad(
                    output, [tensors[n] for n in names], allow_unused=True, retain_graph=True
                )
                slopes[leaf] = {
                    name: _from_torch(slope)
                    for name, slope in zip(names, by_name, strict=True)
                    if slope is not None
                }
            return slopes

    return run


def torch_roundings(side: Function) -> Callable[[Arrays], Iterator[Mapping[str, np.ndarray]]]:
    """Runs of a PyTorch side whose operations round otherwise, for term (d) of `parity.tolerance`.

    In 8 runs each operation's result moves to a neighbouring float64; where the platform can do
    it, one run more for each direction in which the processor can round. What Python computes
    between the operations (an optimizer's bias correction) is float64 in any precision and stays.
    """

    def run(inputs: Arrays) -> Iterator[Mapping[str, np.ndarray]]:
        for draw in range(NUM_NUDGES):
            with _each_operation(partial(_nudged, np.random.default_rng(draw))):
                outputs = side(inputs)
            yield outputs
        for direction in rounding_directions():
            with _each_operation(partial(_directed, direction)):
                outputs = side(inputs)
            yield outputs

    return run


def _each_operation(call: Callable[..., Any]) -> Any:
    """While open, `call(operation, args, kwargs)` is made for each torch operation."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return call(func, args, kwargs or {})

    return Mode()


def _directed(direction: int, operation: Any, args: tuple, kwargs: dict) -> Any:
    with rounding(direction):
        return operation(*args, **kwargs)


def _nudged(rng: np.random.Generator, operation: Any, args: tuple, kwargs: dict) -> Any:
    import torch
    from torch.utils._pytree import tree_leaves

    result = operation(*args, **kwargs)
    schema = operation._schema
    is_view = not schema.is_mutable and any(returned.alias_info for returned in schema.returns)
    if is_view or operation.overloadpacket.__name__ in ("_to_copy", "clone", "copy_"):
        return result  # nothing was computed
    for tensor in tree_leaves(result):
        if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
            up = torch.tensor(rng.random(tensor.shape) < 0.5)
            moved = torch.nextafter(tensor, torch.where(up, math.inf, -math.inf).to(tensor))
            tensor.copy_(torch.where((tensor == 0) | ~moved.isfinite(), tensor, moved))
    return result


_DIRECTIONS = {
    "x86_64": (0x800, 0x400, 0xC00),
    "aarch64": (0x400000, 0x800000, 0xC00000),
}
"""C's FE_UPWARD, FE_DOWNWARD and FE_TOWARDZERO, by processor."""


def rounding_directions() -> tuple[int, ...]:
    """The directions that `rounding` can set here, besides to nearest; empty if none."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return _DIRECTIONS.get(machine, ()) if _floating_point_environment() else ()


@contextmanager
def rounding(direction: int) -> Iterator[None]:
    """Rounds this thread's floating-point operations in a direction, then to nearest again."""
    environment = _floating_point_environment()
    if environment is None or environment.fesetround(direction) != 0:
        raise RuntimeError(f"the rounding direction {direction:#x} can't be set here")
    try:
        yield
    finally:
        environment.fesetround(0)


def _floating_point_environment() -> Any:
    """The C library, if it can set the rounding direction."""
    if platform.system() not in ("Linux", "Darwin"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "fesetround") else None


@contextmanager
def arithmetic(*, flush: bool) -> Iterator[None]:
    """While open, torch computes on this thread alone, and with `flush` takes subnormals for zero.

    How a thread rounds and flushes is its own setting, which workers would not share.
    """
    import torch

    num_threads = torch.get_num_threads()
    # torch tells no one whether it flushes; half of the smallest normal float32 shows it.
    was_flushing = (torch.tensor(2.0**-126, dtype=torch.float32) * 0.5).item() == 0
    torch.set_num_threads(1)
    torch.set_flush_denormal(flush)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)
        torch.set_num_threads(num_threads)


def _tensors(inputs: Arrays) -> dict[str, Any]:
    import torch

    # torch.tensor copies; torch.from_numpy would share the caller's memory (trap F07).
    return {
        name: torch.tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in inputs.items()
    }


def _from_torch(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy().copy() if hasattr(value, "detach") else np.asarray(value)


# --- JAX -----------------------------------------------------------------------------------------


def jax_values(function: Callable[..., Any], *, jit: bool = True) -> Side:
    """The outputs of a JAX callable, jitted (once for each set of shapes) or eager."""
    import jax

    def values(arrays: dict[str, Any], constants: tuple[tuple[str, Any], ...]) -> Any:
        return function(**nested({**arrays, **dict(constants)}))

    call = jax.jit(values, static_argnums=1) if jit else values

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        with x64(precision(inputs) == "float64"):
            outputs = call(*_jax_arrays(inputs))
            return {leaf: np.array(value) for leaf, value in flat(outputs).items()}

    return run


def jax_gradients(
    function: Callable[..., Any], wrt: Collection[str] | None = None, *, jit: bool = True
) -> Side:
    """Gradients of Σ cotangent · output in the inputs `wrt`: `torch_gradients` in JAX."""
    import jax
    import jax.numpy as jnp

    def total(
        moving: dict[str, Any],
        fixed: dict[str, Any],
        cotangents: dict[str, Any],
        constants: tuple[tuple[str, Any], ...],
    ) -> Any:
        outputs = flat(function(**nested({**moving, **fixed, **dict(constants)})))
        weights = _weights(outputs, cotangents)
        return sum(jnp.sum(weight * outputs[leaf]) for leaf, weight in weights.items())

    gradient = jax.grad(total)
    call = jax.jit(gradient, static_argnums=3) if jit else gradient

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        with x64(precision(inputs) == "float64"):
            arrays, cotangents = _split(inputs)
            names = _differentiated(arrays, wrt)
            fixed, constants = _jax_arrays(arrays)
            moving = {name: fixed.pop(name) for name in names}
            slopes = call(moving, fixed, _jax_arrays(cotangents)[0], constants)
            return {name: np.array(slope) for name, slope in slopes.items()}

    return run


def jax_mapped(
    function: Callable[..., Any],
) -> Callable[[Sequence[Arrays]], dict[str, np.ndarray]]:
    """The outputs of several input sets by one `vmap`, stacked. What is no array must be alike."""
    import jax
    import jax.numpy as jnp

    def values(arrays: dict[str, Any], constants: tuple[tuple[str, Any], ...]) -> Any:
        return jax.vmap(lambda one: flat(function(**nested({**one, **dict(constants)}))))(arrays)

    call = jax.jit(values, static_argnums=1)

    def run(sets: Sequence[Arrays]) -> dict[str, np.ndarray]:
        with x64(precision(sets[0]) == "float64"):
            _, constants = _jax_arrays(sets[0])
            names = [name for name, value in sets[0].items() if isinstance(value, np.ndarray)]
            stacked = {name: jnp.array(np.stack([each[name] for each in sets])) for name in names}
            return {leaf: np.array(array) for leaf, array in call(stacked, constants).items()}

    return run


def jax_trace(function: Callable[..., Any], inputs: Arrays) -> None:
    """Traces a JAX callable on inputs, which calls all of its Python and computes nothing."""
    import jax

    with x64(precision(inputs) == "float64"):
        arrays, constants = _jax_arrays(inputs)
        jax.eval_shape(lambda leaves: function(**nested({**leaves, **dict(constants)})), arrays)


@contextmanager
def x64(enabled: bool) -> Iterator[None]:
    """Sets JAX's default precision for a block. Arrays must be made inside it (trap F01)."""
    import jax

    with jax.enable_x64(enabled):
        yield


def _jax_arrays(inputs: Arrays) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """Copies of the arrays, and what is none as constants that `jax.jit` can tell apart."""
    import jax.numpy as jnp

    # jnp.array copies; jnp.asarray may alias the caller's memory (trap F07).
    arrays = {k: jnp.array(value) for k, value in inputs.items() if isinstance(value, np.ndarray)}
    return arrays, tuple((k, value) for k, value in inputs.items() if k not in arrays)


# --- names and precisions ------------------------------------------------------------------------


def precision(inputs: Arrays) -> str:
    """`"float64"` or `"float32"`: what the floating arrays are, one of the two.

    Raises:
        ValueError: They are not all alike, or there is none of these.
    """
    found = {
        str(value.dtype)
        for value in inputs.values()
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    }
    if len(found) != 1 or not found <= {"float64", "float32"}:
        names = ", ".join(sorted(found)) or "none"
        raise ValueError(f"floating inputs are {names}, accepted is float64 alone or float32 alone")
    return found.pop()


def flat(tree: Any) -> dict[str, Any]:
    """The leaves of nested mappings, named tuples and sequences by path; a lone leaf is `value`."""
    return {path or "value": leaf for path, leaf in _leaves(tree, "")}


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings in mappings, from names with slashes."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        children = tree.items()
    elif isinstance(tree, tuple) and (fields := getattr(tree, "_fields", None)):
        children = zip(fields, tree, strict=True)
    elif isinstance(tree, tuple | list):
        children = enumerate(tree)
    elif tree is None:
        return
    else:
        yield path, tree
        return
    for name, child in children:
        yield from _leaves(child, f"{path}/{name}" if path else str(name))


COTANGENT_SEED = 0x636F74
"""Not 0: inputs that a person draws with `default_rng(0).normal` would be their own cotangent,
which the Jacobian of a normalisation, say, sends to zero whatever its scale."""
NUM_MAPPED = 3
"""Input sets that are stacked for `vmap`."""
MAPPED_APART = 2.0**-6
"""How far, relatively, these lie apart: near enough for all to be of the given set's kind."""


def cotangents(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A fixed random weight for each floating output; none where all are lone scalars."""
    floating = {
        leaf: array
        for leaf, array in outputs.items()
        if np.issubdtype(np.asarray(array).dtype, np.floating)
    }
    if all(array.ndim == 0 for array in floating.values()):
        return {}
    rng = np.random.default_rng(COTANGENT_SEED)
    return {f"{COTANGENT}{leaf}": rng.normal(size=array.shape) for leaf, array in floating.items()}


def everywhere(inputs: Arrays) -> dict[str, np.ndarray]:
    """Every entry of every floating input, as `padding` that does not move."""
    return {k: np.ones(x.shape, bool) for k, x in inputs.items() if is_floating(x)}


def input_sets(inputs: Arrays) -> list[dict[str, Any]]:
    """The inputs, and others of the same kind near them: what is zero or not finite stays so."""
    still = {
        name: ~np.isfinite(array) | (array == 0)
        for name, array in inputs.items()
        if is_floating(array)
    }
    draws = range(1, NUM_MAPPED)
    moved = [nudge(inputs, MAPPED_APART, np.random.default_rng(draw), still) for draw in draws]
    return [dict(inputs), *moved]


def _split(inputs: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
    """The function's own inputs, and the cotangents by the output that they belong to."""
    own = {name: value for name, value in inputs.items() if not name.startswith(COTANGENT)}
    cotangents = {
        name.removeprefix(COTANGENT): value
        for name, value in inputs.items()
        if name.startswith(COTANGENT)
    }
    return own, cotangents


def _weights(outputs: Mapping[str, Any], cotangents: Mapping[str, Any]) -> dict[str, Any]:
    """What each output is multiplied by in a gradient: its cotangent, 1 for a lone scalar.

    Raises:
        ValueError: A cotangent has no output or another shape, or an array has no cotangent.
    """
    floating = [leaf for leaf, output in outputs.items() if "float" in str(output.dtype)]
    if not cotangents and all(np.ndim(outputs[leaf]) == 0 for leaf in floating):
        return dict.fromkeys(floating, 1.0)
    for leaf in {*floating, *cotangents}:
        name = f"{COTANGENT}{leaf}"
        if leaf not in floating:
            raise ValueError(f"{name} has no output, accepted are {', '.join(floating)}")
        if leaf not in cotangents:
            raise ValueError(f"{name} is missing: give an array of shape {outputs[leaf].shape}")
        if tuple(cotangents[leaf].shape) != tuple(outputs[leaf].shape):
            raise ValueError(
                f"{name} has shape {tuple(cotangents[leaf].shape)}, accepted is the output's, "
                f"{tuple(outputs[leaf].shape)}"
            )
    return dict(cotangents)


def _differentiated(inputs: Arrays, wrt: Collection[str] | None) -> list[str]:
    """The inputs that a gradient is taken in: those named, or under a name (`params`)."""
    floating = [
        name
        for name, value in inputs.items()
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    ]
    if wrt is None:
        return floating
    chosen = [n for n in floating if n in wrt or any(n.startswith(f"{w}/") for w in wrt)]
    missing = [w for w in wrt if w not in chosen and not any(n.startswith(f"{w}/") for n in chosen)]
    if missing:
        raise ValueError(f"wrt has {missing}, accepted are floating inputs: {', '.join(floating)}")
    return chosen
