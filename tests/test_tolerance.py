"""The rule itself: what it must pass, what it must fail, and the false alarms that shaped it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from parity.tolerance import GATE, Decider, Mismatch, Yardstick, cast, compare, nudge

X = np.array([0.5, -1.25, 3.0])


def doubled(inputs):
    return {"y": 2 * inputs["x"]}


def changed(change):
    """The function `doubled` with its output changed."""
    return lambda inputs: {"y": change(doubled(inputs)["y"])}


def judge(candidate, reference=doubled, x=X, **options):
    options.setdefault("precisions", ("float64",))
    return compare(reference, candidate, {"x": x}, stage="s", **options)


# --- the gate ------------------------------------------------------------------------------------


def test_equal_arrays_agree():
    comparison = judge(doubled, precisions=("float64", "float32"))
    comparison.assert_ok()
    assert [(v.leaf, v.dtype, v.error) for v in comparison.verdicts] == [
        ("y", "float64", 0.0),
        ("y", "float32", 0.0),
    ]


@pytest.mark.parametrize(("share", "ok"), [(0.9e-11, True), (1.1e-11, False)])
def test_the_gate_is_1e_11_of_the_arrays_largest_magnitude(share, ok):
    comparison = judge(changed(lambda y: y + np.array([0, share * 6.0, 0])))
    assert comparison.ok == ok
    assert comparison.verdicts[0].term == ("scale" if ok else comparison.verdicts[0].term)


def test_a_mismatch_names_the_worst_entry_and_all_three_values():
    comparison = judge(changed(lambda y: y + np.array([1e-3, -2e-3, 1e-3])), oracle=doubled)
    assert comparison.mismatches == [
        Mismatch(
            "s", "y", (1,), -2.5, -2.502, -2.5, pytest.approx(2e-3), pytest.approx(6e-11), "float64"
        )
    ]
    with pytest.raises(AssertionError, match=r"s: y\[1\] in float64: reference -2.5.*error 0.002"):
        comparison.assert_ok()


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_on_either_side_and_on_both(spoil):
    spoilt = changed(lambda y: np.where(y == 1.0, spoil, y))
    assert not judge(spoilt).ok
    assert not judge(doubled, reference=spoilt).ok
    assert not judge(spoilt, reference=spoilt).ok


def test_a_difference_that_overflows_fails():
    def of_size(size):
        return lambda inputs: {"y": np.array([np.float64(size)])}

    assert not judge(of_size(-1.5e308), reference=of_size(1.5e308)).ok


def test_expected_infinities_pass_in_the_same_places_only():
    def function(at, value=-math.inf):
        return changed(lambda y: np.where(np.arange(3) == at, value, y))

    options = {"expect_nonfinite": ("y",), "precisions": ("float64", "float32")}
    judge(function(1), reference=function(1), **options).assert_ok()
    assert not judge(function(2), reference=function(1), **options).ok
    assert not judge(function(1, math.inf), reference=function(1), **options).ok
    assert not judge(function(1, math.nan), reference=function(1), **options).ok
    assert not judge(doubled, reference=function(1), **options).ok
    wrong_elsewhere = changed(lambda y: np.array([-math.inf, y[1], y[2] + 1e-3]))
    assert not judge(wrong_elsewhere, reference=function(0), **options).ok


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda y: y[:, None], r"shape \(3,\), candidate shape \(3, 1\)"),
        (lambda y: y[:1], r"shape \(1,\)"),
        (lambda y: y.astype(np.float32), "reference float64, candidate float32"),
        (lambda y: np.round(y).astype(int), "reference float64, candidate int64"),
        (lambda y: y + 0j, "candidate complex128"),
    ],
)
def test_shapes_and_floating_dtypes_must_be_equal(change, says):
    comparison = judge(changed(change))
    with pytest.raises(AssertionError, match=says):
        comparison.assert_ok()


def test_missing_and_left_over_outputs_fail_and_so_does_no_output_at_all():
    assert not judge(lambda inputs: {}).ok
    assert not judge(lambda inputs: {**doubled(inputs), "z": np.zeros(2)}).ok
    assert not judge(lambda inputs: {}, reference=lambda inputs: {}).ok


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[::-1],  # same mean, same norm (H02)
        lambda y: y + np.array([1.0, -1.0, 0.0]),  # signed sum 0 (H03)
        lambda y: y - 300.0,  # one-sided (H03)
        lambda y: -y,
        lambda y: 1e-6 * y,
    ],
)
def test_known_blind_spots_of_comparers_are_none_here(change):
    assert not judge(changed(change)).ok


def test_small_arrays_are_judged_at_their_own_scale():
    """A default tolerance of 1e-5 would pass any gradient of 1e-6 (H06)."""
    assert not judge(changed(lambda y: -y), x=1e-6 * X).ok
    judge(doubled, x=1e-6 * X).assert_ok()
    assert not judge(changed(lambda y: y * (1 + 1e-10)), x=1e-300 * X).ok


def test_empty_arrays_agree():
    judge(doubled, x=np.zeros((0, 3)), precisions=("float64", "float32")).assert_ok()


# --- the terms of the yardstick ------------------------------------------------------------------


def test_a_difference_that_the_inputs_could_have_made_passes():
    """(1 + x) − 1 loses digits that the reference has; x itself, ± u, is not to blame."""
    x = np.array([1e-9])
    one = np.array([1.0])

    def reference(inputs):
        return {"y": (inputs["one"] + inputs["x"]) - inputs["one"]}

    def candidate(inputs):
        return {"y": inputs["x"] + (inputs["one"] - inputs["one"])}

    comparison = compare(reference, candidate, {"x": x, "one": one}, precisions=("float64",))
    comparison.assert_ok()
    assert comparison.verdicts[0].term == "inputs"
    assert comparison.verdicts[0].error > 1e-11 * 1e-9

    def wrong(inputs):
        return {"y": inputs["x"] * (1 + 1e-5)}

    assert not compare(reference, wrong, {"x": x, "one": one}, precisions=("float64",)).ok


def test_a_scalar_sum_is_judged_by_the_size_of_its_terms():
    rng = np.random.default_rng(0)
    x = rng.normal(size=1000)
    x = np.concatenate([x, -x[::-1] * (1 + 1e-9)])

    def total(inputs):
        return {"sum": np.asarray(np.cumsum(inputs["x"])[-1])}

    def sorted_total(inputs):
        return {"sum": np.asarray(np.cumsum(np.sort(inputs["x"]))[-1])}

    yardstick = Yardstick(total, {"x": x}, {}, lambda inputs: {"sum": {"x": np.ones(2000)}})
    assert yardstick.terms("sum", "float64")["terms"] == pytest.approx(2.0**-53 * np.abs(x).sum())
    options = {"sensitivity": lambda inputs: {"sum": {"x": np.ones(2000)}}}
    compare(total, sorted_total, {"x": x}, precisions=("float64",), **options).assert_ok()


def test_padding_takes_no_part_in_the_sum_of_terms():
    x = np.array([1.0, np.nan, np.inf])

    def total(inputs):
        return {"sum": np.asarray(inputs["x"][0])}

    slopes = {"sum": {"x": np.array([1.0, 0.0, 0.0])}}
    yardstick = Yardstick(total, {"x": x}, {"x": ~np.isfinite(x)}, lambda inputs: slopes)
    assert yardstick.terms("sum", "float64")["terms"] == 2.0**-53


def test_float32_allows_what_the_references_own_float32_run_shows():
    """E[x²] − E[x]² is a bad variance; a candidate may be as bad, not worse."""
    x = 1e3 + np.random.default_rng(0).normal(size=64)

    def textbook(inputs):
        x = inputs["x"]
        return {"y": np.asarray((x * x).mean() - x.mean() ** 2)}

    comparison = judge(textbook, reference=textbook, x=x, precisions=("float32",))
    comparison.assert_ok()
    assert comparison.verdicts[0].term in ("float32", "inputs")
    assert comparison.verdicts[0].reference_error > 1e-3
    assert not judge(
        lambda i: {"y": 50 * textbook(i)["y"]}, textbook, x, precisions=("float32",)
    ).ok


@pytest.mark.parametrize(("ulp", "ok"), [(8, True), (40, False)])
def test_float32_allows_16_ulp_of_the_largest_magnitude(ulp, ok):
    def candidate(inputs):
        y = doubled(inputs)["y"]
        return {"y": y if y.dtype == np.float64 else y + np.float32(ulp * 2.0**-23 * 6)}

    assert judge(candidate, precisions=("float64", "float32")).ok == ok


def test_float32_inputs_are_rounded_first_for_every_side_and_precision():
    seen = []

    def watching(inputs):
        seen.append(inputs["x"])
        return doubled(inputs)

    judge(watching, x=np.array([0.1]), oracle=watching, precisions=("float64", "float32"))
    assert {x.dtype.name for x in seen} == {"float64", "float32"}
    assert {float(x[0]) for x in seen} == {float(np.float32(0.1))}


def test_a_side_that_changes_its_inputs_spoils_no_other():
    def spoiling(inputs):
        y = doubled(inputs)
        inputs["x"][:] = np.nan
        return y

    x = X.copy()
    judge(spoiling, reference=spoiling, x=x, precisions=("float64", "float32")).assert_ok()
    np.testing.assert_array_equal(x, X)


# --- moving inputs -------------------------------------------------------------------------------


@pytest.mark.parametrize("u", [2.0**-53, 2.0**-24])
def test_every_entry_moves_by_u_of_itself_and_zeros_by_u_of_the_largest(u):
    x = np.array([1.0, -2.0, 0.3, 0.0, 5e-310])
    ups = 0
    for draw in range(20):
        moved = nudge({"x": x}, u, np.random.default_rng(draw))["x"]
        assert (moved != x).all()
        size = np.abs(moved - x)
        # A float64 neighbour is up to 2u away, and a subnormal's is its own.
        assert (size[:3] <= 2 * u * np.abs(x[:3])).all()
        assert size[3] == 2 * u
        ups += (moved > x).sum()
    assert 20 < ups < 80


def test_only_floating_arrays_move():
    inputs = {
        "mask": np.array([True, False]),
        "count": np.array([1, 2]),
        "discount": 0.99,
        "zeros": np.zeros(3),
        "nan": np.array([np.nan, np.inf, 1.0, 0.0]),
    }
    moved = nudge(inputs, 2.0**-24, np.random.default_rng(0))
    for name in ("mask", "count"):
        np.testing.assert_array_equal(moved[name], inputs[name])
    assert moved["discount"] == 0.99
    np.testing.assert_array_equal(np.abs(moved["zeros"]), 2.0**-24)
    np.testing.assert_array_equal(moved["nan"][:2], [np.nan, np.inf])
    assert np.abs(moved["nan"][3]) == 2.0**-24


def test_the_largest_float_stays_finite():
    largest = np.finfo(float).max
    for draw in range(8):
        moved = nudge({"x": np.array([largest])}, 2.0**-53, np.random.default_rng(draw))["x"]
        assert np.isfinite(moved).all()


def test_garbage_in_padding_loosens_nothing():
    """A zero moves by u times the largest magnitude: 1e30 outside the mask would excuse all."""
    mask = np.array([True, True, False])
    x = np.array([0.0, 1.0, 1e30])

    def masked(inputs):
        return {"y": np.where(mask, inputs["x"], 0.0)}

    def wrong(inputs):
        return {"y": np.where(mask, inputs["x"] + 1e-3, 0.0)}

    assert judge(wrong, reference=masked, x=x).ok  # the hole
    assert not judge(wrong, reference=masked, x=x, padding={"x": ~mask}).ok


def test_exact_zeros_stay_zeros():
    """Adam's first step from a zero gradient is 0; from ± u it would be ± the learning rate."""
    g = np.array([0.0, 1.0])

    def step(inputs):
        return {"y": inputs["x"] / (np.abs(inputs["x"]) + 1e-8)}

    def wrong(inputs):
        return {"y": step(inputs)["y"] + np.array([1e-9, 0.0])}

    assert judge(wrong, reference=step, x=g).ok
    assert not judge(wrong, reference=step, x=g, exact_zeros=("x",)).ok
    judge(step, reference=step, x=g, exact_zeros=("x",)).assert_ok()


