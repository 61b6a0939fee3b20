"""One operation on both sides, and one operand of it that is another: a number, a step, a mask."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from parity.locate.evidence import Arrays, Seen
from parity.locate.kinds import kind_of
from parity.locate.signatures.clues import LITERAL, Clues, Found, Pair, Signature, lengths, rich
from parity.locate.signatures.functions import ACTIVATIONS
from parity.locate.signatures.reductions import PAIRINGS
from parity.locate.signatures.relations import (
    all_near,
    each_set,
    factors,
    is_right,
    is_wrong,
    near,
    shown,
    telling,
)


def another_number(clues: Clues) -> Found | None:
    """w = r·a/b: JAX's statement has the number a where PyTorch's has b."""
    for pair in clues.main:
        k = factors(pair)
        if not k or any(near(x, 1) or near(x, -1) for x in k):
            continue
        theirs = _numbers(pair.reference)
        ours = _written(clues, _numbers(pair.candidate))
        for a, b in product(sorted(ours - theirs), sorted(theirs - ours)):
            if all_near(k, [a / b] * len(k)):
                return Found(f"JAX's is {shown(k)} times PyTorch's: {a:g} for {b:g}", 6)
    return None


def _numbers(seen: Seen) -> set[float]:
    numbers = {float(n[0]) for v in seen.operands if len(n := np.unique(np.stack(v))) == 1}
    return (numbers | {float(text) for text in LITERAL.findall(seen.code)}) - {0.0, 1.0, -1.0}


def _written(clues: Clues, numbers: set[float]) -> set[float]:
    """Those of JAX's numbers that are written, and not computed."""
    ours = (clues.evidence.candidate, *clues.evidence.candidates, *clues.evidence.matched)
    constants = {float(s.values[0]) for s in ours if s.op == "constant" and not s.values[0].ndim}
    written = {abs(float(text)) for s in ours[:1] for text in LITERAL.findall(s.code)}
    return {n for n in numbers if n in constants or abs(n) in written}


def array_factor(clues: Clues) -> Found | None:
    """r = w·m for an array m at hand that is no mask: a weight is left out, or put in."""
    for pair in (*clues.main, *(p for p in clues.handed if not clues.main[0].wrong[0].ndim)):
        for m in clues.arrays if telling(pair) else ():
            if not rich(m) or any(np.ptp(a) == 0 for a in m if a.size):
                continue
            if _equal(m, pair.right) or _equal(m, pair.wrong):
                continue  # that is a square
            if is_right(pair, each_set(np.multiply, pair.wrong, m)):
                return Found(f"PyTorch's is JAX's times a value at hand {m[0].shape}", 5)
            if is_wrong(pair, each_set(np.multiply, pair.right, m)):
                return Found(f"JAX's is PyTorch's times a value at hand {m[0].shape}", 5)
    return None


def another_operand(clues: Clues) -> Found | None:
    """r = f(a, b) and w = f(a, c): the same operation, and another second operand."""
    for pair in clues.main if clues.evidence.reference is not None else ():
        if not telling(pair) and not _are_flags(pair):
            continue
        right = [*_made_by(pair, pair.reference, is_right)]
        wrong = [*_made_by(pair, pair.candidate, is_wrong)]
        for (name, a, b), (other, c, d) in product(right, wrong):
            if name != other:
                continue
            for shared, same, theirs, ours in (("first", (a, c), b, d), ("second", (b, d), a, c)):
                if _equal(*same) and not _equal(theirs, ours) and _vary(same[0]):
                    text = (
                        f"both are {name}(a, b) of the same {shared} operand; the other is "
                        f"{_said(theirs)} in PyTorch, {_said(ours)} in JAX"
                    )
                    whole = any(_is_length(clues, ours, n) for n, _ in lengths(clues))
                    single = not (theirs[0].ndim or ours[0].ndim or whole)
                    if single and not (_is_given(theirs) and _is_given(ours)):
                        continue
                    if single:
                        support = 6 if telling(pair) else 8  # of a comparison the ties tell little
                        return Found(text, support, "the same number on both sides", *NUMBER)
                    if name == "div" and whole and not theirs[0].ndim:
                        # Who counts padding too counts more.
                        counted = all(map(np.greater, ours, theirs))
                        return Found(text, 6, *(COUNTED if counted else MEAN))
                    return Found(text, 4)
    return None


