"""What a comparison found: for a person, for a machine, and as a page."""

import html
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from parity.tolerance import Comparison, Mismatch, Verdict
from pgcore.files.writing import write_atomically

MAX_OTHERS_SHOWN = 8
"""Mismatches that a text names after the first, which is the one to look at."""


class Report(NamedTuple):
    """The comparisons of one check, in the order in which they were made.

    Attributes:
        name: What was compared.
        comparisons: One for each stage and way of running it.
        notes: What a reader should know beside them: that inputs were rounded, say.
        script: Makes a program that repeats the check, where there is one.
        where: Says on which lines the two part, where that can be looked for: it takes seconds.
    """

    name: str
    comparisons: list[Comparison]
    notes: list[str]
    script: Callable[[], str] | None = None
    where: Callable[[], str] | None = None

    @property
    def ok(self) -> bool:
        """Whether everything agreed, and anything was compared at all."""
        return bool(self.comparisons) and all(each.ok for each in self.comparisons)

    @property
    def failures(self) -> list[Mismatch]:
        """All mismatches, those of the first stage first."""
        return [mismatch for each in self.comparisons for mismatch in each.mismatches]

    def assert_ok(self) -> None:
        """Raises an `AssertionError` with the report's text unless everything agreed."""
        if not self.ok:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        found = "" if self.ok or self.where is None else self.where()
        return f"{self.summary()}\n{found}" if found else self.summary()

    def summary(self) -> str:
        """The report's text without the lines at which the two part."""
        lines = [f"{self.name}: {'the same' if self.ok else 'NOT the same'}"]
        lines += [f"  {note}" for note in [*_summary(self.comparisons), *self.notes]]
        if self.failures:
            first, *others = self.failures
            lines += [f"  {line}" for line in describe(first)]
            lines += [f"  also {_briefly(mismatch)}" for mismatch in others[:MAX_OTHERS_SHOWN]]
            if (more := len(others) - MAX_OTHERS_SHOWN) > 0:
                lines.append(f"  and {more} more")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as a JSON object; numbers that JSON lacks are strings (`"nan"`)."""
        return json.dumps(
            {
                "name": self.name,
                "ok": self.ok,
                "failures": [_plain(mismatch._asdict()) for mismatch in self.failures],
                "verdicts": [
                    {"stage": each.stage} | _plain(verdict._asdict())
                    for each in self.comparisons
                    for verdict in each.verdicts
                ],
                "notes": self.notes,
            },
            indent=2,
        )

    def to_html(self, path: str | Path) -> None:
        """Writes one plain page that needs no other file."""
        write_atomically(Path(path), _page(self).encode())

    def repro_script(self, path: str | Path) -> None:
        """Writes a program that repeats the check with these very inputs.

        Raises:
            UsageError: A function that was compared can't be imported by another program.
        """
        if self.script is None:
            raise ValueError(f"{self.name} was not made by parity.check: it has no script")
        write_atomically(Path(path), self.script().encode())


def describe(mismatch: Mismatch) -> list[str]:
    """A mismatch in words, one line a fact."""
    lines = [
        _place(mismatch),
        f"    reference {_number(mismatch.reference)}",
        f"    candidate {_number(mismatch.candidate)}",
    ]
    if mismatch.oracle is not None:
        lines.append(f"    oracle    {_number(mismatch.oracle)}")
    if math.isfinite(mismatch.error):
        lines.append(f"    {_error(mismatch)}")
    return lines


def _briefly(mismatch: Mismatch) -> str:
    if math.isfinite(mismatch.error):
        return f"{_place(mismatch)}, {_error(mismatch)}"
    reference, candidate = _number(mismatch.reference), _number(mismatch.candidate)
    return f"{_place(mismatch)}: reference {reference}, candidate {candidate}"


def _place(mismatch: Mismatch) -> str:
    at = list(mismatch.index) if mismatch.index else ""
    return f"{mismatch.stage}: {mismatch.leaf}{at} in {mismatch.dtype}"


def _error(mismatch: Mismatch) -> str:
    return f"error {mismatch.error:.3g}, allowed {mismatch.bound:.3g}"


def _summary(comparisons: list[Comparison]) -> list[str]:
    """What was compared, how close it came, and where more than rounding decided."""
    verdicts = [verdict for each in comparisons for verdict in each.verdicts]
    lines = [f"compared: {'; '.join(each.stage for each in comparisons)}"]
    for dtype in ("float64", "float32"):
        judged = [v for v in verdicts if v.dtype == dtype and v.bound > 0]
        if judged:
            worst = max(judged, key=lambda v: v.error / v.bound)
            stage = next(each.stage for each in comparisons if worst in each.verdicts)
            where = worst.leaf if len(comparisons) == 1 else f"{stage}: {worst.leaf}"
            times, term = worst.error / worst.bound, TERMS[worst.term]
            lines.append(
                f"{dtype}: the largest error is {times:.2g} times what is allowed "
                f"({where}, {worst.error:.2g} of {worst.bound:.2g}, by {term})"
            )
    if num_ties := sum(each.ties for each in comparisons):
        lines.append(f"{num_ties} decisions differ where the margin is within rounding")
    return lines


TERMS = {
    "scale": "its share of the largest value",
    "inputs": "the response to rounded inputs",
    "terms": "the sum of its terms",
    "float32": "the reference's own float32 error",
    "rounding": "the response to operations rounded otherwise",
    "nudges": "the reference nudged by an ulp after every update",
    "exact": "equality",
    "form": "names, shapes and dtypes",
    "nonfinite": "both sides not finite in the same places",
    "chance": "what chance allows",
}
"""What gave a bound, in words."""


def _number(value: Any) -> str:
    return f"{value!r}" if isinstance(value, int | float) else str(value)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def _page(report: Report) -> str:
    escape = html.escape
    rows = [(each.stage, verdict) for each in report.comparisons for verdict in each.verdicts]
    table = "\n".join(_table_row(stage, verdict) for stage, verdict in rows)
    failures = "\n".join(
        f"<pre>{escape(chr(10).join(describe(mismatch)))}</pre>" for mismatch in report.failures
    )
    notes = "".join(
        f"<li>{escape(note)}</li>" for note in [*_summary(report.comparisons), *report.notes]
    )
    title = f"{report.name}: {'the same' if report.ok else 'NOT the same'}"
    return PAGE.format(title=escape(title), notes=notes, failures=failures, table=table)


def _table_row(stage: str, verdict: Verdict) -> str:
    agreed = verdict.error <= verdict.bound
    cells = [
        stage,
        verdict.leaf,
        verdict.dtype,
        f"{verdict.error:.2g}",
        f"{verdict.bound:.2g}",
        TERMS[verdict.term],
    ]
    row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f"<tr{'' if agreed else ' class=bad'}>{row}</tr>"


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem }}
table {{ border-collapse: collapse; font-size: 14px }}
th, td {{ text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd }}
pre, .bad td {{ background: #fdecea }}
pre {{ padding: .6rem }}
</style></head><body>
<h1>{title}</h1>
<ul>{notes}</ul>
{failures}
<table><tr><th>stage<th>output<th>precision<th>error<th>allowed<th>by</tr>
{table}
</table></body></html>
"""
