"""Policies in files, in the schema that both frameworks share.

Its names and layouts are those of torch's `state_dict`: nothing has to be transposed here.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pgcore.agents import layer_shapes
from pgcore.config import TrainConfig
from pgcore.gym import GymSpec
from pgcore.schema import (
    PolicyFile,
    read_policy,
    require_policy,
    require_tensors,
    tensor_shapes,
    write_policy,
)
from pgtorch.envs.base import Env
from pgtorch.policies import Policy, make_policy


def params_to_tensors(params: nn.Module) -> dict[str, np.ndarray]:
    """The parameters as arrays by name, copied."""
    return {name: tensor.cpu().numpy().copy() for name, tensor in params.state_dict().items()}


def tensors_to_params(tensors: dict[str, np.ndarray], params: nn.Module) -> nn.Module:
    """A copy of the module `params` that holds `tensors`, in the module's own dtype.

    Raises:
        UsageError: A tensor is missing, left over, or of another shape.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in params.state_dict().items()}
    require_tensors(tensors, shapes, "tensors")
    loaded = copy.deepcopy(params)
    loaded.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    return loaded


def save_policy(path: str | Path, config: TrainConfig, params: nn.Module) -> None:
    """Writes the policy of a run to a file that either framework reads.

    Raises:
        UsageError: `params` is no network of `config.agent` with `config.hidden_sizes`, or not
            finite. Nothing is written. (For a module of one's own there is
            `safetensors.torch.save_model`.)
    """
    policy = PolicyFile(config.agent, config.env_id, params_to_tensors(params))
    require_policy(policy, "params", config.hidden_sizes)
    write_policy(path, policy)


def load_policy(path: str | Path) -> tuple[Policy, nn.Module]:
    """Reads a policy that either framework wrote, in the dtype in which it is stored.

    Raises:
        UsageError: The file is missing or damaged, or does not hold a policy.
    """
    file = read_policy(path)
    policy = make_policy(file.agent, file.obs_dim, file.num_actions, file.hidden_sizes)
    stored = torch.tensor(file.tensors["linear1.weight"])
    template = policy.init(torch.Generator()).to(stored)
    return policy, tensors_to_params(file.tensors, template)


def _require_fit(params: nn.Module, config: TrainConfig, env: Env | GymSpec) -> None:
    """Raises a `UsageError` unless it has the layers that `config` and `env` ask for."""
    layers = layer_shapes(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    require_tensors(params_to_tensors(params), tensor_shapes(layers), "params")
