"""Many seeds on the host: one folder, one table, and no seed in another's way.

The lanes are scripted here; that they are what single runs are is shown in `tests/parity`.
"""

import csv
import json
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

import pgjax
import pgtorch
from pgcore.commands.parsing import parse_seeds
from pgcore.commands.training import _train_seeds
from pgcore.config import TrainConfig
from pgcore.envs.faults import Played
from pgcore.errors import RunError, UsageError
from pgcore.runs import RunFolder
from pgcore.training.loop import StepResult
from pgcore.training.seeds import (
    LanesTrainer,
    SeedsError,
    starting_points,
    train_in_turn,
    train_lanes,
)


class FakeMetrics(NamedTuple):
    loss: float
    grad_norm: float
    entropy: float
    num_episodes: int
    num_steps: int


def fake_lanes(scripts, evaluations, *, losses=None, callback=None, **settings):
    """Trains lanes on scripted batches of returns: `scripts[lane][update]`, then zeros.

    A lane's parameters are the number of updates behind them; `evaluations[lane][parameters]` is
    what they evaluate to.
    """
    asked = []

    def step(states):
        results = []
        for script, update in states:
            batches = scripts[script]
            returns = np.asarray(batches[update] if update < len(batches) else [1.0], float)
            loss = (losses or {}).get((script, update), 1.0)
            metrics = FakeMetrics(loss, 1.0, 0.5, len(returns), int(returns.sum()))
            results.append(StepResult((script, update + 1), metrics, played(returns)))
        return [result.state for result in results], results

    def evaluate(states, lanes):
        asked.extend((states[lane][0], update, states[lane][1]) for lane, update in lanes)
        return [
            [played(np.full(100, float(evaluations[script][update])))]
            for script, update in (states[lane] for lane, _ in lanes)
        ]

    trainer = LanesTrainer(
        "fake",
        step=step,
        snapshot=lambda states, lane: states[lane],
        evaluate=evaluate,
        select=lambda states, lanes: [states[lane] for lane in lanes],
        tensors=lambda params: {"lane_and_update": np.array(params)},
    )
    config = TrainConfig(**({"total_timesteps": 60} | settings))
    seeds = [10 + lane for lane in range(len(scripts))]
    states = [(script, 0) for script in range(len(scripts))]
    results = train_lanes(config, seeds, "policy", states, trainer, callback=callback, started=0.0)
    return results, asked


def played(returns):
    return Played(returns, True, lambda: None)


def table(folder):
    return list(csv.DictReader((folder / "seeds.csv").read_text().splitlines()))


FULL = [[1.0] * 100]
"""One batch that fills the window of 100 episodes, with returns of 1."""


def test_each_lane_stops_by_its_own_budget_and_is_stepped_no_further():
    seen = []
    (first, second), asked = fake_lanes(
        [[[30], [30], [30]], [[20], [20], [20]]],
        [[1] * 3] * 2,
        callback=lambda seed, update: seen.append((seed, update.row.update, update.is_last)),
    )
    assert [row.env_steps for row in first.history] == [30, 60]
    assert [row.env_steps for row in second.history] == [20, 40, 60]
    assert seen == [(10, 1, False), (11, 1, False), (10, 2, True), (11, 2, False), (11, 3, True)]
    assert (0, 3, 2) not in asked


def test_each_lane_keeps_the_best_of_its_own_parameters_as_they_played():
    (first, second), asked = fake_lanes(
        [[[10], [20], [30]], [[30], [20], [30]]], [[5, 9, 7], [4, 9, 8]]
    )
    assert (first.params, first.evaluation.mean) == ((0, 1), 9)
    assert (second.params, second.evaluation.mean) == ((1, 2), 8)
    # (lane, its update, the parameters asked about): only where a batch's mean is the best so far
    assert asked == [(0, 1, 0), (1, 1, 0), (0, 2, 1), (0, 3, 2), (1, 3, 2)]


def test_lanes_are_solved_each_by_its_own_window_and_evaluation():
    results, _ = fake_lanes([FULL, FULL, [[2.0] * 50]], [[1], [0], [1] * 60], solve_threshold=1)
    assert [result.solved_at and result.solved_at[:3] for result in results][:2] == [
        (100, 100, 1),
        None,
    ]