def test_a_cast_leaves_masks_integers_and_numbers_alone():
    inputs = {"x": X, "n": np.arange(3), "mask": X > 0, "discount": 0.9}
    single = cast(inputs, np.float32)
    assert single["x"].dtype == np.float32
    assert single["n"].dtype == np.arange(3).dtype
    assert single["mask"].dtype == bool
    assert single["discount"] == 0.9


# --- discrete outputs ----------------------------------------------------------------------------


def winner(inputs):
    return {"action": np.argmax(inputs["x"], axis=-1)}


def always(action):
    return lambda inputs: {"action": np.full(inputs["x"].shape[:-1], action)}


SCORES = Decider(lambda inputs: {"scores": 1.0 * inputs["x"]})


@pytest.mark.parametrize(
    ("scores", "action", "ok"),
    [
        ([1.0, 1.0 - 1e-13, 0.0], 1, True),  # a tie but for rounding
        ([1.0, 1.0 - 1e-13, 0.0], 2, False),  # another action was one, this one was not
        ([1.0, 0.9, 0.0], 1, False),
        ([1.0, 1.0, 0.0], -1, False),
        ([1.0, 1.0, 0.0], 3, False),
    ],
)
def test_a_decision_may_differ_where_its_margin_is_within_rounding(scores, action, ok):
    x = np.array([scores])
    comparison = judge(always(action), reference=winner, x=x, deciders={"action": SCORES})
    assert comparison.ok == ok
    assert comparison.ties == int(ok)
    assert not judge(always(action), reference=winner, x=x).ok


