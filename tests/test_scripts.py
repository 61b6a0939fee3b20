"""`scripts/test` with a stand-in for Python: what it runs, with which flags, and how it ends."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAND_IN = """#!/bin/sh
[ "$1" != -c ] || { echo --quick; exit; }
[ "$2" != compileall ] || exit 1
echo "$XLA_FLAGS|$*" >>calls
case "$*" in *FAILS*) exit 3 ;; esac
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the script; gives its exit status, and pytest's flags and paths of each call."""
    monkeypatch.setenv("XLA_FLAGS", "--own")
    monkeypatch.delenv("TEST_PYTHON", raising=False)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "lint").write_text("echo linted >>calls\n", encoding="utf-8")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)

    def run(*arguments: str, fails: str = "never"):
        shutil.copy(ROOT / "scripts" / "test", tmp_path / "scripts")
        python.write_text(STAND_IN.replace("FAILS", fails), encoding="utf-8")
        python.chmod(0o755)
        done = subprocess.run(["sh", "scripts/test", *arguments], cwd=tmp_path, check=False)
        calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
        assert calls[0] == "linted"
        start = "-m pytest -n 2 --dist worksteal "
        found = [call.split("|") for call in calls if call != "linted"]
        assert all(words.startswith(start) for _, words in found)
        return done.returncode, [(flags, words.removeprefix(start)) for flags, words in found]

    return run


def test_all_tests_run_and_parity_with_the_flags_of_the_user(run):
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tests, *packages = pyproject["tool"]["pytest"]["ini_options"]["testpaths"]
    status, calls = run()
    assert status == 0
    assert calls == [
        ("--own --quick", f"{tests} --ignore={tests}/parity"),
        ("--own", " ".join([f"{tests}/parity", *packages])),
    ]


@pytest.mark.parametrize("fails", ["ignore", "pgcore"])
def test_the_other_half_runs_if_one_fails_and_the_whole_has_failed(run, fails):
    status, calls = run(fails=fails)
    assert status == 3
    assert len(calls) == 2


def test_arguments_narrow_one_run(run):
    assert run("-k", "returns") == (0, [("--own", "-k returns")])
    assert run("-k", "returns", fails="returns")[0] == 3


def test_another_environment_runs_the_tests_alone(run, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_text('#!/bin/sh\necho "$*" >>others\n', encoding="utf-8")
    other.chmod(0o755)
    monkeypatch.setenv("TEST_PYTHON", "./other")
    with pytest.raises(FileNotFoundError, match="calls"):  # neither linted nor run by .venv
        run("-k", "returns")
    compiles, tests = (tmp_path / "others").read_text().splitlines()
    assert compiles == "-m compileall -q pgcore pgjax pgtorch parity"
    assert tests == "-m pytest -n 2 --dist worksteal -k returns"
