"""Variants of the two distributions, and of what a policy makes of them."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import torch

from parity.mutants.of_returns import JAX, TORCH
from parity.mutants.variants import Package, Patch, Variant, instead, seen_by
from pgjax import distributions as jax_laws
from pgjax import policies as jax_policies
from pgtorch import distributions as torch_laws
from pgtorch import policies as torch_policies

LAWS = {"pgjax": jax_laws, "pgtorch": torch_laws}
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def of_normal() -> Iterator[Variant]:
    """The Normal distribution."""

    def variant(name: str, kind: str, package: Package, method: str, wrong: Callable) -> Variant:
        patch = Patch(LAWS[package.name].Normal, method, wrong)
        return Variant(name, kind, package.name, (patch,))

    for package in (JAX, TORCH):
        xp = package.xp
        yield variant(
            "½ log 2π missing", CONSTANT, package, "log_prob", plus(lambda *_: HALF_LOG_2PI)
        )
        yield variant("square not halved", CONSTANT, package, "log_prob", plus(less_half_square))
        yield variant(
            "log σ² for log σ",
            CONSTANT,
            package,
            "log_prob",
            plus(lambda self, _, xp=xp: -xp.log(self.scale)),
        )
        yield variant("sample not stopped", STOP, package, "log_prob", unstopped(package))
        yield variant(
            "variance for deviation in the sample",
            "sampling",
            package,
            "sample",
            lambda right: lambda self, noise: self.loc + self.scale**2 * noise,
        )
    yield variant(
        "σ not in the exponent",
        CONSTANT,
        JAX,
        "log_prob",
        lambda right: (
            lambda self, x: -0.5 * (x - self.loc) ** 2 - jnp.log(self.scale) - HALF_LOG_2PI
        ),
    )
    yield variant(
        "no gradient in σ",
        STOP,
        JAX,
        "log_prob",
        lambda right: lambda self, x: right(self._replace(scale=JAX.stop(self.scale)), x),
    )
    yield variant(
        "density for log-density",
        CONSTANT,
        TORCH,
        "log_prob",
        lambda right: lambda self, x: torch.exp(right(self, x)),
    )
    yield variant("entropy without its ½", CONSTANT, JAX, "entropy", lambda f: lambda s: f(s) - 0.5)
    yield variant(
        "no noise in a Normal",
        "sampling",
        JAX,
        "sample",
        lambda f: lambda s, noise: s.loc + 0 * noise,
    )
    yield variant(
        "noise subtracted",
        "sampling",
        TORCH,
        "sample",
        lambda right: lambda self, noise: right(self, -noise),
    )
    yield variant(
        "first dimension's noise for all",
        "sampling",
        JAX,
        "sample",
        lambda right: lambda self, noise: right(self, noise[..., :1] + 0 * noise),
    )


CONSTANT, STOP = "missing constants", "missing stops"


def plus(term: Callable) -> Callable:
    """Adds a term to what a method returns."""
    return lambda right: lambda self, value: right(self, value) + term(self, value)


def less_half_square(self: Any, value: Any) -> Any:
    return -0.5 * ((value - self.loc) / self.scale) ** 2


def unstopped(package: Package) -> Callable:
    """The sample is made anew from its noise, and the gradient runs through it."""

    def wrong(right):
        def log_prob(self, value):
            noise = package.stop((value - self.loc) / self.scale)
            return right(self, self.loc + self.scale * noise)

        return log_prob

    return wrong


def of_categorical() -> Iterator[Variant]:
    """The categorical distribution."""

    def variant(name: str, kind: str, package: Package, method: str, wrong: Callable) -> Variant:
        patch = instead(LAWS[package.name].Categorical, method, wrong)
        return Variant(name, kind, package.name, (patch,))

    yield variant("probabilities clamped", CONSTANT, JAX, "log_prob", clamped_log_prob)
    yield variant(
        "probability for its logarithm",
        CONSTANT,
        TORCH,
        "log_prob",
        lambda self, value: _picked(torch.softmax(self.logits, -1), value),
    )
    yield variant(
        "logit for log-probability",
        CONSTANT,
        JAX,
        "log_prob",
        lambda self, value: jnp.take_along_axis(self.logits, value[..., None], -1)[..., 0],
    )
    yield variant(
        "log-probability of the greedy action",
        "resampled actions",
        JAX,
        "log_prob",
        lambda self, value: jax.nn.log_softmax(self.logits).max(-1),
    )
    yield variant("log-softmax over time", "reductions", JAX, "log_prob", over_time)
    yield variant("entropy in bits", CONSTANT, JAX, "entropy", entropy_in_bits)
    yield variant(
        "entropy of the mean policy",
        "reductions",
        TORCH,
        "entropy",
        lambda self: torch.special.entr(torch.softmax(self.logits, -1)).mean(-1),
    )
    yield variant(
        "p for log p in Gumbel-max",
        "sampling",
        JAX,
        "sample",
        lambda self, noise: jnp.argmax(jax.nn.softmax(self.logits) + noise, -1),
    )
    yield variant(
        "no noise in a choice",
        "sampling",
        JAX,
        "sample",
        lambda self, noise: jnp.argmax(self.logits, -1),
    )
    yield variant(
        "Gumbel noise subtracted",
        "sampling",
        TORCH,
        "sample",
        lambda self, noise: torch.argmax(torch.log_softmax(self.logits, -1) - noise, -1),
    )
    yield variant("last of equal choices", "sampling", JAX, "sample", last_of_equals)


def _picked(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.gather(values, -1, index[..., None].long())[..., 0]


def clamped_log_prob(self: Any, value: Any) -> Any:
    """`torch.distributions.Categorical(probs=...)`, with its clamp."""
    p = jax.nn.softmax(self.logits)
    eps = jnp.finfo(p.dtype).eps
    log_p = jnp.log(jnp.clip(p, eps, 1 - eps))
    return jnp.take_along_axis(log_p, value[..., None], -1)[..., 0]


def over_time(self: Any, value: Any) -> Any:
    log_p = jax.nn.log_softmax(self.logits, axis=0)
    return jnp.take_along_axis(log_p, value[..., None], -1)[..., 0]


def entropy_in_bits(self: Any) -> Any:
    p = jax.nn.softmax(self.logits)
    return -jax.scipy.special.xlogy(p, p).sum(-1) / math.log(2)


def last_of_equals(self: Any, noise: Any) -> Any:
    score = jax.nn.log_softmax(self.logits) + noise
    return score.shape[-1] - 1 - jnp.argmax(jnp.flip(score, -1), -1)


# --- policies ------------------------------------------------------------------------------------


def of_policies() -> Iterator[Variant]:
    """What a policy makes of its distribution."""
    last = seen_by(
        jax_policies,
        "jnp",
        (jax_policies, "make_policy"),
        argmax=lambda x, axis: x.shape[axis] - 1 - jnp.argmax(jnp.flip(x, axis), axis),
    )
    yield Variant("last of equal dimensions", "sampling", "pgjax", (last,))
    smallest = seen_by(
        torch_policies, "torch", (torch_policies, "make_policy"), argmax=torch.argmin
    )
    yield Variant("smallest dimension acts", "sampling", "pgtorch", (smallest,))
    for package in (JAX, TORCH):
        mean = Patch(
            LAWS[package.name].Normal,
            "log_prob",
            lambda right: lambda self, x: right(self, x) / x.shape[-1],
        )
        name = "log-probability averaged over dimensions"
        yield Variant(name, "reductions", package.name, (mean,))
    first = Patch(jax_laws.Normal, "log_prob", lambda right: lambda *a: right(*a)[..., :1])
    yield Variant("log-probability of one dimension", "reductions", "pgjax", (first,))
