"""When two numbers are the same: the rule, free of any framework.

A *reference* and a *candidate* are functions from named NumPy arrays to named NumPy arrays that
compute in the precision of the floating arrays they are given. No tolerance is chosen by hand:
how far the two may part is measured on the reference.

**The yardstick.** For a unit roundoff u, Y(u) of one output array is the largest of

  (a) `inputs`: the float64 reference's response to 8 draws of relative ±u on every floating input
      array. Zeros move by ±u times the array's largest magnitude, or times 1 if all are zero.
      Masks, integers and plain Python numbers do not move, nor do entries that are not finite.
  (b) `terms`: for a scalar output, u · Σ |x · ∂f/∂x| over all inputs.
  (c) `float32`: E · u / 2⁻²⁴, E the largest error of the reference's own float32 run against
      float64, over the inputs and the 8 nudged ones.
  (d) `rounding`: D · u / 2⁻⁵², D the largest response of the float64 reference to rounding its own
      operations otherwise (`parity.sides.torch_roundings`): each operation's result moved to a
      neighbouring number (8 draws), and the processor rounding up, down and towards zero. Either
      puts an operation off by up to 2⁻⁵², twice what rounding to nearest can. An error beyond all
      this, but by 16 times at most, is answered with further draws, up to 64 (where the reference
      is at hand; not by what a recording holds, nor for the margin of a decision).

1. **Meaning, in float64 (the gate):** max|a − b| ≤ max(1e-11 · max|ref|, 16 · Y(2⁻⁵³)).
2. **Rounding, in float32:** the candidate's error against the float64 reference is at most
   16 · max(Y(2⁻²⁴), 2⁻²³ · max|ref|). Inputs are rounded to float32 first, for every side.

Why (d). The terms (a) to (c) see how much an answer depends on its inputs and how the reference
fares in float32; they do not see a float64 rounding that happens *on the way* and that no input
can cause. The entropy of the logits (0, −37) is 3e-15. Part of it is p log p of the certain action,
where log p = −log(1 + 9e-17): in float64 that is 0 or −2.2e-16, depending on the order of the
additions and the direction of one rounding. Two right programs part by 7 %. Moving the logits
moves the entropy by 1e-29, and the float32 error (all of 9e-17), scaled by 2⁻²⁹, is nothing: it
does not shrink with u there. The slope 1 − tanh² of a saturated tanh is of the same kind. So the
operations themselves are rounded otherwise: their results, which any operation may have off by u,
and by the processor (Kahan), which reaches the additions inside a fused one. What a computation
does not round can't respond. A function that relies on rounding to nearest, and is off by more than
roundings if the processor rounds down, is taken as it is to nearest (`parity.directed`).

Why further draws. Where an answer is made of few operations' roundings, few draws may miss what
they can do. In a run whose policy had saturated, the gradient was made of slopes 1 − tanh² of which
few digits are left: 64 draws moved its norm three times as far as the first 8
(`benchmarks.draws`), and of 50,463 updates four were beyond what 8 allow, by up to 2.1 times.

Why the float32 runs flush subnormals. XLA on a CPU takes numbers below 2⁻¹²⁶ for zero, PyTorch by
default does not. A candidate can't be asked to keep what its arithmetic lacks, so the reference's
own float32 runs are made with the same arithmetic (`parity.sides` does so) and E contains the
flush.

**Jumps.** An entry at which the reference moves as far for an ulp of float64 as for one of float32
stands on a kink, a tie or a bound. That is no rounding; counted in (a), it would allow anything to
its whole array. Such entries are left out of (a). For the same reason (d) moves no result of an
operation that selects and computes nothing (a maximum, a clip, relu). An entry at which a rounding
*on the way* decides (a floor of what comes out at a whole number, or just below it) is left out of
(d): it responds to operations rounded as float64 does as far as to ones rounded as float32. A right
program may fall on either side there, so that this entry alone may be what it is in any of these
runs, or between; such ties are counted.

**Discrete outputs** agree if equal, or if in the reference the deciding margin is within the bound
of the values that decide; these ties are counted. **Anything not finite** fails on either side,
unless it is expected and in the same places. Names, shapes and floating dtypes must be equal;
integers compare by value whatever their width.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from parity.arrays import (
    Arrays,
    cast,
    entries_that_stay,
    is_floating,
    nudge,
)
from parity.judge import Judge
from parity.rounded_runs import MOST_NUDGES, NUM_NUDGES, Roundings
from parity.verdicts import Comparison, Mismatch, Verdict
from parity.yardstick import (
    FLOAT32_SCALE,
    GATE,
    SLACK,
    UNIT_ROUNDOFF,
    Bound,
    Function,
    Sensitivity,
    Yardstick,
)

__all__ = [
    "FLOAT32_SCALE",
    "GATE",
    "MOST_NUDGES",
    "NUM_NUDGES",
    "SLACK",
    "UNIT_ROUNDOFF",
    "Arrays",
    "Bound",
    "Comparison",
    "Decider",
    "Function",
    "Mismatch",
    "Roundings",
    "Sensitivity",
    "Verdict",
    "Yardstick",
    "cast",
    "compare",
    "nudge",
]
"""The rule, and what it is made of: the parts live in `arrays`, `yardstick` and `verdicts`."""


class Decider(NamedTuple):
    """What a discrete output is decided by, in the reference.

    `values` maps the inputs to one array: of the output's shape and a last axis more, scores whose
    largest wins; of the output's shape, the distance to a threshold.
    """

    values: Function
    roundings: Roundings | None = None


def compare(
    reference: Function,
    candidate: Function,
    inputs: Arrays,
    *,
    stage: str = "",
    oracle: Function | None = None,
    sensitivity: Sensitivity | None = None,
    roundings: Roundings | None = None,
    deciders: Mapping[str, Decider] | None = None,
    expect_nonfinite: Collection[str] = (),
    padding: Mapping[str, np.ndarray] | None = None,
    exact_zeros: Collection[str] = (),
    precisions: Collection[str] = ("float64", "float32"),
) -> Comparison:
    """Holds the candidate against the reference, and the reference against the oracle.

    Args:
        reference: The side that sets the yardstick.
        candidate: The side that is judged.
        inputs: Arrays by name. If float32 is among the precisions, floating arrays are rounded to
            it first, so that all sides and precisions start from the same numbers.
        stage: A name for the report.
        oracle: A third opinion, in float64. The reference is held against it by the gate.
        sensitivity: Gives term (b), for scalar outputs. Without it the rule is stricter.
        roundings: Gives term (d). Without it the rule is stricter.
        deciders: What decides a discrete output, by its name.
        expect_nonfinite: Outputs that may hold values which are not finite, in the same places.
        padding: For an input, where it is padding: true entries are no data, so that they neither
            move nor count as a magnitude.
        exact_zeros: Inputs whose zeros are no result of rounding and do not move, such as an
            optimizer's fresh moments or the gradient of a dead unit. `m` stands for `m/…` too.
        precisions: `"float64"`, `"float32"` or both.
    """
    if "float32" in precisions:
        inputs = cast(cast(inputs, np.float32), np.float64)
    still = {
        name: entries_that_stay(name, array, padding or {}, exact_zeros)
        for name, array in inputs.items()
        if is_floating(array)
    }
    yardstick = Yardstick(reference, inputs, still, sensitivity, roundings)
    decided_by = {
        leaf: Yardstick(decider.values, inputs, still, None, decider.roundings)
        for leaf, decider in (deciders or {}).items()
    }
    judge = Judge(stage, expect_nonfinite, decided_by)
    oracle_outputs = None if oracle is None else oracle(cast(inputs, np.float64))
    for dtype in precisions:
        found = candidate(cast(inputs, np.dtype(dtype).type))
        judge.hold("candidate", found, yardstick, dtype, oracle_outputs)
    if oracle_outputs is not None:
        judge.hold("reference", oracle_outputs, yardstick, "float64", oracle_outputs)
    return Comparison(stage, judge.mismatches, judge.verdicts)
