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
      puts an operation off by up to 2⁻⁵², twice what rounding to nearest can.

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
does not round can't respond.

Why the float32 runs flush subnormals. XLA on a CPU takes numbers below 2⁻¹²⁶ for zero, PyTorch by
default does not. A candidate can't be asked to keep what its arithmetic lacks, so the reference's
own float32 runs are made with the same arithmetic (`parity.sides` does so) and E contains the
flush.

**Discrete outputs** agree if equal, or if in the reference the deciding margin is within the bound
of the values that decide; these ties are counted. **Anything not finite** fails on either side,
unless it is expected and in the same places. Names, shapes and floating dtypes must be equal;
integers compare by value whatever their width.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

Arrays = Mapping[str, Any]
"""Arrays by name. What is no NumPy array (a Python number, a string) is a hyperparameter."""
Function = Callable[[Arrays], Mapping[str, np.ndarray]]
Roundings = Callable[[Arrays], Iterable[Mapping[str, np.ndarray]]]
"""Inputs to the reference's float64 outputs of runs whose operations round otherwise."""
Sensitivity = Callable[[Arrays], Mapping[str, Mapping[str, np.ndarray]]]
"""Inputs to `{scalar output: {input: ∂output/∂input}}`, in float64."""

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24}
GATE = 1e-11
"""The gate's share of max|ref|: far above what float64 rounds, far below any change of meaning."""
FLOAT32_SCALE = 2.0**-23
SLACK = 16
"""Two right programs round differently: what one draw shows is allowed this many times."""
NUM_NUDGES = 8


class Mismatch(NamedTuple):
    """One output array in which two sides part, at the entry where they part most.

    `reference`, `candidate` and `oracle` are the values there, or a sentence where the arrays
    can't be compared. Where reference and candidate agree but the oracle does not, `error` is the
    reference's distance from the oracle.
    """

    stage: str
    leaf: str
    index: tuple[int, ...]  # pyright: ignore[reportIncompatibleMethodOverride]
    reference: Any
    candidate: Any
    oracle: Any
    error: float
    bound: float
    dtype: str

    def __str__(self) -> str:
        oracle = "" if self.oracle is None else f", oracle {self.oracle}"
        return (
            f"{self.stage}: {self.leaf}{list(self.index)} in {self.dtype}: reference "
            f"{self.reference}, candidate {self.candidate}{oracle}; "
            f"error {self.error:.3g}, bound {self.bound:.3g}"
        )


class Verdict(NamedTuple):
    """How one output array was judged.

    `term` is what gave the bound: `scale` (the share of max|ref|), one of the yardstick's
    `inputs`, `terms`, `float32`, `rounding`, `exact` for discrete values, or `form` where names,
    shapes or dtypes differ or a value is not finite. `side` is `candidate`, or `reference` where
    the reference was held against the oracle. `reference_error` is the reference's own float32
    error: shown, not judged.
    """

    leaf: str
    dtype: str
    side: str
    error: float
    bound: float
    term: str
    ties: int = 0
    reference_error: float | None = None


class Comparison(NamedTuple):
    """All verdicts of a stage, and the mismatches among them."""

    stage: str
    mismatches: list[Mismatch]
    verdicts: list[Verdict]

    @property
    def ok(self) -> bool:
        """Whether everything agreed, and anything was compared at all."""
        return bool(self.verdicts) and not self.mismatches

    @property
    def ties(self) -> int:
        """Discrete values that differ where the margin is within rounding."""
        return sum(verdict.ties for verdict in self.verdicts)

    def assert_ok(self) -> None:
        """Raises an `AssertionError` that names every mismatch."""
        if not self.ok:
            raise AssertionError("\n".join(map(str, self.mismatches)) or f"{self.stage}: no output")


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
        name: _still(name, array, padding or {}, exact_zeros)
        for name, array in inputs.items()
        if _is_floating(array)
    }
    yardstick = Yardstick(reference, inputs, still, sensitivity, roundings)
    decided_by = {
        leaf: Yardstick(decider.values, inputs, still, None, decider.roundings)
        for leaf, decider in (deciders or {}).items()
    }
    judge = _Judge(stage, expect_nonfinite, decided_by)
    oracle_outputs = None if oracle is None else oracle(cast(inputs, np.float64))
    for dtype in precisions:
        found = candidate(cast(inputs, np.dtype(dtype).type))
        judge.hold("candidate", found, yardstick, dtype, oracle_outputs)
    if oracle_outputs is not None:
        judge.hold("reference", oracle_outputs, yardstick, "float64", oracle_outputs)
    return Comparison(stage, judge.mismatches, judge.verdicts)


