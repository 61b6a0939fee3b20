"""What the commands `train` and `plot` do, for `pgjax` and `pgtorch` alike."""

import json
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from pgcore.bookkeeping import Result, Update
from pgcore.checkpoints import checkpoint_folders
from pgcore.config import TrainConfig
from pgcore.errors import RunError, printable, require
from pgcore.parsing import parse_seeds
from pgcore.plots import plot_runs
from pgcore.progress import Status, describe, describe_seeds, progress
from pgcore.run_dirs import default_run_dir, require_absent
from pgcore.runs import RESULT
from pgcore.seeds import SEEDS, starting_points
from pgcore.solving import UnreachableThreshold, unreachable_threshold


class Framework(NamedTuple):
    """What the commands need of `pgjax` or `pgtorch`."""

    train: Callable[..., Result]
    resume: Callable[..., Result]
    train_seeds: Callable[..., list[Result]]
    load_policy: Callable
    make_act: Callable


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


@dataclass(frozen=True)
class Plot:
    """Plot the learning curves of runs into one picture."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN...", help_behavior_hint=""),
    ]
    """Run folders and folders of several seeds, of one environment: a curve for each."""
    out: Path = Path("curves.png")
    """The picture to write, .png, .svg or .pdf; an older one is replaced."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: what a run does on Ctrl-C is right here too."""


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
        return _exit_code(
            f"{name}: error", _train_seeds(framework, config, seeds, run_dir, as_json=command.json)
        )


Stop = KeyboardInterrupt | RunError
"""What ends a run before its time."""


def train_one(
    name: str, go: Callable[..., Result], config: TrainConfig, run_dir: Path, *, as_json: bool
) -> int:
    """Trains one seed by `go(callback=…)`, says how it ended, and returns the exit code.

    Raises:
        KeyboardInterrupt: It was stopped, and there is no policy yet.
        RunError: It stopped by itself, and there is no policy yet.
    """
    stop = None
    try:
        with progress(config.total_timesteps) as shown:
            go(callback=lambda update: shown.update(lambda: describe(update.row)))
    except (KeyboardInterrupt, RunError) as error:
        stop = error
    path = run_dir / RESULT
    result = json.loads(path.read_text()) if path.exists() else {}
    if not result.get("evaluation"):
        raise _without_a_policy(stop, run_dir)
    if as_json:
        print(json.dumps(result | {"run_dir": str(run_dir)}))
    else:
        _print_result(name, config, run_dir, result, stop)
    return _exit_code(f"{name}: the run stopped", stop)


def _print_result(
    name: str, config: TrainConfig, run_dir: Path, result: dict[str, Any], stop: Stop | None
) -> None:
    """Says how one run ended, what is kept, and how it can go on."""
    solved_at = result["solved_at"]
    if stop is not None:
        print(f"{_ended_by(stop)}; the best policy so far is kept")
    elif solved_at is not None:
        print(
            f"solved {config.env_id} with {config.agent} after {solved_at['env_steps']:,} "
            f"environment steps, {solved_at['episodes']:,} episodes, {solved_at['seconds']:.1f} s"
        )
    elif result["ended"] == "paused":
        print(f"paused after update {result['updates']}, {result['env_steps']:,} environment steps")
    else:
        print(f"not solved within {config.total_timesteps:,} environment steps (--total-timesteps)")
    evaluation = result["evaluation"]
    print(
        f"kept policy: mean return {evaluation['mean_return']:.1f} over "
        f"{evaluation['episodes']} episodes, from update {result['kept_update']}"
    )
    print(f"run folder: {run_dir}")
    can_go_on = isinstance(stop, KeyboardInterrupt) or result["ended"] == "paused"
    if can_go_on and checkpoint_folders(run_dir):
        named = f" --env-id {shlex.quote(config.env_id)}" if ":" in config.env_id else ""
        print(printable(f"go on with: {name} resume {shlex.quote(str(run_dir))}{named}"))


def _exit_code(what: str, stop: Stop | None) -> int:
    """What the process returns; it says `what` stopped, if that is not what a person did."""
    match stop:
        case None:
            return 0
        case Terminated():
            return 143
        case KeyboardInterrupt():
            return 130
    print(f"{what}: {stop}", file=sys.stderr)
    return 1


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
    if not last:
        raise _without_a_policy(stop, run_dir)
    results = {
        seed: json.loads(path.read_text())
        for seed in seeds
        if (path := run_dir / f"seed-{seed}" / RESULT).exists()
    }
    if as_json:
        entries = [{"seed": seed} | result for seed, result in results.items()]
        print(json.dumps({"run_dir": str(run_dir), "seeds": entries}))
        return stop
    if isinstance(stop, KeyboardInterrupt):
        print(f"{_ended_by(stop)}; the best policies so far are kept")
    print(_describe_solved(config, seeds, results))
    kept = [r["evaluation"]["mean_return"] for r in results.values() if r["evaluation"]]
    print(
        f"kept policies: mean return {statistics.mean(kept):.1f}, "
        f"{min(kept):.1f} at worst, each over {config.eval_episodes} episodes"
    )
    print(f"run folder: {run_dir} (a line a seed in {SEEDS}, a run folder a seed in seed-N)")
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


def _without_a_policy(stop: Stop | None, run_dir: Path) -> Stop:
    """What stopped a run before its first update; it says so."""
    if not isinstance(stop, KeyboardInterrupt):
        return stop or RunError("no update was made")
    return type(stop)(f"{_ended_by(stop)} before the first update; {run_dir} has no policy")


def _ended_by(stop: Stop) -> str:
    if isinstance(stop, KeyboardInterrupt):
        return str(stop) or "interrupted"
    return "stopped"


def terminate(*_: object) -> None:
    """What to do on SIGTERM."""
    raise Terminated("terminated")


def plot(command: Plot) -> int:
    """Draws the runs' learning curves, says what was written, and returns the exit code."""
    names = plot_runs(command.runs, command.out)
    num = "1 run" if len(names) == 1 else f"{len(names)} runs"
    print(f"{command.out}: {num}, {'; '.join(names)}")
    return 0
