"""The command `parity lockstep`."""

import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pgcore.agents import AgentName
from pgcore.commands.progress import Status, progress
from pgcore.config import PRESETS, TrainConfig
from pgcore.errors import UsageError
from pgcore.files.writing import write_atomically

if TYPE_CHECKING:
    from parity.runs.proofs import Progress, Proof

RUNS: tuple[tuple[Literal["resync", "free"], str], ...] = (
    ("resync", "float64"),
    ("free", "float64"),
    ("free", "float32"),
)
"""What the command runs, one after another."""


@dataclass(frozen=True)
class Lockstep:
    """Train an agent in both frameworks at once, on the same noise, and hold all updates together.

    First with PyTorch's state given to JAX before each update, where every stage must agree; then
    freely in float64 and in float32, beside PyTorch nudged by one ulp after every update.
    """

    agent: AgentName = "reinforce"
    """reinforce: a categorical policy. reparam: the Gaussian reparameterization-trick variant."""
    seed: int = 0
    """Seed of the noise and of the first parameters."""
    preset: Literal["default", "article"] = "default"
    """Where the settings start from. article is one episode an update."""
    episodes_per_update: int | None = None
    """Whole episodes that one update learns from, instead of the preset's."""
    updates: int | None = None
    """Stop after so many updates; by default when the last 100 episodes average 475."""
    total_timesteps: int = 500_000
    """Stop after the update that reaches this many environment steps."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write curves.png, distances.png and lockstep.json into this folder."""
    json: bool = False
    """Print one JSON object instead of sentences."""

    def run(self) -> int:
        """Runs all three, says what came of them, and returns the exit code: 1 if one parted."""
        config = self.checked()
        if self.out is not None:
            _require_folder(self.out)
            importlib.import_module("matplotlib")  # if it is missing, that is said before the runs
        from parity.runs.proofs import prove

        proofs = []
        for mode, dtype in RUNS:
            with progress(config.total_timesteps) as bar:
                proofs.append(
                    prove(
                        config,
                        mode,
                        dtype,
                        updates=self.updates,
                        tell=lambda now, m=mode, d=dtype: bar.update(lambda: _status(now, m, d)),
                    )
                )
        figures = as_json(config, proofs)
        print(json.dumps(figures) if self.json else as_text(config, proofs))
        if self.out is not None:
            written = _write(self.out, config, proofs, figures)
            if not self.json:
                print(f"{self.out}: {', '.join(written)}")
        return 0 if all(proof.report.ok for proof in proofs) else 1

    def checked(self) -> TrainConfig:
        """The runs' configuration.

        Raises:
            UsageError: A field is out of range.
        """
        if self.updates is not None and self.updates < 1:
            raise UsageError(f"updates is {self.updates}, accepted is an integer of at least 1")
        number = self.episodes_per_update
        preset = PRESETS[self.preset]
        return replace(
            preset,
            agent=self.agent,
            seed=self.seed,
            total_timesteps=self.total_timesteps,
            episodes_per_update=preset.episodes_per_update if number is None else number,
        )


def as_text(config: TrainConfig, proofs: Sequence["Proof"]) -> str:
    """A sentence or two for each run; the whole report of one that parted."""
    resync = proofs[0]
    how_far = "until solved" if resync.solved else f"{resync.env_steps:,} environment steps"
    settings = f"seed {config.seed}, {config.episodes_per_update} episodes an update"
    lines = [f"{config.agent}, {settings}: {resync.report.updates} updates, {how_far}"]
    for proof in proofs:
        report = proof.report
        if not report.ok:
            lines.append(str(report))
        elif report.mode == "resync":
            stages = ", ".join(each.stage for each in report.report.comparisons)
            lines.append(
                "JAX given PyTorch's state before each update, float64: every stage of every "
                f"update is the same ({stages})"
            )
        else:
            lines.append(f"each by itself, {report.dtype}: {_apart(proof)}")
    return "\n".join(lines)


def _apart(proof: "Proof") -> str:
    """How far the two went, and when an action first differed."""
    found = proof.report.distances
    assert found is not None
    assert found.candidate is not None
    updates = proof.report.updates
    last = updates if found.parted is None else max(found.parted - 1, 1)
    nudged = sorted(each for each in found.nudged_parted if each is not None)
    own = found.candidate[last - 1]
    if found.parted is None:
        text = (
            f"every action of all {updates} updates is the same; the parameters end {own:.1g} apart"
        )
    else:
        text = (
            f"the first action that differs is in update {found.parted}, after the parameters were "
            f"{own:.1g} apart"
        )
    farthest = found.nudged[:, last - 1].max()
    parted = f"differ from update {nudged[0]} on" if nudged else "never differ"
    return f"{text} (PyTorch nudged by an ulp: {farthest:.1g} at most, and its actions {parted})"


def as_json(config: TrainConfig, proofs: Sequence["Proof"]) -> dict[str, Any]:
    """What a machine reads."""
    return {
        "ok": all(proof.report.ok for proof in proofs),
        "config": config.to_dict(),
        "runs": [_figures(proof) for proof in proofs],
    }


def _figures(proof: "Proof") -> dict[str, Any]:
    report, found = proof.report, proof.report.distances
    figures: dict[str, Any] = {
        "mode": report.mode,
        "dtype": report.dtype,
        "ok": report.ok,
        "updates": report.updates,
        "env_steps": proof.env_steps,
        "solved": proof.solved,
        "parted_at": report.parted_at,
        "returns": {
            "pgtorch": _plain(proof.returns),
            "pgjax": _plain(proof.candidate_returns),
        },
        "failures": [str(failure) for failure in report.failures],
    }
    if found is not None and found.candidate is not None:
        figures["distances"] = {
            "candidate": _plain(found.candidate),
            "nudged": [_plain(run) for run in found.nudged],
            "parted": found.parted,
            "nudged_parted": list(found.nudged_parted),
        }
    return figures


def _plain(values: Any) -> list[float | str]:
    """Numbers for JSON, which lacks those that are not finite: they are strings."""
    return [value if math.isfinite(value) else str(value) for value in values.tolist()]


def _write(
    folder: Path, config: TrainConfig, proofs: Sequence["Proof"], figures: dict[str, Any]
) -> list[str]:
    from parity.runs.pictures import draw_curves, draw_distances

    title = (
        f"{config.agent} on {config.env_id}, seed {config.seed}, "
        f"{config.episodes_per_update} episodes an update"
    )
    free = [proof for proof in proofs if proof.report.mode == "free"]
    draw_curves(folder / "curves.png", title, free)
    draw_distances(folder / "distances.png", title, free)
    text = json.dumps(figures, indent=1) + "\n"
    write_atomically(folder / "lockstep.json", text.encode())
    return ["curves.png", "distances.png", "lockstep.json"]


def _require_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"out {str(path)!r} is a file, accepted is a folder, there or not")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out {str(path)!r} cannot be made: {error}") from error


def _status(now: "Progress", mode: str, dtype: str) -> Status:
    what = "re-synchronised" if mode == "resync" else "free"
    text = (
        f"{what}, {dtype}: update {now.update}, {now.env_steps:,} steps, "
        f"mean return of the last 100 episodes {now.recent_mean:.1f}"
    )
    return Status(
        now.env_steps, text, f"{what} {dtype}, update {now.update}: {now.recent_mean:.0f}"
    )
