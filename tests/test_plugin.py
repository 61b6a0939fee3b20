"""The pytest plugin of `parity`, in pytest runs of its own. Most compare with a stand-in for
`parity.check` that says what it is told to, since the frameworks take seconds to load.
"""

import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from parity.plugin.recorder import script_name

ROOT = Path(__file__).parent.parent
STAND_IN = """
import parity
from parity.report import Report
from parity.tolerance import Comparison, Mismatch, Verdict
from pgcore.errors import UsageError

def check(error, bound=1.0, program="def test_again(): pass", name="port"):
    def script():
        if program is None:
            raise UsageError("candidate is a lambda, accepted is what stands at the top")
        return f"{program}  # error {error}"
    mismatches = []
    if not error <= bound:
        values = (1.0, f"<{1 + error}>", 1.5, error, bound)
        mismatches = [Mismatch("values, eager", "<v>", (3,), *values, "float64")]
    verdict = Verdict("<v>", "float64", "candidate", error, bound, "scale")
    return Report(name, [Comparison("values, eager", mismatches, [verdict])], [], script)

parity.check = check
"""


class Run:
    """A finished run of pytest: its output, and what it wrote."""

    def __init__(self, folder: Path, result: pytest.RunResult) -> None:
        self.folder, self.result = folder, result
        self.code, self.text = result.ret, result.stdout.str() + result.stderr.str()

    @property
    def json(self) -> dict:
        return json.loads((self.folder / "out.json").read_text(encoding="utf-8"))

    @property
    def tests(self) -> dict[str, dict]:
        return {test["nodeid"].rpartition("::")[2]: test for test in self.json["tests"]}

    def lines(self, start: str) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith(start)]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs pytest in a fresh process over test modules, given as text."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # each takes time to start
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*arguments: str, conftest: str = STAND_IN, **files: str) -> Run:
        pytester.makeconftest(conftest)
        for name, text in files.items():
            (pytester.path / f"{name}.py").write_text(text, encoding="utf-8")
        if any(argument.startswith("-n") for argument in arguments):
            arguments = ("-pxdist", *arguments)
        return Run(
            pytester.path,
            pytester.runpytest_subprocess(
                "-pparity.plugin", "-pno:cacheprovider", "--parity-json=out.json", *arguments
            ),
        )

    return run


# --- a comparison whose result is dropped

