"""How reliably and how soon the agents learn CartPole-v1, no seed picked.

    python -m benchmarks.learning --save

The defaults on 50 seeds in JAX and on 5 in PyTorch, each kept policy then on 1,000 fresh episodes
in Gymnasium's own environment; and the article's settings, with what lies between them and the
defaults. It leaves the run folders, and beside each policy its evaluation, under `runs/`; with
`--folder` it goes on where an earlier call was broken off.

`--save` keeps the figures as `benchmarks/results/learning.json`, the curves as `learning.png`, and
puts the tables into docs/learning.md.
"""

import datetime
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from benchmarks import results
from pgcore.agents import AGENTS
from pgcore.config import PRESETS, TrainConfig
from pgcore.evaluation import evaluate
from pgcore.plots.pictures import plot_runs
from pgcore.runs import RESULT, RunFolder

THRESHOLD = TrainConfig().solve_threshold
KEPT_THRESHOLD = 465
"""What a kept policy should average on 1,000 episodes; it was chosen by 475 on 100."""


class Setting(NamedTuple):
    """A configuration and what to call it."""

    name: str
    words: str
    config: TrainConfig


SETTINGS = (
    Setting("default", "8 episodes an update, statistics of the batch (default)", TrainConfig()),
    Setting("own", "8 episodes an update, each its own", TrainConfig(normalize="episode")),
    Setting("article", "1 episode an update, its own (`--preset article`)", PRESETS["article"]),
)


@dataclass(frozen=True)
class Learning:
    """Train on many seeds and say how often and how soon CartPole-v1 was solved."""

    seeds: int = 50
    """Seeds in JAX, from 0 up."""
    torch_seeds: int = 5
    """Seeds in PyTorch, from 0 up."""
    episodes: int = 1_000
    """Fresh episodes for each kept policy of the defaults."""
    jobs: int = 2
    """Processes that play these episodes, and that train in PyTorch."""
    folder: Path | None = None
    """A folder of an earlier call: what is done there is not done again."""
    save: bool = False
    """Keep the figures, the picture and the tables."""

    @property
    def command(self) -> str:
        """What gives these figures."""
        return (
            f"python -m benchmarks.learning --seeds {self.seeds} --torch-seeds {self.torch_seeds} "
            f"--episodes {self.episodes} --save"
        )


class Seed(NamedTuple):
    """What one seed came to."""

    seed: int
    env_steps: int | None
    """To solve; None if it was not solved."""
    kept: float
    """Mean return of the kept policy on the 100 episodes by which it was chosen."""
    last_100: float
    """Mean return of the last 100 training episodes."""
    evaluation: float | None
    """Mean return of the kept policy on fresh episodes in Gymnasium, where they were played."""


def main(options: Learning) -> int:
    """Trains, evaluates and prints; 1 if a run with the defaults fell short."""
    new = Path("runs") / datetime.datetime.now().strftime("learning-%Y%m%d-%H%M%S")
    folder = options.folder or new
    defaults: dict[str, dict[str, list[Seed]]] = {}
    for agent in AGENTS:
        in_jax, in_torch = folder / f"default-{agent}", folder / f"pgtorch-{agent}"
        train_in_jax(SETTINGS[0].config, agent, options.seeds, in_jax)
        train_in_torch(agent, options.torch_seeds, options.jobs, in_torch)
        defaults[agent] = {
            name: read_seeds(run, evaluate_kept(run, options.episodes, options.jobs))
            for name, run in (("pgjax", in_jax), ("pgtorch", in_torch))
        }
        print(f"\n{defaults_table({agent: defaults[agent]})}", flush=True)
    settings: dict[str, dict[str, list[Seed]]] = {}
    for setting in SETTINGS:
        for agent in AGENTS:
            run = folder / f"{setting.name}-{agent}"
            if setting.name != "default":
                train_in_jax(setting.config, agent, options.seeds, run)
            settings.setdefault(setting.words, {})[agent] = read_seeds(run)
    print(f"\n{settings_table(settings)}")
    if options.save:
        figures = {"episodes": options.episodes, "defaults": defaults, "settings": settings}
        results.save("learning", options.command, _plain(figures))
        results.put_table("docs/learning.md", "learning: defaults", defaults_table(defaults))
        results.put_table("docs/learning.md", "learning: settings", settings_table(settings))
        curves = [folder / f"default-{agent}" for agent in AGENTS]
        plot_runs(curves, results.RESULTS / "learning.png")
    all_seeds = [s for sides in defaults.values() for seeds in sides.values() for s in seeds]
    return 1 if any(map(falls_short, all_seeds)) else 0


def train_in_jax(config: TrainConfig, agent: Any, num_seeds: int, run_dir: Path) -> None:
    """Trains all seeds at once into a folder of seeds, unless that is there."""
    import pgjax

    if run_dir.exists():
        return
    pgjax.train_seeds(replace(config, agent=agent, run_dir=run_dir), range(num_seeds))


