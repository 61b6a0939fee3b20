"""What a newcomer gets wrong in the first hour of Python, and what each mistake is answered with.

The mistakes are made in a process of their own, one for each framework: here every call's types
are checked before it is made, and nobody's own script does that.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOTH = """
import numpy as np
from pgcore import TrainConfig, evaluate
config = TrainConfig(hidden_sizes=(5,), episodes_per_update=2, total_timesteps=1)
rng = np.random.default_rng(0)
path = "policy.safetensors"
"""
SETUP = {
    "pgjax": """
import jax, jax.numpy as jnp, pgjax as pg
key, array = jax.random.key(0), jnp.asarray
def apply(fn, distribution, num_actions=2):
    policy = pg.from_callable({}, lambda params, obs: fn(obs), num_actions, distribution)
    return jax.jit(policy.apply)({}, jnp.ones((3, 7, 4)))
zeros, ones, own = jnp.zeros, jnp.ones, {"weight": jnp.zeros((4, 2))}
""",
    "pgtorch": """
import torch, pgtorch as pg
key, array = torch.Generator(), torch.tensor
def apply(fn, distribution, num_actions=2):
    policy = pg.from_callable(own, lambda module, obs: fn(obs), num_actions, distribution)
    return policy.apply(own, torch.ones(3, 7, 4))
zeros, ones, own = torch.zeros, torch.ones, torch.nn.Linear(4, 2)
""",
}
POLICY = """
policy, env = pg.make_policy("reinforce", 4, 2, (5,)), pg.CartPole(max_steps=3)
params = policy.init(key)
noise = pg.draw_noise(policy, env, key, 2)
act = pg.make_act(policy, params)
obs, gumbel = np.ones((3, 4), np.float32), np.zeros((3, 2))
"""
CHECK = """
import json
answers = {}
for name, code in json.loads(CASES):
    try:
        exec(code, dict(globals()))
        answers[name] = "nothing"
    except Exception as error:
        answers[name] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""

