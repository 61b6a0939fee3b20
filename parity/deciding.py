"""Which scores decide which discrete output: for pipelines and for recordings."""

from collections.abc import Mapping

import numpy as np

from parity.arrays import is_floating
from pgcore.errors import UsageError


def decided_by(
    field: str, scores: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """For each discrete output that the scores decide, the path of its scores.

    They have the output's path, or are the lone array `value`. Their shape is the output's, as a
    distance to a threshold, or has one axis more, of the choices of which the largest wins.

    Args:
        field: What gave the scores, for the error.
        scores: Arrays by path.
        outputs: What was decided, by path.

    Raises:
        UsageError: They decide nothing.
    """
    found = {}
    for leaf, output in outputs.items():
        by = leaf if leaf in scores else "value"
        if np.issubdtype(output.dtype, np.floating) or by not in scores:
            continue
        fits = output.shape in (scores[by].shape, scores[by].shape[:-1])
        if fits and is_floating(scores[by]):
            found[leaf] = by
    if not found:
        given = ", ".join(f"{leaf} {array.shape}" for leaf, array in scores.items()) or "nothing"
        shapes = ", ".join(f"{leaf} {array.shape}" for leaf, array in outputs.items())
        raise UsageError(
            f"{field} gives {given}, accepted is a floating array of the shape of a discrete "
            f"output, or of one axis of scores more: {shapes}"
        )
    return found
