"""How many environment steps a second are learned from, against PyTorch, side by side.

    python -m benchmarks.throughput [--rounds 5] [--only NAME ...] [--save]

Every contender is a fresh process, in turn, round after round, with one core unless it says two.
All start from one policy that solves CartPole-v1, and no update changes it (a learning rate of
1e-30), so episodes stay as long; those "from scratch" learn, from fresh parameters until the
episodes of an update average 475, again and again. Only steps that are learned from count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import results
from benchmarks.contenders import CONTENDERS, MAKERS, Contender
from pgcore.commands.benching import flops_per_step

NAME, PAGES = "throughput", ("README.md", "docs/speed.md")
SECONDS = 2.0
"""How long a contender is timed in each round, after it has warmed up."""
FLOPS = {"reinforce": flops_per_step((4, 24, 12, 2)), "reparam": flops_per_step((4, 24, 12, 4))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(CONTENDERS[options.worker[0]], Path(options.worker[1]))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory() as folder:
        policies = Path(folder)
        for agent in ("reinforce", "reparam"):
            make_policy(agent, policies)
        for number in range(options.rounds):
            for name in options.only:
                runs[name].append(timed(name, policies))
                speed = runs[name][-1]["steps_per_second"]
                print(f"round {number + 1}, {name}: {speed:,.0f} steps/s", flush=True)
    print(table(runs))
    if options.save:
        results.save(NAME, f"python -m benchmarks.throughput --rounds {options.rounds}", runs)
        for page in PAGES:
            results.put_table(page, NAME, table(runs))


def make_policy(agent: str, folder: Path) -> None:
    """A policy that solves it, as a file that both frameworks read."""
    script = (
        "import sys, pgjax; config = pgjax.TrainConfig(agent=sys.argv[1]); "
        "result = pgjax.train(config); assert result.solved_at; "
        "pgjax.save_policy(sys.argv[2], config, result.params)"
    )
    command = [sys.executable, "-c", script, agent, str(folder / f"{agent}.safetensors")]
    subprocess.run(command, check=True, cwd=results.ROOT)


def timed(name: str, policies: Path) -> dict[str, float]:
    """One round of one contender, in a process of its own."""
    one = {"OMP_NUM_THREADS": "1"} if CONTENDERS[name].cores == 1 else {}
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    two = flags if CONTENDERS[name].kind == "devices" else {}
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", "--worker", name, str(policies)],
        env=os.environ | one | two,
        stdout=subprocess.PIPE,
        check=True,
        cwd=results.ROOT,
    )
    return json.loads(result.stdout.splitlines()[-1])


def work(contender: Contender, policies: Path) -> None:
    """Times one contender and prints its figures as JSON."""
    if contender.cores == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    started = time.perf_counter()
    step = MAKERS[contender.kind](contender, str(policies / f"{contender.agent}.safetensors"))
    step()
    first = time.perf_counter() - started
    steps = step()
    speeds, until = [], time.perf_counter() + SECONDS
    while len(speeds) < 3 or time.perf_counter() < until:
        before = time.perf_counter()
        steps = step()
        speeds.append(steps / (time.perf_counter() - before))
    figures = {"steps_per_second": statistics.median(speeds), "first_call": first, "steps": steps}
    if contender.kind in ("jax", "twin"):
        figures["peak_flops"] = peak()
    print(json.dumps(figures))


def peak() -> float:
    """Floating-point operations a second of NumPy's float32 matrix product, the best of 20."""
    import numpy as np

    matrix, best = np.ones((1024, 1024), np.float32), float("inf")
    for _ in range(20):
        before = time.perf_counter()
        _ = matrix @ matrix
        best = min(best, time.perf_counter() - before)
    return 2 * 1024**3 / best


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Medians over the rounds, with their spread."""
    peaks = [run["peak_flops"] for rows in runs.values() for run in rows if "peak_flops" in run]
    one_core = statistics.median(peaks) if peaks else float("nan")
    rows = []
    for name, found in runs.items():
        contender = CONTENDERS[name]
        speeds = [run["steps_per_second"] for run in found]
        speed = statistics.median(speeds)
        share = f"{speed * FLOPS[contender.agent] / one_core:.0%}" if contender.cores == 1 else ""
        rows.append(
            (
                contender.label,
                contender.agent,
                f"{contender.episodes:,}",
                f"{speed:,.0f}",
                f"{min(speeds):,.0f} to {max(speeds):,.0f}",
                share,
                f"{statistics.median(run['first_call'] for run in found):.1f}",
            )
        )
    header = ("contender", "agent", "episodes", "steps/s", "rounds", "of peak", "first call, s")
    return results.table(header, rows)


if __name__ == "__main__":
    main()
