"""`parity.first_divergence`: the line at which a port parts, and nothing for one that is right."""

import inspect
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from parity.cli import main
from pgcore.errors import UsageError

RNG = np.random.default_rng(5)
ROWS = {"rewards": RNG.normal(size=(6, 3)), "discount": 0.9}
OBS = {"obs": RNG.normal(size=(7, 4)), "weight": RNG.normal(size=(4, 4))}


def line(function, mark="# here"):
    """The line in a function that a comment marks."""
    lines, first = inspect.getsourcelines(function)
    (place,) = [number for number, text in enumerate(lines) if mark in text]
    return first + place


def returns_in_torch(rewards, discount):
    following, found = torch.zeros_like(rewards[0]), []
    for reward in rewards.flip(0):
        following = reward + discount * following
        found.insert(0, following)
    return torch.stack(found)


def returns_by_scan(rewards, discount):
    def step(following, reward):
        following = reward + discount * following
        return following, following

    return jax.lax.scan(step, jnp.zeros_like(rewards[0]), rewards, reverse=True)[1]


def returns_by_matrix(rewards, discount):
    lag = jnp.arange(6)[None, :] - jnp.arange(6)[:, None]
    return jnp.where(lag >= 0, discount ** jnp.maximum(lag, 0), 0.0) @ rewards


def returns_by_while(rewards, discount):
    def step(carry):
        t, following, found = carry
        following = rewards[t] + discount * following
        return t - 1, following, found.at[t].set(following)

    start = (jnp.array(5), jnp.zeros_like(rewards[0]), jnp.zeros_like(rewards))
    return jax.lax.while_loop(lambda carry: carry[0] >= 0, step, start)[2]


def returns_each_by_itself(rewards, discount):
    return jax.vmap(partial(returns_by_scan, discount=discount), in_axes=1, out_axes=1)(rewards)


@pytest.mark.parametrize(
    "port", [returns_by_scan, returns_by_matrix, returns_by_while, returns_each_by_itself]
)
def test_returns_in_another_but_equivalent_way_are_not_blamed(port):
    assert parity.first_divergence(returns_in_torch, port, ROWS) is None


def log_probs_in_torch(obs, weight):
    return torch.log_softmax(obs @ weight.T, dim=-1)


def log_probs_by_hand(obs, weight):
    logits = jnp.einsum("bi,oi->bo", obs, weight)
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    return logits - largest - jnp.log(jnp.sum(jnp.exp(logits - largest), axis=-1, keepdims=True))


def test_log_sum_exp_by_hand_and_einsum_for_matmul_are_not_blamed():
    assert parity.first_divergence(log_probs_in_torch, log_probs_by_hand, OBS) is None


def test_a_wrong_constant_in_the_body_of_a_scan_is_found_with_both_lines():
    def in_jax(rewards, discount):
        def step(following, reward):
            following = reward + 0.5 * discount * following  # here
            return following, following

        return jax.lax.scan(step, jnp.zeros_like(rewards[0]), rewards, reverse=True)[1]

    found = parity.first_divergence(returns_in_torch, in_jax, ROWS)
    assert found.phase == "forward"
    assert (found.candidate.file, found.candidate.line) == (__file__, line(in_jax))
    assert found.reference.line == line(returns_in_torch, "reward + discount * following")
    assert found.candidate.iteration == 1  # the first had nothing to discount


def test_a_scan_that_runs_forward_is_blamed_at_its_call():
    def in_jax(rewards, discount):
        def step(following, reward):
            following = reward + discount * following
            return following, following

        return jax.lax.scan(step, jnp.zeros_like(rewards[0]), rewards)[1]  # here

    found = parity.first_divergence(returns_in_torch, in_jax, ROWS)
    assert found.candidate.line == line(in_jax)


def normalised_in_torch(obs, weight):
    centred = obs - obs.mean()
    return (centred / obs.std()) @ weight


