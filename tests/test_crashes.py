"""A process that is killed leaves a folder that opens, evaluates and plots, or none at all.

SIGKILL runs no handler and no `finally`: what is on the disk at that moment is what there is.
"""

import csv
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pgcore.cli import run_cli
from pgcore.runs import RunFolder
from tests.depth import IS_DEEP
from tests.test_cli import load_pgtorch

SETTINGS = ["--hidden-sizes", "4", "--episodes-per-update", "2", "--eval-episodes", "2"]
SETTINGS += ["--solve-threshold", "1e6", "--run-dir", "run"]
THREE_SEEDS = ["--seeds", "0:3", "--total-timesteps", "1e3"]
LONGEST_DELAY_S = 0.6


def train(folder, *more):
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "pgtorch", "train", *SETTINGS, *more]
    return subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet)


def kill(process, condition, delay):
    """Kills the process `delay` seconds after the condition has come true."""
    try:
        deadline = time.monotonic() + 60
        while not condition():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(delay)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


def has_policy(path):
    """Opens a run folder, reads what there is, and returns whether there is a policy."""
    run = RunFolder.open(path)
    lines = run.path.joinpath("metrics.csv")
    if lines.exists() and lines.read_bytes().count(b"\n") > 1:
        numbers = [row.update for row in run.read_rows()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert run.policy_path.exists()  # it is written before the row that tells of it
    if run.policy_path.exists():
        run.check_policy()
    return run.policy_path.exists()


def policies_in(folder):
    """Of a run or of several seeds. (`rglob` would trip over a folder that is being made.)"""
    return [*folder.glob("policy.safetensors"), *folder.glob("seed-*/policy.safetensors")]


@pytest.mark.parametrize(
    "more",
    # One seed goes on for ever; of three, each is done after about a third of a second.
    [
        pytest.param(["--total-timesteps", "1e9"], id="one seed"),
        *(pytest.param(each, id="three seeds") for each in [THREE_SEEDS] if IS_DEEP),
    ],
)
def test_a_killed_run_leaves_a_folder_that_can_be_used(tmp_path, capfd, more):
    rng = random.Random(0)
    folder = tmp_path / "run"

    def is_a_policy_kept():
        return bool(policies_in(folder))

    for condition in (folder.exists, is_a_policy_kept):
        delay = rng.uniform(0, LONGEST_DELAY_S)
        kill(train(tmp_path, *more), condition, delay)
        if "--seeds" in more:
            table = list(csv.DictReader((folder / "seeds.csv").read_text().splitlines()))
            assert [line["seed"] for line in table] == ["0", "1", "2"]
        policies = [has_policy(path) for path in sorted(folder.glob("seed-*")) or [folder]]
        code = run_cli("pgtorch", load_pgtorch, ["eval", str(folder), "--episodes", "2"])
        err = capfd.readouterr().err
        assert (code, "Traceback" in err) == (0 if any(policies) else 2, False), (delay, err)
        assert any(policies) or condition == folder.exists
        shutil.rmtree(folder)  # the next run goes beside what else was left


@pytest.mark.parametrize(
    ("framework", "sent", "code", "ended"),
    [
        # One vmapped call of all seeds, and one seed after another.
        ("pgjax", signal.SIGTERM, 143, ["interrupted"] * 4),
        ("pgtorch", signal.SIGINT, 130, ["interrupted", "", "", ""]),
    ],
)
def test_a_signal_ends_the_seeds_that_have_begun_and_the_table_says_so(
    tmp_path, framework, sent, code, ended
):
    listening = (
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    )
    more = [*SETTINGS, "--seeds", "0:4", "--total-timesteps", "1e9"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", listening, framework, "train", *more],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "run"
    try:
        deadline = time.monotonic() + 60
        while len(policies_in(folder)) < sum(map(bool, ended)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert "the best policies so far are kept" in out
    assert "Traceback" not in err
    table = list(csv.DictReader((folder / "seeds.csv").read_text().splitlines()))
    assert [line["ended"] for line in table] == ended
    assert all(map(has_policy, folder.glob("seed-*")))
    assert not list(tmp_path.rglob("*.partial"))
