"""How JAX's loops take their arrays apart, row by row, and put what comes of them together."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def parts_of_scan(params: Mapping[str, Any], operands: list[int]) -> tuple[list[int], ...]:
    """What every turn of a scan gets, what is carried, and what is gone through."""
    if "ft_in" in params:  # from JAX 0.11 on, a tree of the three
        return tuple(map(list, params["ft_in"].update(operands).unpack()))
    end = params["num_consts"]
    first = end + params["num_carry"]
    return operands[:end], operands[end:first], operands[first:]


def going_on(flags: Any, old: Any, new: Any) -> Any:
    """What a loop under `vmap` goes on with: of those that have ended what they had."""
    import jax.numpy as jnp

    return jnp.where(flags.reshape(flags.shape + (1,) * (new.ndim - flags.ndim)), new, old)


def row(turn: int) -> Callable[[Any], Any]:
    """What a turn takes of a sequence."""
    return lambda sequence: sequence[turn]


def row_back(turn: int, sequence: Any) -> Callable[[np.ndarray], list[np.ndarray]]:
    """From the slope of what a turn took to that of the sequence."""

    def back(slope: np.ndarray) -> list[np.ndarray]:
        found = np.zeros(sequence.shape, slope.dtype)
        found[turn] = slope
        return [found]

    return back


def rows_stacked(shape: Any) -> Callable[..., Any]:
    """What the turns gave, one below the other; of no turn an array of that shape."""
    import jax.numpy as jnp

    return lambda *rows: jnp.stack(rows) if rows else jnp.zeros(shape.shape, shape.dtype)