@pytest.mark.parametrize(("distance", "ok"), [(1e-13, True), (1e-3, False)])
def test_a_flag_may_differ_where_the_threshold_is_within_rounding(distance, ok):
    x = np.array([2.4 + distance, 1.0])

    def ended(inputs):
        return {"terminated": inputs["x"] > 2.4}

    def early(inputs):
        return {"terminated": inputs["x"] > 2.4 + 2e-3}

    decider = Decider(lambda inputs: {"beyond": inputs["x"] - 2.4})
    comparison = judge(early, reference=ended, x=x, deciders={"terminated": decider})
    assert (comparison.ok, comparison.ties) == (ok, int(ok))


def test_integers_compare_by_value_whatever_their_width():
    def counting(dtype, value=3):
        return lambda inputs: {"count": np.asarray(value, dtype)}

    judge(counting(np.int32), reference=counting(np.int64)).assert_ok()
    assert not judge(counting(np.int32, 4), reference=counting(np.int64)).ok
    assert not judge(counting(bool, 1), reference=counting(np.int64, 1)).ok
    assert not judge(counting(np.float64), reference=counting(np.int64)).ok


# --- the oracle ----------------------------------------------------------------------------------


def test_a_bug_that_both_sides_share_is_reported_with_the_oracles_value():
    def tripled(inputs):
        return {"y": 3 * inputs["x"]}

    (mismatch,) = judge(doubled, oracle=tripled).mismatches
    assert (mismatch.reference, mismatch.candidate, mismatch.oracle) == (6.0, 6.0, 9.0)
    verdicts = judge(doubled, oracle=tripled).verdicts
    assert [v.side for v in verdicts] == ["candidate", "reference"]