CASES = {
    # A policy of one's own
    "logits of a wrong num_actions": (
        "apply(lambda obs: zeros((3, 7, 1)), 'categorical')",
        r"the logits is an? \w+ of shape \[3, 7, 1\], accepted is an? \w+ of shape \[3, 7, 2\]",
    ),
    "logits without the batch": (
        "apply(lambda obs: zeros(2), 'categorical')",
        r"the logits is an? \w+ of shape \[2\]",
    ),
    "a pair for a categorical policy": (
        "apply(lambda obs: (obs[..., :2], obs[..., :2]), 'categorical')",
        "the logits is a tuple of 2, accepted",
    ),
    "no array": ("apply(lambda obs: None, 'categorical')", "the logits is a NoneType"),
    "mu and std stacked in front": (
        "apply(lambda obs: ones((2, 3, 7, 2)), 'normal')",
        r"fn returns an? \w+ of shape \[2, 3, 7, 2\], accepted.* is a pair \(mu, std\)",
    ),
    "mu, std and a third": (
        "apply(lambda obs: [obs[..., :2]] * 3, 'normal')",
        "fn returns a list of 3, accepted",
    ),
    "mu of a wrong num_actions": (
        "apply(lambda obs: (ones((3, 7, 1)), ones((3, 7, 2))), 'normal')",
        r"mu is an? \w+ of shape \[3, 7, 1\]",
    ),
    "std that would broadcast": (
        "apply(lambda obs: (ones((3, 7, 2)), ones((7, 2))), 'normal')",
        r"std is an? \w+ of shape \[7, 2\], accepted is an? \w+ of shape \[3, 7, 2\]",
    ),
    "std of a wrong length": (
        "apply(lambda obs: (ones((3, 7, 2)), ones(1)), 'normal')",
        r"std is an? \w+ of shape \[1\], accepted is an? \w+ of shape \[2\]",
    ),
    "an unknown distribution": (
        "apply(None, 'gaussian')",
        "distribution is 'gaussian', accepted are categorical, normal",
    ),
    "no actions": ("apply(None, 'normal', 0)", "num_actions is 0, accepted is an integer of"),
    # The article's
    "an unknown agent": ("pg.make_policy('reparm', 4, 2)", "did you mean 'reparam'"),
    "no observation": ("pg.make_policy('reinforce', 0, 2)", "obs_dim is 0"),
    "half an action": ("pg.make_policy('reinforce', 4, 2.0)", "num_actions is 2.0"),
    "a number of hidden layers": ("pg.make_policy('reinforce', 4, 2, 24)", "hidden_sizes is 24"),
    "no hidden layer": ("pg.make_policy('reinforce', 4, 2, ())", r"hidden_sizes is \(\)"),
    "observations of another width": (
        "policy.apply(params, ones((3, 6)))",
        r"shape of obs is \(3, 6\), accepted is \[..., 4\]",
    ),
    # Rollouts
    "no episodes": ("pg.draw_noise(policy, env, key, 0)", "num_episodes is 0"),
    "no steps": ("pg.CartPole(max_steps=0)", "max_steps is 0"),
    "noise of more actions": (
        "pg.rollout(policy, params, env, noise._replace(policy=ones((3, 2, 3))))",
        r"shape of noise.policy is \(3, 2, 3\), accepted is \[T, B, A\]: B = 2.* A = 2",
    ),
    "noise that would broadcast": (
        "pg.rollout(policy, params, env, noise._replace(policy=ones((3, 1, 2))))",
        r"shape of noise.policy is \(3, 1, 2\)",
    ),
    "noise without episodes": (
        "pg.rollout(policy, params, env, noise._replace(policy=ones((3, 2))))",
        r"shape of noise.policy is \(3, 2\)",
    ),
    # Evaluation
    "noise for acting that would broadcast": (
        "act(obs, gumbel[:1])",
        r"noise is an? \w+ of shape \[1, 2\], accepted is an? \w+ of shape \[3, 2\]",
    ),
    "evaluation of no episode": ("evaluate(act, 'reinforce', episodes=0)", "episodes is 0"),
    "evaluation of half a one": ("evaluate(act, 'reinforce', episodes=1.5)", "episodes is 1.5"),
    "a negative seed": ("evaluate(act, 'reinforce', seed=-1)", "seed is -1, accepted is"),
    "a huge seed": ("evaluate(act, 'reinforce', seed=2**32)", "seed is 4294967296"),
    "another agent": ("evaluate(act, 'gaussian')", "agent is 'gaussian', accepted are"),
    "another agent, greedy": ("evaluate(act, 'x', greedy=True)", "agent is 'x'"),
    "a policy for act": ("evaluate(policy, 'reinforce')", r"act is Policy\(.*make_act"),
    "probabilities for actions": (
        "evaluate(lambda obs, noise: noise, 'reinforce', episodes=2)",
        "what act returns is .* 2 integers, one an episode, from 0 to 1",
    ),
    "an action too high": (
        "evaluate(lambda obs, noise: np.full(2, 2), 'reinforce', episodes=2)",
        r"what act returns is array\(\[2, 2\]",
    ),
    # Optimizers
    "a negative learning rate": ("pg.adam(-1.0)", "learning_rate is -1.0, accepted is a finite"),
    "no learning rate": ("pg.adam(0)", "learning_rate is 0,"),
    "an infinite learning rate": ("pg.adam(float('inf'))", "learning_rate is inf"),
    "a word for a learning rate": ("pg.adam('fast')", "learning_rate is 'fast'"),
    "b1 of 1": ("pg.adam(1e-2, b1=1.0)", "b1 is 1.0, accepted is a Python number from 0 to 1"),
    "b2 below 0": ("pg.adam(1e-2, b2=-0.1)", "b2 is -0.1"),
    "both betas at once": ("pg.adam(1e-2, (0.9, 0.999))", r"b1 is \(0.9, 0.999\)"),
    "no norm": ("pg.clip_by_global_norm(0.0)", "max_norm is 0.0, accepted is a number above 0"),
    # Files and starting points
    "a policy of one's own in a file": (
        "pg.save_policy(path, config, own)",
        "params (are|has) .*(accepted are those of make_policy|which is no reinforce policy)",
    ),
    "another agent's policy": (
        "pg.save_policy(path, TrainConfig(agent='reparam', hidden_sizes=(5,)), params)",
        "params has .*which is no reparam policy",
    ),
    "a policy of other sizes": (
        "pg.save_policy(path, TrainConfig(), params)",
        r"hidden_sizes of params is \(5,\), accepted is \(24, 12\)",
    ),
    "a start of other sizes": (
        "pg.train(TrainConfig(run_dir='run'), params=params)",
        r"linear1.weight in params is \[5, 4\], accepted is the shape \[24, 4\]",
    ),
    "starts of other sizes": (
        "pg.train_seeds(TrainConfig(run_dir='run'), [1], params=[params])",
        "linear1.weight in params is",
    ),
    "seeds of no environment": (
        "pg.train_seeds(TrainConfig(run_dir='run', env_id='Acrobt-v1'), [1])",
        "did you mean 'Acrobot-v1'",
    ),
}
OF_ONE = {
    "pgjax": {
        "an activation among the parameters": (
            "pg.init(key, pg.from_callable({'w': zeros(2), 'f': [max]}, None, 2), pg.adam(1))",
            r"params\['f'\]\[0\] is <built-in function max>, accepted are arrays.*eqx.partition",
        ),
        "a count among the parameters": (
            "pg.init(key, pg.from_callable({'n': zeros(2, int)}, None, 2), pg.adam(1e-2))",
            r"params\['n'\] is Array",
        ),
    },
    "pgtorch": {
        "no module for parameters": (
            "pg.init(key, pg.from_callable({'w': zeros(2)}, None, 2), pg.adam(1e-2))",
            "params is {'w'.*accepted is a torch.nn.Module with parameters",
        ),
        "a module without parameters": (
            "pg.init(key, pg.from_callable(torch.nn.ReLU(), None, 2), pg.adam(1e-2))",
            r"params is ReLU\(\), accepted is",
        ),
        "a seed for a generator": (
            "pg.init(0, policy, pg.adam(1e-2))",
            "key is 0, accepted is a torch.Generator",
        ),
    },
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """By framework: what each mistake raised, and what the process left in its empty folder."""
    found = {}
    for framework, own in OF_ONE.items():
        folder = tmp_path_factory.mktemp(framework)
        cases = [(name, code) for name, (code, _) in (CASES | own).items()]
        script = BOTH + SETUP[framework] + POLICY + f"CASES = {json.dumps(cases)!r}\n" + CHECK
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        found[framework] = json.loads(result.stdout), [path.name for path in folder.iterdir()]
    return found


@pytest.mark.parametrize(
    ("framework", "name"), [(f, name) for f, own in OF_ONE.items() for name in CASES | own]
)
def test_a_mistake_is_answered_with_what_was_given_and_what_is_accepted(answers, framework, name):
    answer = answers[framework][0][name]
    assert answer.startswith("UsageError: "), answer
    assert re.search((CASES | OF_ONE[framework])[name][1], answer, re.DOTALL), answer


@pytest.mark.parametrize("framework", OF_ONE)
def test_no_mistake_leaves_a_file(answers, framework):
    assert answers[framework][1] == []
