"""What a run of many updates came to: the worst of each array, and where the sides first part."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parity.report import Report
from parity.tolerance import Comparison, Mismatch, Verdict


@dataclass(frozen=True)
class Distances:
    """How far parameters are from the reference's after each update, relative to their norm.

    Attributes:
        candidate: `[U]`; `None` where no candidate ran.
        nudged: `[8, U]`, the reference's own when one ulp is added or taken after each update.
        parted: The first update at which a discrete output (an action, a mask) of the candidate
            differs from the reference's; `None` if none does.
        nudged_parted: The same of each nudged run.
    """

    candidate: np.ndarray | None
    nudged: np.ndarray
    parted: int | None = None
    nudged_parted: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class LockstepReport:
    """What `parity.lockstep` returns; everything that a `Report` has, and the run itself.

    Attributes:
        report: The comparisons, a stage each. Of each array it holds the update at which it came
            closest to what is allowed; the mismatches are those of the first update that parts.
        mode: `"resync"`, `"free"` or `"nudged"`.
        dtype: The precision of the state.
        updates: How many updates were made.
        parted_at: The number, from 1, of the first update with a mismatch; `None` if there is none.
        distances: Of modes `"free"` and `"nudged"`.
    """

    report: Report
    mode: str
    dtype: str
    updates: int
    parted_at: int | None
    distances: Distances | None = None

    @property
    def ok(self) -> bool:
        """Whether everything agreed, and anything was compared at all."""
        return self.report.ok

    @property
    def failures(self) -> list[Mismatch]:
        """The mismatches of the first update that parts, in the order of its stages."""
        return self.report.failures

    def assert_ok(self) -> None:
        """Raises an `AssertionError` with the report's text unless everything agreed."""
        self.report.assert_ok()

    def __str__(self) -> str:
        return str(self.report)

    def to_json(self) -> str:
        """The report as a JSON object, as `Report.to_json` gives it."""
        return self.report.to_json()

    def to_html(self, path: str | Path) -> None:
        """Writes one plain page that needs no other file."""
        self.report.to_html(path)


@dataclass
class Ledger:
    """Collects comparisons of many updates: each array's closest verdict, the first parting."""

    dtype: str
    updates: int = 0
    num_parted: int = 0
    num_measured: int = 0
    moved: bool = False
    parted_at: int | None = None
    mismatches: dict[str, list[Mismatch]] = field(default_factory=dict)
    closest: dict[tuple[str, str], Verdict] = field(default_factory=dict)

    def add(self, update: int, compared: Comparison) -> None:
        """Takes in one update, whose outputs are named `stage/leaf`."""
        self.updates = update
        for verdict in compared.verdicts:
            stage, leaf = _divided(verdict.leaf)
            key = stage, leaf
            self.num_measured += verdict.term not in ("scale", "exact", "form")
            if key not in self.closest or _share(verdict) > _share(self.closest[key]):
                self.closest[key] = verdict._replace(leaf=leaf)
        self.num_parted += bool(compared.mismatches)
        if compared.mismatches and self.parted_at is None:
            self.parted_at = update
            for mismatch in compared.mismatches:
                stage, leaf = _divided(mismatch.leaf)
                named = mismatch._replace(stage=stage, leaf=leaf)
                self.mismatches.setdefault(stage, []).append(named)

    def report(self, name: str) -> Report:
        """What was collected, stage by stage."""
        stages = dict.fromkeys(stage for stage, _ in self.closest)
        comparisons = [
            Comparison(stage, self.mismatches.get(stage, []), self._verdicts(stage))
            for stage in stages
        ]
        return Report(name, comparisons, self._notes())

    def _verdicts(self, stage: str) -> list[Verdict]:
        return [verdict for (own, _), verdict in self.closest.items() if own == stage]

    def _notes(self) -> list[str]:
        notes = [f"{self.updates} updates in {self.dtype}, re-synchronised before each"]
        if self.parted_at is not None:
            stage = next(iter(self.mismatches))
            notes.append(
                f"first parts at update {self.parted_at}, stage {stage!r}; {self.num_parted} of "
                f"{self.updates} updates part"
            )
        if self.num_measured:
            notes.append(
                f"{self.num_measured} arrays were further apart than the plain share of their "
                "largest value, and held to the measured response to rounding"
            )
        return notes


def _divided(leaf: str) -> tuple[str, str]:
    stage, _, name = leaf.partition("/")
    return stage, name or "value"


def _share(verdict: Verdict) -> float:
    if verdict.bound > 0:
        return verdict.error / verdict.bound
    return np.inf if verdict.error > 0 else 0.0