def operand_of_a_function(clues: Clues) -> Found | None:
    """r = f(a) and w = f(b): the same function, of another value that both sides have.

    Of the functions that are one operation on both sides: tanh, sigmoid, exp, log, abs.
    """
    for pair in clues.main if clues.evidence.reference is not None else ():
        names = {kind_of(seen) for seen in pair[:2]}
        if len(names) > 1 or not telling(pair) or (name := names.pop()) not in ACTIVATIONS:
            continue
        [*theirs], [*ours] = (map(_floats, seen.operands) for seen in pair[:2])
        f = ACTIVATIONS[name]
        for a, b in product(theirs, ours):
            if not (len(a) == len(b) == len(pair.right)) or _equal(a, b):
                continue
            is_known = any(_equal(b, _floats(seen.values)) for seen in clues.evidence.matched)
            if is_known and is_right(pair, each_set(f, a)) and is_wrong(pair, each_set(f, b)):
                return Found(f"both are {name}, JAX's of a value that PyTorch has elsewhere", 5)
    return None


def _floats(values: Arrays) -> Arrays:
    return tuple(np.asarray(a, float) for a in values)


MEAN = (
    "x.mean() on both sides, over the same axes",
    "R03",
    "mean against sum, or a mean over other axes",
)
NUMBER = ("R42", "another number")
COUNTED = (
    "(x * mask).sum() / mask.sum() on both sides",
    "R13",
    "a sum is divided by all entries, not by those that count",
)


def _made_by(pair: Pair, seen: Seen, fits) -> Iterator[tuple[str, Arrays, Arrays]]:
    operands = [tuple(np.asarray(a, float) for a in v) for v in seen.operands[:3]]
    for a, b in product(operands, repeat=2):
        if a is not b and len(a) == len(b) == len(pair.right):
            for name, function in MADE_BY.items():
                if fits(pair, each_set(function, a, b)):
                    yield name, a, b


MADE_BY = {
    **{n: PAIRINGS[n] for n in ("sub", "div", "mul", "add", "matmul", "minimum", "maximum")},
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
"""What makes a value of two others."""


def _are_flags(pair: Pair) -> bool:
    return all(np.isin(v, (0.0, 1.0)).all() for v in (*pair.right, *pair.wrong))


def _equal(ours: Arrays, theirs: Arrays) -> bool:
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-12, atol=0)
        for a, b in zip(ours, theirs, strict=True)
    )


def _is_given(values: Arrays) -> bool:
    """Whether one number at each input set may have been written or given, and not computed.

    What is given moves from one set to the next by a share of itself (`parity.locate.search`).
    """
    first, second = float(values[0]), float(values[min(1, len(values) - 1)])
    step = abs(second - first)
    apart = [abs(float(x) - first - n * (second - first)) for n, x in enumerate(values)]
    return max(apart) <= 1e-9 * abs(first) + 1e-3 * step and (
        step == 0 or step > MOVED * abs(first)
    )


MOVED = 1e-3
"""The least share of itself by which a number that was given moves."""


def _vary(values: Arrays) -> bool:
    """Whether a value is more than one and the same number."""
    return rich(values)


def _is_length(clues: Clues, values: Arrays, n: tuple[int, ...]) -> bool:
    return all(not a.ndim and float(a) == m for a, m in zip(values, n, strict=True))


def _said(values: Arrays) -> str:
    if any(a.ndim for a in values):
        return f"an array {values[0].shape}"
    return shown([float(a) for a in values])


SIGNATURES = (
    Signature("R42", "another number", "the same number on both sides", another_number),
    Signature(
        "R44",
        "a weight is left out, or put in twice",
        "multiply by the same array on both sides",
        array_factor,
    ),
    Signature(
        "R43",
        "the same operation of another operand",
        "the same operands on both sides: state or next state, value or target",
        another_operand,
    ),
    Signature(
        "R43",
        "the same operation of another operand",
        "the same operands on both sides: the names of layers, and the order of what is unpacked",
        operand_of_a_function,
    ),
)
