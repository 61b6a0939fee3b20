"""The picture of the peers' seconds."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers_code.runs import Measured
from benchmarks.peers_code.table import seconds_in_words, summaries
from pgcore.plots.pictures import NO_DATES, OKABE_ITO

OURS, THEIRS = OKABE_ITO[0], "#999999"


def draw(runs: Sequence[Measured], limit: float, path: Path) -> None:
    """Bars from 0 to the median, lines from the fastest seed to the slowest.

    What was not solved reaches to the limit, its bar hatched and its line with an arrow's head.
    """
    from matplotlib.figure import Figure

    found = summaries(runs)
    num_seeds = max(each.runs for each in found)
    figure = Figure(figsize=(10, 1.4 + 0.42 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, each in enumerate(found):
        colour = OURS if each.words.startswith("pg") else THEIRS
        unsolved = math.isinf(each.median)
        axes.barh(
            place,
            min(each.median, limit),
            color="white" if unsolved else colour,
            edgecolor=colour,
            hatch="//" if unsolved else None,
            height=0.62,
        )
        low, high = min(each.fastest, limit), min(each.slowest, limit)
        axes.plot([low, high], [place, place], color="black", linewidth=1.2)
        markers = ("|", ">" if math.isinf(each.slowest) else "|")
        for seconds, marker in zip((low, high), markers, strict=True):
            axes.plot(seconds, place, marker=marker, color="black", markersize=7)
        words = seconds_in_words(each, limit)
        axes.annotate(
            words,
            (max(high, min(each.median, limit)), place),
            xytext=(8, 0),
            textcoords="offset points",
            verticalalignment="center",
            fontsize="small",
        )
    axes.set_yticks(range(len(found)), [each.words for each in found])
    axes.invert_yaxis()
    longest = max(min(each.slowest, limit) for each in found)
    axes.set_xlim(0, 1.3 * longest)  # the words stand to the right of the longest
    axes.set_xlabel("seconds, from the start of the process to its exit")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    many = f"median of {num_seeds} seeds, and the fastest to the slowest" if num_seeds > 1 else ""
    figure.suptitle("CartPole-v1 to solved" + (f": {many}" if many else ""))
    figure.savefig(path, dpi=120, metadata=NO_DATES[".png"])
