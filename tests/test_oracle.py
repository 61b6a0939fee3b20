"""The oracle itself, against mpmath with 400 digits and against hand-made cases.

Its gradients are held against finite differences, taken in the same digits, of the loss as the
conventions define it.
"""

import math

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from parity import oracle

AGENTS = pytest.mark.parametrize("agent", ["reinforce", "reparam"])
DIGITS = 400
"""e^−700 is 1e-304, and 1 + e^−700 must not round to 1."""


@pytest.fixture(autouse=True)
def many_digits():
    with mp.workdps(DIGITS):
        yield


# --- distributions -------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0, 1e-9, 0.5, 15, 36, 37, 40, 95, 400, 700])
@pytest.mark.parametrize("others", [1, 2])
def test_categorical_log_probs_and_entropies_keep_their_digits(gap, others):
    logits = np.array([2.0, *[2.0 - gap] * others])
    p = [mpmath.exp(mpf(x)) for x in logits]
    p = [x / sum(p) for x in p]
    expected = [mpmath.log(x) for x in p]
    for a, log_p in enumerate(expected):
        found = oracle.categorical_log_prob(logits, np.asarray(a))
        assert relative(found, log_p) < 1e-15
    entropy = -sum(x * log_x for x, log_x in zip(p, expected, strict=True))
    # H ≈ p (1 + gap): an error of ε in gap is one of ε·gap in p = e^−gap.
    assert relative(oracle.categorical_entropy(logits), entropy) < 1e-15 * (2 + gap)


def test_equal_logits_have_the_entropy_of_a_fair_choice():
    assert oracle.categorical_entropy(np.full(3, 7.0)) == pytest.approx(math.log(3), rel=1e-15)


def test_the_first_index_wins_a_tie():
    logits, noise = np.array([[0.0, 1.0, 1.0], [2.0, 2.0, 0.0]]), np.zeros((2, 3))
    np.testing.assert_array_equal(oracle.categorical_sample(logits, noise), [1, 0])
    np.testing.assert_array_equal(oracle.action("reparam", logits), [1, 0])


def test_gumbel_noise_decides_by_log_p_plus_noise():
    logits = np.log(np.array([0.2, 0.3, 0.5]))
    noise = np.array([1.0, 0.0, 0.0])  # log .2 + 1 = −.61 beats log .5 = −.69
    assert oracle.categorical_sample(logits, noise) == 0


def test_a_normal_is_the_sum_over_its_dimensions():
    loc, scale = np.array([0.1, -2.0]), np.array([0.5, 3.0])
    sample = oracle.normal_sample(loc, scale, np.array([1.5, -0.25]))
    np.testing.assert_array_equal(sample, [0.85, -2.75])
    density = mpmath.fprod(
        mpmath.npdf(mpf(z), mpf(mu), mpf(std))
        for z, mu, std in zip(sample, loc, scale, strict=True)
    )
    assert relative(oracle.normal_log_prob(loc, scale, sample), mpmath.log(density)) < 1e-14
    entropy = sum(mpmath.log(mpf(std) * mpmath.sqrt(2 * mp.pi * mp.e)) for std in scale)
    assert relative(oracle.normal_entropy(loc, scale), entropy) < 1e-15


# --- returns, advantages, loss -------------------------------------------------------------------


def test_returns_by_hand():
    rewards = np.array([[1.0, 1.0], [2.0, np.nan], [4.0, np.nan]])
    mask = np.array([[True, True], [True, False], [True, False]])
    expected = [[1 + 0.5 * (2 + 0.5 * 4), 1], [2 + 0.5 * 4, 0], [4, 0]]
    np.testing.assert_array_equal(oracle.discounted_returns(rewards, mask, 0.5), expected)


def test_advantages_by_hand():
    returns = np.array([[1.0, 5.0], [3.0, np.nan]])
    mask = np.array([[True, True], [True, False]])
    # Episode 0: mean 2, population deviation 1. Episode 1 has one step.
    expected = [[-1.0, 0.0], [1.0, 0.0]]
    np.testing.assert_allclose(oracle.advantages(returns, mask, "episode"), expected, rtol=1e-15)
    # The batch: 1, 3, 5 with mean 3 and variance 8/3.
    batch = np.array([[-2.0, 2.0], [0.0, 0.0]]) / math.sqrt(8 / 3)
    np.testing.assert_allclose(oracle.advantages(returns, mask, "batch"), batch, rtol=1e-15)
    none = [[1.0, 5.0], [3.0, 0.0]]
    np.testing.assert_array_equal(oracle.advantages(returns, mask, "none"), none)


