"""How the cost of a training step grows: with episodes, with their length, width and seeds.

    python -m benchmarks.growth [--save]

One thing grows at a time, from 64 episodes of 500 steps, hidden layers of 24 and 12, and one seed.
The policy is one that solves CartPole-v1, and no update changes it; wider networks are as they are
drawn, with short episodes. Time is by environment step that was learned from, as everywhere.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import pgjax
from benchmarks import results
from pgcore.commands.benching import STANDING_STILL

NAME, PAGE = "growth", "docs/speed.md"
BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
HORIZONS = (10, 50, 100, 250, 500, 1000)
WIDTHS = (24, 64, 128, 256, 512, 1024)
SEEDS = (1, 2, 4, 8, 16, 32, 64, 128)
REPEATS = 5


class Point(NamedTuple):
    """One measurement: what it is of, seconds a training step, steps that were learned from."""

    value: int
    seconds: float
    steps: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    solved = pgjax.train(pgjax.TrainConfig()).params
    curves = {
        "episodes": [Point(n, *timed(solved, episodes=n)) for n in BATCHES],
        "horizon": [Point(n, *timed(solved, max_steps=n)) for n in HORIZONS],
        "width": [Point(n, *timed(None, width=n)) for n in WIDTHS],
        "seeds": [Point(n, *timed(solved, seeds=n)) for n in SEEDS],
    }
    print(table(curves))
    if options.save:
        figures = {name: [point._asdict() for point in curve] for name, curve in curves.items()}
        results.save(NAME, "python -m benchmarks.growth", figures)
        results.put_table(PAGE, NAME, table(curves))
        picture(curves)


def timed(
    params: Any, *, episodes: int = 64, max_steps: int = 500, width: int = 24, seeds: int = 1
) -> tuple[float, float]:
    """The median seconds of a jitted training step, and what it learns from.

    Several seeds are lanes of one `vmap`.
    """
    sizes = (width, max(width // 2, 1))
    config = pgjax.TrainConfig(
        episodes_per_update=episodes, hidden_sizes=sizes, learning_rate=STANDING_STILL
    )
    policy, env = pgjax.make_policy("reinforce", 4, 2, sizes), pgjax.CartPole(max_steps)
    if params is not None:
        policy = policy._replace(init=lambda key: params)
    optimizer = pgjax.make_optimizer(config)
    state = pgjax.init(jax.random.key(0), policy, optimizer)
    train_step: Callable[..., Any] = pgjax.make_train_step(policy, env, optimizer, config)
    if seeds > 1:
        train_step = jax.vmap(train_step, (None, 0))
    compiled = jax.jit(train_step)
    times, steps = [], []
    for update in range(REPEATS + 1):
        key = jax.random.key(update)
        key = key if seeds == 1 else jax.random.split(key, seeds)
        started = time.perf_counter()
        _, metrics = compiled(state, key)
        steps.append(int(np.sum(metrics.num_steps)))
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]), statistics.mean(steps[1:])


def exponents(curve: list[Point]) -> list[float]:
    """Of the seconds as a power of what grows, from each point to the next."""
    return [
        math.log(after.seconds / before.seconds) / math.log(after.value / before.value)
        for before, after in itertools.pairwise(curve)
    ]


def table(curves: dict[str, list[Point]]) -> str:
    """Each curve's points, with the exponent that leads to each."""
    rows = []
    for name, curve in curves.items():
        for point, power in zip(curve, [math.nan, *exponents(curve)], strict=True):
            rows.append(
                (
                    name,
                    f"{point.value:,}",
                    f"{point.seconds * 1e3:,.2f}",
                    f"{point.steps / point.seconds:,.0f}",
                    "" if math.isnan(power) else f"{power:.2f}",
                )
            )
    return results.table(("what grows", "to", "ms a step", "env-steps/s", "exponent"), rows)


def picture(curves: dict[str, list[Point]]) -> None:
    """Nanoseconds by environment step, one panel for each thing that grows."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained", sharey=True)
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        each = [1e9 * point.seconds / point.steps for point in curve]
        axis.loglog([point.value for point in curve], each, "o-", base=10)
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ns an environment step")
    figure.savefig(results.RESULTS / f"{NAME}.png", dpi=100)


if __name__ == "__main__":
    main()
