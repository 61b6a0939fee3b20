"""Whole updates on given episodes: everything that an update changes or reports."""

from functools import cache, partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from parity import oracle
from parity.hazards import Batch, Size
from parity.suite.stages import Stage
from parity.suite.weights import from_flax, jax_policy, to_flax, torch_policy
from pgcore.config import TrainConfig
from pgjax import optim as jax_optim
from pgjax import types as jax_types
from pgtorch import optim as torch_optim
from pgtorch import types as torch_types

# The packages' attribute `train` is the function.
jax_train = import_module("pgjax.train")
torch_train = import_module("pgtorch.train")


@cache
def update_step(
    config: TrainConfig, size: Size, *, num_updates: int = 1, sgd: bool = False
) -> Stage:
    """Inputs `params/*` and a batch's fields, each with one axis more in front if several.

    With `sgd` the optimizer is plain gradient descent, in which a wrong scale of the gradient
    shows (Adam hides it), and nothing is clipped.
    """
    chained = f"{num_updates} chained updates" if num_updates > 1 else "whole update"
    return Stage(
        f"{chained} with SGD" if sgd else chained,
        _in_torch(config, size, num_updates, sgd),
        _in_jax(config, size, num_updates, sgd),
        oracle=None if sgd else _by_hand(config, num_updates),
    )


def _in_torch(config: TrainConfig, size: Size, num_updates: int, sgd: bool):
    def run(params, **batch):
        policy = torch_policy(config.agent, size)
        module = policy.init(torch.Generator()).to(batch["obs"].dtype)
        module.load_state_dict(params)
        if sgd:
            optimizer: Any = partial(torch.optim.SGD, lr=config.learning_rate)
        else:
            optimizer = torch_optim.make_optimizer(config)
        stepper = optimizer(module.parameters())
        state = torch_types.TrainState(module, stepper, torch.zeros((), dtype=torch.int32))
        step = torch_train.make_update_step(policy, optimizer, config)
        metrics = []
        for i in range(num_updates):
            trajectory = {k: v if num_updates == 1 else v[i] for k, v in batch.items()}
            state, last = step(state, torch_types.Trajectory(**trajectory))
            metrics.append(last._asdict())
        outputs = {"params": dict(module.named_parameters()), "update": state.update}
        if not sgd:
            moments = {name: stepper.state[p] for name, p in module.named_parameters()}
            outputs["m"] = {name: state["exp_avg"] for name, state in moments.items()}
            outputs["v"] = {name: state["exp_avg_sq"] for name, state in moments.items()}
        return outputs | {"metrics": metrics}

    return run


def _in_jax(config: TrainConfig, size: Size, num_updates: int, sgd: bool):
    def run(params, **batch):
        policy = jax_policy(config.agent, size)
        optimizer = optax.sgd(config.learning_rate) if sgd else jax_optim.make_optimizer(config)
        flax_params = to_flax(params)
        state = jax_types.TrainState(
            flax_params, optimizer.init(flax_params), jnp.zeros((), jnp.int32)
        )
        step = jax_train.make_update_step(policy, optimizer, config)

        def one(state, episodes):
            return step(state, jax_types.Trajectory(**episodes))

        if num_updates == 1:
            state, last = one(state, batch)
            metrics = [last._asdict()]
        else:  # a scan, which is compiled as fast as one update
            state, rows = jax.lax.scan(one, state, batch)
            metrics = [{k: v[i] for k, v in rows._asdict().items()} for i in range(num_updates)]
        outputs = {"params": from_flax(state.params), "update": state.update}
        if not sgd:
            adam: Any = _adam_state(state.opt_state)
            outputs["m"], outputs["v"] = from_flax(adam.mu), from_flax(adam.nu)
        return outputs | {"metrics": metrics}

    return run


def _by_hand(config: TrainConfig, num_updates: int):
    def run(params, **batch):
        zeros = {name: np.zeros_like(tensor) for name, tensor in params.items()}
        state = oracle.AdamStep(params, zeros, zeros, 0)
        metrics = []
        for i in range(num_updates):
            episodes = Batch(**{k: v if num_updates == 1 else v[i] for k, v in batch.items()})
            state, last = _update_by_hand(config, state, episodes)
            metrics.append(last)
        update = np.asarray(state.count)
        return state._asdict() | {"count": None, "update": update, "metrics": metrics}

    return run


def _update_by_hand(
    config: TrainConfig, state: oracle.AdamStep, batch: Batch
) -> tuple[oracle.AdamStep, dict[str, Any]]:
    agent, mask = config.agent, batch.mask
    # The oracle's loops skip what is outside the mask; its loops over all states can't.
    obs = np.where(mask[..., None], batch.obs, 0.0)
    sample = np.where(mask if batch.sample.ndim == 2 else mask[..., None], batch.sample, 0)
    returns = oracle.discounted_returns(batch.reward, mask, config.discount)
    advantages = oracle.advantages(returns, mask, config.normalize)
    dist = oracle.network(agent, state.params, obs)
    log_probs = oracle.log_prob(agent, dist, sample)
    gradients = oracle.reinforce_gradient(agent, state.params, obs, sample, advantages, mask)
    metrics = {
        "loss": oracle.reinforce_loss(log_probs, advantages, mask),
        "grad_norm": oracle.global_norm(gradients),
        "entropy": oracle.entropy(agent, dist)[mask].mean(),
        "mean_return": oracle.discounted_returns(batch.reward, mask, 1.0)[0].mean(),
        "num_episodes": mask.shape[1],
        "num_steps": mask.sum(),
    }
    if config.max_grad_norm is not None:
        gradients = oracle.clip_by_global_norm(gradients, config.max_grad_norm)
    step = oracle.adam_step(
        state.params, gradients, state.m, state.v, state.count, learning_rate=config.learning_rate
    )
    return step, {name: np.asarray(value) for name, value in metrics.items()}


def _adam_state(opt_state: Any) -> optax.ScaleByAdamState:
    """Adam's moments, wherever a chain has put them."""

    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    (found,) = (node for node in jax.tree.leaves(opt_state, is_leaf=is_adam) if is_adam(node))
    return found


def stacked(batches: list[Batch]) -> dict[str, np.ndarray]:
    """Several batches as one, with an axis more in front."""
    return {name: np.stack([getattr(b, name) for b in batches]) for name in Batch._fields}


def padding(inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Where each array of a batch, or of several, is no data."""
    mask = inputs["mask"]
    extra = {name: inputs[name].ndim - mask.ndim for name in ("obs", "reward", "sample")}
    return {name: ~mask.reshape(mask.shape + (1,) * axes) for name, axes in extra.items()}
