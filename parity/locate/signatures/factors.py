"""One value is a multiple of the other, and the multiple is a known number."""

import math

import numpy as np

from parity.locate.signatures.clues import Clues, Found, Signature, lengths
from parity.locate.signatures.names import catalogued, named
from parity.locate.signatures.relations import (
    all_near,
    either_way,
    factor,
    factors,
    near,
    recomputed,
    shown,
    telling,
)

SQUARES = r"l2_loss|mse|squared_error"
MEANS = r"mean|average|sum|len\(|size|shape|numel|reduc"


def half_of_the_square(clues: Clues) -> Found | None:
    """(a − b)² against ½(a − b)²."""
    for pair in clues.pairs:
        k = factor(pair)
        if k is not None and (near(k, 0.5) or near(k, 2.0)) and clues.says(SQUARES):
            return Found(f"JAX's is {shown(k)} times PyTorch's, a squared error", 4)

    def square(a: np.ndarray, b: np.ndarray):
        return (a - b) ** 2

    def half(a: np.ndarray, b: np.ndarray):
        return 0.5 * (a - b) ** 2

    for right, wrong in ((square, half), (half, square)):
        if recomputed(clues, right, wrong, arity=2, pairs=clues.main):
            return Found("one is (a - b)², one half of it", 5)
    return None


def huber_scale(clues: Clues) -> Found | None:
    """smooth_l1 = huber/β."""
    for pair in clues.pairs:
        k = factors(pair)
        if k and not all(near(x, 1) for x in k) and clues.support("huber|smooth_l1"):
            for number in clues.numbers:
                if number[0] not in (0.0, 1.0) and either_way(k, number):
                    return Found(f"JAX's is {shown(k)} times PyTorch's, which is beta", 6)

    def huber(d: np.ndarray, beta: float):
        return np.where(np.abs(d) <= beta, d * d / 2, beta * (np.abs(d) - beta / 2))

    for pair in clues.main:
        for number in clues.numbers:
            if number[0] <= 0 or number[0] == 1 or len({*number}) > 1:
                continue
            beta = number[0]
            scaled = recomputed(
                clues,
                lambda a, b, beta=beta: huber(a - b, beta) / beta,
                lambda a, b, beta=beta: huber(a - b, beta),
                arity=2,
                pairs=[pair],
            )
            if scaled:
                return Found(f"PyTorch's is the Huber loss over beta = {beta:g}", 6)
    return None


def mean_against_sum(clues: Clues) -> Found | None:
    """Σx against Σx/n: the factor is the length of an axis, or of several."""
    reductions = "mean|sum"
    for pair in clues.main:
        k = factors(pair)
        if k is None or all(near(x, 1) for x in k):
            continue
        k = tuple(map(abs, k))  # a port may count in costs where PyTorch counts in gains
        for n, what in lengths(clues):
            if either_way(k, n) and (clues.support(MEANS) or min(n) > 4):
                micro = clues.support("accum|multisteps|micro|num_batches")
                divergence = clues.support("kl_div|kl")
                trap = "A12" if micro else "C11" if divergence == 3 else ""
                return Found(
                    f"JAX's is {shown(k)} times PyTorch's, and {shown(n)} is {what}",
                    5 if clues.says(reductions) else 3,
                    *(named(trap) if trap else ()),
                )
    return None


def root_of_length(clues: Clues) -> Found | None:
    """x against x/√n."""
    for pair in (*clues.main, *clues.handed):
        k = factors(pair)
        if k is None or all(near(x, 1) for x in k):
            continue
        for n, what in lengths(clues):
            whole = all(math.isqrt(m) ** 2 == m for m in n)
            if either_way(k, [math.sqrt(m) for m in n]) and (clues.says("sqrt") or not whole):
                return Found(f"JAX's is {shown(k)} times PyTorch's: √{shown(n)}, {what}", 4)
    return None


def sign(clues: Clues) -> Found | None:
    """w = −r"""
    for pair in clues.main:
        k = factors(pair)
        if k and all(near(x, -1) for x in k) and telling(pair):
            return Found("JAX's is PyTorch's times -1", 5)
    return None


