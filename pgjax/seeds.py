"""Many seeds of one configuration, all in one vmapped call."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pgcore.config import TrainConfig
from pgcore.envs.faults import Played
from pgcore.envs.gym import CARTPOLE, gym_spec
from pgcore.training.bookkeeping import Result, StepResult
from pgcore.training.seeds import (
    LanesTrainer,
    SeedsCallback,
    starting_points,
    train_in_turn,
    train_lanes,
)
from pgcore.training.seeds import SeedsError as SeedsError
from pgjax.checkpoint import _require_fit, params_to_tensors
from pgjax.train import _Episodes, _make_parts, _num_eval_batches, _run_keys, train
from pgjax.types import TrainState


def train_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    params: Sequence[Any] | None = None,
    callback: SeedsCallback | None = None,
) -> list[Result]:
    """Trains many seeds, each as `train` would alone: by its own noise, until it is solved.

    The seeds are lanes of one `vmap`; what vectorising rounds otherwise is all that differs from
    runs of their own. An environment that steps on the host can't be mapped: its seeds are
    trained one after another.

    Args:
        config: The settings; its seed is not used. With `run_dir` set it leaves one folder: a
            table, `seeds.csv`, and a run folder for each seed.
        seeds: Each from 0 to 2^32 - 1, and each once.
        params: Parameters for each seed to start from; by default the policy draws them.
        callback: Called with `(seed, update)` after each update of each seed.

    Returns:
        One result a seed, in the order of `seeds`.

    Raises:
        UsageError: A seed is none or given twice, the environment can't be made or does not fit,
            or `params` do not fit it.
        SeedsError: Something was not finite in a seed's run; the others went on to their ends.
    """
    started = time.perf_counter()
    starts = starting_points(config, seeds, params)
    seeds = list(starts)
    if params is not None:
        spec = gym_spec(config.env_id)
        for start in params:
            _require_fit(start, config, spec)
    if config.env_id != CARTPOLE:
        return train_in_turn(
            lambda one, **options: train(one, params=starts[one.seed], **options),
            config,
            seeds,
            "pgjax",
            callback=callback,
        )
    parts = _make_parts(config)
    num_batches = _num_eval_batches(config)
    init_keys, *keys = jax.vmap(_run_keys, out_axes=1)(jnp.array(seeds, jnp.uint32))

    def play_lanes(params: Any, keys: Array, lanes: Any, updates: Any, batches: Any) -> _Episodes:
        """One batch of episodes for each of `lanes`, in which a lane may come more than once."""
        chosen = jax.tree.map(lambda leaf: leaf[lanes], params)
        return jax.vmap(parts.play)(chosen, keys[lanes], updates, batches)

    play, learn = jax.jit(play_lanes), jax.jit(jax.vmap(parts.learn))

    def step(lanes: _Lanes) -> tuple[_Lanes, list[StepResult]]:
        every = np.arange(len(lanes.train_keys), dtype=np.int32)
        before = lanes.states
        episodes = play(before.params, lanes.train_keys, every, before.update, np.zeros_like(every))
        states, metrics = learn(before, episodes.trajectory)
        states_on_host, metrics_on_host = jax.tree.map(np.asarray, (states, metrics))
        return lanes._replace(states=states), [
            StepResult(_lane(states_on_host, lane), _lane(metrics_on_host, lane), played)
            for lane, played in enumerate(_split(episodes))
        ]

    def evaluate(lanes: _Lanes, asked: list[tuple[int, int]]) -> list[list[Played]]:
        """Packs the asked-for batches into calls of the training episodes' shape."""
        wanted = [(lane, update, batch) for lane, update in asked for batch in range(num_batches)]
        num_lanes, played = len(lanes.eval_keys), []
        for start in range(0, len(wanted), num_lanes):
            group = wanted[start : start + num_lanes]
            filled = np.array(group + group[:1] * (num_lanes - len(group)), np.int32)
            episodes = play(lanes.states.params, lanes.eval_keys, *filled.T)
            played += _split(episodes)[: len(group)]
        return [played[i : i + num_batches] for i in range(0, len(played), num_batches)]

    trainer = LanesTrainer(
        "pgjax",
        step=step,
        snapshot=lambda lanes, lane: _lane(lanes.states.params, lane),
        evaluate=evaluate,
        select=lambda lanes, chosen: jax.tree.map(lambda leaf: leaf[np.array(chosen)], lanes),
        tensors=params_to_tensors,
    )
    first = [parts.start(*pair) for pair in zip(init_keys, starts.values(), strict=True)]
    lanes = _Lanes(jax.tree.map(lambda *leaves: jnp.stack(leaves), *first), *keys)
    return train_lanes(
        config, seeds, parts.policy, lanes, trainer, callback=callback, started=started
    )


class _Lanes(NamedTuple):
    """Everything that is a lane's own; its leaves lead with the lanes."""

    states: TrainState
    train_keys: Array
    eval_keys: Array


def _lane(tree: Any, lane: int) -> Any:
    """One lane of each array of the tree."""
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def _split(episodes: _Episodes) -> list[Played]:
    """Each lane's episodes."""
    returns, is_finite = np.asarray(episodes.returns, np.float64), np.asarray(episodes.is_finite)
    return [
        Played(returns[lane], is_finite[lane], lambda lane=lane: _lane(episodes.trajectory, lane))
        for lane in range(len(returns))
    ]
