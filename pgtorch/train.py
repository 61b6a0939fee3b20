"""The REINFORCE update, and training until the environment is solved.

∇J = E[ Σ_t A_t · ∇ log π(z_t | s_t) ]   (Williams 1992)
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pgcore.config import TrainConfig
from pgcore.envs.faults import LARGEST_SHARE, Played
from pgcore.errors import require
from pgcore.files.schema import Tensors
from pgcore.training.bookkeeping import Result, StepResult, Update
from pgcore.training.loop import Trainer, run
from pgtorch.checkpoint import (
    _keys_to_tensors,
    _require_fit,
    params_to_tensors,
    state_to_tensors,
)
from pgtorch.envs.base import Env
from pgtorch.envs.registry import make_env
from pgtorch.losses import reinforce_loss
from pgtorch.optim import make_optimizer
from pgtorch.policies import Policy, make_policy
from pgtorch.returns import discounted_returns, episode_returns, normalize_returns
from pgtorch.rollout import draw_noise, rollout
from pgtorch.types import Metrics, TrainState, Trajectory


def init(
    key: torch.Generator, policy: Policy, optimizer: Callable[..., torch.optim.Optimizer]
) -> TrainState:
    """Fresh parameters, drawn from `key`, their optimizer, and update 0.

    Raises:
        UsageError: `key` is no generator, or the parameters no module with any to train.
    """
    require(isinstance(key, torch.Generator), "key", key, "a torch.Generator")
    params = policy.init(key)
    trains = isinstance(params, torch.nn.Module) and any(
        p.requires_grad for p in params.parameters()
    )
    require(trains, "params", params, "a torch.nn.Module with parameters that require gradients")
    return TrainState(params, optimizer(params.parameters()), torch.zeros((), dtype=torch.int32))


def make_update_step(
    policy: Policy, optimizer: Callable[..., torch.optim.Optimizer], config: TrainConfig
) -> Callable[[TrainState, Trajectory], tuple[TrainState, Metrics]]:
    """One gradient step on a batch of episodes, as a function of nothing else.

    Args:
        policy: What the episodes were played with.
        optimizer: What made the state's `opt_state`. Its clips are applied here, if it is a chain.
        config: The `discount`, and what to `normalize` over.

    Returns:
        `update_step(state, trajectory) -> (state, metrics)`, which changes the state's parameters,
        optimizer and update count in place, and returns that same state.
    """
    clips = getattr(optimizer, "clips", ())

    def update_step(state: TrainState, trajectory: Trajectory) -> tuple[TrainState, Metrics]:
        mask = trajectory.mask
        # Padding may hold NaN, and NaN · 0 is NaN, in a gradient too: out with it before anything
        # else. No gradient runs through the samples: it would cancel the Gaussian score's.
        obs = _zero_outside(mask, trajectory.obs)
        sample = _zero_outside(mask, trajectory.sample).detach()
        reward = _zero_outside(mask, trajectory.reward)

        dist = policy.apply(state.params, obs)
        log_probs = policy.log_prob(dist, sample)
        returns = discounted_returns(reward, mask, config.discount)
        advantages = normalize_returns(returns, mask, config.normalize)
        loss = reinforce_loss(log_probs, advantages, mask)

        state.opt_state.zero_grad()
        loss.backward()
        parameters = list(state.params.parameters())
        grads = [p.grad for p in parameters if p.grad is not None]
        grad_norm = torch.nn.utils.get_total_norm(grads)
        for clip in clips:
            clip(parameters)
        state.opt_state.step()
        state.update.add_(1)

        num_steps = mask.sum()
        entropy = torch.where(mask, policy.entropy(dist), 0).sum() / num_steps
        return state, Metrics(
            loss=loss.detach(),
            grad_norm=grad_norm,
            entropy=entropy.detach(),
            mean_return=episode_returns(reward, mask).mean(),
            num_episodes=torch.tensor(mask.shape[1], dtype=torch.int32),
            num_steps=num_steps.to(torch.int32),
        )

    return update_step


def make_train_step(
    policy: Policy, env: Env, optimizer: Callable[..., torch.optim.Optimizer], config: TrainConfig
) -> Callable[[TrainState, torch.Generator], tuple[TrainState, Metrics]]:
    """Noise, rollout, update: `train_step(state, key) -> (state, metrics)`."""
    update_step = make_update_step(policy, optimizer, config)

    def train_step(state: TrainState, key: torch.Generator) -> tuple[TrainState, Metrics]:
        noise = draw_noise(policy, env, key, config.episodes_per_update)
        trajectory = rollout(policy, state.params, env, noise)
        return update_step(state, trajectory)

    return train_step


def train(
    config: TrainConfig,
    *,
    params: torch.nn.Module | None = None,
    callback: Callable[[Update], None] | None = None,
) -> Result:
    """Trains an agent in Gymnasium's environment until solved, out of budget, or to pause.

    All randomness comes from one generator, seeded with `config.seed`; the evaluations have
    another, seeded from it, so that evaluating more or less does not change what is learned. Two
    runs of one config are the same on one machine. Training computes on one thread.

    Args:
        config: The run's settings.
        params: A module to start from, which is copied; by default the policy makes one.
        callback: Called with a `pgcore.Update` after each update.

    Raises:
        UsageError: Gymnasium cannot make the environment, its spaces are of another kind, or
            `params` do not fit it.
        RunError: A reward, an observation, a parameter, the loss or its gradient is not finite.
    """
    started = time.perf_counter()
    env = make_env(config.env_id, timeout=config.env_timeout or None)
    policy = make_policy(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    key, evaluation_key = _run_keys(config.seed)
    trainer = _make_trainer(config, policy, env, key, evaluation_key)
    if params is not None:
        _require_fit(params, config, env)
        first = copy.deepcopy(params)
        state = init(key, policy._replace(init=lambda key: first), make_optimizer(config))
    else:
        state = init(key, policy, make_optimizer(config))
    with _one_thread():
        return run(config, policy, state, trainer, callback=callback, started=started)


def _make_trainer(
    config: TrainConfig,
    policy: Policy,
    env: Env,
    key: torch.Generator,
    evaluation_key: torch.Generator,
) -> Trainer:
    update_step = make_update_step(policy, make_optimizer(config), config)

    def step(state: TrainState) -> StepResult:
        noise = draw_noise(policy, env, key, config.episodes_per_update)
        trajectory = rollout(policy, state.params, env, noise)
        played = _played(state.params, trajectory)  # before the update changes these parameters
        state, metrics = update_step(state, trajectory)
        return StepResult(state, metrics, played)

    def evaluate(params: torch.nn.Module, update: int) -> list[Played]:
        noise = draw_noise(policy, env, evaluation_key, config.eval_episodes)
        return [_played(params, rollout(policy, params, env, noise))]

    def freeze(state: TrainState) -> Callable[[], Tensors]:
        # All of it at once: the next update changes the state and the generators in place.
        tensors = state_to_tensors(state) | _keys_to_tensors(key, evaluation_key)
        return lambda: tensors

    return Trainer(
        "pgtorch",
        step=step,
        snapshot=lambda state: copy.deepcopy(state.params),
        evaluate=evaluate,
        tensors=params_to_tensors,
        freeze=freeze,
    )


def _run_keys(seed: int) -> tuple[torch.Generator, torch.Generator]:
    """The generators of a run's training and of its evaluations."""
    key = torch.Generator().manual_seed(seed)
    evaluation_seed = int(torch.randint(2**32, (), generator=key))
    return key, torch.Generator().manual_seed(evaluation_seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Computes on one thread while open.

    Layers of 24 and 12 units are too small to share: a second thread only waits for the first.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _played(params: torch.nn.Module, trajectory: Trajectory) -> Played:
    obs, reward, mask = trajectory.obs, trajectory.reward, trajectory.mask  # zero outside the mask
    is_finite = all(bool(torch.isfinite(each).all()) for each in (obs, *params.parameters()))
    largest = torch.finfo(reward.dtype).max * LARGEST_SHARE
    is_finite = is_finite and bool((reward.abs().sum(dim=0) <= largest).all())
    return Played(episode_returns(reward, mask).double().numpy(), is_finite, lambda: trajectory)


def _zero_outside(mask: Tensor, values: Tensor) -> Tensor:
    return torch.where(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), values, 0)
