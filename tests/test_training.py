"""The host loop: what is kept, when it is solved, when it stops. No framework is needed here."""

import json
import math
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file

from pgcore.config import TrainConfig
from pgcore.envs.faults import Played
from pgcore.errors import RunError
from pgcore.evaluation import Evaluation
from pgcore.evaluation.solving import Kept, SolveRule
from pgcore.training.loop import StepResult, Trainer, run


class FakeMetrics(NamedTuple):
    loss: float
    grad_norm: float
    entropy: float
    num_episodes: int
    num_steps: int


class FakeTrajectory(NamedTuple):
    obs: np.ndarray
    reward: np.ndarray
    mask: np.ndarray


def played(returns, trajectory=None):
    return Played(returns, trajectory is None, lambda: trajectory)


def fake_run(batches, evaluations, *, loss=1.0, callback=None, **settings):
    """Runs the host loop on scripted batches; the "state" is the number of updates done."""
    evaluated = []

    def step(update):
        returns = np.asarray(batches[update], float)
        metrics = FakeMetrics(loss, 1.0, 0.5, len(returns), int(returns.sum()))
        return StepResult(update + 1, metrics, played(returns))

    def evaluate(params, update):
        evaluated.append((params, update))
        return [played(np.full(100, float(evaluations[len(evaluated) - 1])))]

    settings = {"total_timesteps": int(sum(sum(batch) for batch in batches))} | settings
    trainer = Trainer(
        "fake",
        step=step,
        snapshot=lambda state: f"params {state}",
        evaluate=evaluate,
        tensors=lambda params: {"played_by": np.array([int(params.removeprefix("params "))])},
    )
    result = run(TrainConfig(**settings), "policy", 0, trainer, callback=callback, started=0.0)
    return result, evaluated


def test_the_parameters_that_played_a_batch_are_evaluated_not_those_after_it():
    result, evaluated = fake_run([[10, 10]], [7])
    assert evaluated == [("params 0", 1)]
    assert result.params == "params 0"


def test_only_batches_that_reach_the_best_mean_so_far_are_evaluated():
    _, evaluated = fake_run([[10], [9], [10], [12], [11]], [1, 1, 1])
    assert [update for _, update in evaluated] == [1, 3, 4]


def test_the_best_evaluation_is_kept_and_a_tie_keeps_the_earlier():
    result, _ = fake_run([[1], [2], [3], [4]], [5, 9, 9, 3])
    assert result.params == "params 1"
    assert result.evaluation.mean == 9


def test_a_policy_that_cannot_be_bettered_ends_the_evaluations():
    _, evaluated = fake_run([[10]] * 5, [499, 500, 1])  # CartPole's episodes return 500 at most
    assert [update for _, update in evaluated] == [1, 2]


def test_a_run_is_solved_when_window_and_evaluation_both_reach_the_threshold():
    batches = [[500] * 50] * 4
    result, _ = fake_run(batches, [474, 480, 0, 0])
    assert result.solved_at is not None
    assert result.solved_at[:3] == (50_000, 100, 2)
    unsolved, _ = fake_run(batches, [474] * 4)
    assert unsolved.solved_at is None


def test_fewer_than_a_hundred_episodes_never_solve():
    result, _ = fake_run([[500] * 99], [500])
    assert result.solved_at is None


def test_the_window_is_the_last_hundred_episodes_in_order():
    rule = SolveRule(475)
    rule.kept = Kept(None, Evaluation(np.array([500.0])), 1)
    rule.record(np.array([0.0] + [500.0] * 99))
    assert rule.recent_mean == 495.0
    rule.record(np.array([500.0]))
    assert rule.recent_mean == 500.0
    assert rule.solved


def test_a_run_stops_with_the_update_that_reaches_the_budget():
    result, _ = fake_run([[30], [30], [30], [30]], [1] * 4, total_timesteps=60)
    assert [row.env_steps for row in result.history] == [30, 60]
    result, _ = fake_run([[30], [30], [30], [30]], [1] * 4, total_timesteps=61)
    assert [row.env_steps for row in result.history] == [30, 60, 90]


def test_the_callback_sees_every_update_with_what_is_kept():
    seen = []
    fake_run([[1], [2], [1]], [5, 6], callback=seen.append)
    assert [update.row.update for update in seen] == [1, 2, 3]
    assert [update.kept.update for update in seen] == [1, 2, 2]
    assert [update.state for update in seen] == [1, 2, 3]


def kept_in(folder):
    return load_file(folder / "policy.safetensors")["played_by"].item()


def test_a_run_folder_has_the_kept_policy_a_row_for_each_update_and_how_it_ended(tmp_path):
    fake_run([[1], [2], [1]], [5, 6], run_dir=str(tmp_path / "run"))
    assert kept_in(tmp_path / "run") == 1
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 4
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["ended"], result["solved_at"]) == ("budget spent", None)
    assert result["evaluation"]["mean_return"] == 6


@pytest.mark.parametrize(
    ("error", "ended"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")]
)
def test_a_run_that_stops_early_leaves_its_folder_whole_and_says_how_it_ended(
    tmp_path, error, ended
):
    def stop_after_two(update):
        if update.row.update == 2:
            raise error

    with pytest.raises(error):
        fake_run([[1], [2], [1]], [5, 6], run_dir=str(tmp_path / "run"), callback=stop_after_two)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["ended"] == ended
    assert kept_in(tmp_path / "run") == 1
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


def test_a_run_that_fails_in_the_evaluation_that_would_solve_it_is_not_solved(tmp_path):
    """The first update fills the window; the second's evaluation meets NaN."""

    def trajectory():
        mask, reward = np.ones((1, 1), bool), np.full((1, 1), math.nan)
        return FakeTrajectory(np.zeros((1, 1, 1)), reward, mask)

    evaluations = iter([played(np.full(100, 400.0)), Played(np.ones(1), False, trajectory)])
    metrics = FakeMetrics(1.0, 1.0, 0.5, 100, 50_000)
    trainer = Trainer(
        "fake",
        step=lambda state: StepResult(state, metrics, played(np.full(100, 500.0))),
        snapshot=lambda state: state,
        evaluate=lambda params, update: [next(evaluations)],
        tensors=lambda params: {"weight": np.ones(1)},
    )
    config = TrainConfig(run_dir=tmp_path / "run", solve_threshold=450)
    with pytest.raises(RunError, match="the reward is nan at step 1 of episode 1 in the evaluat"):
        run(config, "policy", 0, trainer, callback=None, started=0.0)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["ended"], result["solved_at"], result["updates"]) == ("failed", None, 1)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(loss):
    with pytest.raises(RunError, match=f"loss is {loss} in update 1 of CartPole-v1"):
        fake_run([[10]], [1], loss=loss)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    # 400 samples of 100 from an exponential law of mean 1: coverage 0.95 ± 0.033 (3 sigma of a
    # binomial), and the percentile bootstrap is known to fall short by about 0.02 at n = 100.
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, high = Evaluation(rng.exponential(size=100)).interval()
        covered += low <= 1.0 <= high
    assert 0.95 - 0.033 - 0.02 <= covered / 400 <= 0.95 + 0.033
