"""Softmaxes over another axis, and divergences of the laws that they make."""

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Signature
from parity.locate.signatures.functions import Function, log_softmax, softmax
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import each_set, is_right, is_wrong, recomputed


def softmax_axis(clues: Clues) -> Found | None:
    """exp(x)/Σ exp(x) over one axis against another."""
    for function in (softmax, log_softmax):
        for i in range(3):
            for j in (-1, 0, 1, 2):

                def right(x: np.ndarray, function=function, i=i):
                    return function(x, i)

                def wrong(x: np.ndarray, function=function, j=j):
                    return function(x, j)

                found = recomputed(clues, right, wrong, values=clues.arrays)
                if found or (found := _part_of_softmax(clues, right, i, j)):
                    j = j % found[1][0][0].ndim
                    return Found(f"PyTorch's is over axis {i}, JAX's over axis {j}", 5)
    return None


def _part_of_softmax(clues: Clues, right: Function, i: int, j: int):
    """JAX's maximum, exponentials or sum, where PyTorch has but one operation."""
    if not clues.says("softmax"):
        return None
    for over_j, over_i in zip(_parts(j), _parts(i), strict=True):
        found = recomputed(clues, right, over_j, values=clues.arrays)
        if found is None:
            continue
        pair, (values,) = found
        others = [each_set(lambda x, f=f: f(x, j), values) for f in (softmax, log_softmax)]
        # Neither is PyTorch's that over JAX's axis, nor JAX's that over PyTorch's.
        told = not any(is_right(pair, each) for each in others)
        if told and not is_wrong(pair, each_set(over_i, values)):
            return found
    return None


def _parts(axis: int) -> tuple[Function, ...]:
    """What a softmax over an axis is made of."""

    def shifted(x: np.ndarray) -> np.ndarray:
        return x - x.max(axis, keepdims=True)

    return (
        shifted,
        lambda x: np.exp(shifted(x)),
        lambda x: np.exp(shifted(x)).sum(axis, keepdims=True),
        lambda x: np.exp(shifted(x)).sum(axis),
        lambda x: x.max(axis),
        lambda x: x.max(axis, keepdims=True),
    )


def divergence(clues: Clues) -> Found | None:
    """KL(p‖q) = Σ p·(log p − log q) against KL(q‖p), of probabilities or their logarithms."""

    def of_logs(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (np.exp(p) * (p - q)).sum(-1)

    def of_probabilities(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p * (np.log(p) - np.log(q))).sum(-1)

    laws = [v for v in clues.arrays if _is_law(v)]
    for form in (of_logs, of_probabilities) if laws else ():
        for total in (lambda x: x, np.sum, np.mean):

            def right(p, q, form=form, total=total):
                return total(form(p, q))

            def wrong(p, q, right=right):
                return right(q, p)

            if recomputed(clues, right, wrong, arity=2, pairs=clues.main, values=laws):
                return Found("PyTorch's is KL(p, q), JAX's KL(q, p)", 8)
    return None


def _is_law(values: Arrays) -> bool:
    """Whether rows are probabilities or their logarithms."""
    rows = [a for a in values if a.ndim]
    sums = [each.sum(-1) for each in rows], [np.exp(each).sum(-1) for each in rows]
    return bool(rows) and any(np.allclose(np.concatenate([*map(np.ravel, s)]), 1) for s in sums)


SIGNATURES = (
    catalogued("E03", softmax_axis),
    Signature(
        "R38",
        "the divergence's two distributions are exchanged",
        "F.kl_div(log_q, p) is KL(p, q): the first argument is the second distribution",
        divergence,
    ),
)
