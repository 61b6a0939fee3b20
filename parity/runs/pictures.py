"""Pictures of free runs: both learning curves, and how the distance between the two grows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.runs.proofs import Proof
from pgcore.plots.pictures import OKABE_ITO, house_style, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE, CANDIDATE, NUDGED = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[5]
"""Blue, vermilion, sky blue: apart for the colour-blind too."""


@house_style()
def draw_curves(path: Path, title: str, proofs: Sequence[Proof]) -> None:
    """Both frameworks' mean return over updates, and where they part; a panel for each run."""
    figure, panels = _panels(title, proofs)
    for axes, proof in zip(panels, proofs, strict=True):
        updates = np.arange(1, len(proof.returns) + 1)
        axes.plot(updates, proof.returns, color=REFERENCE, lw=3, alpha=0.5, label="PyTorch")
        axes.plot(updates, proof.candidate_returns, color=CANDIDATE, lw=1, label="JAX")
        _mark_parting(axes, proof)
        axes.set_xlabel("update")
    panels[0].set_ylabel("mean return of the update's episodes")
    _save(figure, path)


@house_style()
def draw_distances(path: Path, title: str, proofs: Sequence[Proof]) -> None:
    """‖JAX − PyTorch‖ over updates on a log axis, within what an ulp does to PyTorch itself."""
    figure, panels = _panels(title, proofs)
    for axes, proof in zip(panels, proofs, strict=True):
        distances = proof.report.distances
        assert distances is not None
        assert distances.candidate is not None
        updates = np.arange(1, distances.nudged.shape[1] + 1)
        nudged = np.where(distances.nudged > 0, distances.nudged, np.nan)
        low, high = np.nanmin(nudged, 0), np.nanmax(nudged, 0)
        label = f"PyTorch nudged by an ulp at each update, {len(nudged)} draws"
        axes.fill_between(updates, low, high, color=NUDGED, alpha=0.5, lw=0, label=label)
        own = np.where(distances.candidate > 0, distances.candidate, np.nan)
        axes.plot(updates, own, color=CANDIDATE, lw=1.5, label="JAX")
        _mark_parting(axes, proof)
        axes.set_yscale("log")
        axes.set_xlabel("update")
    panels[0].set_ylabel("relative distance of the parameters")
    _save(figure, path)


def _panels(title: str, proofs: Sequence[Proof]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(proofs), 4.2), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(proofs), sharey=True, squeeze=False)[0]
    for axes, proof in zip(panels, proofs, strict=True):
        axes.set_title(proof.report.dtype, fontsize="medium")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _save(figure: Any, path: Path) -> None:
    """Writes the picture with one legend for all panels, below them."""
    handles = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles[label] = handle
    figure.legend(
        [*handles.values()], [*handles], loc="outside lower center", ncols=3, frameon=False
    )
    save_figure(figure, path)


def _mark_parting(axes: "Axes", proof: Proof) -> None:
    """A line at the update in which the first action differs."""
    distances = proof.report.distances
    assert distances is not None
    if distances.parted is None:
        axes.set_title(f"{proof.report.dtype}: every action is the same", fontsize="medium")
        return
    axes.axvline(
        distances.parted,
        color="black",
        lw=1,
        ls="--",
        label=f"first action that differs, update {distances.parted}",
    )
