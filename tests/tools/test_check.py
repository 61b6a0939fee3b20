"""`parity.check` on ports that are right, and on ports that are wrong as peers let them pass."""

import json
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from pgcore.errors import UsageError

RNG = np.random.default_rng(0)
MASK = np.arange(6)[:, None] < np.array([6, 4, 1])
REWARDS = np.where(MASK, RNG.normal(size=(6, 3)), np.nan)
RETURNS = {"rewards": REWARDS, "mask": MASK, "discount": 0.9}


def returns_in_torch(rewards, mask, discount):
    following, found = torch.zeros_like(rewards[0]), []
    for reward, now in zip(rewards.flip(0), mask.flip(0), strict=True):
        following = torch.where(now, reward + discount * following, 0)
        found.insert(0, following)
    return torch.stack(found)


def returns_in_jax(rewards, mask, discount):
    def step(following, now):
        reward, runs = now
        following = jnp.where(runs, jnp.where(runs, reward, 0) + discount * following, 0)
        return following, following

    return jax.lax.scan(step, jnp.zeros_like(rewards[0]), (rewards, mask), reverse=True)[1]


def returns_by_definition(rewards, mask, discount):
    found = np.zeros_like(rewards)
    for t, b in np.argwhere(mask):
        found[t, b] = sum(
            discount ** (s - t) * rewards[s, b] for s in range(t, len(rewards)) if mask[s, b]
        )
    return found


def returns_by_powers(rewards, mask, discount):
    """Divides by powers of the discount: right on paper, and cancels."""
    clean = jnp.where(mask, rewards, 0)
    powers = discount ** jnp.arange(len(rewards))[:, None]
    ahead = jnp.cumsum((clean * powers)[::-1], axis=0)[::-1]
    return jnp.where(mask, ahead / powers, 0)


def test_a_right_port_is_the_same_in_every_way_of_running_it():
    report = parity.check(returns_in_torch, returns_in_jax, RETURNS, oracle=returns_by_definition)
    report.assert_ok()
    assert report.failures == []
    stages = [each.stage for each in report.comparisons]
    assert stages == [
        "values, eager",
        "values, jitted",
        "gradients, eager",
        "gradients, jitted",
        "values, vmapped over 3 input sets",
    ]
    dtypes = {(each.stage, v.dtype) for each in report.comparisons for v in each.verdicts}
    assert {("values, jitted", "float32"), ("gradients, jitted", "float64")} <= dtypes
    assert "returns_in_jax: the same" in str(report)


WRONG_RETURNS = {
    "the discount is applied once more": lambda r, m, d: d * returns_in_jax(r, m, d),
    "one entry is off by 1e-9": lambda r, m, d: returns_in_jax(r, m, d).at[3, 0].multiply(1 + 1e-9),
    "two episodes are swapped": lambda r, m, d: returns_in_jax(r, m, d)[:, jnp.array([1, 0, 2])],
    "padding is multiplied by the mask": lambda r, m, d: returns_in_jax(
        r * m.astype(r.dtype), m | True, d
    ),
    "the time axis is lost in a broadcast": lambda r, m, d: returns_in_jax(r, m, d)[:1],
    "an axis more": lambda r, m, d: returns_in_jax(r, m, d)[..., None],
    "half the precision": lambda r, m, d: returns_in_jax(r, m, d).astype(jnp.float32),
    "one output too many": lambda r, m, d: (returns_in_jax(r, m, d), r),
    "the gradient is stopped": lambda r, m, d: jax.lax.stop_gradient(returns_in_jax(r, m, d)),
    "NaN in one entry": lambda r, m, d: returns_in_jax(r, m, d).at[0, 0].set(jnp.nan),
}


@pytest.mark.parametrize("wrong", WRONG_RETURNS)
def test_a_wrong_port_is_not_the_same(wrong):
    variant = WRONG_RETURNS[wrong]
    report = parity.check(
        returns_in_torch,
        lambda rewards, mask, discount: variant(rewards, mask, discount),
        RETURNS,
        name=wrong,
    )
    assert not report.ok
    with pytest.raises(AssertionError, match=f"{wrong}: NOT the same"):
        report.assert_ok()


def test_a_mismatch_names_stage_entry_both_values_the_oracles_and_the_bound():
    def off(rewards, mask, discount):
        return returns_in_jax(rewards, mask, discount).at[2, 1].add(1e-3)

    report = parity.check(returns_in_torch, off, RETURNS, oracle=returns_by_definition)
    first = report.failures[0]
    rounded = np.where(MASK, REWARDS, 0).astype(np.float32).astype(float)
    expected = rounded[2, 1] + 0.9 * rounded[3, 1]
    assert (first.stage, first.leaf, first.index, first.dtype) == (
        "values, eager",
        "value",
        (2, 1),
        "float64",
    )
    # Three operations on numbers of the order 1.
    assert abs(first.reference - expected) < 4 * 2**-52
    assert abs(first.candidate - expected - 1e-3) < 4 * 2**-52
    assert abs(first.oracle - expected) < 4 * 2**-52
    assert 0 < first.bound < 1e-9 < first.error
    text = str(report)
    assert "value[2, 1] in float64" in text
    assert repr(first.candidate) in text


