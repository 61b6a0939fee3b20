"""How a callable is run: precision, copies, gradients, and what is put back afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from parity import sides

X = {"x": np.array([1.0, 2.0, -3.0])}


def single(inputs):
    return {
        name: array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in inputs.items()
    }


def both(function_of):
    """The same function as three sides."""
    return [
        sides.torch_values(function_of(torch)),
        sides.jax_values(function_of(jnp)),
        sides.jax_values(function_of(jnp), jit=False),
    ]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_inputs_decide_the_precision(dtype):
    for side in both(lambda xp: lambda x: {"y": xp.sin(x), "n": xp.sum(x > 0)}):
        outputs = side({"x": X["x"].astype(dtype)})
        assert outputs["y"].dtype == dtype
        np.testing.assert_allclose(outputs["y"], np.sin(X["x"]), rtol=1e-6)
        assert outputs["n"] == 2


def test_float64_is_really_computed_in_float64():
    for side in both(lambda xp: lambda x: xp.sin(x)):
        np.testing.assert_allclose(side(X)["value"], np.sin(X["x"]), rtol=1e-15)
        assert (side(single(X))["value"] != np.sin(X["x"])).all()


@pytest.mark.parametrize("inputs", [{"n": np.arange(3)}, {**X, "z": np.zeros(2, np.float32)}])
def test_mixed_or_missing_precisions_are_an_error(inputs):
    with pytest.raises(ValueError, match="accepted is float64 alone or float32 alone"):
        sides.torch_values(lambda **inputs: inputs["n"])(inputs)


def test_names_with_slashes_are_entries_and_outputs_are_named_likewise():
    def function(params, obs):
        return {"out": (params["w"] * obs, [params["b"]]), "nothing": None}

    inputs = {"params/w": np.ones(2), "params/b": np.zeros(2), "obs": np.full(2, 3.0)}
    for side in (sides.torch_values(function), sides.jax_values(function)):
        outputs = side(inputs)
        assert list(outputs) == ["out/0", "out/1/0"]
        np.testing.assert_array_equal(outputs["out/0"], [3, 3])


def test_what_is_no_array_is_passed_on_as_it_is():
    seen = []

    def function(x, discount, scope):
        seen.append((type(discount), scope))
        return discount * x

    inputs = {**X, "discount": 0.5, "scope": "batch"}
    for side in (sides.torch_values(function), sides.jax_values(function)):
        np.testing.assert_array_equal(side(inputs)["value"], 0.5 * X["x"])
    assert seen == [(float, "batch")] * 2


def test_a_callable_that_changes_its_inputs_changes_a_copy():
    def spoiling(x):
        y = 2 * x
        x.zero_()
        return y

    x = X["x"].copy()
    np.testing.assert_array_equal(sides.torch_values(spoiling)({"x": x})["value"], 2 * x)
    np.testing.assert_array_equal(x, X["x"])


def test_what_a_callable_keeps_is_a_copy():
    """JAX would share the memory of a NumPy array that is aligned to 64 bytes (trap F07)."""
    buffer = np.zeros(8 + 8)
    start = -buffer.ctypes.data % 64 // 8
    x = buffer[start : start + 8]
    assert x.ctypes.data % 64 == 0
    for make in (sides.torch_values, lambda function: sides.jax_values(function, jit=False)):
        x[:] = 1
        kept = []
        make(lambda x, kept=kept: kept.append(x) or x)({"x": x})
        x[:] = 2
        np.testing.assert_array_equal(np.asarray(kept[0]), 1)


def test_a_jitted_side_is_compiled_once_for_a_shape_and_a_precision():
    num_traces = 0

    def function(x):
        nonlocal num_traces
        num_traces += 1
        return x

    side = sides.jax_values(function)
    for _ in range(3):
        side(X)
        side(single(X))
    assert num_traces == 2


# --- gradients -----------------------------------------------------------------------------------


def gradient_sides(function_of, **options):
    return [
        sides.torch_gradients(function_of(torch), **options),
        sides.jax_gradients(function_of(jnp), **options),
        sides.jax_gradients(function_of(jnp), jit=False, **options),
    ]


def test_the_gradient_of_a_scalar_needs_no_cotangent():
    for side in gradient_sides(lambda xp: lambda x: (x**2).sum()):
        slopes = side(X)
        np.testing.assert_array_equal(slopes["x"], 2 * X["x"])
        assert side(single(X))["x"].dtype == np.float32


def test_cotangents_weigh_the_outputs():
    inputs = {**X, "cotangent/a": np.array([1.0, 10.0, 100.0]), "cotangent/b": np.array(5.0)}
    for side in gradient_sides(lambda xp: lambda x: {"a": x**2, "b": x.sum(), "n": x > 0}):
        expected = 2 * X["x"] * inputs["cotangent/a"] + 5
        np.testing.assert_array_equal(side(inputs)["x"], expected)
        assert list(side(inputs)) == ["x"]


def test_an_input_that_is_not_used_has_a_gradient_of_zero():
    inputs = {**X, "unused": np.ones((2, 2))}
    for side in gradient_sides(lambda xp: lambda x, unused: x.sum()):
        np.testing.assert_array_equal(side(inputs)["unused"], np.zeros((2, 2)))
    for side in gradient_sides(lambda xp: lambda x, unused: xp.sum(xp.ones_like(x) * 3)):
        np.testing.assert_array_equal(side(inputs)["x"], np.zeros(3))


def test_wrt_names_inputs_or_groups_of_them():
    inputs = {"params/w": np.array(2.0), "params/b": np.array(3.0), "x": np.array(5.0)}
    for side in gradient_sides(
        lambda xp: lambda params, x: params["w"] * x + params["b"], wrt=("params",)
    ):
        assert {name: float(slope) for name, slope in side(inputs).items()} == {
            "params/w": 5.0,
            "params/b": 1.0,
        }
    for side in gradient_sides(lambda xp: lambda **inputs: inputs["x"], wrt=("parms",)):
        with pytest.raises(ValueError, match=r"wrt has \['parms'\]"):
            side(inputs)


@pytest.mark.parametrize(
    ("cotangents", "says"),
    [
        ({}, "cotangent/value is missing"),
        ({"cotangent/value": np.ones(1)}, r"has shape \(1,\), accepted is the output's, \(3,\)"),
        ({"cotangent/y": np.ones(3)}, "cotangent/(y has no output|value is missing)"),
    ],
)
def test_cotangents_that_do_not_fit_are_an_error(cotangents, says):
    for side in gradient_sides(lambda xp: lambda x: 2 * x):
        with pytest.raises(ValueError, match=says):
            side({**X, **cotangents})


def test_sensitivities_are_those_of_scalar_outputs():
    def function(x, scale):
        return {"sum": (scale * x).sum(), "array": x, "constant": torch.ones(())}

    slopes = sides.torch_sensitivity(function)({**X, "scale": np.array(2.0)})
    assert list(slopes) == ["sum"]
    np.testing.assert_array_equal(slopes["sum"]["x"], np.full(3, 2.0))
    np.testing.assert_array_equal(slopes["sum"]["scale"], 0.0)


# --- arithmetic ----------------------------------------------------------------------------------


def keeps_subnormals():
    return (torch.tensor(1e-40) * 1).item() != 0


def rounds_to_nearest():
    # 1 + 2⁻⁵⁴ is 1 to nearest, and more upwards; 1 − 2⁻⁵⁵ is 1 to nearest, and less downwards.
    one = np.array([1.0])
    return bool((one + 2.0**-54 == 1)[0] and (one - 2.0**-55 == 1)[0])


def test_float32_runs_flush_subnormals_as_xla_does_and_float64_runs_do_not():
    halved = sides.torch_values(lambda x: x * 0.5)
    tiny = np.array([2.0**-126])
    assert halved({"x": tiny.astype(np.float32)})["value"] == 0
    assert halved({"x": tiny})["value"] != 0
    assert sides.jax_values(lambda x: x * 0.5)({"x": tiny.astype(np.float32)})["value"] == 0
    assert keeps_subnormals()


def test_torchs_settings_are_put_back_even_after_an_error():
    def failing(x):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError

    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for inputs in (X, single(X)):
            with pytest.raises(ZeroDivisionError):
                sides.torch_values(failing)(inputs)
            assert torch.get_num_threads() == 2
            assert keeps_subnormals()
        torch.set_flush_denormal(True)
        sides.torch_values(lambda x: x)(X)
        assert not keeps_subnormals()
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(num_threads)


def test_jaxs_precision_is_put_back():
    for inputs in (X, single(X)):
        sides.jax_values(lambda x: x)(inputs)
        assert jnp.ones(1).dtype == np.float32
    with sides.x64(True):
        sides.jax_values(lambda x: x)(single(X))
        assert jnp.ones(1).dtype == np.float64


def test_the_rounding_direction_is_set_and_put_back():
    directions = sides.rounding_directions()
    assert len(directions) == 3
    for direction in directions:
        with sides.rounding(direction):
            assert not rounds_to_nearest()
        assert rounds_to_nearest()
    with pytest.raises(ZeroDivisionError), sides.rounding(directions[0]):
        raise ZeroDivisionError
    assert rounds_to_nearest()
    with pytest.raises(RuntimeError, match="can't be set here"), sides.rounding(12345):
        pass


def test_other_roundings_move_results_and_nothing_else():
    runs = list(sides.torch_roundings(sides.torch_values(lambda x: (x / 3) * 3))(X))
    assert len(runs) == 8 + 3
    errors = [np.abs(run["value"] - X["x"]).max() for run in runs]
    assert max(errors) > 0
    assert max(errors) <= 6 * 2.0**-52 * 3
    assert rounds_to_nearest()


def test_other_roundings_leave_alone_what_computes_nothing():
    side = sides.torch_values(lambda x: x.reshape(1, 3).T.clone())
    for run in sides.torch_roundings(side)(X):
        np.testing.assert_array_equal(run["value"], X["x"][:, None])


def test_other_roundings_leave_alone_what_python_computes():
    """An optimizer's 1 − b2 is float64 in any precision: its cancellation is no float32 error."""
    side = sides.torch_values(lambda x: x * ((1 - 0.999) * 1000))
    for run in sides.torch_roundings(side)(X):
        assert np.abs(run["value"] - side(X)["value"]).max() <= 2 * 2.0**-52 * 3


def test_other_roundings_reach_the_additions_inside_one_operation():
    """log Σ exp of (0, −37) is 0 or 2e-16: only the processor can show that."""
    side = sides.torch_values(lambda x: torch.logsumexp(x, -1))
    runs = list(sides.torch_roundings(side)({"x": np.array([0.0, -37.0])}))
    values = {float(run["value"]) for run in runs[8:]}
    assert min(values) < 1e-16
    assert max(values) > 2e-16


def test_gradients_under_other_roundings_differ_by_rounding():
    side = sides.torch_gradients(lambda x: torch.tanh(x).sum())
    x = {"x": np.array([0.3])}
    slopes = [float(run["x"][0]) for run in sides.torch_roundings(side)(x)]
    assert 0 < np.ptp(slopes) < 1e-14
    assert jax.numpy.ones(1).dtype == np.float32
