"""When two values of the catalogue agree.

Entry by entry, of equal shapes, they part by no more than the share of the largest finite magnitude
that two right programs may part by in this project: 1e-11 in float64, and 16 · 2⁻²³ if either is
float32. Whole numbers, truth values and texts must be equal, and so must infinities. NaN agrees
with nothing: where both have it in the same places, and all else agrees, neither side is any use.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from parity.tolerance import FLOAT32_SCALE, GATE, SLACK

Verdict = Literal["differ", "agree", "both NaN"]
SHARES = {"float64": GATE, "float32": SLACK * FLOAT32_SCALE}
STATED = (
    f"entry by entry, of equal shapes, by no more than {SHARES['float64']:g} of the largest "
    f"magnitude in float64 and {SHARES['float32']:.2g} in float32; NaN agrees with nothing"
)


def readable(value: Any) -> Any:
    """A value as NumPy arrays, texts and mappings of these."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(name): readable(each) for name, each in value.items()}
    if hasattr(value, "detach"):
        return value.detach().numpy().copy()
    if isinstance(value, list | tuple) and any(isinstance(each, str) for each in value):
        return {str(place): readable(each) for place, each in enumerate(value)}
    return np.array(value)


def verdict(first: Any, second: Any, *, exact: bool = False) -> Verdict:
    """Whether two readable values agree; `exact` holds them to the last bit."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        if first.keys() != second.keys():
            return "differ"
        found = {verdict(first[name], second[name], exact=exact) for name in first}
        return "differ" if "differ" in found else "both NaN" if "both NaN" in found else "agree"
    if not (isinstance(first, np.ndarray) and isinstance(second, np.ndarray)):
        same = isinstance(first, str) and isinstance(second, str) and first == second
        return "agree" if same else "differ"
    return _of_arrays(first, second, exact)


def _of_arrays(first: np.ndarray, second: np.ndarray, exact: bool) -> Verdict:
    if first.shape != second.shape:
        return "differ"
    lost = np.isnan(first)
    if (lost != np.isnan(second)).any():
        return "differ"
    a, b = first[~lost], second[~lost]
    close = a == b  # infinities too
    if not exact and {a.dtype.kind, b.dtype.kind} & {*"fc"}:
        sizes = np.abs(np.concatenate([a, b]))
        largest = sizes[np.isfinite(sizes)].max(initial=0.0)
        with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity
            close |= np.abs(a - b) <= _share(a, b) * largest
    if not close.all():
        return "differ"
    return "both NaN" if lost.any() else "agree"


def _share(first: np.ndarray, second: np.ndarray) -> float:
    """By how much of their size two floating arrays may part: that of the coarser one."""
    single = any(np.finfo(a.dtype).bits < 64 for a in (first, second) if a.dtype.kind in "fc")
    return SHARES["float32" if single else "float64"]