class Bound(NamedTuple):
    """How far an array may be off, and which term says so."""

    value: float
    term: str


class Yardstick:
    """What rounding is worth to one reference at one set of inputs, measured when it is needed."""

    def __init__(
        self,
        reference: Function,
        inputs: Arrays,
        still: Mapping[str, np.ndarray],
        sensitivity: Sensitivity | None = None,
        roundings: Roundings | None = None,
    ) -> None:
        self._reference = reference
        self._inputs = cast(inputs, np.float64)
        self._still = still
        self._sensitivity = sensitivity
        self._roundings = roundings

    def _run(self, inputs: Arrays, dtype: type = np.float64) -> dict[str, np.ndarray]:
        return _outputs(self._reference(cast(inputs, dtype)))

    @cached_property
    def exact(self) -> dict[str, np.ndarray]:
        """The float64 reference's outputs."""
        return self._run(self._inputs)

    @cached_property
    def single(self) -> dict[str, np.ndarray]:
        """The outputs of the reference's own float32 run."""
        return self._run(self._inputs, np.float32)

    def outputs(self, dtype: str) -> dict[str, np.ndarray]:
        """The reference's outputs in one precision."""
        return self.exact if dtype == "float64" else self.single

    def scale_bound(self, leaf: str, dtype: str) -> Bound:
        """The share of max|ref| that is allowed to any array; cheap, and nearly always enough."""
        share = GATE if dtype == "float64" else SLACK * FLOAT32_SCALE
        return Bound(share * _largest(self.exact[leaf]), "scale")

    def bound(self, leaf: str, dtype: str) -> Bound:
        """The rule's bound on one output array."""
        measured = [Bound(SLACK * size, term) for term, size in self.terms(leaf, dtype).items()]
        return max([self.scale_bound(leaf, dtype), *measured], key=lambda bound: bound.value)

    def terms(self, leaf: str, dtype: str) -> dict[str, float]:
        """The terms of Y(u) of one output array, by name."""
        u = UNIT_ROUNDOFF[dtype]
        terms = {
            "inputs": self._response(dtype).get(leaf, 0.0),
            "float32": self._single_error.get(leaf, 0.0) * u / UNIT_ROUNDOFF["float32"],
            "rounding": self._rounding_response.get(leaf, 0.0) * u / (2 * UNIT_ROUNDOFF["float64"]),
        }
        if self._sensitivity is not None and self.exact[leaf].ndim == 0:
            terms["terms"] = u * self._sum_of_terms.get(leaf, 0.0)
        return terms

    def _nudged(self, dtype: str) -> Iterator[Arrays]:
        for draw in range(NUM_NUDGES):
            yield nudge(
                self._inputs, UNIT_ROUNDOFF[dtype], np.random.default_rng(draw), self._still
            )

    def _response(self, dtype: str) -> dict[str, float]:
        return self._double_response if dtype == "float64" else self._single_response

    @cached_property
    def _double_response(self) -> dict[str, float]:
        return _largest_differences((self._run(x), self.exact) for x in self._nudged("float64"))

    @cached_property
    def _single_response(self) -> dict[str, float]:
        return _largest_differences((self._run(x), self.exact) for x in self._nudged("float32"))

    @cached_property
    def _single_error(self) -> dict[str, float]:
        points = [self._inputs, *self._nudged("float32")]
        rounded = [cast(point, np.float32) for point in points]
        return _largest_differences((self._run(x, np.float32), self._run(x)) for x in rounded)

    @cached_property
    def _rounding_response(self) -> dict[str, float]:
        runs = self._roundings(cast(self._inputs, np.float64)) if self._roundings else ()
        return _largest_differences((run, self.exact) for run in runs)

    @cached_property
    def _sum_of_terms(self) -> dict[str, float]:
        if self._sensitivity is None:
            return {}
        slopes = self._sensitivity(self._inputs)
        return {
            leaf: sum(_sum_of_products(self._inputs[name], slope) for name, slope in by.items())
            for leaf, by in slopes.items()
        }