def test_the_folder_has_a_table_and_a_run_folder_for_each_seed(tmp_path):
    folder = tmp_path / "run"
    (first, _), _ = fake_lanes(
        [FULL, [[30], [31]]], [[1], [3, 2]], run_dir=folder, solve_threshold=1
    )
    solved, spent = table(folder)
    assert solved | {"seconds": ""} == {
        "seed": "10",
        "ended": "solved",
        "env_steps": "100",
        "episodes": "100",
        "updates": "1",
        "seconds": "",
        "kept_update": "1",
        "evaluation_return": "1.0",
    }
    assert float(solved["seconds"]) == first.solved_at.seconds
    assert (spent["ended"], spent["env_steps"], spent["kept_update"]) == ("budget spent", "61", "1")
    run = RunFolder.open(folder / "seed-11")
    assert run.config == TrainConfig(
        seed=11,
        run_dir=folder / "seed-11",
        total_timesteps=60,
        solve_threshold=1,
        checkpoint_every=0,
    )
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "system.json",
        "seeds.csv",
        "seed-10",
        "seed-11",
    }


def test_the_table_has_a_seeds_line_as_soon_as_it_has_ended(tmp_path):
    folder, seen = tmp_path / "run", []
    fake_lanes(
        [[[60]], [[20], [20], [20]]],
        [[1], [3] * 3],
        run_dir=folder,
        callback=lambda seed, update: seen.append([line["ended"] for line in table(folder)]),
    )
    assert seen[-1] == ["budget spent", ""]


def test_lanes_that_move_together_stay_the_runs_that_they_were():
    """The first and the third of four end at once; what the others play must still be their own."""
    scripts = [[[60]], [[10], [11], [12], [40]], [[60]], [[20], [21], [22], [40]]]
    evaluations = [[1], [3, 4, 5, 2], [1], [6, 5, 7, 1]]
    results, asked = fake_lanes(scripts, evaluations)
    rows = [[row.mean_return for row in result.history] for result in results]
    assert rows == [[60], [10, 11, 12, 40], [60], [20, 21, 22]]
    assert [result.params for result in results] == [(0, 0), (1, 2), (2, 0), (3, 2)]
    assert asked[4:] == [(1, 2, 1), (3, 2, 1), (1, 3, 2), (3, 3, 2), (1, 4, 3)]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_what_stops_all_lanes_leaves_every_folder_whole_and_the_ended_as_they_ended(
    tmp_path, raised
):
    def stop(seed, update):
        if (seed, update.row.update) == (11, 2):
            raise raised

    folder = tmp_path / "run"
    with pytest.raises(raised):
        fake_lanes([[[60]], [[20], [20], [20]]], [[1], [3] * 3], run_dir=folder, callback=stop)
    ended = "interrupted" if raised is KeyboardInterrupt else "failed"
    assert [line["ended"] for line in table(folder)] == ["budget spent", ended]
    result = json.loads((folder / "seed-11" / "result.json").read_text())
    assert (result["ended"], result["updates"]) == (ended, 2)
    assert result["error"] == raised.__name__


def test_a_lane_that_is_not_finite_stops_alone_and_the_error_has_the_others_results(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SeedsError, match="1 of 2 seeds failed: seed 10: loss is nan") as caught:
        fake_lanes(
            [[[20]] * 3, [[20]] * 3],
            [[1] * 3, [3] * 3],
            losses={(0, 1): np.nan},
            run_dir=folder,
        )
    assert list(caught.value.results) == [11]
    assert caught.value.results[11].history[-1].env_steps == 60
    assert list(caught.value.errors) == [10]
    assert [line["ended"] for line in table(folder)] == ["failed", "budget spent"]
    assert (folder / "seed-10" / "policy.safetensors").exists()


def test_seeds_in_turn_go_on_after_one_that_fails(tmp_path):
    def train(config, *, callback):
        if config.seed == 1:
            raise RunError("the loss is nan")
        return config

    with pytest.raises(SeedsError, match="1 of 3 seeds failed: seed 1: the loss is nan") as caught:
        train_in_turn(train, TrainConfig(), [0, 1, 2], "fake", callback=None)
    assert {seed: config.seed for seed, config in caught.value.results.items()} == {0: 0, 2: 2}


