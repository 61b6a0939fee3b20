"""What all tests compared, put together where their results arrive: files and a summary."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
from pathlib import Path
from typing import Any

import pytest

from parity.plugin.recorder import Recorder

PACKAGES = (
    "policy-gradient-parity",
    "torch",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "hypothesis",
    "pytest",
)
"""What a result depends on; those that are not installed are null."""


class Results:
    """The tests that used the fixture, in the order in which their results came in."""

    def __init__(
        self, config: pytest.Config, recorder: Recorder, json_file: Path | None, page: Path | None
    ) -> None:
        self.config = config
        self.recorder = recorder
        self.json_file, self.page = json_file, page
        self.tests: dict[str, dict[str, Any]] = {}
        self.not_written: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test has ended, here or in a worker."""
        record = getattr(report, "parity", None)
        if record is None:
            return
        before = self.tests.get(report.nodeid, {}).get("outcome")
        self.tests[report.nodeid] = {**record, "outcome": _outcome(report, before)}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Writes the files, of a run that was stopped too."""
        running = self.recorder.current
        if self.tests.get(running.nodeid, {}).get("outcome") == "interrupted":
            self.tests[running.nodeid] |= running.plain()
        found = {
            "versions": versions(),
            "exit_status": int(exitstatus),
            "tests": [_plain(test) for test in self.tests.values()],
        }
        for path, text in ((self.json_file, _json), (self.page, _page)):
            if path is not None:
                self._write(session, path, text(found))

    def _write(self, session: pytest.Session, path: Path, text: str) -> None:
        from pgcore.files.writing import write_atomically

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
        except OSError as error:
            self.not_written.append(f"parity: {path} was not written: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line for all tests, and one for each program that repeats a failure."""
        for line in self.not_written:
            terminalreporter.write_line(line, red=True)
        if not self.tests:
            return
        tests = list(self.tests.values())
        terminalreporter.write_line(summary(tests))
        for test in tests:
            if test["script"]:
                command = shlex.join(["python", self._shown(test["script"])])
                terminalreporter.write_line(f"reproduce: {command}")
            elif test["no_script"]:
                terminalreporter.write_line(
                    f"no program repeats {test['nodeid']}: {test['no_script']}"
                )

    def _shown(self, path: str) -> str:
        """As seen from where pytest was started, if it is below."""
        start = self.config.invocation_params.dir
        return os.path.relpath(path, start) if Path(path).is_relative_to(start) else path


def summary(tests: list[dict[str, Any]]) -> str:
    """One line for a person."""
    checks, differing = (sum(test[key] for test in tests) for key in ("checks", "differing"))
    line = f"parity: {_count(checks, 'check')} in {_count(len(tests), 'test')}"
    if differing:
        fine = sum(test["differing"] for test in tests if test["outcome"] == "passed")
        expected = f" ({fine} in tests that passed)" if fine else ""
        line += f", {differing} NOT the same{expected}"
    elif checks:
        line += ", all the same"
    same = [test for test in tests if test["worst"] and not test["differing"]]
    if not same:
        return line
    closest = max(same, key=lambda test: test["worst"]["of_bound"])
    return f"{line}; closest: {describe_worst(closest['worst'])} ({closest['nodeid']})"


def describe_worst(worst: dict[str, Any]) -> str:
    """A verdict in a few words."""
    place = f"{worst['stage']}: {worst['leaf']} in {worst['dtype']}"
    if worst["of_bound"] == 0:
        return f"{place}, no error"
    return f"{place}, error {float(worst['error']):.2g} of {float(worst['bound']):.2g} allowed"


def versions() -> dict[str, str | None]:
    """Of what a result depends on, from the packages' metadata: nothing is imported."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _outcome(report: pytest.TestReport, before: str | None) -> str:
    """As pytest's own summary has it. Until the test itself has ended it is `interrupted`."""
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.when == "setup":
        return {"passed": "interrupted", "failed": "error"}.get(report.outcome, report.outcome)
    if before == "failed":
        return before  # a subtest's failure is not made good by what follows
    if report.when == "teardown":
        return "error" if report.failed else before or "passed"
    return report.outcome


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _plain(value: Any) -> Any:
    """With strings in place of the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def _page(found: dict[str, Any]) -> str:
    from parity.plugin.page import page

    return page(found)
