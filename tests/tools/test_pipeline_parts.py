"""The parts of `parity.check_pipeline`: feeding, gradients, optimizers, chains, errors, reports."""

import json
import runpy
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import parity
import pgjax.optim
from pgcore.errors import UsageError
from tests.tools import pipelines

X = np.array([0.5, -1.25, 3.0])
SQUARES_IN_TORCH = {
    "errors": lambda params, x: params["w"] * x - 1,
    "loss": lambda errors: (errors**2).sum(),
}
SQUARES_IN_JAX = {
    "errors": lambda params, x: params["w"] * x - 1,
    "loss": lambda errors: (errors**2).sum(),
}
SQUARES = {"params": {"w": np.array([1.0, 2.0, -0.5])}, "x": X}


def squares(reference=None, candidate=None, inputs=None, **options):
    return parity.check_pipeline(
        {**SQUARES_IN_TORCH, **(reference or {})},
        {**SQUARES_IN_JAX, **(candidate or {})},
        {**SQUARES, **(inputs or {})},
        **{"steps": 2, **options},
    )


def parted(report):
    return [each.stage for each in report.comparisons if not each.ok]


# --- what is fed ---------------------------------------------------------------------------------


def test_a_mismatch_names_stage_leaf_index_both_values_the_oracles_and_the_bound():
    def off(params, x):
        return (params["w"] * x - 1).at[2].add(1e-3)

    report = squares(
        candidate={"errors": off}, oracle={"errors": lambda params, x: params["w"] * x - 1}
    )
    first = report.failures[0]
    assert (first.stage, first.leaf, first.index, first.dtype) == (
        "errors",
        "value",
        (2,),
        "float64",
    )
    assert (first.reference, first.oracle) == (-2.5, -2.5)
    assert first.candidate == pytest.approx(-2.499, abs=1e-15)
    assert 0 < first.bound < 1e-9 < first.error
    assert "first parts at stage 'errors'" in str(report)
    # Its derivative is right, and the loss and the gradient are fed the right values.
    assert parted(report) == ["errors", "2 chained steps with adam", "2 chained steps with sgd"]
    assert json.loads(report.to_json())["failures"][0]["stage"] == "errors"


def test_what_is_fed_is_rounded_to_float32_once():
    seen = []

    def loss(errors):
        seen.append(errors.detach().numpy().copy())
        return (errors**2).sum()

    squares(reference={"loss": loss}, inputs={"x": X / 3}).assert_ok()
    x = (X / 3).astype(np.float32).astype(float)
    exact = SQUARES["params"]["w"] * x - 1
    assert (exact != exact.astype(np.float32)).any()
    np.testing.assert_array_equal(seen[0], exact.astype(np.float32))


def test_entries_are_known_by_their_own_names_unless_these_are_taken():
    def parts(x):
        return {"double": 2 * x, "x": 5 * x}

    reference = {"parts": parts, "sum": lambda double, x, parts: double + x + parts["x"]}
    report = parity.check_pipeline(
        reference, dict(reference), {"x": X}, oracle={"sum": lambda x: 8 * x}
    )
    report.assert_ok()


def test_each_side_is_given_its_own_kind_of_tuple():
    def log_prob(network, sample):
        return network.log_prob(sample)

    reference = {
        "network": lambda x: pipelines.NormalInTorch(x, x.exp()),
        "log_prob": lambda network, sample: torch.distributions.Normal(*network).log_prob(sample),
    }
    candidate = {"network": lambda x: pipelines.NormalInJax(x, jnp.exp(x)), "log_prob": log_prob}
    parity.check_pipeline(reference, candidate, {"x": X, "sample": X / 2}).assert_ok()


def test_a_callable_with_keywords_gets_all_that_is_known():
    names = []

    def second(**known):
        names.append(sorted(known))
        return known["x"] + known["first"]

    stages = {"first": lambda x: 2 * x, "second": second}
    parity.check_pipeline(stages, stages, {"x": X, "y": 2.0}).assert_ok()
    assert {tuple(each) for each in names} == {("first", "x", "y")}


def test_a_stage_may_have_no_floating_input():
    stages = {"flags": lambda mask: ~mask, "count": lambda flags: flags.sum(0)}
    parity.check_pipeline(stages, stages, {"mask": X > 0, "x": X}).assert_ok()
    wrong = {**stages, "flags": lambda mask: mask}
    report = parity.check_pipeline(stages, wrong, {"mask": X > 0, "x": X})
    assert parted(report) == ["flags"]


