"""The command `eval`: folders of several seeds, and folders that are damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import pgtorch
from pgcore.cli import run_cli
from pgcore.config import TrainConfig
from pgcore.files.schema import SCHEMA
from tests.test_cli import load_pgjax, load_pgtorch

LOADS = {"pgjax": load_pgjax, "pgtorch": load_pgtorch}


@pytest.fixture(scope="module")
def seeds_folder(tmp_path_factory):
    """Three seeds' runs of one update each."""
    folder = tmp_path_factory.mktemp("runs") / "seeds"
    config = TrainConfig(agent="reparam", hidden_sizes=(4,), run_dir=folder, total_timesteps=1)
    pgtorch.train_seeds(config, [3, 5, 12])
    return folder


@pytest.fixture
def folder(seeds_folder, tmp_path):
    return shutil.copytree(seeds_folder, tmp_path / "seeds")


def evaluate(capfd, framework, *args):
    """Exit code, standard output and standard error."""
    code = run_cli(framework, LOADS[framework], ["eval", *map(str, args)])
    return code, *capfd.readouterr()


def evaluate_json(capfd, framework, *args):
    code, out, err = evaluate(capfd, framework, *args, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("framework", LOADS)
def test_each_seed_is_evaluated_as_it_would_be_alone(capfd, folder, framework):
    options = ["--episodes", "7", "--seed", "2", "--greedy"]
    together = evaluate_json(capfd, framework, folder, *options)
    alone = [evaluate_json(capfd, framework, folder / f"seed-{n}", *options) for n in (3, 5, 12)]
    settings = {"seed": 2, "greedy": True}
    expected = [{**one, **settings} for one in alone]
    assert [{**one, **settings} for one in together["seeds"]] == expected
    assert [one["seed"] for one in together["seeds"]] == [3, 5, 12]
    assert len({one["mean_return"] for one in alone}) > 1

    means, stds = (np.array([one[f"{name}_return"] for one in alone]) for name in ("mean", "std"))
    assert together["episodes"] == 21
    assert together["mean_return"] == pytest.approx(means.mean(), rel=1e-12)
    # The variance of all is the mean of the variances and the variance of the means.
    assert together["std_return"] == pytest.approx(
        np.sqrt(np.mean(stds**2) + np.var(means)), rel=1e-12
    )
    assert together["worst_seed"] == (3, 5, 12)[int(np.argmin(means))]
    assert (together["seed"], together["greedy"]) == (2, True)


def test_a_line_a_seed_and_one_for_all(capfd, folder):
    figures = evaluate_json(capfd, "pgtorch", folder, "--episodes", "4")
    _, out, err = evaluate(capfd, "pgtorch", folder, "--episodes", "4")
    *lines, last = out.splitlines()
    for line, seed in zip(lines, figures["seeds"], strict=True):
        expected = f"seed {seed['seed']}: mean return {seed['mean_return']:.1f} over 4 episodes ("
        assert line.startswith(expected)
    worst = min(figures["seeds"], key=lambda seed: seed["mean_return"])
    assert last == (
        f"reparam on CartPole-v1: mean return {figures['mean_return']:.1f} over 3 seeds, "
        f"{worst['mean_return']:.1f} at worst (seed {worst['seed']})"
    )
    assert err == ""


def take_back(run):
    """Leaves of a run what is there before its first update is done."""
    for name in ("policy.safetensors", "result.json", "SHA256SUMS"):
        (run / name).unlink()


def test_a_policy_that_a_seed_left_and_that_is_missing_is_an_error(capfd, folder):
    (folder / "seed-5" / "policy.safetensors").unlink()
    code, out, err = evaluate(capfd, "pgtorch", folder, "--episodes", "2")
    assert (code, out) == (2, "")
    assert "seed-5/policy.safetensors' is missing: the run left one" in err


def test_a_seed_without_a_policy_is_named_and_left_out(capfd, folder):
    take_back(folder / "seed-5")
    code, out, err = evaluate(capfd, "pgtorch", folder, "--episodes", "2")
    assert code == 0
    assert err == "pgtorch: warning: no policy of seed 5 yet\n"
    assert [line.partition(":")[0] for line in out.splitlines()[:-1]] == ["seed 3", "seed 12"]


def test_a_seed_that_never_began_is_named_and_counted(capfd, folder):
    shutil.rmtree(folder / "seed-5")  # its line in seeds.csv stays
    code, out, err = evaluate(capfd, "pgtorch", folder, "--episodes", "2")
    assert code == 0
    assert err == "pgtorch: warning: no policy of seed 5 yet\n"
    assert "over 2 of 3 seeds" in out


def edit_config(folder, **changes):
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value != "gone"}))


def remove_policies(folder):
    for path in folder.glob("seed-*"):
        take_back(path)


def edit_policy(folder, change, agent="reparam"):
    path = folder / "policy.safetensors"
    tensors = {name: change(array) for name, array in load_file(path).items()}
    save_file(tensors, path, {"schema": SCHEMA, "agent": agent, "env": "CartPole-v1"})


