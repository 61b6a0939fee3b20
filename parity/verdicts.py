"""What comes of a comparison: verdicts on arrays, and the mismatches among them."""

from typing import Any, NamedTuple


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
    `inputs`, `terms`, `float32`, `rounding`, `exact` for discrete values, `form` where names,
    shapes or dtypes differ or a value is not finite, or `nonfinite` where both sides are not, in
    the same places. `side` is `candidate`, or `reference` where
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
