"""Do the two frameworks learn alike? 30 seeds a side, from the same weights and law of noise.

    python -m benchmarks.alike --save

Both sides of a seed start from the same parameters, drawn by pgtorch and carried over by the
neutral schema. Noise and initial states follow the same laws, each side's own draws. Compared are
the logarithms of the environment steps until CartPole-v1 is solved, by a permutation test of their
means; a run that is not solved counts with the whole budget. The ratio that the test would have
found says what "no difference" is worth.

`--save` keeps the figures and the picture under `benchmarks/results/`, and puts the table into
docs/learning.md. `--recorded` trains nothing and judges the kept figures anew.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import tyro

from benchmarks import results
from pgcore.config import TrainConfig
from pgcore.plots.pictures import NO_DATES, STYLES

AGENTS = ("reinforce", "reparam")
BUDGET = TrainConfig().total_timesteps
LEVEL = 0.01
POWER = 0.9
NUM_PERMUTATIONS = 10_000
NUM_SIMULATIONS = 1_000
RATIOS = np.arange(1.02, 3.0, 0.02)
"""Ratios of steps that are tried in search of the smallest that would be found."""

Steps = dict[str, list[int | None]]
"""Environment steps to solve by framework, one a seed; None if it was not solved."""


@dataclass(frozen=True)
class Alike:
    """Train both frameworks from the same weights and compare how soon they solve CartPole-v1."""

    seeds: int = 30
    """Seeds a side."""
    jobs: int = 2
    """Processes that train pgtorch's seeds."""
    save: bool = False
    """Keep the figures, the picture and the table."""
    recorded: bool = False
    """Judge the kept figures instead of training."""


class Verdict(NamedTuple):
    """One agent's comparison."""

    p_value: float
    """Of the difference in mean log steps, two-sided."""
    ratio: float
    """Geometric mean of pgjax's steps over that of pgtorch's."""
    detectable_ratio: float
    """The smallest ratio that would have been found with probability 0.9, either way round."""


def main(options: Alike) -> int:
    """Runs the comparison; 1 if the frameworks differ at the level of 1%."""
    if options.recorded:
        steps = results.load("alike")["steps"]
    else:
        steps = {
            agent: measure(agent, list(range(options.seeds)), options.jobs) for agent in AGENTS
        }
    verdicts = {agent: judge(each) for agent, each in steps.items()}
    print(table(steps, verdicts))
    if options.save:
        figures = {
            "budget": BUDGET,
            "steps": steps,
            "verdicts": {agent: verdict._asdict() for agent, verdict in verdicts.items()},
        }
        recorded = results.load("alike") if options.recorded else {}
        kept = {key: recorded[key] for key in ("command", "machine") if key in recorded}
        command = f"python -m benchmarks.alike --seeds {options.seeds} --save"
        results.save("alike", command, figures | kept)
        results.put_table("docs/learning.md", "alike", table(steps, verdicts))
        draw(steps, verdicts)
    return 0 if all(verdict.p_value >= LEVEL for verdict in verdicts.values()) else 1


def measure(agent: str, seeds: list[int], jobs: int) -> Steps:
    """Trains one agent on both sides."""
    starts = [initial_tensors(agent, seed) for seed in seeds]
    return {
        "pgjax": jax_steps(agent, seeds, starts),
        "pgtorch": torch_steps(agent, seeds, starts, jobs),
    }


def initial_tensors(agent: str, seed: int) -> dict[str, np.ndarray]:
    """The parameters that both sides of a seed start from."""
    import torch

    import pgtorch

    policy = pgtorch.make_policy(agent, 4, 2)
    return pgtorch.params_to_tensors(policy.init(torch.Generator().manual_seed(seed)))


def jax_steps(agent: str, seeds: list[int], starts: list[dict[str, np.ndarray]]) -> list[Any]:
    """pgjax's environment steps to solve, of all seeds at once."""
    import jax

    import pgjax

    template = pgjax.make_policy(agent, 4, 2).init(jax.random.key(0))
    params = [pgjax.tensors_to_params(start, template) for start in starts]
    config = TrainConfig(agent=agent)  # pyright: ignore[reportArgumentType]
    trained = pgjax.train_seeds(config, seeds, params=params)
    return [result.solved_at and result.solved_at.env_steps for result in trained]