def test_a_known_trap_is_named_with_both_expressions_and_a_caret():
    def in_jax(obs, weight):
        centred = obs - obs.mean()
        return (centred / obs.std()) @ weight  # here

    found = parity.first_divergence(normalised_in_torch, in_jax, OBS)
    assert found.candidate.line == line(in_jax)
    assert found.reference.line == line(normalised_in_torch, "obs.std()")
    assert found.causes[0].trap == "B01"
    assert "ddof=1" in found.causes[0].remedy
    assert found.last_agreement[1].line == line(in_jax, "# here") - 1 or (
        found.last_agreement[1].line == line(in_jax)
    )
    shown = found.candidate.code[found.candidate.column : found.candidate.end_column]
    assert shown == "obs.std()"
    text = str(found)
    assert f"{Path(__file__).name}:{found.candidate.line}" in text
    assert "^" * len("obs.std()") in text
    assert "likely cause: B01" in text


def test_numbers_that_no_trap_explains_have_no_cause():
    def in_jax(obs, weight):
        return (obs - obs.mean() + jnp.sin(obs) ** 3) @ weight

    def in_torch(obs, weight):
        return (obs - obs.mean()) @ weight

    found = parity.first_divergence(in_torch, in_jax, OBS)
    assert [cause.trap for cause in found.causes if cause.trap[0] != "R"] == []


def layer_in_jax(obs, weight, activation=jnp.tanh):
    return activation(obs @ weight)


def two_layers_in_torch(obs, weight):
    first = torch.tanh(obs @ weight)
    second = torch.tanh(first @ weight.T)
    return first + second


def test_a_helper_that_is_right_elsewhere_is_blamed_where_it_is_called_wrongly():
    def in_jax(obs, weight):
        first = layer_in_jax(obs, weight)
        second = layer_in_jax(first, weight)  # here
        return first + second

    found = parity.first_divergence(two_layers_in_torch, in_jax, OBS)
    assert found.candidate.line == line(in_jax)


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda f: f], ids=["jit", "remat", "no"])
def test_an_activation_left_out_is_found_through_every_kind_of_call(wrap):
    def in_jax(obs, weight):
        first = obs @ weight  # here
        return first + jnp.tanh(first @ weight.T)

    found = parity.first_divergence(two_layers_in_torch, wrap(in_jax), OBS)
    assert abs(found.candidate.line - line(in_jax)) <= 1
    assert found.causes[0].trap == "R11"


def test_the_branch_that_was_taken_is_searched():
    def in_jax(obs, weight):
        def above(x):
            return jnp.tanh(x + 0.25)  # here

        first = jax.lax.cond(obs.shape[0] > 3, above, jnp.tanh, obs @ weight)
        return first + jnp.tanh(first @ weight.T)

    found = parity.first_divergence(two_layers_in_torch, in_jax, OBS)
    assert found.candidate.line == line(in_jax)


def test_a_number_handed_to_a_right_helper_is_blamed_where_it_is_written():
    def scaled(x, factor):
        return jnp.tanh(x * factor)

    def in_torch(obs, weight):
        return torch.tanh((obs @ weight) * 0.5)

    def in_jax(obs, weight):
        return scaled(obs @ weight, 0.25)  # here

    found = parity.first_divergence(in_torch, in_jax, OBS)
    assert found.candidate.line == line(in_jax)


# --- slopes


def surrogate_in_torch(obs, weight):
    mean = obs @ weight
    sample = (mean + 0.3).detach()
    return (-0.5 * (sample - mean) ** 2 * obs).sum()


def test_a_sample_that_is_not_held_fast_is_blamed_though_every_value_is_right():
    def in_jax(obs, weight):
        mean = obs @ weight
        sample = mean + 0.3  # here
        return jnp.sum(-0.5 * (sample - mean) ** 2 * obs)

    found = parity.first_divergence(surrogate_in_torch, in_jax, OBS)
    assert found.phase == "backward"
    assert found.candidate.line == line(in_jax)
    assert found.reference.line == line(surrogate_in_torch, ".detach()")
    assert found.causes[0].trap == "C04"


def test_a_stop_too_many_is_blamed():
    def in_torch(obs, weight):
        mean = torch.tanh(obs @ weight)
        return (mean * obs).sum()

    def in_jax(obs, weight):
        mean = jnp.tanh(obs @ weight)
        return jnp.sum(jax.lax.stop_gradient(mean) * obs)  # here

    found = parity.first_divergence(in_torch, in_jax, OBS)
    assert (found.phase, found.candidate.line) == ("backward", line(in_jax))


@jax.custom_vjp
def cubed(x):
    return x**3


def cubed_backward(x, slope):
    doubled = 2 * x
    return (doubled * x * slope,)  # here


