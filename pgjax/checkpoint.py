"""Policies in the neutral file schema: the article's layer names, torch's layout."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgcore.config import TrainConfig
from pgcore.errors import require
from pgcore.schema import PolicyFile, Tensors, read_policy, require_tensors, write_policy
from pgjax.policies import Policy, make_policy


def params_to_tensors(params: Any) -> Tensors:
    """`{"linear1.weight": [out, in], "linear1.bias": [out], …}` from Flax parameters.

    Flax keeps a dense kernel as `[in, out]`, so it is transposed here.
    """
    tensors = {}
    for layer, leaves in params["params"].items():
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
    """Writes a policy file that `pgjax` and `pgtorch` read."""
    write_policy(path, PolicyFile(config.agent, config.env_id, params_to_tensors(params)))


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
