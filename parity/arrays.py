"""Named arrays: how they are cast and moved, and how far two of them are apart."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
"""Arrays by name. What is no NumPy array (a Python number, a string) is a hyperparameter."""


def cast(inputs: Arrays, dtype: type) -> dict[str, Any]:
    """A copy of the inputs with every floating array in `dtype`; what it lacks becomes infinite."""
    with np.errstate(over="ignore"):
        return {
            name: array.astype(dtype) if is_floating(array) else _copy(array)
            for name, array in inputs.items()
        }


def nudge(
    inputs: Arrays,
    u: float,
    rng: np.random.Generator,
    still: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """One draw of relative ±u on every floating array; `still` marks entries that stay."""
    return {
        name: _nudge_array(array, u, rng, (still or {}).get(name))
        if is_floating(array)
        else _copy(array)
        for name, array in inputs.items()
    }


def _nudge_array(
    array: np.ndarray, u: float, rng: np.random.Generator, still: np.ndarray | None
) -> np.ndarray:
    still = ~np.isfinite(array) | (False if still is None else still)
    sign = rng.choice((-1.0, 1.0), size=array.shape)
    magnitude = np.abs(np.where(still, 0.0, array))
    largest = float(magnitude.max(initial=0.0)) or 1.0
    # What is huge stays finite: the largest float64 has no neighbour above it.
    with np.errstate(over="ignore"):
        moved = array + sign * u * np.where(magnitude == 0, largest, magnitude)
        # At u = 2⁻⁵³ half of the powers of two would round back to where they were.
        moved = np.where(moved == array, np.nextafter(array, sign * math.inf), moved)
    return np.where(still | ~np.isfinite(moved), array, moved).astype(array.dtype)


def entries_that_stay(
    name: str,
    array: np.ndarray,
    padding: Mapping[str, np.ndarray],
    exact_zeros: Collection[str],
) -> np.ndarray:
    """True at the entries of an input that no nudge moves; `exact_zeros` as in `compare`."""
    still = ~np.isfinite(array)
    if name in padding:
        still = still | np.broadcast_to(padding[name], array.shape)
    if name in exact_zeros or name.split("/")[0] in exact_zeros:
        still = still | (array == 0)
    return still


def is_floating(array: Any) -> bool:
    """Whether this is a NumPy array of floating numbers; a Python number is not."""
    return isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating)


def is_number(value: Any) -> bool:
    """Whether this is a plain Python number, which has no dtype (and no boolean, which is a flag).

    NumPy's float64 is one: it is a Python `float`, and the frameworks take it as that.
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def outputs_of(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a side returned, its scalars as arrays too."""
    return {leaf: np.asarray(array) for leaf, array in outputs.items()}


def minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a − b in float64."""
    # Infinities subtract to NaN, which fails as it must: no warning is needed.
    with np.errstate(invalid="ignore", over="ignore"):
        return a.astype(np.float64) - b.astype(np.float64)


def largest_magnitude(array: np.ndarray) -> float:
    """The largest finite magnitude; 0 if there is none."""
    magnitude = np.abs(array[np.isfinite(array)])
    return float(magnitude.max(initial=0.0))


def differences(pairs: Iterable[tuple[Arrays, Arrays]]) -> dict[str, np.ndarray]:
    """For each entry of each floating output its largest finite difference in a pair of runs."""
    largest: dict[str, np.ndarray] = {}
    for run, exact in pairs:
        for leaf, array in outputs_of(run).items():
            if leaf in exact and array.shape == np.shape(exact[leaf]) and is_floating(array):
                apart = np.abs(minus(array, np.asarray(exact[leaf])))
                apart = np.where(np.isfinite(apart), apart, 0.0)
                largest[leaf] = np.maximum(largest.get(leaf, 0.0), apart)
    return largest


def sum_of_products(x: np.ndarray, slope: np.ndarray) -> float:
    """Σ |x · slope| where both are finite: padding takes no part."""
    known = np.isfinite(x) & np.isfinite(slope)
    return float(np.abs(np.where(known, x, 0.0) * np.where(known, slope, 0.0)).sum())


def same_nonfinite(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where both are NaN, or the same infinity."""
    return (np.isnan(a) & np.isnan(b)) | (np.isinf(a) & (a == b))
