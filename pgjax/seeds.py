"""Many seeds of one configuration, all in one vmapped call."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
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
from pgjax.train import _compiled, _Episodes, _make_parts, _run_keys, train
from pgjax.types import TrainState

_EVALUATED_AT_ONCE = 8
"""Lanes whose evaluations are played in one call; a group that is smaller is filled up."""


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
    play_all = parts.play_all
    assert play_all is not None  # it is our own CartPole
    init_keys, *keys = _compiled(jax.vmap(_run_keys))(np.array(seeds, np.uint32))
    play, learn = _compiled(jax.vmap(parts.play)), _compiled(jax.vmap(parts.learn))
    play_all = _compiled(jax.vmap(play_all))

    def step(lanes: _Lanes) -> tuple[_Lanes, list[StepResult]]:
        before = lanes.states
        first_batches = np.zeros_like(before.update)
        episodes = play(before.params, lanes.train_keys, before.update, first_batches)
        states, metrics = _on_host(learn(before, episodes.record))
        return lanes._replace(states=states), [
            StepResult(_lane(states, lane), _lane(metrics, lane), played)
            for lane, played in enumerate(_split(episodes))
        ]

    def evaluate(lanes: _Lanes, asked: list[tuple[int, int]]) -> list[list[Played]]:
        """Packs the evaluations into calls of one shape."""
        played = []
        for start in range(0, len(asked), _EVALUATED_AT_ONCE):
            group = asked[start : start + _EVALUATED_AT_ONCE]
            chosen, updates = np.array(group + group[:1] * (_EVALUATED_AT_ONCE - len(group))).T
            params, keys = _lane((lanes.states.params, lanes.eval_keys), chosen)
            episodes = play_all(params, keys, updates.astype(np.int32))
            played += [[one] for one in _split(episodes)[: len(group)]]
        return played

    trainer = LanesTrainer(
        "pgjax",
        step=step,
        snapshot=lambda lanes, lane: _lane(lanes.states.params, lane),
        evaluate=evaluate,
        select=lambda lanes, chosen: _lane(lanes, np.array(chosen)),
        tensors=params_to_tensors,
    )
    if params is None:
        states = _on_host(_compiled(jax.vmap(lambda key: parts.start(key, None)))(init_keys))
    else:
        first = [parts.start(*pair) for pair in zip(init_keys, starts.values(), strict=True)]
        states = jax.tree.map(lambda *leaves: np.stack(leaves), *first)
    return train_lanes(
        config,
        seeds,
        parts.policy,
        _Lanes(states, *keys),
        trainer,
        callback=callback,
        started=started,
    )


class _Lanes(NamedTuple):
    """Everything that is a lane's own; its leaves lead with the lanes.

    The state is NumPy's, so that taking a lane out of it, or some, compiles nothing.
    """

    states: TrainState
    train_keys: Array
    eval_keys: Array


def _on_host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def _lane(tree: Any, lane: Any) -> Any:
    """One lane of each array of the tree, or several."""
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def _split(episodes: _Episodes) -> list[Played]:
    """Each lane's episodes."""
    returns, is_finite = np.asarray(episodes.returns, np.float64), np.asarray(episodes.is_finite)
    return [
        Played(returns[lane], is_finite[lane], lambda lane=lane: _lane(episodes.record, lane))
        for lane in range(len(returns))
    ]