def test_an_oracle_of_another_shape_is_reported():
    assert not judge(doubled, oracle=changed(lambda y: y[:2])).ok


# --- false alarms that the rule once gave --------------------------------------------------------


def entropies():
    """Entropy of a categorical as PyTorch and JAX have it."""
    import jax
    import torch

    def of_torch(logits):
        return torch.distributions.Categorical(logits=logits, validate_args=False).entropy()

    def of_jax(logits):
        log_p = jax.nn.log_softmax(logits)
        return -(jax.numpy.exp(log_p) * log_p).sum(-1)

    return of_torch, of_jax


@pytest.mark.parametrize("gap", [87.0, 87.3, 87.4, 88.0, 90.0, 95.0, 100.0, 103.0, 104.0, 200.0])
def test_a_probability_that_is_subnormal_in_float32_is_no_mismatch(monkeypatch, gap):
    """XLA flushes e^−90, torch does not (trap G01): E has to see the flush."""
    from parity import sides, torch_side

    of_torch, of_jax = entropies()
    inputs = {"logits": np.array([[0.0, -gap]])}
    reference, candidate = sides.torch_values(of_torch), sides.jax_values(of_jax)
    compare(reference, candidate, inputs).assert_ok()

    keeping = sides.arithmetic
    monkeypatch.setattr(torch_side, "arithmetic", lambda flush: keeping(flush=False))
    # At 103 the only subnormals left are so coarse that E excuses a flush.
    assert compare(reference, candidate, inputs).ok == (gap <= 87.3 or gap >= 103)


