"""What was found as a compiler would say it: file, line, the code, a caret, both values."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from parity.locate.places import Location

if TYPE_CHECKING:
    from parity.locate.divergence import Divergence

WIDTH = 96
PHASES = {
    "forward": "JAX first computes another value than PyTorch here",
    "backward": "all values agree; a slope first differs here",
}


def compiled_like(found: "Divergence") -> str:
    """The text of a divergence."""
    lines = [f"error: {PHASES[found.phase]}", *_excerpt("candidate", found.candidate)]
    if found.values is not None:
        index, reference, candidate = found.values
        what = "value" if found.phase == "forward" else "slope"
        at = f" at {list(index)}" if index else ""
        lines.append(f"     = {what}{at}: candidate {candidate:.10g}, reference {reference:.10g}")
    lines += _excerpt("reference", found.reference)
    if found.last_agreement is not None:
        reference, candidate = found.last_agreement
        lines += ["last agreement"]
        lines += [*_excerpt("candidate", candidate), *_excerpt("reference", reference)]
    for number, cause in enumerate(found.causes):
        head = "likely cause" if number == 0 else "or"
        title = f" {cause.title}:" if cause.title else ""
        said = f"{head}: {cause.trap}{title} {cause.evidence}"
        lines += textwrap.wrap(said, WIDTH, subsequent_indent="  ")
        lines += textwrap.wrap(f"mend: {cause.remedy}", WIDTH, subsequent_indent="  ")
    if not found.causes:
        lines.append("no known trap explains the numbers")
    return "\n".join(lines)


def _excerpt(side: str, place: Location) -> list[str]:
    """A line with its number and a caret below what was computed."""
    name = _short(place.file)
    inside = f" in {place.function}" if place.function else ""
    module = f", module {place.module}" if place.module else ""
    turn = "" if place.iteration is None else f", iteration {place.iteration}"
    if place.line == 0:
        return [f"  --> {side} {name}: {place.code}"]
    lines = [f"  --> {side} {name}:{place.line}{inside}{module}{turn}"]
    lines.append(f"{place.line:4} | {place.code}")
    if place.column is not None and place.end_column is not None:
        width = max(1, place.end_column - place.column)
        lines.append(f"     | {' ' * place.column}{'^' * width}")
    return lines


def _short(file: str) -> str:
    """The file by its path from the current folder, if it is inside."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file
