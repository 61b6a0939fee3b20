"""One set of weights for both frameworks' networks, and the stages that carry them across."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from parity import convert
from parity.hazards import SIZES, Size
from parity.suite.stages import Side, made
from pgjax import checkpoint as jax_checkpoint
from pgjax import policies as jax_policies
from pgtorch import checkpoint as torch_checkpoint
from pgtorch import policies as torch_policies


@cache
def torch_policy(agent: str, size: Size = SIZES[0]) -> torch_policies.Policy:
    """An agent's policy in PyTorch."""
    return torch_policies.make_policy(agent, *size)


@cache
def jax_policy(agent: str, size: Size = SIZES[0]) -> jax_policies.Policy:
    """The same in JAX."""
    return jax_policies.make_policy(agent, *size)


made += [torch_policy, jax_policy]


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


def to_flax(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Neutral tensors as Flax parameters, written out here and not borrowed from `pgjax`."""
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        layer, kind = name.rsplit(".", 1)
        entry = {"kernel": tensor.T} if kind == "weight" else {"bias": tensor}
        layers.setdefault(layer, {}).update(entry)
    return {"params": layers}


def from_flax(params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_flax`."""
    tensors: dict[str, Any] = {}
    for layer, entries in params["params"].items():
        tensors[f"{layer}.weight"] = entries["kernel"].T
        tensors[f"{layer}.bias"] = entries["bias"]
    return tensors


def carried(agent: str, size: Size, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The tensors after each way of carrying them across, all back in torch's layout.

    The ways are each package's files, there and back, and `parity.convert`, both ways.
    """
    module = torch_policy(agent, size).init(torch.Generator()).double()
    module = torch_checkpoint.tensors_to_params(dict(tensors), module)
    flax_params = jax.tree.map(jnp.array, to_flax(tensors))
    read = jax_checkpoint.tensors_to_params(dict(tensors), flax_params)
    converted = convert.to_flax(module, flax_params)
    return {
        "pgtorch writes": torch_checkpoint.params_to_tensors(module),
        "pgjax writes": jax_checkpoint.params_to_tensors(flax_params),
        "pgjax reads": from_flax(read),
        "parity to Flax": from_flax(converted),
        "parity to PyTorch": {
            name: tensor.numpy() for name, tensor in convert.to_torch(flax_params, module).items()
        },
    }


def acted(
    agent: str, size: Size, params: Mapping[str, Any], obs: Any, noise: Any
) -> dict[str, Any]:
    """The actions of each package's policy as evaluations call it, NumPy to NumPy."""
    module = torch_policy(agent, size).init(torch.Generator()).double()
    module = torch_checkpoint.tensors_to_params(dict(params), module)
    flax_params = jax.tree.map(jnp.array, to_flax(params))
    return {
        "pgtorch": torch_policies.make_act(torch_policy(agent, size), module)(obs, noise),
        "pgjax": jax_policies.make_act(jax_policy(agent, size), flax_params)(obs, noise),
    }


def under(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by path, as entries of the input `name`."""
    return {f"{name}/{key}": array for key, array in arrays.items()}
