"""What the command `eval` does, for `pgjax` and `pgtorch` alike."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from pgcore.commands.framework import Framework
from pgcore.envs.gym import gym_spec
from pgcore.errors import UsageError, printable, require, require_count, require_seed
from pgcore.evaluation import Evaluation, playing
from pgcore.runs import POLICY, RunFolder, has_seeds
from pgcore.runs.seeds_folder import open_begun


@dataclass(frozen=True)
class Eval:
    """Evaluate a run's kept policy in the real Gymnasium environment."""

    run_dir: tyro.conf.Positional[Path]
    """The run folder, or a folder of several seeds. Either framework's will do."""
    episodes: int = 100
    """Fresh episodes to play."""
    seed: int = 0
    """Seed of the episodes' initial states and noise, from 0 to 2^32 - 1."""
    greedy: bool = False
    """Always take the most likely action."""
    env_id: str | None = None
    """The run's environment. Needed only where it names a module to import, MODULE:ID: a run
    folder alone can't have code run."""
    json: bool = False
    """Print one JSON object instead of a sentence."""


def evaluate(name: str, load: Callable[[], Framework], command: Eval) -> int:
    """Evaluates a run's kept policy, or each seed's, prints the figures, returns the exit code."""
    require_count("episodes", command.episodes)
    require_seed(command.seed)
    if command.env_id is not None:
        gym_spec(command.env_id)  # which imports its module
    if has_seeds(command.run_dir):
        return _evaluate_seeds(name, load, command)
    run = RunFolder.open(command.run_dir)
    _check(run, command)
    result = _evaluate_run(load(), run, command)
    if command.json:
        _print_json(command, result.summary())
    else:
        print(printable(f"{run.config.agent} on {run.config.env_id}: {_describe(result)}"))
    return 0


def _evaluate_seeds(name: str, load: Callable[[], Framework], command: Eval) -> int:
    """Evaluates each seed's kept policy, all on the same episodes.

    A seed that was stopped before its first update has none; it is named and left out.
    """
    runs, without = open_begun(command.run_dir, POLICY)
    for run in runs:
        _check(run, command)
    kinds = {(run.config.agent, run.config.env_id): str(run.path) for run in runs}
    if len(kinds) > 1:
        found = ", ".join(f"{agent} on {env} ({path})" for (agent, env), path in kinds.items())
        raise UsageError(f"the returns of these do not compare: {found}")
    if without:
        print(f"{name}: warning: no policy of seed {', '.join(without)} yet", file=sys.stderr)
    framework = load()
    results: dict[int, Evaluation] = {}
    for run in runs:
        results[run.config.seed] = _evaluate_run(framework, run, command)
        if not command.json:
            print(f"seed {run.config.seed}: {_describe(results[run.config.seed])}", flush=True)
    together = Evaluation(np.concatenate([result.returns for result in results.values()]))
    worst = min(results, key=lambda seed: results[seed].mean)
    if command.json:
        summary = together.summary(interval=False)  # these episodes are no sample of all policies
        seeds = [{"seed": seed} | result.summary() for seed, result in results.items()]
        _print_json(command, summary | {"worst_seed": worst, "seeds": seeds})
    else:
        [(agent, env_id)] = kinds
        of_all = f" of {len(results) + len(without)}" if without else ""
        print(
            f"{agent} on {env_id}: mean return {together.mean:.1f} over {len(results)}"
            f"{of_all} seeds, {results[worst].mean:.1f} at worst (seed {worst})"
        )
    return 0


def _check(run: RunFolder, command: Eval) -> None:
    """Raises a `UsageError` unless the run has a policy, of the environment that was named."""
    given, found = command.env_id, run.config.env_id
    require(given in (None, found), "env_id", given, f"that of {str(run.path)!r}, {found!r}")
    run.check_policy()


def _evaluate_run(framework: Framework, run: RunFolder, command: Eval) -> Evaluation:
    return playing.evaluate(
        framework.make_act(*framework.load_policy(run.policy_path)),
        run.config.agent,
        run.config.env_id,
        episodes=command.episodes,
        seed=command.seed,
        greedy=command.greedy,
        timeout=run.config.env_timeout or None,
    )


def _describe(result: Evaluation) -> str:
    low, high = result.interval()
    return (
        f"mean return {result.mean:.1f} over {len(result.returns)} episodes "
        f"(95% interval of the mean {low:.1f} to {high:.1f})"
    )


def _print_json(command: Eval, figures: dict[str, Any]) -> None:
    print(json.dumps(figures | {"seed": command.seed, "greedy": command.greedy}))
