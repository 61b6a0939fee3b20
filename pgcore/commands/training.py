"""What the command `train` does, for `pgjax` and `pgtorch` alike."""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from pgcore.commands.endings import (
    Stop,
    ended_by,
    exit_code_of,
    report,
    say_stopped,
    without_a_policy,
)
from pgcore.commands.framework import Framework
from pgcore.commands.parsing import parse_seeds
from pgcore.commands.process import say
from pgcore.commands.progress import Status, describe, describe_seeds, progress
from pgcore.config import TrainConfig
from pgcore.envs.deadline import ending_the_process
from pgcore.envs.one_episode import EnvironmentWarning
from pgcore.errors import RunError, require
from pgcore.evaluation.solving import UnreachableThreshold, unreachable_threshold
from pgcore.runs import RESULT, SEEDS
from pgcore.runs.making import default_run_dir, require_absent
from pgcore.training.bookkeeping import Result, Update
from pgcore.training.saving import UnsavedWarning
from pgcore.training.seeds import starting_points


@dataclass(frozen=True)
class GivenConfig(TrainConfig):
    """The settings of the run."""

    def __post_init__(self) -> None:
        """Checks nothing yet: tyro would wrap the error in words of its own."""

    def checked(self) -> TrainConfig:
        """The configuration; a bad field is a `UsageError`."""
        return TrainConfig(**vars(self))


@dataclass(frozen=True)
class Train:
    """Train an agent until it solves its environment, and keep its best policy."""

    config: tyro.conf.OmitArgPrefixes[GivenConfig]
    preset: Literal["default", "article"] = "default"
    """Where the settings start from; options given beside it win. article is one episode an update
    and statistics of that episode."""
    seeds: str | None = None
    """Many seeds into one run folder, instead of --seed: 0:50 is 0 to 49, 4,8 are two."""
    json: bool = False
    """Print one JSON object instead of sentences."""


def train(name: str, load: Callable[[], Framework], command: Train) -> int:
    """Trains, shows progress, says how it ended, and returns the exit code."""
    config = command.config.checked()
    seeds = None if command.seeds is None else parse_seeds(command.seeds)
    if seeds is not None:
        require(config.seed == 0, "seed", config.seed, "none beside --seeds: give one of the two")
        starting_points(config, seeds, None)
    config = replace(config, run_dir=config.run_dir or default_run_dir(config, name, seeds))
    run_dir = Path(str(config.run_dir))
    require_absent(run_dir)  # before a framework is waited for
    if warning := unreachable_threshold(config):
        print(f"{name}: warning: {warning}", file=sys.stderr)
    framework = load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreachableThreshold)  # it was said above
        if seeds is None:
            go = partial(framework.train, config)
            return train_one(name, go, config, run_dir, as_json=command.json)
        with _warnings_said(name), ending_the_process(partial(say_stopped, name)):
            stop = _train_seeds(framework, config, seeds, run_dir, as_json=command.json)
        return exit_code_of(f"{name}: error", stop)


def train_one(
    name: str, go: Callable[..., Result], config: TrainConfig, run_dir: Path, *, as_json: bool
) -> int:
    """Trains one seed by `go(callback=…)`, says how it ended, and returns the exit code.

    Raises:
        KeyboardInterrupt: It was stopped, and there is no policy yet.
        RunError: It stopped by itself, and there is no policy yet.
    """
    stop = None

    def give_up(fault: RunError) -> None:
        """For a call of the environment that nothing ends; the run has saved itself."""
        path = run_dir / RESULT
        said = json.loads(path.read_text())["error"] if path.exists() else str(fault)
        try:
            report(name, config, run_dir, RunError(said), as_json=as_json)
        except RunError as error:
            say_stopped(name, error)

    with _warnings_said(name):
        try:
            with progress(config.total_timesteps) as shown, ending_the_process(give_up):
                go(callback=lambda update: shown.update(lambda: describe(update.row)))
        except (KeyboardInterrupt, RunError) as error:
            stop = error
    return report(name, config, run_dir, stop, as_json=as_json)


@contextmanager
def _warnings_said(name: str) -> Iterator[None]:
    """Prints, as the command's own, what a run that stopped could not save."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UnsavedWarning)
        warnings.simplefilter("always", EnvironmentWarning)
        warnings.showwarning = lambda message, *_, **__: say(
            f"{name}: warning: {message}", sys.stderr
        )
        yield


def _train_seeds(
    framework: Framework,
    config: TrainConfig,
    seeds: tuple[int, ...],
    run_dir: Path,
    *,
    as_json: bool,
) -> Stop | None:
    """Trains many seeds and says how they ended. Raises what stopped them before any update."""
    last: dict[int, Update] = {}

    def record(seed: int, update: Update) -> None:
        last[seed] = update
        shown.update(status)

    def status() -> Status:
        num_ended = sum(update.is_last for update in last.values())
        rows = [update.row for update in last.values()]
        return describe_seeds(rows, num_ended, len(seeds), time.monotonic() - started)

    started, stop = time.monotonic(), None
    try:
        with progress(config.total_timesteps * len(seeds)) as shown:
            framework.train_seeds(config, seeds, callback=record)
    except (KeyboardInterrupt, RunError) as error:
        stop = error
    results = {
        seed: json.loads(path.read_text())
        for seed in seeds
        if (path := run_dir / f"seed-{seed}" / RESULT).exists()
    }
    # What the folders have, for a signal may come between a policy and the word of it.
    if not any(result["evaluation"] for result in results.values()):
        raise without_a_policy(stop, run_dir)
    if as_json:
        entries = [{"seed": seed} | result for seed, result in results.items()]
        say(json.dumps({"run_dir": str(run_dir), "seeds": entries}))
        return stop
    if isinstance(stop, KeyboardInterrupt):
        say(f"{ended_by(stop)}; the best policies so far are kept")
    say(_describe_solved(config, seeds, results))
    kept = [r["evaluation"]["mean_return"] for r in results.values() if r["evaluation"]]
    say(
        f"kept policies: mean return {statistics.mean(kept):.1f}, "
        f"{min(kept):.1f} at worst, each over {config.eval_episodes} episodes"
    )
    say(f"run folder: {run_dir} (a line a seed in {SEEDS}, a run folder a seed in seed-N)")
    return stop


def _describe_solved(
    config: TrainConfig, seeds: tuple[int, ...], results: dict[int, dict[str, Any]]
) -> str:
    solved = [seed for seed in results if results[seed]["solved_at"]]
    steps = sorted(results[seed]["solved_at"]["env_steps"] for seed in solved)
    text = f"solved {config.env_id} with {config.agent} on {len(solved)} of {len(seeds)} seeds"
    if steps:
        text += (
            f", after {statistics.median_low(steps):,} environment steps in the median of these "
            f"({steps[0]:,} to {steps[-1]:,})"
        )
    others: dict[str, list[str]] = {}
    for seed in seeds:
        if seed not in solved:
            ended = results[seed]["ended"] if seed in results else "not begun"
            others.setdefault(ended, []).append(str(seed))
    return "; ".join([text, *(f"{ended}: {', '.join(found)}" for ended, found in others.items())])
