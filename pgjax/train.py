"""REINFORCE: play whole episodes, weigh log-probabilities by advantages, step."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from pgcore.config import TrainConfig
from pgcore.training import Result, StepResult, Trainer, Update, run
from pgjax.checkpoint import save_policy
from pgjax.envs.base import Env
from pgjax.envs.gymnasium import _host_errors
from pgjax.envs.registry import make_env
from pgjax.losses import reinforce_loss
from pgjax.optim import make_optimizer
from pgjax.policies import Policy, make_policy
from pgjax.returns import discounted_returns, episode_returns, normalize_returns
from pgjax.rollout import draw_noise, rollout
from pgjax.types import Metrics, TrainState, Trajectory


def init(key: Array, policy: Policy, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    params = policy.init(key)
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def make_update_step(
    policy: Policy, optimizer: optax.GradientTransformation, config: TrainConfig
) -> Callable[[TrainState, Trajectory], tuple[TrainState, Metrics]]:
    """`update_step(state, trajectory) -> (state, metrics)`: one gradient step on given episodes.

        G_t = r_t + γ·G_{t+1},   A = (G − mean) / std,   L = −(1/B) Σ_b Σ_t log π(a_tb) · A_tb

    Padding outside the mask is replaced by zero before anything else, so it may hold NaN.
    `config` gives the discount and the scope of the statistics.
    """

    def loss_and_entropy(
        params: Any, trajectory: Trajectory, advantages: Float[Array, "T B"]
    ) -> tuple[Array, Array]:
        distribution = policy.apply(params, trajectory.obs)
        # Were the sample not stopped, the Gaussian agent's gradient would silently vanish: z − mu
        # is std·noise whatever mu is.
        sample = jax.lax.stop_gradient(trajectory.sample)
        log_probs = policy.log_prob(distribution, sample)
        mask = trajectory.mask
        entropy = jnp.where(mask, policy.entropy(distribution), 0).sum() / mask.sum()
        return reinforce_loss(log_probs, advantages, mask), entropy

    def update_step(state: TrainState, trajectory: Trajectory) -> tuple[TrainState, Metrics]:
        trajectory = _without_padding(trajectory)
        reward, mask = trajectory.reward, trajectory.mask
        returns = discounted_returns(reward, mask, config.discount)
        advantages = normalize_returns(returns, mask, config.normalize)

        loss_gradient = jax.value_and_grad(loss_and_entropy, has_aux=True)
        (loss, entropy), grads = loss_gradient(state.params, trajectory, advantages)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        metrics = Metrics(
            loss=loss,
            grad_norm=optax.tree.norm(grads),
            entropy=entropy,
            mean_return=episode_returns(reward, mask).mean(),
            num_episodes=jnp.asarray(mask.shape[1], jnp.int32),
            num_steps=mask.sum(dtype=jnp.int32),
        )
        return TrainState(params, opt_state, state.update + 1), metrics

    return update_step


def make_train_step(
    policy: Policy, env: Env, optimizer: optax.GradientTransformation, config: TrainConfig
) -> Callable[[TrainState, Array], tuple[TrainState, Metrics]]:
    """`train_step(state, key) -> (state, metrics)`: noise, rollout and update, nothing else."""
    update_step = make_update_step(policy, optimizer, config)

    def train_step(state: TrainState, key: Array) -> tuple[TrainState, Metrics]:
        noise = draw_noise(policy, env, key, config.episodes_per_update)
        return update_step(state, rollout(policy, state.params, env, noise))

    return train_step


def train(config: TrainConfig, *, callback: Callable[[Update], None] | None = None) -> Result:
    """Trains until the environment is solved or the budget is spent.

    Args:
        config: The settings; the seed decides everything random.
        callback: Called with an `Update` after each update.

    Returns:
        The kept policy, its parameters and evaluation, one row an update, and when it was solved.

    Raises:
        UsageError: The environment can't be made or does not fit.
        RunError: The loss or its gradient is not finite.
    """
    started = time.perf_counter()
    env = make_env(config.env_id)
    policy = make_policy(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    optimizer = make_optimizer(config)
    update_step = make_update_step(policy, optimizer, config)

    # One compiled rollout plays the training episodes and, batch after batch, those of an
    # evaluation. Keys and indices are arguments, so that another seed compiles nothing anew.
    def play(params: Any, key: Array, update: Array, batch: Array) -> Trajectory:
        key = jax.random.fold_in(jax.random.fold_in(key, update), batch)
        noise = draw_noise(policy, env, key, config.episodes_per_update)
        return rollout(policy, params, env, noise)

    def learn(state: TrainState, trajectory: Trajectory) -> StepResult:
        state, metrics = update_step(state, trajectory)
        return StepResult(state, metrics, episode_returns(trajectory.reward, trajectory.mask))

    def step(state: TrainState) -> StepResult:
        with _host_errors():
            trajectory = jit_play(state.params, train_key, state.update, np.int32(0))
            return jax.block_until_ready(jit_learn(state, trajectory))

    def evaluate(params: Any, update: int) -> np.ndarray:
        num_batches = -(-config.eval_episodes // config.episodes_per_update)
        with _host_errors():
            trajectories = [
                jit_play(params, eval_key, np.int32(update), np.int32(batch))
                for batch in range(num_batches)
            ]
            returns = [np.sum(trajectory.reward, axis=0) for trajectory in trajectories]
        return np.concatenate(returns)[: config.eval_episodes]

    jit_init = jax.jit(lambda key: init(key, policy, optimizer))
    jit_play, jit_learn = jax.jit(play), jax.jit(learn)
    init_key, train_key, eval_key = jax.random.split(jax.random.key(config.seed), 3)
    trainer = Trainer(
        "pgjax",
        step=step,
        snapshot=lambda state: state.params,
        evaluate=evaluate,
        save_policy=save_policy,
    )
    return run(config, policy, jit_init(init_key), trainer, callback=callback, started=started)


def _without_padding(trajectory: Trajectory) -> Trajectory:
    """Zeros wherever the mask is false: an episode's padding may hold anything."""
    mask = trajectory.mask

    def cleaned(array: Array) -> Array:
        return jnp.where(mask.reshape(*mask.shape, *[1] * (array.ndim - 2)), array, 0)

    obs, sample, action, reward = jax.tree.map(cleaned, trajectory[:4])
    return trajectory._replace(obs=obs, sample=sample, action=action, reward=reward)
