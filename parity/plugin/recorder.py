"""What each test compared, kept in the process that runs it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Generator, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from parity.plugin.fixture import Look, watched
from pgcore.errors import UsageError

if TYPE_CHECKING:
    from parity.report import Report

WHERE = "parity: where the two first part"
LONGEST_NAME = 100
PLAIN_ID = re.compile(r"[\w/]+\.py(::\w+)+", re.ASCII)
"""Ids of tests that stay apart when `/` and `::` are replaced."""


@dataclasses.dataclass
class Record:
    """What one test compared.

    `worst` is the verdict with the largest share of its bound, `differing` the number of reports
    that are not ok, and `last` the last of these: Hypothesis runs the smallest example last.
    """

    nodeid: str
    uses_fixture: bool = False
    checks: int = 0
    differing: int = 0
    worst: dict[str, Any] | None = None
    last: Report | None = None
    failed: bool = False
    script: str | None = None
    no_script: str | None = None

    def add(self, report: Report) -> None:
        """Counts a report."""
        self.uses_fixture = True
        self.checks += 1
        if not report.ok:
            self.differing += 1
            self.last = report
        worst = _worst(report)
        if worst and (self.worst is None or worst["of_bound"] >= self.worst["of_bound"]):
            self.worst = worst

    def plain(self) -> dict[str, Any]:
        """For a machine: what xdist can send, and JSON can hold but for numbers not finite."""
        report = self.last if self.failed else None
        return {
            "nodeid": self.nodeid,
            "checks": self.checks,
            "differing": self.differing,
            "worst": self.worst,
            "report": json.loads(report.to_json()) if report else None,
            "script": self.script,
            "no_script": self.no_script,
        }


class Recorder:
    """Knows which test runs, keeps its reports, and fails it where one was dropped."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.current = Record("outside of any test")
        self.unseen: list[Look] = []  # not the reports, of which Hypothesis makes hundreds

    def add(self, report: Report) -> Report:
        """The report, from now on watched, as one of the test that runs."""
        self.current.add(report)
        same = watched(report)
        if not report.ok:
            self.unseen = [each for each in self.unseen if each.complaint] + [same.look]
        return same

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """A test begins, or is run again."""
        self.current = Record(item.nodeid, "parity" in getattr(item, "fixturenames", ()))
        self.unseen = []
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """What a fixture shared by several tests compares may be looked at in any of them."""
        if fixturedef.scope == "function":
            return (yield)
        outer, self.unseen = self.unseen, []
        try:
            return (yield)
        finally:
            made, self.unseen = self.unseen, outer
            if made:
                request.addfinalizer(partial(require_looked, made))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """What the test and its own fixtures dropped fails it, unless something else did."""
        try:
            result = yield
        except pytest.skip.Exception:
            require_looked(self.unseen)
            raise
        require_looked(self.unseen)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """What fixtures drop as they end is an error of the test."""
        self.unseen = []
        result = yield
        require_looked(self.unseen)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """The record travels with pytest's own report, from xdist's workers too."""
        report = yield
        record = self.current
        if record.uses_fixture:
            record.failed |= report.failed
            if report.failed and record.last and not (record.script or record.no_script):
                self._write_script(record, record.last)
                if record.last.where is not None and (text := record.last.where()):
                    report.sections.append((WHERE, text))
            vars(report)["parity"] = record.plain()
        return report

    def _write_script(self, record: Record, report: Report) -> None:
        path = self.folder / script_name(record.nodeid)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            report.repro_script(path)
        except UsageError as error:
            record.no_script = str(error)
        except Exception as error:  # an error here must not end the run
            record.no_script = f"{type(error).__name__}: {error}"
        else:
            record.script = str(path)
        with suppress(OSError):
            self.folder.rmdir()  # if nothing is in it


def require_looked(looks: Iterable[Look]) -> None:
    """Fails the test if a report that is not ok was dropped."""
    __tracebackhide__ = True
    unsaid = [each for each in looks if each.complaint]
    if unsaid:
        more = f"\n(and {len(unsaid) - 1} more)" if len(unsaid) > 1 else ""
        pytest.fail(f"{unsaid[0].complaint}\n{unsaid[0].text}{more}", pytrace=False)


def script_name(nodeid: str) -> str:
    """A file's name for a test's id, another for each id."""
    name = re.sub(r"[^\w.]+", "-", nodeid.replace(".py::", "-").replace("/", "."), flags=re.ASCII)
    if PLAIN_ID.fullmatch(nodeid) and len(name) <= LONGEST_NAME:
        return f"{name}.py"
    digest = hashlib.sha256(nodeid.encode()).hexdigest()[:8]
    return f"{name[:LONGEST_NAME].strip('-.')}-{digest}.py"


def _worst(report: Report) -> dict[str, Any] | None:
    """The verdict that came closest to its bound, or went furthest beyond it."""
    found = [
        {
            "check": report.name,
            "stage": each.stage,
            "leaf": verdict.leaf,
            "dtype": verdict.dtype,
            "error": float(verdict.error),
            "bound": float(verdict.bound),
            "of_bound": _share(float(verdict.error), float(verdict.bound)),
        }
        for each in report.comparisons
        for verdict in each.verdicts
    ]
    return max(found, key=lambda each: each["of_bound"], default=None)


def _share(error: float, bound: float) -> float:
    if error == 0:
        return 0.0
    return math.inf if math.isnan(error) or bound <= 0 else error / bound
