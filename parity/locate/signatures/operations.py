"""What made the two values, and of what: a step that one side takes and the other does not.

Where numbers alone do not tell, zeros and flags among them, the operations and their operands do.
"""

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np

from parity.locate.evidence import Arrays, Seen
from parity.locate.signatures.clues import Clues, Found, Signature, rich
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import CLOSE
from parity.locate.signatures.sides import (
    NEAR,
    SIDES,
    Sides,
    alike,
    flags,
    floats,
    kind_of,
    number,
)


def mask_on_one_side(clues: Clues) -> Found | None:
    """where(m, x, c), or x & m, against x."""
    sides = Sides(clues)
    for one, other in sides.both_ways():
        for seen, plain in product(sides.lacking[one][:NEAR], sides.lacking[other][:1]):
            operands = seen.operands[:3]
            if not any(alike(x, plain.values) for x in operands) or alike(
                seen.values, plain.values
            ):
                continue
            others = [x for x in operands if not alike(x, plain.values)]
            narrowed = seen.op.split(".")[1 if "." in seen.op else 0].endswith("and")
            if narrowed and flags(plain.values):
                return Found(f"{SIDES[one]}'s is {SIDES[other]}'s flags and others", 8)
            masked = any(map(flags, others)) and any(number(x) is not None for x in others)
            if kind_of(seen) == "where" and masked:
                return Found(f"{SIDES[one]}'s is where(mask, x, a number), {SIDES[other]}'s x", 8)
    return None


def term_that_vanishes(clues: Clues) -> Found | None:
    """a + b against a + 0."""
    sides = Sides(clues)
    for one, other, full, empty in sides.firsts():
        if number(empty.values) != 0.0 or not rich(floats(full.values)):
            continue
        added = any(
            kind_of(s) in ("add", "sub") and any(alike(o, empty.values) for o in s.operands)
            for s in sides.lacking[other][1:]
        )
        if added:
            return Found(f"{SIDES[other]} adds 0 where {SIDES[one]} adds another value", 8)
    return None


def term_never_met(clues: Clues) -> Found | None:
    """f(x) + m against x, m a value that the other side goes nowhere near."""
    sides = Sides(clues)
    for one, other, seen, plain in sides.firsts():
        if kind_of(seen) not in ("add", "sub"):
            continue
        for a, m in permutations(seen.operands[:2], 2):
            used = [o for s in (*sides.lacking[other], *sides.known[other]) for o in s.operands]
            made = any(alike(m, s.values) for s in sides.lacking[one])
            met = made or any(alike(m, o) for o in used) or not rich(floats(m))
            if not met and _is_made_of(a, plain.values, sides.lacking[one]):
                return Found(f"{SIDES[one]} adds a value at hand that {SIDES[other]} never uses", 7)
    return None


def _is_made_of(value: Arrays, source: Arrays, seen: Sequence[Seen]) -> bool:
    """Whether a value is another, or one step away from it."""
    return alike(value, source) or any(
        alike(s.values, value) and any(alike(o, source) for o in s.operands) for s in seen
    )


def small_addition(clues: Clues) -> Found | None:
    """d + e against d, e above 0 and small beside d everywhere."""
    sides = Sides(clues)
    for one, other, seen, plain in sides.firsts():
        if kind_of(seen) != "add" or number(plain.values):
            continue
        for d, e in permutations(seen.operands[:2], 2):
            small = all(
                (b > 0).all() and (b < SMALL * np.abs(a)).all() for a, b in zip(d, e, strict=True)
            )
            if small and alike(d, plain.values):
                return Found(f"{SIDES[one]} adds a small number to what {SIDES[other]} has", 8)
    return None


SMALL = 1e-2
"""The largest share of a value that an epsilon is."""


def factor_that_vanishes(clues: Clues) -> Found | None:
    """x/d against x/1."""
    sides = Sides(clues)
    for one, other, full, empty in sides.firsts():
        used = any(
            kind_of(s) in ("mul", "div") and any(alike(o, full.values) for o in s.operands)
            for s in sides.lacking[one][1:]
        )
        made = bool(empty.operands)
        if number(empty.values) == 1.0 and made and used and rich(floats(full.values)):
            return Found(f"{SIDES[other]} has 1 where {SIDES[one]} scales by another value", 9)
    return None


def turned_operand(clues: Clues) -> Found | None:
    """f(a, -x) against f(a, x)."""
    sides = Sides(clues)
    for one, other in sides.both_ways():
        for seen in sides.lacking[one][:1]:
            for x in seen.operands[:3]:
                if not rich(floats(x)):
                    continue
                turned = tuple(-a for a in floats(x))
                near_by = (*sides.lacking[other], *sides.known[other])
                theirs = [o for s in near_by for o in (s.values, *s.operands)]
                if any(alike(turned, o) for o in theirs) and not any(alike(x, o) for o in theirs):
                    return Found(f"{SIDES[one]} uses what {SIDES[other]} uses, times -1", 6)
    return None


