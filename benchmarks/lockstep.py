"""Whole runs of both frameworks side by side: how far "the same" goes, and from what fault on not.

`resync`: full runs until solved, JAX given PyTorch's state before each update, every stage of
every update by the float64 gate. `free`: from the same start on the same noise, against PyTorch
nudged by an ulp after every update, judged by rank over the seeds. `handover`: a run that one
framework began goes on in the other. `partings`: when a free run first acts otherwise. `faults`:
from which size on the ranks see a wrong learning rate, and two known faults.

`--save` keeps the figures in `benchmarks/results/lockstep.json` and their tables in
`docs/lockstep.md`. A part that is run replaces that part of the figures alone. `--again` runs only
the thousands of updates of full runs in which something did not agree.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import results
from benchmarks.lockstep_pieces import begun, config_of, once_more, resync
from benchmarks.lockstep_tables import (
    AGENTS,
    BATCHES,
    DTYPES,
    FAULT_UPDATES,
    FAULTS,
    FREE_SEEDS,
    FREE_UPDATES,
    HANDOVER_UPDATES,
    PAGES,
    PARTING_UPDATES,
    PARTINGS,
    RESYNC_SEEDS,
    TABLES,
    all_hold,
)
from parity.workers import default_jobs
from parity.workers import results as shared
from pgcore.config import TrainConfig
from pgcore.errors import require

Part = Literal["resync", "free", "handover", "partings", "faults"]


@dataclass(frozen=True)
class Lockstep:
    """Run both frameworks side by side, and say how far they are the same."""

    parts: tuple[Part, ...] = ("resync", "free", "handover", "partings", "faults")
    """What to run."""
    jobs: int = field(default_factory=default_jobs)
    """Processes that share the work."""
    save: bool = False
    """Keep the figures and the tables."""
    missing: bool = False
    """Run only what the kept figures lack: all parts together take over an hour."""
    again: bool = False
    """Of re-synchronised runs that do not agree, compare the pieces that did not once more."""


def main(options: Lockstep) -> int:
    """Runs the parts; 1 if a right run fails or a known fault does not."""
    figures: dict[str, Any] = {}
    if (results.RESULTS / "lockstep.json").exists():
        figures = {k: v for k, v in results.load("lockstep").items() if k in Part.__args__}
    judges = "free" in {*options.parts, *figures} or "faults" not in options.parts
    require(
        judges, "parts", options.parts, "faults together with free, whose nudged runs judge them"
    )
    if options.again:
        accepted = "that figures of full runs are kept: --parts resync --save"
        require("resync" in figures, "again", True, accepted)
        failed = [row for row in figures["resync"] if not row["ok"]]
        for number, row in shared(once_more, [(row,) for row in failed], options.jobs):
            figures["resync"][figures["resync"].index(failed[number])] = row
            if options.save:
                save(figures)
    for part in () if options.again else options.parts:
        function, tasks = tasks_of(part)
        rows = kept(function, figures.get(part, [])) if options.missing else {}
        open_ = [task for task in tasks if task not in rows]
        for task in [] if options.missing else open_:
            begun(*task).unlink(missing_ok=True)
        for number, row in shared(function, open_, options.jobs):
            rows[open_[number]] = row
            figures[part] = [rows[task] for task in tasks if task in rows]
            print(f"{part} {len(rows)} of {len(tasks)}: {open_[number]}", flush=True)
            if options.save:  # each as it is there
                save(figures)
            begun(*open_[number]).unlink(missing_ok=True)
    for part in options.parts:
        print(f"\n{TABLES[part](figures)}")
    if options.save:
        for part, pages in PAGES.items():  # faults are judged by the nudged runs of the right ones
            for page in pages if part in figures else []:
                results.put_table(page, f"lockstep: {part}", TABLES[part](figures))
    return 0 if all_hold(figures) else 1


def save(figures: dict[str, Any]) -> None:
    """Keeps the figures."""
    results.save("lockstep", "python -m benchmarks.lockstep --save", figures, indent=None)


def kept(
    function: Callable[..., Any], rows: Sequence[dict[str, Any]]
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of a part by their tasks: each has its function's arguments by name."""
    names = [*inspect.signature(function).parameters]
    return {tuple(row[name] for name in names): row for row in rows}


def tasks_of(part: Part) -> tuple[Callable[..., Any], list[tuple[Any, ...]]]:
    """The function of a part, and the arguments of its calls."""
    match part:
        case "resync":
            seeds = RESYNC_SEEDS
            return resync, [(a, n, s) for n in BATCHES for a in AGENTS for s in seeds]
        case "free":
            return free, [(a, d, s) for a in AGENTS for d in DTYPES for s in FREE_SEEDS]
        case "handover":
            return handover, [
                (leader, agent) for leader in ("pgtorch", "pgjax") for agent in AGENTS
            ]
        case "partings":
            return parting, [(agent, dtype, own) for agent in AGENTS for dtype, own in PARTINGS]
        case "faults":
            return faulty, [(a, d, fault) for a in AGENTS for d in DTYPES for fault in FAULTS[d]]


def free(agent: str, dtype: str, seed: int) -> dict[str, Any]:
    """The first updates, each side by itself, beside PyTorch nudged by an ulp."""
    from parity.runs.proofs import prove

    proof = prove(config_of(agent, 8, seed), "free", dtype, updates=FREE_UPDATES)
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


def handover(leader: str, agent: str) -> dict[str, Any]:
    """A run folder of 40 updates, from which the other framework's next ones are compared."""
    import pgtorch
    from parity.runs.agents import agent_run
    from parity.runs.driver import lockstep

    config = config_of(agent, 8, 1)
    begun, on = HANDOVER_UPDATES
    with TemporaryDirectory() as folder:
        run_dir = str(Path(folder) / "run")
        train = importlib.import_module(leader).train
        train(replace(config, until_update=begun, run_dir=run_dir))
        state = pgtorch.load_checkpoint(run_dir).state
    run = agent_run(config, state=state, played=begun)._asdict()
    resync = lockstep(**run, updates=on)
    free = lockstep(**run, updates=on, mode="free")
    return {
        "leader": leader,
        "agent": agent,
        "begun": begun,
        "updates": resync.updates,
        "next_ok": resync.ok,
        "free_updates": free.updates,
        "free_ok": free.ok,
        "failures": [str(each) for each in (*resync.failures, *free.failures)],
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
        run = agent_run(config_of(agent, 8, seed), dtype, **options)
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


def _short(distances: np.ndarray) -> list[float]:
    return [float(f"{distance:.4g}") for distance in distances]


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Lockstep)))
