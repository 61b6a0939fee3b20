"""Deciders of recorded stages: what they are given, and what is a tie in which precision."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from parity.recordings.recording import Recording
from pgcore.errors import UsageError

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def test_only_what_is_discrete_is_decided(tmp_path):
    with parity.record(tmp_path / "a") as rec:
        rec.stage("act", action=X.argmax(-1), best=X.max(-1))
        with pytest.raises(UsageError, match="what decided stage 'act': the output is 'best'"):
            rec.decided("act", action=X, best=X)


def test_a_decider_takes_inputs_of_the_recording_and_those_of_the_call_go_first(tmp_path):
    sign = np.array([1.0, -1.0, 1.0])
    with parity.record(tmp_path / "a") as rec:
        rec.inputs(x=-X, sign=sign)
        rec.call("act", lambda x: x.argmax(-1), {"x": X}, decider=lambda x, sign: x * sign)
    decided = Recording.load(tmp_path / "a").stages["act"].outputs["value"].decided
    assert decided is not None
    np.testing.assert_array_equal(decided.scores, X.astype(np.float64) * sign)


def test_a_tie_of_float32_is_none_in_float64(tmp_path):
    def scores(x):
        return torch.stack([x, x * (1 + 1e-9)], -1)  # 1 + 1e-9 is 1 in float32

    x = np.ones(3)
    with parity.record(tmp_path / "a") as rec:
        rec.call("act", lambda x: scores(x).argmax(-1), {"x": x}, decider=scores)
    first = {"act": lambda x: jnp.zeros(x.shape, int)}
    assert {m.dtype for m in parity.compare(tmp_path / "a", first).failures} == {"float64"}

    ours = Recording.load(tmp_path / "a")
    stage = ours.stages["act"]
    output = stage.outputs["value"]
    assert output.decided is not None
    unmeasured = output._replace(decided=output.decided._replace(bounds={}))
    ours = ours._replace(stages={"act": stage._replace(outputs={"value": unmeasured})})
    failures = parity.compare(ours, first).failures
    assert {m.dtype for m in failures} == {"float64", "float32"}  # nothing is allowed


def test_scores_that_are_all_zero_are_a_tie(tmp_path):
    for name, action in (("a", 0), ("b", 1)):
        with parity.record(tmp_path / name) as rec:
            rec.stage("act", action=np.array([action]))
            rec.decided("act", np.zeros((1, 2), np.float32))
    parity.compare(tmp_path / "a", tmp_path / "b").assert_ok()
