"""Initialisation, compared over seeds: laws that differ are found, laws that agree are not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from parity.pipeline import draws
from pgcore.errors import UsageError
from tests.tools import pipelines

SHAPE = (25, 4)


def in_torch(bound=1.0):
    def init(seed):
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: bound * (2 * torch.rand(*shape, generator=generator) - 1)  # noqa: E731
        return {"weight": draw(*SHAPE), "bias": draw(2)}

    return init


def in_jax(weight, bias=None):
    """`weight` and `bias` make an array from a key."""
    bias = bias or uniform(2)

    def init(seed):
        for_weight, for_bias = jax.random.split(jax.random.key(seed))
        return {"bias": bias(for_bias), "weight": weight(for_weight)}

    return init


def uniform(*shape, bound=1.0):
    return lambda key: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def compared(candidate):
    return draws.compare_draws(in_torch(), candidate, "init")


def first(comparison):
    mismatch = comparison.mismatches[0]
    return mismatch.leaf, mismatch.index


def test_the_same_law_is_the_same_and_says_how_near_chance_came():
    found = compared(in_jax(uniform(*SHAPE)))
    found.assert_ok()
    assert {(v.leaf, v.term, v.dtype) for v in found.verdicts} == {
        ("weight", "chance", "512 draws"),
        ("bias", "chance", "512 draws"),
    }
    assert all(0 < v.error < v.bound for v in found.verdicts)


def flax_default(key):
    return jax.random.truncated_normal(key, -2, 2, SHAPE) * math.sqrt(1 / 3)


def one_row_apart(key):
    return uniform(*SHAPE)(key).at[7].multiply(3)


def tied_rows(key):
    drawn = uniform(*SHAPE)(key)
    return drawn.at[3].set(drawn[20])


def flipped_rows(key):
    drawn = uniform(*SHAPE)(key)
    return drawn.at[3].set(-drawn[20])


def not_a_number(key):
    return uniform(*SHAPE)(key).at[0, 0].set(jnp.nan)


WRONG = {
    "a bound off by 10 % in 100 entries": (in_jax(uniform(*SHAPE, bound=1.1)), ("weight", ())),
    "a bound three times as large in 2": (
        in_jax(uniform(*SHAPE), uniform(2, bound=3.0)),
        ("bias", ()),
    ),
    "a normal of the same spread": (in_jax(flax_default), ("weight", ())),
    "biases of zero": (in_jax(uniform(*SHAPE), lambda key: jnp.zeros(2)), ("bias", ())),
    "not finite": (in_jax(not_a_number), ("weight", ())),
    "another dtype": (in_jax(lambda key: uniform(*SHAPE)(key).astype(jnp.float16)), ("weight", ())),
    "another shape": (in_jax(uniform(4, 25)), ("weight", ())),
    "a leaf less": (lambda seed: {"bias": in_jax(uniform(2))(seed)["bias"]}, ("weight", ())),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_law_is_found_in_its_leaf(name):
    candidate, where = WRONG[name]
    assert first(compared(candidate)) == where


@pytest.mark.parametrize("weight", [tied_rows, flipped_rows], ids=["equal", "opposite"])
def test_rows_that_depend_on_each_other_are_found(weight):
    found = compared(in_jax(weight))
    leaf, index = first(found)
    assert (leaf, index[0]) == ("weight", 20)
    assert "with weight[3, " in found.mismatches[0].candidate


def test_an_entry_of_another_law_is_found_though_its_leaf_is_nearly_right():
    leaf, index = first(compared(in_jax(one_row_apart)))
    assert (leaf, index[0]) == ("weight", 7)


def test_one_key_used_twice_is_found():
    def init(seed):
        key = jax.random.key(seed)
        return {"bias": uniform(2)(key), "weight": uniform(*SHAPE)(key)}

    found = compared(init)
    assert [m.leaf for m in found.mismatches] == ["bias"]
    assert "correlation 1.00 with weight" in found.mismatches[0].candidate


def test_a_seed_that_is_not_used_is_found():
    found = compared(lambda seed: in_jax(uniform(*SHAPE))(3))
    assert {m.leaf for m in found.mismatches} == {"weight", "bias"}


def test_a_candidate_that_draws_otherwise_for_the_same_seed_is_found():
    rng = np.random.default_rng(0)

    def init(seed):
        int(seed)  # can't be traced: run seed by seed
        return {
            "weight": rng.uniform(-1, 1, SHAPE).astype(np.float32),
            "bias": rng.uniform(-1, 1, 2).astype(np.float32),
        }

    [mismatch] = compared(init).mismatches
    assert (mismatch.reference, mismatch.candidate) == (
        "repeats for a seed",
        "differs for the same seed",
    )


def test_a_candidate_that_cannot_be_traced_is_drawn_seed_by_seed():
    def init(seed):
        rng = np.random.default_rng(seed)
        return {
            "weight": rng.uniform(-1, 1, SHAPE).astype(np.float32),
            "bias": rng.uniform(-1, 1, 2).astype(np.float32),
        }

    compared(init).assert_ok()


def test_a_reference_that_is_not_decided_by_its_seed_is_refused():
    with pytest.raises(UsageError, match="not decided by its seed, .*seed the generator inside"):
        draws.compare_draws(lambda seed: {"w": torch.rand(3)}, in_jax(uniform(2)), "init")


def test_entries_that_depend_on_each_other_on_both_sides_are_the_same():
    """An orthogonal matrix, and equal rows: fewer independent numbers than entries."""
    shape = (4, 4)

    def reference(seed):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.nn.init.orthogonal_(torch.empty(shape), generator=generator)
        return {"weight": weight, "tied": torch.rand(1, generator=generator).expand(50).clone()}

    def candidate(seed):
        one, two = jax.random.split(jax.random.key(seed))
        return {
            "weight": jax.nn.initializers.orthogonal()(one, shape),
            "tied": jnp.broadcast_to(jax.random.uniform(two, (1,)), (50,)),
        }

    draws.compare_draws(reference, candidate, "init").assert_ok()


def test_constants_that_differ_by_rounding_alone_are_the_same():
    third = {"scale": torch.full((3,), 1 / 3)}
    near = {"scale": jnp.full((3,), 1 / 3) * (1 + 2.0**-22)}
    far = {"scale": jnp.full((3,), 1 / 3) * (1 + 2.0**-18)}
    assert draws.compare_draws(lambda seed: third, lambda seed: near, "init").ok
    assert not draws.compare_draws(lambda seed: third, lambda seed: far, "init").ok


@pytest.mark.parametrize("copies", [1, 20])
def test_chance_goes_beyond_a_bound_less_often_than_it_states(copies):
    """400 comparisons of one law at a probability of 5 %, of 40 seeds and 5 entries, or of these
    20 times over: the number beyond is binomial, and above 40 of 400 with probability 3e-5.
    """
    rng, beyond = np.random.default_rng(0), 0
    for _ in range(400):
        a, b = (np.tile(rng.normal(size=(40, 5)), copies) for _ in range(2))
        num = min(draws._independent(a), draws._independent(b))
        fault = draws._law(a.reshape(-1, 1), b.reshape(-1, 1), 0.05, num, ())
        beyond += fault.error > fault.bound
    assert beyond <= 40


def test_the_distance_of_two_laws_is_that_of_the_definition():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 5, size=(30, 3)).astype(float), rng.normal(size=(30, 3))
    b[:, 1] = a[::-1, 1]
    points = np.concatenate([a, b]).ravel()
    expected = max(
        abs((a[:, j] <= x).mean() - (b[:, j] <= x).mean()) for j in range(3) for x in points
    )
    assert draws._law(a, b, 0.5, 30, (3,)).error == pytest.approx(expected, abs=1e-15)
    same = draws._law(a[:, 1:2], b[:, 1:2], 0.5, 30, (1,))
    assert same.error == pytest.approx(0, abs=1e-15)


def test_the_init_of_the_example_is_the_same():
    found = draws.compare_draws(pipelines.torch_init(["out"]), pipelines.jax_init(["out"]), "init")
    found.assert_ok()
