"""What the comparison of stages is worth: known wrong variants, put in from outside.

Each variant replaces one thing in one package; the stage that it belongs to must report it, on
inputs on which the right code passes.
"""

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import pgjax.distributions
import pgjax.losses
import pgjax.optim
import pgjax.returns
import pgtorch.returns
from parity import hazards
from parity.hazards import SIZES
from parity.tolerance import Comparison
from pgcore.config import TrainConfig
from tests.parity import stages, test_stages, test_updates

# --- the stages, on inputs that show -------------------------------------------------------------
# Eager: a variant is not compiled, and nothing compiled before it is used.


def returns() -> Comparison:
    return stages.returns().check(
        {"rewards": REWARDS, "mask": MASK, "discount": 0.5},
        jit=False,
        padding={"rewards": ~MASK},
    )


def advantages(scope: str) -> Comparison:
    return stages.advantages(scope).check(
        {"returns": REWARDS, "mask": MASK}, jit=False, padding={"returns": ~MASK}
    )


def per_episode() -> Comparison:
    return advantages("episode")


def per_batch() -> Comparison:
    return advantages("batch")


def equal_returns() -> Comparison:
    returns = np.where(MASK, 3.7 * (1 + 1e-7 * np.arange(MASK.size).reshape(MASK.shape)), 0.0)
    return stages.advantages("episode").check({"returns": returns, "mask": MASK}, jit=False)


def loss() -> Comparison:
    return stages.loss().check(*loss_inputs(), jit=False, padding=LOSS_PADDING)


def loss_gradient() -> Comparison:
    wrt = ("log_probs", "advantages")
    return stages.loss().check_gradient(*loss_inputs(), wrt, jit=False, padding=LOSS_PADDING)


def categorical_log_prob() -> Comparison:
    rng = np.random.default_rng(1)
    logits = hazards.logits(rng, (5, 5, 3), "saturated")
    sample = rng.integers(3, size=(5, 5)).astype(np.int32)
    return stages.log_prob("reinforce").check({"logits": logits, "sample": sample}, jit=False)


def categorical_entropy() -> Comparison:
    logits = hazards.logits(np.random.default_rng(1), (5, 5, 3), "normal")
    return stages.entropy("reinforce").check({"logits": logits}, jit=False)


def categorical_sample() -> Comparison:
    rng = np.random.default_rng(1)
    logits, noise = hazards.logits(rng, (5, 5, 3), "normal"), rng.gumbel(size=(5, 5, 3))
    return stages.sample("reinforce").check({"logits": logits, "noise": noise}, jit=False)


def normal_action() -> Comparison:
    ties = np.random.default_rng(1).integers(2, size=(5, 5, 3)).astype(float)
    return stages.action("reparam").check({"sample": ties}, jit=False)


def normal_log_prob() -> Comparison:
    inputs = hazards.normal(np.random.default_rng(1), (5, 5, 3), "usual")
    return stages.log_prob("reparam").check(inputs, jit=False)


def network() -> Comparison:
    rng = np.random.default_rng(1)
    params = hazards.params(rng, "reparam", SIZES[1], "initial")
    inputs = {"obs": rng.normal(size=(5, 5, 5)), **test_stages.prefixed("params", params)}
    return stages.network("reparam", SIZES[1]).check(inputs, jit=False)


def gradient() -> Comparison:
    inputs = test_stages.gradient_inputs(
        "reparam", 1, SIZES[1], (5, 5), "initial", "ragged", "batch"
    )
    return stages.gradient("reparam", SIZES[1]).check(inputs, jit=False)


def clip() -> Comparison:
    drawn = hazards.gradients(np.random.default_rng(1), TENSORS, "normal")
    return stages.clip(0.5).check(test_stages.prefixed("gradients", drawn), jit=False)


def update(count: int = 2) -> Comparison:
    return stages.update(1e-2).check(
        test_stages.adam_inputs(1, SIZES[1], "normal", count), jit=False
    )


