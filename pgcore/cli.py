"""The command line that `pgjax` and `pgtorch` share, built from `TrainConfig` with tyro.

Exit codes: 0 done, solved or not; 1 the run failed; 2 something given is not usable; 130 and 143
stopped by Ctrl-C and by SIGTERM.
"""

import argparse
import json
import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import tyro

from pgcore.config import PRESETS, TrainConfig
from pgcore.errors import RunError, UsageError, require, unknown_choice
from pgcore.metrics import SolvedAt
from pgcore.progress import progress
from pgcore.runs import RESULT, RunFolder, default_run_dir, require_absent
from pgcore.training import Kept, Result, Update


class Commands(NamedTuple):
    """What the command line needs of `pgjax` or `pgtorch`."""

    train: Callable[..., Result]
    load_policy: Callable
    make_act: Callable


@dataclass(frozen=True)
class _GivenConfig(TrainConfig):
    """The settings of the run."""

    def __post_init__(self) -> None:
        """Checks nothing yet: tyro would wrap the error in words of its own."""

    def checked(self) -> TrainConfig:
        return TrainConfig(**vars(self))


@dataclass(frozen=True)
class Train:
    """Train an agent until it solves its environment, and keep its best policy."""

    config: tyro.conf.OmitArgPrefixes[_GivenConfig]
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


COMMANDS = ("train", "eval")
EXTRAS = {"torch": "torch"}
"""Packages that the base install lacks, and the extra that brings each."""


def run_cli(name: str, load: Callable[[], Commands], argv: Sequence[str] | None = None) -> int:
    """Runs the command `name` and returns its exit code.

    Args:
        name: `"pgjax"` or `"pgtorch"`.
        load: Imports the framework. Called only by what needs it, so `--help` is instant.
        argv: The arguments; by default the process's own.
    """
    try:
        command = parse(name, sys.argv[1:] if argv is None else list(argv))
        if isinstance(command, Train):
            return _train(name, load, command)
        return _eval(load, command)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = EXTRAS[error.name]
        print(
            f"{name}: error: {error.name} is not installed; "
            f"pip install 'policy-gradient-parity[{extra}]'",
            file=sys.stderr,
        )
        return 2
    except UsageError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"{name}: the run stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{name}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 143 if isinstance(stop, _Terminated) else 130


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived: what a run does on Ctrl-C is right here too."""


def parse(name: str, argv: list[str]) -> Train | Eval:
    """The command that `argv` asks for. tyro exits with 2 where it can't be parsed."""
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise unknown_choice("command", argv[0], COMMANDS)
    preset = _find_preset(argv)
    defaults = Train(_GivenConfig(**vars(PRESETS[preset])), preset)
    train_type = Annotated[Train, tyro.conf.subcommand("train", default=defaults)]
    eval_type = Annotated[Eval, tyro.conf.subcommand("eval")]
    return tyro.cli(
        train_type | eval_type,
        prog=name,
        description=f"Train and evaluate the article's policy-gradient agents ({name}).",
        args=argv,
        registry=_registry(),
    )


def _find_preset(argv: list[str]) -> Any:
    """`--preset` decides the defaults of all other options, so it is looked up before them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="default")
    try:
        preset = parser.parse_known_args(argv)[0].preset
    except argparse.ArgumentError:
        return "default"  # `--preset` without a value: tyro says so
    if preset not in PRESETS:
        raise unknown_choice("preset", preset, PRESETS)
    return preset


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Makes `1e5` an integer, and offers the closest match for a choice that does not exist."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _(info: tyro.constructors.PrimitiveTypeInfo):
        if info.type_origin is not Literal:
            return None
        choices = get_args(info.type)

        def parse_choice(words: list[str]) -> str:
            if words[0] not in choices:
                raise unknown_choice("the value", words[0], choices)
            return words[0]

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="{" + ",".join(choices) + "}",
            instance_from_str=parse_choice,
            is_instance=lambda value: value in choices,
            str_from_instance=lambda value: [value],
        )

    @registry.primitive_rule
    def _(info: tyro.constructors.PrimitiveTypeInfo):
        if info.type is not int:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: parse_int(words[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def parse_int(text: str) -> int:
    """An integer, `1e5` and `1_000` included.

    >>> parse_int("1e5")
    100000
    """
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not math.isfinite(number) or number != int(number):
            raise ValueError(f"{text} is no integer") from None
        return int(number)


def _train(name: str, load: Callable[[], Commands], command: Train) -> int:
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
    return 143 if isinstance(stop, _Terminated) else 130


def _terminate(*_: object) -> None:
    raise _Terminated("terminated")


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


def _eval(load: Callable[[], Commands], command: Eval) -> int:
    from pgcore.evaluation import evaluate

    require(command.episodes >= 1, "episodes", command.episodes, "an integer of at least 1")
    require(command.seed >= 0, "seed", command.seed, "an integer of at least 0")
    run = RunFolder.open(command.run_dir)
    run.check_policy()
    framework = load()
    evaluation = evaluate(
        framework.make_act(*framework.load_policy(run.policy_path)),
        run.config.agent,
        run.config.env_id,
        episodes=command.episodes,
        seed=command.seed,
        greedy=command.greedy,
    )
    if command.json:
        settings = {"seed": command.seed, "greedy": command.greedy}
        print(json.dumps(evaluation.summary() | settings))
    else:
        low, high = evaluation.interval()
        print(
            f"{run.config.agent} on {run.config.env_id}: mean return {evaluation.mean:.1f} over "
            f"{command.episodes} episodes (95% interval of the mean {low:.1f} to {high:.1f})"
        )
    return 0