def known_factor(clues: Clues) -> Found | None:
    """w = r·c or r/c for a scalar at hand, or for two of them, or for 1 − c."""
    for pair in clues.main:
        k = factors(pair)
        if not k or all(near(x, 1) or near(x, -1) for x in k):
            continue
        for number in clues.numbers:
            if number in clues.computed:
                continue
            spelt = {
                "": number,
                "-": [-x for x in number],
                "1 - ": [1 - x for x in number],
                "the square of ": [x * x for x in number],
            }
            for how, values in spelt.items():
                if any(x in (0.0, 1.0, -1.0) for x in values) or not either_way(k, values):
                    continue
                if how.startswith("the") and near(k[0], 4.0):
                    continue
                return Found(
                    f"JAX's is {shown(k)} times PyTorch's: {how}{shown(number)}, "
                    f"{'multiplied by' if all_near(k, values) else 'divided by'}",
                    2,
                )
    return None


def bias_correction(clues: Clues) -> Found | None:
    """m̂ = m/(1 − βᵗ) against m, β a number at hand; or with β rounded to float32."""
    decays = {n[0] for n in clues.numbers if len({*n}) == 1 and 0.5 <= n[0] < 1}
    steps = [n for n in clues.numbers if all(x == int(x) and 1 <= x < 1e6 for x in n)]
    steps += [(float(t),) * len(clues.evidence.candidate.values) for t in range(1, 11)]
    for pair in clues.main:
        k = factors(pair)
        if not k or all(near(x, 1) for x in k):
            continue
        for decay in sorted(decays | {0.9, 0.999} if clues.support("adam|moment") else decays):
            single = float(np.float32(decay))
            for t in steps:
                correction = [1 - decay**x for x in t]
                if either_way(k, correction) or either_way(k, [math.sqrt(c) for c in correction]):
                    return Found(
                        f"JAX's is {shown(k)} times PyTorch's: 1 - {decay:g}^{shown(t)}, its root, "
                        "or 1 over",
                        5,
                    )
                rounded = [c / (1 - single**x) for c, x in zip(correction, t, strict=True)]
                if either_way(k, rounded):
                    return Found(
                        f"JAX's is PyTorch's times (1 - b^t)/(1 - float32(b)^t), b = {decay:g}",
                        5,
                        *named("A01"),
                    )
    return None


CONSTANTS = {
    "log 2": math.log(2),
    "log 10": math.log(10),
    "π/180": math.pi / 180,
    "2π": 2 * math.pi,
    "π": math.pi,
    "√(2π)": math.sqrt(2 * math.pi),
    "√(2/π)": math.sqrt(2 / math.pi),
}


def constant_of_mathematics(clues: Clues) -> Found | None:
    """Another base of the logarithm, degrees for radians, a π left out."""
    for pair in clues.main:
        k = factor(pair)
        for name, number in CONSTANTS.items():
            if k is not None and either_way([k], [number]):
                return Found(f"JAX's is {shown(k)} times PyTorch's: {name}, or 1 over", 4)
    return None


SIGNATURES = (
    catalogued("E04", half_of_the_square),
    catalogued("E05", huber_scale),
    Signature(
        "R03",
        "mean against sum, or a mean over other axes",
        "x.mean() on both sides, or x.sum() on both",
        mean_against_sum,
    ),
    Signature(
        "R27",
        "scaling by the root of a length",
        "divide by math.sqrt(x.shape[-1]) on both sides",
        root_of_length,
    ),
    Signature("R04", "the sign is turned", "negate on both sides, or on neither", sign),
    Signature(
        "R05",
        "a factor is left out, put in twice, or divides where it should multiply",
        "multiply by the same number on both sides",
        known_factor,
    ),
    Signature(
        "R31",
        "a moving average's bias correction is left out, or of another step",
        "m / (1 - b ** t) on both sides, with t = 1 at the first update",
        bias_correction,
    ),
    Signature(
        "R32",
        "another base of a logarithm, other units of an angle, or a constant left out",
        "jnp.log <-> torch.log, jnp.log2 <-> torch.log2, jnp.deg2rad <-> torch.deg2rad",
        constant_of_mathematics,
    ),
)
