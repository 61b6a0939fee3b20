"""Equinox modules in `parity.check`, and biases that are merged on the way."""

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import parity
from parity import modules
from pgcore.errors import UsageError

INPUTS = {"x": np.random.default_rng(0).normal(size=(5, 3))}
LINEAR = torch.nn.Linear(3, 3)


class Batched(eqx.Module):
    """A module around one that takes a single example, as the documents say."""

    net: eqx.nn.Linear
    is_transposed: bool = False

    def __call__(self, input):
        weight = self.net.weight.T if self.is_transposed else self.net.weight
        return input @ weight.T + self.net.bias

    @classmethod
    def plain(cls, input, params):
        return input @ params["weight"].T + params["bias"]


def batched(**how):
    return Batched(eqx.nn.Linear(3, 3, key=jax.random.key(0)), **how)


def check(candidate, reference: Any = LINEAR, rename=None):
    return parity.check(reference, candidate, {"input": INPUTS["x"]}, rename=rename or {"": "net"})


def test_an_equinox_module_gets_torch_s_weights_and_gradients_have_their_names():
    report = check(batched())
    report.assert_ok()
    leaves = {v.leaf for c in report.comparisons if "grad" in c.stage for v in c.verdicts}
    assert {"params/weight", "params/bias"} <= leaves


def test_a_transposed_square_weight_is_caught():
    assert {m.leaf for m in check(batched(is_transposed=True)).failures} >= {"value"}


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (lambda: jax.vmap(eqx.nn.Linear(3, 3, key=jax.random.key(0))), "class Batched"),
        (lambda: batched().__call__, "candidate is a function made of a Batched"),
        (lambda: Batched, "candidate is the class Batched"),
        (lambda: eqx.nn.Linear(3, 2, key=jax.random.key(0)), "weight becomes|rename"),
    ],
)
def test_what_has_its_weights_hidden_or_others_is_refused(candidate, said):
    with pytest.raises(UsageError, match=said):
        check(candidate())


def test_a_weight_that_torch_lacks_does_not_stay_as_it_is():
    with pytest.raises(UsageError, match="net/bias left over; say in rename= which Equinox module"):
        check(batched(), torch.nn.Linear(3, 3, bias=False))


def test_an_equinox_module_as_reference_is_refused():
    with pytest.raises(UsageError, match="equinox module, accepted is a torch"):
        check(lambda input: input, reference=batched())


def test_what_equinox_makes_of_a_function_is_a_function():
    function = eqx.filter_jit(lambda input, params: input @ params["weight"].T + params["bias"])
    assert modules.kind(function) == ""
    assert modules.kind(batched()) == "equinox"
    assert not modules.takes_params(torch.relu, batched())


def test_a_class_method_of_an_equinox_module_holds_no_weights_and_is_a_function():
    parity.check(LINEAR, Batched.plain, {"input": INPUTS["x"]}).assert_ok()


# --- merged biases -------------------------------------------------------------------------------


class TorchCell(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.LSTMCell(3, 3)

    def forward(self, x):
        return self.cell(x)[0]


class EquinoxCell(eqx.Module):
    cell: eqx.nn.LSTMCell

    def __call__(self, x):
        start = (jnp.zeros(3, x.dtype),) * 2
        return jax.vmap(lambda row: self.cell(row, start)[0])(x)


def test_merged_biases_are_said_in_the_report():
    cell = EquinoxCell(eqx.nn.LSTMCell(3, 3, key=jax.random.key(0)))
    report = parity.check(TorchCell(), cell, INPUTS)
    report.assert_ok()
    assert "cell.bias_hh: added to the other bias" in str(report)
    assert "added to the other bias" not in str(check(batched()))


@pytest.mark.parametrize(
    "make", [lambda: nn.LSTMCell(3), lambda: nnx.LSTMCell(3, 3, rngs=nnx.Rngs(0))]
)
def test_flax_cells_merge_biases_likewise(make):
    cell = torch.nn.LSTMCell(3, 3)
    params = [name for name, _ in cell.named_parameters()]
    (note,) = modules.merged(cell, make(), params, {}, None)
    assert note.startswith("bias_hh: added")