def first_update() -> Comparison:
    return update(count=0)


def update_step() -> Comparison:
    config = TrainConfig(agent="reparam", max_grad_norm=0.3)
    inputs, outside = test_updates.update_inputs(
        config, SIZES[1], [1], (5, 5), "ragged", "normal", "nan"
    )
    return test_updates.check(config, SIZES[1], inputs, padding=outside, jit=False)


RNG = np.random.default_rng(0)
MASK = hazards.mask(RNG, (24, 2), "one_short")
REWARDS = hazards.padded(RNG, RNG.normal(size=(24, 2)) + 1, MASK, "nan")
TENSORS = hazards.params(RNG, "reparam", SIZES[1], "initial")
LOSS_PADDING = {"log_probs": ~MASK, "advantages": ~MASK}


def loss_inputs() -> tuple[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    log_probs, advantages = rng.normal(size=MASK.shape) - 1, rng.normal(size=MASK.shape)
    padded = hazards.padded
    return (
        {
            "log_probs": padded(rng, log_probs, MASK, "nan"),
            "advantages": padded(rng, advantages, MASK, "nan"),
            "mask": MASK,
        },
    )


# --- variants ------------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Variant(NamedTuple):
    name: str
    caught_by: Callable[[], Comparison]
    patch: Patch


def replacing(owner: Any, name: str, wrong: Callable) -> Patch:
    """Puts `wrong(right)` in the place of `owner.name`."""
    return lambda monkeypatch: monkeypatch.setattr(owner, name, wrong(getattr(owner, name)))


def in_returns(wrong: Callable) -> Patch:
    return replacing(pgjax.returns, "discounted_returns", lambda right: wrong)


def in_advantages(wrong: Callable, package: Any = pgjax.returns) -> Patch:
    return replacing(package, "normalize_returns", lambda right: wrong)


def in_loss(wrong: Callable) -> Patch:
    return replacing(pgjax.losses, "reinforce_loss", lambda right: wrong)


def in_normal(wrong: Callable) -> Patch:
    return replacing(pgjax.distributions.Normal, "log_prob", wrong)


def in_categorical(method: str, wrong: Callable) -> Patch:
    return replacing(pgjax.distributions.Categorical, method, lambda right: wrong)


def in_train(name: str, wrong: Callable) -> Patch:
    return replacing(sys.modules["pgjax.train"], name, wrong)


def in_adam(wrong: Callable) -> Patch:
    return replacing(pgjax.optim, "adam", wrong)


def recursion(step: Callable, clean: Callable) -> Callable:
    def discounted_returns(rewards, mask, discount):
        following, rows = jnp.zeros_like(rewards[0]), []
        for reward, running in zip(clean(rewards, mask)[::-1], mask[::-1], strict=True):
            following, row = step(reward, running, following, discount)
            rows.append(row)
        return jnp.stack(rows[::-1])

    return discounted_returns


def zeroed(array, mask):
    return jnp.where(mask, array, 0)


def multiplied(array, mask):
    # JAX makes `array * mask` a selection if the mask is boolean; with numbers NaN · 0 is NaN.
    return array * mask.astype(array.dtype)


def shifted_reward(reward, running, following, discount):
    """G_t = γ (r_t + G_{t+1})."""
    row = jnp.where(running, discount * (reward + following), 0)
    return row, row


def later_rewards_only(reward, running, following, discount):
    """G_t = γ G_{t+1}, with r_t left to the step before."""
    return jnp.where(running, reward + discount * following, 0), jnp.where(
        running, discount * following, 0
    )


def plain(reward, running, following, discount):
    row = reward + discount * following
    return row, row


def divided_by_powers(rewards, mask, discount):
    powers = discount ** jnp.arange(len(rewards))[:, None]
    terms = zeroed(rewards, mask) * powers
    before = jnp.cumsum(terms, axis=0) - terms
    return zeroed((terms.sum(0) - before) / powers, mask)


def not_reset(rewards, mask, discount):
    """The return runs on from one episode into the one beside it."""
    flat = rewards.T.reshape(-1, 1), mask.T.reshape(-1, 1)
    running = recursion(lambda r, m, g, d: (g * d + r, g * d + r), zeroed)(*flat, discount)
    return zeroed(running.reshape(rewards.T.shape).T, mask)


def normalized(axis=None, ddof=0, eps=0.0, floor=1e-5, over_padding=False, xp=jnp):
    """The advantages, with one thing or another wrong."""
    given_axis = axis

    def normalize_returns(returns, mask, scope="episode"):
        where = xp.ones_like(mask) if over_padding else mask
        values = xp.where(mask, returns, 0)
        axis = given_axis or {"episode": (0,), "batch": (0, 1)}[scope]
        count = where.sum(axis, keepdims=True)
        centred = xp.where(where, values - values.sum(axis, keepdims=True) / count, 0)
        variance = (centred**2).sum(axis, keepdims=True) / xp.clip(count - ddof, 1, None)
        largest = xp.amax(abs(values), axis, keepdims=True)
        degenerate = variance**0.5 <= floor * largest
        std = xp.where(degenerate, 1, variance) ** 0.5
        return xp.where(degenerate | ~mask, 0, centred / (std + eps))

    return normalize_returns


def weighed(clean=zeroed, stop=jax.lax.stop_gradient, reduce=lambda x: x.sum(0).mean()):
    def reinforce_loss(log_probs, advantages, mask):
        return -reduce(clean(log_probs, mask) * stop(clean(advantages, mask)))

    return reinforce_loss


def unstopped(right):
    """The sample is made anew from its noise, and the gradient runs through it."""

    def log_prob(self, value):
        noise = jax.lax.stop_gradient((value - self.loc) / self.scale)
        return right(self, self.loc + self.scale * noise)

    return log_prob


def plus(term: Callable) -> Callable:
    """Adds a term to the Normal's log-probability."""
    return lambda right: lambda self, value: right(self, value) + term(self, value)


def half_square(self, value):
    return 0.5 * ((value - self.loc) / self.scale) ** 2


def clamped_log_prob(self, value):
    """`torch.distributions.Categorical(probs=...)`, with its clamp."""
    p = jax.nn.softmax(self.logits)
    eps = jnp.finfo(p.dtype).eps
    log_p = jnp.log(jnp.clip(p, eps, 1 - eps))
    return jnp.take_along_axis(log_p, value[..., None], -1)[..., 0]


def entropy_in_bits(self):
    p = jax.nn.softmax(self.logits)
    return -(p * jnp.log2(p)).sum(-1)


def sample_by_probabilities(self, noise):
    return jnp.argmax(jax.nn.softmax(self.logits) + noise, -1)


def sample_without_noise(self, noise):
    return jnp.argmax(self.logits, -1)


def last_argmax(right):
    return lambda x, axis: x.shape[axis] - 1 - right(jnp.flip(x, axis), axis)


def moved_network(change: Callable) -> Patch:
    """The network stage with `change` applied to its Flax parameters."""

    def patch(monkeypatch):
        right = stages.to_flax
        monkeypatch.setattr(stages, "to_flax", lambda tensors: change(right(tensors)))

    return patch


def swapped_heads(params):
    layers = dict(params["params"])
    layers["mu_linear"], layers["logvar_linear"] = layers["logvar_linear"], layers["mu_linear"]
    return {"params": layers}


def transposed(params):
    layers = dict(params["params"])
    layers["linear2"] = {**layers["linear2"], "kernel": layers["linear2"]["kernel"].T}
    return {"params": layers}


def scaled_clip(factor: Callable) -> Patch:
    def clip_by_global_norm(max_norm):
        def step(grads, state, params=None):
            return factor(grads, max_norm), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), step)

    return replacing(pgjax.optim, "clip_by_global_norm", lambda right: clip_by_global_norm)


