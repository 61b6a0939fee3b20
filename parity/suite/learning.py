"""Stages from rewards to the gradient: returns, advantages, the loss."""

from functools import cache, partial
from typing import Any

import numpy as np

from parity import oracle, sides
from parity.hazards import Size
from parity.suite.laws import network, sample
from parity.suite.stages import Stage
from parity.suite.weights import jax_policy, to_flax, with_module
from pgjax import losses as jax_losses
from pgjax import returns as jax_returns
from pgtorch import losses as torch_losses
from pgtorch import returns as torch_returns

SCOPES = ("episode", "batch", "none")


@cache
def returns() -> Stage:
    """Inputs `rewards`, `mask`, `discount` (a Python number)."""
    return Stage(
        "returns",
        torch=lambda **inputs: torch_returns.discounted_returns(**inputs),
        jax=lambda **inputs: jax_returns.discounted_returns(**inputs),
        oracle=oracle.discounted_returns,
    )


@cache
def episode_returns() -> Stage:
    """Inputs `rewards`, `mask`."""
    return Stage(
        "episode returns",
        torch=lambda **inputs: torch_returns.episode_returns(**inputs),
        jax=lambda **inputs: jax_returns.episode_returns(**inputs),
        oracle=lambda rewards, mask: oracle.discounted_returns(rewards, mask, 1.0)[0],
    )


@cache
def advantages(scope: Any) -> Stage:
    """Inputs `returns`, `mask`."""
    return Stage(
        "advantages",
        torch=lambda **inputs: torch_returns.normalize_returns(**inputs, scope=scope),
        jax=lambda **inputs: jax_returns.normalize_returns(**inputs, scope=scope),
        oracle=partial(oracle.advantages, scope=scope),
    )


@cache
def loss() -> Stage:
    """Inputs `log_probs`, `advantages`, `mask`."""
    return Stage(
        "loss",
        torch=lambda **inputs: torch_losses.reinforce_loss(**inputs),
        jax=lambda **inputs: jax_losses.reinforce_loss(**inputs),
        oracle=lambda **inputs: np.asarray(oracle.reinforce_loss(**inputs)),
    )


@cache
def gradient(agent: str, size: Size) -> Stage:
    """Inputs `params/*`, `obs`, `sample`, `advantages`, `mask`.

    The value is the loss as a function of the parameters; what is compared is its gradient.
    """

    def of_torch(policy, module, obs, sample, advantages, mask):
        log_probs = policy.log_prob(policy.apply(module, obs), sample)
        return torch_losses.reinforce_loss(log_probs, advantages, mask)

    def of_jax(params, obs, sample, advantages, mask):
        policy = jax_policy(agent, size)
        log_probs = policy.log_prob(policy.apply(to_flax(params), obs), sample)
        return jax_losses.reinforce_loss(log_probs, advantages, mask)

    def by_hand(inputs):
        arguments: dict[str, Any] = sides.nested(inputs)
        return sides.flat({"params": oracle.reinforce_gradient(agent, **arguments)})

    whole = with_module(agent, size, of_torch)
    return Stage("gradient", whole, of_jax, gradient_oracle=by_hand)


def gradient_inputs(
    agent: str, size: Size, params: Any, batch: Any, noise: Any, scope: str
) -> dict[str, Any]:
    """The gradient stage's inputs, made stage by stage by the float64 reference."""
    dist = network(agent, size).reference({**params, "obs": batch.obs})
    drawn = sample(agent).reference({**dist, "noise": noise})["sample"]
    running = batch.mask if drawn.ndim == 2 else batch.mask[..., None]
    before = {"rewards": batch.reward, "mask": batch.mask, "discount": 0.9}
    found = returns().reference(before)["value"]
    weights = advantages(scope).reference({"returns": found, "mask": batch.mask})["value"]
    return {
        **params,
        "obs": batch.obs,
        "sample": np.where(running, drawn, 0),
        "advantages": weights,
        "mask": batch.mask,
    }
