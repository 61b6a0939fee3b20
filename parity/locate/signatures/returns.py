"""The recursions of reinforcement learning: discounts, steps and ends of episodes."""

from collections.abc import Callable

import numpy as np

from parity.locate.signatures.clues import Clues, Found, Signature
from parity.locate.signatures.discounts import is_discount
from parity.locate.signatures.relations import is_mask, is_right, is_wrong, telling

Recursion = Callable[[np.ndarray, float], np.ndarray]


def discounted(r: np.ndarray, discount: float) -> np.ndarray:
    """Gₜ = rₜ + γ·Gₜ₊₁"""
    found, following = np.zeros_like(r), np.zeros_like(r[0])
    for t in range(len(r))[::-1]:
        following = r[t] + discount * following
        found[t] = following
    return found


def _powers(r: np.ndarray, discount: float) -> np.ndarray:
    return (discount ** np.arange(len(r))).reshape(-1, *[1] * (r.ndim - 1))


RECURSIONS: dict[str, Recursion] = {
    "r[t] + discount * G[t + 1]": discounted,
    "the undiscounted sum from t on": lambda r, _: discounted(r, 1.0),
    "the sum up to t": lambda r, _: np.cumsum(r, 0),
    "r[t] + discount * G[t - 1], run forwards": lambda r, d: discounted(r[::-1], d)[::-1],
    "the whole episode's return at every t": lambda r, d: np.broadcast_to(
        discounted(r, d)[:1], r.shape
    ),
    "discount ** t * r[t] summed from t on": lambda r, d: discounted(_powers(r, d) * r, 1.0),
    "discount * (r[t] + G[t + 1])": lambda r, d: d * discounted(r, d),
    "run on from one column into the one before": lambda r, d: (
        discounted(r.T.reshape(-1), d).reshape(r.T.shape).T
    ),
    "G[t + 1]": lambda r, d: np.concatenate([discounted(r, d)[1:], np.zeros_like(r[:1])]),
}


def returns(clues: Clues) -> Found | None:
    """Gₜ = rₜ + γ·Gₜ₊₁ against one of its variants, or with another γ (γλ for γ)."""
    numbers = sorted({n for n in clues.numbers if is_discount(n)})
    discounts = {f"{x[0]:g}": x for x in numbers} | {
        f"{x[0]:g} * {y[0]:g}": tuple(a * b for a, b in zip(x, y, strict=True))
        for x in numbers
        for y in numbers
        if x <= y
    }
    masks = [m for m in clues.arrays if is_mask(m)]
    for pair in clues.main:
        for r in clues.arrays if telling(pair) else ():
            if r[0].shape != pair.right[0].shape or r[0].shape[0] < 3:
                continue
            made = {
                (name, called): [f(a, x) for a, x in zip(r, d, strict=True)]
                for name, f in RECURSIONS.items()
                for called, d in discounts.items()
            }
            fitting = [m for m in masks if m[0].shape == r[0].shape]
            made |= {
                (f"{name}, where a mask is", called): [
                    a * b for a, b in zip(made[name, called], m, strict=True)
                ]
                for m in fitting[:1]
                for name, called in [*made]
            }
            right = [key for key, value in made.items() if is_right(pair, value)]
            wrong = [key for key, value in made.items() if is_wrong(pair, value)]
            if right and wrong and not {*right} & {*wrong}:
                (name, d), (other, e) = right[0], wrong[0]
                return Found(
                    f"PyTorch's is {name} with {d}, JAX's {other}"
                    + (f" with {e}" if d != e else ""),
                    9,
                )
    return None


SIGNATURES = (
    Signature(
        "R28",
        "another recursion of returns",
        "G[t] = r[t] + discount * G[t + 1]: jax.lax.scan(..., reverse=True) from 0",
        returns,
    ),
)
