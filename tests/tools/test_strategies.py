"""The strategies draw what they promise: every named hazard, told from the drawn arrays alone."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from parity import hazards, oracle, strategies
from parity.strategies import HAZARDS, present
from pgcore.errors import UsageError

AGENTS = ("reinforce", "reparam")
LOWER, UPPER = 0.75, 1.25

STRATEGIES = {
    "masks": strategies.masks,
    "episodes": strategies.episodes,
    "batches": strategies.batches,
    "logits": strategies.logits,
    "normals": strategies.normals,
    "noises": strategies.noises,
    "ties": strategies.ties,
    "bounded": lambda **options: strategies.bounded(LOWER, UPPER, **options),
    "network_params": strategies.network_params,
    "gradients": strategies.gradients,
    "clip_cases": strategies.clip_cases,
}
OF_AN_AGENT = ("batches", "noises", "network_params", "gradients", "clip_cases")
CASES = [
    (name, {"agent": agent} if name in OF_AN_AGENT else {})
    for name in STRATEGIES
    for agent in (AGENTS if name in OF_AN_AGENT else AGENTS[:1])
]

NUM_EXAMPLES = 300
ENOUGH = 3
"""Of a hazard: one kind in ten makes it, and one shape in three is too small for some of them."""


def drawn(strategy):
    """Examples of a strategy, the same on every run."""
    examples = []

    @settings(
        max_examples=NUM_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example):
        examples.append(example)

    collect()
    return examples


def times_present(name, examples):
    found = dict.fromkeys(HAZARDS[name], 0)
    for example in examples:
        for hazard in present(name, example):
            found[hazard] += 1
    return found


def test_every_strategy_has_its_hazards_listed():
    assert set(HAZARDS) == set(STRATEGIES)
    assert all(HAZARDS.values())


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_named_hazard_is_drawn(name, options):
    found = times_present(name, drawn(STRATEGIES[name](**options)))
    assert {hazard: n for hazard, n in found.items() if n < ENOUGH} == {}, found


# --- which argument brings which hazard


def all_but(choices, *names):
    return [choice for choice in choices if choice not in names]


EPISODES = {
    **{name: {"masks": all_but(hazards.MASKS, name)} for name in hazards.MASKS[1:]},
    **{name: {"rewards": all_but(hazards.REWARDS, name)} for name in hazards.REWARDS[2:]},
    **{name: {"paddings": all_but(hazards.PADDINGS, name)} for name in hazards.PADDINGS[1:]},
    "no_future": {"discounts": all_but(hazards.DISCOUNTS, 0.0)},
    "undiscounted": {"discounts": all_but(hazards.DISCOUNTS, 1.0)},
    "square": {"shapes": [(1, 1), (24, 2)]},
}
WITHOUT = {
    "masks": {
        **{name: {"kinds": all_but(hazards.MASKS, name)} for name in hazards.MASKS[1:]},
        "square": {"shapes": [(1, 1), (24, 2)]},
    },
    "episodes": EPISODES,
    "batches": {
        **EPISODES,
        "square": {"runs": hazards.RUNS[:2]},
        "no_such_action": {"paddings": ["zeros"]},
    },
    "logits": {
        **{name: {"kinds": all_but(hazards.LOGITS, name)} for name in hazards.LOGITS[1:]},
        "equal": {"kinds": all_but(hazards.LOGITS, "equal", "tied")},  # two tied of two are equal
    },
    "normals": {name: {"kinds": all_but(hazards.NORMALS, name)} for name in hazards.NORMALS[1:]},
    "noises": {name: {"kinds": all_but(hazards.NOISES, name)} for name in hazards.NOISES[1:]},
    "ties": {"tied_later": {"num_values": [1]}},
    "bounded": {
        "at_lower": {"kinds": all_but(hazards.BOUNDED, "at_bounds")},
        "at_upper": {"kinds": all_but(hazards.BOUNDED, "at_bounds")},
        "next_to_bounds": {"kinds": all_but(hazards.BOUNDED, "next_to_bounds")},
        "outside": {"kinds": ["inside", "at_bounds"]},
    },
    "network_params": {
        **{name: {"kinds": all_but(hazards.PARAMS, name)} for name in hazards.PARAMS[1:]},
        "square_layer": {"sizes": hazards.SIZES[:1]},
    },
    "gradients": {
        name: {"kinds": all_but(hazards.GRADIENTS, name)} for name in hazards.GRADIENTS[1:]
    },
    "clip_cases": {
        "at_max_norm": {"norms": all_but(hazards.NORMS, 1.0)},
        "just_below": {"norms": all_but(hazards.NORMS, 1 - 1e-6)},
        "just_above": {"norms": all_but(hazards.NORMS, 1 + 1e-6)},
        "far_above": {"norms": all_but(hazards.NORMS, 2e6)},
        "far_below": {"norms": all_but(hazards.NORMS, 2e-6)},
        "zero_norm": {"kinds": all_but(hazards.GRADIENTS, "zeros")},
    },
}


def test_every_hazard_is_brought_by_an_argument_named_here():
    assert {name: set(found) for name, found in WITHOUT.items()} == {
        name: set(found) for name, found in HAZARDS.items()
    }


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_hazard_is_no_longer_found_once_what_brings_it_is_left_out(name):
    for hazard, options in WITHOUT[name].items():
        examples = drawn(STRATEGIES[name](**options))
        found = sum(HAZARDS[name][hazard].present(example) for example in examples)
        assert found < ENOUGH, (hazard, found)


# --- the predicates, on arrays made by hand


def episodes(reward, mask, discount=1.0):
    return strategies.Episodes(np.array(reward, float), np.array(mask, bool), discount)


def test_hazards_of_episodes_by_hand():
    # Two episodes, of two steps and of one. Returns (4, 2) and 3: nothing special but the shape.
    ragged = [[1, 1], [1, 0]]
    found = present("episodes", episodes([[2, 3], [2, 0]], ragged, 0.5))
    assert found == ["one_short", "square"]
    # G = (0.3, 0.3 − 4e-17): equal up to rounding.
    assert "equal_returns" in present(
        "episodes", episodes([[0.1 + 0.2 - 0.3, 1], [0.3, np.nan]], ragged)
    )
    assert "nan" in present("episodes", episodes([[1, 1], [1, np.inf]], ragged))
    assert "garbage" in present("episodes", episodes([[1, 1], [1, 7]], ragged))
    assert "sparse" in present("episodes", episodes([[0, 1], [5, 0]], ragged, 0.9))
    assert "sparse" not in present("episodes", episodes([[1, 1], [5, 0]], ragged, 0.9))
    assert "zeros" in present("episodes", episodes([[0, 0], [0, 9]], ragged))


@pytest.mark.parametrize(("kind", "is_signal"), [("just_degenerate", 0), ("just_a_signal", 1)])
@pytest.mark.parametrize("mask", hazards.MASKS)
@pytest.mark.parametrize("shape", hazards.EPISODES)
@pytest.mark.parametrize("discount", hazards.DISCOUNTS)
def test_returns_about_the_threshold_are_on_their_side_of_it_in_float32_too(
    kind, is_signal, mask, shape, discount
):
    running = hazards.mask(np.random.default_rng(0), shape, mask)
    rewards = hazards.rewards(np.random.default_rng(1), running, discount, kind)
    returns = oracle.discounted_returns(rewards, running, discount).astype(np.float32)
    for scope in (running, *(running & (np.arange(shape[1]) == b) for b in range(shape[1]))):
        values = returns[scope] / abs(returns[scope]).max()
        # One after another, which rounds most.
        mean = np.cumsum(values)[-1] / np.float32(values.size)
        share = np.sqrt(np.cumsum((values - mean) ** 2)[-1] / np.float32(values.size))
        assert values.dtype == share.dtype == np.float32
        low, high = (1.03e-5, 1.11e-5) if is_signal else (0.84e-5, 0.91e-5)
        assert values.size == 1 or low < share < high


def test_hazards_of_logits_by_hand():
    assert present("logits", np.array([[1.0, 2.0, 3.0]])) == []
    assert present("logits", np.array([[3.0, 2.0, 3.0]])) == ["tied"]
    assert present("logits", np.array([[3.0, 3.0, 3.0]])) == ["equal"]
    assert present("logits", np.array([[0.0, -90.0]])) == ["vanishing"]
    assert present("logits", np.array([[0.0, -20.0]])) == ["absorbed"]
    assert present("logits", np.array([[0.0, -600.0]])) == ["saturated"]
    assert present("logits", np.array([[1000.0, 1001.0]])) == ["shifted"]


def test_hazards_of_bounds_by_hand():
    after = float(np.nextafter(np.float32(1.25), np.float32(2)))
    for value, expected in ((1.0, []), (0.75, ["at_lower"]), (1.25, ["at_upper"])):
        assert present("bounded", strategies.Bounded(np.array([value]), LOWER, UPPER)) == expected
    case = strategies.Bounded(np.array([after]), LOWER, UPPER)
    assert present("bounded", case) == ["next_to_bounds", "outside"]


def test_hazards_of_gradients_by_hand():
    gradients = {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}  # the norm is 5
    assert present("clip_cases", strategies.ClipCase(gradients, 5.0)) == ["at_max_norm"]
    assert present("clip_cases", strategies.ClipCase(gradients, 5.00001)) == ["just_below"]
    assert present("clip_cases", strategies.ClipCase(gradients, 4.99999)) == ["just_above"]
    assert present("gradients", gradients) == ["sparse"]
    assert present("gradients", {"a": np.zeros(2), "b": np.zeros(1)}) == ["zeros"]


# --- use


@pytest.mark.parametrize(
    "strategy",
    [
        strategies.masks(kinds=["raged"]),
        strategies.episodes(paddings=["ones"]),
        strategies.logits(kinds=[]),
        strategies.bounded(0.8, 1.25),
        strategies.bounded(2.0, 1.0),
        strategies.network_params("reinforced"),
    ],
    ids=["mask", "padding", "empty", "no float32", "order", "agent"],
)
def test_what_is_not_known_is_refused(strategy):
    with pytest.raises(UsageError):
        find(strategy, lambda _: True)


def test_a_misspelt_strategy_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean 'logits'"):
        present("logit", np.zeros((1, 2)))


def test_a_failing_example_says_what_was_drawn():
    @settings(derandomize=True, database=None, max_examples=50)
    @given(strategies.logits(kinds=["saturated"]))
    def fails(logits):
        assert logits.max() < 0

    with pytest.raises(AssertionError) as failure:
        fails()
    assert any("logits saturated [1, 1, 2], seed 0" in line for line in failure.value.__notes__)


def test_the_arrays_are_those_of_the_printed_seed():
    expected = hazards.logits(np.random.default_rng(0), (1, 1, 2), "saturated")
    simplest = find(strategies.logits(kinds=["saturated"]), lambda _: True)
    np.testing.assert_array_equal(simplest, expected)