def test_a_rounding_inside_the_computation_is_no_mismatch():
    """Entropies of 1e-14: 1 + p rounds one way or the other, and the two sides part by percents."""
    from parity import sides

    of_torch, of_jax = entropies()
    reference, candidate = sides.torch_values(of_torch), sides.jax_values(of_jax)
    roundings = sides.torch_roundings(reference)
    rng = np.random.default_rng(0)
    alarms = 0
    for num_actions in (2, 3, 5):
        for gap in np.linspace(20.0, 45.0, 26):
            logits = rng.normal(size=(1, num_actions)) - gap
            logits[0, rng.integers(num_actions)] += gap
            inputs = {"logits": logits}
            alarms += not compare(reference, candidate, inputs).ok
            compare(reference, candidate, inputs, roundings=roundings).assert_ok()
    assert alarms > 0


def test_what_rounding_can_make_excuses_no_other_error():
    """The same entropies, 1 % off where they are not tiny, or in units of bits."""
    from parity import sides

    of_torch, of_jax = entropies()
    reference = sides.torch_values(of_torch)
    roundings = sides.torch_roundings(reference)
    logits = np.array([[0.0, -37.0], [0.0, -20.0]])
    wrong = sides.jax_values(lambda logits: 1.01 * of_jax(logits))
    for rows in (logits, np.vstack([logits, np.zeros((1, 2))])):
        assert not compare(reference, wrong, {"logits": rows}, roundings=roundings).ok


MOSTLY_ROUNDING = {
    "on the way": (lambda x: (1 + x) - 1, 1e-17),
    "inside an operation": (lambda x: entropies()[0](x), -37.0),
}


@pytest.mark.parametrize("name", MOSTLY_ROUNDING)
def test_what_rounding_makes_most_of_is_no_jump(name):
    """It grows with the rounding, which a jump does not: it counts for the whole array."""
    from parity import sides

    function, number = MOSTLY_ROUNDING[name]
    reference = sides.torch_values(function)
    inputs = {"x": np.array([[0.0, number]])}
    yardstick = Yardstick(reference, inputs, {}, None, sides.torch_roundings(reference))
    [leaf] = yardstick.exact
    assert yardstick.terms(leaf, "float64")["rounding"] > 0.5e-16
    assert not yardstick.tied(leaf, yardstick.exact[leaf], 0.0).any()


@pytest.mark.parametrize(("error", "runs", "term"), [(4.0, 1, "rounding"), (30.0, 3, "rounding")])
def test_runs_that_round_otherwise_are_made_until_they_allow_the_error(error, runs, term):
    """Each may be a whole rollout. None would take back what the ones before it allow."""
    made = []

    def roundings(inputs, *, draws=None):
        for response in () if draws else (1.0, 0.5, 2.0, 8.0):
            made.append(response)
            yield {"value": np.array([1e9, 1e-3 + response])}

    yardstick = Yardstick(lambda x: {"value": np.array([1e9, 1e-3])}, {}, {}, None, roundings)
    found = yardstick.bound("value", "float64", enough=error / 2)
    assert (len(made), found.term) == (runs, term)
    assert found.value == pytest.approx({1: 8.0, 3: 16.0}[runs])
    assert yardstick.bound("value", "float64").value == pytest.approx(64.0)
    assert len(made) == 4  # none of them a second time


