"""A hundred seeds to solved in one call: seconds of compiling, and of all the rest.

python -m benchmarks.many_seeds [--seeds 100] [--save]
"""

import argparse
import time
from typing import Any

import jax

import pgjax
from benchmarks import results

NAME, PAGE = "many_seeds", "docs/speed.md"
COMPILING = "/jax/core/compile/backend_compile_duration"
"""What JAX calls the event. (Those of tracing lie within one another, and are left to the rest.)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    figures = [timed(agent, options.seeds) for agent in ("reinforce", "reparam")]
    for row in figures:
        print(
            f"{row['agent']}: {row['solved']} of {row['seeds']} solved, {row['steps']:,} steps, "
            f"{row['compiling']:.1f} s compiling, {row['running']:.1f} s running"
        )
    if options.save:
        results.save(NAME, "python -m benchmarks.many_seeds", {"runs": figures})
        results.put_table(PAGE, NAME, table(figures))


def timed(agent: str, num_seeds: int) -> dict[str, Any]:
    """Trains them, and tells the seconds apart."""
    spent: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILING:
            spent.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    started = time.perf_counter()
    runs = pgjax.train_seeds(
        pgjax.TrainConfig.from_dict(pgjax.TrainConfig().to_dict() | {"agent": agent}),
        range(num_seeds),
    )
    seconds = time.perf_counter() - started
    compiling = sum(spent)
    jax.monitoring.clear_event_listeners()
    return {
        "agent": agent,
        "seeds": num_seeds,
        "solved": sum(run.solved_at is not None for run in runs),
        "steps": sum(run.history[-1].env_steps for run in runs),
        "compiling": compiling,
        "running": seconds - compiling,
    }


def table(figures: list[dict[str, Any]]) -> str:
    """A row for each agent."""
    rows = [
        (
            row["agent"],
            f"{row['solved']} of {row['seeds']}",
            f"{row['steps']:,}",
            f"{row['compiling']:.1f}",
            f"{row['running']:.1f}",
        )
        for row in figures
    ]
    header = ("agent", "solved", "steps learned from", "compiling, s", "the rest, s")
    return results.table(header, rows)


if __name__ == "__main__":
    main()
