"""The command `parity check`."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from parity.workers import Counted, default_jobs

if TYPE_CHECKING:
    from parity.suite.checking import Tally

MAX_FINDINGS_SHOWN = 3
"""Examples of a family that are shown in full."""


@dataclass(frozen=True)
class Check:
    """Hold pgjax, pgtorch and the definitions together, stage by stage, on hostile inputs."""

    examples: int = 1_000
    """How many examples to draw in all."""
    seed: int = 0
    """What they are drawn from."""
    only: Annotated[str | None, tyro.conf.arg(metavar="NAME,...")] = None
    """Only these families: returns,"advantages batch". A name stands for all that begin with it."""
    example: int | None = None
    """Only the example of this number in each family: to repeat one that parted."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None
    """Write a page with every output's closest verdict."""
    json: bool = False
    """Print one JSON object instead of a table."""
    jobs: int = field(default_factory=default_jobs)
    """Processes that share the work."""

    def run(self) -> int:
        """Runs the suite, prints what it found, and returns the exit code: 1 if anything parted."""
        from parity.suite.checking import check_suite, report

        started = time.perf_counter()
        only = [name.strip() for name in (self.only or "").split(",") if name.strip()]
        done = Counted("stages compared")
        tallies = check_suite(
            self.examples,
            seed=self.seed,
            only=only,
            example=self.example,
            jobs=self.jobs,
            tell=lambda tally: done.tell(tally.family),
        )
        done.clear()
        seconds = time.perf_counter() - started
        if self.report is not None:
            report(tallies).to_html(self.report)
        if self.json:
            print(json.dumps(as_json(tallies, self.seed, seconds)))
        else:
            print(as_text(tallies, self.seed, seconds))
        return 0 if tallies and all(tally.ok for tally in tallies) else 1


def as_text(tallies: Sequence["Tally"], seed: int, seconds: float) -> str:
    """A line for each family, then what parted."""
    width = max(len(tally.family) for tally in tallies)
    lines = [f"{'stage':{width}}  {'examples':>8}  closest to its bound"]
    for tally in tallies:
        state = _closest(tally) if tally.ok else f"NOT the same in {_number_parted(tally)} of them"
        ties = f"; {tally.ties} ties" if tally.ties else ""
        lines.append(f"{tally.family:{width}}  {tally.num_examples:8,}  {state}{ties}")
    for tally in tallies:
        lines += _parted(tally, seed)
    number = sum(tally.num_examples for tally in tallies)
    wrong = sum(not tally.ok for tally in tallies)
    verdict = "all the same" if not wrong else f"{wrong} of {len(tallies)} stages NOT the same"
    return "\n".join([*lines, f"{number:,} examples in {seconds:.0f} s: {verdict}"])


def as_json(tallies: Sequence["Tally"], seed: int, seconds: float) -> dict[str, Any]:
    """What a machine reads: `ok`, `stages` and `failures`."""
    return {
        "ok": bool(tallies) and all(tally.ok for tally in tallies),
        "seed": seed,
        "examples": sum(tally.num_examples for tally in tallies),
        "seconds": round(seconds, 1),
        "stages": [
            {
                "name": tally.family,
                "examples": tally.num_examples,
                "ok": tally.ok,
                "ties": tally.ties,
                "closest": _share(tally),
                "drawn": tally.drawn,
                "seconds": round(tally.seconds, 2),
            }
            for tally in tallies
        ],
        "failures": [
            {
                "family": tally.family,
                "example": finding.example,
                "drawn": {axis: str(value) for axis, value in finding.choices.items()},
                "how": finding.how,
                **{key: _plain(value) for key, value in mismatch._asdict().items()},
            }
            for tally in tallies
            for finding in tally.findings
            for mismatch in finding.comparison.mismatches
        ],
    }


def _parted(tally: "Tally", seed: int) -> list[str]:
    from parity.report import describe

    lines = []
    for finding in tally.findings[:MAX_FINDINGS_SHOWN]:
        drawn = ", ".join(f"{axis} {value}" for axis, value in finding.choices.items())
        lines += ["", f"{tally.family}, example {finding.example}, {finding.how}: {drawn}"]
        lines += [f"  {line}" for line in describe(finding.comparison.mismatches[0])]
        again = f"--only {tally.family!r} --example {finding.example} --seed {seed}"
        lines.append(f"  again: parity check {again}")
    if (more := len(tally.findings) - MAX_FINDINGS_SHOWN) > 0:
        lines.append(f"  and {more} more of {tally.family}")
    return lines


def _closest(tally: "Tally") -> str:
    from parity.suite.checking import closeness

    verdicts = [verdict for each in tally.comparisons for verdict in each.verdicts]
    worst = max(verdicts, key=closeness)
    return f"{closeness(worst):.2g} times ({worst.leaf}, {worst.dtype})"


def _share(tally: "Tally") -> float | str:
    from parity.suite.checking import closeness

    verdicts = [verdict for each in tally.comparisons for verdict in each.verdicts]
    return _plain(max(map(closeness, verdicts), default=0.0))


def _number_parted(tally: "Tally") -> int:
    return len({finding.example for finding in tally.findings})


def _plain(value: Any) -> Any:
    """What JSON has: numbers that it lacks are strings."""
    if isinstance(value, float) and not -1e308 <= value <= 1e308:
        return str(value)
    return (
        value
        if isinstance(value, int | float | str | list | tuple) or value is None
        else str(value)
    )
