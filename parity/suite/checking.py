"""Runs the suite: draws examples of every family and holds each to the rule."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from parity.report import Report
from parity.suite.families import families
from parity.suite.family import Family
from parity.suite.stages import BOTH, Example
from parity.tolerance import Comparison, Mismatch, Verdict
from parity.workers import results
from pgcore.errors import require, unknown_choice

ONE_IN = 50
"""Of so many examples one is also run eagerly and vmapped: the first, and where that takes long
(whole updates, rollouts, training steps) the last."""
DEAR = 1.5
"""Seconds of compiling from which on a family takes long."""


class Finding(NamedTuple):
    """An example on which two sides part: what it was drawn as, and how it was run.

    `how` is `"jitted"`, `"eager"` or `"vmapped"`.
    """

    example: int
    choices: dict[str, Any]
    how: str
    comparison: Comparison


class Tally(NamedTuple):
    """What a family's examples came to.

    Attributes:
        family: Its name.
        num_examples: How many were drawn.
        drawn: The values of each axis that were drawn.
        comparisons: By stage: for each output the verdict that came closest to its bound.
        findings: The examples that parted.
        seconds: How long it took, compilation included.
    """

    family: str
    num_examples: int
    drawn: dict[str, list[str]]
    comparisons: list[Comparison]
    findings: list[Finding]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every example agreed, and there was one."""
        return self.num_examples > 0 and not self.findings

    @property
    def ties(self) -> int:
        """Decisions that differ where the margin is within rounding."""
        return sum(each.ties for each in self.comparisons)


def check_suite(
    examples: int = 1_000,
    *,
    seed: int = 0,
    only: Sequence[str] = (),
    example: int | None = None,
    jobs: int = 1,
    tell: Callable[[Tally], None] = lambda tally: None,
) -> list[Tally]:
    """Holds both packages and the definitions together on drawn examples.

    Args:
        examples: How many in all, about; every family has one at least.
        seed: What they are drawn from.
        only: Names of the families to run; all if empty. A name stands for all that begin with it.
        example: Runs this example of each family alone.
        jobs: Processes to share the work.
        tell: Called with each family's tally as it is there.

    Raises:
        UsageError: There is no such family, or no such number of examples or processes.
    """
    require(examples >= 1, "examples", examples, "a number from 1")
    require(seed >= 0, "seed", seed, "a number from 0")
    require(example is None or example >= 0, "example", example, "a number from 0")
    names = [family.name for family in families()]
    for name in only:
        if not any(known.startswith(name) for known in names):
            raise unknown_choice("only", name, names)
    chosen = [f for f in families() if not only or any(f.name.startswith(n) for n in only)]
    numbers = shared_out(examples, chosen)
    ranges = [
        (0, numbers[family.name]) if example is None else (example, example + 1)
        for family in chosen
    ]
    # What takes long begins first; the order of the pipeline is that of the result.
    order = sorted(range(len(chosen)), key=lambda i: -chosen[i].seconds)
    tasks = [(chosen[i].name, seed, *ranges[i]) for i in order]
    found: dict[str, Tally] = {}
    for _, one in results(tally_of, tasks, jobs):
        tell(one)
        found[one.family] = one
    return [found[family.name] for family in chosen]


def shared_out(examples: int, chosen: Sequence[Family]) -> dict[str, int]:
    """How many examples each family gets: its share, and one at least."""
    shares = sum(family.share for family in chosen) or 1.0
    return {each.name: max(1, round(examples * each.share / shares)) for each in chosen}


def tally_of(name: str, seed: int, start: int, stop: int) -> Tally:
    """Runs these examples of a family, by its name."""
    family = next(family for family in families() if family.name == name)
    return tally(family, seed, range(start, stop))


def tally(family: Family, seed: int, indices: Iterable[int]) -> Tally:
    """Runs these examples of a family."""
    started = time.perf_counter()
    closest: dict[str, dict[tuple[str, str, str], Verdict]] = {}
    drawn: dict[str, set[str]] = {axis: set() for axis in family.axes}
    findings, num_examples = [], 0
    for index in indices:
        choices, parts = held(family, seed, index)
        for axis, value in choices.items():
            drawn[axis].add(str(value))
        num_examples += 1
        for how, comparison in parts:
            _note(closest.setdefault(comparison.stage, {}), comparison.verdicts)
            if not comparison.ok:
                findings.append(Finding(index, choices, how, comparison))
    comparisons = [
        Comparison(stage, _mismatches(findings, stage), list(verdicts.values()))
        for stage, verdicts in closest.items()
    ]
    values = {axis: sorted(each) for axis, each in drawn.items()}
    seconds = time.perf_counter() - started
    return Tally(family.name, num_examples, values, comparisons, findings, seconds)


def held(
    family: Family,
    seed: int,
    index: int,
    *,
    jit: bool = True,
    precisions: Collection[str] = BOTH,
    all_ways: bool | None = None,
) -> tuple[dict[str, Any], list[tuple[str, Comparison]]]:
    """What an example was drawn as, and its comparisons with how each was run.

    One in 50 of a stage's own is run in all ways. What raises has parted: it is reported like a
    wrong number.
    """
    choices: dict[str, Any] = {}
    try:
        choices, example = family.example(seed, index)
        compared = example.compare(jit=jit, precisions=precisions)
        parts = [("jitted" if jit else "eager", each) for each in compared]
        place = ONE_IN - 1 if family.seconds >= DEAR else 0
        all_ways = index % ONE_IN == place if all_ways is None else all_ways
        if all_ways and isinstance(example, Example):
            parts += [("eager", each) for each in example.compare(jit=False)]
            parts += [("vmapped", each) for each in example.vmapped()]
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        mismatch = Mismatch(
            family.name, "all", (), "runs", reason, None, float("inf"), 0.0, "any precision"
        )
        verdict = Verdict("all", "any precision", "candidate", float("inf"), 0.0, "form")
        parts = [("jitted" if jit else "eager", Comparison(family.name, [mismatch], [verdict]))]
    return choices, parts


def report(tallies: Sequence[Tally]) -> Report:
    """All of it as one report."""
    comparisons = [each for tally in tallies for each in tally.comparisons]
    number = sum(tally.num_examples for tally in tallies)
    return Report("pgjax and pgtorch", comparisons, [f"{number:,} examples were drawn"])


def _note(closest: dict[tuple[str, str, str], Verdict], verdicts: Iterable[Verdict]) -> None:
    """Keeps, for each output, the verdict that is closest to its bound, with all ties."""
    for verdict in verdicts:
        key = (verdict.leaf, verdict.dtype, verdict.side)
        known = closest.get(key)
        worse = verdict if known is None or closeness(verdict) > closeness(known) else known
        ties = verdict.ties + (known.ties if known else 0)
        closest[key] = worse._replace(ties=ties)


def closeness(verdict: Verdict) -> float:
    """The error as a share of what is allowed: above 1 it is too much."""
    if verdict.bound > 0:
        return verdict.error / verdict.bound
    return 0.0 if verdict.error == 0 else float("inf")


def _mismatches(findings: Iterable[Finding], stage: str) -> list[Mismatch]:
    return [
        mismatch
        for finding in findings
        if finding.comparison.stage == stage
        for mismatch in finding.comparison.mismatches
    ]
