"""Pictures of learning curves. matplotlib is imported only where one is drawn."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgcore.errors import UsageError, require
from pgcore.files.writing import write_atomically
from pgcore.plots.curves import PlottedRun, labels, learning_curve, read_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

PANELS = {
    "mean_return_100": "training: mean of the last 100 episodes",
    "best_evaluation": "kept policy: mean of its evaluation",
}
"""The rows' fields that are drawn, and the titles of their panels."""
NO_DATES: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""By the suffix of a picture: what its file shall not say, so that equal runs give equal bytes."""
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
"""Colours that the colour-blind tell apart too (Okabe and Ito, 2008), less the pale yellow."""
STYLES = [(colour, dashes) for dashes, colour in product(("-", ":", "-."), OKABE_ITO)]
NEVER = 100
"""A threshold this many times as large as any return says "never stop"; it is not drawn."""
SEEDS_NOTE = (
    "n seeds: their interquartile mean with its 95% bootstrap interval. "
    "A seed that ended keeps its last value."
)
MAX_LABEL_OF_TWO_COLUMNS = 60
"""Characters; a legend with longer labels has one column."""


def plot_runs(paths: Sequence[Path], out: Path) -> list[str]:
    """Draws the learning curves of runs into one picture.

    Args:
        paths: Run folders and folders of several seeds, one for each curve.
        out: The picture to write, .png, .svg or .pdf. An older one is replaced.

    Returns:
        What the picture calls each run.

    Raises:
        UsageError: A run cannot be read, the environments differ, or `out` cannot be written.
        ModuleNotFoundError: matplotlib is not installed.
    """
    _require_picture(out)
    require(len(paths) <= len(STYLES), "number of runs", len(paths), f"at most {len(STYLES)}")
    runs = read_runs(paths)
    with house_style():
        save_figure(draw(runs), out)
    return labels(runs)


@contextmanager
def house_style() -> Iterator[None]:
    """Pictures drawn meanwhile have neither a person's own settings nor a random salt."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "pgcore"
        yield


def save_figure(figure: "Figure", out: Path) -> None:
    """Writes a picture, whole or not at all; equal figures give equal bytes.

    Raises:
        UsageError: `out` is no .png, .svg or .pdf, or it cannot be written.
    """
    suffix = _require_picture(out)
    data = io.BytesIO()
    figure.savefig(data, format=suffix[1:], dpi=150, metadata=NO_DATES[suffix])
    try:
        write_atomically(out, data.getvalue())
    except OSError as error:
        raise UsageError(f"out {str(out)!r} cannot be written: {error}") from error


def _require_picture(out: Path) -> str:
    suffix = out.suffix.lower()
    require(suffix in NO_DATES, "out", str(out), f"a file name in {', '.join(NO_DATES)}")
    return suffix


def draw(runs: Sequence[PlottedRun]) -> "Figure":
    """One panel for each of `PANELS`, one curve for each run, the legend below."""
    from matplotlib.figure import Figure

    names = labels(runs)
    num_columns = 1 if max(map(len, names)) > MAX_LABEL_OF_TWO_COLUMNS else 2
    num_lines = math.ceil((len(runs) + 1) / num_columns)
    figure = Figure(figsize=(10, 4.2 + 0.22 * num_lines), layout="constrained")
    figure.suptitle(runs[0].config.env_id.replace("$", r"\$"))
    panels = figure.subplots(1, len(PANELS), sharex=True, sharey=True, squeeze=False)[0]
    handles = {}
    for axes, (field, title) in zip(panels, PANELS.items(), strict=True):
        axes.set_title(title, fontsize="medium")
        handles = _draw_panel(axes, runs, field)
    panels[0].set_ylabel("mean return")
    figure.legend(
        list(handles.values()),
        [name.replace("$", r"\$") for name in handles],  # `$` would begin a formula
        loc="outside lower center",
        ncols=num_columns,
        fontsize="small",
        frameon=False,
        title=SEEDS_NOTE if any(run.num_seeds is not None for run in runs) else None,
        title_fontsize="small",
    )
    return figure


def _draw_panel(axes: "Axes", runs: Sequence[PlottedRun], field: str) -> dict[str, "Line2D"]:
    """Draws one field of all runs and returns what the legend is to name."""
    from matplotlib.ticker import EngFormatter

    handles, largest = {}, 0.0
    for run, name, (colour, dashes) in zip(runs, labels(runs), STYLES, strict=False):
        curve = learning_curve(run, field)
        [line] = axes.plot(curve.steps, curve.values, color=colour, linestyle=dashes)
        if not run.num_seeds is not None:
            line.set_drawstyle("steps-post")  # a value holds until the next update
        if len(curve.steps) == 1:
            line.set_marker("o")  # a line of one point is invisible
        handles[name] = line
        if run.num_seeds is not None:
            axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.2, lw=0)
        largest = max(largest, np.abs(curve.values).max())
    thresholds = {run.config.solve_threshold for run in runs}
    if len(thresholds) == 1 and abs(threshold := thresholds.pop()) <= NEVER * largest:
        line = axes.axhline(threshold, color="0.4", linestyle="--", linewidth=0.8, zorder=1)
        handles[f"solve threshold {threshold:g}"] = line
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 100k
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return handles
