"""The guards of conftest.py, each in a pytest run of its own."""

from pathlib import Path

import pytest

CONFTEST = (Path(__file__).parent / "conftest.py").read_text(encoding="utf-8")
PASSES = "def test_passes(): pass\n"
SKIPPED = "@pytest.mark.skip\ndef test_left(): pass\n"
LEFT_OUT = {
    "parity_skipped": SKIPPED,
    "parity_skips": "def test_left(): pytest.skip('not today')",
    "parity_xfailed": "@pytest.mark.xfail\ndef test_left(): assert False",
    "parity_xfails": "def test_left(): pytest.xfail('not today')",
    "parity_xpassed": "@pytest.mark.xfail(strict=False)\ndef test_left(): pass",
    "parity_skips_itself": "pytest.skip('not today', allow_module_level=True)",
    "parity_imports": "pytest.importorskip('no_such_package')",
    "tools_skipped": SKIPPED,
}
WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["plain", "xdist"])


def path_of(name: str) -> Path:
    """Where a file is, in `tests/`."""
    folder = name.partition("_")[0]
    return Path(folder if folder in ("parity", "tools") else "", f"test_{name}.py")


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs pytest, in a fresh process, over `tests/` made of the given files."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # each takes time to start

    def run(*arguments: str, **files: str) -> pytest.RunResult:
        tests = pytester.mkdir("tests")
        (tests / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        for name, text in files.items():
            path = tests / path_of(name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"import pytest\n{text}\n", encoding="utf-8")
        return pytester.runpytest_subprocess("-pno:cacheprovider", "-pxdist", "tests", *arguments)

    return run


@WORKERS
def test_a_run_passes_if_all_of_parity_does_and_a_skip_elsewhere_is_allowed(run, workers):
    result = run(*workers, other=SKIPPED, parity=PASSES)
    assert result.ret == 0
    assert "the run fails" not in result.stdout.str()


def test_a_run_without_tests_fails(run):
    result = run(other="")
    assert result.ret != 0
    result.stdout.fnmatch_lines("the run fails: no test ran")


@WORKERS
def test_a_run_that_skips_all_its_tests_fails(run, workers):
    result = run(*workers, other=SKIPPED)
    assert result.ret != 0
    result.stdout.fnmatch_lines("the run fails: no test ran")


@WORKERS
def test_parity_tests_that_are_left_out_fail_the_run_which_names_them(run, workers):
    result = run(*workers, other=PASSES, **LEFT_OUT)
    assert result.ret != 0
    [line] = [line for line in result.outlines if line.startswith("the run fails")]
    assert line.startswith("the run fails: parity tests may not be skipped or xfailed: ")
    assert [name for name in LEFT_OUT if f"tests/{path_of(name)}" not in line] == []