def torch_steps(
    agent: str, seeds: list[int], starts: list[dict[str, np.ndarray]], jobs: int
) -> list[Any]:
    """pgtorch's environment steps to solve, a process a seed."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        found = []
        for steps in pool.map(_train_in_torch, [agent] * len(seeds), seeds, starts):
            found.append(steps)
            print(f"pgtorch {agent} seed {seeds[len(found) - 1]}: {steps} steps", flush=True)
        return found


def judge(steps: Steps) -> Verdict:
    """Compares the two sides of one agent."""
    rng = np.random.default_rng(0)
    ours, theirs = (_log_steps(steps[framework]) for framework in ("pgjax", "pgtorch"))
    [p_value] = p_values(ours[:, None], theirs[:, None], rng)
    # Each side about its own mean: what differs now must not count as spread.
    pool = np.concatenate([ours - ours.mean(), theirs - theirs.mean()])
    ratio = float(np.exp(ours.mean() - theirs.mean()))
    return Verdict(float(p_value), ratio, detectable(pool, rng))


def p_values(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two-sided permutation tests of a difference in means, one a column.

        p = (1 + #{permutations with |difference| ≥ |observed|}) / (1 + #permutations)

    Args:
        ours: `[N, S]`, S tests of N values a side.
        theirs: `[N, S]`.
        rng: Draws the permutations, the same for all tests.
    """
    num = len(ours)
    signs = np.repeat([1.0, -1.0], num) / num
    permutations = rng.permuted(np.tile(signs, (NUM_PERMUTATIONS, 1)), axis=1)
    values = np.concatenate([ours, theirs])
    # Splits that are equal may differ in their last bits: they are summed in another order.
    observed = np.abs(signs @ values) - 1e-12 * np.abs(values).max(axis=0)
    extreme = np.abs(permutations @ values) >= observed
    return (1 + extreme.sum(axis=0)) / (1 + NUM_PERMUTATIONS)


def detectable(pool: np.ndarray, rng: np.random.Generator) -> float:
    """The smallest of `RATIOS` that the test finds in at least 90% of simulated comparisons.

    Args:
        pool: Log steps, centred, from which both sides are drawn with replacement.
        rng: Draws them.
    """
    num = len(pool) // 2
    for ratio in RATIOS:
        ours, theirs = rng.choice(pool, size=(2, num, NUM_SIMULATIONS))
        if np.mean(p_values(ours + np.log(ratio), theirs, rng) < LEVEL) >= POWER:
            return float(ratio)
    return float("inf")


def table(steps: dict[str, Steps], verdicts: dict[str, Verdict]) -> str:
    """A line for each agent."""
    header = (
        "agent",
        "pgjax: solved, median steps",
        "pgtorch: solved, median steps",
        "ratio of steps",
        "p",
        "ratio that would have been found",
    )
    rows = []
    for agent, verdict in verdicts.items():
        sides = [
            f"{sum(each is not None for each in side)} of {len(side)}, "
            f"{np.median([each or BUDGET for each in side]):,.0f}"
            for side in (steps[agent][framework] for framework in ("pgjax", "pgtorch"))
        ]
        figures = (verdict.ratio, verdict.p_value, verdict.detectable_ratio)
        rows.append((agent, *sides, *(f"{figure:.2f}" for figure in figures)))
    return results.table(header, rows)


def draw(steps: dict[str, Steps], verdicts: dict[str, Verdict]) -> None:
    """The share of seeds solved by so many environment steps, as `results/alike.png`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, PercentFormatter

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, len(steps), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (agent, sides) in zip(panels, steps.items(), strict=True):
        for (framework, side), (colour, _) in zip(sides.items(), STYLES, strict=False):
            ends = [np.inf if each is None else each for each in side]
            axes.ecdf(ends, label=f"{framework}, {len(side)} seeds", color=colour)
        verdict = verdicts[agent]
        axes.set_title(
            f"{agent}: p = {verdict.p_value:.2f}; a ratio of {verdict.detectable_ratio:.2f} "
            "would have been found",
            fontsize="medium",
        )
        axes.set_xlabel("environment steps to solve")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", frameon=False)
    panels[0].set_ylabel("seeds solved")
    figure.suptitle("CartPole-v1, from the same initial weights")
    figure.savefig(results.RESULTS / "alike.png", dpi=120, metadata=NO_DATES[".png"])


def _log_steps(side: list[int | None]) -> np.ndarray:
    return np.log([BUDGET if each is None else each for each in side])


def _train_in_torch(agent: Any, seed: int, start: dict[str, np.ndarray]) -> int | None:
    import torch

    import pgtorch

    template = pgtorch.make_policy(agent, 4, 2).init(torch.Generator())
    params = pgtorch.tensors_to_params(start, template)
    solved_at = pgtorch.train(TrainConfig(agent=agent, seed=seed), params=params).solved_at
    return solved_at and solved_at.env_steps


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Alike)))
