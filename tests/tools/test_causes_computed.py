"""No trap is named for numbers that came of a computation and chance to fit."""

import numpy as np
import pytest

from parity.locate.causes import likely_causes
from parity.locate.evidence import Evidence, Seen
from parity.locate.signatures.discounts import is_discount

SHARES = 1 - np.arange(3) / 64
"""How a number that is given moves from one input set to the next."""


def scaled(by_torch, by_jax) -> Evidence:
    """x times one number in PyTorch, and times another in JAX, at each input set."""
    xs = [np.random.default_rng(seed).normal(size=6) for seed in range(3)]
    sides = []
    for op, numbers in (("aten.mul.Tensor", by_torch), ("mul", by_jax)):
        factors = tuple(np.array(float(n)) for n in numbers)
        made = tuple(x * n for x, n in zip(xs, factors, strict=True))
        sides.append(Seen(op, made, (tuple(xs), factors), "y = x * scale"))
    return Evidence("forward", *sides)


@pytest.mark.parametrize(
    ("by_torch", "is_named"),
    [
        ([0.25, 0.25, 0.25], True),
        (0.25 * SHARES, True),
        ([0.999997999, 1.0, 1.0], False),
        ([0.4127, 0.4133, 0.4101], False),
    ],
    ids=["written", "given", "clipped", "computed"],
)
def test_another_number_is_one_that_was_written_or_given(by_torch, is_named):
    found = likely_causes(scaled(by_torch, [0.5, 0.5, 0.5]))
    assert ("R42" in [cause.trap for cause in found]) is is_named, found


def test_a_discount_is_not_what_rounding_left():
    assert is_discount((0.99, 0.99, 0.99))
    assert is_discount((0.0, 1 / 64, 2 / 64))
    assert not is_discount((9.98e-21, 1.03e-20, 9.97e-21))
    assert not is_discount((0.1, 0.1, 0.1))
    assert not is_discount((1.0, 1.0, 1.0))


def divided(inside: float, outside: float, scale: float = 1e-2) -> Evidence:
    """m/(√v + e) in PyTorch, m/√(v + e) in JAX, with v at hand."""
    sides: list[list[np.ndarray]] = [[], [], []]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        m, v = rng.normal(size=8), scale * rng.uniform(0.01, 1.0, size=8)
        for side, each in zip(
            sides, (m / (np.sqrt(v) + outside), m / np.sqrt(v + inside), v), strict=True
        ):
            side.append(each)
    right, wrong, at_hand = map(tuple, sides)
    matched = [Seen("add", at_hand)]
    return Evidence("forward", Seen("aten.div", right), Seen("div", wrong), matched=matched)


def test_an_epsilon_moved_into_the_root_is_the_same_or_its_square():
    for inside, outside in ((1e-8, 1e-8), (1e-6, 1e-3)):
        assert likely_causes(divided(inside, outside))[0].trap == "A02"
    assert "A02" not in [cause.trap for cause in likely_causes(divided(1e-12, 1e-3))]


def test_of_a_moment_of_zeros_any_power_of_ten_is_left_and_none_is_named():
    found = likely_causes(divided(1e-6, 1e-6, scale=0.0))
    assert "A02" not in [cause.trap for cause in found], found
