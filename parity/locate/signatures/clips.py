"""Clips that one side alone has, and norms that they go by."""

from itertools import permutations

import numpy as np

from parity.locate.evidence import Arrays, Seen
from parity.locate.signatures.clues import Clues, Found, Signature
from parity.locate.signatures.relations import shown
from parity.locate.signatures.sides import NEAR, SIDES, Sides, alike, kind_of, number, with_a_number


def clamp_on_one_side(clues: Clues) -> Found | None:
    """f(min(x, c)) against f(x), c other than 0."""
    sides = Sides(clues)
    for one, other in sides.both_ways():
        theirs, ours = sides.used(other), sides.used(one)
        for seen in (*sides.lacking[one], *sides.known[one]):
            if kind_of(seen) not in CLAMPS or not any(alike(seen.values, v) for v in ours):
                continue
            for x, bound in with_a_number(seen):
                clamped = any(
                    kind_of(s) == kind_of(seen) and any(alike(x, o) for o in s.operands)
                    for s in (*sides.lacking[other], *sides.known[other])
                )
                same = alike(x, seen.values)
                if bound and not clamped and not same and any(alike(x, v) for v in theirs):
                    return Found(f"{SIDES[one]}'s is clamped at {shown(bound)}", 9)
    return None


CLAMPS = ("larger", "smaller")


def clipped_entry_by_entry(clues: Clues) -> Found | None:
    """min(c, g) of each entry against g times a number that is computed."""
    sides = Sides(clues)
    for one, other in sides.both_ways():
        for seen in sides.lacking[one][:NEAR]:
            if kind_of(seen) not in CLAMPS:
                continue
            for x, bound in with_a_number(seen):
                if bound and any(
                    _is_scaled(s, x) for s in sides.lacking[other] if kind_of(s) == "mul"
                ):
                    text = f"{SIDES[one]} clips each entry at {shown(bound)}, {SIDES[other]} scales"
                    return Found(f"{text} all by one number", 8)
    return None


def _is_scaled(seen: Seen, x: Arrays) -> bool:
    """Whether this is x times a number that depends on the inputs."""
    return x[0].size > 1 and any(
        alike(a, x) and all(np.size(s) == 1 for s in b) and number(b) is None
        for a, b in permutations(seen.operands[:2], 2)
    )


def another_norm(clues: Clues) -> Found | None:
    """max|x| or Σ|x| against √Σx²."""
    sides = Sides(clues)
    orders = {
        n
        for seen in sides.lacking[0]
        if "norm" in seen.op
        for x in seen.operands[1:]
        if (n := number(x)) is not None
    }
    squares = any("square" in s.op or kind_of(s) == "power" for s in sides.lacking[1][: 2 * NEAR])
    if squares and orders and 2.0 not in orders:
        return Found(f"PyTorch's norm is of order {shown(min(orders))}, JAX's the root of Σx²", 8)
    return None


SIGNATURES = (
    Signature(
        "R15",
        "a clip is left out, or put in",
        "jnp.clip(x, lo, hi) <-> torch.clamp(x, lo, hi)",
        clamp_on_one_side,
    ),
    Signature(
        "R29",
        "clipped entry by entry instead of by norm",
        "optax.clip_by_global_norm(c) <-> clip_grad_norm_, optax.clip(c) <-> clip_grad_value_",
        clipped_entry_by_entry,
    ),
    Signature("R08", "another norm", "the same order of the norm on both sides", another_norm),
)
