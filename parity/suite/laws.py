"""Stages of a policy: the network, what it draws, what that stands for and how likely it was."""

from functools import cache

import torch

from parity import oracle
from parity.hazards import Size
from parity.suite.stages import Stage
from parity.suite.weights import jax_policy, to_flax, torch_policy, with_module
from pgjax import distributions as jax_laws
from pgtorch import distributions as torch_laws

AGENTS = ("reinforce", "reparam")


@cache
def network(agent: str, size: Size) -> Stage:
    """Inputs `params/*`, `obs`."""
    return Stage(
        "network",
        torch=with_module(agent, size, lambda policy, module, obs: policy.apply(module, obs)),
        jax=lambda params, obs: jax_policy(agent, size).apply(to_flax(params), obs),
        oracle=lambda params, obs: oracle.network(agent, params, obs),
    )


@cache
def sample(agent: str, *, excuse_ties: bool = True) -> Stage:
    """Inputs `noise` and `logits`, or `loc` and `scale`."""

    def of(policy, distribution, noise, **parts):
        drawn = policy.sample(distribution(**parts), noise)
        return {"sample": drawn, "action": policy.action(drawn)}

    def scores(noise, **parts):
        if agent == "reinforce":
            return torch.log_softmax(parts["logits"], -1) + noise
        return parts["loc"] + parts["scale"] * noise

    def by_hand(noise, **parts):
        drawn = (
            oracle.categorical_sample(parts["logits"], noise)
            if agent == "reinforce"
            else oracle.normal_sample(parts["loc"], parts["scale"], noise)
        )
        return {"sample": drawn, "action": oracle.action(agent, drawn)}

    decided = ("sample", "action") if agent == "reinforce" else ("action",)
    return Stage(
        "sample",
        torch=lambda **inputs: of(torch_policy(agent), torch_law(agent), **inputs),
        jax=lambda **inputs: of(jax_policy(agent), jax_law(agent), **inputs),
        oracle=by_hand,
        decided_by=dict.fromkeys(decided, scores) if excuse_ties else {},
    )


@cache
def action(agent: str) -> Stage:
    """Input `sample`; the action is decided by nothing else, so a tie is no excuse."""
    return Stage(
        "action",
        torch=lambda sample: torch_policy(agent).action(sample),
        jax=lambda sample: jax_policy(agent).action(sample),
        oracle=lambda sample: oracle.action(agent, sample),
    )


@cache
def log_prob(agent: str) -> Stage:
    """Inputs `sample` and `logits`, or `loc` and `scale`."""
    return Stage(
        "log_prob",
        torch=lambda sample, **parts: torch_policy(agent).log_prob(
            torch_law(agent)(**parts), sample
        ),
        jax=lambda sample, **parts: jax_policy(agent).log_prob(jax_law(agent)(**parts), sample),
        oracle=lambda sample, **parts: oracle.log_prob(agent, parts, sample),
    )


@cache
def entropy(agent: str) -> Stage:
    """Inputs `logits`, or `loc` and `scale`."""
    return Stage(
        "entropy",
        torch=lambda **parts: torch_policy(agent).entropy(torch_law(agent)(**parts)),
        jax=lambda **parts: jax_policy(agent).entropy(jax_law(agent)(**parts)),
        oracle=lambda **parts: oracle.entropy(agent, parts),
    )


def torch_law(agent: str) -> type:
    """The distribution that an agent acts by."""
    return torch_laws.Categorical if agent == "reinforce" else torch_laws.Normal


def jax_law(agent: str) -> type:
    """The same in JAX."""
    return jax_laws.Categorical if agent == "reinforce" else jax_laws.Normal