def test_padding_that_is_not_a_number_spoils_no_gradient():
    mask = np.array([True, True, False])
    inputs = {"x": np.where(mask, X, np.nan), "mask": mask}
    torch_errors = lambda params, x, mask: params["w"] * torch.where(mask, x, 0) - 1  # noqa: E731
    jax_errors = lambda params, x, mask: params["w"] * jnp.where(mask, x, 0) - 1  # noqa: E731
    squares({"errors": torch_errors}, {"errors": jax_errors}, inputs).assert_ok()


def test_a_value_upstream_that_is_not_a_number_is_not_blamed_on_the_gradient():
    def loss(errors, weights):
        return (weights * errors**2).sum()

    def in_torch(params, x):
        return params["w"] * x - 1

    def in_jax(params, x):
        return params["w"] * x - 1 + jnp.array([0, 0, jnp.nan], x.dtype)

    report = squares(
        {"errors": in_torch, "loss": loss},
        {"errors": in_jax, "loss": loss},
        {"weights": np.array([1.0, 1.0, 0.0])},
    )
    assert parted(report) == ["errors", "2 chained steps with adam", "2 chained steps with sgd"]


def test_values_that_are_not_finite_must_be_expected():
    stages_in_torch = {"log": lambda x: torch.log(x), "sign": lambda log: log.isnan()}
    stages_in_jax = {"log": lambda x: jnp.log(x), "sign": lambda log: jnp.isnan(log)}
    check = partial(parity.check_pipeline, stages_in_torch, stages_in_jax, {"x": X})
    assert parted(check()) == ["log"]
    check(expect_nonfinite=["log"]).assert_ok()
    check(expect_nonfinite=["log/value"]).assert_ok()
    with pytest.raises(UsageError, match="accepted are log, log/value"):
        check(expect_nonfinite=["log/values"])


def test_a_decision_within_rounding_is_a_tie_if_its_decider_says_so():
    # (1 + u) + u is 1 and 1 + (u + u) is the next number, at u = 2⁻⁵³.
    inputs = {"one": np.ones(1), "u": np.full(1, 2.0**-53)}

    def sums(one, u):
        return torch.stack([one, (one + u) + u], -1)

    reference = {"choice": lambda one, u: sums(one, u).argmax(-1)}
    candidate = {"choice": lambda one, u: jnp.stack([one, one + (u + u)], -1).argmax(-1)}
    assert parted(parity.check_pipeline(reference, candidate, inputs)) == ["choice"]
    decided = parity.check_pipeline(reference, candidate, inputs, deciders={"choice": sums})
    decided.assert_ok()
    assert sum(each.ties for each in decided.comparisons) > 0


def test_a_bug_that_both_sides_share_is_the_oracles_to_find():
    twice = {"loss": lambda errors: 2 * (errors**2).sum()}
    assert squares(twice, twice).ok
    report = squares(twice, twice, oracle={"loss": lambda errors: (errors**2).sum()})
    assert parted(report) == ["loss"]

    def slope(params, x):
        return {"w": 2 * x * (params["w"] * x - 1)}

    squares(oracle={"gradient": slope}).assert_ok()
    assert parted(squares(twice, twice, oracle={"gradient": slope})) == ["gradient"]


# --- gradients -----------------------------------------------------------------------------------


def baseline(stop_in_torch, stop_in_jax):
    """Returns minus a value that the network gives; the loss takes both heads."""
    reference = {
        "network": lambda params, x: {"score": params["w"] * x, "value": params["b"] * x},
        "advantages": lambda returns, value: returns - stop_in_torch(value),
        "loss": lambda score, advantages: -(score * advantages).sum(),
    }
    candidate = {
        **reference,
        "advantages": lambda returns, value: returns - stop_in_jax(value),
    }
    params = {"w": np.array([1.0, 2.0, -0.5]), "b": np.array([0.25, 0.5, 1.0])}
    inputs = {"params": params, "x": X, "returns": X[::-1].copy()}
    return parity.check_pipeline(reference, candidate, inputs, steps=1)


def test_a_stop_that_is_missing_in_any_stage_shows_in_the_gradient():
    stop = jax.lax.stop_gradient
    baseline(torch.detach, stop).assert_ok()
    missing = baseline(torch.detach, lambda value: value)
    first = missing.failures[0]
    assert (first.stage, first.leaf, first.reference) == ("gradient", "b", 0.0)
    # d loss / d b = score · x through the advantages; the largest is w · x² of the second or last.
    assert abs(first.candidate) == pytest.approx(abs(-0.5 * 9.0), rel=1e-6)
    needless = baseline(lambda value: value, stop)
    assert needless.failures[0].stage == "gradient"


