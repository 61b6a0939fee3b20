"""Whole updates of both packages as sides: `make_update_step` on given episodes."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import pgjax.optim
import pgjax.types
import pgtorch.optim
import pgtorch.types
from parity import oracle, sides
from parity.hazards import Batch, Size
from pgcore.config import TrainConfig
from pgjax.train import make_update_step as make_jax_update_step
from pgtorch.train import make_update_step as make_torch_update_step
from tests.parity import stages

FIELDS = Batch._fields


def torch_updates(config: TrainConfig, size: Size, *, num_updates: int = 1, sgd: bool = False):
    """Inputs `params/*` and a batch's fields, each with one axis more in front if several."""

    def run(params, **batch):
        policy = stages.torch_policy(config.agent, size)
        module = policy.init(torch.Generator()).to(batch["obs"].dtype)
        module.load_state_dict(params)
        if sgd:
            optimizer = partial(torch.optim.SGD, lr=config.learning_rate)
        else:
            optimizer = pgtorch.optim.make_optimizer(config)
        stepper = optimizer(module.parameters())
        state = pgtorch.types.TrainState(module, stepper, torch.zeros((), dtype=torch.int32))
        update_step = make_torch_update_step(policy, optimizer, config)
        metrics = []
        for i in range(num_updates):
            trajectory = {k: v if num_updates == 1 else v[i] for k, v in batch.items()}
            state, last = update_step(state, pgtorch.types.Trajectory(**trajectory))
            metrics.append(last._asdict())
        outputs = {"params": dict(module.named_parameters()), "update": state.update}
        if not sgd:
            moments = {name: stepper.state[p] for name, p in module.named_parameters()}
            outputs["m"] = {name: state["exp_avg"] for name, state in moments.items()}
            outputs["v"] = {name: state["exp_avg_sq"] for name, state in moments.items()}
        return outputs | {"metrics": metrics}

    return run


def jax_updates(config: TrainConfig, size: Size, *, num_updates: int = 1, sgd: bool = False):
    """The same in JAX."""

    def run(params, **batch):
        policy = stages.jax_policy(config.agent, size)
        if sgd:
            optimizer = optax.sgd(config.learning_rate)
        else:
            optimizer = pgjax.optim.make_optimizer(config)
        flax_params = stages.to_flax(params)
        state = pgjax.types.TrainState(
            flax_params, optimizer.init(flax_params), jnp.zeros((), jnp.int32)
        )
        update_step = make_jax_update_step(policy, optimizer, config)
        metrics = []
        for i in range(num_updates):
            trajectory = {k: v if num_updates == 1 else v[i] for k, v in batch.items()}
            state, last = update_step(state, pgjax.types.Trajectory(**trajectory))
            metrics.append(last._asdict())
        outputs = {"params": stages.from_flax(state.params), "update": state.update}
        if not sgd:
            adam = adam_state(state.opt_state)
            outputs["m"] = stages.from_flax(adam.mu)
            outputs["v"] = stages.from_flax(adam.nu)
        return outputs | {"metrics": metrics}

    return run


def oracle_updates(config: TrainConfig, *, num_updates: int = 1):
    """The same by the oracle, with Adam."""

    def run(params, **batch):
        zeros = {name: np.zeros_like(tensor) for name, tensor in params.items()}
        state = oracle.AdamStep(params, zeros, zeros, 0)
        metrics = []
        for i in range(num_updates):
            episodes = Batch(**{k: v if num_updates == 1 else v[i] for k, v in batch.items()})
            state, last = _oracle_update(config, state, episodes)
            metrics.append(last)
        update = np.asarray(state.count)
        return state._asdict() | {"count": None, "update": update, "metrics": metrics}

    return run


def _oracle_update(
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


def adam_state(opt_state: Any) -> optax.ScaleByAdamState:
    """Adam's moments, wherever a chain has put them."""

    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_adam) if is_adam(node)]
    assert len(found) == 1
    return found[0]


def stacked(batches: list[Batch]) -> dict[str, np.ndarray]:
    """Several batches as one, with an axis more in front."""
    return {name: np.stack([getattr(b, name) for b in batches]) for name in FIELDS}


@cache
def torch_side(config: TrainConfig, size: Size, **options: Any) -> Callable:
    return sides.torch_values(torch_updates(config, size, **options))


@cache
def jax_side(config: TrainConfig, size: Size, *, jit: bool = True, **options: Any) -> Callable:
    return sides.jax_values(jax_updates(config, size, **options), jit=jit)
