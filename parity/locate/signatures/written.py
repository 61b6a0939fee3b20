"""Numbers that are written, or counted: another one beside the same operand."""

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np

from parity.locate.evidence import Seen
from parity.locate.signatures.clues import Clues, Found, Signature
from parity.locate.signatures.relations import factors, near, shown
from parity.locate.signatures.sides import Sides, alike, kind_of, with_a_number

IDLE = {"mul": 1.0, "div": 1.0, "power": 1.0, "add": 0.0, "sub": 0.0}
"""By kind of operation: the number with which it changes nothing."""


def number_beside_the_same(clues: Clues) -> Found | None:
    """x·c against x·d, or against x·1, which does nothing and so has a partner."""
    sides, num_sets = Sides(clues), len(clues.evidence.candidate.values)
    for one, other in sides.both_ways():
        for seen in sides.lacking[one][:2]:
            kind = kind_of(seen)
            for x, c in with_a_number(seen) if kind in IDLE else ():
                theirs = {
                    d
                    for s in (*sides.lacking[other], *sides.known[other])
                    if kind_of(s) == kind
                    for y, d in with_a_number(s)
                    if alike(x, y)
                }
                counted = kind == "div" and all(
                    n > 1 and float(n).is_integer() for n in (c, *theirs)
                )
                ours = theirs if one == 0 else {c}
                made = any((n,) * num_sets in clues.computed for n in ours)
                if not theirs or counted or made or any(near(c, d) for d in theirs):
                    continue
                d = min(theirs)
                numbers = (c, d) if one == 0 else (d, c)
                text = "both have {}(x, a number) of the same x: {} in PyTorch, {} in JAX"
                text = text.format(kind, *map(shown, numbers))
                weights = [n[0] for n in clues.numbers]
                averaged = any(near(w, 1 - c) for w in weights) and kind == "mul" and 0 < c < 1
                if averaged and any(near(w, 1 - d) for w in weights):
                    return Found(text, 8, *AVERAGED)
                return Found(text, 8)
    return None


AVERAGED = (
    "decay * old + (1 - decay) * new on both sides",
    "R30",
    "the weights of old and new are exchanged, or others",
)


TRANSFORMS = {"x": lambda x: x, "x²": np.square, "√x": np.sqrt, "-x": np.negative}


def another_threshold(clues: Clues) -> Found | None:
    """x < c against x² < d, d other than c²."""
    theirs, ours = (
        [each for each in (*lacking, *known) if kind_of(each) == "order"]
        for lacking, known in zip(Sides(clues).lacking, Sides(clues).known, strict=True)
    )
    for reference, candidate in product(theirs, ours):
        for (x, c), (y, d) in product(with_a_number(reference), with_a_number(candidate)):
            for name, transform in TRANSFORMS.items():
                with np.errstate(all="ignore"):
                    same = alike(tuple(transform(np.asarray(a, float)) for a in x), y)
                    bound = float(transform(c))
                if same and not near(bound, d):
                    text = f"both compare x: with {shown(c)} in PyTorch, in JAX {name} with"
                    return Found(f"{text} {shown(d)}", 9)
    return None


def count_one_off(clues: Clues) -> Found | None:
    """f(n) against f(n + 1) for a whole number n that JAX has at hand."""
    for pair in clues.main:
        k = factors(pair)
        if not k or any(near(x, 1) for x in k):
            continue
        for seen in (clues.evidence.candidate, *clues.evidence.candidates):
            if kind_of(seen) not in FORMULAS or not are_single(seen.values):
                continue
            for step, turn in product((1, -1), (1, -1)):
                for moved, text in _moved(seen, step):
                    ratios = (
                        np.asarray(v).item() / m for v, m in zip(seen.values, moved, strict=True)
                    )
                    if all(near(x, r**turn) for x, r in zip(k, ratios, strict=True)):
                        return Found(f"with {text} JAX's would be PyTorch's", 8)
    return None


def are_single(values: Iterable[np.ndarray]) -> bool:
    """Whether each is one real number, of whatever shape."""
    return all(np.size(a) == 1 and np.isrealobj(a) for a in values)


FORMULAS = {"div": np.divide, "mul": np.multiply, "add": np.add, "sub": np.subtract}


def _moved(seen: Seen, step: int) -> Iterator[tuple[list[float], str]]:
    """What one operation would make if a whole number that it is given were one more, or less."""
    if len(seen.operands) != 2:
        return
    given = [[np.asarray(a).item() for a in x] for x in seen.operands if are_single(x)]
    for place in range(len(given)) if len(given) == 2 else ():
        n = given[place]
        if not all(float(x).is_integer() and x > 1 for x in n):
            continue
        changed = [*given]
        changed[place] = [x + step for x in n]
        with np.errstate(all="ignore"):
            made = [
                float(FORMULAS[kind_of(seen) or ""](a, b)) for a, b in zip(*changed, strict=True)
            ]
        if all(np.isfinite(made)) and all(made):
            yield made, f"{shown(changed[place])} for {shown(n)}"


SIGNATURES = (
    Signature("R42", "another number", "the same number on both sides", number_beside_the_same),
    Signature("R42", "another number", "the same number on both sides", another_threshold),
    Signature(
        "R35",
        "a count that is one ahead or behind",
        "count alike: optax's schedules and Adam's t are one apart",
        count_one_off,
    ),
)
