"""Flax modules, Linen's and NNX's, as callables of their weights and their inputs.

The weights may be torch's, by name: then a `Layout` says which is which, and they are laid out
inside the call, where it can be traced. Whatever has no weight, or no place, is an error.
"""

from collections.abc import Callable, Mapping
from typing import Any

from parity import sides
from parity.convert.pairs import Layout, require_names, require_shapes
from parity.convert.trees import flax_filled, flax_leaves
from pgcore.errors import UsageError

RANDOM = (
    "candidate draws random numbers, accepted is a function of its inputs alone: pass the noise as "
    "an input, or make it with deterministic=True"
)


def linen_function(module: Any, layout: Layout | None) -> Callable[..., Any]:
    """A Linen module as a callable; its `init` says which variables it has, of all collections."""
    import jax
    from flax.errors import InvalidRngError

    def call(params: Any = None, **inputs: Any) -> Any:
        template = jax.eval_shape(lambda: module.init(jax.random.key(0), **inputs))
        leaves = flax_leaves(template)
        arrays = laid_out(params or {}, layout)
        require_like(arrays, leaves, layout)
        try:
            return module.apply(flax_filled(arrays, template), **inputs)
        except InvalidRngError as error:
            raise UsageError(f"{RANDOM} ({error})") from error

    return call


def nnx_function(module: Any, layout: Layout | None) -> Callable[..., Any]:
    """An NNX module as a callable of its `nnx.Param`s.

    Its other variables may be among `params`; else they have the value that they have now, in the
    precision of the inputs. The module itself is never called, and so not changed.
    """
    from flax import nnx

    graph, state = nnx.split(module)
    own = flax_leaves(state)
    needed = flax_leaves(nnx.state(module, nnx.Param))

    def call(params: Any = None, **inputs: Any) -> Any:
        arrays = laid_out(params or {}, layout)
        leaves = {path: leaf for path, leaf in own.items() if path in needed or path in arrays}
        require_like(arrays, leaves, layout)
        cast = cast_to([*arrays.values(), *sides.flat(inputs).values()])
        filled = {path: arrays[path] if path in arrays else cast(own[path]) for path in own}
        merged = nnx.merge(graph, flax_filled(filled, state))
        outputs = merged(**inputs)
        counts = flax_leaves(nnx.state(merged, nnx.RngCount))
        # A draw counts one up: another array, traced or not.
        if any(count is not filled[path] for path, count in counts.items()):
            raise UsageError(f"{RANDOM}, or call .eval()")
        return outputs

    return call


def nnx_params(module: Any, given: Any) -> Any:
    """The module's `nnx.Param`s as a tree of arrays; what is given instead, if it is."""
    from flax import nnx

    if given is None:
        given = nnx.state(module, nnx.Param)
    return nnx.to_pure_dict(given) if isinstance(given, nnx.State) else given


def laid_out(params: Any, layout: Layout | None) -> dict[str, Any]:
    """The weights by Flax path, with Flax's axes."""
    if layout is None:
        return flax_leaves(params)
    return layout.traced(params)


def require_like(
    arrays: Mapping[str, Any],
    leaves: Mapping[str, Any],
    layout: Layout | None,
    where: str = "the Flax module",
) -> None:
    """Raises a `UsageError` unless the module has just these weights, of these shapes."""
    if layout is None:
        remedy = "give the variables that the module's init makes"
        require_names(arrays, [*leaves], "inputs['params']", remedy)
    else:
        remedy = f"say in rename= which {where.removeprefix('the ')} each torch module is"
        require_names(leaves, [*arrays], where, remedy)
    axes: dict[str, Any] = dict.fromkeys(arrays)
    axes |= {pair.flax: pair.axes for pair in (layout.pairs if layout else ())}
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    require_shapes(arrays, shapes, axes, where)


def cast_to(given: list[Any]) -> Callable[[Any], Any]:
    """Casts floating arrays to the precision of those that were given."""
    import jax.numpy as jnp

    def is_floating(leaf: Any) -> bool:
        return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)

    dtype = next(leaf.dtype for leaf in given if is_floating(leaf))
    return lambda leaf: leaf.astype(dtype) if is_floating(leaf) else leaf