@pytest.mark.parametrize(("spread", "is_degenerate"), [(0.99e-5, True), (1.01e-5, False)])
@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_a_spread_of_1e_5_of_the_largest_return_is_none(spread, is_degenerate, scale):
    returns = scale * np.array([[1.0], [1.0 - 2 * spread]])  # deviation: spread · scale
    advantages = oracle.advantages(returns, np.ones((2, 1), bool), "episode")
    assert (advantages == 0).all() == is_degenerate
    if not is_degenerate:
        np.testing.assert_allclose(advantages, [[1.0], [-1.0]], rtol=1e-9)


def test_the_loss_is_summed_over_time_and_averaged_over_episodes():
    log_probs = np.array([[-1.0, -2.0], [-3.0, np.nan]])
    advantages = np.array([[1.0, 10.0], [100.0, np.nan]])
    mask = np.array([[True, True], [True, False]])
    assert oracle.reinforce_loss(log_probs, advantages, mask) == (1 + 300 + 20) / 2


# --- gradients -----------------------------------------------------------------------------------


@AGENTS
@pytest.mark.parametrize("weights", [1.0, 12.0])
def test_gradients_equal_finite_differences(agent, weights):
    """With weights of 12 the policies saturate: their slopes are tiny, and exact all the same."""
    rng = np.random.default_rng(5)
    params, inputs = small_network(agent, rng, weights), small_batch(agent, rng)
    if agent == "reinforce" and weights > 1:
        # The likely actions: their slope 1 − p is lost where p rounds to 1.
        inputs["sample"] = np.argmax(oracle.network(agent, params, inputs["obs"])["logits"], -1)
    gradients = oracle.reinforce_gradient(agent, params, **inputs)
    assert set(gradients) == set(params)
    step = mpf(10) ** -100
    for name, gradient in gradients.items():
        assert gradient.shape == params[name].shape
        for at in np.ndindex(gradient.shape):
            above, below = (exact_loss(agent, params, inputs, name, at, s) for s in (step, -step))
            slope = (above - below) / (2 * step)
            scale = max(abs(slope), mpf(float(np.abs(gradient).max())) / 100)
            assert abs(mpf(float(gradient[at])) - slope) <= 1e-12 * scale, (name, at)


@AGENTS
def test_the_network_is_what_the_conventions_say(agent):
    rng = np.random.default_rng(6)
    params, inputs = small_network(agent, rng, 1.0), small_batch(agent, rng)
    found = oracle.network(agent, params, inputs["obs"])
    for at in np.ndindex(inputs["mask"].shape):
        for name, expected in exact_network(agent, exact(params), inputs["obs"][at]).items():
            for x, y in zip(found[name][at], expected, strict=True):
                assert relative(x, y) < 1e-14


def test_what_is_outside_the_mask_is_never_looked_at():
    rng = np.random.default_rng(7)
    params, inputs = small_network("reparam", rng, 1.0), small_batch("reparam", rng)
    outside = ~inputs["mask"]
    assert outside.any()
    spoilt = {name: array.copy() for name, array in inputs.items()}
    for name in ("obs", "sample", "advantages"):
        spoilt[name][outside] = np.nan
    expected = oracle.reinforce_gradient("reparam", params, **inputs)
    for name, gradient in oracle.reinforce_gradient("reparam", params, **spoilt).items():
        np.testing.assert_array_equal(gradient, expected[name])


# --- optimizer and CartPole ----------------------------------------------------------------------


def test_clipping_leaves_small_gradients_and_scales_large_ones_together():
    gradients = {"a": np.array([3.0]), "b": np.array([[0.0, 4.0]])}
    assert oracle.global_norm(gradients) == 5
    np.testing.assert_array_equal(oracle.clip_by_global_norm(gradients, 6.0)["a"], [3.0])
    clipped = oracle.clip_by_global_norm(gradients, 1.0)
    np.testing.assert_array_equal(clipped["b"], [[0.0, 4.0 / (5 + 1e-6)]])