cubed.defvjp(lambda x: (cubed(x), x), cubed_backward)


def test_a_wrong_rule_of_a_custom_derivative_is_blamed_in_the_rule():
    def in_torch(obs, weight):
        return ((obs @ weight) ** 3).sum(0)

    def in_jax(obs, weight):
        return cubed(obs @ weight).sum(0)

    found = parity.first_divergence(in_torch, in_jax, OBS)
    assert found.phase == "backward"
    assert abs(found.candidate.line - line(cubed_backward)) <= 1


def test_slopes_of_what_has_none_in_torch_are_not_compared():
    def in_torch(obs, weight):
        return (obs @ weight).detach()

    assert parity.first_divergence(in_torch, lambda obs, weight: obs @ weight, OBS) is None


# --- modules


class InTorch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8))

    def forward(self, obs):
        return torch.tanh(self.body(obs))


class InFlax(nn.Module):
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, obs):
        hidden = nn.Dense(8)(obs)
        return jnp.tanh(nn.LayerNorm(epsilon=self.epsilon)(hidden))  # here


NAMES = {"body.0": "Dense_0", "body.1": "LayerNorm_0"}


def test_modules_are_blamed_with_their_path():
    inputs = {"obs": OBS["obs"]}
    assert parity.first_divergence(InTorch(), InFlax(), inputs, rename=NAMES) is None
    found = parity.first_divergence(InTorch(), InFlax(1e-3), inputs, rename=NAMES)
    assert found.candidate.line == line(InFlax)
    assert "LayerNorm_0" in found.candidate.module
    assert found.reference.module == "body.1"


# --- how it is shown


@pytest.mark.searches_lines
def test_a_failing_check_says_on_which_lines_the_two_part():
    def in_jax(obs, weight):
        return (obs / obs.std()) @ weight

    def in_torch(obs, weight):
        return (obs / obs.std()) @ weight

    report = parity.check(in_torch, in_jax, OBS)
    assert "likely cause: B01" in str(report)
    assert "likely cause" not in report.summary()
    with pytest.raises(AssertionError, match="likely cause: B01"):
        report.assert_ok()


CASE = """
import numpy as np, torch, jax.numpy as jnp

def in_torch(x):
    return x / x.std()

def in_jax(x):
    return x / x.std()

def right(x):
    return x / x.std(ddof=1)

INPUTS = {"x": np.random.default_rng(0).normal(size=9)}
CASE = (in_torch, in_jax, INPUTS)
SAME = {"reference": in_torch, "candidate": right, "inputs": INPUTS}

def test_port(parity):
    parity.check(in_torch, in_jax, INPUTS).assert_ok()
"""


@pytest.fixture
def where(tmp_path, monkeypatch, capsys):
    """Runs the command on a file of cases; what it returns, and what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "port.py").write_text(CASE)

    def run(*arguments):
        code = main(["where", *arguments])
        return code, *capsys.readouterr()

    return run


def test_the_command_names_the_lines_of_a_case(where):
    code, printed, _ = where("port.py::CASE")
    assert (code, "candidate port.py:8" in printed) == (1, True), printed
    code, printed, _ = where("port.py::CASE", "--json")
    assert (code, json.loads(printed)["candidate"]["line"]) == (1, 8)
    assert where("port.py::SAME")[:2] == (0, "nothing parts, in float64\n")


@pytest.mark.takes_long
def test_the_command_names_the_lines_of_a_test(tmp_path):
    (tmp_path / "test_port.py").write_text(CASE)
    found = subprocess.run(
        [sys.executable, "-m", "parity", "where", "test_port.py::test_port"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, "candidate test_port.py:8" in found.stdout) == (1, True), found


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("port.py", "accepted is FILE::CASE"),
        ("none.py::CASE", "there is no file 'none.py'"),
        ("port.py::CASES", "CASE"),
        ("port.py::INPUTS", "accepted is a test that uses the fixture"),
    ],
)
def test_a_case_that_is_none_is_refused_by_name(where, case, said):
    code, _, complaint = where(case)
    assert (code, said in complaint) == (2, True), complaint


def test_inputs_that_do_not_fit_are_refused_as_by_check():
    with pytest.raises(UsageError, match="inputs is of type list"):
        parity.first_divergence(returns_in_torch, returns_by_scan, [1.0])
