"""Recorded programs that are run again: in NumPy, and as JAX itself would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parity.jax_side import x64
from parity.locate import in_numpy, jax_tape
from parity.locate.reruns import ALIKE

RNG = np.random.default_rng(27)
ROWS, OTHERS = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
CALLS = {
    "abs": jnp.abs,
    "add": lambda x: x + 2.0 * x,
    "and": lambda x: (x > 0) & (x < 1),
    "argmax": lambda x: jnp.argmax(x, axis=1),
    "argmin": lambda x: jnp.argmin(x, axis=0),
    "atan2": lambda x: jnp.arctan2(x, x[::-1]),
    "broadcast_in_dim": lambda x: jnp.broadcast_to(x[:, None], (4, 2, 3)),
    "cbrt": jnp.cbrt,
    "ceil": jnp.ceil,
    "clamp": lambda x: jax.lax.clamp(-0.5, x, 0.5),
    "concatenate": lambda x: jnp.concatenate([x, 2 * x], axis=1),
    "convert_element_type": lambda x: (x > 0).astype(x.dtype),
    "cos": jnp.cos,
    "cummax": lambda x: jax.lax.cummax(x, axis=1, reverse=True),
    "cumprod": lambda x: jax.lax.cumprod(x, axis=0),
    "cumsum": lambda x: jax.lax.cumsum(x, axis=1, reverse=True),
    "div": lambda x: x / (1 + x * x),
    "dot_general": lambda x: jnp.einsum("tbi,tki->kbt", jnp.stack([x, x * x]), x[None] + ROWS),
    "dynamic_slice": lambda x: jax.lax.dynamic_slice(x, (jnp.argmax(x[:, 0]), 1), (3, 2)),
    "dynamic_update_slice": lambda x: jax.lax.dynamic_update_slice(x, x[:2] * 5, (3, 0)),
    "eq": lambda x: jnp.floor(x) == 0,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "floor": jnp.floor,
    "ge": lambda x: x >= x[::-1],
    "gt": lambda x: x > 0.1,
    "integer_pow": lambda x: x**3,
    "is_finite": lambda x: jnp.isfinite(1 / jnp.maximum(x, 0)),
    "le": lambda x: x <= x[::-1],
    "log": lambda x: jnp.log(jnp.abs(x)),
    "log1p": lambda x: jnp.log1p(jnp.abs(x)),
    "logistic": jax.nn.sigmoid,
    "lt": lambda x: x < 0.1,
    "max": lambda x: jnp.maximum(x, x[::-1]),
    "min": lambda x: jnp.minimum(x, x[::-1]),
    "mul": lambda x: x * x[::-1],
    "ne": lambda x: jnp.floor(x) != 0,
    "neg": lambda x: -x,
    "not": lambda x: ~(x > 0),
    "or": lambda x: (x > 1) | (x < 0),
    "pow": lambda x: jnp.abs(x) ** jnp.exp(x),
    "reduce_and": lambda x: jnp.all(x > -1, axis=0),
    "reduce_max": lambda x: x.max(axis=1),
    "reduce_min": lambda x: x.min(axis=(0, 1)),
    "reduce_or": lambda x: jnp.any(x > 1, axis=1),
    "reduce_prod": lambda x: x.prod(axis=0),
    "reduce_sum": lambda x: x.sum(axis=0),
    "rem": lambda x: jax.lax.rem(x, jnp.full_like(x, 0.3)),
    "reshape": lambda x: x.reshape(2, 6),
    "rev": lambda x: x[:, ::-1],
    "rsqrt": lambda x: jax.lax.rsqrt(jnp.abs(x)),
    "select_n": lambda x: jnp.where(x > 0, x, 2 * x),
    "sign": jnp.sign,
    "sin": jnp.sin,
    "slice": lambda x: jax.lax.slice(x, (1, 0), (4, 3), (2, 1)),
    "split": lambda x: jnp.split(x, [1, 3])[1],
    "sqrt": lambda x: jnp.sqrt(jnp.abs(x)),
    "square": jnp.square,
    "squeeze": lambda x: jnp.squeeze(x[:, :1]),
    "stop_gradient": jax.lax.stop_gradient,
    "sub": lambda x: x - x[::-1],
    "tan": jnp.tan,
    "tanh": jnp.tanh,
    "transpose": lambda x: x.T,
    "xor": lambda x: (x > 0) ^ (x < 1),
}
OTHERWISE_NAMED = {"add_any", "copy", "copy_p", "expand_dims"}


def rerun(function, given, changed):
    """What comes of other rows: run again, as recorded anew, and the steps of the former."""
    runs = jax_tape.record_jax(lambda x: {"out": function(x)}, [{"x": given}, {"x": changed}])
    first, second = runs
    (place,), (wanted,) = first.recording.inputs.values(), first.recording.outputs.values()
    with x64(True):
        again = first.program.again({place: changed}, wanted)
    return np.asarray(again), second.recording.entries[wanted].array, first.program


@pytest.mark.parametrize("name", CALLS)
def test_a_primitive_comes_out_in_numpy_as_it_does_in_jax(name):
    again, right, program = rerun(CALLS[name], ROWS, OTHERS)
    np.testing.assert_allclose(again, right, rtol=ALIKE, atol=ALIKE)
    steps = [step for step in program.steps if step.name == name]
    assert steps
    assert all(program._function(step) is not None for step in steps)


def test_every_primitive_of_the_table_is_compared():
    assert {*in_numpy.SIMPLE, *in_numpy.WITH_PARAMETERS} == {*CALLS} | OTHERWISE_NAMED


def test_what_numpy_makes_otherwise_stays_jaxs_own(monkeypatch):
    monkeypatch.setitem(in_numpy.SIMPLE, "tanh", lambda x: np.tanh(x) + 1e-9)
    again, right, _ = rerun(lambda x: 2 * jnp.tanh(x), ROWS, OTHERS)
    np.testing.assert_allclose(again, right, rtol=ALIKE)


def test_loops_and_what_is_not_in_the_table_are_run_again():
    def summed(x):
        def turn(carry, row):
            return carry + jnp.sort(row), jax.nn.logsumexp(carry)

        last, sums = jax.lax.scan(turn, x[0], x[1:])
        return jnp.concatenate([last, sums])

    again, right, _ = rerun(summed, ROWS, OTHERS)
    np.testing.assert_allclose(again, right, rtol=ALIKE)


def test_random_keys_are_left_as_they_are():
    def noisy(x):
        key = jax.random.key(0)
        return x + jax.random.normal(jax.random.fold_in(key, 1), x.shape)

    again, right, _ = rerun(noisy, ROWS, OTHERS)
    np.testing.assert_allclose(again, right, rtol=ALIKE)
