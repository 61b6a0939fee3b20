"""A checkpoint on the disk: whole or absent, and refused if it is not byte by byte as written."""

import errno
import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from pgcore import checkpoints
from pgcore.checkpoints import (
    Progress,
    ResumeWarning,
    StoredCheckpoint,
    find_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from pgcore.files import writing
from pgcore.files.schema import PolicyFile
from pgcore.runs import RunFolder
from pgcore.runs.metrics_file import MetricsFile, Position
from pgcore.runs.system import differences, system
from tests.depth import IS_DEEP
from tests.test_files import ROW

FILES = ("checkpoint.json", "policy.safetensors", "state.safetensors")
FLIPS = (0x01, 0x20, 0xFF)
CONFIG = TrainConfig(hidden_sizes=(2,), eval_episodes=2)


def policy(value=1.0):
    shapes = {"linear1": (2, 4), "linear2": (2, 2)}
    tensors = {}
    for layer, shape in shapes.items():
        tensors |= {f"{layer}.weight": np.full(shape, value, np.float32)}
        tensors |= {f"{layer}.bias": np.full(shape[0], value, np.float32)}
    return PolicyFile("reinforce", "CartPole-v1", tensors)


NOWHERE = Position(10, "of no file")


def stored(update=1, metrics=NOWHERE, **settings):
    progress = Progress(update, 20 * update, 2 * update, (9.0, 0.1), 12.5, 1, metrics)
    beside = {"update": np.int32(update).reshape(()), "kept.returns": np.array([1.0, 2.0])}
    state = policy(update).tensors | beside
    config = TrainConfig(**{**vars(CONFIG), **settings})
    return StoredCheckpoint(config, {"framework": "pgjax"}, progress, state, policy())


@pytest.fixture
def written(tmp_path):
    write_checkpoint(tmp_path, stored())
    return tmp_path / "checkpoints" / "update-000001"


@pytest.fixture
def run(tmp_path):
    """A run folder of three updates, with the checkpoints that are left after them."""
    config = TrainConfig(**{**vars(CONFIG), "run_dir": tmp_path / "run"})
    folder = RunFolder.create(config, "pgjax")
    for update in (1, 2, 3):
        end = folder.append(ROW._replace(update=update, env_steps=20 * update))
        write_checkpoint(folder.path, stored(update, end))
    folder.close()
    return folder.path


def flip(path, at, bits=0xFF):
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def test_a_checkpoint_reads_back_as_it_was_written(written):
    before, read = stored(), read_checkpoint(written)
    assert (read.config, read.system, read.progress) == before[:3]
    assert read.state.keys() == before.state.keys()
    for name, array in before.state.items():
        assert read.state[name].dtype == array.dtype
        assert np.array_equal(read.state[name], array)
    assert sorted(path.name for path in written.iterdir()) == list(FILES)


@pytest.mark.parametrize("file", FILES)
def test_each_byte_that_is_another_is_found(written, file):
    path = written / file
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bits in FLIPS if IS_DEEP else [FLIPS[at % len(FLIPS)]]:
            flip(path, at, bits)
            with pytest.raises(UsageError, match=rf"{file}|update-000001"):
                read_checkpoint(written)
            path.write_bytes(whole)
    read_checkpoint(written)


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_at_any_length_or_longer_than_it_was_is_found(written, file):
    path = written / file
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=file.replace(".", r"\.")):
            read_checkpoint(written)
    path.write_bytes(whole + b"\n")
    with pytest.raises(UsageError, match=file.replace(".", r"\.")):
        read_checkpoint(written)


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_missing_or_another_checkpoints_is_named(run, file):
    older, newer = (run / "checkpoints" / f"update-00000{i}" for i in (2, 3))
    if file != "policy.safetensors":  # which is the same in both
        whole = (newer / file).read_bytes()
        shutil.copy(older / file, newer / file)
        with pytest.raises(UsageError, match=r"state\.safetensors.*is damaged"):
            read_checkpoint(newer)
        (newer / file).write_bytes(whole)
    (newer / file).unlink()
    with pytest.raises(UsageError, match=rf"{file}.*cannot be read: No such file"):
        read_checkpoint(newer)


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(written):
    (written / "state.safetensors").unlink()
    os.mkfifo(written / "state.safetensors")
    with pytest.raises(UsageError, match="it is no file"):
        read_checkpoint(written)