@pytest.mark.parametrize(("error", "fine", "coarse"), [(5e-4, 1, 0), (7.5, 2, 1), (8.5, 2, 2)])
def test_a_response_that_shrinks_is_no_jump_and_is_seen_by_the_first_run_that_shows_it(
    error, fine, coarse
):
    """And nothing more is asked of the reference, unless the error is larger than all of it."""
    made = {False: 0, True: 0}
    calls = 0

    def reference(inputs):
        nonlocal calls
        calls += 1
        return {"value": np.array([1.0, 1e3])}

    def roundings(inputs, *, coarse=False, draws=None):
        # The second is more than a small share of the largest value.
        for moved in () if draws else (1e-4, 1.0):
            made[coarse] += 1
            yield {"value": np.array([1.0, 1e3 + (2.0**29 if coarse else moved)])}

    yardstick = Yardstick(reference, {}, {}, None, roundings)
    bound = yardstick.bound("value", "float64", enough=error)
    assert (made[False], made[True]) == (fine, coarse)
    assert (bound.value >= error) == (error < 8)
    assert (calls == 1) == (error < 8)


@pytest.mark.parametrize(
    ("error", "made", "allowed"),
    [
        (7.9, 0, 8.0),
        (8.1, 1, 16.0),
        (20.0, 2, 24.0),
        (30.0, 2, 24.0),
        (128.0, 2, 24.0),
        (129, 0, 8),
    ],
)
def test_an_error_beyond_what_the_usual_draws_allow_asks_for_more_unless_it_is_beyond_by_far(
    error, made, allowed
):
    """Where few roundings make up an answer, eight draws may miss what they can do."""
    further = []

    def roundings(inputs, *, coarse=False, draws=range(8)):
        for response in (1.0,) if draws == range(8) else (2.0, 3.0):
            further.append(draws)
            yield {"value": np.array([1e9, response])}

    yardstick = Yardstick(lambda x: {"value": np.array([1e9, 0.0])}, {}, {}, None, roundings)
    bound = yardstick.bound("value", "float64", enough=error)
    asked = [draws for draws in further if draws == range(8, 64)]
    assert (len(asked), bound.value) == (made, allowed)


@pytest.mark.parametrize(
    ("usual", "further", "counted"),
    [
        (1e-7, 2.0, 1e-7),
        (1e-7, 1e-3, 1e-7),
        (1e-5, 4e-5, 4e-5),
        (1e-7, 4e-7, 4e-7),
        (1e-5, 1e5, 1e-5),
    ],
)
def test_a_further_draw_that_may_jump_allows_nothing_where_none_was_seen_to_shrink(
    usual, further, counted
):
    def roundings(inputs, *, coarse=False, draws=range(8)):
        fine = usual if draws == range(8) else further
        yield {"value": np.array([1.0, 1.0 + fine * (2.0**29 if coarse else 1.0)])}

    yardstick = Yardstick(lambda x: {"value": np.array([1.0, 1.0])}, {}, {}, None, roundings)
    bound = yardstick.bound("value", "float64", enough=16 * usual)
    assert bound.value == pytest.approx(8 * counted, rel=1e-6)


def test_a_nudge_moves_what_is_finite_beside_what_is_not():
    given = np.array([np.inf, -np.inf, np.nan, 0.0, 4.0])
    for still in (None, {"x": given == 4}):
        moved = nudge({"x": given}, 2.0**-40, np.random.default_rng(0), still)["x"]
        np.testing.assert_array_equal(moved[:3], given[:3])
        assert 0 < abs(moved[3]) <= 4 * 2.0**-40
        assert (moved[4] == 4) == (still is not None)


