"""Seeds trained as lanes of vmapped calls are the runs that each would be alone."""

import jax
import numpy as np
import pytest

import pgjax
from parity.tolerance import GATE
from pgcore.config import TrainConfig
from pgcore.runs.metrics import Row
from tests.depth import IS_DEEP

COUNTS = ("update", "env_steps", "episodes", "mean_return", "mean_return_100", "best_evaluation")
"""Sums of ones and their means: equal as long as every action is."""


@pytest.mark.parametrize(
    ("agent", "seeds"),
    [("reparam", [1, 7]), *([("reinforce", [2**32 - 1, 0, 3])] if IS_DEEP else [])],
)
def test_each_lane_stops_and_keeps_what_its_own_run_does_to_the_gate(tmp_path, agent, seeds):
    config = TrainConfig(
        agent=agent,
        hidden_sizes=(6,),
        solve_threshold=24.0,  # soon reached by one seed and late by another
        total_timesteps=6_000,
        eval_episodes=20,  # three calls of eight, of which the last is cut
    )
    with jax.enable_x64(True):
        lanes = pgjax.train_seeds(config, seeds)
        alone = [pgjax.train(TrainConfig(**(vars(config) | {"seed": seed}))) for seed in seeds]
    ends = {result.history[-1].env_steps for result in alone}
    assert len(ends) == len(seeds)  # else the lanes stopped together, and the test shows little
    assert any(result.solved_at for result in alone)
    # The last to end is not the first in line: it has to take its keys along when lanes move.
    assert alone[0].history[-1].update < max(result.history[-1].update for result in alone)
    for lane, run in zip(lanes, alone, strict=True):
        assert np.array_equal(lane.evaluation.returns, run.evaluation.returns)
        assert lane.solved_at is None or lane.solved_at[:3] == run.solved_at[:3]
        assert (lane.solved_at is None) == (run.solved_at is None)
        assert len(lane.history) == len(run.history)
        for name in set(Row._fields) - {"seconds"}:
            ours, theirs = (
                np.array([getattr(row, name) for row in result.history]) for result in (lane, run)
            )
            bound = 0 if name in COUNTS else GATE * np.max(np.abs(theirs))
            assert np.max(np.abs(ours - theirs)) <= bound, name
        both = [map(np.asarray, jax.tree.leaves(result.params)) for result in (lane, run)]
        for ours, theirs in zip(*both, strict=True):
            assert ours.dtype == theirs.dtype == np.float64
            assert np.max(np.abs(ours - theirs)) <= GATE * np.max(np.abs(theirs))