def train_in_torch(agent: Any, num_seeds: int, jobs: int, run_dir: Path) -> None:
    """Trains each seed in a process into a run folder `run_dir/seed-N`."""
    configs = [
        TrainConfig(agent=agent, seed=seed, run_dir=run_dir / f"seed-{seed}")
        for seed in range(num_seeds)
        if not (run_dir / f"seed-{seed}").exists()
    ]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(_train_in_torch, configs))


def evaluate_kept(run_dir: Path, episodes: int, jobs: int) -> list[float]:
    """The mean return of each seed's kept policy on fresh episodes in Gymnasium."""
    runs = _seeds_of(run_dir)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_evaluate, runs, [episodes] * len(runs)))


def read_seeds(run_dir: Path, evaluations: list[float] | None = None) -> list[Seed]:
    """What the seeds in a folder came to, in order."""
    found = []
    for index, path in enumerate(_seeds_of(run_dir)):
        run = RunFolder.open(path)
        result = json.loads((path / RESULT).read_text())
        if result["ended"] not in ("solved", "budget spent"):
            raise SystemExit(f"{path} was broken off; delete {run_dir}, and it is made anew")
        found.append(
            Seed(
                seed=run.config.seed,
                env_steps=result["solved_at"] and result["solved_at"]["env_steps"],
                kept=result["evaluation"]["mean_return"],
                last_100=run.read_rows()[-1].mean_return_100,
                evaluation=None if evaluations is None else evaluations[index],
            )
        )
    return found


def falls_short(seed: Seed) -> bool:
    """Whether it was not solved, or its kept policy does not hold what it promised."""
    return seed.env_steps is None or (seed.evaluation or 0) < KEPT_THRESHOLD


def defaults_table(defaults: dict[str, dict[str, list[Seed]]]) -> str:
    """A line for each agent and framework."""
    header = (
        "agent",
        "framework",
        "solved",
        "environment steps: median (worst)",
        "kept policy on fresh episodes: mean (worst seed)",
        "seeds that fall short",
    )
    rows = []
    for agent, sides in defaults.items():
        for framework, seeds in sides.items():
            steps = [seed.env_steps for seed in seeds if seed.env_steps is not None]
            evaluations = [seed.evaluation or 0.0 for seed in seeds]
            short = [str(seed.seed) for seed in seeds if falls_short(seed)]
            rows.append(
                (
                    agent,
                    framework,
                    f"{len(steps)} of {len(seeds)}",
                    f"{np.median(steps):,.0f} ({max(steps):,})" if steps else "",
                    f"{np.mean(evaluations):.1f} ({min(evaluations):.1f})",
                    ", ".join(short) or "none",
                )
            )
    return results.table(header, rows)


def settings_table(settings: dict[str, dict[str, list[Seed]]]) -> str:
    """A line for each setting and agent."""
    header = (
        "settings",
        "agent",
        "solved",
        "median steps of the solved",
        f"kept policy at {THRESHOLD:g} or more",
        "unsolved: median of the last 100 episodes",
    )
    rows = []
    for words, agents in settings.items():
        for agent, seeds in agents.items():
            steps = [seed.env_steps for seed in seeds if seed.env_steps is not None]
            unsolved = [seed.last_100 for seed in seeds if seed.env_steps is None]
            rows.append(
                (
                    words,
                    agent,
                    f"{len(steps)} of {len(seeds)}",
                    f"{np.median(steps):,.0f}" if steps else "",
                    f"{sum(seed.kept >= THRESHOLD for seed in seeds)} of {len(seeds)}",
                    f"{np.median(unsolved):.0f}" if unsolved else "",
                )
            )
    return results.table(header, rows)


def read_results() -> tuple[dict[str, Any], dict[str, Any]]:
    """The committed figures of the defaults and of the settings."""
    figures = results.load("learning")
    return _seeds(figures["defaults"]), _seeds(figures["settings"])


def _seeds(values: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, dict[str, list[Seed]]]:
    return {
        name: {key: [Seed(**seed) for seed in seeds] for key, seeds in sides.items()}
        for name, sides in values.items()
    }


def _plain(value: Any) -> Any:
    """Seeds as tables, for JSON."""
    if isinstance(value, Seed):
        return value._asdict()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _seeds_of(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("seed-*"), key=lambda path: int(path.name.removeprefix("seed-")))


def _train_in_torch(config: TrainConfig) -> None:
    import pgtorch

    pgtorch.train(config)


def _evaluate(path: Path, episodes: int) -> float:
    import pgjax

    file = path / f"evaluation-{episodes}.json"
    if file.exists():
        return json.loads(file.read_text())["mean_return"]
    run = RunFolder.open(path)
    act = pgjax.make_act(*pgjax.load_policy(run.policy_path))
    seed = 1_000_000 + run.config.seed  # no evaluation by hand has these episodes
    found = evaluate(act, run.config.agent, run.config.env_id, episodes=episodes, seed=seed)
    file.write_text(json.dumps({"mean_return": found.mean}) + "\n")
    return found.mean


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Learning)))
