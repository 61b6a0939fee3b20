"""REINFORCE: play whole episodes, weigh log-probabilities by advantages, step."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from pgcore.config import TrainConfig
from pgcore.envs.faults import LARGEST_SHARE, EnvironmentFault, Played
from pgcore.errors import UsageError
from pgcore.training.bookkeeping import Result, StepResult, Update
from pgcore.training.loop import Trainer, run
from pgjax.checkpoint import (
    _keys_to_tensors,
    _require_fit,
    params_to_tensors,
    state_to_tensors,
)
from pgjax.envs.base import Env
from pgjax.envs.gymnasium import _finished, _host_errors
from pgjax.envs.registry import make_env
from pgjax.fast import Fast, find_fast, make_fast_train_step, make_fast_update_step
from pgjax.fast import play as play_fast
from pgjax.losses import reinforce_loss
from pgjax.optim import _apply_gradient, make_optimizer
from pgjax.policies import Policy, make_policy
from pgjax.programs import Program
from pgjax.returns import discounted_returns, episode_returns, normalize_returns
from pgjax.rollout import draw_noise, rollout
from pgjax.threefry import fold_in, split
from pgjax.types import Metrics, TrainState, Trajectory


def init(key: Array, policy: Policy, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update.

    Raises:
        UsageError: A leaf of the parameters is nothing to take a gradient in.
    """
    params = policy.init(key)
    for path, leaf in jax.tree.leaves_with_path(params):
        if not jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.inexact):
            raise UsageError(
                f"params{jax.tree_util.keystr(path)} is {leaf!r}, accepted are arrays of floats; "
                "keep out of params what is not trained: eqx.partition(module, "
                "eqx.is_inexact_array), nnx.split(module, nnx.Param, ...)"
            )
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
        metrics = Metrics(
            loss=loss,
            grad_norm=optax.tree.norm(grads),
            entropy=entropy,
            mean_return=episode_returns(reward, mask).mean(),
            num_episodes=jnp.asarray(mask.shape[1], jnp.int32),
            num_steps=mask.sum(dtype=jnp.int32),
        )
        return _apply_gradient(optimizer, state, loss, grads), metrics

    return update_step


def make_train_step(
    policy: Policy, env: Env, optimizer: optax.GradientTransformation, config: TrainConfig
) -> Callable[[TrainState, Array], tuple[TrainState, Metrics]]:
    """`train_step(state, key) -> (state, metrics)`: noise, rollout and update, nothing else.

    The two agents on our own CartPole take the fast path of `pgjax.fast`, which is the same up to
    rounding; every other policy and environment takes the plain one.
    """
    if (fast := find_fast(policy, env)) is not None:
        return make_fast_train_step(fast, optimizer, config)
    update_step = make_update_step(policy, optimizer, config)

    def train_step(state: TrainState, key: Array) -> tuple[TrainState, Metrics]:
        noise = draw_noise(policy, env, key, config.episodes_per_update)
        return update_step(state, rollout(policy, state.params, env, noise))

    return train_step


def train(
    config: TrainConfig, *, params: Any = None, callback: Callable[[Update], None] | None = None
) -> Result:
    """Trains until the environment is solved, the budget is spent, or it is to pause.

    Args:
        config: The settings; the seed decides everything random.
        params: Parameters to start from; by default the policy draws them.
        callback: Called with an `Update` after each update.

    Returns:
        The kept policy, its parameters and evaluation, one row an update, and when it was solved.

    Raises:
        UsageError: The environment can't be made or does not fit, or `params` do not fit it.
        RunError: A reward, an observation, a parameter, the loss or its gradient is not finite.
    """
    started = time.perf_counter()
    parts = _make_parts(config)
    seed = np.uint32(config.seed)
    if params is None:
        first = Program("first", _first(parts), parts.kept_for)
        programs = _begin(parts, *first.begin(seed)[:2])
        state, *keys = first(seed)
    else:
        init_key, *keys = jax.jit(_run_keys)(seed)
        state = parts.start(init_key, params)
        programs = _begin(parts, state, keys[0])
    trainer = _make_trainer(config, programs, *keys)
    return run(config, parts.policy, state, trainer, callback=callback, started=started)


def _first(parts: "_Parts") -> Callable[[Array], tuple[TrainState, Array, Array]]:
    """`seed -> (state, train_key, eval_key)`, before the first update."""

    def first(seed: Array) -> tuple[TrainState, Array, Array]:
        init_key, train_key, eval_key = _run_keys(seed)
        return parts.start(init_key, None), train_key, eval_key

    return first


class _Programs(NamedTuple):
    """What a run repeats, as in `_Parts`."""

    play: Program
    learn: Program
    play_all: Program | None


def _begin(parts: "_Parts", state: Any, train_key: Any) -> _Programs:
    """Begins to compile, for such a state and key, or for shapes of them."""
    play = Program("play", parts.play, parts.kept_for)
    learn = Program("learn", parts.learn, parts.kept_for)
    learn.begin(state, play.begin(state.params, train_key, state.update, np.int32(0)).record)
    if parts.play_all is None:
        return _Programs(play, learn, None)
    play_all = Program("play_all", parts.play_all, parts.kept_for)
    play_all.begin(state.params, train_key, state.update)
    return _Programs(play, learn, play_all)


