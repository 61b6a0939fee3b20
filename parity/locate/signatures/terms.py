"""One value is the other plus something known: a term left out, an epsilon, a constant."""

import math
import re

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.kinds import kind_of
from parity.locate.signatures.clues import Clues, Found, Pair, Signature, lengths, rich
from parity.locate.signatures.epsilons import epsilon_in
from parity.locate.signatures.names import catalogued, named
from parity.locate.signatures.relations import (
    all_near,
    excess,
    factor,
    factors,
    may_broadcast,
    near,
    offset,
    shown,
)
from parity.locate.signatures.sides import alike

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
DECAY = r"weight_decay|decay|adamw\b"
DAMPING = r"dampening|momentum|trace|ema"
ADAGRAD = r"adagrad|accum"


def normal_constant(clues: Clues) -> Found | None:
    """log N has −½·log 2π in each dimension, the entropy ½·log 2πe: k of them are missing."""
    counts = {1} | {n[0] for n, _ in lengths(clues) if len({*n}) == 1 and n[0] <= 1024}
    for pair in clues.pairs:
        c = offset(pair)
        if c is None:
            continue
        for unit, name in (
            (HALF_LOG_2PI, "½·log 2π"),
            (HALF_LOG_2PI + 0.5, "½·log 2πe"),
            (2 * HALF_LOG_2PI, "log 2π"),
        ):
            for count in sorted(counts):
                if near(abs(c), count * unit):
                    times = f"{count} times {name}" if count > 1 else name
                    return Found(f"PyTorch's less JAX's is {shown(c)} everywhere: {times}", 8)
    return None


def half_entropy(clues: Clues) -> Found | None:
    """The entropy ½ + ½·log 2π + log σ without its ½, in each of k dimensions."""
    counts = {1} | {n[0] for n, _ in lengths(clues) if len({*n}) == 1 and n[0] <= 1024}
    for pair in clues.main if clues.support("entropy|log_std") else ():
        c = offset(pair)
        if c is not None and any(near(abs(c), count / 2) for count in counts):
            return Found(f"PyTorch's less JAX's is {shown(c)} everywhere", 5)
    return None


def term(clues: Clues) -> Found | None:
    """r − w = ±m for a value m at hand, or c·m for a number c at hand."""
    for pair in clues.main:
        difference = excess(pair)
        if difference is None or not rich(difference):
            continue
        if _shares_a_factor(pair):
            continue  # another operand of the same product
        if factors(pair) and not (clues.says(DECAY) or clues.says(DAMPING)):
            continue  # what is a multiple of the other lacks no term
        summed = (tuple(a.sum(-1) for a in m) for m in clues.arrays)
        for m in (*clues.values, *summed):
            if _is(pair.right, m) or _is(pair.wrong, m) or not rich(m):
                continue
            c = _multiple(difference, m, pair)
            if c is None and (number := _moving(clues, difference, m, pair)):
                return number
            if c is None or not (near(abs(c), 1.0) or _known(clues, abs(c))):
                continue
            which = "left out of JAX's" if c > 0 else "added to JAX's"
            if near(abs(c), 2.0):
                which = "of the other sign in JAX's"
            is_bias = all(a.ndim == 1 and d.ndim > 1 for a, d in zip(m, difference, strict=True))
            shape = m[0].shape or "a scalar"
            text = f"PyTorch's less JAX's is {shown(c)} times a value at hand ({shape}): {which}"
            decay, damping = clues.says(DECAY), clues.says(DAMPING)
            if decay and not near(abs(c), 1.0):
                return Found(text, 3, *DECAYED)
            if damping and not near(abs(c), 1.0):
                return Found(text, 3, *DAMPENED)
            if is_bias:
                return Found(text, 7, *(CELL if clues.support("gru|lstm") else BIAS))
            return Found(text, 5 if near(abs(c), 1.0) else 3)
    return None


def _shares_a_factor(pair: Pair) -> bool:
    """Whether both are products, and of one factor the same."""
    ours, theirs = pair.candidate, pair.reference
    if not kind_of(ours) == kind_of(theirs) == "mul":
        return False
    return any(alike(a, b) for a in ours.operands[:2] for b in theirs.operands[:2])


FACTOR = (
    "multiply by the same number on both sides",
    "R05",
    "a factor is left out, put in twice, or divides where it should multiply",
)
DECAYED = named("A04")
DAMPENED = named("A08")
CELL = named("E15")
BIAS = (
    "add the bias: x @ kernel + bias, flax.linen.Dense(n, use_bias=True)",
    "R17",
    "a bias is left out, or added twice",
)


def centre(clues: Clues) -> Found | None:
    """r − w = ±mean(m): a mean or baseline that is subtracted on one side alone."""
    for pair in clues.main:
        difference = excess(pair)
        if difference is None:
            continue
        for m in clues.arrays:
            for axis in (None, *range(min(a.ndim for a in m))):
                means = tuple(np.asarray(a.mean(axis, keepdims=True)) for a in m)
                if max(a.size for a in m) < 2 or not rich(means):
                    continue
                c = _multiple(difference, means, pair)
                if c is not None and near(abs(c), 1.0):
                    which = "PyTorch's" if c < 0 else "JAX's"
                    return Found(f"a mean at hand (axis {axis}) is subtracted in {which} alone", 6)
    return None