def test_a_loss_that_takes_the_parameters_itself_has_a_gradient_of_its_own():
    reference = {"loss": lambda params, errors: (errors**2).sum() + (params["w"] ** 2).sum()}
    squares(reference, reference).assert_ok()

    def stopped(params, errors):
        return (errors**2).sum() + (jax.lax.stop_gradient(params["w"]) ** 2).sum()

    report = squares(reference, {"loss": stopped})
    assert parted(report)[:2] == ["gradient", "gradient of the loss alone"]

    def through_errors_alone(params, errors):
        return (jax.lax.stop_gradient(errors) ** 2).sum() + (params["w"] ** 2).sum()

    report = squares(reference, {"loss": through_errors_alone})
    assert "gradient" in parted(report)
    assert "gradient of the loss alone" not in parted(report)


def test_a_gradient_that_is_zero_everywhere_is_noted():
    unused = {"loss": lambda x: (x**2).sum()}
    assert "zero everywhere" in str(squares(unused, unused))


def test_a_gradient_stage_of_the_users_takes_the_place_of_ours():
    def in_torch(params, x):
        return torch.func.grad(lambda p: ((p["w"] * x - 1) ** 2).sum())(params)

    def in_jax(params, x):
        return jax.grad(lambda p: ((p["w"] * x - 1) ** 2).sum())(params)

    squares({"gradient": in_torch}, {"gradient": in_jax}).assert_ok()
    wrong = {"gradient": lambda params, x: jax.tree.map(lambda g: 2 * g, in_jax(params, x))}
    report = squares({"gradient": in_torch}, wrong)
    # Adam's steps have nearly no scale: what is left of it here is epsilon, 1e-8 of the gradient.
    assert parted(report) == ["gradient", "2 chained steps with adam", "2 chained steps with sgd"]
    error = {m.stage: m.error for m in report.failures if m.dtype == "float64"}
    assert error["2 chained steps with sgd"] > 1e4 * error["2 chained steps with adam"]


# --- optimizers ----------------------------------------------------------------------------------


def adam_of_torch(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def sgd_of_torch(decay):
    return partial(torch.optim.SGD, lr=0.1, weight_decay=decay)


def sgd_of_optax(decay):
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(0.1))