def without_epsilon(grads, max_norm):
    factor = jnp.minimum(1, max_norm / optax.tree.norm(grads))
    return jax.tree.map(lambda g: g * factor, grads)


def by_tensor(grads, max_norm):
    return jax.tree.map(lambda g: g * jnp.minimum(1, max_norm / (optax.tree.norm(g) + 1e-6)), grads)


def elementwise(grads, max_norm):
    return jax.tree.map(lambda g: jnp.clip(g, -max_norm, max_norm), grads)


def optax_adam(**constants: float) -> Callable:
    def adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
        options = {"b1": b1, "b2": b2, "eps": eps} | constants
        scale = optax.scale_by_adam(**options)

        def step(grads, state, params=None):
            change, state = scale.update(grads, state, params)
            return jax.tree.map(lambda c: -learning_rate * c, change), state

        return optax.GradientTransformation(scale.init, step)

    return lambda right: adam


def off_by_one(right):
    def adam(*args, **kwargs):
        transform = right(*args, **kwargs)

        def step(grads, state, params=None):
            change, after = transform.update(grads, state._replace(count=state.count + 1), params)
            return change, after._replace(count=state.count + 1)

        return optax.GradientTransformation(transform.init, step)

    return adam


VARIANTS = [
    # Returns.
    Variant("γ on its own reward", returns, in_returns(recursion(shifted_reward, zeroed))),
    Variant("own reward left out", returns, in_returns(recursion(later_rewards_only, zeroed))),
    Variant("not reset between episodes", returns, in_returns(not_reset)),
    Variant("rewards masked by product", returns, in_returns(recursion(plain, multiplied))),
    Variant("division by powers of γ", returns, in_returns(divided_by_powers)),
    # Advantages.
    Variant("unbiased deviation", per_episode, in_advantages(normalized(ddof=1))),
    Variant("unbiased batch deviation", per_batch, in_advantages(normalized(ddof=1))),
    Variant("epsilon on the deviation", per_episode, in_advantages(normalized(eps=1e-8))),
    Variant("padding in the mean", per_episode, in_advantages(normalized(over_padding=True))),
    Variant("batch for episode", per_episode, in_advantages(normalized(axis=(0, 1)))),
    Variant("episode for batch", per_batch, in_advantages(normalized(axis=(0,)))),
    Variant("over episodes, not time", per_episode, in_advantages(normalized(axis=(1,)))),
    Variant("noise divided by noise", equal_returns, in_advantages(normalized(floor=0.0))),
    Variant(
        "unbiased deviation in PyTorch",
        per_episode,
        in_advantages(normalized(ddof=1, xp=torch), pgtorch.returns),
    ),
    # Loss.
    Variant("sum over episodes", loss, in_loss(weighed(reduce=jnp.sum))),
    Variant("mean over time", loss, in_loss(weighed(reduce=jnp.mean))),
    Variant("mean over steps", loss, in_loss(weighed(reduce=lambda x: x.sum() / MASK.sum()))),
    Variant("sign of the loss", loss, in_loss(weighed(reduce=lambda x: -x.sum(0).mean()))),
    Variant("loss masked by product", loss, in_loss(weighed(clean=multiplied))),
    Variant("gradient masked by product", loss_gradient, in_loss(weighed(clean=multiplied))),
    Variant("advantages carry gradient", loss_gradient, in_loss(weighed(stop=lambda x: x))),
    # Distributions.
    Variant("½ log 2π missing", normal_log_prob, in_normal(plus(lambda *_: HALF_LOG_2PI))),
    Variant("square halved no more", normal_log_prob, in_normal(plus(half_square))),
    Variant("σ² for σ", normal_log_prob, in_normal(plus(lambda self, _: -jnp.log(self.scale)))),
    Variant("mean over dimensions", normal_log_prob, in_normal(lambda f: lambda *a: f(*a) / 3)),
    Variant("one dimension", normal_log_prob, in_normal(lambda f: lambda *a: f(*a)[..., :1])),
    Variant("unstopped sample", gradient, in_normal(unstopped)),
    Variant("clamped", categorical_log_prob, in_categorical("log_prob", clamped_log_prob)),
    Variant("bits for nats", categorical_entropy, in_categorical("entropy", entropy_in_bits)),
    Variant("p for log p", categorical_sample, in_categorical("sample", sample_by_probabilities)),
    Variant("no noise", categorical_sample, in_categorical("sample", sample_without_noise)),
    Variant("last of equals", normal_action, replacing(jnp, "argmax", last_argmax)),
    # Networks.
    Variant("swapped heads", network, moved_network(swapped_heads)),
    Variant("square layer not transposed", network, moved_network(transposed)),
    Variant("variance for deviation", network, replacing(jnp, "exp", lambda f: lambda x: f(2 * x))),
    # Clipping and Adam.
    Variant("clipping without 1e-6", clip, scaled_clip(without_epsilon)),
    Variant("clipping tensor by tensor", clip, scaled_clip(by_tensor)),
    Variant("clipping elementwise", clip, scaled_clip(elementwise)),
    Variant("epsilon inside the root", update, in_adam(optax_adam(eps=0.0, eps_root=1e-8))),
    Variant("epsilon of 1e-7", update, in_adam(optax_adam(eps=1e-7))),
    Variant("b1 of 0.99", update, in_adam(optax_adam(b1=0.99))),
    Variant("b2 of 0.99", update, in_adam(optax_adam(b2=0.99))),
    Variant("count off by one", update, in_adam(off_by_one)),
    # The update as a whole.
    Variant("padding kept", update_step, in_train("_without_padding", lambda f: lambda x: x)),
    Variant(
        "another scope in an update",
        update_step,
        in_train("normalize_returns", lambda f: lambda returns, mask, _: f(returns, mask)),
    ),
    Variant(
        "no discount in an update",
        update_step,
        in_train("discounted_returns", lambda f: lambda rewards, mask, _: f(rewards, mask, 1.0)),
    ),
]

