"""JAX callables on NumPy arrays: values, gradients, several input sets under one `vmap`."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity.arrays import is_number
from parity.names import (
    Arrays,
    differentiated,
    flat,
    nested,
    precision,
    split_cotangents,
    weighable,
    weights,
)
from parity.tolerance import Function


def jax_values(function: Callable[..., Any], *, jit: bool = True) -> Function:
    """The outputs of a JAX callable, jitted (once for each set of shapes) or eager.

    A plain Python number among them stays one.
    """
    import jax

    def values(arrays: dict[str, Any], constants: tuple[tuple[str, Any], ...]) -> Any:
        return _numbers_apart(flat(function(**nested({**arrays, **dict(constants)}))))

    call = jax.jit(values, static_argnums=1) if jit else values

    def run(inputs: Arrays) -> dict[str, Any]:
        with x64(precision(inputs) == "float64"):
            outputs, numbers = call(*_jax_arrays(inputs))
            found = {leaf: np.array(value) for leaf, value in outputs.items()}
            return found | {leaf: np.array(value).item() for leaf, value in numbers.items()}

    return run


def jax_gradients(
    function: Callable[..., Any], wrt: Collection[str] | None = None, *, jit: bool = True
) -> Function:
    """Gradients of Σ cotangent · output in the inputs `wrt`: `torch_gradients` in JAX."""
    import jax
    import jax.numpy as jnp

    def total(
        moving: dict[str, Any],
        fixed: dict[str, Any],
        cotangents: dict[str, Any],
        constants: tuple[tuple[str, Any], ...],
    ) -> Any:
        returned = flat(function(**nested({**moving, **fixed, **dict(constants)})))
        outputs = weighable(returned, cotangents, jnp.array)
        weighted = weights(outputs, cotangents).items()
        return sum((jnp.sum(weight * outputs[leaf]) for leaf, weight in weighted), jnp.zeros(()))

    gradient = jax.grad(total)
    call = jax.jit(gradient, static_argnums=3) if jit else gradient

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        with x64(precision(inputs) == "float64"):
            arrays, cotangents = split_cotangents(inputs)
            names = differentiated(arrays, wrt)
            fixed, constants = _jax_arrays(arrays)
            moving = {name: fixed.pop(name) for name in names}
            slopes = call(moving, fixed, _jax_arrays(cotangents)[0], constants)
            return {name: np.array(slope) for name, slope in slopes.items()}

    return run


def jax_mapped(
    function: Callable[..., Any],
) -> Callable[[Sequence[Arrays]], dict[str, Any]]:
    """The outputs of several input sets by one `vmap`, stacked. What is no array must be alike.

    A plain Python number among the outputs is a list of it, one for each set.
    """
    import jax
    import jax.numpy as jnp

    def values(arrays: dict[str, Any], constants: tuple[tuple[str, Any], ...]) -> Any:
        def single(one: dict[str, Any]) -> Any:
            return _numbers_apart(flat(function(**nested({**one, **dict(constants)}))))

        return jax.vmap(single)(arrays)

    call = jax.jit(values, static_argnums=1)

    def run(sets: Sequence[Arrays]) -> dict[str, Any]:
        with x64(precision(sets[0]) == "float64"):
            _, constants = _jax_arrays(sets[0])
            names = [name for name, value in sets[0].items() if isinstance(value, np.ndarray)]
            stacked = {name: jnp.array(np.stack([each[name] for each in sets])) for name in names}
            outputs, numbers = call(stacked, constants)
            found = {leaf: np.array(array) for leaf, array in outputs.items()}
            return found | {leaf: np.array(each).tolist() for leaf, each in numbers.items()}

    return run


def jax_trace(function: Callable[..., Any], inputs: Arrays) -> None:
    """Traces a JAX callable on inputs, which calls all of its Python and computes nothing."""
    import jax

    with x64(precision(inputs) == "float64"):
        arrays, constants = _jax_arrays(inputs)
        jax.eval_shape(lambda leaves: function(**nested({**leaves, **dict(constants)})), arrays)


@contextmanager
def x64(enabled: bool) -> Iterator[None]:
    """Sets JAX's default precision for a block. Arrays must be made inside it."""
    import jax

    with jax.enable_x64(enabled):
        yield


def _numbers_apart(outputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs, and those that are plain Python numbers: `jit` makes arrays of these too."""
    numbers = {leaf: value for leaf, value in outputs.items() if is_number(value)}
    return {leaf: value for leaf, value in outputs.items() if leaf not in numbers}, numbers


def _jax_arrays(inputs: Arrays) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """Copies of the arrays, and what is none as constants that `jax.jit` can tell apart."""
    import jax.numpy as jnp

    # jnp.array copies; jnp.asarray may alias the caller's memory.
    arrays = {k: jnp.array(value) for k, value in inputs.items() if isinstance(value, np.ndarray)}
    return arrays, tuple((k, value) for k, value in inputs.items() if k not in arrays)