RIGHT_PAIRS = {
    "adam": (adam_of_torch, pgjax.optim.adam(0.01)),
    "momentum": (partial(torch.optim.SGD, lr=0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    "decay of the parameters": (sgd_of_torch(0.1), sgd_of_optax(0.1)),
}
WRONG_PAIRS = {
    "rate": (adam_of_torch, optax.adam(0.011), "change/w"),
    "first decay": (adam_of_torch, optax.adam(0.01, b1=0.8), "change/w"),
    "second decay": (adam_of_torch, optax.adam(0.01, b2=0.99), "change/w"),
    "epsilon": (adam_of_torch, optax.adam(0.01, eps=1e-7), "change/w"),
    "epsilon in the root": (adam_of_torch, optax.adam(0.01, eps=0, eps_root=1e-8), "change/w"),
    "no bias correction": (
        adam_of_torch,
        optax.chain(optax.trace(0.9), optax.scale(-0.01)),
        "change/w",
    ),
    "decay of the parameters": (sgd_of_torch(0.1), sgd_of_optax(0.2), "params/w"),
    "dampening": (
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.5),
        optax.sgd(0.1, momentum=0.9),
        "change/w",
    ),
}


@pytest.mark.parametrize("name", RIGHT_PAIRS)
def test_a_pair_of_optimizers_that_step_alike_is_the_same(name):
    squares(optimizer=RIGHT_PAIRS[name]).assert_ok()


@pytest.mark.parametrize("name", WRONG_PAIRS)
def test_a_wrong_optimizer_is_found_in_the_update_and_not_before(name):
    *both, leaf = WRONG_PAIRS[name]
    first = squares(optimizer=both).failures[0]
    stage = "update, from params" if leaf.startswith("params") else "update"
    assert (first.stage, first.leaf, first.dtype) == (stage, leaf, "float64")


def test_the_bias_correction_of_optax_is_found_to_be_less_exact_in_float32():
    """It subtracts two float32 numbers that nearly cancel (trap A01); in float64 it is right."""
    report = squares(optimizer=(adam_of_torch, optax.adam(0.01)))
    # (Added to parameters, 7e-6 of a change of 1e-2 is lost in their rounding.)
    assert {(m.stage, m.dtype) for m in report.failures} == {("update", "float32")}
    assert report.notes[0] == (
        "first parts at stage 'update', in float32 alone, by more than rounding may; in float64 "
        "they mean the same"
    )


def test_a_missing_decay_comes_before_the_rounding_of_the_same_update():
    """It is invisible in the change to parameters of zero, which optax's Adam rounds too much."""
    decaying = partial(torch.optim.Adam, lr=0.01, weight_decay=0.1)
    failures = squares(optimizer=(decaying, optax.adam(0.01))).failures
    of_update = [(m.stage, m.dtype) for m in failures if m.stage.startswith("update")]
    assert of_update[0] == ("update, from params", "float64")
    assert ("update", "float32") in of_update
    dtypes = [dtype for _, dtype in of_update]
    assert dtypes == sorted(dtypes, reverse=True)  # float64, then float32


def test_rounding_in_an_early_stage_does_not_hide_where_the_meaning_parts():
    def rough(weights, x):
        return weights * x * (1 + 2e-5 * (x.dtype == jnp.float32))

    reference = {"product": lambda weights, x: weights * x, "sum": lambda product: product.sum()}
    candidate = {"product": rough, "sum": lambda product: 2 * product.sum()}
    given = {"weights": np.array([0.5, 1.5]), "x": np.array([1.0, 2.0])}
    report = parity.check_pipeline(reference, candidate, given)
    assert report.notes[0] == (
        "first parts at stage 'product', in float32 alone, by more than rounding may; in float64 "
        "at 'sum'"
    )


def test_the_first_index_of_an_update_is_explained_where_it_is_shown():
    report = squares(optimizer=(adam_of_torch, optax.adam(0.011)))
    assert "in 'update' the first index is the step, 0 to 2" in str(report)
    assert "the first index" not in str(squares(optimizer=RIGHT_PAIRS["adam"]))
    of_chain = [m.leaf for m in report.failures if "chained" in m.stage]
    assert of_chain[0] == "step 1/w"


def test_sgd_alone_is_chained_once():
    stages = [each.stage for each in squares(optimizer="sgd").comparisons]
    assert stages == ["errors", "loss", "gradient", "update", "2 chained steps with sgd"]


def test_a_wrong_scale_that_adam_hides_shows_with_sgd():
    """A clip that scales the gradient by 2 and by a tensor's sign of zero at once: clip is named,
    and of the chained steps SGD's part by what Adam's hardly do.
    """
    clip = {"clip": lambda gradients: {"w": 1 * gradients["w"]}}
    report = squares(clip, {"clip": lambda gradients: {"w": 2 * gradients["w"]}})
    assert report.failures[0].stage == "clip"
    error = {m.stage: m.error for m in report.failures if m.dtype == "float64"}
    assert error["2 chained steps with sgd"] > 1e4 * error["2 chained steps with adam"]


def test_an_update_of_the_users_must_return_what_goes_on():
    update = {"update": lambda params, gradients: params["w"] - 0.1 * gradients["w"]}
    with pytest.raises(UsageError, match="stage 'update' returns .*accepted is a mapping"):
        squares(update, update)
    lost = {"update": lambda params, gradients, m: {"params": {"w": params["w"] - m["w"]}}}
    with pytest.raises(UsageError, match="with 'params' and 'm'"):
        squares(lost, lost)


# --- what can't be compared ----------------------------------------------------------------------


def test_a_candidate_that_raises_has_parted_and_the_stages_after_it_are_compared():
    def broken(params, x):
        raise UsageError("no such thing")

    report = squares(candidate={"errors": broken})
    first = report.failures[0]
    assert (first.stage, first.candidate) == ("errors", "RuntimeError: no such thing")
    passed = [each.stage for each in report.comparisons if each.ok]
    assert passed == ["loss", "update"]


def test_a_candidate_that_cannot_be_jitted_has_parted():
    def branches(errors):
        return (errors**2).sum() if errors[0] < 5 else errors[0]

    report = squares(candidate={"loss": branches})
    assert report.failures[0].stage == "loss, jitted"
    assert "first parts at stage 'loss, jitted'" in str(report)


def test_a_reference_that_raises_is_the_users_error():
    def broken(errors):
        raise KeyError("w")

    with pytest.raises(UsageError, match="stage 'loss' of the reference raised KeyError") as caught:
        squares(reference={"loss": broken})
    assert isinstance(caught.value.__cause__, KeyError)


def noisy_in_torch(errors):
    return (errors**2).sum() + torch.randn(())


def noisy_in_jax(errors):
    return (errors**2).sum() + np.random.default_rng().normal()


def test_a_stage_that_draws_is_refused_on_either_side():
    with pytest.raises(UsageError, match="stage 'loss' of the reference gives another value"):
        squares(reference={"loss": noisy_in_torch})
    with pytest.raises(UsageError, match="stage 'loss' of the candidate gives another value"):
        squares(candidate={"loss": noisy_in_jax})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidate": {"more": lambda x: x}}, "candidate has the stages errors, loss, more"),
        ({"steps": 0}, "steps is 0, accepted is an integer of at least 1"),
        ({"optimizer": "adm"}, "optimizer is 'adm', .*did you mean 'adam'"),
        ({"optimizer": optax.adam(0.1)}, "accepted is 'adam', 'sgd', or a pair"),
        ({"oracle": {"los": abs}}, "oracle is 'los', .*did you mean 'loss'"),
        ({"deciders": {"los": abs}}, "deciders is 'los', .*did you mean 'loss'"),
        ({"expect_nonfinite": ["los"]}, "expect_nonfinite is 'los', .*did you mean 'loss'"),
        ({"inputs": {"loss": X}}, "inputs has 'loss', which is a stage too"),
        ({"reference": {"loss": lambda error: error}}, "is 'error', .*did you mean 'errors'"),
        (
            {"reference": {"loss": lambda errors: errors}},
            r"returns shape \(3,\), accepted is",
        ),
        ({"reference": {"loss": lambda errors: {"a": errors[0]}}}, "'loss' returns dict, accepted"),
        ({"reference": {"loss": lambda errors: set()}}, "returns value of type set, accepted are"),
        ({"reference": {"loss": torch.sum}}, "parameters can be read: wrap it in a function"),
        ({"reference": {"errors": lambda x, /: x}}, "can be passed by name: wrap the stage"),
        ({"inputs": {"params": {"w": np.array([1, 2, 3])}}}, "params/w is .*a floating array"),
    ],
    ids=range(15),
)
def test_a_mistake_in_the_call_is_explained(options, message):
    with pytest.raises(UsageError, match=message):
        squares(**options)