def test_adams_first_steps_by_hand():
    start = {"w": np.array([1.0])}
    zeros = {"w": np.zeros(1)}
    # After one step m̂ = g and v̂ = g²: the parameter moves by lr · g / (|g| + eps).
    first = oracle.adam_step(start, {"w": np.array([-3.0])}, zeros, zeros, 0, learning_rate=0.1)
    assert first.params["w"][0] == pytest.approx(1 + 0.1 * 3 / (3 + 1e-8), rel=1e-14)
    assert (first.m["w"][0], first.count) == (pytest.approx(-0.3, rel=1e-15), 1)
    assert first.v["w"][0] == pytest.approx(0.009, rel=1e-13)
    # The second: m = .9(−.3) + .1(1), v = .999(.009) + .001(1), corrected by .19 and .001999.
    second = oracle.adam_step(
        first.params, {"w": np.array([1.0])}, first.m, first.v, first.count, learning_rate=0.1
    )
    m_hat, v_hat = (0.9 * -0.3 + 0.1) / 0.19, (0.999 * 0.009 + 0.001) / 0.001999
    moved = -0.1 * m_hat / (math.sqrt(v_hat) + 1e-8)
    assert second.params["w"][0] - first.params["w"][0] == pytest.approx(moved, rel=1e-12)


def test_an_upright_cart_that_is_pushed_rolls_and_tips_back():
    # At rest, upright: θ'' = −(F/M) / (l (4/3 − m/M)), x'' = F/M − m l θ'' / M.
    theta_acc = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    x_acc = 10 / 1.1 - 0.05 * theta_acc / 1.1
    step = oracle.cartpole_step(np.zeros(4), 1)
    expected = [0.0, 0.02 * x_acc, 0.0, 0.02 * theta_acc]
    np.testing.assert_allclose(step.state, expected, rtol=1e-15)
    assert (step.reward, step.terminated, step.obs.dtype) == (1.0, False, np.float32)
    assert oracle.cartpole_step(np.array([2.39, 1.0, 0.0, 0.0]), 0).terminated
    assert oracle.cartpole_step(np.array([0.0, 0.0, -0.2, -1.0]), 0).terminated


# --- the same in 400 digits ----------------------------------------------------------------------


def relative(found, expected):
    return abs(mpf(float(found)) - expected) / abs(expected)


def small_network(agent, rng, scale):
    """3 inputs, hidden layers of 4 and 3, 2 actions."""
    layers = {"linear1": (4, 3), "linear2": (3, 4)}
    heads = ("linear3",) if agent == "reinforce" else ("mu_linear", "logvar_linear")
    params = {}
    for layer, (outputs, inputs) in (layers | dict.fromkeys(heads, (2, 3))).items():
        params[f"{layer}.weight"] = scale * rng.normal(size=(outputs, inputs))
        params[f"{layer}.bias"] = scale * rng.normal(size=outputs)
    return params


def small_batch(agent, rng):
    mask = np.array([[True, True], [True, False], [True, False]])
    z = rng.normal(size=(3, 2, 2))
    return {
        "obs": rng.normal(size=(3, 2, 3)),
        "sample": np.argmax(z, -1) if agent == "reinforce" else z,
        "advantages": rng.normal(size=(3, 2)),
        "mask": mask,
    }


def exact(params):
    return {name: mpmath.matrix(tensor.tolist()) for name, tensor in params.items()}


def exact_network(agent, params, obs):
    def linear(layer, x):
        y = params[f"{layer}.weight"] * x
        return [y[i] + params[f"{layer}.bias"][i] for i in range(len(y))]

    x = mpmath.matrix(obs.tolist())
    for layer in ("linear1", "linear2"):
        x = mpmath.matrix([max(mpf(0), y) for y in linear(layer, x)])
    if agent == "reinforce":
        return {"logits": linear("linear3", x)}
    return {
        "loc": [mpmath.tanh(y) for y in linear("mu_linear", x)],
        "scale": [mpmath.exp(mpmath.tanh(y) / 2) for y in linear("logvar_linear", x)],
    }


def exact_loss(agent, params, inputs, name, at, step):
    """−(1/B) Σ log π · A, with one entry of one tensor moved by `step`."""
    tensors = exact(params)
    tensors[name][at if len(at) == 2 else at[0]] += step
    mask, total = inputs["mask"], mpf(0)
    for t, b in zip(*np.nonzero(mask), strict=True):
        dist = exact_network(agent, tensors, inputs["obs"][t, b])
        sample = inputs["sample"][t, b]
        if agent == "reinforce":
            x = dist["logits"]
            log_prob = x[sample] - mpmath.log(sum(mpmath.exp(y) for y in x))
        else:
            log_prob = sum(
                -(((mpf(float(z)) - mu) / std) ** 2) / 2
                - mpmath.log(std)
                - mpmath.log(2 * mp.pi) / 2
                for mu, std, z in zip(dist["loc"], dist["scale"], sample, strict=True)
            )
        total += log_prob * mpf(float(inputs["advantages"][t, b]))
    return -total / mask.shape[1]
