"""Damage is found in every file that is read again, and named.

(Every byte of all of them: `python -m benchmarks.reliability --only damaged`.)
"""

import hashlib
import json
import subprocess
from dataclasses import fields

import numpy as np
import pytest
import safetensors.numpy

from pgcore.checkpoints import find_checkpoint
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from pgcore.evaluation import Evaluation
from pgcore.evaluation.solving import Kept
from pgcore.files.schema import SCHEMA, read_policy, write_policy
from pgcore.files.tensors import from_bytes, to_bytes
from pgcore.plots.curves import read_runs
from pgcore.runs.metrics_file import Position
from pgcore.training.reopening import reopen
from tests.test_checkpoints import flip, policy, stored
from tests.test_checkpoints import run as run  # a fixture


@pytest.fixture
def lone(tmp_path):
    write_policy(tmp_path / "policy.safetensors", policy())
    return tmp_path / "policy.safetensors"


@pytest.fixture
def ended(run):
    from pgcore.runs import RunFolder

    folder = RunFolder.open(run)
    write_policy(folder.policy_path, policy())
    folder.finish("paused", None, Kept(None, Evaluation(np.ones(2)), 1))
    return run


def test_each_byte_of_a_policy_that_is_another_is_found(lone):
    whole = lone.read_bytes()
    for at in range(len(whole)):
        for bits in (0x01, 0x20):
            flip(lone, at, bits)
            with pytest.raises(UsageError, match=r"policy\.safetensors"):
                read_policy(lone)
            lone.write_bytes(whole)
    read_policy(lone)


def test_a_policy_is_plain_safetensors_and_one_without_a_seal_is_read(lone):
    tensors = safetensors.numpy.load_file(lone)
    assert all(np.array_equal(tensors[name], array) for name, array in policy().tensors.items())
    about = {"schema": SCHEMA, "agent": "reinforce", "env": "CartPole-v1"}
    safetensors.numpy.save_file(tensors, lone, about)  # as versions before the seal wrote them
    assert read_policy(lone).env == "CartPole-v1"
    safetensors.numpy.save_file(tensors, lone, about | {"sha255": "0" * 64})
    with pytest.raises(UsageError, match="its metadata has 'sha255'"):
        read_policy(lone)


def test_a_seal_is_of_the_whole_file_and_is_kept_by_no_change():
    alike = '"sha256":"' + "0" * 64 + '"'
    array = np.frombuffer(alike.encode(), np.uint8)
    data = to_bytes({"a": array}, {"note": alike}, seal=True)
    tensors, metadata = from_bytes(data)
    assert metadata["note"] == alike
    changed = bytearray(data)
    changed[-1] ^= 1
    with pytest.raises(UsageError, match="not what was written"):
        from_bytes(bytes(changed))
    assert np.array_equal(tensors["a"], array)


USED = {
    "config.json": ["eval", "plot", "resume"],
    "system.json": ["plot"],
    "metrics.csv": ["plot"],
    "policy.safetensors": ["eval"],
    "result.json": ["eval", "plot"],
}


def read(run, command):
    from pgcore.runs import RunFolder

    if command == "eval":
        RunFolder.open(run).check_policy()
    elif command == "plot":
        read_runs([run])
    else:
        with reopen(run, "pgjax"):
            pass


def test_what_a_run_left_when_it_ended_is_what_sha256sum_says(ended):
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=ended, check=True)
    named = {line.split("  ")[1] for line in (ended / "SHA256SUMS").read_text().splitlines()}
    assert named == {*USED}
    for command in ("eval", "plot"):
        read(ended, command)


@pytest.mark.parametrize("file", USED)
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_file_of_a_run_that_ended_is_refused_when_it_says_something_else(ended, file, is_whole):
    """One that is another and as good, one whose digest is another, and one that nobody noted."""
    path, sums = ended / file, ended / "SHA256SUMS"
    if is_whole:
        path.write_bytes(path.read_bytes().replace(b"CartPole-v1", b"CartPole-v0") + b"\n")
    else:
        lines = sums.read_text().splitlines(keepends=True)
        sums.write_text("".join(line for line in lines if not line.endswith(f"  {file}\n")))
    for command in USED[file]:
        if command != "resume":  # this run's state is none that a framework made
            with pytest.raises(UsageError, match=file.replace(".", r"\.")):
                read(ended, command)


LINE = "0" * 64 + "  config.json\n"


@pytest.mark.parametrize(
    "text",
    [None, "", "0" * 64, "x\n", "\0", LINE + LINE, LINE + LINE.replace("config", "x")[:-1], "ÿ\n"],
)
def test_without_its_sums_a_run_that_ended_is_not_believed(ended, text):
    (ended / "SHA256SUMS").unlink()
    if text is not None:
        (ended / "SHA256SUMS").write_text(text, "latin-1")
    with pytest.raises(UsageError, match=r"SHA256SUMS' (cannot be read: |is damaged: a line)"):
        read(ended, "plot")


