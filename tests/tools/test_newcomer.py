"""What someone does who uses `parity` for the first time, and what they are told."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from pgcore.errors import UsageError

OBS = {"obs": np.ones(3)}
X = {"x": np.array([0.5, 1.0, 2.0])}


def double(x):
    """Is of both frameworks, as it happens."""
    return x * 2


def only(**outputs):
    """A function of both frameworks whose first output depends on x, and the others do not."""
    return lambda x: {"y": x * 2, **outputs}


# --- plain Python numbers


@pytest.mark.parametrize("number", [3, 0.1, -0.0, 1e30])
def test_a_plain_number_is_compared_by_value_alone_with_a_number_or_an_array(number):
    def in_torch(x):
        return {"y": x * 2, "n": torch.tensor(number, dtype=x.dtype)}

    def in_jax(x):
        return {"y": x * 2, "n": jnp.asarray(number, x.dtype)}

    parity.check(only(n=number), only(n=number), X).assert_ok()
    parity.check(only(n=number), in_jax, X).assert_ok()
    parity.check(in_torch, only(n=number), X).assert_ok()


def test_an_integer_and_the_float_of_its_value_are_the_same_plain_number():
    parity.check(only(n=3), only(n=3.0), X).assert_ok()
    parity.check(only(n=3.0), only(n=3), X).assert_ok()
    # 3.0000000000000004: what is not judged is the kind, and a float may be rounded.
    parity.check(only(n=3), only(n=(0.1 + 0.2) * 10), X).assert_ok()
    parity.check(only(n=3.0), lambda x: {"y": x * 2, "n": jnp.int32(3)}, X).assert_ok()


@pytest.mark.parametrize(("number", "other"), [(3, 4), (0.1, 0.1 + 1e-6), (3, 3.0001), (1, True)])
def test_another_plain_number_is_found_in_every_way_of_running_it(number, other):
    report = parity.check(only(n=number), only(n=other), X)
    found = {(m.stage.partition(" over")[0], m.dtype) for m in report.failures if m.leaf == "n"}
    ways = {"values, eager", "values, jitted"}
    expected = {(way, dtype) for way in ways for dtype in ("float64", "float32")}
    assert found >= expected | {("values, vmapped", "float64")}


def test_an_array_of_another_precision_is_still_found():
    """An array has a dtype, of one number too."""
    wide = np.array(0.1)
    report = parity.check(
        lambda x: {"y": x, "n": torch.tensor(wide)}, lambda x: {"y": x, "n": x[0]}, X
    )
    assert ("float64", "float32") in {(m.reference, m.candidate) for m in report.failures}


def test_a_candidates_constant_has_the_gradient_zero():
    def in_torch(x):
        return {"y": x * 2, "n": (x * x).sum() - 5.0}  # 0.25 at X

    failed = parity.check(in_torch, only(n=0.25), X).failures
    assert {m.stage for m in failed} >= {"gradients, eager", "gradients, jitted"}


def test_a_reference_that_returns_an_item_says_that_its_gradient_was_not_compared():
    report = parity.check(lambda x: x.sum().item(), lambda x: x.sum(), X)
    report.assert_ok()
    assert any("value of the reference is a plain Python number" in note for note in report.notes)
    assert not parity.check(lambda x: x.sum().item(), lambda x: x.sum() * (1 + 1e-9), X).ok


# --- whose error it is


def of_numpy(x):
    return torch.tensor(x.numpy() * 2)  # raises where x is differentiated


def without_slope(x):
    return jax.pure_callback(lambda x: np.asarray(x) * 2, x, x, vmap_method="expand_dims")


def test_what_the_reference_raises_in_its_gradient_is_said_of_the_reference():
    report = parity.check(of_numpy, double, X)
    of_gradients = [m for m in report.failures if m.stage.startswith("gradients")]
    assert len(of_gradients) == len(report.failures) == 2
    for mismatch in of_gradients:
        assert mismatch.reference.startswith("RuntimeError: Can't call numpy()")
        assert mismatch.candidate == "runs"


def test_what_the_candidate_raises_in_its_gradient_is_said_of_the_candidate():
    report = parity.check(double, without_slope, X)
    assert {m.stage for m in report.failures} == {"gradients, eager", "gradients, jitted"}
    for mismatch in report.failures:
        assert mismatch.reference == "runs"
        assert mismatch.candidate.startswith("ValueError: Pure callbacks do not support JVP")


def in_float64_alone(x):
    if x.dtype == torch.float32:
        raise RuntimeError("not in float32")
    return x * 2


def test_a_stage_whose_reference_raises_in_float32_is_not_the_candidates_fault():
    report = parity.check_pipeline({"s": in_float64_alone}, {"s": double}, X)
    first = report.failures[0]
    assert (first.reference, first.candidate) == ("RuntimeError: not in float32", "runs")
    with pytest.raises(RuntimeError, match="not in float32") as raised:
        parity.check(in_float64_alone, double, X)
    assert raised.value.__notes__ == ["raised by the reference"]


@pytest.mark.parametrize("name", ["detached", "without gradients"])
def test_a_reference_without_a_graph_is_named_as_the_cause(name):
    by_name = {"detached": lambda x: x.detach() * 2, "without gradients": torch.no_grad()(double)}
    report = parity.check(by_name[name], double, X)
    assert not report.ok
    assert "the reference returns nothing that PyTorch can differentiate" in str(report)
    stopped = parity.check(by_name[name], lambda x: jax.lax.stop_gradient(x) * 2, X)
    stopped.assert_ok()
    assert "differentiate" not in str(stopped)


# --- inputs and their names


@pytest.mark.parametrize(
    ("reference", "candidate", "inputs", "message"),
    [
        (double, double, [np.ones(3)], "inputs is of type list, accepted is a mapping .*{'x': …}"),
        (double, double, np.ones(3), "inputs is of type ndarray, accepted is a mapping"),
        (double, double, {0: np.ones(3)}, "inputs has the key 0, accepted is a mapping"),
        (3, double, X, "reference is of type int, accepted is a function or a module"),
        (double, None, X, "candidate is of type NoneType, accepted is a function or a module"),
        (
            double,
            lambda a: a,
            X,
            "an input of the candidate is 'x', accepted are a. .*rename={'x': 'a'}",
        ),
        (
            lambda a: a,
            double,
            X,
            "an input of the reference is 'x', accepted are a. .*call it 'a'.*rename={'a': 'x'}",
        ),
        (lambda x, y: x, double, X, "inputs has x, and the reference needs 'y' too"),
        (double, lambda x, y: x, X, "the candidate needs 'y' too: .* say in rename="),
        (
            torch.sin,
            double,
            OBS,
            r"the reference, sin, raised TypeError: .*: sin\(obs\)",
        ),
        (double, lambda x, /: x, X, "the candidate takes 'x' by position alone"),
    ],
    ids=[
        "a list",
        "an array",
        "a number as a name",
        "a number for the reference",
        "nothing for the candidate",
        "another name in the candidate",
        "another name in the reference",
        "one more in the reference",
        "one more in the candidate",
        "a builtin",
        "by position",
    ],
)
def test_what_can_not_be_called_so_is_said_in_words(reference, candidate, inputs, message):
    with pytest.raises(UsageError, match=message):
        parity.check(reference, candidate, inputs)


def test_the_rename_that_an_error_suggests_is_right():
    def candidate(a):
        return a * 2

    with pytest.raises(UsageError) as raised:
        parity.check(double, candidate, X)
    old, new = re.search(r"rename=\{'(\w+)': '(\w+)'\}", str(raised.value)).groups()
    parity.check(double, candidate, X, rename={old: new}).assert_ok()


def test_functions_that_take_anything_by_name_or_have_defaults_are_taken():
    parity.check(lambda **inputs: inputs["x"], lambda x, scale=1.0: x * scale, X).assert_ok()


def test_a_pipelines_inputs_and_stages_are_mappings():
    stages = {"s": double}
    with pytest.raises(UsageError, match="inputs is of type list, accepted is a mapping"):
        parity.check_pipeline(stages, stages, [np.ones(3)])
    with pytest.raises(UsageError, match="candidate is of type function, accepted is a mapping"):
        parity.check_pipeline(stages, double, X)
    with pytest.raises(UsageError, match="stage 's' of the candidate is of type int, accepted is"):
        parity.check_pipeline(stages, {"s": 3}, X)


def test_a_list_of_numbers_alone_is_refused_with_what_to_write():
    with pytest.raises(UsageError, match=r"inputs has x \(a list\), accepted .*np\.array\(…\)"):
        parity.check(double, double, {"x": [0.5, 1.0]})


def test_a_list_of_numbers_beside_an_array_is_a_tree_of_constants_and_the_report_says_so():
    def weighted(x, w):
        assert isinstance(w, list)
        return x * w[0] + w[1]

    report = parity.check(weighted, weighted, {**X, "w": [0.5, 1.0]})
    report.assert_ok()
    assert any("input w is a list of numbers" in note for note in report.notes)
    assert {v.leaf for v in report.comparisons[2].verdicts} == {"x"}  # gradients
    with pytest.raises(TypeError) as raised:
        parity.check(lambda x, w: x * w, lambda x, w: x * jnp.array(w), {**X, "w": [0.5, 1.0, 2.0]})
    assert any("np.array(w) is an array" in note for note in raised.value.__notes__)


# --- values that are not finite


def logarithms(x):
    xp = torch if isinstance(x, torch.Tensor) else jnp
    return {"log": xp.log(x - 0.5), "parts": {"log": xp.log(x - 1.0)}, "x": x}


def test_nan_on_both_sides_is_a_failure_that_says_what_to_give():
    text = str(parity.check(logarithms, logarithms, X))
    suggested = re.search(r"give expect_nonfinite=(\[.*?\])", text).group(1)
    assert suggested == "['log', 'parts/log']"
    parity.check(logarithms, logarithms, X, expect_nonfinite=["log", "parts/log"]).assert_ok()


def test_nan_in_other_places_or_on_one_side_has_no_such_hint():
    for candidate in (lambda x: jnp.log(x - 1.25), lambda x: x.at[0].set(jnp.nan)):
        report = parity.check(lambda x: torch.log(x - 1.0), candidate, X)
        assert not report.ok
        assert "expect_nonfinite" not in str(report)


def test_a_stages_nan_says_what_to_give_by_the_stages_name():
    stages = {"logs": logarithms, "lone": lambda x: logarithms(x)["log"]}
    text = str(parity.check_pipeline(stages, stages, X))
    suggested = re.search(r"give expect_nonfinite=(\[.*?\])", text).group(1)
    assert suggested == "['logs/log', 'logs/parts/log', 'lone']"
    expected = ["logs/log", "logs/parts/log", "lone"]
    parity.check_pipeline(stages, stages, X, expect_nonfinite=expected).assert_ok()


def test_a_gradient_that_is_infinite_on_both_sides_says_where_it_comes_from():
    given = {"x": np.array([0.0, 4.0])}
    report = parity.check(lambda x: torch.sqrt(x), lambda x: jnp.sqrt(x), given)
    assert {m.stage for m in report.failures} == {"gradients, eager", "gradients, jitted"}
    assert "the gradient in x is NaN or infinite on both sides, in the same places" in str(report)


def test_an_input_at_the_edge_of_a_domain_is_not_judged_by_what_lies_beyond_it():
    """The other input sets of the vmapped run are beside the given one: at 1 they are over 1."""
    given = {"x": np.array([1.0, 0.25])}
    parity.check(lambda x: torch.sqrt(1 - x), lambda x: jnp.sqrt(1 - x), given, wrt=()).assert_ok()
    report = parity.check(
        lambda x: torch.sqrt(1 - x), lambda x: jnp.sqrt(jnp.abs(1 - x)), given, wrt=()
    )
    assert {m.stage for m in report.failures} == {"values, vmapped over 3 input sets"}


# --- names


def scaled(x, factor):
    return x * factor


LAMBDAS = [lambda x: x * 2]


def test_a_report_calls_a_function_as_its_reader_does():
    [twice] = LAMBDAS
    expected = f"lambda at test_newcomer.py:{twice.__code__.co_firstlineno}"
    assert parity.check(double, double, X).name == "double"
    assert parity.check(double, twice, X).name == expected
    assert parity.check(double, jax.jit(twice), X).name == expected
    assert parity.check(double, partial(scaled, factor=2), X).name == "partial of scaled"
    with pytest.raises(UsageError, match=f"reference is {expected}, accepted is what stands"):
        parity.check(twice, double, X).script()
