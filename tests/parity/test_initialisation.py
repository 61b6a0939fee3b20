"""New networks have the weights that torch's would have: a statistical test.

Two frameworks can't draw the same weights, so the law is tested. Every tensor of every network,
over many keys, is held against the exact uniform law U(−bound, bound) by a two-sided
Kolmogorov–Smirnov test. All of them together reject right code with probability below
`ERROR_RATE` (Bonferroni), and the keys are fixed. The tests of the test show what it catches.
"""

import math
from functools import cache, partial

import flax.linen
import jax
import numpy as np
import pytest
import torch
from scipy import stats

import pgjax.networks
import pgjax.policies
import pgtorch.policies
from parity import hazards
from tests.parity import stages

ERROR_RATE = 1e-6
"""Probability that right code fails anywhere in this module, were the keys drawn anew."""
NUM_KEYS = 4_000
"""The smallest tensor, a bias of 2, then gives 8,000 numbers: a bound off by 5 % is caught."""
HEAD_BOUND = 3e-3
SIZE = hazards.SIZES[0]
SEEDS = [*range(NUM_KEYS), 0]
"""The last is the first again; the statistics leave it out."""
PACKAGES = pytest.mark.parametrize("package", ["pgjax", "pgtorch"])
AGENTS = pytest.mark.parametrize("agent", stages.AGENTS)

NUM_TENSORS = 2 * (6 + 8) + 2  # of either package's two agents, and torch's own layer
LEVEL = ERROR_RATE / NUM_TENSORS


@PACKAGES
@AGENTS
def test_every_tensor_is_uniform_as_torch_has_it(package, agent):
    drawn = draws(package, agent)
    assert set(drawn) == set(bounds(agent))
    for name, bound in bounds(agent).items():
        assert drawn[name].dtype == np.float32, name
        assert p_value(drawn[name], bound) > LEVEL, name
        assert np.abs(drawn[name]).max() <= np.float32(bound), name


@PACKAGES
@AGENTS
def test_no_two_entries_are_drawn_alike(package, agent):
    """One key used for two layers would give them the same numbers, or the same up to scale."""
    entries = [array[:-1].reshape(NUM_KEYS, -1) for array in draws(package, agent).values()]
    correlation = np.corrcoef(np.concatenate(entries, axis=1), rowvar=False)
    pairs = correlation[np.triu_indices(len(correlation), 1)]
    # |r| of n independent pairs is above z / √n with probability below 2 e^(−z²/2).
    z = math.sqrt(2 * math.log(2 * len(pairs) / (ERROR_RATE / 4)))
    assert np.abs(pairs).max() < z / math.sqrt(NUM_KEYS)


@PACKAGES
def test_a_key_decides_the_weights_and_another_key_others(package):
    for array in draws(package, "reparam").values():
        np.testing.assert_array_equal(array[0], array[-1])
        assert (array[0] != array[1]).any()


def test_torchs_own_layer_has_the_law_that_is_tested():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(5, 3) for _ in range(NUM_KEYS)]
    for kind in ("weight", "bias"):
        drawn = np.stack([getattr(layer, kind).detach().numpy() for layer in layers])
        assert p_value(drawn, 1 / math.sqrt(5)) > LEVEL


# --- what the test catches -----------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_bound_off_by_a_tenth_is_caught_in_every_tensor(factor):
    for name, bound in bounds("reparam").items():
        assert p_value(factor * draws("pgjax", "reparam")[name], bound) < LEVEL, name


def test_another_law_is_caught_in_every_tensor():
    rng = np.random.default_rng(0)
    for name, bound in bounds("reparam").items():
        shape = draws("pgjax", "reparam")[name].shape
        wrong = {
            "zeros": np.zeros(shape),
            "a normal of the same spread": rng.normal(size=shape) * bound / math.sqrt(3),
            "positive only": rng.uniform(0, bound, shape),
        }
        for law, drawn in wrong.items():
            assert p_value(drawn, bound) < LEVEL, (name, law)


def test_wrong_layers_are_caught(monkeypatch):
    """The same in the code: each layer of a network of `pgjax` is made wrong in its own way."""
    right = pgjax.networks._linear

    def linear(name, inputs, outputs, bound=None):
        if name == "linear1":
            return right(name, inputs, outputs, 0.9 / math.sqrt(inputs))
        if name == "linear2":
            uniform = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
            return flax.linen.Dense(outputs, kernel_init=uniform, name=name)
        factor = {"mu_linear": 1.1, "logvar_linear": 0.9}[name]
        return right(name, inputs, outputs, factor * bound)

    monkeypatch.setattr(pgjax.networks, "_linear", linear)
    drawn = draws.__wrapped__("pgjax", "reparam")
    caught = {n for n, bound in bounds("reparam").items() if p_value(drawn[n], bound) < LEVEL}
    assert caught == set(drawn) - {"linear2.weight"}


# --- draws ---------------------------------------------------------------------------------------


@cache
def draws(package: str, agent: str) -> dict[str, np.ndarray]:
    """Each tensor by neutral name, one for each of `SEEDS`."""
    if package == "pgjax":
        policy = pgjax.policies.make_policy(agent, *SIZE)

        def init(seed):
            return stages.from_flax(policy.init(jax.random.key(seed)))

        # A map and not vmap, which takes 15 s to compile.
        drawn = jax.jit(partial(jax.lax.map, init))(np.array(SEEDS))
        return {name: np.asarray(array) for name, array in drawn.items()}
    policy = pgtorch.policies.make_policy(agent, *SIZE)
    modules = [policy.init(torch.Generator().manual_seed(seed)).state_dict() for seed in SEEDS]
    return {name: np.stack([module[name] for module in modules]) for name in modules[0]}


def bounds(agent: str) -> dict[str, float]:
    """±1/√(inputs) of a `torch.nn.Linear`, weight and bias; ±3e-3 of the Gaussian heads."""
    widths = (SIZE.obs_dim, *SIZE.hidden_sizes)
    limits = {f"linear{i + 1}": 1 / math.sqrt(width) for i, width in enumerate(widths[:-1])}
    if agent == "reinforce":
        limits[f"linear{len(widths)}"] = 1 / math.sqrt(widths[-1])
    else:
        limits |= dict.fromkeys(("mu_linear", "logvar_linear"), HEAD_BOUND)
    return {f"{layer}.{kind}": limits[layer] for layer in limits for kind in ("weight", "bias")}


def p_value(drawn: np.ndarray, bound: float) -> float:
    """Of the two-sided Kolmogorov–Smirnov test against U(−bound, bound)."""
    law = stats.uniform(-bound, 2 * bound)
    # 50,000 numbers are enough for 2 %, and sorting more takes its time.
    sample = drawn[:-1].astype(float).ravel()[:50_000]
    return float(stats.kstest(sample, law.cdf).pvalue)
