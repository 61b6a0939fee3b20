"""Do the two frameworks learn alike? 30 seeds a side, from the same weights and law of noise.

Both sides of a seed start from the same parameters, drawn by pgtorch and carried over by the
neutral schema. Noise and initial states follow the same laws, each side's own draws. Compared are
the environment steps until CartPole-v1 is solved, by a permutation test at 1%; a run that is not
solved counts with what it was given. The shift that the test could have detected says what "no
difference found" is worth.

`--save` keeps the figures and the picture under `benchmarks/results/`.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

from benchmarks import results
from pgcore.config import TrainConfig

AGENTS = ("reinforce", "reparam")
FRAMEWORKS = ("pgjax", "pgtorch")
LEVEL = 0.01
POWER = 0.9
NUM_PERMUTATIONS = 10_000
NUM_SIMULATIONS = 1_000

Steps = dict[str, dict[str, list[int | None]]]
"""`steps[agent][framework]`: environment steps to solve, one a seed; None if it was not solved."""


@dataclass(frozen=True)
class Alike:
    """Train both frameworks from the same weights and compare how soon they solve CartPole-v1."""

    seeds: int = 30
    """Seeds a side."""
    jobs: int = 2
    """Processes that train pgtorch's seeds."""
    save: bool = False
    """Keep the figures and the picture under benchmarks/results/."""


class Verdict(NamedTuple):
    """One agent's comparison."""

    p_value: float
    """Of the difference in mean log steps, two-sided."""
    ratio: float
    """Geometric mean of pgjax's steps over pgtorch's."""
    detectable_ratio: float
    """The smallest ratio that the test would have found, at its level, with probability 0.9."""


def main(options: Alike) -> int:
    """Runs the comparison; 1 if the frameworks differ at the level of 1%."""
    seeds = list(range(options.seeds))
    steps: Steps = {}
    for agent in AGENTS:
        starts = [initial_tensors(agent, seed) for seed in seeds]
        steps[agent] = {
            "pgjax": jax_steps(agent, seeds, starts),
            "pgtorch": torch_steps(agent, seeds, starts, options.jobs),
        }
    budget = TrainConfig().total_timesteps
    verdicts = {agent: judge(steps[agent], budget) for agent in AGENTS}
    print(table(steps, verdicts))
    if options.save:
        figures = {
            "seeds": options.seeds,
            "budget": budget,
            "steps": steps,
            "verdicts": {agent: verdict._asdict() for agent, verdict in verdicts.items()},
        }
        results.save("alike", "python -m benchmarks.alike --save", figures)
        draw(steps, budget)
    return 0 if all(verdict.p_value >= LEVEL for verdict in verdicts.values()) else 1


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


def _train_in_torch(agent: Any, seed: int, start: dict[str, np.ndarray]) -> int | None:
    import torch

    import pgtorch

    template = pgtorch.make_policy(agent, 4, 2).init(torch.Generator())
    params = pgtorch.tensors_to_params(start, template)
    solved_at = pgtorch.train(TrainConfig(agent=agent, seed=seed), params=params).solved_at
    return solved_at and solved_at.env_steps
