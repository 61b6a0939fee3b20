"""What the suite's statistical stages see: laws, supports, dependence, seeds."""

import math

import numpy as np
import pytest

from parity.suite import randomness
from parity.suite.randomness import (
    GUMBEL,
    LIKELIEST,
    NORMAL,
    dependence,
    distance,
    held,
    repeats,
    uniform,
)

N = randomness.NUM_DRAWS
RNG = np.random.default_rng(0)
LAWS = {"uniform": uniform(0.3), "Gumbel": GUMBEL, "Normal": NORMAL}
DRAWS = {
    "uniform": RNG.uniform(-0.3, 0.3, (N, 2)),
    "Gumbel": RNG.gumbel(size=(N, 2)),
    "Normal": RNG.normal(size=(N, 2)),
}


def again(drawn):
    """With the first draw repeated at the end, as that of the same seed."""
    return np.concatenate([drawn, drawn[:1]])


def failing(drawn, law):
    comparison = held("noise", {"x": again(drawn)}, {"x": law})
    return {mismatch.leaf.partition(": ")[2] for mismatch in comparison.mismatches}


@pytest.mark.parametrize("name", LAWS)
def test_numpys_own_draws_have_their_law(name):
    assert failing(DRAWS[name], LAWS[name]) == set()


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("other", LAWS)
def test_draws_of_another_law_are_caught(name, other):
    if name == other:
        return
    assert "law" in failing(DRAWS[other], LAWS[name])


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_bound_off_by_a_tenth_is_caught(factor):
    wrong = failing(factor * DRAWS["uniform"], LAWS["uniform"])
    assert wrong & {"law", "support", "reach"}


def test_a_bound_off_by_a_hundredth_is_caught():
    assert "reach" in failing(0.99 * DRAWS["uniform"], LAWS["uniform"])
    assert "support" in failing(1.01 * DRAWS["uniform"], LAWS["uniform"])


def test_one_draw_outside_the_support_is_caught():
    drawn = DRAWS["uniform"].copy()
    drawn[17, 1] = 0.31
    assert failing(drawn, LAWS["uniform"]) == {"support"}


def test_numbers_that_depend_on_each_other_are_caught():
    same = np.repeat(DRAWS["Normal"][:, :1], 2, axis=1)
    assert failing(same, NORMAL) == {"dependence"}
    # The same uniform bits behind a uniform and a Gumbel number: a monotone function of each other.
    bits = RNG.uniform(size=(N, 1))
    drawn = {"reset": again(0.6 * bits - 0.3), "policy": again(-np.log(-np.log(bits)))}
    comparison = held("noise", drawn, {"reset": uniform(0.3), "policy": GUMBEL})
    assert [mismatch.leaf for mismatch in comparison.mismatches] == ["all: dependence"]


LONG = RNG.gumbel(size=(2, 1_000, 2, 2)).astype(np.float32)


def test_float32_numbers_of_their_own_are_no_repeats():
    found, allowed = repeats(LONG)
    # Of 8,000 numbers 3.2e7 pairs are equal with 2⁻²³ or so each: 4 are expected.
    assert found <= 20 < allowed


@pytest.mark.parametrize("period", [1, 5, 100, 499, 500])
def test_noise_of_any_period_up_to_half_its_length_repeats(period):
    found, allowed = repeats(np.resize(LONG[:, :period], LONG.shape))
    assert found > allowed


def test_noise_of_one_action_that_repeats_is_caught():
    drawn = LONG.copy()
    drawn[0, 500:, 1, 1] = drawn[0, :500, 1, 1]
    found, allowed = repeats(drawn)
    assert found > allowed


def test_what_chance_allows_is_the_smallest_number_of_repeats_that_is_rarer_than_alpha():
    _, allowed = repeats(LONG)

    def log_bound(d):
        return d * (1 + 2 * math.log(LONG.size) + math.log(LIKELIEST) - math.log(d))

    assert log_bound(allowed) <= math.log(randomness.ERROR_RATE) < log_bound(allowed - 1)


def test_a_constant_depends_on_everything():
    drawn = DRAWS["uniform"].copy()
    drawn[:, 0] = 0.1
    assert "dependence" in failing(drawn, LAWS["uniform"])


def test_another_number_from_the_same_seed_is_caught():
    drawn = {"x": np.concatenate([DRAWS["Normal"], DRAWS["Normal"][1:2]])}
    comparison = held("noise", drawn, {"x": NORMAL})
    assert [mismatch.leaf for mismatch in comparison.mismatches] == ["x: the same seed again"]


def test_a_missing_array_is_caught():
    comparison = held("noise", {"x": again(DRAWS["Normal"])}, {"y": NORMAL})
    assert not comparison.ok


def test_the_distance_is_the_largest_gap_between_the_two_step_functions():
    # Four draws at the quartiles' middles of U(−1, 1): F is ⅛, ⅜, ⅝, ⅞ and Fₙ steps by ¼ there.
    value, bound = distance(np.array([-0.75, -0.25, 0.25, 0.75]), uniform(1.0))
    assert value == pytest.approx(1 / 8)
    assert bound == pytest.approx(math.sqrt(math.log(2 / randomness.ERROR_RATE) / 8))


def test_the_correlation_is_pearsons():
    x = RNG.normal(size=500)
    y = 0.6 * x + 0.8 * RNG.normal(size=500)
    assert dependence(np.stack([x, y], 1))[0] == pytest.approx(abs(np.corrcoef(x, y)[0, 1]))


@pytest.mark.parametrize("package", randomness.PACKAGES)
def test_both_packages_are_held_to_the_laws(package):
    names = {"mu_linear.weight", "mu_linear.bias", "logvar_linear.weight", "logvar_linear.bias"}
    draws = randomness.initialisation(package, "reparam")
    assert {name for name, law in draws.laws.items() if law.high == 3e-3} == names
    assert draws.laws["linear1.weight"].high == draws.laws["linear1.bias"].high == 1 / 2
    assert draws.laws["linear2.weight"].high == 1 / math.sqrt(24)
    noise = randomness.noise(package, "reparam").laws
    assert (noise["reset"].high, noise["policy"]) == (0.05, NORMAL)
    assert randomness.noise(package, "reinforce").laws["policy"] is GUMBEL
