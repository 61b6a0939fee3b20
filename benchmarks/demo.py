"""Trains both agents in both frameworks until CartPole-v1 is solved, and prints one table; then
both side by side on the same noise.

Run by `make demo`. Each run is a process of its own, started as a user would start it; each kept
policy is then evaluated on 100 fresh episodes in the real Gymnasium environment.

`--save` keeps the figures in `benchmarks/results/demo.json` and puts their table in the README.
"""

import datetime
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro

from benchmarks import results

AGENTS = ("reinforce", "reparam")
FRAMEWORKS = ("pgjax", "pgtorch")
LOCKSTEP_UPDATES = 12
HEADER = (
    "agent",
    "framework",
    "environment steps",
    "episodes",
    "seconds to solve",
    "evaluation return (95% interval)",
)


class DemoRow(NamedTuple):
    """One run. Steps, episodes and seconds are None if it was not solved."""

    agent: str
    framework: str
    env_steps: int | None
    episodes: int | None
    seconds: float | None
    evaluation_mean: float
    evaluation_low: float
    evaluation_high: float


@dataclass(frozen=True)
class Demo:
    """Train both agents in both frameworks on CartPole-v1 and print one table."""

    seed: int = 0
    """Seed of all four runs."""
    save: bool = False
    """Keep the figures as benchmarks/results/demo.json, and the table in the README."""


def main(options: Demo) -> int:
    """Runs the demo; 1 if a run did not solve its environment."""
    rows = []
    folder = Path("runs") / datetime.datetime.now().strftime("demo-%Y%m%d-%H%M%S")
    for agent in AGENTS:
        for framework in FRAMEWORKS:
            print(f"\n{framework} train --agent {agent} --seed {options.seed}", flush=True)
            rows.append(measure(framework, agent, options.seed, folder))
    print(f"\n{table(rows)}\n")
    print(
        "Solved: the last 100 training episodes average at least 475, and so does an evaluation\n"
        "of the kept policy. Seconds include compilation and these evaluations. The last column\n"
        "is 100 fresh episodes of the kept policy in Gymnasium's own environment."
    )
    show_lockstep(options.seed, folder)
    if options.save:
        command = f"make demo (python -m benchmarks.demo --seed {options.seed} --save)"
        results.save("demo", command, {"rows": [row._asdict() for row in rows]})
        results.put_table("README.md", "demo", table(rows))
    return 0 if all(row.seconds is not None for row in rows) else 1


def show_lockstep(seed: int, folder: Path) -> None:
    """Both frameworks side by side on the same noise, for a few updates."""
    out = folder / "lockstep"
    arguments = ["--updates", str(LOCKSTEP_UPDATES), "--seed", str(seed), "--out", str(out)]
    print(f"\nparity lockstep {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "parity", "lockstep", *arguments], check=True)
    print(
        "On the same noise both frameworks are the same run: at every stage of every update, and\n"
        "each by itself as near to the other as PyTorch is to PyTorch nudged by one ulp."
    )


def measure(framework: str, agent: str, seed: int, folder: Path) -> DemoRow:
    """Trains and evaluates one agent in one framework."""
    run = folder / f"{framework}-{agent}"
    command = [sys.executable, "-m", framework]
    train = ["train", "--agent", agent, "--seed", str(seed), "--run-dir", str(run)]
    subprocess.run([*command, *train], check=True)
    evaluate = subprocess.run(
        [*command, "eval", str(run), "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    solved_at = json.loads((run / "result.json").read_text())["solved_at"] or {}
    evaluation = json.loads(evaluate.stdout)
    return DemoRow(
        agent,
        framework,
        solved_at.get("env_steps"),
        solved_at.get("episodes"),
        solved_at.get("seconds"),
        evaluation["mean_return"],
        *evaluation["interval_95"],
    )


def table(rows: list[DemoRow]) -> str:
    """The rows as a table."""
    return results.table(HEADER, [_cells(row) for row in rows])


def read_rows() -> list[DemoRow]:
    """The rows of the committed result."""
    return [DemoRow(**row) for row in results.load("demo")["rows"]]


def _cells(row: DemoRow) -> tuple[str, ...]:
    return (
        row.agent,
        row.framework,
        "not solved" if row.env_steps is None else f"{row.env_steps:,}",
        "" if row.episodes is None else f"{row.episodes:,}",
        "" if row.seconds is None else f"{row.seconds:.1f}",
        f"{row.evaluation_mean:.1f} ({row.evaluation_low:.1f} to {row.evaluation_high:.1f})",
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Demo)))