class Operation:
    """As one of torch's, off by log 2 where the processor does not round to nearest."""

    def __init__(self, function, *tags, writes=False):
        self.function, self.tags, self.num_calls = function, tags, 0
        self._schema = SimpleNamespace(is_mutable=writes)

    def __call__(self, x):
        from parity import directions

        self.num_calls += 1
        off = directions._floating_point_environment().fegetround() != 0
        return self.function(x, math.log(2) if off else 0.0)


def test_what_relies_on_rounding_to_nearest_is_taken_as_it_is_to_nearest():
    import torch

    from parity.directed import directed
    from parity.sides import rounding_directions

    given = torch.tensor([1.0, 0.1, 3.0], dtype=torch.float64)
    many = torch.arange(1.0, 20.0, dtype=torch.float64)
    for direction in rounding_directions():
        broken = Operation(lambda x, off: torch.log(x) + off * (x == 3))
        assert torch.equal(directed(direction, broken, (given,), {}), torch.log(given))
        # What a rounding can do stays, and so does what a neighbour of an input does.
        thirds = Operation(lambda x, off: x / 3)
        assert not torch.equal(directed(direction, thirds, (many,), {}), many / 3)
        steep = Operation(lambda x, off: 1e9 * (x - 3) + off * 1e-7)
        assert directed(direction, steep, (given[2:],), {}).item() > 0.69e-7
        of_zero = Operation(lambda x, off: x + off * 2**-52)  # which has no neighbour to answer to
        assert directed(direction, of_zero, (0 * given,), {}).all()
        # What is written into is written into once, what draws numbers draws once.
        doubled = given.clone()
        inplace = Operation(lambda x, off: x.mul_(2).add_(off), writes=True)
        assert directed(direction, inplace, (doubled,), {}) is doubled
        assert torch.equal(doubled, 2 * given)
        drawn = Operation(lambda x, off: x, torch.Tag.nondeterministic_seeded)
        directed(direction, drawn, (given,), {})
        assert drawn.num_calls == 1


def test_no_direction_moves_a_log_softmax_of_equal_numbers_by_more_than_roundings():
    """Of 3 and of 6 the sum of exponentials is 1.5 · 2ᵏ, at which a logarithm of SLEEF's is off."""
    import torch

    from parity import sides

    side = sides.torch_values(lambda x: torch.log_softmax(x, -1))
    for number in (2, 3, 5, 6, 12):
        found = sides.torch_roundings(side)({"x": np.zeros((2, number))})
        for run in found:
            assert (np.abs(run["value"] + math.log(number)) <= GATE * math.log(number)).all()


def test_further_draws_are_others_and_the_processors_directions_are_not_taken_again():
    from parity import sides

    reference = sides.torch_values(lambda x: x * 3)
    inputs = {"x": np.arange(1.0, 65.0)}
    run = sides.torch_roundings(reference)
    values = [output["value"] for output in (*run(inputs), *run(inputs, draws=range(8, 12)))]
    usual, further = values[:-4], values[-4:]
    assert len(usual) == 8 + len(sides.rounding_directions())
    assert not any(np.array_equal(one, other) for one in further for other in usual)
    assert all((value != 3 * inputs["x"]).all() for value in further)


def test_what_is_within_the_bound_asks_for_no_ties():
    coarse_runs = 0

    def roundings(inputs, *, coarse=False):
        nonlocal coarse_runs
        coarse_runs += coarse
        yield {"y": 2 * X + np.array([1e-3, 1e-7, 0])}

    judge(changed(lambda y: y + 1e-8), roundings=roundings).assert_ok()
    assert coarse_runs == 0


def test_an_entry_that_jumps_in_a_run_allows_nothing_by_it():
    def roundings(inputs, *, coarse=False):
        yield {"value": np.array([1.0, 0.0])}

    yardstick = Yardstick(lambda x: {"value": np.array([1.0, 1.0])}, {}, {}, None, roundings)
    assert yardstick.bound("value", "float64", enough=0.5) == yardstick.scale_bound(
        "value", "float64"
    )


