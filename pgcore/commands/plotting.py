"""What the command `plot` does, for `pgjax` and `pgtorch` alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pgcore.plots.pictures import plot_runs


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


def plot(command: Plot) -> int:
    """Draws the runs' learning curves, says what was written, and returns the exit code."""
    names = plot_runs(command.runs, command.out)
    num = "1 run" if len(names) == 1 else f"{len(names)} runs"
    print(f"{command.out}: {num}, {'; '.join(names)}")
    return 0