def test_a_bug_that_both_sides_share_is_the_oracles_to_find():
    def twice(function):
        return lambda rewards, mask, discount: 2 * function(rewards, mask, discount)

    sides = (twice(returns_in_torch), twice(returns_in_jax))
    assert parity.check(*sides, RETURNS).ok
    assert not parity.check(*sides, RETURNS, oracle=returns_by_definition).ok


def test_a_gradient_is_judged_though_the_inputs_are_the_first_numbers_of_seed_0():
    """The Jacobian of a normalisation sends the input itself to zero; it may be no cotangent."""
    given = {"x": np.random.default_rng(0).normal(size=50)}
    report = parity.check(
        lambda x: (x - x.mean()) / x.std(correction=0),
        lambda x: (x - x.mean()) / jax.lax.stop_gradient(x.std()),
        given,
    )
    assert {mismatch.stage for mismatch in report.failures} == {
        "gradients, eager",
        "gradients, jitted",
    }


def test_an_output_with_the_name_of_a_renamed_input_keeps_it():
    def in_torch(x):
        return {"inputs": 2 * x}

    def in_jax(inputs):
        return {"inputs": 2 * inputs}

    parity.check(in_torch, in_jax, {"x": np.ones(3)}, rename={"x": "inputs"}).assert_ok()


class Pair(NamedTuple):
    first: object
    rest: list


def test_trees_go_in_and_come_out_by_name():
    def in_torch(pair, table, factor):
        assert isinstance(pair, Pair)
        total = pair.first * factor + sum(pair.rest) + table["by name"]["x"]
        return {"total": total, "parts": (pair.first, [table["by name"]["x"]])}

    tree = {
        "pair": Pair(RNG.normal(size=3), [RNG.normal(size=3), RNG.normal(size=3)]),
        "table": {"by name": {"x": RNG.normal(size=3)}},
        "factor": 2.0,
    }
    report = parity.check(in_torch, in_torch, tree)  # it is both a torch and a JAX function
    report.assert_ok()
    leaves = {verdict.leaf for verdict in report.comparisons[0].verdicts}
    assert leaves == {"total", "parts/0", "parts/1/0"}
    gradients = {verdict.leaf for verdict in report.comparisons[2].verdicts}
    assert gradients == {"pair/first", "pair/rest/0", "pair/rest/1", "table/by name/x"}


def test_names_may_differ_where_it_is_said():
    def in_torch(x, weights):
        return {"out": x @ weights["w"]}

    def in_jax(inputs, weights):
        return {"result": inputs @ weights["kernel"]}

    given = {"x": RNG.normal(size=(2, 3)), "weights": {"w": RNG.normal(size=(3, 3))}}
    rename = {"x": "inputs", "weights/w": "kernel", "out": "result"}
    parity.check(in_torch, in_jax, given, rename=rename).assert_ok()
    transposed = parity.check(
        in_torch,
        lambda inputs, weights: {"result": inputs @ weights["kernel"].T},
        given,
        rename=rename,
    )
    assert not transposed.ok


def test_each_call_gets_copies_and_the_callers_arrays_stay_as_they_are():
    given = {"x": np.arange(3.0)}

    def in_place(x):
        x += 1  # in torch this writes into the array that it was given
        return x * x

    parity.check(in_place, lambda x: (x + 1) ** 2, given, wrt=()).assert_ok()
    assert given["x"].tolist() == [0, 1, 2]


def test_what_float32_cannot_hold_is_rounded_and_said():
    exact, rounded = {"x": np.array([0.5, 2.0])}, {"x": np.array([0.1, 2.0])}
    sides = (lambda x: torch.sin(x), lambda x: jnp.sin(x))
    assert parity.check(*sides, exact).notes == []
    report = parity.check(*sides, rounded)
    report.assert_ok()
    assert report.notes == ["input x was rounded to float32"]


def test_a_candidate_that_cannot_be_jitted_or_vmapped_has_parted():
    def branches(x):
        return x if float(x.sum()) > 0 else -x

    report = parity.check(lambda x: torch.where(x.sum() > 0, x, -x), branches, {"x": np.ones(2)})
    failed = [mismatch.stage for mismatch in report.failures]
    assert failed[0] == "values, jitted"
    assert failed[-1] == "values, vmapped"
    assert "ConcretizationTypeError" in str(report)


def test_a_candidate_that_mixes_up_what_is_mapped_has_parted_only_there():
    def over_all(x):
        # Right for one input set. Under `vmap` the shape that it sees is still that of one, but a
        # host callback sees the whole stack.
        return jax.pure_callback(
            lambda x: np.asarray(x) - np.asarray(x).mean(), x, x, vmap_method="expand_dims"
        )

    report = parity.check(lambda x: x - x.mean(), over_all, {"x": RNG.normal(size=4)}, wrt=())
    assert {mismatch.stage for mismatch in report.failures} == {"values, vmapped over 3 input sets"}


