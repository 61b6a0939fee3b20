"""Many seeds of one configuration: one folder, one table, each seed a run like any other.

A folder of seeds holds `config.json` (the first seed's), `system.json`, `seeds.csv` (a line a
seed) and `seed-<N>/`, a run folder, for each.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pgcore.config import TrainConfig
from pgcore.envs.faults import Played
from pgcore.envs.gym import gym_spec
from pgcore.errors import RunError, UsageError, require
from pgcore.evaluation.solving import UnreachableThreshold, warn_of_threshold
from pgcore.files.schema import Tensors
from pgcore.runs.seeds_folder import SeedsFolder
from pgcore.training.bookkeeping import Result, Run, StepResult, Update

MAX_ERRORS_SHOWN = 3
"""Failed seeds whose reasons a message has."""

SeedsCallback = Callable[[int, Update], None]
"""`callback(seed, update)`, called after each update of each seed."""


class SeedsError(RunError):
    """Some seeds could not go on.

    Attributes:
        results: The other seeds' results.
        errors: What stopped each that did not.
    """

    def __init__(self, results: dict[int, Result], errors: dict[int, RunError]) -> None:
        super().__init__(results, errors)  # which is what a copy in another process is made from
        self.results = results
        self.errors = errors

    def __str__(self) -> str:
        named = [f"seed {seed}: {error}" for seed, error in self.errors.items()]
        if (more := len(named) - MAX_ERRORS_SHOWN) > 0:
            named[MAX_ERRORS_SHOWN:] = [f"and {more} more (their result.json says why)"]
        num_seeds = len(self.results) + len(self.errors)
        return f"{len(self.errors)} of {num_seeds} seeds failed: {'; '.join(named)}"


class LanesTrainer(NamedTuple):
    """What the host loop needs of a framework that steps many seeds, its lanes, at once."""

    name: str
    step: Callable[[Any], tuple[Any, list[StepResult]]]
    """`states -> (states, results)`, one result a lane."""
    snapshot: Callable[[Any, int], Any]
    """`(states, lane) -> params`."""
    evaluate: Callable[[Any, list[tuple[int, int]]], list[list[Played]]]
    """`(states, [(lane, update), …]) -> batches` of fresh episodes for each of these."""
    select: Callable[[Any, list[int]], Any]
    """`(states, lanes) -> states` of these lanes alone."""
    tensors: Callable[[Any], Tensors]
    """`params -> arrays` by their neutral name."""


def train_lanes(
    config: TrainConfig,
    seeds: Sequence[int],
    policy: Any,
    states: Any,
    trainer: LanesTrainer,
    *,
    callback: SeedsCallback | None,
    started: float,
) -> list[Result]:
    """Trains all seeds at once, each until it is solved or its own budget is spent.

    Args:
        config: The settings. `run_dir` is the folder of all.
        seeds: One for each lane.
        policy: Handed through to the results.
        states: What `trainer.step` takes first.
        trainer: What a step and an evaluation are.
        callback: Called after each update of each seed.
        started: `time.perf_counter()` when the run began.

    Returns:
        One result a seed, in the order of `seeds`.

    Raises:
        UsageError: The folder exists, or it cannot be made.
        SeedsError: Something was not finite in a seed's run; the others went on to their ends.
    """
    warn_of_threshold(config)
    folder = SeedsFolder.create(config, seeds, trainer.name)
    with ExitStack() as stack:
        runs: list[Run] = []
        for seed in seeds:
            stack.callback(folder.note, seed)
            run = Run(seed_config(config, seed), trainer.name, trainer.tensors, started=started)
            runs.append(stack.enter_context(run))
        errors = _step_until_over(runs, seeds, states, trainer, folder, callback)
    results = {
        seed: run.result(policy)
        for seed, run in zip(seeds, runs, strict=True)
        if seed not in errors
    }
    return _all_or_error(results, errors)


def train_in_turn(
    train: Callable[..., Result],
    config: TrainConfig,
    seeds: Sequence[int],
    framework: str,
    *,
    callback: SeedsCallback | None,
) -> list[Result]:
    """Trains one seed after another; otherwise as `train_lanes`.

    Args:
        train: `(config, *, callback) -> Result` of one seed.
        config: The settings. `run_dir` is the folder of all.
        seeds: The seeds.
        framework: The name to note in the folder.
        callback: Called after each update of each seed.

    Raises:
        UsageError: The environment can't be made or does not fit, or the folder can't be made.
        SeedsError: Something was not finite in a seed's run; the others went on to their ends.
    """
    warn_of_threshold(config)
    gym_spec(config.env_id)  # before a folder is made
    folder = SeedsFolder.create(config, seeds, framework)
    results: dict[int, Result] = {}
    errors: dict[int, RunError] = {}
    for seed in seeds:
        report = None if callback is None else partial(callback, seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnreachableThreshold)  # it was said above
                results[seed] = train(seed_config(config, seed), callback=report)
        except RunError as error:
            errors[seed] = error
        finally:
            folder.note(seed)
    return _all_or_error(results, errors)


def starting_points(
    config: TrainConfig, seeds: Sequence[int], params: Sequence[Any] | None
) -> dict[int, Any]:
    """The parameters that each seed starts from, None where the policy draws them.

    Raises:
        UsageError: A seed is none, or is given twice, `params` has not one entry for each, or
            the seeds are to be paused.
    """
    try:
        checked = [seed_config(config, seed).seed for seed in seeds]
    except TypeError:
        raise UsageError(f"seeds is {seeds!r}, accepted is a list or a range of seeds") from None
    require(len(set(checked)) == len(checked) > 0, "seeds", checked, "one or more, each once")
    starts = [None] * len(checked) if params is None else list(params)
    require(len(starts) == len(checked), "params", f"of {len(starts)} entries", "one entry a seed")
    return dict(zip(checked, starts, strict=True))


def seed_config(config: TrainConfig, seed: int) -> TrainConfig:
    """The configuration of one seed's run, in its own folder; none of them can be resumed."""
    accepted = "None with several seeds, which can't be resumed"
    require(config.until_update is None, "until_update", config.until_update, accepted)
    run_dir = None if config.run_dir is None else Path(config.run_dir) / f"seed-{seed}"
    return replace(config, seed=seed, run_dir=run_dir, checkpoint_every=0)