def constant(clues: Clues) -> Found | None:
    """r − w = c, a number written in a statement or at hand."""
    for pair in clues.main:
        c = offset(pair)
        if c is None or pair.right[0].size < 2:
            continue
        if abs(c) <= 1e-3 and epsilon_in(pair, abs(c)):
            continue
        if _known(clues, abs(c)) or (near(abs(c), 1.0) and re.search(r"\b1\b", clues.text)):
            adagrad = near(abs(c), 0.1) and clues.support(ADAGRAD)
            return Found(
                f"PyTorch's less JAX's is {shown(c)} everywhere",
                3,
                *(ACCUMULATED if adagrad else ()),
            )
    return None


ACCUMULATED = named("A07")


def counter(clues: Clues) -> Found | None:
    """A whole number without axes that is one more, or one less: a count, a limit, a length."""
    evidence = clues.evidence
    pairs = [(evidence.reference, evidence.candidate)]
    pairs += [*zip(evidence.references[:1], evidence.candidates[:1], strict=False)]
    for reference, candidate in pairs:
        if reference is None or any(a.ndim for a in (*reference.values, *candidate.values)):
            continue
        right, wrong = ([float(a) for a in each.values] for each in (reference, candidate))
        whole = all(x == int(x) and abs(x) >= 2 for x in (*right, *wrong) if math.isfinite(x))
        if whole and {w - r for r, w in zip(right, wrong, strict=True)} in ({1.0}, {-1.0}):
            return Found(
                f"PyTorch's is {shown(right)}, JAX's {shown(wrong)}",
                6,
                "count alike: optax's schedules and Adam's t are one apart",
                title="a count that is one ahead or behind",
            )
    return None


def decay_default(clues: Clues) -> Found | None:
    """(1 − lr·1e-2)·p against (1 − lr·1e-4)·p, or lr·(1e-2 − 1e-4)·p between the steps."""
    rates = [n[0] for n in clues.numbers if len({*n}) == 1 and 0 < n[0] < 1]
    for pair in clues.pairs:
        k = factor(pair)
        difference = excess(pair)
        for rate in rates:
            kept = (1 - rate * 1e-4) / (1 - rate * 1e-2)
            hundred = k is not None and (near(k, 100.0) or near(k, 0.01)) and clues.says(DECAY)
            if k is not None and (near(k, kept) or hundred):
                return Found(f"JAX's is {shown(k)} times PyTorch's: weight decay 1e-4", 5)
            if difference is None or not clues.support(DECAY):
                continue
            for p in clues.arrays:
                c = _multiple(difference, p, pair)
                if c is not None and any(near(abs(c), 0.0099 * by) for by in (rate, 1.0)):
                    return Found(f"PyTorch's less JAX's is {shown(c)} times a parameter", 5)
    return None


def _is(values: Arrays, others: Arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(values, others, strict=True))


def _multiple(difference: Arrays, m: Arrays, pair: Pair) -> float | None:
    """The number that m is to be multiplied by to be the difference, at every input set."""
    if not may_broadcast(m, difference) or not all(np.isfinite(a).all() for a in m):
        return None
    wide = [np.broadcast_to(a, d.shape) for a, d in zip(m, difference, strict=True)]
    size = sum(float((a * a).sum()) for a in wide)
    if not size:
        return None
    c = sum(float((a * d).sum()) for a, d in zip(wide, difference, strict=True)) / size
    for a, d, right in zip(wide, difference, pair.right, strict=True):
        rounding = 2.0**-48 * max(float(np.abs(right).max()), float(np.abs(d).max()))
        if not (np.abs(d - c * a) <= 1e-9 * np.abs(d).max() + rounding).all():
            return None
    return c if c else None


def _moving(clues: Clues, difference: Arrays, m: Arrays, pair: Pair) -> Found | None:
    """The same where the number is another at each input set: a number that is given."""
    each = [
        _multiple((d,), (a,), pair._replace(right=(r,)))
        for d, a, r in zip(difference, m, pair.right, strict=True)
    ]
    found = tuple(c for c in each if c is not None)
    if len(found) < len(each) or len({*found}) < 2:
        return None
    text = f"PyTorch's less JAX's is {shown(found)} times a value at hand"
    for number in clues.numbers:
        if all_near([abs(c) for c in found], [abs(x) for x in number]):
            return Found(f"{text}: a number at hand", 4)
        if all_near([abs(c) for c in found], [abs(1 - x) for x in number]):
            return Found(f"{text}: 1 less {shown(number)}", 5, *FACTOR)
    return None


def _known(clues: Clues, c: float) -> bool:
    numbers = [n[0] for n in clues.numbers if len({*n}) == 1]
    trivial = (0.0, 1.0)
    alone = any(x not in trivial and (near(c, abs(x)) or near(c, abs(1 - x))) for x in numbers)
    return alone or any(x < y and near(c, y - x) for x in numbers for y in numbers)


SIGNATURES = (
    Signature(
        "R19",
        "a normal distribution's constant is left out",
        "-0.5 * z * z - log_std - 0.5 * math.log(2 * math.pi), in each dimension",
        normal_constant,
    ),
    Signature(
        "R33",
        "the entropy of a normal distribution without its 1/2",
        "0.5 + 0.5 * math.log(2 * math.pi) + log_std, in each dimension",
        half_entropy,
    ),
    catalogued("A03", decay_default),
    Signature(
        "R06",
        "a term is left out, or added twice",
        "add the same terms on both sides",
        term,
    ),
    Signature(
        "R34",
        "a mean or baseline is subtracted on one side alone",
        "x - x.mean() on both sides, over the same axis",
        centre,
    ),
    Signature(
        "R35",
        "a count that is one ahead or behind",
        "count alike on both sides",
        counter,
    ),
    Signature(
        "R35",
        "a constant is added on one side alone",
        "add it on both sides",
        constant,
    ),
)
