"""`parity.check_pipeline` on whole algorithms that are right, and wrong in one stage or several."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

import parity
from tests.tools import pipelines
from tests.tools.pipelines import (
    CATEGORICAL_IN_JAX,
    CATEGORICAL_IN_TORCH,
    NORMAL_IN_JAX,
    NORMAL_IN_TORCH,
    jax_advantages,
    jax_clip,
    jax_env_step,
    jax_hidden,
    jax_init,
    jax_loss,
    jax_normal,
    jax_returns,
    jax_update,
)

CATEGORICAL = pipelines.inputs(["out"])
NORMAL = pipelines.inputs(["mu", "logvar"])
CHAINS = {"3 chained steps with update", "3 chained steps with sgd"}
ADAM_CHAINS = {"3 chained steps with adam", "3 chained steps with sgd"}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Right stages are the same programs in each pipeline here: XLA compiles each of them once."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def categorical(**wrong: Any) -> parity.Report:
    candidate = {**CATEGORICAL_IN_JAX, **wrong}
    return parity.check_pipeline(CATEGORICAL_IN_TORCH, candidate, CATEGORICAL)


def normal(**wrong: Any) -> parity.Report:
    return parity.check_pipeline(NORMAL_IN_TORCH, {**NORMAL_IN_JAX, **wrong}, NORMAL)


def parted(report: parity.Report) -> set[str]:
    return {each.stage for each in report.comparisons if not each.ok}


def first_leaves(report: parity.Report) -> dict[str, str]:
    """By stage, the leaf of the first mismatch."""
    return {c.stage: c.mismatches[0].leaf for c in report.comparisons if c.mismatches}


# --- right ports ---------------------------------------------------------------------------------


def test_a_right_port_of_the_categorical_agent_is_the_same_in_every_stage():
    report = categorical()
    report.assert_ok()
    assert [each.stage for each in report.comparisons] == [
        *[*CATEGORICAL_IN_TORCH][:8],
        "gradient",
        "clip",
        "update",
        "3 chained steps with update",
        "3 chained steps with sgd",
    ]
    by_stage = {each.stage: each for each in report.comparisons}
    assert {v.leaf for v in by_stage["gradient"].verdicts} == set(CATEGORICAL["params"])
    assert {v.dtype for v in by_stage["gradient"].verdicts} == {"float64", "float32"}
    assert {v.leaf for v in by_stage["3 chained steps with update"].verdicts} == {
        f"step {step}/{leaf}" for step in (1, 2, 3) for leaf in CATEGORICAL["params"]
    }
    assert {v.dtype for v in by_stage["3 chained steps with sgd"].verdicts} == {"float64"}


def test_a_right_port_of_the_normal_agent_is_the_same_and_adams_steps_are_compared():
    report = normal()
    report.assert_ok()
    update = next(each for each in report.comparisons if each.stage == "update")
    states = {verdict.leaf.partition("/")[0] for verdict in update.verdicts}
    assert states == {"change", "m", "v", "count"}


def test_other_formulas_of_the_same_quantities_are_the_same():
    def log_prob(network, sample):
        chosen = jax.nn.one_hot(sample, 2, dtype=network.dtype)
        return (network * chosen).sum(-1) - jax.nn.logsumexp(network, axis=-1)

    def returns(rewards, mask, discount):
        ahead = jnp.arange(5)[None, :] - jnp.arange(5)[:, None]
        weights = jnp.where(ahead >= 0, discount ** jnp.maximum(ahead, 0), 0).astype(rewards.dtype)
        return jnp.where(mask, weights @ jnp.where(mask, rewards, 0), 0)

    def advantages(returns, mask):
        return jnp.where(mask, (returns - returns.mean(where=mask)) / returns.std(where=mask), 0)

    def clip(gradients, max_norm):
        norm = optax.tree.norm(gradients)
        return jax.tree.map(
            lambda g: g * jnp.where(norm + 1e-6 > 0.5, 0.5 / (norm + 1e-6), 1), gradients
        )

    report = categorical(
        env_step=lambda state, push: dict(jax_env_step(state, push)._asdict()),
        network=lambda params, obs, mask: (
            jnp.einsum("tbh,ah->tba", jax_hidden(params, obs, mask), params["out.weight"])
            + params["out.bias"]
        ),
        sample=lambda network, noise: jnp.argmax(network + noise, axis=-1),
        log_prob=log_prob,
        returns=returns,
        advantages=advantages,
        loss=lambda log_prob, advantages, mask: (
            jnp.sum(jnp.where(mask, -log_prob * advantages, 0)) / 3
        ),
        clip=clip,
    )
    report.assert_ok()


# --- wrong stages --------------------------------------------------------------------------------


class Wrong(NamedTuple):
    """A stage that is wrong: the leaf that is named first, and the later stages it spoils."""

    why: str
    stage: str
    function: Any
    leaf: str = "value"
    spoils: tuple[str, ...] = ()
    is_chained: bool = True


def semi_implicit(state, push):
    after = jax_env_step(state, push)
    x = state[:, 0] + 0.02 * after.state[:, 1]
    return after._replace(state=after.state.at[:, 0].set(x))


def forgets_episode_ends(rewards, mask, discount):
    return jax_returns(jnp.where(mask, rewards, 1), mask | True, discount)


def multiplied_by_the_mask(rewards, mask, discount):
    return jax_returns(rewards * mask.astype(rewards.dtype), mask | True, discount)


def clip_each_tensor(gradients, max_norm):
    return {k: jax_clip({k: g}, max_norm)[k] for k, g in gradients.items()}


def update_with(**constants):
    def update(params, gradients, m, v, count):
        return jax_update(params, gradients, m, v, count, **constants)

    return update


def unlike_by(factor):
    return lambda log_prob, advantages, mask: factor * jax_loss(log_prob, advantages, mask)


def broadcast(log_prob, advantages, mask):
    weighted = log_prob[:, None] * advantages[:, :, None]
    return -jnp.where(mask[:, None], weighted, 0).sum((0, 1)).mean()


GRADIENT = ("gradient",)
NETWORK = {"leaf": "value", "spoils": GRADIENT}
ROUNDS = [
    [
        Wrong(
            "gravity of 10",
            "env_step",
            lambda state, push: jax_env_step(state, push, pipelines.PHYSICS._replace(gravity=10.0)),
            "state",
            is_chained=False,
        ),
        Wrong(
            "weights of half the spread",
            "init",
            jax_init(["out"], 0.5),
            "hidden.weight",
            is_chained=False,
        ),
        Wrong(
            "the noise is dropped",
            "sample",
            lambda network: jnp.argmax(network, -1),
            is_chained=True,
        ),
        Wrong(
            "another discount", "returns", lambda rewards, mask: jax_returns(rewards, mask, 0.99)
        ),
        Wrong("divides by n - 1", "advantages", partial(jax_advantages, ddof=1)),
        Wrong("clips each tensor", "clip", clip_each_tensor, "hidden.weight"),
        Wrong("first decay rate", "update", update_with(b1=0.8), "params/hidden.weight"),
    ],
    [
        Wrong(
            "never terminated",
            "env_step",
            partial(jax_env_step, terminates=False),
            "terminated",
            is_chained=False,
        ),
        Wrong(
            "one key used twice",
            "init",
            jax_init(["out"], shared=True),
            "hidden.bias",
            is_chained=False,
        ),
        Wrong("a mean over time", "loss", unlike_by(1 / 5), "value", GRADIENT),
        Wrong("the mask is multiplied by", "returns", multiplied_by_the_mask),
        Wrong(
            "statistics of the padding too",
            "advantages",
            lambda returns, mask: (returns - returns.mean()) / returns.std(),
        ),
        Wrong("no 1e-6 beside the norm", "clip", partial(jax_clip, eps=0.0), "hidden.weight"),
        Wrong("second decay rate", "update", update_with(b2=0.99), "params/hidden.weight"),
    ],
    [
        Wrong(
            "another limit",
            "env_step",
            lambda state, push: jax_env_step(state, push, pipelines.PHYSICS._replace(limit=0.15)),
            "terminated",
            is_chained=False,
        ),
        Wrong(
            "biases of zero", "init", jax_init(["out"], bias=False), "hidden.bias", is_chained=False
        ),
        Wrong(
            "relu for tanh",
            "network",
            lambda params, obs, mask: (
                jax.nn.relu(
                    jnp.where(mask[..., None], obs, 0) @ params["hidden.weight"].T
                    + params["hidden.bias"]
                )
                @ params["out.weight"].T
                + params["out.bias"]
            ),
            "value",
            GRADIENT,
        ),
        Wrong("returns go on past the end", "returns", forgets_episode_ends),
        Wrong("a sum over episodes", "loss", unlike_by(3), "value", GRADIENT),
        Wrong(
            "clips each entry",
            "clip",
            lambda gradients, max_norm: jax.tree.map(
                lambda g: jnp.clip(g, -max_norm / 5, max_norm / 5), gradients
            ),
            "hidden.weight",
        ),
        Wrong("epsilon", "update", update_with(eps=1e-5), "params/hidden.weight"),
    ],
    [
        Wrong("semi-implicit steps", "env_step", semi_implicit, "state", is_chained=False),
        Wrong(
            "the seed is not used",
            "init",
            lambda seed: jax_init(["out"])(3),
            "hidden.weight",
            is_chained=False,
        ),
        Wrong("(T, B) against (T, 1, B)", "loss", broadcast, "value", GRADIENT),
        Wrong(
            "probabilities for their logarithms",
            "log_prob",
            lambda network, sample: jnp.take_along_axis(
                jax.nn.softmax(network), sample[..., None], -1
            )[..., 0],
            "value",
            GRADIENT,
        ),
        Wrong(
            "not divided by the spread",
            "advantages",
            lambda returns, mask: jnp.where(mask, returns - returns.mean(where=mask), 0),
        ),
        Wrong(
            "epsilon inside the root",
            "update",
            update_with(eps=0, root_eps=1e-16),
            "params/hidden.weight",
        ),
    ],
    [
        Wrong("the sign", "loss", unlike_by(-1), "value", GRADIENT),
        Wrong("steps are counted twice", "update", update_with(step=2), "params/hidden.weight"),
        Wrong(
            "an axis more",
            "log_prob",
            lambda network, sample: jnp.take_along_axis(
                jax.nn.log_softmax(network), sample[..., None], -1
            ),
            "value",
            GRADIENT,
        ),
    ],
]


@pytest.mark.parametrize("wrong", ROUNDS, ids=range(len(ROUNDS)))
def test_each_wrong_stage_is_named_and_no_right_one(wrong):
    """Stages are fed by the reference, so several can be wrong at once and none hides another."""
    report = categorical(**{each.stage: each.function for each in wrong})
    expected = {each.stage for each in wrong} | {s for each in wrong for s in each.spoils}
    if any(each.is_chained for each in wrong):
        expected |= CHAINS
    assert parted(report) == expected
    named = first_leaves(report)
    assert {each.stage: named[each.stage] for each in wrong} == {
        each.stage: each.leaf for each in wrong
    }
    first = min((each.stage for each in wrong), key=[*CATEGORICAL_IN_TORCH].index)
    assert report.failures[0].stage == first
    assert f"first parts at stage {first!r}" in str(report)


def swapped_heads(params, obs, mask):
    loc, scale = jax_normal(params, obs, mask)
    return pipelines.NormalInJax(jnp.log(scale) * 2, jnp.exp(loc / 2))


def unsummed(network, sample):
    return network.log_prob(sample).mean(-1)


NORMAL_ROUNDS = {
    "no stop in the sample": [
        Wrong("", "sample", lambda loc, scale, noise: loc + scale * noise, "all", GRADIENT),
        Wrong("the action of the mean", "action", lambda loc: loc.argmax(-1), is_chained=False),
    ],
    "no constant in the log-probability": [
        # A constant has no gradient, and reaches no parameter.
        Wrong(
            "",
            "log_prob",
            lambda network, sample: network.log_prob(sample, 0.0).sum(-1),
            is_chained=False,
        ),
    ],
    "the heads are swapped": [Wrong("", "network", swapped_heads, "loc", GRADIENT)],
    "a mean over dimensions": [Wrong("", "log_prob", unsummed, "value", GRADIENT)],
}


@pytest.mark.parametrize("name", NORMAL_ROUNDS)
def test_each_wrong_stage_of_the_normal_agent_is_named_and_no_right_one(name):
    wrong = NORMAL_ROUNDS[name]
    report = normal(**{each.stage: each.function for each in wrong}, init=lambda seed: seed)
    # (The initialisation is wrong as well, so that its draws take no time.)
    expected = {"init"} | {e.stage for e in wrong} | {s for e in wrong for s in e.spoils}
    if any(each.is_chained for each in wrong):
        expected |= ADAM_CHAINS
    if name == "no stop in the sample":
        expected -= {"sample"}  # its values are right: the gradient shows it (trap C04)
        wrong = [each for each in wrong if each.stage != "sample"]
    assert parted(report) == expected
    named = first_leaves(report)
    assert [named[each.stage] for each in wrong] == [each.leaf for each in wrong]