def mean_subtracted(clues: Clues) -> Found | None:
    """x - x̄ against x."""
    sides = Sides(clues)
    for one, other in sides.both_ways():
        near_by = (*sides.lacking[one], *sides.known[one])
        means = [s.values for s in near_by if _is_mean(s, near_by)]
        differences = [s for s in sides.lacking[one] if kind_of(s) == "sub"]
        for seen in differences if means else ():
            x, m = seen.operands[0], seen.operands[1]
            theirs = (*sides.lacking[other], *sides.known[other])
            used = any(alike(x, o) for s in theirs for o in (s.values, *s.operands))
            alone = not any(kind_of(s) == "sub" and alike(x, s.operands[0]) for s in theirs)
            if used and alone and any(alike(m, each) for each in means):
                return Found(
                    f"{SIDES[one]} subtracts a mean of what {SIDES[other]} has as it is", 8
                )
    return None


def _is_mean(seen: Seen, among: Sequence[Seen]) -> bool:
    """Whether a value is a mean, or a sum over a number."""
    if "mean" in seen.op:
        return True
    sums = [s.values for s in among if kind_of(s) == "sum"]
    return kind_of(seen) == "div" and any(alike(seen.operands[0], s) for s in sums)


def masked_by_product(clues: Clues) -> Found | None:
    """x·m is NaN where x is not finite and m is 0."""
    sides = Sides(clues)
    for one, _ in sides.both_ways():
        for seen in sides.lacking[one][:2]:
            broken = [np.isnan(np.asarray(a, float)) for a in seen.values]
            if kind_of(seen) != "mul" or not any(b.any() for b in broken):
                continue
            for x, m in permutations(seen.operands[:2], 2):
                if flags(m) and not flags(x) and not all(np.isfinite(a).all() for a in floats(x)):
                    return Found(f"{SIDES[one]}'s is a mask times what is not finite", 12)
    return None


def divided_by_powers(clues: Clues) -> Found | None:
    """x/γᵗ, which underflows, on one side alone."""
    sides = Sides(clues)
    for one, _ in sides.both_ways():
        for seen in sides.lacking[one]:
            by = seen.operands[1] if kind_of(seen) == "div" and len(seen.operands) > 1 else ()
            if by and all(_is_geometric(np.asarray(a, float)) for a in by):
                return Found(f"{SIDES[one]} divides by powers of one number, row by row", 6)
    return None


def _is_geometric(a: np.ndarray) -> bool:
    """Whether rows are 1, γ, γ², … of one γ below 1."""
    if a.ndim < 1 or len(a) < ROWS or not (a[0] == 1).all() or np.ptp(a[1]) > 0:
        return False
    ratio = float(np.ravel(a[1])[0])
    powers = ratio ** np.arange(len(a)).reshape(-1, *[1] * (a.ndim - 1))
    return 0 <= ratio < 1 and bool(np.allclose(a, powers, rtol=CLOSE, atol=0))


ROWS = 3


SIGNATURES = (
    Signature(
        "R24",
        "a mask is left out, put in twice, or inverted",
        "jnp.where(mask, x, 0) <-> torch.where(mask, x, 0), on both sides or on neither",
        mask_on_one_side,
    ),
    Signature(
        "R06",
        "a term is left out, or added twice",
        "add the same terms on both sides",
        term_that_vanishes,
    ),
    Signature(
        "R06",
        "a term is left out, or added twice",
        "add the same terms on both sides",
        term_never_met,
    ),
    Signature(
        "R18",
        "another epsilon, or none",
        "name the same epsilon on both sides, in the same place",
        small_addition,
    ),
    Signature(
        "R05",
        "a factor is left out, put in twice, or divides where it should multiply",
        "multiply by the same number on both sides",
        factor_that_vanishes,
    ),
    Signature("R04", "the sign is turned", "negate on both sides, or on neither", turned_operand),
    Signature(
        "R34",
        "a mean or baseline is subtracted on one side alone",
        "x - x.mean() on both sides, over the same axis",
        mean_subtracted,
    ),
    Signature(
        "R23",
        "masked by multiplication: 0 times NaN or infinity is NaN",
        "jnp.where(mask, x, 0), and a safe x inside for the gradient: not x * mask",
        masked_by_product,
    ),
    catalogued("G10", divided_by_powers),
)
