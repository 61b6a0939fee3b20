"""The stages of the algorithm, each as one PyTorch callable, one JAX callable and the oracle's.

Functions of the packages are looked up when a stage runs, so that a test can put a wrong variant
in their place. What a stage returns is fed to the next one by the caller.
"""

from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import pgjax.distributions
import pgjax.losses
import pgjax.optim
import pgjax.policies
import pgjax.returns
import pgtorch.distributions
import pgtorch.losses
import pgtorch.optim
import pgtorch.policies
import pgtorch.returns
from parity import oracle, sides
from parity.hazards import SIZES, Size
from parity.tolerance import Comparison, Decider, Function, compare

Side = Callable[..., Any]

AGENTS = ("reinforce", "reparam")
SCOPES = ("episode", "batch", "none")


class Stage(NamedTuple):
    """One step of the algorithm, three times over; the functions take their inputs by keyword."""

    name: str
    torch: Side
    jax: Side
    oracle: Side | None = None
    decided_by: Mapping[str, Side] = {}
    exact_zeros: tuple[str, ...] = ()

    def check(
        self,
        inputs: dict[str, Any],
        *,
        jit: bool = True,
        padding: Mapping[str, np.ndarray] | None = None,
        exact_zeros: Collection[str] = (),
        precisions: Collection[str] = ("float64", "float32"),
    ) -> Comparison:
        """The stage's values, JAX against PyTorch against the oracle."""
        oracle = None if self.oracle is None else oracle_side(self.oracle)
        return compare(
            torch_side(self.torch),
            jax_side(self.jax, jit),
            inputs,
            stage=self.name,
            oracle=oracle,
            sensitivity=sides.torch_sensitivity(self.torch),
            roundings=sides.torch_roundings(torch_side(self.torch)),
            deciders={
                leaf: Decider(torch_side(scores), sides.torch_roundings(torch_side(scores)))
                for leaf, scores in self.decided_by.items()
            },
            padding=padding,
            exact_zeros=(*self.exact_zeros, *exact_zeros),
            precisions=precisions,
        )

    def check_gradient(
        self,
        inputs: dict[str, Any],
        wrt: tuple[str, ...],
        *,
        jit: bool = True,
        padding: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
    ) -> Comparison:
        """The stage's gradients, for a random cotangent of each floating output."""
        rng = np.random.default_rng(seed)
        outputs = torch_side(self.torch)(inputs)
        cotangents = {
            f"{sides.COTANGENT}{leaf}": rng.normal(size=array.shape)
            for leaf, array in outputs.items()
            if np.issubdtype(array.dtype, np.floating)
        }
        return compare(
            torch_gradient(self.torch, wrt),
            jax_gradient(self.jax, wrt, jit),
            {**inputs, **cotangents},
            stage=f"{self.name} gradient",
            roundings=sides.torch_roundings(torch_gradient(self.torch, wrt)),
            padding=padding,
        )

    def reference(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """The float64 reference's outputs: what the next stage is fed."""
        return torch_side(self.torch)(inputs)


# One side for each function, so that a shape is compiled once in a test run.
torch_side = cache(sides.torch_values)
torch_gradient = cache(sides.torch_gradients)


@cache
def jax_side(function: Side, jit: bool) -> Function:
    return sides.jax_values(function, jit=jit)


@cache
def jax_gradient(function: Side, wrt: tuple[str, ...], jit: bool) -> Function:
    return sides.jax_gradients(function, wrt, jit=jit)


def oracle_side(function: Side) -> Function:
    return lambda inputs: sides.flat(function(**sides.nested(inputs)))


# --- the network and its distribution ------------------------------------------------------------


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
def sample(agent: str) -> Stage:
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

    return Stage(
        "sample",
        torch=lambda **inputs: of(torch_policy(agent), torch_law(agent), **inputs),
        jax=lambda **inputs: of(jax_policy(agent), jax_law(agent), **inputs),
        oracle=by_hand,
        decided_by={"sample": scores, "action": scores}
        if agent == "reinforce"
        else {"action": scores},
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


# --- returns, advantages, loss -------------------------------------------------------------------


@cache
def returns() -> Stage:
    """Inputs `rewards`, `mask`, `discount` (a Python number)."""
    return Stage(
        "returns",
        torch=lambda **inputs: pgtorch.returns.discounted_returns(**inputs),
        jax=lambda **inputs: pgjax.returns.discounted_returns(**inputs),
        oracle=oracle.discounted_returns,
    )


@cache
def episode_returns() -> Stage:
    """Inputs `rewards`, `mask`."""
    return Stage(
        "episode_returns",
        torch=lambda **inputs: pgtorch.returns.episode_returns(**inputs),
        jax=lambda **inputs: pgjax.returns.episode_returns(**inputs),
        oracle=lambda rewards, mask: oracle.discounted_returns(rewards, mask, 1.0)[0],
    )


@cache
def advantages(scope: str) -> Stage:
    """Inputs `returns`, `mask`."""
    return Stage(
        f"advantages {scope}",
        torch=lambda **inputs: pgtorch.returns.normalize_returns(**inputs, scope=scope),
        jax=lambda **inputs: pgjax.returns.normalize_returns(**inputs, scope=scope),
        oracle=partial(oracle.advantages, scope=scope),
    )


@cache
def loss() -> Stage:
    """Inputs `log_probs`, `advantages`, `mask`."""
    return Stage(
        "loss",
        torch=lambda **inputs: pgtorch.losses.reinforce_loss(**inputs),
        jax=lambda **inputs: pgjax.losses.reinforce_loss(**inputs),
        oracle=lambda **inputs: np.asarray(oracle.reinforce_loss(**inputs)),
    )


class Gradient(NamedTuple):
    """The gradient stage: the loss as a function of the parameters, and its gradient by hand."""

    loss: Stage
    by_hand: Function

    def check(self, inputs: dict[str, Any], **options: Any) -> Comparison:
        """Every parameter's gradient, JAX against PyTorch against the oracle."""
        jit = options.pop("jit", True)
        return compare(
            torch_gradient(self.loss.torch, ("params",)),
            jax_gradient(self.loss.jax, ("params",), jit),
            inputs,
            stage="gradient",
            oracle=self.by_hand,
            roundings=sides.torch_roundings(torch_gradient(self.loss.torch, ("params",))),
            **options,
        )


@cache
def gradient(agent: str, size: Size) -> Gradient:
    """Inputs `params/*`, `obs`, `sample`, `advantages`, `mask`."""

    def of_torch(policy, module, obs, sample, advantages, mask):
        log_probs = policy.log_prob(policy.apply(module, obs), sample)
        return pgtorch.losses.reinforce_loss(log_probs, advantages, mask)

    def of_jax(params, obs, sample, advantages, mask):
        policy = jax_policy(agent, size)
        log_probs = policy.log_prob(policy.apply(to_flax(params), obs), sample)
        return pgjax.losses.reinforce_loss(log_probs, advantages, mask)

    def by_hand(inputs):
        arguments = sides.nested(inputs)
        return sides.flat({"params": oracle.reinforce_gradient(agent, **arguments)})

    return Gradient(Stage("loss", with_module(agent, size, of_torch), of_jax), by_hand)


# --- clipping and Adam ---------------------------------------------------------------------------


@cache
def clip(max_norm: float) -> Stage:
    """Inputs `gradients/*`."""

    def of_torch(gradients):
        parameters = _as_parameters(gradients, gradients)
        pgtorch.optim.clip_by_global_norm(max_norm)(parameters.values())
        return {name: parameter.grad for name, parameter in parameters.items()}

    def of_jax(gradients):
        transform = pgjax.optim.clip_by_global_norm(max_norm)
        return transform.update(gradients, transform.init(gradients), gradients)[0]

    return Stage(
        "clip",
        of_torch,
        of_jax,
        oracle=lambda gradients: oracle.clip_by_global_norm(gradients, max_norm),
        exact_zeros=("gradients",),
    )


@cache
def update(learning_rate: float, **constants: float) -> Stage:
    """Inputs `gradients/*`, `m/*`, `v/*`, `count`; the change of the parameters is the output.

    It is measured from parameters of zero: added to larger ones, its error would be lost in their
    rounding. Every operation is elementwise, so a zero stays one.
    """

    def of_torch(gradients, m, v, count):
        parameters = _as_parameters({name: 0.0 * g for name, g in gradients.items()}, gradients)
        adam = pgtorch.optim.adam(learning_rate, **constants)(parameters.values())
        for name, parameter in parameters.items():
            step = count.to(torch.get_default_dtype())
            adam.state[parameter] = {"step": step, "exp_avg": m[name], "exp_avg_sq": v[name]}
        adam.step()
        state = {name: adam.state[parameter] for name, parameter in parameters.items()}
        return {
            "update": parameters,
            "m": {name: s["exp_avg"] for name, s in state.items()},
            "v": {name: s["exp_avg_sq"] for name, s in state.items()},
            "count": {name: s["step"].to(torch.int64) for name, s in state.items()},
        }

    def of_jax(gradients, m, v, count):
        adam = pgjax.optim.adam(learning_rate, **constants)
        before = optax.ScaleByAdamState(count=count, mu=m, nu=v)
        change, after = adam.update(gradients, before, jax.tree.map(jnp.zeros_like, gradients))
        counts = dict.fromkeys(gradients, after.count)
        return {"update": change, "m": after.mu, "v": after.nu, "count": counts}

    def by_hand(gradients, m, v, count):
        zeros = {name: np.zeros_like(g) for name, g in gradients.items()}
        step = oracle.adam_step(
            zeros, gradients, m, v, int(count), learning_rate=learning_rate, **constants
        )
        counts = {name: np.asarray(step.count) for name in gradients}
        return {"update": step.params, "m": step.m, "v": step.v, "count": counts}

    return Stage("update", of_torch, of_jax, by_hand, exact_zeros=("gradients", "m", "v"))


def _as_parameters(values: dict, gradients: dict) -> dict[str, torch.nn.Parameter]:
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in values.items()}
    for name, parameter in parameters.items():
        parameter.grad = gradients[name].clone()
    return parameters


# --- policies on either side ---------------------------------------------------------------------


def torch_law(agent: str) -> Side:
    laws = pgtorch.distributions
    return laws.Categorical if agent == "reinforce" else laws.Normal


def jax_law(agent: str) -> Side:
    laws = pgjax.distributions
    return laws.Categorical if agent == "reinforce" else laws.Normal


@cache
def torch_policy(agent: str, size: Size = SIZES[0]) -> pgtorch.policies.Policy:
    return pgtorch.policies.make_policy(agent, *size)


@cache
def jax_policy(agent: str, size: Size = SIZES[0]) -> pgjax.policies.Policy:
    return pgjax.policies.make_policy(agent, *size)


def with_module(agent: str, size: Size, function: Side) -> Side:
    """`function(policy, module, **inputs)` as a function of `params` and the inputs."""

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = torch_policy(agent, size).init(torch.Generator())

        def forward(self, **inputs):
            return function(torch_policy(agent, size), self.module, **inputs)

    @cache
    def whole() -> Whole:
        return Whole()

    def call(params, **inputs):
        tensors = {f"module.{name}": tensor for name, tensor in params.items()}
        return torch.func.functional_call(whole(), tensors, kwargs=inputs, strict=True)

    return call


def to_flax(tensors: dict[str, Any]) -> dict[str, Any]:
    """Neutral tensors as Flax parameters, written out here and not borrowed from `pgjax`."""
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        layer, kind = name.rsplit(".", 1)
        entry = {"kernel": tensor.T} if kind == "weight" else {"bias": tensor}
        layers.setdefault(layer, {}).update(entry)
    return {"params": layers}


def from_flax(params: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `to_flax`."""
    tensors: dict[str, Any] = {}
    for layer, entries in params["params"].items():
        tensors[f"{layer}.weight"] = entries["kernel"].T
        tensors[f"{layer}.bias"] = entries["bias"]
    return tensors
