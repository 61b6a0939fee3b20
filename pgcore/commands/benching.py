"""What the command `bench` does, for `pgjax` and `pgtorch` alike."""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pgcore.agents import AgentName, find_agent
from pgcore.commands.framework import Framework
from pgcore.config import TrainConfig
from pgcore.errors import require, require_count, require_seed
from pgcore.runs.system import system

MATMUL_SIZE = 1024
STANDING_STILL = 1e-30
"""A learning rate that changes no weight: what is measured stays as well trained as it was."""


@dataclass(frozen=True)
class Bench:
    """Measure how fast training is on this machine, with a policy that solves CartPole-v1."""

    agent: AgentName = "reinforce"
    """reinforce: a categorical policy. reparam: the Gaussian reparameterization-trick variant."""
    batches: tuple[int, ...] = (1, 8, 64, 256, 1024)
    """Episodes an update, one measurement for each."""
    hidden_sizes: tuple[int, ...] = (24, 12)
    """Widths of the hidden layers, from the observation up."""
    repeats: int = 9
    """Updates that are timed; the median is the figure."""
    seed: int = 0
    """Seed of the training that makes the policy, from 0 to 2^32 - 1."""
    json: bool = False
    """Print one JSON object instead of a table."""


class Measured(NamedTuple):
    """One batch size."""

    episodes: int
    steps_per_second: float
    """Environment steps that were learned from, by the median time."""
    slowest: float
    fastest: float
    compile_seconds: float
    """Of the first call, less what a later one takes."""
    share_of_peak: float
    """Useful floating-point operations, forward and backward, by those of a matrix product."""
    mean_length: float
    memory_bytes: int | None
    """Beyond arguments and results, where the framework knows it."""


def bench(name: str, load: Callable[[], Framework], command: Bench) -> int:
    """Trains a policy, measures updates with it, prints the figures, returns the exit code."""
    require(bool(command.batches), "batches", command.batches, "at least one number of episodes")
    for episodes in command.batches:
        require_count("batches", episodes)
    require_count("repeats", command.repeats)
    require_seed(command.seed)
    config = TrainConfig(agent=command.agent, hidden_sizes=command.hidden_sizes, seed=command.seed)
    framework = load()
    result = framework.train(config)
    if result.solved_at is None:
        print(f"{name}: warning: the policy that is measured does not solve it", file=sys.stderr)
    peak = matmul_peak(framework)
    rows = [
        measure(framework, config, result.params, episodes, command.repeats, peak)
        for episodes in command.batches
    ]
    if command.json:
        figures = {"peak_flops": peak, "batches": [row._asdict() for row in rows]}
        print(json.dumps({"agent": command.agent} | system(name) | figures))
    else:
        print(_report(name, command, rows, peak))
    return 0


def measure(
    framework: Framework,
    config: TrainConfig,
    params: Any,
    episodes: int,
    repeats: int,
    peak: float,
) -> Measured:
    """Times updates on fresh episodes of a policy, one by one, after two that warm up."""
    standing = replace(
        config,
        episodes_per_update=episodes,
        learning_rate=STANDING_STILL,
        normalize="batch",
    )
    case = framework.bench(standing, params)
    seconds, steps = [], []
    for update in range(repeats + 2):
        started = time.perf_counter()
        steps.append(case.step(update))
        seconds.append(time.perf_counter() - started)
    speeds = [n / s for n, s in zip(steps[2:], seconds[2:], strict=True)]
    speed = statistics.median(speeds)
    return Measured(
        episodes,
        speed,
        min(speeds),
        max(speeds),
        max(seconds[0] - statistics.median(seconds[2:]), 0),
        speed * flops_per_step(_sizes(config.agent, config.hidden_sizes)) / peak,
        sum(steps) / len(steps) / episodes,
        case.memory_bytes(),
    )


def matmul_peak(framework: Framework) -> float:
    """Floating-point operations a second of a large float32 matrix product: the best of many."""
    multiply = framework.matmul(MATMUL_SIZE)
    multiply()
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    return 2 * MATMUL_SIZE**3 / best


def flops_per_step(sizes: tuple[int, ...]) -> int:
    """Useful operations of one environment step: forward once, backward once.

    A layer from m to n numbers takes 2mn forward, 2mn for its weights' gradient and 2mn for what is
    handed down, which the first layer need not. Whatever is computed again is not counted.

    >>> flops_per_step((4, 24, 12, 2))
    2256
    """
    layers = [2 * m * n for m, n in itertools.pairwise(sizes)]
    return 3 * sum(layers) - layers[0]


def _report(name: str, command: Bench, rows: list[Measured], peak: float) -> str:
    network = "-".join(map(str, _sizes(command.agent, command.hidden_sizes)))
    title = f"{name}, {command.agent} on CartPole-v1, network {network}"
    header = ("episodes", "env-steps/s", "slowest to fastest", "compile", "of peak", "memory")
    lines = [
        f"{title}; matrix products of float32: {peak / 1e9:.0f} GFLOP/s",
        "",
        *(_LINE.format(*cells).rstrip() for cells in [header, *map(_cells, rows)]),
    ]
    length = statistics.mean(row.mean_length for row in rows)
    counted = f"Medians of {command.repeats} updates; only steps that were learned from count."
    return "\n".join([*lines, "", f"{counted} Episodes are {length:.0f} steps long."])


_LINE = "{:>8}  {:>12}  {:>24}  {:>7}  {:>7}  {:>10}"


def _cells(row: Measured) -> tuple[str, ...]:
    return (
        f"{row.episodes:,}",
        f"{row.steps_per_second:,.0f}",
        f"{row.slowest:,.0f} to {row.fastest:,.0f}",
        f"{row.compile_seconds:.1f} s",
        f"{row.share_of_peak:.1%}",
        "" if row.memory_bytes is None else f"{row.memory_bytes / 1e6:,.1f} MB",
    )


def _sizes(agent: str, hidden_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """CartPole's four observations, the hidden layers, two actions' outputs of each head."""
    return 4, *hidden_sizes, 2 * max(len(find_agent(agent).heads), 1)