STAGES = [*dict.fromkeys(variant.caught_by for variant in VARIANTS), first_update]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_the_right_code_passes_where_variants_are_caught(stage):
    stage().assert_ok()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_known_wrong_variant_is_reported(monkeypatch, variant):
    variant.patch(monkeypatch)
    comparison = variant.caught_by()
    assert not comparison.ok
    assert all(np.isfinite(m.bound) and not m.error <= m.bound for m in comparison.mismatches)


def test_a_float32_bias_correction_is_caught_by_the_float32_rule_alone(monkeypatch):
    """optax.adam is right in float64; in float32 its 1 − b2ᵗ cancels (trap A01)."""
    in_adam(optax_adam())(monkeypatch)
    comparison = first_update()
    assert {m.dtype for m in comparison.mismatches} == {"float32"}
    assert {m.leaf.split("/")[0] for m in comparison.mismatches} == {"update"}


def test_a_bug_that_both_packages_share_is_caught_by_the_oracle(monkeypatch):
    in_advantages(normalized(ddof=1))(monkeypatch)
    in_advantages(normalized(ddof=1, xp=torch), pgtorch.returns)(monkeypatch)
    comparison = per_episode()
    assert {v.side for v in comparison.verdicts if not v.error <= v.bound} == {"reference"}


def test_an_unstopped_sample_leaves_the_log_probabilities_right(monkeypatch):
    """Which is why gradients are compared, and not losses alone (trap C04)."""
    in_normal(unstopped)(monkeypatch)
    normal_log_prob().assert_ok()
    assert not gradient().ok
