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

from parity.directions import rounding, rounding_directions
from parity.jax_side import jax_gradients, jax_mapped, jax_trace, jax_values, x64
from parity.names import (
    COTANGENT,
    NUM_MAPPED,
    cotangents,
    everywhere,
    flat,
    input_sets,
    nested,
    precision,
)
from parity.roundings import torch_roundings
from parity.tolerance import Function
from parity.torch_side import (
    arithmetic,
    torch_gradients,
    torch_has_graph,
    torch_sensitivity,
    torch_values,
)

__all__ = [
    "COTANGENT",
    "NUM_MAPPED",
    "Function",
    "arithmetic",
    "cotangents",
    "everywhere",
    "flat",
    "input_sets",
    "jax_gradients",
    "jax_mapped",
    "jax_trace",
    "jax_values",
    "nested",
    "precision",
    "rounding",
    "rounding_directions",
    "torch_gradients",
    "torch_has_graph",
    "torch_roundings",
    "torch_sensitivity",
    "torch_values",
    "x64",
]
"""The two kinds of side; the parts live in `torch_side`, `jax_side`, `roundings` and `names`."""
