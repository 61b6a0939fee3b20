"""The two commands as a person uses them: fresh processes, exit codes, what is printed and left."""

import csv
import gc
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest

from pgcore.cli import run_cli
from pgcore.commands.parsing import parse_int
from pgcore.commands.process import uncollected
from pgcore.commands.progress import describe, describe_seeds, progress
from pgcore.config import TrainConfig
from pgcore.evaluation.solving import UnreachableThreshold
from tests.depth import IS_DEEP
from tests.test_files import ROW

FRAMEWORKS = ["pgjax", "pgtorch"]


def command(framework, *args):
    return [sys.executable, "-W", "error", "-m", framework, *map(str, args)]


def call(framework, *args):
    return subprocess.run(command(framework, *args), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One short run of each framework, each with another agent: its folder and process."""
    folder = tmp_path_factory.mktemp("runs")
    settings = ["--total-timesteps", "300", "--eval-episodes", "3", "--seed", "5"]
    made = {}
    for framework, agent in zip(FRAMEWORKS, ["reparam", "reinforce"], strict=True):
        out = folder / framework
        made[framework] = (
            out,
            call(framework, "train", "--agent", agent, "--run-dir", out, *settings),
        )
    return made


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_train_leaves_a_run_folder_and_says_how_it_ended(runs, framework):
    folder, process = runs[framework]
    assert process.returncode == 0, process.stderr
    assert "not solved within 300 environment steps" in process.stdout
    assert "episodes" in process.stderr  # plain progress lines: this is no terminal
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "system.json",
        "metrics.csv",
        "policy.safetensors",
        "result.json",
        "SHA256SUMS",
        "checkpoints",
    }
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [int(row["charts/update"]) for row in rows] == list(range(1, len(rows) + 1))
    assert int(rows[-2]["global_step"]) < 300 <= int(rows[-1]["global_step"])
    assert json.loads((folder / "result.json").read_text())["ended"] == "budget spent"


@pytest.mark.parametrize("run", FRAMEWORKS)
def test_either_framework_evaluates_eithers_run_with_the_same_returns(runs, run):
    outputs = [
        call(framework, "eval", runs[run][0], "--episodes", 20, "--json")
        for framework in FRAMEWORKS
    ]
    in_jax, in_torch = (json.loads(output.stdout) for output in outputs)
    assert in_jax == in_torch
    assert in_jax["episodes"] == 20
    assert in_jax["std_return"] > 0
    low, high = in_jax["interval_95"]
    assert low <= in_jax["mean_return"] <= high


def test_greedy_evaluation_is_not_the_sampled_one(runs):
    folder = runs["pgjax"][0]
    sampled, greedy = (
        json.loads(call("pgjax", "eval", folder, "--episodes", 5, "--json", *more).stdout)
        for more in ([], ["--greedy"])
    )
    assert sampled["mean_return"] != greedy["mean_return"]


@pytest.mark.parametrize(
    ("framework", "env_id", "sent", "code", "word"),
    [
        ("pgjax", "Acrobot-v1", signal.SIGTERM, 143, "terminated"),
        ("pgtorch", "CartPole-v1", signal.SIGINT, 130, "interrupted"),
        *([("pgjax", "CartPole-v1", signal.SIGINT, 130, "interrupted")] if IS_DEEP else []),
    ],
)
def test_ctrl_c_and_sigterm_keep_the_best_policy(tmp_path, framework, env_id, sent, code, word):
    folder = tmp_path / "run"
    settings = ["--run-dir", folder, "--env-id", env_id, "--eval-episodes", "2"]
    settings += ["--solve-threshold", "1e6", "--total-timesteps", "1e9"]
    # A shell's background job ignores SIGINT, and so would all that it starts.
    listening = (
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", listening, framework, "train", *map(str, settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: num_rows(folder) >= 2, process)
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, stderr
    assert f"{word}; the best policy so far is kept" in stdout
    assert json.loads((folder / "result.json").read_text())["ended"] == "interrupted"
    evaluated = call(framework, "eval", folder, "--episodes", 2)
    assert evaluated.returncode == 0, evaluated.stderr


def num_rows(folder):
    metrics = folder / "metrics.csv"
    return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0


def wait_until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.1)


BAD_CALLS = [
    (["trian"], "'trian'.*did you mean 'train'"),
    (["train", "--agent", "renforce"], "did you mean 'reinforce'"),
    (["train", "--preset", "articel"], "did you mean 'article'"),
    (["train", "--lerning-rate", "1"], "--learning-rate"),
    (["train", "--discount", "1.5"], "discount is 1.5"),
    (["train", "--seed", "-1"], "seed is -1"),
    (["train", "--seed", "1.5"], "'1.5' is no integer"),
    (["train", "--seed", "x"], "--seed: 'x' is no integer"),
    (["train", "--seed", "4294967296"], "seed is 4294967296"),
    (["train", "--hidden-sizes", "0"], r"hidden_sizes is \(0,\)"),
    (["train", "--hidden-sizes", "24", "x"], "--hidden-sizes: .*'24', 'x'"),
    (["train", "--hidden-sizes", "1e12"], "hidden_sizes is .*at most 65,536"),
    (["train", "--episodes-per-update", "1e30"], "episodes_per_update is .*at most 1,000,000"),
    (["train", "--agent"], "Missing value for argument '--agent'"),
    (["train", "--agen", "reparam"], "Unrecognized options: --agen.*--agent"),
    (["train", "--run-dir", ""], "run_dir is ''"),
    (["train", "--run-dir", "/proc/new/run"], "run_dir '/proc/new/run' cannot be made: No such"),
    (["train", "--run-dir", "/dev/null/run"], "run_dir '/dev/null/run' cannot be made: Not a dir"),
    (["train", "--run-dir", f"new/{'x' * 300}"], "cannot be made: File name too long"),
    (["train", "--run-dir", "x" * 300], "cannot be made: File name too long"),
    (["train", "--run-dir", "new/.."], "run_dir 'new/..' cannot be made"),
    (["train", "--hidden-sizes"], "hidden_sizes is"),
    (
        ["train", "--env-id", "CartPol-v1"],
        "env_id is 'CartPol-v1', which is not registered; did you mean 'CartPole-v1'",
    ),
    (["train", "--env-id", "Pendulum-v1"], "'Pendulum-v1' takes actions in Box"),
    (["train", "--env-id", "Blackjack-v1"], "'Blackjack-v1' observes Tuple"),
    (["train", "--env-id", "ALE/Pong-v5"], "pip install ale-py.*as 'ale_py:ALE/Pong-v5'"),
    (["train", "--env-id", "nowhere:Pong-v5"], "needs the module 'nowhere', which is not inst"),
    (["train", "--env-id", "LunarLander-v3"], "'LunarLander-v3' needs.*pip install"),
    (["train", "--env-id", ""], "env_id is ''"),
    (["train", "--env-id", ":CartPole-v1"], "env_id is ':CartPole-v1', which cannot be made"),
    (["train", "--env-id", "..x:CartPole-v1"], "env_id is '..x:CartPole-v1', which cannot be"),
    (["train", "--env-id", "a:b:c"], "env_id is 'a:b:c', which cannot be made"),
    (["train", "--env-id", "a b"], "env_id is 'a b', which Gymnasium cannot make: Malformed"),
    (["train", "--env-id", "NeedsMap-v0"], "'NeedsMap-v0', which cannot be made: ValueError: no m"),
    (["train", "--env-id", "NeedsName-v0"], "'NeedsName-v0', which cannot be made: TypeError: "),
    (["train", "--env-id", "NeedsPackage-v0"], "needs the module 'absent_package', which is not"),
    (["train", "--env-id", "Images-v0"], "'Images-v0' observes Box.*accepted is a Box of one"),
    (["train", "--env-id", "States-v0"], r"'States-v0' observes Discrete\(5\)"),
    (["train", "--env-id", "FromOne-v0"], r"'FromOne-v0' takes actions in Discrete\(2, start=1\)"),
    (["train", "--env-id", "Endless-v0"], "'Endless-v0' has no step limit"),
    (["train", "--env-id", "Lasting-v0"], "'Lasting-v0' has a step limit of 1,000,000,000, acc"),
    (["train", "--seeds", "0:2", "--env-id", "Acrobt-v1"], "did you mean 'Acrobot-v1'"),
    (["train", "--seeds", "0:2", "--env-id", "Pendulum-v1"], "takes actions in Box"),
    (["train", "--seeds", "0:99999999999999999999"], "seeds is .*at most 10,000"),
    (["train", "--seeds", "3:3"], "seeds is '3:3', accepted is a range such as 0:50"),
    (["train", "--seeds", "1.5"], "seeds is '1.5'"),
    (["train", "--seeds", "1,1"], "each once"),
    (["train", "--seeds=-1:3"], "seed is -1"),
    (["train", "--seeds", "0:3", "--seed", "4"], "none beside --seeds"),
    (["train", "--seeds", "0:3", "--until-update", "4"], "until_update is 4.*with several seeds"),
    (["train", "--until-update", "0"], "until_update is 0"),
    (["train", "--checkpoint-every", "-1"], "checkpoint_every is -1"),
    (["resume", "nowhere"], "'nowhere' is no run folder"),
    (["resume", "/dev/null"], "'/dev/null' is no run folder"),
    (["resume", "nowhere", "--until-update", "x"], "'x' is no integer"),
    (["resume"], "Missing.*run folder"),
    (["eval", "nowhere"], "'nowhere' is no run folder"),
    (["eval", "x" * 300], "'x{300}' is no run folder"),
    (["eval", "nowhere", "--episodes", "0"], "episodes is 0"),
    (["eval", "nowhere", "--episodes", "1e30"], "episodes is .*at most 1,000,000"),
    (["eval", "nowhere", "--seed", "-1"], "seed is -1"),
    (["eval", "nowhere", "--seed", "1e30"], "seed is .*from 0 to"),
    (["eval", "/dev/null"], "'/dev/null' is no run folder"),
    (["eval"], "Missing.*run folder"),
    (["eval", "one", "two"], "Unrecognized options: two"),
    ([], "Expected one of"),
]


class NeedsMap(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        raise ValueError("no map")


class NeedsName(NeedsMap):
    def __init__(self, name):
        pass


class NeedsPackage(NeedsMap):
    def __init__(self):
        import absent_package  # noqa: F401  # pyright: ignore[reportMissingImports]


class Endless(NeedsMap):
    def __init__(self):
        pass


class Images(Endless):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)


class States(Endless):
    observation_space = gymnasium.spaces.Discrete(5)


class FromOne(Endless):
    action_space = gymnasium.spaces.Discrete(2, start=1)


gymnasium.register("Lasting-v0", Endless, max_episode_steps=10**9)
for bad in (NeedsMap, NeedsName, NeedsPackage, Endless, Images, States, FromOne):
    gymnasium.register(f"{bad.__name__}-v0", bad, max_episode_steps=None if bad is Endless else 5)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("args", "message"), BAD_CALLS, ids=lambda value: str(value)[:40])
def test_a_bad_call_exits_2_with_one_clear_message_and_makes_nothing(
    tmp_path, monkeypatch, capfd, args, message, framework
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    try:
        code = run_cli(framework, {"pgjax": load_pgjax, "pgtorch": load_pgtorch}[framework], args)
    except SystemExit as exit:  # tyro's own errors
        code = exit.code
    _, stderr = capfd.readouterr()
    assert code == 2
    assert "Traceback" not in stderr
    assert_matches(message, stderr)
    assert os.listdir(tmp_path) == []


def load_pgjax():
    from pgjax.cli import _load

    return _load()


def load_pgtorch():
    from pgtorch.cli import _load

    return _load()


def assert_matches(pattern, text):
    import re

    flat = re.sub(r"[│\s]+", " ", text)
    assert re.search(pattern, flat), text


@pytest.mark.parametrize("kind", ["folder", "file", "link that leads nowhere"])
def test_a_run_folder_that_exists_is_refused(tmp_path, capfd, kind):
    path = tmp_path / "run"
    make = {"folder": path.mkdir, "file": path.touch}.get(kind, lambda: path.symlink_to("nowhere"))
    make()
    before = path.lstat()
    assert run_cli("pgjax", load_pgjax, ["train", "--run-dir", str(path)]) == 2
    assert "exists; give a path that does not" in capfd.readouterr().err
    assert path.lstat() == before
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(("key", "value"), [("agent", "reinforce"), ("env_id", "Acrobot-v1")])
def test_a_run_whose_config_and_policy_disagree_is_refused(runs, tmp_path, capfd, key, value):
    folder = tmp_path / "run"
    shutil.copytree(runs["pgjax"][0], folder)  # a reparam policy of CartPole-v1
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    assert run_cli("pgjax", load_pgjax, ["eval", str(folder)]) == 2
    assert "accepted is what config.json says" in capfd.readouterr().err


def test_a_missing_framework_is_one_sentence_with_the_way_to_install_it(tmp_path, capfd):
    def load():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert run_cli("pgtorch", load, ["train", "--run-dir", str(tmp_path / "run")]) == 2
    message = capfd.readouterr().err
    assert "torch is not installed; pip install 'policy-gradient-parity[torch]'" in message
    assert not (tmp_path / "run").exists()


def test_train_prints_one_json_object_on_request(tmp_path, capfd):
    settings = ["--total-timesteps", "1", "--eval-episodes", "2", "--json"]
    assert (
        run_cli("pgtorch", load_pgtorch, ["train", "--run-dir", str(tmp_path / "r"), *settings])
        == 0
    )
    printed = json.loads(capfd.readouterr().out)
    assert printed["ended"] == "budget spent"
    assert printed["run_dir"] == str(tmp_path / "r")
    assert printed["evaluation"]["episodes"] == 2


@pytest.mark.parametrize(
    ("text", "value"), [("100000", 100_000), ("1e5", 100_000), ("1_000", 1000), ("-3", -3)]
)
def test_an_integer_may_be_written_as_1e5(text, value):
    assert parse_int(text) == value


@pytest.mark.parametrize("text", ["1.5", "1e-1", "inf", "nan", "five", ""])
def test_what_is_no_integer_is_refused(text):
    with pytest.raises(ValueError, match="integer|float"):
        parse_int(text)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown_in_a_terminal(status, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with progress(1000, stream) as shown:
        shown.update(lambda: status)
    return stream.getvalue()


def test_a_run_in_a_terminal_shows_a_live_line_that_80_columns_hold(monkeypatch):
    row = ROW._replace(episodes=9_999, env_steps=999_999, seconds=11.0, mean_return_100=500.0)
    shown = shown_in_a_terminal(describe(row), monkeypatch)
    assert "9,999 episodes · 999,999 steps · 90,909/s · last 100: 500.0" in shown


def test_seeds_in_a_terminal_show_a_live_line_that_80_columns_hold(monkeypatch):
    rows = [
        ROW._replace(env_steps=9_999_999, seconds=11.0, mean_return_100=mean)
        for mean in (9.0, 500.0, 500.0)
    ]
    shown = shown_in_a_terminal(describe_seeds(rows, 47, 50, seconds=11.0), monkeypatch)
    assert "47/50 seeds · 29,999,997 steps · 2,727,272/s · last 100: 500.0" in shown


def test_progress_elsewhere_prints_the_first_and_the_last_row(capsys):
    with progress(1000) as shown:
        for update in range(3):
            row = ROW._replace(update=update, episodes=update)
            shown.update(lambda row=row: describe(row))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "2"]


def test_train_with_seeds_leaves_one_folder_and_says_how_the_seeds_ended(tmp_path, capfd):
    folder = tmp_path / "run"
    settings = ["--total-timesteps", "200", "--eval-episodes", "2", "--run-dir", str(folder)]
    assert run_cli("pgjax", load_pgjax, ["train", "--seeds", "3,8", *settings]) == 0
    out, err = capfd.readouterr()
    assert "solved CartPole-v1 with reinforce on 0 of 2 seeds" in out
    assert "each over 2 episodes" in out
    assert "2 of 2 seeds ended" in err
    table = list(csv.DictReader((folder / "seeds.csv").read_text().splitlines()))
    assert [line["seed"] for line in table] == ["3", "8"]
    assert run_cli("pgjax", load_pgjax, ["eval", str(folder / "seed-8"), "--episodes", "2"]) == 0


def test_train_with_seeds_prints_one_json_object_on_request(tmp_path, capfd):
    settings = ["--total-timesteps", "1", "--eval-episodes", "2", "--json"]
    args = ["train", "--seeds", "0:2", "--run-dir", str(tmp_path / "run"), *settings]
    assert run_cli("pgtorch", load_pgtorch, args) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["run_dir"] == str(tmp_path / "run")
    assert [(seed["seed"], seed["ended"]) for seed in printed["seeds"]] == [
        (0, "budget spent"),
        (1, "budget spent"),
    ]


def test_a_threshold_that_cannot_be_reached_is_a_warning_and_no_error(tmp_path, capfd):
    settings = ["--total-timesteps", "1", "--eval-episodes", "2", "--solve-threshold", "500.5"]
    args = ["train", "--run-dir", str(tmp_path / "run"), *settings]
    assert run_cli("pgtorch", load_pgtorch, args) == 0
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == (
        "pgtorch: warning: solve_threshold is 500.5, but no episode of CartPole-v1 returns more "
        "than 500: the run will spend its whole budget of 1 environment steps (Gymnasium's own "
        "threshold is 475)"
    )
    assert len([line for line in lines if "threshold" in line]) == 1


@pytest.mark.parametrize("train", ["pgjax.train", "pgtorch.train", "pgjax.train_seeds"])
def test_a_threshold_that_cannot_be_reached_warns_whoever_called_train(train):
    framework, name = train.split(".")
    config = TrainConfig(solve_threshold=500.5, total_timesteps=1, eval_episodes=2)
    args = [config] if name == "train" else [config, [0]]
    with pytest.warns(UnreachableThreshold, match="no episode of CartPole-v1") as warned:
        getattr(importlib.import_module(framework), name)(*args)
    assert len(warned) == 1


@pytest.mark.parametrize("is_enabled", [True, False])
def test_while_a_framework_is_imported_no_garbage_is_looked_for(is_enabled):
    def load():
        assert not gc.isenabled()
        raise ModuleNotFoundError(name="torch")

    before = gc.isenabled()
    (gc.enable if is_enabled else gc.disable)()
    try:
        with pytest.raises(ModuleNotFoundError):
            uncollected(load)
        assert gc.isenabled() == is_enabled
    finally:
        (gc.enable if before else gc.disable)()
