"""Run folders and policy files: whole, checked, and the same for both frameworks."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import pgjax
import pgtorch
from pgcore.agents import AGENTS
from pgcore.config import TrainConfig
from pgcore.envs.gym import GymEpisodes, gym_spec
from pgcore.errors import UsageError
from pgcore.evaluation import Evaluation
from pgcore.evaluation.solving import Kept
from pgcore.files.schema import SCHEMA
from pgcore.runs import RunFolder
from pgcore.runs.metrics import CSV_COLUMNS, Row, SolvedAt

AGENT_NAMES = list(AGENTS)
ROW = Row(1, 20, 2, 0.5, 10.0, 10.0, -1.0, 0.7, 3.0, 11.0)


def save_a_policy(framework, path, agent):
    config = TrainConfig(agent=agent, hidden_sizes=(5, 5))
    if framework is pgjax:
        key = jax.random.key(0)
    else:
        key = torch.Generator().manual_seed(0)
    params = framework.make_policy(agent, 4, 2, (5, 5)).init(key)
    framework.save_policy(path, config, params)
    return params


@pytest.mark.parametrize("agent", AGENT_NAMES)
@pytest.mark.parametrize("writer", [pgjax, pgtorch])
@pytest.mark.parametrize("reader", [pgjax, pgtorch])
def test_a_policy_file_reads_back_bit_for_bit_in_either_framework(tmp_path, agent, writer, reader):
    path = tmp_path / "policy.safetensors"
    written = writer.params_to_tensors(save_a_policy(writer, path, agent))
    read = reader.params_to_tensors(reader.load_policy(path)[1])
    assert written.keys() == read.keys()
    assert all(np.array_equal(written[name], read[name]) for name in written)


@pytest.mark.parametrize("agent", AGENT_NAMES)
def test_a_policy_acts_the_same_in_both_frameworks_over_whole_episodes(tmp_path, agent):
    path = tmp_path / "policy.safetensors"
    save_a_policy(pgtorch, path, agent)
    acts = [framework.make_act(*framework.load_policy(path)) for framework in (pgjax, pgtorch)]
    rng = np.random.default_rng(0)
    episodes = GymEpisodes(gym_spec("CartPole-v1"), 50)
    obs = episodes.reset(rng.uniform(-0.05, 0.05, (50, 4)))
    running = np.ones(50, bool)
    while running.any():
        noise = AGENTS[agent].draw_noise(rng, (50, 2))
        in_jax, in_torch = (act(obs, noise) for act in acts)
        assert np.array_equal(in_jax[running], in_torch[running])
        obs, _, terminated, truncated = episodes.step(in_torch)
        running &= ~(terminated | truncated)
    episodes.close()


def edit(path, change, metadata=None):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata or {"schema": SCHEMA, "agent": "reparam", "env": "E"})


BAD_POLICIES = {
    "a missing tensor": lambda tensors: tensors.pop("mu_linear.bias"),
    "a leftover tensor": lambda tensors: tensors.update(extra=np.zeros(1, np.float32)),
    "a gap between layers": lambda tensors: tensors.update(
        {"linear4.weight": np.zeros((5, 5), np.float32), "linear4.bias": np.zeros(5, np.float32)}
    ),
    "another agent's layer": lambda tensors: tensors.update(
        {"other.weight": np.zeros((5, 5), np.float32)}
    ),
    "a transposed weight": lambda tensors: tensors.update(
        {"linear1.weight": np.ascontiguousarray(tensors["linear1.weight"].T)}
    ),
    "a weight of one axis": lambda tensors: tensors.update(
        {"linear1.weight": np.zeros(5, np.float32)}
    ),
    "a bias of another shape": lambda tensors: tensors.update(
        {"linear2.bias": np.zeros(4, np.float32)}
    ),
    "no first layer": lambda tensors: tensors.pop("linear1.weight"),
    "nothing": lambda tensors: tensors.clear(),
}


@pytest.mark.parametrize("framework", [pgjax, pgtorch])
@pytest.mark.parametrize("fault", BAD_POLICIES)
def test_a_policy_file_with_a_fault_is_refused_by_name(tmp_path, framework, fault):
    path = tmp_path / "policy.safetensors"
    save_a_policy(pgjax, path, "reparam")
    edit(path, BAD_POLICIES[fault])
    with pytest.raises(UsageError, match=r"policy\.safetensors"):
        framework.load_policy(path)


@pytest.mark.parametrize("metadata", [{"agent": "reparam"}, {"schema": SCHEMA, "agent": "dqn"}])
def test_a_policy_file_of_another_schema_or_agent_is_refused(tmp_path, metadata):
    path = tmp_path / "policy.safetensors"
    save_a_policy(pgjax, path, "reparam")
    edit(path, lambda tensors: None, metadata)
    with pytest.raises(UsageError, match=r"(schema|agent) of .*policy\.safetensors' is"):
        pgjax.load_policy(path)


def test_a_truncated_or_absent_policy_file_is_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    with pytest.raises(UsageError, match="cannot be read"):
        pgjax.load_policy(path)
    save_a_policy(pgjax, path, "reinforce")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="cannot be read"):
        pgjax.load_policy(path)


def test_tensors_that_would_fit_if_transposed_are_refused():
    params = pgjax.make_policy("reinforce", 4, 2).init(jax.random.key(0))
    tensors = pgjax.params_to_tensors(params)
    tensors["linear1.weight"] = tensors["linear1.weight"].T
    with pytest.raises(UsageError, match=r"linear1.weight in tensors is \[4, 24\].*\[24, 4\]"):
        pgjax.tensors_to_params(tensors, params)


def test_a_run_folder_holds_config_versions_metrics_and_result(tmp_path):
    config = TrainConfig(seed=7, run_dir=str(tmp_path / "new" / "run"))
    run = RunFolder.create(config, "pgjax")
    assert RunFolder.open(run.path).config == config
    assert json.loads((run.path / "system.json").read_text())["versions"]["numpy"] == np.__version__
    run.append(ROW)
    run.append(ROW)
    lines = (run.path / "metrics.csv").read_text().splitlines()
    assert lines[0] == ",".join(CSV_COLUMNS.values())
    assert lines[1] == lines[2] == "1,20,2,0.5,40.0,10.0,10.0,-1.0,0.7,3.0,11.0"
    kept = Kept(None, Evaluation(np.array([9.0, 11.0])), 1)
    run.finish("solved", SolvedAt(20, 2, 1, 0.5), kept)
    result = json.loads((run.path / "result.json").read_text())
    assert result["ended"] == "solved"
    assert result["solved_at"] == {"env_steps": 20, "episodes": 2, "updates": 1, "seconds": 0.5}
    assert result["evaluation"]["mean_return"] == 10.0
    assert result["evaluation"]["std_return"] == 1.0


def test_a_run_folder_that_exists_is_refused_and_left_alone(tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UsageError, match="run_dir .* exists; give a path that does not"):
        RunFolder.create(TrainConfig(run_dir=str(tmp_path)), "pgjax")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is no run folder"):
        RunFolder.open(tmp_path)
    for damaged in ("{", "[]", "null"):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(UsageError, match="damaged"):
            RunFolder.open(tmp_path)


def test_a_run_folder_that_another_process_makes_meanwhile_is_said_to_exist(tmp_path, monkeypatch):
    config, rename = TrainConfig(run_dir=str(tmp_path / "run")), Path.rename

    def too_late(self, target):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").touch()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", too_late)
    with pytest.raises(UsageError, match="run' exists; give a path that does not"):
        RunFolder.create(config, "pgtorch")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
