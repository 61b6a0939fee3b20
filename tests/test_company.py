"""A full disk, a folder that goes, nobody who reads, a terminal that goes away: no run is lost."""

import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager

import pytest

import pgtorch
from pgcore.checkpoints import find_checkpoint
from pgcore.cli import run_cli
from pgcore.commands.process import listening
from pgcore.errors import RunError
from pgcore.runs.metrics_file import MetricsFile
from pgcore.training.saving import UnsavedWarning
from pgjax.envs import gymnasium
from tests.depth import IS_DEEP
from tests.test_cli import command, load_pgtorch, num_rows, wait_until
from tests.test_files import ROW
from tests.test_resume import outcome, settings

LAST = 6
OPTIONS = ["--hidden-sizes", "8", "6", "--episodes-per-update", "2", "--eval-episodes", "3"]
OPTIONS += ["--seed", "7", "--total-timesteps", "1e9", "--checkpoint-every", "1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    pgtorch.train(settings("reinforce", folder, until_update=LAST, checkpoint_every=1))
    return folder


def train(folder, callback=None):
    config = settings("reinforce", folder, until_update=LAST, checkpoint_every=1)
    pgtorch.train(config, callback=callback)


def goes_on(folder, whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_checkpoint(folder)
        pgtorch.resume(folder, until_update=LAST)
    assert outcome(folder) == outcome(whole)


@contextmanager
def limits_taken_back():
    """Hands out `limit`: no file may grow beyond so many bytes, pytest's own output neither."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(num_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))

    try:
        yield limit
    finally:
        limit(soft)


# config.json has 400 bytes; a line of metrics.csv 150 and its header as many; the state 11,000.
@pytest.mark.parametrize(("num_bytes", "code"), [(100, 2), (700, 1), (9_000, 1)])
def test_files_that_may_not_grow_stop_the_command_in_one_sentence(
    tmp_path, capsys, whole, num_bytes, code
):
    folder = tmp_path / "run"
    arguments = ["train", *OPTIONS, "--until-update", str(LAST), "--run-dir", str(folder)]
    with limits_taken_back() as limit:
        limit(num_bytes)
        found = run_cli("pgtorch", load_pgtorch, arguments)
    said = capsys.readouterr().err
    assert (found, "File too large" in said, "Traceback" in said) == (code, True, False), said
    assert not list(tmp_path.rglob("*.partial"))
    assert folder.exists() == (code == 1)


def test_a_disk_that_gets_full_leaves_the_older_checkpoint_from_which_it_goes_on(tmp_path, whole):
    folder = tmp_path / "run"
    with (
        limits_taken_back() as limit,
        pytest.raises(RunError, match="no checkpoint in .*run' can be written: File too large"),
    ):
        train(folder, lambda update: limit(9_000 if update.row.update == 3 else 10**9))
    assert find_checkpoint(folder).progress.update == 3
    assert json.loads((folder / "result.json").read_text())["ended"] == "failed"
    assert not list(tmp_path.rglob("*.partial"))
    goes_on(folder, whole)


def test_half_a_line_of_metrics_is_never_left(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile.create(path)
    metrics.append(ROW)
    before, position = path.read_bytes(), metrics.position
    with limits_taken_back() as limit:
        limit(len(before) + 20)
        with pytest.raises(OSError, match="File too large"):
            metrics.append(ROW)
    assert (path.read_bytes(), metrics.position) == (before, position)
    metrics.append(ROW)
    metrics.close()
    assert path.read_bytes().count(b"\n") == 3


def test_a_run_that_stops_and_cannot_be_saved_either_says_both(tmp_path):
    def stop(_):
        limit(100)
        raise RunError("for another reason")

    config = settings("reinforce", tmp_path / "run", until_update=LAST)
    with (
        limits_taken_back() as limit,
        pytest.warns(UnsavedWarning, match="no checkpoint in .* can be written: File too large"),
        pytest.raises(RunError, match="for another reason"),
    ):
        pgtorch.train(config, callback=stop)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_that_is_removed_stops_the_run_and_is_not_made_again(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(RunError, match="run' was moved or removed while the run was writing it"):
        train(folder, lambda update: update.row.update == 2 and shutil.rmtree(folder))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_moved_goes_on_elsewhere_and_what_took_its_place_is_left_alone(
    tmp_path, whole
):
    folder, moved = tmp_path / "run", tmp_path / "moved"

    def move(update):
        if update.row.update == 3:
            folder.rename(moved)
            folder.mkdir()
            (folder / "metrics.csv").write_text("another run's")

    with pytest.raises(RunError, match="was moved or removed"):
        train(folder, move)
    assert [path.name for path in folder.iterdir()] == ["metrics.csv"]
    goes_on(moved, whole)


def test_the_terminal_goes_away_and_the_run_is_saved(tmp_path):
    folder = tmp_path / "run"
    control, terminal = pty.openpty()
    of_the_terminal = (
        "import fcntl, runpy, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # though `nohup` had it ignored
        "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    )
    words = [sys.executable, "-c", of_the_terminal, "pgtorch", "train", *OPTIONS]
    process = subprocess.Popen(
        [*words, "--run-dir", str(folder)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    try:
        os.close(terminal)
        wait_until(lambda: num_rows(folder) >= 2, process)
        os.close(control)
        assert process.wait(60) == 129
    finally:
        process.kill()
        process.wait()
    assert json.loads((folder / "result.json").read_text())["error"] == "hung up"
    assert find_checkpoint(folder).progress.update == num_rows(folder)


@pytest.mark.skipif(not IS_DEEP, reason="a process to its end: make test-deep")
def test_a_run_that_nobody_listens_to_goes_on_with_sighup_ignored(tmp_path, whole):
    """As `nohup pgtorch train | head -0 2>&-`."""
    folder = tmp_path / "run"
    read, write = os.pipe()
    os.close(read)

    words = command("pgtorch", "train", *OPTIONS, "--until-update", LAST, "--run-dir", folder)
    alone = ["sh", "-c", 'trap "" HUP; exec "$@" 2>&-', "sh", *words]
    process = subprocess.Popen(alone, stdout=write)
    try:
        os.close(write)
        wait_until(lambda: num_rows(folder) >= 1, process)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert outcome(folder) == outcome(whole)


STOPPED_TWICE = """
import os, signal, sys
from pgcore.commands.process import listening, stop_code

number = signal.Signals[sys.argv[1]]
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with listening():
    try:
        os.kill(os.getpid(), number)
        signal.pause()
    except KeyboardInterrupt as stop:
        os.kill(os.getpid(), number)  # while it saves
        print("saved", flush=True)
        sys.exit(stop_code(stop))
"""


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("SIGINT", 130, ""), ("SIGTERM", 143, "saved\n"), ("SIGHUP", 129, "saved\n")],
)
def test_a_second_ctrl_c_ends_it_at_once_and_what_a_system_sends_twice_does_not(name, code, said):
    words = [sys.executable, "-c", STOPPED_TWICE, name]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (code, said, "")


SWALLOWED = """
import gc, os, signal, sys, time
from pgcore.commands.process import listening, stop_code

number = signal.Signals[sys.argv[1]]
signal.signal(signal.SIGINT, signal.default_int_handler)

def stop(phase, info):
    gc.callbacks.remove(stop)
    os.kill(os.getpid(), number)

with listening():
    try:
        gc.callbacks.append(stop)
        gc.collect()
        time.sleep(20)
    except KeyboardInterrupt as stop:
        print("saved", flush=True)
        sys.exit(stop_code(stop))
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_is_not_lost_where_nothing_can_be_raised(name, code):
    words = [sys.executable, "-c", SWALLOWED, name]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (code, "saved\n", "")


def test_a_second_signal_during_an_environments_step_is_a_second_one_afterwards_too():
    def step():
        with gymnasium._signals_held():
            os.kill(os.getpid(), signal.SIGTERM)  # held back until the step ends
            os.kill(os.getpid(), signal.SIGTERM)

    with listening():
        with pytest.raises(KeyboardInterrupt):
            step()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # while it saves


def test_signals_mean_what_they_did_once_nothing_listens():
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with listening():
            assert signal.getsignal(signal.SIGTERM) not in handlers.values()
        assert {each: signal.getsignal(each) for each in handlers} == handlers
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with listening():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGHUP, handlers[signal.SIGHUP])
