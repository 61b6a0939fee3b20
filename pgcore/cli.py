"""The command line that `pgjax` and `pgtorch` share, built from `TrainConfig` with tyro.

Exit codes: 0 done, 1 the run failed, 2 something given is not usable, 130 interrupted.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import tyro

from pgcore.config import PRESETS, TrainConfig
from pgcore.errors import RunError, UsageError, require, unknown_choice
from pgcore.progress import progress
from pgcore.runs import RunFolder
from pgcore.training import Kept, Result, Update


class Framework(NamedTuple):
    """What the command line needs of `pgjax` or `pgtorch`."""

    train: Callable[..., Result]
    save_policy: Callable
    load_policy: Callable
    make_act: Callable


@dataclass(frozen=True)
class _GivenConfig(TrainConfig):
    """The settings of the run. The defaults learn CartPole-v1 reliably."""

    def __post_init__(self) -> None:
        """Checks nothing yet: tyro would wrap the error in words of its own."""

    def checked(self) -> TrainConfig:
        return TrainConfig(**vars(self))


@dataclass(frozen=True)
class Train:
    """Train an agent until it solves its environment, and keep its best policy."""

    config: tyro.conf.OmitArgPrefixes[_GivenConfig]
    preset: str = "default"
    """Where the settings start from: default, or article (one episode an update, per-episode
    statistics). Options given beside it win."""
    out: Path | None = None
    """The run folder to make. By default one under runs/, named after agent, seed and time."""


@dataclass(frozen=True)
class Eval:
    """Evaluate a run's kept policy in the real Gymnasium environment."""

    run: tyro.conf.Positional[Path]
    """The run folder. Either framework's will do."""
    episodes: int = 100
    """Fresh episodes to play."""
    seed: int = 0
    """Seed of the episodes' initial states and noise."""
    greedy: bool = False
    """Always take the most likely action."""
    json: bool = False
    """Print JSON instead of a sentence."""


COMMANDS = ("train", "eval")


def run_cli(name: str, load: Callable[[], Framework], argv: Sequence[str] | None = None) -> int:
    """Runs the command `name` and returns its exit code.

    Args:
        name: `"pgjax"` or `"pgtorch"`.
        load: Imports the framework. Called only by what needs it, so `--help` is instant.
        argv: The arguments; by default the process's own.
    """
    try:
        command = _parse(name, sys.argv[1:] if argv is None else list(argv))
        if isinstance(command, Train):
            return _train(name, load, command)
        return _eval(load, command)
    except UsageError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"{name}: the run stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def _parse(name: str, argv: list[str]) -> Train | Eval:
    """The command that `argv` asks for. tyro exits with 2 where it can't be parsed."""
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise unknown_choice("command", argv[0], COMMANDS)
    preset = _find_preset(argv)
    defaults = Train(_GivenConfig(**vars(PRESETS[preset])), preset)
    train_type = Annotated[Train, tyro.conf.subcommand("train", default=defaults)]
    eval_type = Annotated[Eval, tyro.conf.subcommand("eval")]
    return tyro.cli(
        train_type | eval_type,  # pyright: ignore[reportArgumentType]
        prog=name,
        description=f"Train and evaluate the article's policy-gradient agents ({name}).",
        args=argv,
        registry=_registry(),
    )


def _find_preset(argv: list[str]) -> str:
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


def _train(name: str, load: Callable[[], Framework], command: Train) -> int:
    from pgcore.gym import gym_spec

    config = command.config.checked()
    gym_spec(config.env)  # an environment that can't be made leaves no run folder behind
    framework = load()
    run = RunFolder.create(command.out, config, name)
    kept: Kept | None = None
    interrupted = False

    def record(update: Update) -> None:
        nonlocal kept
        if update.kept is not kept:
            kept = update.kept
            framework.save_policy(run.policy_path, config, kept.params)
        run.append(update.row)
        shown.update(update.row)

    solved_at = None
    try:
        with progress(config.max_env_steps) as shown:
            solved_at = framework.train(config, callback=record).solved_at
    except KeyboardInterrupt:
        interrupted = True
    finally:
        run.close()
    if kept is None:
        print(f"{name}: interrupted before the first update; {run.path} has no policy")
        return 130
    ended = "interrupted" if interrupted else "solved" if solved_at else "budget spent"
    run.finish(solved_at, kept.evaluation, ended)
    if solved_at:
        print(
            f"solved {config.env} with {config.agent} after {solved_at.env_steps:,} environment "
            f"steps, {solved_at.episodes:,} episodes, {solved_at.seconds:.1f} s"
        )
    elif interrupted:
        print("interrupted; the best policy so far is kept")
    else:
        print(f"not solved within {config.max_env_steps:,} environment steps (--max-env-steps)")
    print(
        f"kept policy: mean return {kept.evaluation.mean:.1f} over "
        f"{len(kept.evaluation.returns)} episodes, from update {kept.update}"
    )
    print(f"run folder: {run.path}")
    return 130 if interrupted else 0


def _eval(load: Callable[[], Framework], command: Eval) -> int:
    from pgcore.evaluation import evaluate

    require(command.episodes >= 1, "episodes", command.episodes, "an integer of at least 1")
    run = RunFolder.open(command.run)
    framework = load()
    act = framework.make_act(*framework.load_policy(run.policy_path))
    evaluation = evaluate(
        act,
        run.config.agent,
        run.config.env,
        episodes=command.episodes,
        seed=command.seed,
        greedy=command.greedy,
    )
    low, high = evaluation.interval()
    if command.json:
        figures = {"mean": evaluation.mean, "interval_95": [low, high]}
        settings = {"episodes": command.episodes, "seed": command.seed, "greedy": command.greedy}
        print(json.dumps(figures | settings | {"returns": evaluation.returns.tolist()}))
    else:
        print(
            f"{run.config.agent} on {run.config.env}: mean return {evaluation.mean:.1f} over "
            f"{command.episodes} episodes (95% interval of the mean {low:.1f} to {high:.1f})"
        )
    return 0
