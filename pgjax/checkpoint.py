"""Policies and training states in the neutral schema: the article's layer names, torch's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from pgcore.agents import layer_shapes
from pgcore.checkpoints import StoredCheckpoint, find_checkpoint
from pgcore.config import TrainConfig
from pgcore.envs.gym import GymSpec
from pgcore.errors import UsageError, require
from pgcore.files.schema import (
    PolicyFile,
    Tensors,
    read_policy,
    require_policy,
    require_tensors,
    tensor_shapes,
    write_policy,
)
from pgjax.envs.base import Env
from pgjax.optim import make_optimizer
from pgjax.policies import Policy, make_policy
from pgjax.types import TrainState


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
        tensors[f"{layer}.weight"] = np.array(np.asarray(leaves["kernel"]).T)
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
    return policy, _params_of(policy, file.tensors, str(path))


class Checkpoint(NamedTuple):
    """A run at the end of an update, in this framework, whichever made it."""

    config: TrainConfig
    policy: Policy
    state: TrainState
    kept_params: Any
    """The kept policy's parameters."""
    stored: StoredCheckpoint
    """The counters, and what made it."""


def state_to_tensors(state: TrainState) -> Tensors:
    """Parameters, Adam's `adam.m.…`, `adam.v.…` and `adam.count`, and `update`, as arrays by name.

    Raises:
        UsageError: The optimizer is not Adam, alone or in a chain with clips, or the parameters
            are not those of one of the article's networks.
    """
    adam = _adam_state(state.opt_state)
    tensors = dict(params_to_tensors(state.params))
    for kind, moments in (("m", adam.mu), ("v", adam.nu)):
        named = params_to_tensors(moments).items()
        tensors |= {f"adam.{kind}.{name}": array for name, array in named}
    return tensors | {"adam.count": np.array(adam.count), "update": np.array(state.update)}


def tensors_to_state(tensors: Tensors, state: TrainState) -> TrainState:
    """A state like `state` with the values of `tensors`.

    Raises:
        UsageError: A tensor is missing, left over, or of another shape, or the optimizer is not
            Adam.
    """
    shapes = {name: array.shape for name, array in state_to_tensors(state).items()}
    require_tensors(tensors, shapes, "tensors")
    names = params_to_tensors(state.params)
    adam = _adam_state(state.opt_state)
    mu, nu = (
        tensors_to_params({name: tensors[f"adam.{kind}.{name}"] for name in names}, moments)
        for kind, moments in (("m", adam.mu), ("v", adam.nu))
    )
    loaded = optax.ScaleByAdamState(jnp.array(tensors["adam.count"], adam.count.dtype), mu, nu)
    opt_state = jax.tree.map(
        lambda leaf: loaded if _is_adam(leaf) else leaf, state.opt_state, is_leaf=_is_adam
    )
    params = tensors_to_params({name: tensors[name] for name in names}, state.params)
    return TrainState(params, opt_state, jnp.array(tensors["update"], state.update.dtype))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads the newest good checkpoint of a run folder of either framework; nothing is changed.

    Args:
        path: The run folder, or the folder of one checkpoint in it.

    Raises:
        UsageError: It is neither, no checkpoint is good, or it holds float64 while x64 is off.
    """
    return _load(find_checkpoint(Path(path)), str(path))


def _load(stored: StoredCheckpoint, where: str) -> Checkpoint:
    """What is stored, in this framework."""
    config = stored.config
    tensors = {
        name: array
        for name, array in stored.state.items()
        if not name.startswith(("random.", "kept."))
    }
    named = {name: array for name, array in tensors.items() if name != "update"}
    named = {name: array for name, array in named.items() if not name.startswith("adam.")}
    file = PolicyFile(config.agent, config.env_id, named)
    require_policy(file, f"the state of {where!r}", config.hidden_sizes)
    policy = make_policy(config.agent, file.obs_dim, file.num_actions, config.hidden_sizes)
    params = _params_of(policy, named, where)
    opt_state = make_optimizer(config).init(params)
    state = tensors_to_state(tensors, TrainState(params, opt_state, jnp.zeros((), jnp.int32)))
    kept_params = tensors_to_params(stored.policy.tensors, params)
    return Checkpoint(config, policy, state, kept_params, stored)


def _keys_to_tensors(train_key: Array, eval_key: Array) -> Tensors:
    """The keys from which each update's own are folded: `random.threefry2x32.train`, say."""
    prefix = f"random.{jax.random.key_impl(train_key)}"
    keys = {f"{prefix}.train": train_key, f"{prefix}.evaluation": eval_key}
    return {name: np.asarray(jax.random.key_data(key)) for name, key in keys.items()}


def _stored_keys(tensors: Tensors) -> list[Array] | None:
    """The keys of training and of the evaluations; None if another framework made these tensors."""
    for kind in _KEY_KINDS:
        names = [f"random.{kind}.{use}" for use in ("train", "evaluation")]
        if all(name in tensors for name in names):
            return [jax.random.wrap_key_data(jnp.array(tensors[name]), impl=kind) for name in names]
    return None


_KEY_KINDS = ("threefry2x32", "rbg", "unsafe_rbg")
"""JAX's generators, by its names for them."""


def _params_of(policy: Policy, tensors: Tensors, where: str) -> Any:
    """The policy's parameters in the dtype of `tensors`."""
    dtype = tensors["linear1.weight"].dtype
    require(
        dtype != np.float64 or jnp.result_type(float) == np.float64,
        f"dtype of {where}",
        dtype.name,
        "float32 while JAX's x64 mode is off; load it inside jax.enable_x64(True)",
    )
    template = jax.tree.map(lambda leaf: leaf.astype(dtype), policy.init(jax.random.key(0)))
    return tensors_to_params(tensors, template)


def _is_adam(state: Any) -> bool:
    return isinstance(state, optax.ScaleByAdamState)


def _adam_state(opt_state: Any) -> Any:
    """Adam's part of the optimizer's state, which must be all that there is."""
    found = jax.tree.leaves(opt_state, is_leaf=_is_adam)
    accepted = "that of adam, alone or in a chain with clips"
    require(len(found) == 1 and _is_adam(found[0]), "opt_state", opt_state, accepted)
    return found[0]


def _require_fit(params: Any, config: TrainConfig, env: Env | GymSpec) -> None:
    """Raises a `UsageError` unless a run of `config` in `env` can start from `params`."""
    layers = layer_shapes(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    require_tensors(params_to_tensors(params), tensor_shapes(layers), "params")


def _is_dense(layer: Any) -> bool:
    return isinstance(layer, Mapping) and set(layer) == {"kernel", "bias"}