class _Judge:
    """Collects verdicts and mismatches of one stage."""

    def __init__(
        self, stage: str, expect_nonfinite: Collection[str], decided_by: Mapping[str, Yardstick]
    ) -> None:
        self.mismatches: list[Mismatch] = []
        self.verdicts: list[Verdict] = []
        self._stage = stage
        self._expect_nonfinite = expect_nonfinite
        self._decided_by = decided_by

    def hold(
        self,
        side: str,
        found: Mapping[str, np.ndarray],
        yardstick: Yardstick,
        dtype: str,
        oracle: Mapping[str, np.ndarray] | None,
    ) -> None:
        """Judges one side's outputs in one precision."""
        found, model = _outputs(found), yardstick.outputs(dtype)
        # In the order of the reference, so that of its stages the first that parts comes first.
        for leaf in {**model, **found}:
            if complaint := _difference_in_form(model.get(leaf), found.get(leaf)):
                self._report(side, leaf, dtype, (), *complaint, None, Bound(0.0, "form"), math.inf)
                continue
            opinion = None if oracle is None else _outputs(oracle).get(leaf)
            if opinion is not None and opinion.shape != model[leaf].shape:
                opinion = None
            self._hold_leaf(side, leaf, dtype, found[leaf], yardstick, opinion)

    def _hold_leaf(
        self,
        side: str,
        leaf: str,
        dtype: str,
        found: np.ndarray,
        yardstick: Yardstick,
        oracle: np.ndarray | None,
    ) -> None:
        exact = yardstick.exact[leaf]
        if not np.issubdtype(exact.dtype, np.floating):
            self._hold_discrete(side, leaf, dtype, found, exact, oracle)
            return
        error, reference_error = np.abs(_minus(found, exact)), None
        finite = np.isfinite(found) & np.isfinite(exact)
        if dtype == "float32":
            single = yardstick.single[leaf]
            finite &= np.isfinite(single)
            reference_error = _largest(_minus(single, exact))
        if leaf in self._expect_nonfinite:
            expected = _same_nonfinite(found, exact)
            error = np.where(expected, 0.0, error)
            finite |= expected
        if not finite.all():
            at = _first(~finite)
            values = (_at(exact, at), _at(found, at), _at(oracle, at))
            self._report(side, leaf, dtype, at, *values, Bound(0.0, "form"), math.inf)
            return
        worst = float(error.max(initial=0.0))
        bound = yardstick.scale_bound(leaf, dtype)
        if not worst <= bound.value:
            bound = yardstick.bound(leaf, dtype)
        agreed = worst <= bound.value and math.isfinite(bound.value)
        if agreed:
            self.verdicts.append(
                Verdict(leaf, dtype, side, worst, *bound, reference_error=reference_error)
            )
        else:
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
            values = (_at(exact, at), _at(found, at), _at(oracle, at))
            self._report(side, leaf, dtype, at, *values, bound, worst, reference_error)

    def _hold_discrete(
        self,
        side: str,
        leaf: str,
        dtype: str,
        found: np.ndarray,
        exact: np.ndarray,
        oracle: np.ndarray | None,
    ) -> None:
        differs = np.asarray(found != exact)
        margin, bound = np.full(differs.shape, math.inf), Bound(0.0, "exact")
        if differs.any() and leaf in self._decided_by:
            decided_by = self._decided_by[leaf]
            (name, values), *_ = decided_by.exact.items()
            bound = decided_by.bound(name, dtype)
            margin = _margin(values, exact, found)
        wrong = differs & ~(margin <= bound.value)
        if not wrong.any():
            error = float(margin[differs].max()) if differs.any() else 0.0
            self.verdicts.append(Verdict(leaf, dtype, side, error, *bound, ties=int(differs.sum())))
            return
        at = _first(wrong)
        values = (_at(exact, at), _at(found, at), _at(oracle, at))
        self._report(side, leaf, dtype, at, *values, bound, float(margin[at]))

    def _report(
        self,
        side: str,
        leaf: str,
        dtype: str,
        at: tuple[int, ...],
        reference: Any,
        found: Any,
        oracle: Any,
        bound: Bound,
        error: float,
        reference_error: float | None = None,
    ) -> None:
        """Notes a mismatch. Of the reference with the oracle, `found` is the oracle's value."""
        verdict = Verdict(leaf, dtype, side, error, *bound, reference_error=reference_error)
        self.verdicts.append(verdict)
        candidate = found
        if side == "reference":
            candidate, oracle = reference, found
        mismatch = Mismatch(
            self._stage, leaf, at, reference, candidate, oracle, error, bound.value, dtype
        )
        self.mismatches.append(mismatch)


# --- moving inputs -------------------------------------------------------------------------------


def cast(inputs: Arrays, dtype: type) -> dict[str, Any]:
    """A copy of the inputs with every floating array in `dtype`; what it lacks becomes infinite."""
    with np.errstate(over="ignore"):
        return {
            name: array.astype(dtype) if _is_floating(array) else _copy(array)
            for name, array in inputs.items()
        }


