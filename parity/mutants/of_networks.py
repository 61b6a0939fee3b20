"""Variants of the networks and of their initial weights."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import torch

from parity.mutants.variants import Lookalike, Patch, Variant, instead, seen_by
from pgjax import networks as jax_networks
from pgtorch import networks as torch_networks

HEADS = {"mu_linear": "logvar_linear", "logvar_linear": "mu_linear"}
IN_JAX = ((jax_networks, "_linear"),)
IN_TORCH = (
    (torch_networks.ReinforceAgent, "forward"),
    (torch_networks.ReparamTrickAgent, "forward"),
)


def of_networks() -> Iterator[Variant]:
    """Activations, heads, layers."""

    def in_jax(name: str, module: str = "nn", **replaced: Any) -> Variant:
        patch = seen_by(jax_networks, module, *IN_JAX, **replaced)
        return Variant(name, "networks", "pgjax", (patch,))

    def in_torch(name: str, **replaced: Any) -> Variant:
        patch = seen_by(torch_networks, "torch", *IN_TORCH, **replaced)
        return Variant(name, "networks", "pgtorch", (patch,))

    nn = flax.linen
    yield in_jax("leaky ReLU for ReLU", relu=nn.leaky_relu)
    yield in_jax("ReLU's slope at zero is ½", relu=lambda x: jnp.maximum(x, 0))
    yield in_jax("softplus for ReLU", relu=nn.softplus)
    yield in_jax("no tanh on the heads", tanh=lambda x: x)
    yield in_jax("sigmoid for tanh", tanh=nn.sigmoid)
    yield in_jax("log-variance not halved", "jnp", exp=lambda x: jnp.exp(2 * x))
    yield in_jax("softplus for exp", "jnp", exp=lambda x: jax.nn.softplus(2 * x))
    yield in_torch("GELU for ReLU", relu=torch.nn.functional.gelu)
    # As torch's clamp was before 2.14: its slope at the bound is 1, there and in no later one.
    yield in_torch("clamp for ReLU", relu=lambda x: torch.where(x >= 0, x, 0.0))
    yield in_torch("variance for deviation", exp=lambda x: torch.exp(2 * x))
    swapped = Patch(
        jax_networks,
        "_linear",
        lambda right: lambda name, *rest: right(HEADS.get(name, name), *rest),
    )
    yield Variant("swapped heads", "swapped heads", "pgjax", (swapped,))
    exchanged = Patch(
        torch_networks.ReparamTrickAgent,
        "forward",
        lambda right: lambda self, obs: right(self, obs)[::-1],
    )
    yield Variant("mean and deviation exchanged", "swapped heads", "pgtorch", (exchanged,))


def of_depths() -> Iterator[Variant]:
    """What only networks of one or of three hidden layers show."""

    def variant(name: str, package: str, layers: Callable, is_on: Callable) -> Variant:
        if package == "pgjax":
            patches = [instead(jax_networks, "_hidden", _hidden_in_jax(layers, is_on))]
        else:
            patches = [
                instead(owner, "forward", _hidden_in_torch(layers, is_on)) for owner, _ in IN_TORCH
            ]
        return Variant(name, "networks", package, tuple(patches))

    for package in ("pgjax", "pgtorch"):
        yield variant(
            "the middle one of three layers left out",
            package,
            lambda n: [i for i in range(1, n + 1) if n < 3 or i != 2],
            lambda i, n: True,
        )
        yield variant(
            "no ReLU after the second layer",
            package,
            lambda n: range(1, n + 1),
            lambda i, n: i <= 2,
        )
        yield variant(
            "no ReLU after a lone layer", package, lambda n: range(1, n + 1), lambda i, n: n > 1
        )
    yield variant(
        "the last two of three layers in the other order",
        "pgjax",
        lambda n: (1, 3, 2) if n == 3 else range(1, n + 1),
        lambda i, n: True,
    )


def _hidden_in_jax(layers: Callable, is_on: Callable) -> Callable:
    """The hidden layers of these numbers, with ReLU where it is on."""

    def hidden(obs, hidden_sizes):
        x, n = obs, len(hidden_sizes)
        for i in layers(n):
            x = jax_networks._linear(f"linear{i}", x.shape[-1], hidden_sizes[i - 1])(x)
            x = jax.nn.relu(x) if is_on(i, n) else x
        return x

    return hidden


def _hidden_in_torch(layers: Callable, is_on: Callable) -> Callable:
    """The same, with the heads."""

    def forward(self, obs):
        n, x = self.num_hidden, obs
        for i in layers(n):
            x = getattr(self, f"linear{i}")(x)
            x = torch.relu(x) if is_on(i, n) else x
        if isinstance(self, torch_networks.ReinforceAgent):
            return getattr(self, f"linear{n + 1}")(x)
        mu, logvar = torch.tanh(self.mu_linear(x)), torch.tanh(self.logvar_linear(x))
        return mu, torch.exp(0.5 * logvar)

    return forward


def of_initialisation() -> Iterator[Variant]:
    """The law of the first weights, and whose key draws them."""

    def in_jax(name: str, wrong: Callable) -> Variant:
        return Variant(name, "initialisation", "pgjax", (Patch(jax_networks, "_linear", wrong),))

    def bound_of(change: Callable) -> Callable:
        def wrong(right):
            def linear(name, inputs, outputs, bound=None):
                return right(name, inputs, outputs, change(inputs, outputs, bound))

            return linear

        return wrong

    def of_layers(name: str, **replaced: Any) -> Variant:
        layer = Lookalike(
            flax.linen,
            Dense=lambda features, **given: flax.linen.Dense(features, **given | replaced),
        )
        patch = instead(jax_networks, "nn", layer, *IN_JAX)
        return Variant(name, "initialisation", "pgjax", (patch,))

    flaxs = flax.linen.Dense(1)
    yield of_layers(
        "Flax's own initial weights", kernel_init=flaxs.kernel_init, bias_init=flaxs.bias_init
    )
    yield of_layers("biases start at zero", bias_init=flaxs.bias_init)
    yield of_layers("all inputs of a layer weigh the same", kernel_init=_tied)
    yield in_jax(
        "fan-out for fan-in", bound_of(lambda i, o, b: 1 / math.sqrt(o) if b is None else b)
    )
    yield in_jax("Kaiming's bound", bound_of(lambda i, o, b: math.sqrt(6 / i) if b is None else b))
    yield in_jax("heads start as other layers", bound_of(lambda i, o, b: None))
    yield in_jax("heads start 10 % too wide", bound_of(lambda i, o, b: b and 1.1 * b))
    heads = (torch_networks.ReparamTrickAgent, "__init__")
    yield Variant(
        "heads start within 3e-2",
        "initialisation",
        "pgtorch",
        (instead(torch_networks, "HEAD_INIT_BOUND", 3e-2, heads),),
    )
    yield Variant(
        "heads start normal",
        "initialisation",
        "pgtorch",
        (seen_by(torch_networks, "nn", heads, init=Lookalike(torch.nn.init, uniform_=_normal_)),),
    )
    bias = Patch(torch.nn.Linear, "reset_parameters", _bias_from_weight, (heads,))
    yield Variant("biases are the first weights", "initialisation", "pgtorch", (bias,))


def _tied(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """One row for all inputs: each weight alone has the right law."""
    bound = 1 / math.sqrt(shape[0])
    row = jax.random.uniform(key, (1, *shape[1:]), dtype, -bound, bound)
    return jnp.broadcast_to(row, shape)


def _normal_(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.nn.init.normal_(tensor, 0.0, high / math.sqrt(3))


def _bias_from_weight(right: Callable) -> Callable:
    def reset_parameters(self):
        right(self)
        with torch.no_grad():
            self.bias.copy_(self.weight[:, 0])

    return reset_parameters
