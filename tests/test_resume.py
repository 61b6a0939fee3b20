"""A run that was interrupted and goes on is the run that was not.

All but times is compared to the last bit.
"""

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch

import pgjax
import pgtorch
from pgcore.agents import AGENTS
from pgcore.checkpoints import ResumeWarning, checkpoint_folders, find_checkpoint
from pgcore.cli import run_cli
from pgcore.config import TrainConfig
from pgcore.errors import RunError, UsageError
from pgcore.runs import RunFolder
from tests.depth import IS_DEEP
from tests.test_checkpoints import flip
from tests.test_cli import call, command, load_pgtorch, wait_until
from tests.test_crashes import kill

FRAMEWORKS = {"pgjax": pgjax, "pgtorch": pgtorch}
OTHER = {"pgjax": pgtorch, "pgtorch": pgjax}
SHORT = TrainConfig(
    hidden_sizes=(8, 6), episodes_per_update=2, eval_episodes=3, total_timesteps=10**9, seed=7
)
TIMES = {"charts/seconds", "charts/SPS"}


def settings(agent, folder, **more):
    # One agent with a clip before Adam, one without.
    clip = 1.0 if agent == "reparam" else None
    return replace(SHORT, agent=agent, max_grad_norm=clip, run_dir=folder, **more)


def rows(folder):
    """metrics.csv as it is written, without the times."""
    lines = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [{name: cell for name, cell in line.items() if name not in TIMES} for line in lines]


