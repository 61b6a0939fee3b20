"""Many seeds of one configuration at once, as lanes of vmapped calls."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from pgcore.config import TrainConfig
from pgcore.envs.faults import Played
from pgcore.envs.gym import CARTPOLE, gym_spec
from pgcore.runs.system import num_cores
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
from pgjax.programs import Program
from pgjax.train import (
    _Episodes,
    _make_parts,
    _Parts,
    _played,
    _run_keys,
    train,
)
from pgjax.types import Metrics, TrainState

_AT_ONCE = 8
"""Lanes that one call steps; the last group is filled up, so that no other size is compiled."""


def train_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    params: Sequence[Any] | None = None,
    callback: SeedsCallback | None = None,
) -> list[Result]:
    """Trains many seeds, each as `train` would alone: by its own noise, until it is solved.

    The seeds are lanes of a `vmap`, some in each call of it, and calls run side by side on the
    processor's cores; what vectorising rounds otherwise is all that differs from runs of their own.
    An environment that steps on the host can't be mapped: its seeds are trained one after another.

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
    assert parts.play_all is not None  # it is our own CartPole
    group_size = min(_AT_ONCE, len(seeds))
    threads = ThreadPoolExecutor(num_cores())
    step_lanes = jax.vmap(_of_words(partial(_step, parts)))
    play_all = _side_by_side(
        Program("play_all_of_words", _of_words(parts.play_all), config), threads
    )
    step_groups = _side_by_side(Program("step_lanes", step_lanes, config), threads)

    def step(lanes: _Lanes) -> tuple[_Lanes, list[StepResult]]:
        num_lanes = len(lanes.states.update)
        stepped = step_groups(
            _lane((lanes.states, lanes.train_keys), group)
            for group in _groups(num_lanes, group_size)
        )
        states, metrics, played = jax.tree.map(
            lambda *groups: np.concatenate(groups)[:num_lanes], *stepped
        )
        return lanes._replace(states=states), [
            StepResult(state, metrics, _played(episodes))
            for state, metrics, episodes in _each(states, metrics, played)
        ]

    def evaluate(lanes: _Lanes, asked: list[tuple[int, int]]) -> list[list[Played]]:
        played = play_all(
            (*_lane((lanes.states.params, lanes.eval_keys), lane), np.int32(update))
            for lane, update in asked
        )
        return [[_played(episodes)] for episodes in played]

    trainer = LanesTrainer(
        "pgjax",
        step=step,
        snapshot=lambda lanes, lane: _lane(lanes.states.params, lane),
        evaluate=evaluate,
        select=lambda lanes, chosen: _lane(lanes, np.array(chosen)),
        tensors=params_to_tensors,
    )
    init_keys, *keys = jax.jit(jax.vmap(_run_keys))(np.array(seeds, np.uint32))
    if params is None:
        start_lanes = jax.vmap(lambda key: parts.start(key, None))
        states = Program("start_lanes", start_lanes, config)(init_keys)
        states = jax.tree.map(np.asarray, states)
    else:
        first = [parts.start(*pair) for pair in zip(init_keys, starts.values(), strict=True)]
        states = jax.tree.map(lambda *leaves: np.stack(leaves), *first)
    words = [np.asarray(jax.random.key_data(key)) for key in keys]
    with threads:
        return train_lanes(
            config,
            seeds,
            parts.policy,
            _Lanes(states, *words),
            trainer,
            callback=callback,
            started=started,
        )


class _Lanes(NamedTuple):
    """Everything that is a lane's own; its leaves lead with the lanes.

    All is NumPy's, so that taking a lane out of it, or some, compiles nothing; of the keys it is
    their words.
    """

    states: TrainState
    train_keys: UInt32[np.ndarray, "lanes words"]
    eval_keys: UInt32[np.ndarray, "lanes words"]


def _step(parts: _Parts, state: TrainState, key: Array) -> tuple[TrainState, Metrics, _Episodes]:
    """One lane's update."""
    episodes = parts.play(state.params, key, state.update, jnp.zeros((), jnp.int32))
    return *parts.learn(state, episodes.record), episodes._replace(record=None)


def _of_words(function: Callable) -> Callable:
    """The same with a key's words as its second argument."""

    def of_words(first: Any, words: Array, *others: Any) -> Any:
        return function(first, jax.random.wrap_key_data(words), *others)

    return of_words


def _side_by_side(program: Program, threads: Executor) -> Callable[[Iterable[tuple]], list]:
    """`calls -> results`, each call the program's arguments; one call a core at a time.

    JAX has a thread's own calls wait for one another, so each is made from a thread of its own. The
    first call compiles, here, where JAX is set to what the caller wants.
    """

    def run(calls: Iterable[tuple]) -> list:
        calls = list(calls)
        if calls and not program.is_begun:
            program.begin(*calls[0])
        with_float64 = jnp.result_type(float) == jnp.float64  # which a thread has of its own

        def call(arguments: tuple) -> Any:
            with jax.enable_x64(with_float64):
                return jax.block_until_ready(program(*arguments))

        return list(threads.map(call, calls))

    return run


def _groups(num_lanes: int, size: int) -> Iterator[np.ndarray]:
    """The lanes of each call; the last takes some of its lanes again."""
    for first in range(0, num_lanes, size):
        lanes = np.arange(first, first + size)
        yield np.where(lanes < num_lanes, lanes, first)


def _each(*trees: Any) -> Iterator[tuple[Any, ...]]:
    """The trees of each lane, without a walk through all of them for each."""
    leaves, structure = jax.tree.flatten(trees)
    return map(structure.unflatten, zip(*leaves, strict=True))


def _lane(tree: Any, lane: Any) -> Any:
    """One lane of each array of the tree, or several."""
    return jax.tree.map(lambda leaf: leaf[lane], tree)