DROPPED = """
import pytest

def test_fails_if_the_result_is_dropped(parity):
    parity.check(2.0)

def test_fails_if_one_of_many_is_dropped(parity):
    parity.check(0.5).assert_ok()
    parity.check(2.0)
    parity.check(0.5).assert_ok()

def test_fails_if_the_report_itself_is_asserted(parity):
    assert parity.check(2.0)  # a tuple, which is always true

def test_fails_if_only_a_page_and_a_program_are_written(parity, tmp_path):
    report = parity.check(2.0)
    report.to_html(tmp_path / "page.html")
    report.repro_script(tmp_path / "program.py")

def test_fails_if_it_skips_after_the_drop(parity):
    parity.check(2.0)
    pytest.skip("not today")

def test_fails_if_it_is_nan(parity):
    parity.check(float("nan"))

def test_fails_if_asserted(parity):
    parity.check(2.0).assert_ok()

@pytest.fixture
def dropping(parity):
    parity.check(2.0)

def test_fails_if_its_fixture_drops_it(dropping):
    pass

def test_fails_by_a_name_that_is_asked_for_late(request):
    request.getfixturevalue("parity").check(2.0)

class TestInAClass:
    @pytest.mark.parametrize("error", [2.0, 3.0])
    def test_fails_in_a_class(self, parity, error):
        parity.check(error)

def test_passes_if_it_is_the_same(parity):
    parity.check(0.5)

def test_passes_if_ok_is_read(parity):
    assert not parity.check(2.0).ok

def test_passes_if_failures_are_read(parity):
    assert parity.check(2.0).failures

def test_passes_if_the_text_is_read(parity):
    assert "NOT the same" in str(parity.check(2.0))

def test_passes_if_the_json_is_read(parity):
    assert '"ok": false' in parity.check(2.0).to_json()

def test_passes_if_it_expects_the_error_and_says_so(parity):
    report = parity.check(2.0)
    with pytest.raises(AssertionError, match="port: NOT the same"):
        report.assert_ok()
    assert not report.ok

def test_passes_if_it_expects_the_error(parity):
    with pytest.raises(AssertionError):
        parity.check(2.0).assert_ok()
    parity.check(2.0).ok

@pytest.fixture(scope="module")
def shared(parity):
    return parity.check(2.0)

def test_passes_before_another_test_looks_at_a_shared_report(shared):
    assert shared.name == "port"

def test_passes_as_it_looks_at_a_shared_report(shared):
    assert not shared.ok

def test_passes_and_is_an_error_as_its_fixture_drops_it_at_the_end(parity, request):
    request.addfinalizer(lambda: parity.check(2.0))

@pytest.fixture(scope="class")
def never_seen(parity):
    return parity.check(2.0)

class TestOfTwo:
    def test_passes_with_a_report_that_nobody_looks_at(self, never_seen):
        pass

    def test_passes_and_is_an_error_as_the_last_to_share_it(self, never_seen):
        pass
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--import-mode=importlib",),
        ("--import-mode=prepend", "-n2", "--dist=loadfile"),
        ("--import-mode=append",),
    ],
    ids=["importlib", "xdist", "append"],
)
def test_a_difference_that_nobody_looked_at_fails_its_test(run, arguments):
    done = run(*arguments, test_dropped=DROPPED)
    assert done.code == 1, done.text
    tests = done.tests
    assert len(tests) == 23
    expected = {
        name: "failed" if "_fails_" in name else "error" if "is_an_error" in name else "passed"
        for name in tests
    }
    assert {name: test["outcome"] for name, test in tests.items()} == expected
    failed = sum(outcome == "failed" for outcome in expected.values())
    passed = len(expected) - failed  # an error at the end leaves the test itself passed
    done.result.assert_outcomes(failed=failed, passed=passed, errors=2)
    assert done.text.count("the result of a comparison was dropped: call assert_ok()") >= 10
    found = tests["test_fails_if_the_result_is_dropped"]
    assert found["report"]["failures"]  # a proof that failed, for a machine too
    assert re.search(r"NOT the same \(\d+ in tests that passed\)", done.text)
    assert "<v>[3] in float64" in done.text


def test_the_line_that_fails_is_the_tests_own(run):
    done = run(test_one="def test_one(parity):\n    parity.check(2.0).assert_ok()  # here\n")
    assert done.lines(">") == [">       parity.check(2.0).assert_ok()  # here"] or done.lines(
        ">"
    ) == [">   parity.check(2.0).assert_ok()  # here"], done.text
    assert "fixture.py" not in done.text


# --- the fixture

EVERYTHING = """
import pytest

def test_the_package_is_there(parity):
    import parity as package

    assert parity.NoiseTape is package.NoiseTape
    assert parity.oracle is package.oracle
    assert set(dir(parity)) == set(package.__all__)
    with pytest.raises(AttributeError, match="chekc"):
        parity.chekc
    assert isinstance(parity.check(0.5), package.Report)
    package.check_of_tomorrow = lambda: package.check(2.0)
    assert not parity.check_of_tomorrow().ok  # whatever makes a report is recorded
"""


def test_the_fixture_is_the_package_and_records_whatever_makes_a_report(run):
    done = run(test_all=EVERYTHING)
    done.result.assert_outcomes(passed=1)
    [test] = done.json["tests"]
    assert (test["checks"], test["differing"], test["report"]) == (2, 1, None)


# --- what is written, and the summary

MANY = """
import pytest

@pytest.mark.parametrize("share", [0.25, 0.75])
def test_same(parity, share):
    parity.check(0.125, name="far").assert_ok()
    parity.check(share, name="near").assert_ok()
    parity.check(0.0, 0.0, name="exact").assert_ok()

def test_other():
    pass
"""
BAD = """
import pytest

def test_parts(parity):
    parity.check(2.0, name="first").ok
    parity.check(float("inf"), name="<second>").assert_ok()