def test_parameters_are_the_initialisations_where_no_input_has_them():
    def in_torch(seed):
        return {"w": torch.rand(3, generator=torch.Generator().manual_seed(seed))}

    def in_jax(seed):
        return {"w": jax.random.uniform(jax.random.key(seed), (3,))}

    def loss(params, init, x):  # by either name; the gradient is in `params`
        return (params["w"] * x + 0 * init["w"]).sum()

    report = parity.check_pipeline(
        {"init": in_torch, "loss": loss}, {"init": in_jax, "loss": loss}, {"x": X}, steps=1
    )
    report.assert_ok()
    stages = [each.stage for each in report.comparisons]
    assert stages[:3] == ["init", "loss", "gradient"]
    with pytest.raises(UsageError, match="accepted is one that makes parameters from a seed"):
        squares({"init": lambda seed: 1 / 0}, {"init": in_jax})


def test_without_a_loss_the_report_says_what_was_not_compared():
    stages = {"double": lambda x: 2 * x}
    report = parity.check_pipeline(stages, stages, {"x": X})
    assert report.ok
    assert "no gradient, update of an optimizer or chained step was compared" in str(report)


def test_nothing_that_is_given_is_changed():
    def errors(params, x):
        params["w"].data.mul_(2)
        x.data.mul_(3)
        return params["w"] * x

    before = SQUARES["params"]["w"].copy(), X.copy()
    squares(reference={"errors": errors})
    np.testing.assert_array_equal(SQUARES["params"]["w"], before[0])
    np.testing.assert_array_equal(X, before[1])


def test_a_script_repeats_the_comparison(tmp_path, capsys):
    stages = {"returns": pipelines.torch_returns}, {"returns": pipelines.jax_returns}
    inputs = {name: pipelines.inputs(["out"])[name] for name in ("rewards", "mask", "discount")}
    wrong = {"returns": pipelines.jax_returns_with_a_fault}
    for candidate, code in ((stages[1], 0), (wrong, 1)):
        report = parity.check_pipeline(stages[0], candidate, inputs)
        report.repro_script(tmp_path / "repro.py")
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(tmp_path / "repro.py"), run_name="__main__")
        assert caught.value.code == code
        assert capsys.readouterr().out == f"{report}\n"
    given = parity.check_pipeline(stages[0], stages[1], inputs, optimizer=RIGHT_PAIRS["adam"])
    with pytest.raises(UsageError, match="accepted is 'adam' or 'sgd' for a program"):
        given.repro_script(tmp_path / "repro.py")
