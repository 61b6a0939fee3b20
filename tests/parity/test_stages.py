"""Every stage of the algorithm: JAX against PyTorch against the oracle, in float64 and float32.

Each stage is fed the float64 reference's result of the stage before.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import hazards
from parity.strategies import SEEDS
from tests.parity import stages

AGENTS = pytest.mark.parametrize("agent", stages.AGENTS)
SCOPES = pytest.mark.parametrize("scope", stages.SCOPES)
shapes = st.sampled_from(hazards.EPISODES)
sizes = st.sampled_from(hazards.SIZES)
runs = st.sampled_from(hazards.RUNS)
laws = st.sampled_from(hazards.LAWS)
half = settings(max_examples=max(settings.default.max_examples // 2, 10))


def one_of(names):
    return st.sampled_from(names)


@AGENTS
@half
@given(seed=SEEDS, run=runs, weights=one_of(hazards.PARAMS))
def test_both_networks_compute_the_same_distribution(agent, seed, run, weights):
    size, shape = run
    rng = np.random.default_rng(seed)
    inputs = {"obs": rng.normal(size=(*shape, size.obs_dim))}
    inputs |= prefixed("params", hazards.params(rng, agent, size, weights))
    stages.network(agent, size).check(inputs).assert_ok()


@given(seed=SEEDS, shape=laws, logits=one_of(hazards.LOGITS), noise=one_of(hazards.NOISES))
def test_a_categorical_is_sampled_the_same(seed, shape, logits, noise):
    rng = np.random.default_rng(seed)
    stages.sample("reinforce").check(
        {
            "logits": hazards.logits(rng, shape, logits),
            "noise": hazards.noise(rng, "reinforce", shape, noise),
        }
    ).assert_ok()


@given(seed=SEEDS, shape=laws, law=one_of(hazards.NORMALS), noise=one_of(hazards.NOISES))
def test_a_normal_is_sampled_the_same(seed, shape, law, noise):
    rng = np.random.default_rng(seed)
    drawn = hazards.normal(rng, shape, law)
    noise = hazards.noise(rng, "reparam", shape, noise)
    inputs = {"loc": drawn["loc"], "scale": drawn["scale"], "noise": noise}
    stages.sample("reparam").check(inputs).assert_ok()


@given(seed=SEEDS, shape=laws, num_values=one_of(hazards.TIES))
def test_the_first_of_equal_dimensions_is_the_action(seed, shape, num_values):
    sample = hazards.ties(np.random.default_rng(seed), shape, num_values)
    comparison = stages.action("reparam").check({"sample": sample})
    comparison.assert_ok()
    assert comparison.ties == 0


@given(seed=SEEDS, shape=laws, num_values=one_of(hazards.TIES))
def test_the_first_of_equally_likely_actions_is_greedily_taken(seed, shape, num_values):
    logits = hazards.ties(np.random.default_rng(seed), shape, num_values)
    comparison = GREEDY.check({"logits": logits, "noise": np.zeros(shape)})
    comparison.assert_ok()
    assert comparison.ties == 0


GREEDY = stages.sample("reinforce")._replace(decided_by={})  # no tie is excused


@half
@given(seed=SEEDS, shape=laws, logits=one_of(hazards.LOGITS))
def test_categorical_log_probs_entropies_and_their_gradients_agree(seed, shape, logits):
    rng = np.random.default_rng(seed)
    logits = hazards.logits(rng, shape, logits)
    sample = rng.integers(shape[-1], size=shape[:-1]).astype(np.int32)
    log_prob, entropy = stages.log_prob("reinforce"), stages.entropy("reinforce")
    log_prob.check({"logits": logits, "sample": sample}).assert_ok()
    entropy.check({"logits": logits}).assert_ok()
    log_prob.check_gradient({"logits": logits, "sample": sample}, ("logits",)).assert_ok()
    entropy.check_gradient({"logits": logits}, ("logits",)).assert_ok()


@half
@given(seed=SEEDS, shape=laws, law=one_of(hazards.NORMALS))
def test_normal_log_probs_entropies_and_their_gradients_agree(seed, shape, law):
    inputs = hazards.normal(np.random.default_rng(seed), shape, law)
    parts = {"loc": inputs["loc"], "scale": inputs["scale"]}
    log_prob, entropy = stages.log_prob("reparam"), stages.entropy("reparam")
    log_prob.check(inputs).assert_ok()
    entropy.check(parts).assert_ok()
    log_prob.check_gradient(inputs, ("loc", "scale")).assert_ok()
    entropy.check_gradient(parts, ("scale",)).assert_ok()


@given(
    seed=SEEDS,
    shape=shapes,
    mask=one_of(hazards.MASKS),
    reward=one_of(hazards.REWARDS),
    discount=one_of(hazards.DISCOUNTS),
    padding=one_of(hazards.PADDINGS),
)
def test_returns_agree_whatever_the_padding_holds(seed, shape, mask, reward, discount, padding):
    rng = np.random.default_rng(seed)
    mask = hazards.mask(rng, shape, mask)
    rewards = hazards.rewards(rng, mask, discount, reward)
    inputs = {"rewards": hazards.padded(rng, rewards, mask, padding), "mask": mask}
    outside = {"rewards": ~mask}
    stages.episode_returns().check(inputs, padding=outside).assert_ok()
    inputs["discount"] = discount
    stage = stages.returns()
    stage.check(inputs, padding=outside).assert_ok()
    stage.check_gradient(inputs, ("rewards",), padding=outside).assert_ok()


@SCOPES
@given(
    seed=SEEDS,
    shape=shapes,
    mask=one_of(hazards.MASKS),
    reward=one_of(hazards.REWARDS),
    discount=one_of(hazards.DISCOUNTS),
    padding=one_of(hazards.PADDINGS),
)
def test_advantages_agree_whatever_the_padding_holds(
    scope, seed, shape, mask, reward, discount, padding
):
    rng = np.random.default_rng(seed)
    mask = hazards.mask(rng, shape, mask)
    rewards = hazards.rewards(rng, mask, discount, reward)
    before = {"rewards": rewards, "mask": mask, "discount": discount}
    returns = stages.returns().reference(before)["value"]
    inputs = {"returns": hazards.padded(rng, returns, mask, padding), "mask": mask}
    outside = {"returns": ~mask}
    stage = stages.advantages(scope)
    stage.check(inputs, padding=outside).assert_ok()
    stage.check_gradient(inputs, ("returns",), padding=outside).assert_ok()


@given(
    seed=SEEDS,
    shape=shapes,
    mask=one_of(hazards.MASKS),
    padding=one_of(hazards.PADDINGS),
    log_scale=st.integers(-20, 20),
)
def test_the_loss_agrees_whatever_the_padding_holds(seed, shape, mask, padding, log_scale):
    rng = np.random.default_rng(seed)
    mask = hazards.mask(rng, shape, mask)
    log_probs, advantages = rng.normal(size=shape) - 1, 10.0**log_scale * rng.normal(size=shape)
    inputs = {
        "log_probs": hazards.padded(rng, log_probs, mask, padding),
        "advantages": hazards.padded(rng, advantages, mask, padding),
        "mask": mask,
    }
    outside = {"log_probs": ~mask, "advantages": ~mask}
    stage = stages.loss()
    stage.check(inputs, padding=outside).assert_ok()
    stage.check_gradient(inputs, ("log_probs", "advantages"), padding=outside).assert_ok()


@AGENTS
@half
@given(
    seed=SEEDS,
    run=runs,
    weights=one_of(hazards.PARAMS),
    mask=one_of(hazards.MASKS),
    scope=one_of(stages.SCOPES),
)
def test_the_gradient_of_every_parameter_agrees(agent, seed, run, weights, mask, scope):
    size, shape = run
    inputs = gradient_inputs(agent, seed, size, shape, weights, mask, scope)
    # Where all units stand exactly at the kink, a nudge of zero would turn them on.
    exact_zeros = ("params",) if weights == "kink" else ()
    comparison = stages.gradient(agent, size).check(inputs, exact_zeros=exact_zeros)
    comparison.assert_ok()
    leaves = {verdict.leaf for verdict in comparison.verdicts}
    assert leaves == {name for name in inputs if name.startswith("params/")}


@half
@given(
    seed=SEEDS,
    size=sizes,
    hazard=one_of(hazards.GRADIENTS),
    norm=one_of(hazards.NORMS),
    max_norm=one_of((0.5, 1e-5)),
)
def test_gradients_are_clipped_the_same(seed, size, hazard, norm, max_norm):
    rng = np.random.default_rng(seed)
    drawn = hazards.gradients(rng, hazards.params(rng, "reparam", size, "initial"), hazard)
    inputs = prefixed("gradients", hazards.with_norm(drawn, norm * max_norm))
    stages.clip(max_norm).check(inputs).assert_ok()


@half
@given(
    seed=SEEDS,
    size=sizes,
    hazard=one_of(hazards.GRADIENTS),
    count=one_of(hazards.COUNTS),
    learning_rate=one_of((1e-3, 0.5)),
)
def test_one_adam_step_agrees(seed, size, hazard, count, learning_rate):
    inputs = adam_inputs(seed, size, hazard, count)
    stages.update(learning_rate).check(inputs).assert_ok()


def test_adams_constants_arrive():
    stage = stages.update(1e-2, b1=0.7, b2=0.9, eps=1e-3)
    for count in (0, 3):
        stage.check(adam_inputs(1, hazards.SIZES[1], "normal", count)).assert_ok()


# --- inputs --------------------------------------------------------------------------------------


def prefixed(name, arrays):
    return {f"{name}/{key}": array for key, array in arrays.items()}


def gradient_inputs(agent, seed, size, shape, weights, mask, scope):
    """The gradient stage's inputs: samples and advantages as the float64 reference makes them."""
    rng = np.random.default_rng(seed)
    params = prefixed("params", hazards.params(rng, agent, size, weights))
    batch = hazards.batch(
        rng, agent, size, shape, mask_hazard=mask, reward_hazard="normal", discount=0.9
    )
    dist = stages.network(agent, size).reference({**params, "obs": batch.obs})
    noise = hazards.noise(rng, agent, (*shape, size.num_actions), "usual")
    sample = stages.sample(agent).reference({**dist, "noise": noise})["sample"]
    running = batch.mask if sample.ndim == 2 else batch.mask[..., None]
    before = {"rewards": batch.reward, "mask": batch.mask, "discount": 0.9}
    returns = stages.returns().reference(before)["value"]
    advantages = stages.advantages(scope).reference({"returns": returns, "mask": batch.mask})
    return {
        **params,
        "obs": batch.obs,
        "sample": np.where(running, sample, 0),
        "advantages": advantages["value"],
        "mask": batch.mask,
    }


def adam_inputs(seed, size, hazard, count):
    """Gradients and Adam's state after `count` steps with gradients of that kind."""
    rng = np.random.default_rng(seed)
    shapes = hazards.params(rng, "reparam", size, "initial")
    drawn = hazards.gradients(rng, shapes, hazard)
    # After t steps the moments are at most 1 − βᵗ times those of the gradients.
    m = {k: (1 - 0.9**count) * rng.uniform(-1, 1, g.shape) * abs(g) for k, g in drawn.items()}
    v = {k: (1 - 0.999**count) * rng.uniform(0.1, 1, g.shape) * g**2 for k, g in drawn.items()}
    inputs = prefixed("gradients", drawn) | prefixed("m", m) | prefixed("v", v)
    return inputs | {"count": np.asarray(count, np.int32)}