def test_lambda(parity):
    parity.check(2.0, program=None).assert_ok()

def test_expects_it(parity):
    assert not parity.check(3.0).ok

@pytest.mark.xfail
def test_known(parity):
    parity.check(4.0).assert_ok()

def test_for_another_reason(parity):
    parity.check(0.5).assert_ok()
    assert False
"""


def test_a_run_in_which_all_is_the_same_says_so_in_one_line(run):
    done = run(test_many=MANY)
    [line] = done.lines("parity: ")
    assert line == (
        "parity: 6 checks in 2 tests, all the same; closest: values, eager: <v> in float64, "
        "error 0.75 of 1 allowed (test_many.py::test_same[0.75])"
    )
    assert done.lines("reproduce") == []
    assert not (done.folder / "parity-repro").exists()
    found = done.json
    assert found["exit_status"] == 0
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["versions"]["numpy"] is not None
    assert found["tests"][1] == {
        "nodeid": "test_many.py::test_same[0.75]",
        "outcome": "passed",
        "checks": 3,
        "differing": 0,
        "worst": {
            "check": "near",
            "stage": "values, eager",
            "leaf": "<v>",
            "dtype": "float64",
            "error": 0.75,
            "bound": 1.0,
            "of_bound": 0.75,
        },
        "report": None,
        "script": None,
        "no_script": None,
    }


def test_a_run_that_does_not_use_the_fixture_says_nothing(run):
    done = run(test_none="def test_none(): pass\n")
    assert "parity:" not in done.text
    assert done.json["tests"] == []


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["plain", "xdist"])
def test_a_run_that_fails_writes_reports_and_programs(run, workers):
    done = run(*workers, "--parity-report=out/page.html", test_bad=BAD)
    tests = done.tests
    outcomes = {name: test["outcome"] for name, test in tests.items()}
    assert outcomes == {
        "test_parts": "failed",
        "test_lambda": "failed",
        "test_expects_it": "passed",
        "test_known": "xfailed",
        "test_for_another_reason": "failed",
    }
    parts = tests["test_parts"]
    assert parts["differing"] == 2
    assert parts["report"]["name"] == "<second>"  # the last that failed
    assert parts["report"]["failures"][0]["error"] == "inf"
    assert parts["worst"]["of_bound"] == "inf"
    program = done.folder / "parity-repro" / "test_bad-test_parts.py"
    assert program.read_text() == "def test_again(): pass  # error inf"
    assert parts["script"] == str(program)
    assert [path.name for path in program.parent.iterdir()] == [program.name]
    assert done.lines("reproduce: ") == ["reproduce: python parity-repro/test_bad-test_parts.py"]
    [line] = done.lines("no program repeats")
    assert line == (
        "no program repeats test_bad.py::test_lambda: candidate is a lambda, accepted is what "
        "stands at the top"
    )
    [line] = done.lines("parity: ")
    assert line == (
        "parity: 6 checks in 5 tests, 5 NOT the same (1 in tests that passed); closest: values, "
        "eager: <v> in float64, error 0.5 of 1 allowed (test_bad.py::test_for_another_reason)"
    )
    page = (done.folder / "out" / "page.html").read_text(encoding="utf-8")
    for fact in (
        "test_bad.py::test_parts",
        "&lt;second&gt;: NOT the same",
        "&lt;v&gt;[3] in float64",
    ):
        assert fact in page
    for name, value in {"reference": 1.0, "oracle": 1.5, "bound": 1.0}.items():
        assert f"<th>{name}<td>{value}" in page
    assert "<th>candidate<td>&lt;inf&gt;" in page
    assert str(program) in page
    for address in ("http", "src=", "url("):
        assert address not in page
    # A second run does not take the programs for tests, and a folder of one's own may be named.
    assert run("--co", "-q").text.count("::") == len(outcomes)
    run("--parity-repro=never", "-k", "lambda")
    assert not (done.folder / "never").exists()
    elsewhere = run("--parity-repro=elsewhere", "-k", "parts")
    assert elsewhere.lines("reproduce: ") == ["reproduce: python elsewhere/test_bad-test_parts.py"]


STOPPED = """
def test_first(parity):
    parity.check(2.0).assert_ok()