def reseal(path, **changes):
    """Changes a checkpoint.json as somebody would who can compute a SHA-256."""
    table = json.loads(path.read_text()) | changes
    del table["sha256"]
    text = json.dumps(table, indent=2) + "\n"
    table["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(table, indent=2) + "\n")


def progress(**changes):
    """What a checkpoint.json says of a run's progress, with changes."""
    found = stored().progress
    return {"progress": found._asdict() | {"metrics": found.metrics._asdict()} | changes}


BAD_TABLES = {
    "a newer schema": (
        {"schema": "policy-gradient-checkpoint/2"},
        r"checkpoint\.json' is policy-gradient-checkpoint/2.*up to version 1: a newer",
    ),
    "another schema": ({"schema": "pickle/1"}, "schema of .* is 'pickle/1'"),
    "an unknown setting": (
        {"config": TrainConfig().to_dict() | {"lerning_rate": 1}},
        "configuration key is 'lerning_rate'.*did you mean 'learning_rate'",
    ),
    "no files": ({"files": {}}, "no checkpoint of a run"),
    "no progress": ({"progress": {}}, "no checkpoint of a run"),
    "nothing kept": (progress(kept_update=0), "progress is .*'kept_update': 0"),
    "a count that is a bool": (progress(episodes=True), "progress is .*'episodes': True"),
    "a return that is none": (progress(recent_returns=[None]), "progress is .*None"),
    "metrics of nothing": (progress(metrics=NOWHERE._replace(num_bytes=0)._asdict()), "metrics is"),
    "metrics of more than rows": (
        progress(metrics=NOWHERE._replace(num_bytes=2_001)._asdict()),
        "metrics is .*2001",
    ),
    "another agent": (
        {"config": TrainConfig(agent="reparam").to_dict()},
        "its policy is of agent 'reinforce'",
    ),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_checkpoint_that_is_whole_but_says_what_it_may_not_is_refused(written, fault):
    changes, message = BAD_TABLES[fault]
    reseal(written / "checkpoint.json", **changes)
    with pytest.raises(UsageError, match=message):
        read_checkpoint(written)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"update": np.array(2)}, "its state is of update 2"),
        ({"update": np.array([1])}, r"its state is of update \[1\]"),
        ({"kept.returns": np.ones((1, 2))}, r"kept\.returns is of shape \[1, 2\]"),
        ({"kept.returns": np.ones(0)}, r"kept\.returns is of shape \[0\]"),
    ],
    ids=str,
)
def test_a_state_that_is_no_part_of_this_checkpoint_is_refused(tmp_path, change, said):
    whole = stored()
    write_checkpoint(tmp_path, whole._replace(state=whole.state | change))
    with pytest.raises(UsageError, match=said):
        read_checkpoint(tmp_path / "checkpoints" / "update-000001")


def test_the_newest_good_checkpoint_is_found_and_a_damaged_one_is_named(run):
    assert find_checkpoint(run).progress.update == 3
    flip(run / "checkpoints/update-000003/state.safetensors", -1)
    with pytest.warns(ResumeWarning, match=r"update-000003.*damaged.*after update 2 is used"):
        assert find_checkpoint(run).progress.update == 2
    flip(run / "checkpoints/update-000002/policy.safetensors", 0)
    with pytest.raises(UsageError, match=r"no good checkpoint: .*000003.*; .*000002.*"):
        find_checkpoint(run)