BAD_SEEDS = {
    "no policy yet": (remove_policies, "no seed in 'seeds' has a policy.safetensors"),
    "another environment's seed": (
        lambda folder: edit_config(folder / "seed-5", env_id="Acrobot-v1"),
        "seeds/seed-5/policy.safetensors.*accepted is what config.json says",
    ),
    "a damaged seed": (
        lambda folder: (folder / "seed-5" / "config.json").write_text("{"),
        "'seeds/seed-5/config.json' is damaged",
    ),
    "a table alone": (
        lambda folder: [shutil.rmtree(path) for path in folder.glob("seed-*")],
        "has a seeds.csv, but no folder seed-N",
    ),
}
BAD_RUNS = {
    "an unknown key": (
        lambda run: edit_config(run, discuont=1),
        "config.json' is damaged: configuration key is 'discuont'.*did you mean 'discount'",
    ),
    "a missing key": (
        lambda run: edit_config(run, discount="gone", seed="gone"),
        "config.json' is damaged: the configuration has no seed, discount$",
    ),
    "a wrong value": (
        lambda run: edit_config(run, discount=2),
        "config.json' is damaged: discount is 2, accepted",
    ),
    "a huge value": (
        lambda run: edit_config(run, discount=10**400),
        "config.json' is damaged: discount is 10+, accepted",
    ),
    "a list for an agent": (
        lambda run: edit_config(run, agent=["reparam"]),
        r"config.json' is damaged: agent is \['reparam'\]",
    ),
    "a number for an environment": (
        lambda run: edit_config(run, env_id=3),
        "config.json' is damaged: env_id is 3",
    ),
    "brackets without end": (
        lambda run: (run / "config.json").write_text("[" * 100_000),
        "config.json' is damaged: maximum recursion",
    ),
    "nothing": (lambda run: (run / "config.json").write_text(""), "config.json' is damaged"),
    "no text": (lambda run: (run / "config.json").write_bytes(b"\xff\0"), "json' is damaged"),
    "no policy": (
        lambda run: (run / "policy.safetensors").unlink(),
        "seed-3' has no policy.safetensors: its first update is not done",
    ),
    "no bytes": (
        lambda run: (run / "policy.safetensors").write_bytes(b""),
        "policy.safetensors' cannot be read",
    ),
    "other sizes": (
        lambda run: edit_config(run, hidden_sizes=[4, 4]),
        r"\(agent, .*, hidden\) is .*\(4,\)\), accepted is what .*\(4, 4\)\)$",
    ),
    "integers for weights": (
        lambda run: edit_policy(run, lambda array: array.astype(np.int32)),
        "dtype in policy file .* is 'int32', accepted is float32 or float64",
    ),
    "mixed weights": (
        lambda run: edit_policy(run, lambda a: a.astype(np.float32 if a.ndim == 1 else float)),
        "dtype in policy file .* is 'float32 and float64'",
    ),
    "another agent's weights": (
        lambda run: edit_policy(run, lambda array: array, agent="reinforce"),
        "which is no reinforce policy",
    ),
}


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, "seeds") for name in BAD_SEEDS] + [(n, "seeds/seed-3") for n in BAD_RUNS],
)
def test_a_damaged_folder_is_refused_in_one_line_that_names_the_file(
    tmp_path, monkeypatch, capfd, folder, name, path
):
    damage, message = (BAD_SEEDS | BAD_RUNS)[name]
    damage(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = evaluate(capfd, "pgtorch", path)
    assert (code, out) == (2, "")
    assert err.startswith("pgtorch: error: ")
    assert err.count("\n") == 1
    assert_matches(message, err.rstrip())
    assert sorted(tmp_path.rglob("*")) == before


def assert_matches(pattern, text):
    import re

    assert re.search(pattern, text), text


@pytest.mark.parametrize("framework", LOADS)
def test_a_threshold_out_of_reach_that_is_an_error_leaves_no_folder_of_seeds(tmp_path, framework):
    import importlib

    from pgcore.evaluation.solving import UnreachableThreshold

    config = TrainConfig(
        env_id="Acrobot-v1", solve_threshold=1, total_timesteps=1, run_dir=tmp_path / "run"
    )
    with pytest.raises(UnreachableThreshold, match="no episode of Acrobot-v1 returns more than 0"):
        importlib.import_module(framework).train_seeds(config, [1, 2])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("sent", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "term")]
)
def test_a_signal_ends_an_evaluation_with_one_line(folder, sent, code, word):
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pgcore.evaluation import playing; from pgtorch.cli import main\n"
        "play = playing.evaluate\n"
        "def evaluate(*args, **options):\n"
        "    print('begun', flush=True)\n"
        "    return play(*args, **options)\n"
        "playing.evaluate = evaluate\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, "eval", str(folder), "--episodes", "20000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (code, "")
    assert err.startswith(f"pgtorch: {word}")
    assert err.count("\n") == 1