def test_second(parity):
    parity.check(0.5).assert_ok()
    raise KeyboardInterrupt
"""


def test_a_run_that_is_stopped_writes_what_it_knows(run):
    done = run(test_stopped=STOPPED)
    assert done.code == pytest.ExitCode.INTERRUPTED
    assert done.json["exit_status"] == done.code
    known = {name: (test["outcome"], test["checks"]) for name, test in done.tests.items()}
    assert known == {"test_first": ("failed", 1), "test_second": ("interrupted", 1)}
    first_only = run("-x")
    assert list(first_only.tests) == ["test_first"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--parity-json=out.txt", "--parity-json is 'out.txt', accepted is .* with .json"),
        ("--parity-report=page", "--parity-report is 'page', accepted is .* with .html"),
        ("--parity-report=folder.html", "'folder.html', which is a folder"),
        ("--parity-json=test_it.py/out.json", "which can't be written: .*"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_any_test_runs(
    run, pytester, option, message
):
    pytester.mkdir("folder.html")
    done = run(option, test_it="def test_it(): pass\n")
    assert done.code == pytest.ExitCode.USAGE_ERROR
    done.result.stderr.re_match_lines(f"ERROR: .*{message}")
    assert "1 passed" not in done.text


def test_a_file_that_can_no_longer_be_written_fails_the_run(run):
    remove = "import pathlib\ndef test_it(): pathlib.Path('out.html').mkdir()\n"
    done = run("--parity-report=out.html", test_it=remove)
    assert done.code != 0
    assert "out.html was not written" in done.text


IDS = [
    "test_a.py::test_x",
    "a/test_b.py::test_x",
    "a.test_b.py::test_x",
    "test_a.py::A::test_x",
    "test_a/A.py::test_x",
    "test_a.py::test_x[1]",
    "test_a.py::test_x[-1]",
    "test_a.py::test_x[1-]",
    "test_ä.py::test_x",
    "test_ö.py::test_x",
    *(f"test_a.py::test_x[{'long' * 100}{i}]" for i in range(2)),
]


def test_each_test_has_a_program_of_its_own_under_a_name_that_any_system_takes():
    names = [script_name(nodeid) for nodeid in IDS]
    assert names[0] == "test_a-test_x.py"
    assert len(set(names)) == len(IDS)
    assert all(len(name) <= 120 and set(name) <= SAFE for name in names)


SAFE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")

# --- Hypothesis

SHRINKS = """
from hypothesis import example, given, settings, strategies as st

def smallest(**options):
    def decorate(test):
        return settings(database=None, **options)(given(number=st.integers(0, 10**6))(test))
    return decorate

@smallest(derandomize=True)
def test_derandomized(parity, number):
    parity.check(number, bound=10).assert_ok()

@smallest(derandomize=False)
def test_random(parity, number):
    assert parity.check(number, bound=10).ok

@smallest(report_multiple_bugs=False)
def test_first_of_two_bugs(parity, number):
    parity.check(number, bound=10).assert_ok()

@smallest(report_multiple_bugs=True, derandomize=True)
def test_two_bugs(parity, number):
    report = parity.check(number, bound=10)
    if number > 1000:
        raise ValueError(str(report))
    report.assert_ok()

@example(number=77)
@smallest()
def test_explicit_example(parity, number):
    parity.check(number, bound=10).assert_ok()

@smallest()
def test_same(parity, number):
    parity.check(number, bound=10**6).assert_ok()

@smallest()
def test_dropped(parity, number):
    parity.check(number, bound=10)
"""


def test_the_last_report_of_a_hypothesis_test_is_the_smallest_example(run):
    done = run(test_shrinks=SHRINKS)
    tests = done.tests
    errors = {
        name: test["report"]["failures"][0]["error"]
        for name, test in tests.items()
        if test["report"]
    }
    dropped = errors.pop("test_dropped")
    assert dropped > 10  # Hypothesis saw no failure, so it has shrunk nothing
    two_bugs = errors.pop("test_two_bugs")
    assert two_bugs in (11, 1001)  # the smallest example of either
    assert errors == {
        "test_derandomized": 11,
        "test_random": 11,
        "test_first_of_two_bugs": 11,
        "test_explicit_example": 77,
    }
    assert tests["test_same"]["outcome"] == "passed"
    assert tests["test_same"]["checks"] >= 50
    assert "parity=parity" in done.text  # and no object's address
    assert len(done.lines("reproduce: ")) == 6


# --- with the frameworks

PORT = """
def in_torch(x):
    return x * x

