"""Equinox modules as callables of their weights, which are torch's, by name, and their inputs."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

from parity import sides
from parity.convert.pairs import Layout
from parity.convert.trees import flax_filled, flax_leaves
from parity.flax_modules import cast_to, laid_out, require_like
from pgcore.errors import UsageError


def is_equinox(side: Any) -> bool:
    """Whether it is an Equinox module with weights, or the class of one.

    What Equinox makes of a function (`filter_jit`) is a module too, and has none.
    """
    equinox = sys.modules.get("equinox")
    if equinox is None or not hasattr(equinox, "Module"):
        return False
    if inspect.isclass(side):
        return issubclass(side, equinox.Module)
    return isinstance(side, equinox.Module) and bool(flax_leaves(side))


def require_no_hidden_module(candidate: Any) -> None:
    """Raises a `UsageError` for a function that `jax.vmap`, say, has made of an Equinox module.

    It has the module's weights inside, where they can't be exchanged for those of torch.
    """
    inner = inspect.unwrap(candidate) if callable(candidate) else candidate
    inner = getattr(inner, "__self__", inner)
    if inner is candidate or not is_equinox(inner) or inspect.isclass(inner):
        return
    name = type(inner).__name__
    raise UsageError(
        f"candidate is a function made of a {name}, whose weights it holds, accepted is the "
        f"Equinox module itself, or one around it if it takes a single example:\n"
        f"class Batched(eqx.Module):\n    net: {name}\n    def __call__(self, x):\n"
        "        return jax.vmap(self.net)(x)\n"
        "with rename={'': 'net'}, which says that torch's module is net"
    )


def equinox_function(module: Any, layout: Layout | None) -> Callable[..., Any]:
    """An Equinox module as a callable of its floating arrays.

    Its other arrays may be among `params`; else they have the value that they have now. The module
    itself is not changed, which none can be.
    """
    own = flax_leaves(module)

    def call(params: Any = None, **inputs: Any) -> Any:
        arrays = laid_out(params or {}, layout)
        needed = {path: leaf for path, leaf in own.items() if _is_floating(leaf) or path in arrays}
        require_like(arrays, needed, layout, "the Equinox module")
        cast = cast_to([*arrays.values(), *sides.flat(inputs).values()])
        filled = {path: arrays[path] if path in arrays else cast(own[path]) for path in own}
        return flax_filled(filled, module)(**inputs)

    return call


def equinox_params(module: Any) -> dict[str, Any]:
    """Its floating arrays by path, `layers/0/weight`."""
    return sides.nested({k: leaf for k, leaf in flax_leaves(module).items() if _is_floating(leaf)})


def _is_floating(leaf: Any) -> bool:
    import jax.numpy as jnp

    return jnp.issubdtype(leaf.dtype, jnp.floating)
