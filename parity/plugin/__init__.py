"""The pytest plugin: the fixture `parity`, `--parity-json`, `--parity-report`, `--parity-repro`.

pytest loads it in every run of an environment that has this package, so it imports nothing but
pytest and small modules of its own until a test asks for the fixture.
"""

import tempfile
from pathlib import Path

import pytest

from parity.plugin.fixture import Parity
from parity.plugin.recorder import Recorder
from parity.plugin.results import Results

REPRO_FOLDER = "parity-repro"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, in a group of their own."""
    group = parser.getgroup("parity", "parity: proof that two implementations are the same")
    group.addoption(
        "--parity-json", metavar="FILE.json", help="write what every comparison found, as JSON"
    )
    group.addoption("--parity-report", metavar="FILE.html", help="write the same as one plain page")
    group.addoption(
        "--parity-repro",
        metavar="DIR",
        help="the folder for programs that repeat a failed comparison "
        f"(default: {REPRO_FOLDER} in the root folder)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuses files that can't be written before any test runs."""
    recorder = Recorder(config, repro_folder(config))
    config.pluginmanager.register(recorder, "parity-recorder")
    if not hasattr(config, "workerinput"):  # the results of xdist's workers arrive here
        files = [
            output(config, "--parity-json", ".json"),
            output(config, "--parity-report", ".html"),
        ]
        config.pluginmanager.register(Results(config, recorder, *files), "parity-results")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The programs that were written are no tests, whatever their names."""
    return True if collection_path == repro_folder(config) else None


@pytest.fixture(scope="session", name="parity")
def _parity(pytestconfig: pytest.Config) -> Parity:
    """`parity.check` and the package's other names; every report is kept with its test.

    A report that is not ok and that nobody looked at fails the test.
    """
    # Of the session, because Hypothesis refuses fixtures that are made anew for each test.
    recorder = pytestconfig.pluginmanager.get_plugin("parity-recorder")
    assert isinstance(recorder, Recorder)
    return Parity(recorder.add)


def repro_folder(config: pytest.Config) -> Path:
    """Where the programs go that repeat a failure."""
    given = config.getoption("--parity-repro")
    return config.invocation_params.dir / given if given else config.rootpath / REPRO_FOLDER


def output(config: pytest.Config, option: str, ending: str) -> Path | None:
    """The file that an option names, which can be written.

    Raises:
        UsageError: It can't be, or its name has another ending.
    """
    given = config.getoption(option)
    if given is None:
        return None
    path = config.invocation_params.dir / given
    if path.suffix != ending:
        raise pytest.UsageError(f"{option} is {given!r}, accepted is a file's name with {ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise pytest.UsageError(f"{option} is {given!r}, which can't be written: {error}") from None
    if path.is_dir():
        raise pytest.UsageError(f"{option} is {given!r}, which is a folder; name a file in it")
    return path
