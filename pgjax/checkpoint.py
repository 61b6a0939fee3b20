"""Policies in the neutral file schema: the article's layer names, torch's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgcore.agents import layer_shapes
from pgcore.config import TrainConfig
from pgcore.errors import UsageError, require
from pgcore.gym import GymSpec
from pgcore.schema import (
    PolicyFile,
    Tensors,
    read_policy,
    require_policy,
    require_tensors,
    tensor_shapes,
    write_policy,
)
from pgjax.envs.base import Env
from pgjax.policies import Policy, make_policy


def params_to_tensors(params: Any) -> Tensors:
    """`{"linear1.weight": [out, in], "linear1.bias": [out], …}` from Flax parameters.

    Flax keeps a dense kernel as `[in, out]`, so it is transposed here.

    Raises:
        UsageError: They are not those of one of the article's networks.
    """
    layers = params.get("params") if isinstance(params, Mapping) else None
    if not isinstance(layers, Mapping) or not all(map(_is_dense, layers.values())):
        raise UsageError(
            f"params are {jax.tree.structure(params)}, accepted are those of make_policy's "
            "networks; a network of your own has no place in a policy file, so save its arrays "
            "with safetensors or orbax"
        )
    tensors = {}
    for layer, leaves in layers.items():
        tensors[f"{layer}.weight"] = np.array(leaves["kernel"].T)
        tensors[f"{layer}.bias"] = np.array(leaves["bias"])
    return tensors


def tensors_to_params(tensors: Tensors, params: Any) -> Any:
    """Parameters like `params` with the values of `tensors`.

    Raises:
        UsageError: A tensor is missing, left over, or of another shape.
    """
    require_tensors(
        tensors, {name: t.shape for name, t in params_to_tensors(params).items()}, "tensors"
    )
    return {
        "params": {
            layer: {
                "kernel": jnp.array(tensors[f"{layer}.weight"].T, leaves["kernel"].dtype),
                "bias": jnp.array(tensors[f"{layer}.bias"], leaves["bias"].dtype),
            }
            for layer, leaves in params["params"].items()
        }
    }


def save_policy(path: str | Path, config: TrainConfig, params: Any) -> None:
    """Writes a policy file that `pgjax` and `pgtorch` read.

    Raises:
        UsageError: The parameters do not fit `config.agent` and `config.hidden_sizes`, or they
            are not finite. Nothing is written.
    """
    policy = PolicyFile(config.agent, config.env_id, params_to_tensors(params))
    require_policy(policy, "params", config.hidden_sizes)
    write_policy(path, policy)


def load_policy(path: str | Path) -> tuple[Policy, Any]:
    """Reads a policy file of either framework, in the dtype in which it is stored.

    Raises:
        UsageError: The file is missing, damaged or no policy, or it holds float64 while x64 is off.
    """
    file = read_policy(path)
    policy = make_policy(file.agent, file.obs_dim, file.num_actions, file.hidden_sizes)
    dtype = file.tensors["linear1.weight"].dtype
    require(
        dtype != np.float64 or jnp.result_type(float) == np.float64,
        f"dtype of {path}",
        dtype.name,
        "float32 while JAX's x64 mode is off; load it inside jax.enable_x64(True)",
    )
    template = jax.tree.map(lambda leaf: leaf.astype(dtype), policy.init(jax.random.key(0)))
    return policy, tensors_to_params(file.tensors, template)


def _require_fit(params: Any, config: TrainConfig, env: Env | GymSpec) -> None:
    """Raises a `UsageError` unless a run of `config` in `env` can start from `params`."""
    layers = layer_shapes(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    require_tensors(params_to_tensors(params), tensor_shapes(layers), "params")


def _is_dense(layer: Any) -> bool:
    return isinstance(layer, Mapping) and set(layer) == {"kernel", "bias"}
