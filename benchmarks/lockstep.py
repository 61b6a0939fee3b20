"""Whole runs of both frameworks side by side: how far "the same" goes, and from what fault on not.

`resync`: full runs until solved, JAX given PyTorch's state before each update, every stage of
every update by the float64 gate. `free`: from the same start on the same noise, against PyTorch
nudged by an ulp after every update, judged by rank over the seeds. `faults`: from which size on
that judgement sees a wrong learning rate, and two known faults.

`--save` keeps the figures in `benchmarks/results/lockstep.json` and their tables in
`docs/lockstep.md`. A part that is run replaces that part of the figures alone.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import results
from parity.runs.ranks import LEVEL, RankTest, rank_test
from parity.runs.reports import Distances
from parity.workers import default_jobs
from parity.workers import results as shared
from pgcore.config import PRESETS, TrainConfig

AGENTS = ("reinforce", "reparam")
DTYPES = ("float64", "float32")
BATCHES = {1: "article", 8: "default"}
"""Episodes an update, and the preset that has so many."""
RESYNC_SEEDS = range(5)
FREE_SEEDS = range(10)
FREE_UPDATES = 30
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
PARTINGS = (("float32", False), ("float64", True), ("float32", True))
"""Precisions, and whether JAX plays in its own CartPole. (In float64 on Gymnasium's none parts.)"""
PAGE = "docs/lockstep.md"
PAGES = {"free": [PAGE, "README.md"], "faults": [PAGE]}
"""Where a table stands."""
Part = Literal["resync", "free", "partings", "faults"]


@dataclass(frozen=True)
class Lockstep:
    """Run both frameworks side by side, and say how far they are the same."""

    parts: tuple[Part, ...] = ("resync", "free", "partings", "faults")
    """What to run."""
    jobs: int = field(default_factory=default_jobs)
    """Processes that share the work."""
    save: bool = False
    """Keep the figures and the tables."""


def main(options: Lockstep) -> int:
    """Runs the parts; 1 if a right run fails or a known fault does not."""
    figures: dict[str, Any] = {}
    if (results.RESULTS / "lockstep.json").exists():
        figures = {k: v for k, v in results.load("lockstep").items() if k in Part.__args__}
    for part in options.parts:
        function, tasks = tasks_of(part)
        found: dict[int, Any] = {}
        for number, result in shared(function, tasks, options.jobs):
            found[number] = result
            figures[part] = [found[number] for number in sorted(found)]
            print(f"{part} {len(found)} of {len(tasks)}: {tasks[number]}", flush=True)
            if options.save:  # each as it is there: all of them take over an hour
                command = "python -m benchmarks.lockstep --save"
                results.save("lockstep", command, figures, indent=None)
    for part in options.parts:
        print(f"\n{TABLES[part](figures)}")
    if options.save:
        for part, pages in PAGES.items():  # faults are judged by the nudged runs of the right ones
            for page in pages if part in figures else []:
                results.put_table(page, f"lockstep: {part}", TABLES[part](figures))
    return 0 if all_hold(figures) else 1


def tasks_of(part: Part) -> tuple[Callable[..., Any], list[tuple[Any, ...]]]:
    """The function of a part, and the arguments of its calls; what takes longest comes first."""
    match part:
        case "resync":
            seeds = RESYNC_SEEDS
            return resync, [(a, n, s) for n in BATCHES for a in reversed(AGENTS) for s in seeds]
        case "free":
            return free, [(a, d, s) for a in AGENTS for d in DTYPES for s in FREE_SEEDS]
        case "partings":
            return parting, [(agent, dtype, own) for agent in AGENTS for dtype, own in PARTINGS]
        case "faults":
            return faulty, [(a, d, fault) for a in AGENTS for d in DTYPES for fault in FAULTS[d]]


def resync(agent: str, episodes: int, seed: int) -> dict[str, Any]:
    """A full run, JAX given PyTorch's state before each update."""
    from parity.runs.proofs import prove

    proof = prove(_config(agent, episodes, seed), "resync")
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
        "agent": agent,
        "episodes": episodes,
        "seed": seed,
        "updates": proof.report.updates,
        "env_steps": proof.env_steps,
        "solved": proof.solved,
        "ok": proof.report.ok,
        "closest": float(f"{closest:.2g}"),
        "closest_stage": stage,
        "stages": [each.stage for each in proof.report.report.comparisons],
        "failures": [str(failure) for failure in proof.report.failures],
    }


def free(agent: str, dtype: str, seed: int) -> dict[str, Any]:
    """The first updates, each side by itself, beside PyTorch nudged by an ulp."""
    from parity.runs.proofs import prove

    proof = prove(_config(agent, 8, seed), "free", dtype, updates=FREE_UPDATES)
    found = proof.report.distances
    assert found is not None
    assert found.candidate is not None
    return {
        "agent": agent,
        "dtype": dtype,
        "seed": seed,
        "ok": proof.report.ok,
        "candidate": _short(found.candidate),
        "nudged": [_short(run) for run in found.nudged],
        "parted": found.parted,
        "nudged_parted": list(found.nudged_parted),
    }


def parting(agent: str, dtype: str, own: bool) -> dict[str, Any]:
    """When JAX first acts otherwise, of each seed, in Gymnasium's CartPole or in its own."""
    from pgjax.envs.cartpole import CartPole

    runs = _followed(agent, dtype, PARTING_UPDATES, jax_env=CartPole() if own else None)
    return {
        "agent": agent,
        "dtype": dtype,
        "own": own,
        "candidate": [_short(run.candidate) for run in runs],
        "parted": [run.parted for run in runs],
    }


def faulty(agent: str, dtype: str, fault: str) -> dict[str, Any]:
    """How far JAX with a fault goes, of each seed."""
    runs = _followed(agent, dtype, FAULT_UPDATES, optimizer=_faulty_optimizer(fault))
    distances = [_short(run.candidate) for run in runs]
    return {"agent": agent, "dtype": dtype, "fault": fault, "candidate": distances}


def _followed(agent: str, dtype: str, updates: int, **options: Any) -> list[Any]:
    """Free runs of all seeds without nudged ones, by a candidate that is compiled once."""
    from parity.runs.agents import agent_run
    from parity.runs.free import run_free

    step, found = None, []
    for seed in FREE_SEEDS:
        run = agent_run(_config(agent, 8, seed), dtype, **options)
        step = step or run.candidate_step
        found.append(
            run_free(
                **run._replace(candidate_step=step)._asdict(),
                updates=updates,
                until=lambda _: False,
                callback=lambda *_: None,
                draws=0,
            ).distances
        )
    return found


def _faulty_optimizer(fault: str) -> Any:
    import optax

    from pgjax.optim import adam

    rate = TrainConfig().learning_rate
    if fault == "ε inside the root":
        return optax.adam(rate, eps=0.0, eps_root=1e-8)
    if fault == "float32 bias correction":
        return optax.adam(rate)
    return adam(rate * (1 + float(fault.removeprefix("rate "))))


def _config(agent: Any, episodes: int, seed: int) -> TrainConfig:
    from dataclasses import replace

    return replace(PRESETS[BATCHES[episodes]], agent=agent, seed=seed)


def _short(distances: np.ndarray) -> list[float]:
    return [float(f"{distance:.4g}") for distance in distances]


# --- judgement and tables ------------------------------------------------------------------------


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
    "partings": partings_table,
    "faults": faults_table,
}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Lockstep)))
