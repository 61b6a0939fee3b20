"""Learning curves: what run folders say, as numbers to plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pgcore.checkpoints import require_as_counted
from pgcore.config import TrainConfig
from pgcore.errors import UsageError, require
from pgcore.evaluation.statistics import bootstrap_interval, interquartile_mean
from pgcore.runs import CONFIG, METRICS, SYSTEM, has_seeds, read_framework
from pgcore.runs.metrics import Row
from pgcore.runs.seeds_folder import open_begun, open_runs

NUM_GRID_POINTS = 200
"""Points of a curve over several seeds."""
NUM_CURVE_RESAMPLES = 2_000
"""Bootstrap resamples behind the interval of a curve, whose ends need no third digit."""


class PlottedRun(NamedTuple):
    """A run as it is plotted: one curve, of one seed or of several."""

    path: Path
    config: TrainConfig
    """Of the first seed, where there are several."""
    framework: str
    histories: list[list[Row]]
    """Each seed's rows."""
    num_seeds: int | None
    """Seeds in a folder of seeds, those included that have no row yet; None of a single run."""


class Curve(NamedTuple):
    """A quantity over environment steps. All arrays are `[G]`."""

    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray
    """The lower end of the 95% interval; of a single run the value itself."""
    high: np.ndarray


def read_runs(paths: Sequence[Path]) -> list[PlottedRun]:
    """Reads run folders and folders of several seeds, one for each curve.

    Raises:
        UsageError: There is none, one is given twice, one cannot be read, or their environments
            differ.
    """
    require(bool(paths), "runs", [], "at least one run folder, or folder of several seeds")
    resolved = [path.resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise UsageError(f"run {str(paths[index])!r} is given twice")
    runs, env_paths = [], {}
    for path in paths:
        many = has_seeds(path)
        folders, without = open_begun(path, METRICS) if many else (open_runs(path), [])
        for folder in folders:
            env_paths.setdefault(folder.config.env_id, folder.path)
        histories = [folder.read_rows() for folder in folders]
        num_seeds = len(folders) + len(without) if many else None
        config, framework = folders[0].config, read_framework(folders[0].path)
        for folder in folders:
            folder.require_as_it_ended(CONFIG, SYSTEM, METRICS)
            require_as_counted(folder)
        runs.append(PlottedRun(path, config, framework, histories, num_seeds))
    if len(env_paths) > 1:
        found = ", ".join(f"{env_id} ({path})" for env_id, path in env_paths.items())
        raise UsageError(f"the returns of different environments do not compare: {found}")
    return runs


def learning_curve(run: PlottedRun, field: str) -> Curve:
    """One of the rows' fields over environment steps.

    A single run is drawn as it is. Of several seeds it is the interquartile mean with its
    bootstrap interval, on a grid of steps from where every seed has a value to where the last seed
    ends. A value holds from its update until the next one, and a seed that has ended keeps its
    last: it stopped because it was solved, or its budget was spent, and what it had learned it
    still has. Leaving it out instead would have the curve follow the slowest seeds alone.
    """
    steps = [np.array([row.env_steps for row in rows]) for rows in run.histories]
    values = [np.array([getattr(row, field) for row in rows]) for rows in run.histories]
    if run.num_seeds is None:
        return Curve(steps[0], values[0], values[0], values[0])
    start, stop = max(each[0] for each in steps), max(each[-1] for each in steps)
    grid = np.unique(np.linspace(start, stop, NUM_GRID_POINTS))
    held = np.stack([hold(*seed, grid) for seed in zip(steps, values, strict=True)])
    low, high = bootstrap_interval(interquartile_mean, held, num_resamples=NUM_CURVE_RESAMPLES)
    return Curve(grid, interquartile_mean(held), low, high)


def hold(steps: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The last value at or before each point of the grid, `[G]`.

    >>> hold(np.array([10, 20]), np.array([1.0, 2.0]), np.array([10, 19, 20, 500]))
    array([1., 1., 2., 2.])

    Args:
        steps: `[U]`, rising, the first at or before the grid's first point.
        values: `[U]`, what was measured there.
        grid: `[G]`.
    """
    return values[np.searchsorted(steps, grid, side="right") - 1]


def labels(runs: Sequence[PlottedRun]) -> list[str]:
    """Names each run by its folder, or by its path where folders share a name.

    The agent and the framework follow where the runs differ in them, and the number of seeds.
    """
    names = [run.path.resolve().name for run in runs]
    agents_differ = len({run.config.agent for run in runs}) > 1
    frameworks_differ = len({run.framework for run in runs}) > 1
    found = []
    for run, name in zip(runs, names, strict=True):
        details = [run.config.agent] * agents_differ + [run.framework] * frameworks_differ
        if run.num_seeds is not None:
            some = "" if run.num_seeds == len(run.histories) else f" of {run.num_seeds}"
            details.append(f"n = {len(run.histories)}{some}")
        label = name if names.count(name) == 1 else str(run.path)
        found.append(f"{label} ({', '.join(details)})" if details else label)
    return found
