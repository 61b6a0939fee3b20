"""What the commands `train`, `eval` and `plot` do, for `pgjax` and `pgtorch` alike."""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from pgcore import evaluation
from pgcore.config import TrainConfig
from pgcore.errors import require
from pgcore.metrics import SolvedAt
from pgcore.plots import plot_runs
from pgcore.progress import progress
from pgcore.runs import RESULT, RunFolder, default_run_dir, require_absent
from pgcore.training import Kept, Result, Update


class Framework(NamedTuple):
    """What the commands need of `pgjax` or `pgtorch`."""

    train: Callable[..., Result]
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
    json: bool = False
    """Print one JSON object instead of sentences."""


@dataclass(frozen=True)
class Eval:
    """Evaluate a run's kept policy in the real Gymnasium environment."""

    run_dir: tyro.conf.Positional[Path]
    """The run folder. Either framework's will do."""
    episodes: int = 100
    """Fresh episodes to play."""
    seed: int = 0
    """Seed of the episodes' initial states and noise."""
    greedy: bool = False
    """Always take the most likely action."""
    json: bool = False
    """Print one JSON object instead of a sentence."""


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
    config = replace(config, run_dir=config.run_dir or default_run_dir(config, name))
    run_dir = Path(str(config.run_dir))
    require_absent(run_dir)  # before a framework is waited for
    framework = load()
    signal.signal(signal.SIGTERM, _terminate)
    kept: Kept | None = None

    def record(update: Update) -> None:
        nonlocal kept
        kept = update.kept
        shown.update(update.row)

    solved_at = stop = None
    try:
        with progress(config.total_timesteps) as shown:
            solved_at = framework.train(config, callback=record).solved_at
    except KeyboardInterrupt as error:
        stop = error
    if kept is None:
        raise stop or KeyboardInterrupt("interrupted before the first update; no policy is kept")
    if command.json:
        print(json.dumps(json.loads((run_dir / RESULT).read_text()) | {"run_dir": str(run_dir)}))
    else:
        print(_describe_end(config, solved_at, stop))
        print(
            f"kept policy: mean return {kept.evaluation.mean:.1f} over "
            f"{len(kept.evaluation.returns)} episodes, from update {kept.update}"
        )
        print(f"run folder: {run_dir}")
    if stop is None:
        return 0
    return 143 if isinstance(stop, Terminated) else 130


def _terminate(*_: object) -> None:
    raise Terminated("terminated")


def _describe_end(
    config: TrainConfig, solved_at: SolvedAt | None, stop: KeyboardInterrupt | None
) -> str:
    if stop is not None:
        return f"{str(stop) or 'interrupted'}; the best policy so far is kept"
    if solved_at is None:
        return f"not solved within {config.total_timesteps:,} environment steps (--total-timesteps)"
    return (
        f"solved {config.env_id} with {config.agent} after {solved_at.env_steps:,} environment "
        f"steps, {solved_at.episodes:,} episodes, {solved_at.seconds:.1f} s"
    )


def evaluate(load: Callable[[], Framework], command: Eval) -> int:
    """Evaluates a run's kept policy, prints its figures, and returns the exit code."""
    require(command.episodes >= 1, "episodes", command.episodes, "an integer of at least 1")
    require(command.seed >= 0, "seed", command.seed, "an integer of at least 0")
    run = RunFolder.open(command.run_dir)
    run.check_policy()
    framework = load()
    result = evaluation.evaluate(
        framework.make_act(*framework.load_policy(run.policy_path)),
        run.config.agent,
        run.config.env_id,
        episodes=command.episodes,
        seed=command.seed,
        greedy=command.greedy,
    )
    if command.json:
        settings = {"seed": command.seed, "greedy": command.greedy}
        print(json.dumps(result.summary() | settings))
    else:
        low, high = result.interval()
        print(
            f"{run.config.agent} on {run.config.env_id}: mean return {result.mean:.1f} over "
            f"{command.episodes} episodes (95% interval of the mean {low:.1f} to {high:.1f})"
        )
    return 0


def plot(command: Plot) -> int:
    """Draws the runs' learning curves, says what was written, and returns the exit code."""
    names = plot_runs(command.runs, command.out)
    num = "1 run" if len(names) == 1 else f"{len(names)} runs"
    print(f"{command.out}: {num}, {'; '.join(names)}")
    return 0