def _make_trainer(
    config: TrainConfig, programs: _Programs, train_key: Array, eval_key: Array
) -> Trainer:
    play, learn, play_all = programs
    keys = _keys_to_tensors(train_key, eval_key)

    def step(state: TrainState) -> StepResult:
        with _host_errors():
            episodes = play(state.params, train_key, state.update, np.int32(0))
            state, metrics = _finished(learn(state, episodes.record))
        return StepResult(state, metrics, _played(episodes))

    def evaluate(params: Any, update: int) -> list[Played]:
        if play_all is not None:
            return [_played(play_all(params, eval_key, np.int32(update)))]
        played = []
        for batch in range(_num_eval_batches(config)):
            try:
                with _host_errors():
                    episodes = play(params, eval_key, np.int32(update), np.int32(batch))
                    played.append(_played(_finished(episodes)))
            except EnvironmentFault as fault:
                raise fault.after(batch * config.episodes_per_update) from fault.__cause__
        return played

    return Trainer(
        "pgjax",
        step=step,
        snapshot=lambda state: state.params,
        evaluate=evaluate,
        tensors=params_to_tensors,
        freeze=lambda state: lambda: state_to_tensors(state) | keys,
    )


class _Episodes(NamedTuple):
    """What is played at once."""

    record: Any
    """What `learn` takes."""
    returns: Float[Array, " B"]
    is_finite: Bool[Array, ""]


class _Parts(NamedTuple):
    """What a configuration's runs are made of, of one seed or of many."""

    policy: Policy
    play: Callable[[Any, Array, Array, Array], _Episodes]
    """`(params, key, update, batch) -> episodes`, fresh ones for each update and batch."""
    play_all: Callable[[Any, Array, Array], _Episodes] | None
    """`(params, key, update) -> episodes`: all of an evaluation at once, on the fast path."""
    learn: Callable[[TrainState, Any], tuple[TrainState, Metrics]]
    start: Callable[[Array, Any], TrainState]
    """`(key, params) -> state`; where `params` is None, the policy draws them."""
    kept_for: TrainConfig | None
    """The configuration, if these functions may be kept as programs of it."""


def _make_parts(config: TrainConfig) -> _Parts:
    env = make_env(config.env_id, timeout=config.env_timeout or None)
    policy = make_policy(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    optimizer = make_optimizer(config)

    def start(key: Array, params: Any) -> TrainState:
        if params is None:
            return init(key, policy, optimizer)
        _require_fit(params, config, env)
        return init(key, policy._replace(init=lambda key: params), optimizer)

    # Keys and indices are arguments, so that another seed compiles nothing anew.
    if (fast := find_fast(policy, env)) is not None:
        learn = make_fast_update_step(fast, optimizer, config)
        return _Parts(policy, *_fast_players(fast, config), learn, start, config)

    # One compiled rollout plays the training episodes and, batch after batch, an evaluation's.
    def play(params: Any, key: Array, update: Array, batch: Array) -> _Episodes:
        key = fold_in(fold_in(key, update), batch)
        noise = draw_noise(policy, env, key, config.episodes_per_update)
        trajectory = rollout(policy, params, env, noise)
        obs, reward, mask = trajectory.obs, trajectory.reward, trajectory.mask
        largest = jnp.finfo(reward.dtype).max * LARGEST_SHARE
        is_small = (jnp.abs(reward).sum(axis=0) <= largest).all()  # zero outside the mask
        is_finite = _are_finite((obs, params)) & is_small
        return _Episodes(trajectory, episode_returns(reward, mask), is_finite)

    learn = make_update_step(policy, optimizer, config)
    return _Parts(policy, play, None, learn, start, None)


def _fast_players(fast: Fast, config: TrainConfig) -> tuple[Callable, Callable]:
    """`play` and `play_all` of `_Parts`. Our CartPole's observations are always finite."""
    size, num_batches = config.episodes_per_update, _num_eval_batches(config)

    def play(params: Any, key: Array, update: Array, batch: Array) -> _Episodes:
        key = fold_in(fold_in(key, update), batch)
        episodes = play_fast(fast, params, key, size)
        return _Episodes(episodes, episodes.length.astype(float), _are_finite(params))

    def play_all(params: Any, key: Array, update: Array) -> _Episodes:
        keys = fold_in(fold_in(key, update), jnp.arange(num_batches))
        episodes = play_fast(fast, params, keys, size)
        return _Episodes(None, episodes.length.astype(float), _are_finite(params))

    return play, play_all


def _are_finite(tree: Any) -> Bool[Array, ""]:
    each = jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)
    return jax.tree.reduce(jnp.logical_and, each)


def _played(episodes: _Episodes) -> Played:
    returns = np.asarray(episodes.returns, np.float64)
    return Played(returns, episodes.is_finite, lambda: episodes.record)


def _run_keys(seed: Array) -> tuple[Array, ...]:
    """Keys of a run's initial parameters, of its training and of its evaluations."""
    return split(jax.random.key(seed), 3)


def _num_eval_batches(config: TrainConfig) -> int:
    return -(-config.eval_episodes // config.episodes_per_update)


def _without_padding(trajectory: Trajectory) -> Trajectory:
    """Zeros wherever the mask is false: an episode's padding may hold anything."""
    mask = trajectory.mask

    def cleaned(array: Array) -> Array:
        return jnp.where(mask.reshape(*mask.shape, *[1] * (array.ndim - 2)), array, 0)

    obs, sample, action, reward = jax.tree.map(cleaned, trajectory[:4])
    return trajectory._replace(obs=obs, sample=sample, action=action, reward=reward)
