"""Hypothesis profiles, and two guards: a run without tests fails, and so does a parity run with
a test left out.

`HYPOTHESIS_PROFILE` chooses the profile: `ci` (the default) draws the same examples on every run,
`nightly` draws many more, and new ones each time.
"""

import os

import hypothesis
import pytest

from parity import plugin

hypothesis.settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, database=None
)
hypothesis.settings.register_profile(
    "nightly", max_examples=2000, deadline=None, print_blob=True, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """The plugin of `parity`, which an installed checkout has by its entry point already."""
    if not pluginmanager.is_registered(plugin):
        pluginmanager.register(plugin, "parity")


def pytest_configure(config: pytest.Config) -> None:
    is_xdist_worker = hasattr(config, "workerinput")
    if not is_xdist_worker and not config.option.collectonly:
        config.pluginmanager.register(Guard(), "guard")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first, so that no worker is left alone with one in the end."""
    items.sort(key=lambda item: item.get_closest_marker("takes_long") is None)


class Guard:
    """Fails a run that proves nothing. (Under xdist it sits where all reports arrive.)"""

    def __init__(self) -> None:
        self.num_run = 0
        self.left_out: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.num_run += report.when == "call" and not report.skipped
        self._require_parity(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._require_parity(report)  # a module can skip itself while it is collected

    def _require_parity(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        is_parity = report.nodeid.startswith(("tests/parity/", "tests/tools/"))
        if is_parity and (report.skipped or hasattr(report, "wasxfail")):
            self.left_out.append(report.nodeid)

    @property
    def complaints(self) -> list[str]:
        lines = []
        if self.num_run == 0:
            lines.append("the run fails: no test ran")
        if self.left_out:
            names = ", ".join(sorted(set(self.left_out)))
            lines.append(f"the run fails: parity tests may not be skipped or xfailed: {names}")
        return lines

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        for line in self.complaints:
            terminalreporter.write_line(line, red=True, bold=True)


@pytest.fixture(autouse=True)
def _no_search_for_lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing check looks for its lines in the tests of that alone: it takes seconds each."""
    if request.node.get_closest_marker("searches_lines") is None:
        monkeypatch.setattr("parity.locate.where.text", lambda *_: "")