def outcome(folder):
    """All that a run leaves, without the times."""
    result = json.loads((folder / "result.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    newest = next(iter(checkpoint_folders(folder).values()))
    progress = find_checkpoint(newest).progress
    return {
        "rows": rows(folder),
        "policy": (folder / "policy.safetensors").read_bytes(),
        "result": {name: value for name, value in result.items() if name != "seconds"},
        "config": {name: value for name, value in config.items() if name != "run_dir"},
        "state": (newest / "state.safetensors").read_bytes(),
        "progress": progress[:-1],  # all but the bytes of metrics.csv, which has the times
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs of six updates that nothing interrupted, by framework and agent, made when asked for."""
    made = {}

    def run(framework, agent):
        if (framework, agent) not in made:
            folder = tmp_path_factory.mktemp("whole") / f"{framework}-{agent}"
            FRAMEWORKS[framework].train(settings(agent, folder, until_update=6))
            made[framework, agent] = folder
        return made[framework, agent]

    return run


CASES = [(framework, agent) for framework in FRAMEWORKS for agent in AGENTS]


@pytest.mark.parametrize(("framework", "agent"), CASES)
def test_a_run_paused_after_every_update_ends_bitwise_as_one_that_was_not(
    tmp_path, whole, framework, agent
):
    folder, package = tmp_path / "run", FRAMEWORKS[framework]
    package.train(settings(agent, folder, until_update=1))
    for until in range(2, 7):
        assert json.loads((folder / "result.json").read_text())["ended"] == "paused"
        seen = []
        result = package.resume(folder, until_update=until, callback=seen.append)
        assert [update.row.update for update in seen] == [until]
        assert [row.update for row in result.history] == list(range(1, until + 1))
    assert outcome(folder) == outcome(whole(framework, agent))
    seconds = [row.seconds for row in result.history]
    assert seconds == sorted(seconds)
    assert len(json.loads((folder / "system.json").read_text())["resumed"]) == 5


@pytest.mark.parametrize(("framework", "agent"), CASES)
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_with_no_line_twice(
    tmp_path, whole, framework, agent
):
    """What a kill leaves is a copy of the folder as it is at that moment."""
    package, left = FRAMEWORKS[framework], tmp_path / "left"

    def copy_it(update):
        if update.row.update == 3:
            shutil.copytree(tmp_path / "run", left)

    config = settings(agent, tmp_path / "run", until_update=4, checkpoint_every=2)
    package.train(config, callback=copy_it)
    assert len(rows(left)) == 3
    assert list(checkpoint_folders(left)) == [2]
    with (left / "metrics.csv").open("ab") as file:
        file.write(b"4,5")  # half a line
    (left / POLICY).write_bytes(b"one that was kept after the checkpoint")
    assert not (left / "result.json").exists()
    package.resume(left, until_update=6)
    ended, expected = outcome(left), outcome(whole(framework, agent))
    assert ended.pop("config") == expected.pop("config") | {"checkpoint_every": 2}
    assert ended == expected


class Stop(KeyboardInterrupt):
    pass


def interrupting(function, at):
    """`function`, but that the call number `at` is interrupted when it has done its work."""
    left = iter(range(10**6))

    def wrapped(*args, **options):
        result = function(*args, **options)
        if next(left) == at:
            raise Stop
        return result

    return wrapped


@pytest.mark.parametrize("at", [3, 4])
def test_ctrl_c_inside_an_update_leaves_the_checkpoint_of_the_one_before(
    tmp_path, monkeypatch, whole, at
):
    # torch's Adam has changed the parameters in place, and the generators have moved on.
    folder = tmp_path / "run"
    monkeypatch.setattr(torch.optim.Adam, "step", interrupting(torch.optim.Adam.step, at))
    with pytest.raises(Stop):
        pgtorch.train(settings("reparam", folder, until_update=6))
    monkeypatch.undo()
    assert list(checkpoint_folders(folder)) == [at]
    assert json.loads((folder / "result.json").read_text())["ended"] == "interrupted"
    pgtorch.resume(folder, until_update=6)
    assert outcome(folder) == outcome(whole("pgtorch", "reparam"))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ctrl_c_before_an_evaluation_and_a_second_one_while_saving_lose_nothing(
    tmp_path, monkeypatch, whole, framework
):
    from pgcore.training import bookkeeping, saving

    folder, package = tmp_path / "run", FRAMEWORKS[framework]

    def stop(update):
        if update.row.update == 3:
            name = "write_checkpoint"
            monkeypatch.setattr(saving, name, interrupting(lambda *_: None, 0))
            raise Stop

    config = settings("reinforce", folder, until_update=6, checkpoint_every=2)
    with pytest.raises(Stop):
        package.train(config, callback=stop)
    monkeypatch.undo()
    assert json.loads((folder / "result.json").read_text())["ended"] == "interrupted"

    assert list(checkpoint_folders(folder)) == [2]
    # By now an update is counted, and neither evaluated nor written.
    monkeypatch.setattr(bookkeeping.Run, "count", interrupting(bookkeeping.Run.count, 1))
    with pytest.raises(Stop):
        package.resume(folder, until_update=6)
    monkeypatch.undo()
    before = find_checkpoint(folder).progress.update
    assert len(rows(folder)) == before
    package.resume(folder, until_update=6)
    ended, expected = outcome(folder), outcome(whole(framework, "reinforce"))
    assert ended.pop("config") == expected.pop("config") | {"checkpoint_every": 2}
    assert ended == expected


# --- to the other framework


def same_tensors(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        assert np.array_equal(array, other[name]), name
    return True


def learned(tensors):
    return {n: a for n, a in tensors.items() if not n.startswith(("random.", "kept."))}


@pytest.mark.parametrize(("framework", "agent"), CASES)
def test_a_state_crosses_to_the_other_framework_and_back_to_the_last_bit(whole, framework, agent):
    folder = whole(framework, agent)
    stored = learned(find_checkpoint(folder).state)
    assert {"adam.count", "update", "adam.m.linear1.weight", "adam.v.linear1.bias"} <= set(stored)
    assert stored["adam.count"] == stored["update"] == 6
    assert all(stored[name].any() for name in stored if name.startswith("adam."))
    there, here = OTHER[framework], FRAMEWORKS[framework]
    crossed = there.load_checkpoint(folder)
    tensors = there.state_to_tensors(crossed.state)
    assert same_tensors(tensors, stored)
    back = here.tensors_to_state(tensors, here.load_checkpoint(folder).state)
    assert same_tensors(here.state_to_tensors(back), stored)
    kept = there.params_to_tensors(crossed.kept_params)
    assert same_tensors(kept, here.params_to_tensors(here.load_policy(folder / POLICY)[1]))
    assert crossed.config == RunFolder.open(folder).config
    assert crossed.stored.progress.episodes == 12


POLICY = "policy.safetensors"


@pytest.mark.parametrize("agent", AGENTS)
def test_both_frameworks_make_the_next_update_of_a_loaded_state_alike(whole, agent):
    # One trajectory, given to both. Adam's step is at most some 10 learning rates of 1e-2 long, and
    # computed in float32 (2^-24) from gradients whose sums have a few hundred terms: 1e-5 is far
    # above that rounding, and far below a step that forgot m, v or the count (1e-3 and more).
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(20, 2, 4)).astype(np.float32)
    action = rng.integers(2, size=(20, 2))
    sample = action if agent == "reinforce" else rng.normal(size=(20, 2, 2)).astype(np.float32)
    mask = np.arange(20)[:, None] < np.array([20, 11])
    arrays = (obs, sample, action, mask.astype(np.float32), mask, np.array([True, True]))
    after, fresh = [], []
    for name, package in FRAMEWORKS.items():
        loaded = package.load_checkpoint(whole("pgjax", agent))
        array = jax.numpy.array if name == "pgjax" else torch.tensor
        trajectory = package.Trajectory(*map(array, arrays))
        optimizer = package.make_optimizer(loaded.config)
        step = package.make_update_step(loaded.policy, optimizer, loaded.config)
        assert int(loaded.state.update) == 6
        before = package.params_to_tensors(loaded.state.params)
        state, _ = step(loaded.state, trajectory)
        assert int(state.update) == 7
        after.append(package.state_to_tensors(state))
        fresh.append(before)
    assert same_tensors(*fresh)
    for name, array in after[0].items():
        assert not (np.abs(array - after[1][name]).max() > 1e-5), name
    assert any(np.abs(after[0][name] - fresh[0][name]).max() > 1e-3 for name in fresh[0])


@pytest.mark.parametrize(("framework", "agent"), CASES)
def test_the_other_framework_goes_on_with_all_counters_and_says_what_cannot_cross(
    tmp_path, whole, framework, agent
):
    folder = tmp_path / "run"
    shutil.copytree(whole(framework, agent), folder)
    before = rows(folder)
    other = OTHER[framework]
    name = other.__name__
    message = f"update 6 was made by {framework}: .*random numbers can't, so {name} goes on"
    with pytest.warns(ResumeWarning, match=message) as warned:
        result = other.resume(folder, until_update=8)
    assert len(warned) == 1
    assert [row.update for row in result.history] == list(range(1, 9))
    assert rows(folder)[:6] == before
    assert [row.episodes for row in result.history] == list(range(2, 17, 2))
    stored = find_checkpoint(folder)
    assert (stored.framework, int(stored.state["adam.count"])) == (name, 8)
    assert json.loads((folder / "system.json").read_text())["resumed"][0]["framework"] == name
    with pytest.warns(ResumeWarning, match=f"update 8 was made by {name}"):
        FRAMEWORKS[framework].resume(folder, until_update=9)


def test_a_fresh_stream_depends_on_the_seed_and_on_the_update(tmp_path, whole):
    """So that runs that go on elsewhere repeat, and no two of them share their noise."""
    ends = []
    for name in ("one", "two"):
        shutil.copytree(whole("pgjax", "reinforce"), tmp_path / name)
        with pytest.warns(ResumeWarning):
            pgtorch.resume(tmp_path / name, until_update=8)
        ends.append(outcome(tmp_path / name))
    assert ends[0] == ends[1]
    from pgtorch.resuming import _seed_after

    seeds = {_seed_after(seed, update) for seed in range(30) for update in range(30)}
    assert len(seeds) == 900
    assert not seeds & set(range(1000))  # the streams of runs that begin


# --- what is said and refused


def test_another_version_or_number_of_cores_is_said(tmp_path, monkeypatch, whole):
    from pgcore.runs.system import system
    from pgcore.training import reopening

    folder = tmp_path / "run"
    shutil.copytree(whole("pgtorch", "reparam"), folder)
    monkeypatch.setattr(reopening, "system", lambda name: system(name) | {"cores": 99})
    with pytest.warns(ResumeWarning, match=r"not be bitwise .* update 6 .*: cores \d+ → 99$"):
        pgtorch.resume(folder, until_update=7)


def solved_run(folder):
    return replace(SHORT, run_dir=folder, episodes_per_update=100, solve_threshold=1.0)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_finished_run_is_not_gone_on_with(tmp_path, framework):
    package = FRAMEWORKS[framework]
    assert package.train(solved_run(tmp_path / "solved")).solved_at.updates == 1
    with pytest.raises(UsageError, match="solved' is solved, after update 1: there is nothing"):
        package.resume(tmp_path / "solved", until_update=9)
    package.train(replace(SHORT, run_dir=tmp_path / "spent", total_timesteps=1))
    with pytest.raises(UsageError, match=r"total_timesteps is 1, .*more than \d+, .*--total-times"):
        package.resume(tmp_path / "spent")
    assert len(package.resume(tmp_path / "spent", total_timesteps=200).history) > 1


def faults():
    def no_checkpoint(folder):
        shutil.rmtree(folder / "checkpoints")

    def all_damaged(folder):
        for path in checkpoint_folders(folder).values():
            flip(path / "state.safetensors", 100)

    def no_metrics(folder):
        (folder / "metrics.csv").unlink()

    def other_metrics(folder):
        flip(folder / "metrics.csv", -10, 0x01)

    def other_settings(folder):
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace('"seed": 7', '"seed": 8'))

    def unknown_setting(folder):
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace('"seed"', '"sede"'))

    def of_seeds(folder):
        (folder / "seeds.csv").write_text("seed\n1\n")

    return {
        "no checkpoint": (no_checkpoint, {}, "run' has no checkpoint: .*train again"),
        "all damaged": (all_damaged, {}, r"no good checkpoint: .*000006/state\.saf.*is damaged"),
        "no metrics": (no_metrics, {}, r"metrics\.csv' cannot be read: No such"),
        "other metrics": (other_metrics, {}, r"metrics\.csv' is damaged, or of another run"),
        "other settings": (other_settings, {}, r"seed in .*config\.json' is 8.*began with, 7"),
        "unknown setting": (
            unknown_setting,
            {},
            "configuration key is 'sede'.*did you mean 'seed'",
        ),
        "several seeds": (of_seeds, {}, "the folder of one run: seeds can't go on"),
        "a pause behind it": (
            lambda folder: None,
            {"until_update": 6},
            "until_update is 6, accepted is more than 6",
        ),
        "no budget": (lambda folder: None, {"total_timesteps": 0}, "total_timesteps is 0"),
    }


@pytest.mark.parametrize("fault", faults())
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_that_cannot_go_on_is_refused_and_left_as_it_was(tmp_path, whole, framework, fault):
    folder = tmp_path / "run"
    shutil.copytree(whole("pgjax", "reinforce"), folder)
    spoil, options, message = faults()[fault]
    spoil(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=message):
        FRAMEWORKS[framework].resume(folder, **options)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_state_of_another_optimizer_is_refused(framework):
    package = FRAMEWORKS[framework]
    policy = package.make_policy("reinforce", 4, 2)
    if framework == "pgjax":
        import optax

        state = package.init(jax.random.key(0), policy, optax.sgd(0.1))
    else:
        state = package.init(torch.Generator(), policy, lambda p: torch.optim.SGD(p, lr=0.1))
    with pytest.raises(UsageError, match=r"opt_state is (.|\n)*accepted is"):
        package.state_to_tensors(state)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_state_with_a_tensor_missing_left_over_or_transposed_is_refused(whole, framework):
    package = FRAMEWORKS[framework]
    state = package.load_checkpoint(whole("pgjax", "reinforce")).state
    tensors = package.state_to_tensors(state)
    moment = "adam.v.linear1.weight"
    bad = {
        rf"{moment}": {name: a for name, a in tensors.items() if name != moment},
        "extra": tensors | {"extra": np.zeros(1)},
        rf"{moment} in tensors is \[4, 8\]": tensors | {moment: tensors[moment].T},
    }
    for message, changed in bad.items():
        with pytest.raises(UsageError, match=message):
            package.tensors_to_state(changed, state)
    before = package.state_to_tensors(package.init(new_key(framework), *parts(package)))
    assert before["adam.count"] == 0
    assert not any(before[name].any() for name in before if name.startswith("adam."))


def new_key(framework):
    return jax.random.key(0) if framework == "pgjax" else torch.Generator().manual_seed(0)


def parts(package):
    return package.make_policy("reparam", 4, 2), package.adam(1e-2)


def test_a_checkpoint_that_cannot_be_written_stops_the_run_with_its_policy_kept(
    tmp_path, monkeypatch
):
    from pgcore.training import saving

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_checkpoint", full)
    with pytest.raises(RunError, match="no checkpoint in .*run' can be written: No space left"):
        pgtorch.train(settings("reinforce", tmp_path / "run", until_update=1))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["ended"], result["updates"]) == ("failed", 1)
    assert "No space left" in result["error"]
    assert (tmp_path / "run" / POLICY).exists()


def test_a_run_without_checkpoints_has_none(tmp_path):
    folder = tmp_path / "run"
    pgtorch.train(replace(SHORT, run_dir=folder, total_timesteps=1, checkpoint_every=0))
    assert not (folder / "checkpoints").exists()
    with pytest.raises(UsageError, match="has no checkpoint: .*checkpoint_every 0"):
        pgtorch.load_checkpoint(folder)


# --- on the command line

LONGER = ["--agent", "reparam", "--total-timesteps", "1500", "--eval-episodes", "5", "--seed", "3"]


@pytest.mark.parametrize("framework", FRAMEWORKS if IS_DEEP else ["pgjax"])
def test_a_longer_run_paused_at_random_updates_in_new_processes_is_bitwise_the_same(
    tmp_path, framework
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    longer = [*LONGER, "--episodes-per-update", "3", "--run-dir"]
    assert call(framework, "train", *longer, whole).returncode == 0
    first, second = sorted(random.Random(framework).sample(range(2, len(rows(whole))), 2))
    paused = call(framework, "train", *longer, parts, "--until-update", first)
    assert paused.returncode == 0, paused.stderr
    assert f"paused after update {first}, " in paused.stdout
    assert f"go on with: {framework} resume {parts}" in paused.stdout
    paused = call(framework, "resume", parts, "--until-update", second, "--json")
    assert paused.returncode == 0, paused.stderr
    printed = json.loads(paused.stdout)
    assert (printed["ended"], printed["updates"]) == ("paused", second)
    ended = call(framework, "resume", parts)
    assert ended.returncode == 0, ended.stderr
    assert f"{parts} goes on after update {second}" in ended.stderr
    assert "warning" not in ended.stderr
    assert "not solved within 1,500 environment steps" in ended.stdout
    assert outcome(parts) == outcome(whole)


def test_the_command_goes_on_with_the_other_frameworks_run_and_says_so_once(tmp_path, whole, capfd):
    folder = tmp_path / "a run"
    shutil.copytree(whole("pgjax", "reparam"), folder)
    assert run_cli("pgtorch", load_pgtorch, ["resume", str(folder), "--until-update", "7"]) == 0
    out, err = capfd.readouterr()
    assert err.count("pgtorch: warning: update 6 was made by pgjax: ") == 1
    assert err.count("random numbers can't") == 1
    assert f"go on with: pgtorch resume '{folder}'" in out


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_between_a_row_and_what_belongs_to_it_loses_neither(tmp_path, monkeypatch, when):
    written, whole = RunFolder.append, tmp_path / "whole"
    pgtorch.train(settings("reinforce", whole, until_update=3))

    def interrupted(self, row):
        if row.update < 3:
            return written(self, row)
        monkeypatch.setattr(RunFolder, "append", written)
        if when == "after":
            written(self, row)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "append", interrupted)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        pgtorch.train(settings("reinforce", folder))
    assert find_checkpoint(folder).progress.update == 3
    assert rows(folder) == rows(whole)
    pgtorch.resume(folder, until_update=5)
    pgtorch.resume(whole, until_update=5)
    assert outcome(folder) == outcome(whole)


def test_a_second_process_on_one_run_is_told_and_the_first_goes_on(tmp_path, capfd):
    folder = tmp_path / "run"
    more = ["--run-dir", folder, "--hidden-sizes", "4", "--eval-episodes", "2"]
    more += ["--checkpoint-every", "1", "--solve-threshold", "500", "--total-timesteps", "1e9"]
    # A shell's background job ignores SIGINT, and so would all that it starts: SIGTERM it is.
    process = subprocess.Popen(
        command("pgtorch", "train", *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: checkpoint_folders(folder), process)
        assert run_cli("pgtorch", load_pgtorch, ["resume", str(folder)]) == 2
        assert "is being written by another process" in capfd.readouterr().err
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert "go on with: pgtorch resume" in out
    done = len(rows(folder))
    assert find_checkpoint(folder).progress.update == done
    assert (
        run_cli("pgtorch", load_pgtorch, ["resume", str(folder), "--until-update", str(done + 1)])
        == 0
    )
    assert [int(row["charts/update"]) for row in rows(folder)] == list(range(1, done + 2))


def test_a_run_killed_at_any_moment_goes_on_with_no_line_twice_or_missing(tmp_path):
    """With a checkpoint after each update, most of the time goes into saving."""
    rng = random.Random(1)
    more = ["--run-dir", "run", "--hidden-sizes", "4", "--eval-episodes", "1", "--checkpoint-every"]
    more += ["1", "--episodes-per-update", "1", "--solve-threshold", "500"]
    more += ["--total-timesteps", "1e9"]
    folder = tmp_path / "run"
    arguments, quiet = ["train", *more], subprocess.DEVNULL
    for _ in range(4 if IS_DEEP else 2):
        program = [sys.executable, "-m", "pgtorch", *arguments]
        begun = len(rows(folder)) if folder.exists() else 0
        process = subprocess.Popen(program, cwd=tmp_path, stdout=quiet, stderr=quiet)
        kill(process, lambda begun=begun: num_updates(folder) > begun, rng.uniform(0, 0.3))
        done = [int(row["charts/update"]) for row in rows(folder)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a kill damages no checkpoint
            last = find_checkpoint(folder).progress.update
        assert done[: last + 1] in ([*range(1, last + 1)], [*range(1, last + 2)])
        pgtorch.resume(folder, until_update=last + 1)
        assert [int(row["charts/update"]) for row in rows(folder)] == list(range(1, last + 2))
        assert not list((folder / "checkpoints").glob(".*"))
        arguments = ["resume", "run"]


def num_updates(folder):
    return max(checkpoint_folders(folder), default=0)