def test_a_result_that_is_no_file_is_named(ended):
    (ended / "result.json").unlink()
    (ended / "result.json").mkdir()
    with pytest.raises(UsageError, match=r"result\.json' cannot be read: it is no file"):
        read(ended, "plot")


def test_the_metrics_of_a_run_that_goes_on_are_held_against_its_checkpoint(run):
    read(run, "plot")
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text.replace("20,", "21,", 1))
    with pytest.raises(UsageError, match=r"metrics\.csv' is damaged"):
        read(run, "plot")


CHANGED = {
    "agent": ('"reinforce"', '"reparam"'),
    "env_id": ("CartPole-v1", "CartPole-v0"),
    "solve_threshold": ('"solve_threshold": 475.0', '"solve_threshold": 400.0'),
}


@pytest.mark.parametrize("name", CHANGED)
def test_so_are_the_settings_that_a_plot_shows(run, name):
    old, new = CHANGED[name]
    (run / "config.json").write_text((run / "config.json").read_text().replace(old, new))
    with pytest.raises(UsageError, match=rf"{name} in .*\.json' is .*what the run began with"):
        read(run, "plot")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ((0, 1, 3), "last row of .* is 3, accepted is that of update 3"),  # of two rows
        ((0, 1, 2), "last row of .* is 2, "),
        ((0,), "last row of .* is 0, "),
        ((1, 2, 3), "is damaged: it has no column"),
    ],
)
def test_a_checkpoint_that_counted_other_rows_than_its_updates_is_refused(run, kept, said):
    from pgcore.training.reopening import _rows

    lines = (run / "metrics.csv").read_bytes().splitlines(keepends=True)
    data = b"".join(lines[number] for number in kept)
    (run / "metrics.csv").write_bytes(data)
    with pytest.raises(UsageError, match=said):
        _rows(run, stored(3, Position(len(data), hashlib.sha256(data).hexdigest())))


def test_checkpoints_that_changed_places_are_not_used(run):
    parent = run / "checkpoints"
    for source, target in ((2, 9), (3, 2), (9, 3)):
        (parent / f"update-00000{source}").rename(parent / f"update-00000{target}")
    with pytest.raises(UsageError, match="update-000003' is damaged: it is that of update 2"):
        find_checkpoint(run)


@pytest.mark.parametrize("change", [{"seeds": ["1", "3"]}, {"seeds": None}])
def test_the_seeds_of_a_folder_are_those_that_it_began_with(tmp_path, change):
    from pgcore.runs.seeds_folder import _read_seeds

    (tmp_path / "seeds.csv").write_text("seed,ended\n1,solved\n2,\n")
    (tmp_path / "system.json").write_text(json.dumps({"seeds": ["1", "2"]}))
    assert _read_seeds(tmp_path) == ["1", "2"]
    (tmp_path / "system.json").write_text(json.dumps(change))
    with pytest.raises(UsageError, match=r"seeds\.csv' or .*system\.json' is damaged"):
        _read_seeds(tmp_path)


BEGUN = {
    "agent": "reparam",
    "env_id": "CartPole-v0",
    "seed": 1,
    "discount": 0.5,
    "learning_rate": 0.5,
    "hidden_sizes": (3,),
    "episodes_per_update": 3,
    "normalize": "none",
    "max_grad_norm": 1.0,
    "solve_threshold": 400.0,
    "eval_episodes": 3,
}


@pytest.mark.parametrize("name", BEGUN)
def test_a_setting_that_an_update_depends_on_stays_as_the_run_began(run, name):
    from pgcore.runs import RunFolder
    from pgcore.training.reopening import MAY_CHANGE, _config

    assert {*BEGUN, *MAY_CHANGE} == {field.name for field in fields(TrainConfig)}
    with pytest.raises(UsageError, match=f"{name} in .* what the run began with"):
        _config(RunFolder.open(run), stored(3, **{name: BEGUN[name]}), None, None, None)


def test_a_budget_that_is_another_than_at_the_checkpoint_is_said(run):
    from pgcore.runs import RunFolder
    from pgcore.training.reopening import _config

    path = run / "config.json"
    path.write_text(
        path.read_text().replace('"total_timesteps": 500000', '"total_timesteps": 900000')
    )
    with pytest.warns(UserWarning, match="total_timesteps in .* is 900000, .* was 500000"):
        config = _config(RunFolder.open(run), stored(3), None, None, None)
    assert config.total_timesteps == 900_000