def test_expected_nonfinite_outputs_must_be_so_in_the_same_places():
    given = {"x": np.array([-1.0, 0.0, 2.0])}

    def in_torch(x):
        return {"log": torch.log(x), "x": x}

    def in_jax(x):
        return {"log": jnp.log(x), "x": x}

    def elsewhere(x):
        return {"log": jnp.log(jnp.abs(x)), "x": x}

    assert not parity.check(in_torch, in_jax, given).ok
    parity.check(in_torch, in_jax, given, expect_nonfinite=["log"]).assert_ok()
    assert not parity.check(in_torch, elsewhere, given, expect_nonfinite=["log"]).ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrt": ["reward"]}, "wrt is 'reward'.*did you mean 'rewards'"),
        ({"wrt": ["mask"]}, "wrt is 'mask'"),
        ({"rename": {"rewrads": "r"}}, "rename is 'rewrads'.*did you mean 'rewards'"),
        ({"expect_nonfinite": ["valeu"]}, "expect_nonfinite is 'valeu'.*did you mean 'value'"),
    ],
)
def test_a_name_that_there_is_not_is_an_error_and_no_silent_pass(options, message):
    with pytest.raises(UsageError, match=message):
        parity.check(returns_in_torch, returns_in_jax, RETURNS, **options)


def test_inputs_without_a_floating_array_are_refused():
    with pytest.raises(UsageError, match=r"inputs has mask \(bool\), accepted is at least one"):
        parity.check(lambda mask: mask, lambda mask: mask, {"mask": MASK})


def test_a_report_is_a_machines_and_a_page_too(tmp_path):
    report = parity.check(
        returns_in_torch,
        WRONG_RETURNS["NaN in one entry"],
        RETURNS,
        rename={"rewards": "r", "mask": "m", "discount": "d"},
        name="a <wrong> port",
    )
    values = json.loads(report.to_json())
    assert values["ok"] is False
    assert values["failures"][0]["candidate"] == "nan"
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<h1>a &lt;wrong&gt; port: NOT the same</h1>" in page
    assert "http" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def pair_in_torch(pair, scale):
    return pair.first * scale + pair.rest[0]


def pair_in_jax(pair, scale):
    return pair.first * scale + pair.rest[0] * (1 + 1e-6)


def test_a_program_has_its_named_tuples_and_constants_too(tmp_path):
    given = {"pair": Pair(RNG.normal(size=2), [RNG.normal(size=2)]), "scale": 0.5}
    report = parity.check(pair_in_torch, pair_in_jax, given, name='a """quoted""" name')
    report.repro_script(tmp_path / "repro.py")
    process = subprocess.run(
        [sys.executable, tmp_path / "repro.py"], capture_output=True, text=True, check=False
    )
    assert process.stdout.startswith(report.summary()), process.stderr
    assert process.returncode == 1


def slightly_wrong(rewards, mask, discount):
    return returns_in_jax(rewards, mask, discount + 1e-6)


@pytest.mark.takes_long
def test_a_report_writes_a_program_that_repeats_it(tmp_path):
    outputs = []
    for candidate in (slightly_wrong, returns_in_jax):
        report = parity.check(
            returns_in_torch, candidate, RETURNS, oracle=returns_by_definition, wrt=["rewards"]
        )
        report.repro_script(tmp_path / "repro.py")
        process = subprocess.run(
            [sys.executable, tmp_path / "repro.py"], capture_output=True, text=True, check=False
        )
        assert process.stdout.startswith(report.summary()), process.stderr
        outputs.append(process.returncode)
    assert outputs == [1, 0]
    program = (tmp_path / "repro.py").read_text()
    assert "import pytest" not in program
    assert "hypothesis" not in program
    # What it needs is this file, and this file needs pytest.
    assert "# test_check.py imports pytest, so this program does too." in program


def test_a_local_function_cannot_be_written_down_and_the_error_says_so(tmp_path):
    report = parity.check(
        returns_in_torch,
        WRONG_RETURNS["an axis more"],
        RETURNS,
        rename={"rewards": "r", "mask": "m", "discount": "d"},
    )
    with pytest.raises(UsageError, match="candidate is .*accepted is what stands at the top of a"):
        report.repro_script(tmp_path / "repro.py")
    assert list(tmp_path.iterdir()) == []


def test_at_a_kink_a_missing_gradient_is_found_all_the_same():
    inputs = {"x": np.array([0.0, 1.0, -1.0, 2.0])}
    parity.check(lambda x: torch.relu(x), jax.nn.relu, inputs).assert_ok()
    stopped = parity.check(
        lambda x: torch.relu(x), lambda x: jax.lax.stop_gradient(jax.nn.relu(x)), inputs
    )
    assert {mismatch.stage for mismatch in stopped.failures} == {
        "gradients, eager",
        "gradients, jitted",
    }
    # relu'(0) written as maximum(x, 0) is ½ in JAX (trap D01).
    assert not parity.check(lambda x: torch.relu(x), lambda x: jnp.maximum(x, 0), inputs).ok


def test_a_reference_that_returns_nothing_is_refused():
    with pytest.raises(UsageError, match="what the reference returns"):
        parity.check(lambda x: None, lambda x: None, {"x": np.ones(3)})