def test_a_checkpoint_of_another_run_is_passed_over(run):
    # Its own files are all as they were written; but its run had written another metrics.csv.
    write_checkpoint(run, stored(3, Position(100, hashlib.sha256(b"other").hexdigest())))
    with pytest.warns(
        ResumeWarning, match=r"metrics\.csv' is damaged, or of another run.*update 2"
    ):
        assert find_checkpoint(run).progress.update == 2


def test_the_last_two_checkpoints_stay_and_nothing_that_was_abandoned(run):
    parent = run / "checkpoints"
    assert sorted(path.name for path in parent.iterdir()) == ["update-000002", "update-000003"]
    (parent / ".update-000009.partial").mkdir()
    (parent / "update-000008").mkdir()  # the run goes on from before it: it was damaged
    for name in ("notes", "update-4"):  # which no run has made
        (parent / name).mkdir()
    write_checkpoint(run, stored(5))
    left = ["notes", "update-000003", "update-000005", "update-4"]
    assert sorted(path.name for path in parent.iterdir()) == left


def test_every_file_is_on_the_disk_before_the_checkpoint_has_its_name(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, writing.Path.rename

    def noting_fsync(descriptor):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def noting_rename(path, target):
        events.append(f"{path.name} -> {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(writing.Path, "rename", noting_rename)
    write_checkpoint(tmp_path, stored())
    partial = ".update-000001.partial"
    assert events == [
        tmp_path.name,  # which has the new folder `checkpoints`
        "state.safetensors",
        "policy.safetensors",
        "checkpoint.json",
        partial,
        f"{partial} -> update-000001",
        "checkpoints",
    ]


@pytest.mark.parametrize("call", range(4))
def test_a_full_disk_leaves_the_older_checkpoints_and_nothing_else(run, monkeypatch, call):
    left = iter(range(call + 1))

    def full(descriptor):
        if next(left) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(run, stored(4))
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["update-000002", "update-000003"]
    assert find_checkpoint(run).progress.update == 3


def test_a_second_writer_of_metrics_is_told_and_the_file_is_left_alone(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile.create(path)
    first.append(ROW)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"metrics\.csv' is being written by another process"):
        MetricsFile.open(path)
    assert path.read_bytes() == before
    first.close()
    MetricsFile.open(path).close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "it is no file"),
        (os.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path.with_name("other")), "Too many levels"),
    ],
    ids=["pipe", "folder", "link"],
)
def test_metrics_go_on_in_a_file_alone_and_through_no_link(tmp_path, make, said):
    (tmp_path / "other").touch()
    make(tmp_path / "metrics.csv")
    with pytest.raises(UsageError, match=rf"metrics\.csv' cannot be written to: {said}"):
        MetricsFile.open(tmp_path / "metrics.csv")


def test_a_metrics_file_goes_on_from_where_it_was_cut(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile.create(path)
    for update in (1, 2, 3):
        first.append(ROW._replace(update=update))
        if update == 2:
            end = first.position
    whole, last = path.read_bytes(), first.position
    first.close()
    path.write_bytes(whole + b"4,half a li")
    again = MetricsFile.open(path)
    again.rewind(end)
    assert path.read_bytes() == whole[: end.num_bytes]
    again.append(ROW._replace(update=3))
    assert (path.read_bytes(), again.position) == (whole, last)
    assert last == Position(len(whole), hashlib.sha256(whole).hexdigest())
    again.close()


def test_what_differs_between_two_systems_is_named_but_for_what_does_not_matter():
    here = system("pgjax")
    assert differences(here, here) == []
    versions = here["versions"] | {"jax": "0.1", "torch": "0.1"}
    before = here | {"cores": 99, "versions": versions}
    assert differences(before, here) == [
        f"cores 99 → {here['cores']}",
        f"jax 0.1 → {here['versions']['jax']}",
    ]


def test_the_largest_checkpoint_json_is_bounded(written, monkeypatch):
    monkeypatch.setattr(checkpoints, "LARGEST_JSON", 100)
    with pytest.raises(UsageError, match=r"checkpoint\.json' is damaged: it has [\d,]+ bytes"):
        read_checkpoint(written)