def test_the_slope_of_a_saturated_tanh_is_no_mismatch():
    """1 − tanh² is 0 or 2e-16 where the slope is 1e-17: no input could have made the difference."""
    import torch

    from parity import oracle, sides

    reference = sides.torch_gradients(lambda x: torch.tanh(x))
    inputs = {"x": np.array([19.5]), "cotangent/value": np.array([1.0])}

    def exact(inputs):
        return {"x": np.array([oracle.tanh_slope(float(inputs["x"][0]))])}

    options = {"oracle": exact, "precisions": ("float64",)}
    assert not compare(reference, reference, inputs, **options).ok
    roundings = sides.torch_roundings(reference)
    compare(reference, reference, inputs, roundings=roundings, **options).assert_ok()


KINKS = {
    "a sign": (lambda x: np.sign(x), lambda x: -np.sign(x)),
    "a slope of relu": (lambda x: (x > 0) * 1.0 * np.ones_like(x), lambda x: np.zeros_like(x)),
    "a slope of a clip": (lambda x: (np.abs(x) <= 1) * np.ones_like(x), lambda x: 0.0 * x),
}


@pytest.mark.parametrize("name", KINKS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_jump_at_one_entry_excuses_no_other(name, dtype):
    """At 0 and at ±1 an ulp decides: the response there says nothing of rounding."""
    right, wrong = KINKS[name]
    inputs = {"x": np.array([0.0, 1.0, -1.0, 2.0, -0.5])}

    def side(function):
        return lambda given: {"value": function(given["x"]).astype(given["x"].dtype)}

    compare(side(right), side(right), inputs, precisions=(dtype,)).assert_ok()
    assert not compare(side(right), side(wrong), inputs, precisions=(dtype,)).ok


FLOORS = {"the same": (0, True), "one less": (-1, True), "one more": (1, False), "off": (7, False)}
"""x·3/3 comes out at a whole number x or just below it: its floor is x or one less."""


@pytest.mark.parametrize("name", FLOORS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_where_a_rounding_on_the_way_decides_either_is_right_and_nothing_else(name, dtype):
    import torch

    from parity import sides

    reference = sides.torch_values(lambda x: torch.floor(x * 3 / 3))
    off, is_right = FLOORS[name]
    inputs = {"x": np.array([3.0, 6.0, 7.5, 9.0, 11.2])}

    def side(inputs):
        x = inputs["x"]
        return {"value": np.floor(x) + (off * (x == 9)).astype(x.dtype)}

    options = {"roundings": sides.torch_roundings(reference), "precisions": (dtype,)}
    found = compare(reference, side, inputs, **options)
    assert found.ok is is_right, found.mismatches
    assert found.ties == (1 if name == "one less" else 0)
    # Where nothing is decided by rounding, nothing is excused.
    shifted = {"x": inputs["x"] + 0.25}
    compare(reference, reference, shifted, **options).assert_ok()
    off_by_one = compare(reference, lambda x: {"value": np.floor(x["x"]) - 1}, shifted, **options)
    assert not off_by_one.ok


def test_runs_that_return_something_else_bound_no_tie():
    """Rounding decides whether there is a second number, or a number at all."""

    def roundings(inputs, *, coarse=False):
        return [{"value": np.array([2.0])}, {"value": np.zeros(2)}, {}]

    yardstick = Yardstick(lambda x: {"value": np.array([1.0])}, {}, {}, None, roundings)
    found = {number: yardstick.tied("value", np.array([number]), 0.0) for number in (1.5, 0.0)}
    assert found == {1.5: [True], 0.0: [False]}


def test_what_is_steep_but_no_jump_still_responds():
    """x ↦ 1e9·x: the response shrinks with the nudge, however large it is."""
    steep = Yardstick(lambda given: {"value": 1e9 * (given["x"] - 1)}, {"x": np.array([1.5])}, {})
    response = steep.terms("value", "float64")["inputs"]
    assert 0.5e9 * 2**-53 <= response <= 4e9 * 2**-53