def _step_until_over(
    runs: list[Run],
    seeds: Sequence[int],
    states: Any,
    trainer: LanesTrainer,
    folder: SeedsFolder,
    callback: SeedsCallback | None,
) -> dict[int, RunError]:
    """Steps all lanes until each run is over, and returns what stopped those that failed."""
    errors: dict[int, RunError] = {}
    lanes = list(range(len(runs)))  # the run of each
    active = set(lanes)

    def end(index: int, error: RunError | None = None) -> None:
        if error is not None:
            errors[seeds[index]] = error
        runs[index].close(error)
        folder.note(seeds[index])
        active.remove(index)

    while active:
        if len(active) < len(lanes):
            states = trainer.select(states, [i for i, run in enumerate(lanes) if run in active])
            lanes = [run for run in lanes if run in active]
        played_with, (states, steps) = states, trainer.step(states)
        promising = []
        for lane, index in enumerate(lanes):
            try:
                if runs[index].count(partial(trainer.snapshot, played_with, lane), steps[lane]):
                    promising.append(lane)
            except RunError as error:
                end(index, error)
        asked = [(lane, runs[lanes[lane]].num_updates) for lane in promising]
        batches = dict(zip(promising, trainer.evaluate(played_with, asked), strict=True))
        for lane, index in enumerate(lanes):
            if index not in active:
                continue
            params = trainer.snapshot(played_with, lane) if lane in batches else None
            try:
                update = runs[index].conclude(params, steps[lane], batches.get(lane))
            except RunError as error:
                end(index, error)
                continue
            if callback is not None:
                callback(seeds[index], update)
            if update.is_last:
                end(index)
    return errors


def _all_or_error(results: dict[int, Result], errors: dict[int, RunError]) -> list[Result]:
    if errors:
        raise SeedsError(results, errors)
    return list(results.values())
