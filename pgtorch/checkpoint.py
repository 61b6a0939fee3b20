"""Policies and training states in files, in the schema that both frameworks share.

Its names and layouts are those of torch's `state_dict`: nothing has to be transposed here.
"""

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from pgcore.agents import layer_shapes
from pgcore.checkpoints import StoredCheckpoint, find_checkpoint
from pgcore.config import TrainConfig
from pgcore.envs.gym import GymSpec
from pgcore.errors import require
from pgcore.files.schema import (
    PolicyFile,
    read_policy,
    require_policy,
    require_tensors,
    tensor_shapes,
    write_policy,
)
from pgtorch.envs.base import Env
from pgtorch.optim import make_optimizer
from pgtorch.policies import Policy, make_policy
from pgtorch.types import TrainState


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
    return policy, _module_of(policy, file.tensors)


_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}
"""Adam's moments by their neutral names, and as torch calls them."""


class Checkpoint(NamedTuple):
    """A run at the end of an update, in this framework, whichever made it."""

    config: TrainConfig
    policy: Policy
    state: TrainState
    kept_params: nn.Module
    """The kept policy's parameters."""
    stored: StoredCheckpoint
    """The counters, and what made it."""


def state_to_tensors(state: TrainState) -> dict[str, np.ndarray]:
    """The parameters, Adam's moments and count, and the number of updates, as arrays, copied.

    Their names are `linear1.weight`, `adam.m.linear1.weight`, `adam.v.linear1.weight`, …,
    `adam.count` and `update`.

    Raises:
        UsageError: The optimizer is not Adam.
    """
    tensors = params_to_tensors(state.params)
    counts = set()
    for name, parameter in state.params.named_parameters():
        slots = _adam_slots(state.opt_state, parameter)
        counts.add(int(slots["step"]))
        for kind, slot in _MOMENTS.items():
            tensors[f"adam.{kind}.{name}"] = slots[slot].detach().cpu().numpy().copy()
    require(len(counts) == 1, "steps in opt_state", sorted(counts), "one count for all parameters")
    count = np.array(counts.pop(), np.int32)
    return tensors | {"adam.count": count, "update": state.update.numpy().copy()}


def tensors_to_state(tensors: dict[str, np.ndarray], state: TrainState) -> TrainState:
    """A copy of `state` that holds `tensors`, in its own dtypes.

    Raises:
        UsageError: A tensor is missing, left over, or of another shape, or the optimizer is not
            Adam.
    """
    shapes = {name: array.shape for name, array in state_to_tensors(state).items()}
    require_tensors(tensors, shapes, "tensors")
    # Copied together, so that the copied optimizer steps the copied parameters.
    params, opt_state, update = copy.deepcopy(state)
    params.load_state_dict({name: torch.tensor(tensors[name]) for name in params.state_dict()})
    for name, parameter in params.named_parameters():
        slots = _adam_slots(opt_state, parameter)
        slots["step"].fill_(int(tensors["adam.count"]))
        for kind, slot in _MOMENTS.items():
            slots[slot].copy_(torch.tensor(tensors[f"adam.{kind}.{name}"]))
        opt_state.state[parameter] = slots
    return TrainState(params, opt_state, update.fill_(int(tensors["update"])))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads the newest good checkpoint of a run folder of either framework; nothing is changed.

    Args:
        path: The run folder, or the folder of one checkpoint in it.

    Raises:
        UsageError: It is neither, or no checkpoint is good.
    """
    return _load(find_checkpoint(Path(path)), str(path))


def _load(stored: StoredCheckpoint, where: str) -> Checkpoint:
    """What is stored, in this framework."""
    config = stored.config
    beside = ("random.", "kept.")
    tensors = {name: a for name, a in stored.state.items() if not name.startswith(beside)}
    weights = {name: a for name, a in tensors.items() if name.endswith((".weight", ".bias"))}
    weights = {name: a for name, a in weights.items() if not name.startswith("adam.")}
    file = PolicyFile(config.agent, config.env_id, weights)
    require_policy(file, f"the state of {where!r}", config.hidden_sizes)
    policy = make_policy(config.agent, file.obs_dim, file.num_actions, config.hidden_sizes)
    params = _module_of(policy, weights)
    optimizer = make_optimizer(config)(params.parameters())
    fresh = TrainState(params, optimizer, torch.zeros((), dtype=torch.int32))
    state = tensors_to_state(tensors, fresh)
    kept_params = tensors_to_params(stored.policy.tensors, params)
    return Checkpoint(config, policy, state, kept_params, stored)


def _keys_to_tensors(
    key: torch.Generator, evaluation_key: torch.Generator
) -> dict[str, np.ndarray]:
    keys = zip(_KEY_NAMES, (key, evaluation_key), strict=True)
    return {name: generator.get_state().numpy().copy() for name, generator in keys}


def _stored_keys(tensors: dict[str, np.ndarray]) -> list[torch.Generator] | None:
    """The generators of a run of this framework; None if another made these tensors."""
    if not all(name in tensors for name in _KEY_NAMES):
        return None
    return [torch.Generator().set_state(torch.tensor(tensors[name])) for name in _KEY_NAMES]


_KEY_NAMES = ("random.mt19937.train", "random.mt19937.evaluation")
"""The generators in a checkpoint, by their kind."""


def _module_of(policy: Policy, tensors: dict[str, np.ndarray]) -> nn.Module:
    """The policy's module with these parameters, in their dtype."""
    stored = torch.tensor(tensors["linear1.weight"])
    template = policy.init(torch.Generator()).to(stored)
    return tensors_to_params(tensors, template)


def _adam_slots(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What Adam remembers of a parameter; before its first step, what it would begin with."""
    is_adam = isinstance(optimizer, torch.optim.Adam) and not optimizer.defaults["amsgrad"]
    require(is_adam, "opt_state", optimizer, "torch.optim.Adam, without amsgrad")
    if parameter in optimizer.state:
        return optimizer.state[parameter]
    is_double = torch.get_default_dtype() == torch.float64
    step = torch.zeros((), dtype=torch.float64 if is_double else torch.float32)  # as torch has it
    return {"step": step} | {slot: torch.zeros_like(parameter) for slot in _MOMENTS.values()}


def _require_fit(params: nn.Module, config: TrainConfig, env: Env | GymSpec) -> None:
    """Raises a `UsageError` unless it has the layers that `config` and `env` ask for."""
    layers = layer_shapes(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    require_tensors(params_to_tensors(params), tensor_shapes(layers), "params")