def in_jax(x):
    return x * x * (1 + 1e-6)
"""
REAL = """
from typing import NamedTuple

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

import port

@settings(max_examples=3, database=None, deadline=None)
@given(size=st.integers(2, 3))
def test_own_module(parity, size):
    parity.check(port.in_torch, port.in_jax, {"x": np.arange(1.0, 1 + size) / 3}).assert_ok()

class First(NamedTuple):
    x: np.ndarray

class Other(NamedTuple):
    y: np.ndarray

def here_in_torch(a, b):
    return a.x + b.y

def here_in_jax(a, b):
    return a.x - b.y

def test_same_module(parity):
    x = np.ones(2)
    report = parity.check(here_in_torch, here_in_jax, {"a": First(x), "b": Other(x)})
    x[:] = 5  # after the comparison
    report.assert_ok()

def test_local(parity):
    parity.check(lambda x: x, lambda x: 2 * x, {"x": np.ones(2)}).assert_ok()
"""
BLOCKED = "import runpy, sys; sys.modules.update(pytest=None, hypothesis=None); "


@pytest.mark.takes_long
def test_a_failure_becomes_a_program_without_pytest_and_hypothesis(pytester, run):
    # Under this import mode the test's module has a name that no import statement can spell.
    pytester.mkdir("my-tests").joinpath("test_real.py").write_text(REAL, encoding="utf-8")
    ini = "[pytest]\npythonpath = src\naddopts = --import-mode=importlib\n"
    (pytester.path / "pytest.ini").write_text(ini, encoding="utf-8")
    port = pytester.mkdir("src") / "port.py"
    port.write_text(PORT, encoding="utf-8")
    done = run("my-tests", conftest="")
    done.result.assert_outcomes(failed=3)
    tests = done.tests
    assert "accepted is what stands at the top of a module" in tests["test_local"]["no_script"]

    def repeat(name: str, before: str = "import runpy, sys; ") -> subprocess.CompletedProcess[str]:
        code = before + "runpy.run_path(sys.argv[1], run_name='__main__')"
        command = [sys.executable, "-c", code, tests[name]["script"]]
        return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)

    own = tests["test_own_module"]
    [first, *_] = own["report"]["failures"]
    assert first["index"] == [1]  # of two numbers: the smallest size
    again = repeat("test_own_module", BLOCKED)
    assert again.returncode == 1, again.stderr
    for key in ("reference", "candidate"):
        assert repr(first[key]) in again.stdout
    port.write_text(PORT.replace(" * (1 + 1e-6)", ""), encoding="utf-8")
    mended = repeat("test_own_module", BLOCKED)
    assert mended.returncode == 0, mended.stderr

    again = repeat("test_same_module")
    assert again.returncode == 1, again.stderr
    assert "reference 2.0" in again.stdout  # 1 + 1, as it was when it was compared
    program = Path(tests["test_same_module"]["script"]).read_text(encoding="utf-8")
    assert "# test_real.py imports hypothesis and pytest, so this program does too." in program


# --- the plugin itself

HEAVY = {"torch", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "hypothesis", "mpmath"}
COUNT = """
import sys

def pytest_unconfigure():
    print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_run_that_does_not_use_the_plugin_loads_nothing_heavy(run):
    done = run("-pno:hypothesispytest", conftest=COUNT, test_none="def test_none(): pass\n")
    [line] = done.lines("LOADED")
    loaded = set(line.split())
    assert "parity" in loaded  # so the list is read right
    assert loaded & HEAVY == set()


def test_the_entry_point_is_the_plugin_that_this_run_has(pytestconfig):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"parity": "parity.plugin"}
    assert pytestconfig.pluginmanager.get_plugin("parity") is import_module("parity.plugin")
