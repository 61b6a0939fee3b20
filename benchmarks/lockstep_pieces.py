"""Full runs in which JAX is given PyTorch's state before each update, in pieces."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.lockstep_tables import BATCHES
from pgcore.config import PRESETS, TrainConfig
from pgcore.files.writing import write_atomically

BEGUN = results.RESULTS / "begun"
"""Pieces of runs that are not over, a file each."""
PIECE = 1_000
"""Updates that are compared before they are kept."""


def config_of(agent: Any, episodes: int, seed: int) -> TrainConfig:
    """A run of so many episodes an update."""
    return replace(PRESETS[BATCHES[episodes]], agent=agent, seed=seed)


def resync(agent: str, episodes: int, seed: int) -> dict[str, Any]:
    """A full run, JAX given PyTorch's state before each update.

    In pieces: what is compared is kept at once, and a run that was broken off goes on there.
    """
    from parity.runs.proofs import START, lead

    config, file = config_of(agent, episodes, seed), begun(agent, episodes, seed)
    rows = json.loads(file.read_text("utf-8")) if file.exists() else []
    led = START
    while not (rows and rows[-1]["over"]):
        led = lead(config, sum(row["updates"] for row in rows), led)
        rows.append({"agent": agent, "episodes": episodes, "seed": seed, **_piece(config, led)})
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, json.dumps(rows).encode())
    return joined(rows)


def begun(*task: Any) -> Path:
    """The file of a run's pieces, until the run is kept whole."""
    return BEGUN / f"{'-'.join(map(str, task))}.json"


def once_more(row: dict[str, Any]) -> dict[str, Any]:
    """A run's row with the pieces in which something failed compared once more.

    What agreed stays as it is: it holds for a yardstick that has become wider, and no other.
    """
    from parity.runs.proofs import START, lead

    config = config_of(row["agent"], row["episodes"], row["seed"])
    led, pieces = START, []
    for first in row["failed_from"]:
        led = lead(config, first - 1, led)
        pieces.append(_piece(config, led))
        print(f"from {first:,} on: {json.dumps(pieces[-1])}", flush=True)
    failed = [
        first for first, piece in zip(row["failed_from"], pieces, strict=True) if not piece["ok"]
    ]
    before = {"closest": row["closest_of_others"], "closest_stage": row["closest_stage_of_others"]}
    agreed = _closest([before, *(piece for piece in pieces if piece["ok"])])
    return {
        **row,
        **_closest([agreed, *pieces]),
        "ok": not failed,
        "failed_from": failed,
        "closest_of_others": agreed["closest"],
        "closest_stage_of_others": agreed["closest_stage"],
        "failed_before": row.get("failed_before")
        or {"from": row["failed_from"], "closest": row["closest"], "failures": row["failures"]},
        "failures": [failure for piece in pieces for failure in piece["failures"]],
    }


def _closest(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The closest of these, with its stage."""
    closest = max(pieces, key=lambda piece: piece["closest"])
    return {name: closest[name] for name in ("closest", "closest_stage")}


def _piece(config: TrainConfig, led: Any) -> dict[str, Any]:
    """So many updates from where the reference was led."""
    from parity.runs.proofs import prove

    proof = prove(config, "resync", updates=PIECE, led=led)
    verdicts = [
        (each.stage, verdict)
        for each in proof.report.report.comparisons
        for verdict in each.verdicts
    ]
    stage, closest = max(
        ((stage, v.error / v.bound) for stage, v in verdicts if v.bound > 0),
        key=lambda pair: pair[1],
    )
    return {
        "updates": proof.report.updates,
        "env_steps": proof.env_steps,
        "solved": proof.solved,
        "ok": proof.report.ok,
        "closest": float(f"{closest:.2g}"),
        "closest_stage": stage,
        "stages": [each.stage for each in proof.report.report.comparisons],
        "failures": [str(failure) for failure in proof.report.failures],
        "over": proof.solved or proof.env_steps >= config.total_timesteps,
    }


def joined(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The pieces of a run as one."""
    none = {"closest": 0.0, "closest_stage": rows[0]["closest_stage"]}
    agreed = _closest([none, *(row for row in rows if row["ok"])])
    before = np.cumsum([0, *(row["updates"] for row in rows)])
    return {
        **{name: value for name, value in rows[-1].items() if name != "over"},
        **_closest(rows),
        "updates": int(before[-1]),
        "failed_from": [
            int(number) + 1 for number, row in zip(before, rows, strict=False) if not row["ok"]
        ],
        "closest_of_others": agreed["closest"],
        "closest_stage_of_others": agreed["closest_stage"],
        "ok": all(row["ok"] for row in rows),
        "failures": [failure for row in rows for failure in row["failures"]],
    }
