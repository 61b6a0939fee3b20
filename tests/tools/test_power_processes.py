"""The processes of `parity power`: what ends with them, and what is kept of them."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from parity.mutation.processes import TAIL, Processes
from tests.tools.test_power_command import is_alive


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(text):
    """A Python program as the command, run to its end."""
    return Processes(["python", "-c", text]).run({}, first_failure=True)


def wait_until(holds):
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


HELD = """
import time
from pathlib import Path

Path("begun").touch()
while Path("hold").exists():
    time.sleep(0.02)
"""


def test_what_is_stopped_ends_at_once_has_no_outcome_and_nothing_starts_after_it(here):
    begun, hold = here / "begun", here / "hold"
    hold.touch()
    processes = Processes(["python", "-c", HELD])
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(processes.run, {}, first_failure=True)
        try:
            wait_until(begun.exists)
            processes.stop()
            with pytest.raises(KeyboardInterrupt):
                ended.result(60)
        finally:
            hold.unlink()
    begun.unlink()
    with pytest.raises(KeyboardInterrupt):
        processes.run({}, first_failure=True)
    assert not begun.exists()


def test_what_a_command_leaves_running_ends_with_it():
    ended = run("import subprocess; print(subprocess.Popen(['sleep', '600']).pid)")
    child = int(ended.output)
    try:
        wait_until(lambda: not is_alive(child))
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise


def test_the_end_of_both_streams_is_kept():
    text = f"import sys; print('x' * {TAIL}, flush=True); sys.exit('what it died of')"
    ended = run(text)
    assert (ended.code, len(ended.output)) == (1, TAIL)
    assert ended.output.endswith("x\nwhat it died of\n")


def test_a_command_does_not_read_what_a_person_types(here):
    (here / "typed").write_text("yes\n", "utf-8")
    keyboard = os.dup(0)
    with (here / "typed").open() as typed:
        os.dup2(typed.fileno(), 0)
    try:
        assert run("import sys; print([*sys.stdin])").output == "[]\n"
    finally:
        os.dup2(keyboard, 0)
        os.close(keyboard)


def test_what_has_ended_is_not_ended_again_for_its_number_may_be_anothers(monkeypatch):
    processes, again = Processes(["python", "-c", ""]), []
    processes.run({}, first_failure=True)
    monkeypatch.setattr(os, "killpg", lambda *number: again.append(number))
    processes.stop()
    assert again == []


FAILING = """
from hypothesis import given
from hypothesis import strategies as st

@given(st.integers())
def test_one(x):
    assert False

def test_two():
    assert False

def test_that_is_left_out():
    assert False
"""


@pytest.mark.parametrize(("first_failure", "number"), [(False, 2), (True, 1)])
def test_what_a_person_has_set_for_pytest_stays_and_no_failure_is_remembered(
    here, monkeypatch, first_failure, number
):
    (here / "test_failing.py").write_text(FAILING, "utf-8")
    (here / "own").mkdir()
    own = "def pytest_sessionfinish():\n    print('their own plugin')\n"
    (here / "own" / "theirs.py").write_text(own, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(here / "own"))
    monkeypatch.setenv("PYTEST_PLUGINS", "theirs")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-q -s -n 0 -p no:parity -k 'not left_out'")
    monkeypatch.delenv("HYPOTHESIS_STORAGE_DIRECTORY", raising=False)
    ended = Processes(["pytest"]).run({}, first_failure=first_failure)
    assert f"{number} failed, 1 deselected" in ended.output
    assert "their own plugin" in ended.output
    assert {each.name for each in here.iterdir()} <= {"test_failing.py", "own", "__pycache__"}
