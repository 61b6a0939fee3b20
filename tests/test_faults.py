"""A number that is not finite stops a run, which says where; the last good policy is kept."""

import json
import re

import gymnasium
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import pgjax
import pgtorch
from pgcore.cli import run_cli
from pgcore.config import TrainConfig
from pgcore.errors import RunError, UsageError
from pgcore.evaluation import evaluate
from tests.test_cli import load_pgjax, load_pgtorch

LENGTH = 5
"""Steps of an episode of the faulty environment."""


class Faulty(gymnasium.Env):
    """Episodes of five steps. From the first step on that is told here, all copies return NaN."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Discrete(2)
    steps_left = 10**9
    field = "reward"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.ones(3, np.float32), {}

    def step(self, action):
        self.time += 1
        Faulty.steps_left -= 1
        bad = Faulty.steps_left < 0
        obs, reward = np.ones(3, np.float32), 1.0
        if bad and Faulty.field == "reward":
            reward = np.nan
        elif bad:
            obs[1] = np.inf
        return obs, reward, self.time == LENGTH, False, {}


gymnasium.register("Faulty-v0", Faulty, max_episode_steps=LENGTH)
FRAMEWORKS = [pgjax, pgtorch]
SETTINGS = {
    "env_id": "Faulty-v0",
    "episodes_per_update": 2,
    "eval_episodes": 2,
    "hidden_sizes": (4,),
    "solve_threshold": 5.0,
    "total_timesteps": 1000,
}
# An update plays 2·5 steps, and so does its evaluation: each return is 5, the best so far.


@pytest.fixture(autouse=True)
def faulty_in(monkeypatch):
    def set_fault(field, steps_left):
        monkeypatch.setattr(Faulty, "field", field)
        monkeypatch.setattr(Faulty, "steps_left", steps_left)

    return set_fault


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("field", "steps_left", "message"),
    [
        # Two updates and their evaluations are 40 steps. The 5th step after is the third round's
        # of the first copy; episodes 1 to 4 are done, and 20 steps were trained on.
        (
            "reward",
            44,
            "the reward is nan at environment step 25 (step 3 of episode 5) in update 3 of",
        ),
        # What a step observes is the next step's observation.
        (
            "observation",
            45,
            "observation[1] is inf at environment step 28 (step 4 of episode 6) in update 3 of",
        ),
        # Ten steps later it is the evaluation of that update.
        (
            "reward",
            55,
            "the reward is nan at step 3 of episode 2 in the evaluation at update 3 of",
        ),
    ],
)
def test_what_an_environment_returns_stops_the_run_with_its_step_and_the_policy_is_kept(
    tmp_path, faulty_in, framework, field, steps_left, message
):
    faulty_in(field, steps_left)
    rows = []
    with pytest.raises(RunError, match=re.escape(f"{message} Faulty-v0")):
        framework.train(
            TrainConfig(**SETTINGS, run_dir=tmp_path / "run"),
            callback=lambda update: rows.append(update.row),
        )
    assert [row.update for row in rows] == [1, 2]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["ended"], result["updates"], result["kept_update"]) == ("failed", 2, 1)
    assert message in result["error"]
    faulty_in(field, 10**9)
    act = framework.make_act(*framework.load_policy(tmp_path / "run" / "policy.safetensors"))
    assert evaluate(act, "reinforce", "Faulty-v0", episodes=2).mean == LENGTH


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_learning_rate_that_is_far_too_large_stops_the_run_and_no_such_policy_is_kept(
    tmp_path, framework
):
    # Weights of 1e30 make the second update's logits 1e60 and more: infinite in float32.
    config = TrainConfig(
        learning_rate=1e30, eval_episodes=2, episodes_per_update=2, run_dir=tmp_path / "run"
    )
    with pytest.raises(RunError, match=r"(parameter linear|loss is).* in update \d of CartPole-v1"):
        framework.train(config)
    kept = load_file(tmp_path / "run" / "policy.safetensors")
    assert all(np.isfinite(array).all() for array in kept.values())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_parameter_that_no_output_shows_to_be_infinite_stops_the_run_too(framework):
    """A ReLU hides it: observations, rewards, loss and gradient are all finite."""
    policy = framework.make_policy("reinforce", 4, 2, (4,))
    tensors = framework.params_to_tensors(policy.init(make_key(framework)))
    tensors["linear1.bias"][2] = -np.inf
    params = framework.tensors_to_params(tensors, policy.init(make_key(framework)))
    config = TrainConfig(hidden_sizes=(4,), episodes_per_update=2)
    with pytest.raises(RunError, match=r"parameter linear1.bias\[2\] is -inf in update 1"):
        framework.train(config, params=params)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parameters_that_are_nan_from_the_start_are_named(framework):
    policy = framework.make_policy("reinforce", 4, 2, (4,))
    params = policy.init(make_key(framework))
    tensors = framework.params_to_tensors(params)
    tensors["linear2.weight"][1, 3] = np.nan
    params = framework.tensors_to_params(tensors, params)
    config = TrainConfig(hidden_sizes=(4,), episodes_per_update=2)
    message = "parameter linear2.weight[1, 3] is nan in update 1 of CartPole-v1"
    with pytest.raises(RunError, match=re.escape(message)):
        framework.train(config, params=params)


def test_one_lane_that_starts_from_nan_stops_and_the_other_goes_on():
    policy = pgjax.make_policy("reinforce", 4, 2, (4,))
    params = policy.init(make_key(pgjax))
    tensors = pgjax.params_to_tensors(params)
    tensors["linear1.bias"][2] = np.nan
    config = TrainConfig(hidden_sizes=(4,), episodes_per_update=2, total_timesteps=50)
    with pytest.raises(
        RunError, match=r"1 of 2 seeds.*seed 4: parameter linear1.bias\[2\]"
    ) as stop:
        pgjax.train_seeds(config, [4, 5], params=[pgjax.tensors_to_params(tensors, params), params])
    assert list(stop.value.results) == [5]


def make_key(framework):
    if framework is pgjax:
        import jax

        return jax.random.key(0)
    import torch

    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("framework", "load"), [("pgjax", load_pgjax), ("pgtorch", load_pgtorch)])
def test_the_command_exits_with_1_and_says_what_was_kept(
    tmp_path, capfd, faulty_in, framework, load
):
    faulty_in("reward", 44)
    args = ["train", "--env-id", "Faulty-v0", "--episodes-per-update", "2", "--eval-episodes", "2"]
    args += ["--hidden-sizes", "4", "--run-dir", str(tmp_path / "run")]
    assert run_cli(framework, load, args) == 1
    out, err = capfd.readouterr()
    assert f"{framework}: the run stopped: the reward is nan at environment step 25" in err
    assert "Traceback" not in err
    assert "stopped; the best policy so far is kept" in out
    assert "from update 1" in out


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("reward", "the reward after step 3 of episode 1 of Faulty-v0 is nan"),
        (
            "observation",
            "the observation after step 3 of episode 1 of Faulty-v0 is [1.0, inf, 1.0]",
        ),
    ],
)
def test_an_evaluation_stops_at_what_is_not_finite_and_says_where(faulty_in, field, message):
    faulty_in(field, 4)
    with pytest.raises(RunError, match=re.escape(message)):
        evaluate(lambda obs, noise: np.zeros(2, int), "reinforce", "Faulty-v0", episodes=2)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_policy_file_with_nan_is_refused(tmp_path, framework):
    path = tmp_path / "policy.safetensors"
    params = framework.make_policy("reinforce", 4, 2, (4,)).init(make_key(framework))
    framework.save_policy(path, TrainConfig(hidden_sizes=(4,)), params)
    tensors = load_file(path)
    tensors["linear2.bias"][0] = np.nan
    save_file(
        tensors,
        path,
        {"schema": "policy-gradient-parity/1", "agent": "reinforce", "env": "CartPole-v1"},
    )
    with pytest.raises(UsageError, match="linear2.bias in policy file.*finite numbers"):
        framework.load_policy(path)
