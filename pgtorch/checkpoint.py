"""Policies in files, in the schema that both frameworks share.

Its names and layouts are those of torch's `state_dict`: nothing has to be transposed here.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pgcore.config import TrainConfig
from pgcore.schema import PolicyFile, read_policy, require_tensors, write_policy
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
    """Writes the policy of a run to a file that either framework reads."""
    write_policy(path, PolicyFile(config.agent, config.env_id, params_to_tensors(params)))


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
