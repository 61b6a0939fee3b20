"""What the figures of `benchmarks.lockstep` come to: the judgement by rank, and the tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import results
from parity.runs.ranks import LEVEL, RankTest, rank_test
from parity.runs.reports import Distances

AGENTS = ("reinforce", "reparam")
DTYPES = ("float64", "float32")
BATCHES = {8: "default", 1: "article"}
"""Episodes an update, and the preset that has so many."""
RESYNC_SEEDS = range(5)
FREE_SEEDS = range(10)
FREE_UPDATES = 30
HANDOVER_UPDATES = (40, 20)
"""Before a run is handed over, and compared after."""
PARTING_UPDATES = 50
"""In these float32 runs come to decide otherwise."""
FAULT_UPDATES = 20
FAULTS = {
    "float64": ("rate 1e-15", "rate 1e-14", "rate 1e-13", "ε inside the root"),
    "float32": (
        "rate 1e-7",
        "rate 1e-6",
        "rate 1e-5",
        "float32 bias correction",
        "ε inside the root",
    ),
}
"""`rate x`: a learning rate larger by the share x."""
PARTINGS = (("float64", False), ("float32", False), ("float64", True), ("float32", True))
"""Precisions, and whether JAX plays in its own CartPole."""
PAGE = "docs/lockstep.md"
PAGES = {
    "resync": [PAGE],
    "free": [PAGE, "README.md"],
    "handover": [PAGE],
    "partings": [PAGE],
    "faults": [PAGE],
}
"""Where a table stands."""


def right_runs(figures: dict[str, Any], agent: str, dtype: str) -> list[Distances]:
    """The right runs of the seeds."""
    return [
        Distances(np.array(run["candidate"]), np.array(run["nudged"]), run["parted"])
        for run in figures["free"]
        if (run["agent"], run["dtype"]) == (agent, dtype)
    ]


def faulty_ranks(figures: dict[str, Any], row: dict[str, Any]) -> RankTest:
    """The test of a fault, with the nudged runs of the right ones."""
    runs = right_runs(figures, row["agent"], row["dtype"])
    pairs = zip(row["candidate"], runs, strict=True)
    return rank_test(
        [Distances(np.array(far), run.nudged) for far, run in pairs], updates=FAULT_UPDATES
    )


def all_hold(figures: dict[str, Any]) -> bool:
    """Whether right runs pass and the two known faults do not."""
    holds = all(row["ok"] for row in [*figures.get("resync", []), *figures.get("free", [])])
    holds &= all(row["next_ok"] and row["free_ok"] for row in figures.get("handover", []))
    if "free" in figures:
        tests = [rank_test(right_runs(figures, a, d)) for a in AGENTS for d in DTYPES]
        holds &= all(test.ok for test in tests)
        named = [row for row in figures.get("faults", []) if row["fault"] == "ε inside the root"]
        holds &= not any(faulty_ranks(figures, row).ok for row in named)
    return holds


def resync_table(figures: dict[str, Any]) -> str:
    """A line for each agent and batch."""
    header = ("agent", "episodes an update", "seeds: solved", "updates", "all agree", "closest")
    lines = []
    for episodes in BATCHES:
        for agent in AGENTS:
            rows = [
                r for r in figures["resync"] if (r["agent"], r["episodes"]) == (agent, episodes)
            ]
            worst = max(rows, key=lambda row: row["closest"])
            lines.append(
                (
                    agent,
                    str(episodes),
                    f"{len(rows)}: {sum(row['solved'] for row in rows)}",
                    f"{sum(row['updates'] for row in rows):,}",
                    "yes" if all(row["ok"] for row in rows) else "NO",
                    f"{worst['closest']:.2g} of what is allowed, {worst['closest_stage']}",
                )
            )
    return results.table(header, lines)


def free_table(figures: dict[str, Any]) -> str:
    """A line for each agent and precision."""
    header = (
        "agent",
        "precision",
        "seeds",
        "mean rank of 9",
        "p",
        "farthest / farthest nudged",
    )
    lines = []
    for agent in AGENTS:
        for dtype in DTYPES:
            rows = [r for r in figures["free"] if (r["agent"], r["dtype"]) == (agent, dtype)]
            test = rank_test(right_runs(figures, agent, dtype))
            shares = [
                max(np.array(row["candidate"]) / np.array(row["nudged"]).max(axis=0))
                for row in rows
            ]
            lines.append(
                (
                    agent,
                    dtype,
                    str(len(rows)),
                    f"{np.mean(test.ranks):.1f}",
                    f"{test.p_value:.2g}",
                    f"{max(shares):.2g}",
                )
            )
    return results.table(header, lines)


def handover_table(figures: dict[str, Any]) -> str:
    """A line for each agent and direction."""
    header = ("begun by", "agent", "next updates by the gate", "within the yardstick")
    lines = []
    for row in figures["handover"]:
        gate = f"{row['updates']} agree" if row["next_ok"] else f"NO: {row['failures']}"
        free = f"{row['free_updates']} updates" if row["free_ok"] else "NO"
        lines.append((row["leader"], row["agent"], gate, free))
    return results.table(header, lines)


def partings_table(figures: dict[str, Any]) -> str:
    """A line for each agent, precision and environment."""
    header = (
        "agent",
        "precision",
        "JAX plays in",
        f"first other action, of {PARTING_UPDATES} updates",
    )
    lines = []
    for row in figures["partings"]:
        env = "its own CartPole" if row["own"] else "Gymnasium's"
        lines.append((row["agent"], row["dtype"], env, _partings(row["parted"])))
    return results.table(header, lines)


def faults_table(figures: dict[str, Any]) -> str:
    """A line for each fault."""
    header = ("precision", "fault", *(f"{agent}: mean rank, p" for agent in AGENTS), "seen")
    lines = []
    for dtype in DTYPES:
        for fault in FAULTS[dtype]:
            tests = [
                faulty_ranks(figures, row)
                for agent in AGENTS
                for row in figures["faults"]
                if (row["agent"], row["dtype"], row["fault"]) == (agent, dtype, fault)
            ]
            cells = [f"{np.mean(test.ranks):.1f}, {test.p_value:.1g}" for test in tests]
            seen = sum(test.p_value < LEVEL for test in tests)
            lines.append((dtype, fault, *cells, {0: "no", 1: "one agent", 2: "yes"}[seen]))
    return results.table(header, lines)


def _partings(updates: Sequence[int | None]) -> str:
    found = [update for update in updates if update is not None]
    if not found:
        return f"in none of {len(updates)}"
    return f"in {len(found)} of {len(updates)}, update {min(found)} to {max(found)}"


TABLES = {
    "resync": resync_table,
    "free": free_table,
    "handover": handover_table,
    "partings": partings_table,
    "faults": faults_table,
}
