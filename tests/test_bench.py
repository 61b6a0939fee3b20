"""`bench` in both frameworks, and where the command `pgjax` keeps what it compiled."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
import torch

import pgjax
import pgjax.cli
import pgtorch
import pgtorch.cli
from pgcore.commands.benching import Bench, bench, measure
from pgcore.config import TrainConfig
from pgcore.errors import UsageError

DRAWN = {
    "pgjax": lambda: pgjax.make_policy("reinforce", 4, 2).init(jax.random.key(0)),
    "pgtorch": lambda: pgtorch.make_policy("reinforce", 4, 2).init(
        torch.Generator().manual_seed(0)
    ),
}
FRAMEWORKS = pytest.mark.parametrize("name", DRAWN)


def untrained(name):
    """The framework, whose training gives a policy that solves nothing."""
    load = {"pgjax": pgjax.cli._load, "pgtorch": pgtorch.cli._load}[name]
    result = SimpleNamespace(params=DRAWN[name](), solved_at=None)
    return load()._replace(train=lambda config: result)


@FRAMEWORKS
def test_bench_prints_one_object_of_what_it_measured_and_warns_of_a_policy_that_solves_nothing(
    name, capsys
):
    command = Bench(batches=(3,), repeats=2, json=True)
    assert bench(name, lambda: untrained(name), command) == 0
    printed, said = capsys.readouterr()
    assert said == f"{name}: warning: the policy that is measured does not solve it\n"
    figures = json.loads(printed)
    [row] = figures["batches"]
    assert row["episodes"] == 3
    assert 0 < row["slowest"] <= row["steps_per_second"] <= row["fastest"]
    assert row["share_of_peak"] == 2256 * row["steps_per_second"] / figures["peak_flops"]
    assert 8 <= row["mean_length"] <= 100  # of a policy that chance made


def always_right(name):
    """Parameters by which the cart is pushed to the right alone, so that the pole falls at once."""
    params = DRAWN[name]()
    if name == "pgtorch":
        with torch.no_grad():
            params.linear3.bias.copy_(torch.tensor([-100.0, 100.0]))
        return params
    params["params"]["linear3"]["bias"] = jnp.array([-100.0, 100.0])
    return params


@FRAMEWORKS
def test_bench_measures_the_policy_that_it_was_given_and_leaves_it_as_it_is(name):
    framework, params = untrained(name), always_right(name)
    row = measure(framework, TrainConfig(), params, 5, 4, 1e9)
    assert 8 <= row.mean_length <= 10.5  # whatever the seed; untrained policies last twice as long
    assert (row.memory_bytes is None) == (name == "pgtorch")


@pytest.mark.parametrize(
    "given", [{"batches": ()}, {"batches": (0,)}, {"repeats": 0}, {"seed": -1}], ids=str
)
def test_a_bad_setting_is_refused_by_name_before_anything_is_trained(given):
    [field] = given
    with pytest.raises(UsageError, match=field):
        bench("pgjax", lambda: pytest.fail("loaded"), Bench(**given))


@pytest.mark.parametrize("kind", ["default", "named", "off"])
def test_the_command_keeps_what_it_compiled_where_it_says(kind, tmp_path):
    ours = {"JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "home")}
    env |= {"named": {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "named")}}.get(kind, {})
    env |= {"off": {"JAX_ENABLE_COMPILATION_CACHE": "false"}}.get(kind, {})
    command = [sys.executable, "-m", "pgjax", "train", "--total-timesteps", "1"]
    run = [*command, "--run-dir", str(tmp_path / "run")]
    subprocess.run(run, env=env, check=True, capture_output=True)
    kept = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("jit_*")}
    assert kept == {"default": {"home"}, "named": {"named"}, "off": set()}[kind]