def test_a_folder_that_exists_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(UsageError, match="exists"):
        fake_lanes([FULL], [[1]], run_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seeds", "params", "message"),
    [
        ([], None, "seeds is"),
        ([1, 1], None, "each once"),
        ([-1], None, "seed is -1"),
        ([2**32], None, "seed is 4294967296"),
        ([0.5], None, "seed is 0.5"),
        ([1, 2], ["a module"], "params is 'of 1 entries'"),
    ],
)
def test_bad_seeds_are_refused(seeds, params, message):
    with pytest.raises(UsageError, match=message):
        starting_points(TrainConfig(), seeds, params)


@pytest.mark.parametrize("framework", [pgjax, pgtorch])
def test_bad_seeds_make_no_folder(tmp_path, framework):
    with pytest.raises(UsageError, match="each once"):
        framework.train_seeds(TrainConfig(run_dir=tmp_path / "run"), [1, 1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("framework", [pgjax, pgtorch])
def test_seeds_of_an_environment_on_the_host_are_single_runs_one_after_another(tmp_path, framework):
    config = TrainConfig(
        env_id="MountainCar-v0",
        solve_threshold=-110,
        total_timesteps=1,
        episodes_per_update=2,
        eval_episodes=2,
    )
    seen = []
    many = framework.train_seeds(
        TrainConfig(**(vars(config) | {"run_dir": tmp_path / "run"})),
        [5, 4],
        callback=lambda seed, update: seen.append((seed, update.row.update, update.is_last)),
    )
    assert seen == [(5, 1, True), (4, 1, True)]
    assert [(line["seed"], line["ended"]) for line in table(tmp_path / "run")] == [
        ("5", "budget spent"),
        ("4", "budget spent"),
    ]
    alone = framework.train(TrainConfig(**(vars(config) | {"seed": 4})))
    assert [row._replace(seconds=0) for row in many[1].history] == [
        row._replace(seconds=0) for row in alone.history
    ]


@pytest.mark.parametrize("framework", [pgjax, pgtorch])
def test_a_seed_starts_from_the_parameters_that_it_is_given(framework):
    policy = framework.make_policy("reinforce", 4, 2)
    keys = make_keys(framework)
    params = [policy.init(key) for key in keys]
    config = TrainConfig(total_timesteps=1, eval_episodes=2)
    results = framework.train_seeds(config, [0, 1], params=params)
    for result, start in zip(results, params, strict=True):  # update 1's own are what was kept
        kept, given = (framework.params_to_tensors(p) for p in (result.params, start))
        assert all(np.array_equal(kept[name], given[name]) for name in given)


def make_keys(framework):
    if framework is pgjax:
        import jax

        return jax.random.split(jax.random.key(8), 2)
    import torch

    return [torch.Generator().manual_seed(seed) for seed in (8, 9)]


@pytest.mark.parametrize(
    ("text", "seeds"), [("0:3", (0, 1, 2)), ("7:8", (7,)), ("5", (5,)), ("4,0", (4, 0))]
)
def test_seeds_are_a_range_or_a_list(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "3:3", "5:2", "a:b", "1:2:3", "1.5", ",", "0:20000", "1e999"])
def test_what_is_neither_a_range_nor_a_list_of_seeds_is_refused(text):
    with pytest.raises(UsageError, match="seeds is"):
        parse_seeds(text)


def test_a_signal_between_a_policy_and_the_word_of_it_still_says_that_it_is_kept(tmp_path, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    framework = SimpleNamespace(
        train_seeds=lambda config, seeds, callback: pgtorch.train_seeds(
            config, seeds, callback=stopped
        )
    )
    run_dir = tmp_path / "run"
    config = TrainConfig(run_dir=run_dir, hidden_sizes=(4,), eval_episodes=2, episodes_per_update=2)
    try:
        stop = _train_seeds(framework, config, [0, 1], run_dir, as_json=False)
    except KeyboardInterrupt as error:  # which would end the tests
        pytest.fail(str(error))
    assert isinstance(stop, KeyboardInterrupt)
    assert "the best policies so far are kept" in capsys.readouterr().out
