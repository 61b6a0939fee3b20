"""The verdict on one side's outputs, by the rule of `parity.tolerance`."""

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np

from parity.arrays import is_number, largest_magnitude, minus, outputs_of, same_nonfinite
from parity.verdicts import Mismatch, Verdict
from parity.yardstick import Bound, Yardstick


class Measured(Protocol):
    """A reference whose outputs are known, and what rounding is worth to them."""

    @property
    def exact(self) -> dict[str, np.ndarray]:
        """The float64 reference's outputs."""
        ...

    @property
    def single(self) -> dict[str, np.ndarray]:
        """Those of its float32 run."""
        ...

    @property
    def numbers(self) -> list[str]:
        """The outputs that are plain Python numbers."""
        ...

    def outputs(self, dtype: str) -> dict[str, np.ndarray]:
        """The outputs in one precision."""
        ...

    def scale_bound(self, leaf: str, dtype: str) -> Bound:
        """The share of the largest value that is allowed."""
        ...

    def bound(self, leaf: str, dtype: str, enough: float = math.inf) -> Bound:
        """The rule's bound, or one that allows `enough`."""
        ...

    def tied(self, leaf: str, found: np.ndarray, bound: float) -> np.ndarray:
        """Entries at which a rounding on the way decides, and either is right."""
        ...


class Deciding(Protocol):
    """What decides a discrete output of a reference: one array, and its rounding."""

    @property
    def exact(self) -> dict[str, np.ndarray]:
        """The array in float64."""
        ...

    def bound(self, leaf: str, dtype: str) -> Bound:
        """The rule's bound on it."""
        ...


class Judge:
    """Collects verdicts and mismatches of one stage."""

    def __init__(
        self,
        stage: str,
        expect_nonfinite: Collection[str],
        decided_by: Mapping[str, Yardstick | Deciding],
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
        yardstick: Yardstick | Measured,  # (a cached property is no property to a type checker)
        dtype: str,
        oracle: Mapping[str, np.ndarray] | None,
    ) -> None:
        """Judges one side's outputs in one precision."""
        numbers = {*yardstick.numbers, *(leaf for leaf, value in found.items() if is_number(value))}
        found, model = outputs_of(found), yardstick.outputs(dtype)
        # In the order of the reference, so that of its stages the first that parts comes first.
        for leaf in {**model, **found}:
            if complaint := _difference_in_form(
                model.get(leaf), found.get(leaf), is_number=leaf in numbers
            ):
                self._report(side, leaf, dtype, (), *complaint, None, Bound(0.0, "form"), math.inf)
                continue
            opinion = None if oracle is None else outputs_of(oracle).get(leaf)
            if opinion is not None and opinion.shape != model[leaf].shape:
                opinion = None
            self._hold_leaf(side, leaf, dtype, found[leaf], yardstick, opinion)

    def _hold_leaf(
        self,
        side: str,
        leaf: str,
        dtype: str,
        found: np.ndarray,
        yardstick: Yardstick | Measured,
        oracle: np.ndarray | None,
    ) -> None:
        exact = yardstick.exact[leaf]
        if not any(np.issubdtype(side.dtype, np.floating) for side in (exact, found)):
            self._hold_discrete(side, leaf, dtype, found, exact, oracle)
            return
        error, reference_error = np.abs(minus(found, exact)), None
        finite = np.isfinite(found) & np.isfinite(exact)
        if dtype == "float32":
            single = yardstick.single[leaf]
            finite &= np.isfinite(single)
            reference_error = largest_magnitude(minus(single, exact))
        if leaf in self._expect_nonfinite:
            expected = same_nonfinite(found, exact)
            error = np.where(expected, 0.0, error)
            finite |= expected
        if not finite.all():
            at = _first(~finite)
            values = (_at(exact, at), _at(found, at), _at(oracle, at))
            in_the_same_places = (finite | same_nonfinite(found, exact)).all()
            bound = Bound(0.0, "nonfinite" if in_the_same_places else "form")
            self._report(side, leaf, dtype, at, *values, bound, math.inf)
            return
        worst = float(error.max(initial=0.0))
        bound = yardstick.scale_bound(leaf, dtype)
        ties = 0
        if not worst <= bound.value:
            bound = yardstick.bound(leaf, dtype, enough=worst)
            if not worst <= bound.value:  # dear, and nothing is tied that is within the bound
                tied = (error > bound.value) & yardstick.tied(leaf, found, bound.value)
                error, ties = np.where(tied, 0.0, error), int(tied.sum())
                worst = float(error.max(initial=0.0))
        agreed = worst <= bound.value and math.isfinite(bound.value)
        if agreed:
            self.verdicts.append(
                Verdict(leaf, dtype, side, worst, *bound, ties, reference_error=reference_error)
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


def _margin(values: np.ndarray, exact: np.ndarray, found: np.ndarray) -> np.ndarray:
    """How clearly the reference decided against what was found."""
    if values.shape == exact.shape:
        return np.abs(values)
    num_choices = values.shape[-1]
    valid = (found >= 0) & (found < num_choices)
    chosen = np.take_along_axis(values, exact[..., None].astype(np.int64), -1)[..., 0]
    other = np.take_along_axis(values, np.where(valid, found, 0)[..., None].astype(np.int64), -1)
    return np.where(valid, np.abs(minus(chosen, other[..., 0])), math.inf)


def _difference_in_form(
    model: np.ndarray | None, found: np.ndarray | None, *, is_number: bool
) -> tuple[str, str] | None:
    """What differs in presence, shape or kind, said for either side; `None` if nothing does.

    If one of them is a plain Python number, only flags and numbers are two kinds.
    """
    if model is None or found is None:
        return ("absent" if model is None else "present", "absent" if found is None else "present")
    if model.shape != found.shape:
        return f"shape {model.shape}", f"shape {found.shape}"
    kinds = {_kind(model), _kind(found)}
    if len(kinds) > 1 and not (is_number and "bool" not in kinds):
        return str(model.dtype), str(found.dtype)
    return None


def _kind(array: np.ndarray) -> str:
    """The dtype, except that integers are all alike."""
    return "integer" if np.issubdtype(array.dtype, np.integer) else str(array.dtype)


def _first(true: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(true)[0])


def _at(array: np.ndarray | None, index: tuple[int, ...]) -> Any:
    return None if array is None else array[index].item()
