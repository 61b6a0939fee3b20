"""The folder of several seeds where something is odd: a seed that fails, a table that lies."""

import json
import pickle
import shutil
import warnings
from typing import Any

import numpy as np
import pytest

from pgcore.config import TrainConfig
from pgcore.errors import RunError, UsageError
from pgcore.evaluation.solving import UnreachableThreshold, warn_of_threshold
from pgcore.runs import RunFolder
from pgcore.runs.seeds_folder import open_begun, open_runs
from pgcore.training.seeds import SeedsError, train_in_turn
from tests.test_seeds import fake_lanes, table


@pytest.fixture
def folder(tmp_path):
    """Of seed 10, which failed in its first update, and of seed 11."""
    folder = tmp_path / "run"
    with pytest.raises(SeedsError):
        fake_lanes([[[60]]] * 2, [[1], [3]], losses={(0, 0): np.nan}, run_dir=folder)
    return folder


def seeds_of(runs):
    return [run.config.seed for run in runs]


def test_a_seed_that_fails_at_once_has_a_line_and_no_policy_that_could_be_missing(folder):
    assert [(line["ended"], line["evaluation_return"]) for line in table(folder)] == [
        ("failed", ""),
        ("budget spent", "3.0"),
    ]
    runs, lacking = open_begun(folder, "policy.safetensors")
    assert (seeds_of(runs), lacking) == ([11], ["10"])


def test_the_folder_says_which_seeds_it_is_of(folder):
    assert json.loads((folder / "config.json").read_text())["seed"] == 10
    assert json.loads((folder / "system.json").read_text())["seeds"] == ["10", "11"]


def test_what_only_begins_like_a_seeds_folder_is_none(folder):
    shutil.copytree(folder / "seed-11", folder / "seed-12.old")
    assert [run.path.name for run in open_runs(folder)] == ["seed-10", "seed-11"]


def test_a_folder_of_seeds_without_its_table_is_no_single_run(folder):
    (folder / "seeds.csv").unlink()
    with pytest.raises(UsageError, match="of several seeds, but its seeds.csv is missing"):
        RunFolder.open(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed\n11\n10\n", "is damaged: one has the seeds 11, 10"),
        ("seed\n10\n", "is damaged: one has the seeds 10,"),
        ("seeds\n10\n11\n", "cannot be read: 'seed'"),
        ("seed\n10\r11\n", "cannot be read: new-line character seen in unquoted field"),
        ("seed\n10\xff\n", "cannot be read: .* can't decode byte"),
    ],
    ids=["order", "lost", "column", "line end", "bytes"],
)
def test_a_table_that_can_not_be_right_is_refused(folder, text, said):
    (folder / "seeds.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=said):
        open_begun(folder, "policy.safetensors")


def test_a_folder_of_before_system_json_had_the_seeds_is_read(folder):
    path = folder / "system.json"
    values = json.loads(path.read_text())
    del values["seeds"]
    path.write_text(json.dumps(values))
    assert open_begun(folder, "policy.safetensors")[1] == ["10"]


def test_a_table_that_can_not_be_written_is_an_error_of_the_run_by_name(tmp_path):
    folder = tmp_path / "run"

    def spoil(seed, update):
        (folder / "seeds.csv").unlink()
        (folder / "seeds.csv").mkdir()

    with pytest.raises(RunError, match=r"seeds.csv' cannot be written: "):
        fake_lanes([[[60]]], [[1]], run_dir=folder, callback=spoil)


def test_an_error_of_seeds_comes_whole_out_of_another_process():
    error = SeedsError({}, {seed: RunError("loss is nan") for seed in range(4)})
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert "4 of 4 seeds failed" in str(copy)
    assert str(copy).endswith("seed 2: loss is nan; and 1 more (their result.json says why)")


def test_an_environment_that_there_is_not_leaves_no_folder_of_seeds_in_turn(tmp_path):
    def train(config, *, callback) -> Any:
        raise AssertionError("nothing is trained")

    config = TrainConfig(env_id="Acrobt-v1", run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match="did you mean 'Acrobot-v1'"):
        train_in_turn(train, config, [0, 1], "fake", callback=None)
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_out_of_reach_is_said_once_for_all_seeds_in_turn():
    def train(config, *, callback) -> Any:
        warn_of_threshold(config)
        return config

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train_in_turn(train, TrainConfig(solve_threshold=1e6), [0, 1], "fake", callback=None)
    assert [each.category for each in said] == [UnreachableThreshold]