def nudge(
    inputs: Arrays,
    u: float,
    rng: np.random.Generator,
    still: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """One draw of relative ±u on every floating array; `still` marks entries that stay."""
    return {
        name: _nudge_array(array, u, rng, (still or {}).get(name))
        if _is_floating(array)
        else _copy(array)
        for name, array in inputs.items()
    }


def _nudge_array(
    array: np.ndarray, u: float, rng: np.random.Generator, still: np.ndarray | None
) -> np.ndarray:
    still = ~np.isfinite(array) if still is None else still
    sign = rng.choice((-1.0, 1.0), size=array.shape)
    magnitude = np.abs(np.where(still, 0.0, array))
    largest = float(magnitude.max(initial=0.0)) or 1.0
    # What is huge stays finite: the largest float64 has no neighbour above it.
    with np.errstate(over="ignore"):
        moved = array + sign * u * np.where(magnitude == 0, largest, magnitude)
        # At u = 2⁻⁵³ half of the powers of two would round back to where they were.
        moved = np.where(moved == array, np.nextafter(array, sign * math.inf), moved)
    return np.where(still | ~np.isfinite(moved), array, moved).astype(array.dtype)


def _still(
    name: str,
    array: np.ndarray,
    padding: Mapping[str, np.ndarray],
    exact_zeros: Collection[str],
) -> np.ndarray:
    still = ~np.isfinite(array)
    if name in padding:
        still = still | np.broadcast_to(padding[name], array.shape)
    if name in exact_zeros or name.split("/")[0] in exact_zeros:
        still = still | (array == 0)
    return still


# --- arrays --------------------------------------------------------------------------------------


def _is_floating(array: Any) -> bool:
    return isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _outputs(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {leaf: np.asarray(array) for leaf, array in outputs.items()}


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # Infinities subtract to NaN, which fails as it must: no warning is needed.
    with np.errstate(invalid="ignore", over="ignore"):
        return a.astype(np.float64) - b.astype(np.float64)


def _largest(array: np.ndarray) -> float:
    """The largest finite magnitude; 0 if there is none."""
    magnitude = np.abs(array[np.isfinite(array)])
    return float(magnitude.max(initial=0.0))


def _largest_differences(pairs: Iterable[tuple[Arrays, Arrays]]) -> dict[str, float]:
    """For each floating output the largest finite difference between the runs of a pair."""
    largest: dict[str, float] = {}
    for run, exact in pairs:
        for leaf, array in _outputs(run).items():
            if leaf in exact and array.shape == np.shape(exact[leaf]) and _is_floating(array):
                difference = _largest(_minus(array, np.asarray(exact[leaf])))
                largest[leaf] = max(largest.get(leaf, 0.0), difference)
    return largest


def _sum_of_products(x: np.ndarray, slope: np.ndarray) -> float:
    """Σ |x · slope| where both are finite: padding takes no part."""
    known = np.isfinite(x) & np.isfinite(slope)
    return float(np.abs(np.where(known, x, 0.0) * np.where(known, slope, 0.0)).sum())


def _margin(values: np.ndarray, exact: np.ndarray, found: np.ndarray) -> np.ndarray:
    """How clearly the reference decided against what was found."""
    if values.shape == exact.shape:
        return np.abs(values)
    num_choices = values.shape[-1]
    valid = (found >= 0) & (found < num_choices)
    chosen = np.take_along_axis(values, exact[..., None].astype(np.int64), -1)[..., 0]
    other = np.take_along_axis(values, np.where(valid, found, 0)[..., None].astype(np.int64), -1)
    return np.where(valid, np.abs(_minus(chosen, other[..., 0])), math.inf)


def _same_nonfinite(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (np.isnan(a) & np.isnan(b)) | (np.isinf(a) & (a == b))


def _difference_in_form(
    model: np.ndarray | None, found: np.ndarray | None
) -> tuple[str, str] | None:
    """What differs in presence, shape or kind, said for either side; `None` if nothing does."""
    if model is None or found is None:
        return ("absent" if model is None else "present", "absent" if found is None else "present")
    if model.shape != found.shape:
        return f"shape {model.shape}", f"shape {found.shape}"
    if _kind(model) != _kind(found):
        return str(model.dtype), str(found.dtype)
    return None


def _kind(array: np.ndarray) -> str:
    """The dtype, except that integers are all alike."""
    return "integer" if np.issubdtype(array.dtype, np.integer) else str(array.dtype)


def _first(true: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(true)[0])


def _at(array: np.ndarray | None, index: tuple[int, ...]) -> Any:
    return None if array is None else array[index].item()
