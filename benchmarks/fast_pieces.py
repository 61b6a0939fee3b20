"""What each choice of the fast path is worth: the one that was not made beside the one that was.

    python -m benchmarks.fast_pieces [--save]

Each row is two programs that compute the same, in turn, in one process on one core: medians, in
nanoseconds an environment step of 1,024 episodes (unless a row says otherwise), or in seconds of
compiling. The inputs of a layer change from step to step of a scan, as they do in training.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import relu

import pgjax
from benchmarks import results
from pgjax import fast_rollout, threefry
from pgjax.envs import cartpole

NAME, PAGE = "fast_pieces", "docs/speed.md"
EPISODES, FEW, STEPS, REPEATS = 1024, 104, 200, 15


class Program(NamedTuple):
    """With its arguments: what it could compute from constants XLA would, while it compiles."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    episodes: int = EPISODES


class Row(NamedTuple):
    """What was chosen between, and the medians of the two."""

    what: str
    unit: str
    other: float
    ours: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before JAX first computes, and counts the cores
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = [Row(what, "ns", *nanoseconds(*choice)) for what, choice in pairs().items()]
    rows.append(compiling())
    print(table(rows))
    if options.save:
        figures = {"rows": [row._asdict() for row in rows]}
        results.save(NAME, "python -m benchmarks.fast_pieces", figures)
        results.put_table(PAGE, NAME, table(rows))


def nanoseconds(*programs: Program) -> list[float]:
    """The median time of each, by environment step; they take turns."""
    compiled = [jax.jit(program.function) for program in programs]
    times: list[list[float]] = [[] for _ in programs]
    for _ in range(1 + REPEATS):
        for run, program, found in zip(compiled, programs, times, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(run(*program.arguments))
            found.append(time.perf_counter() - started)
    return [
        1e9 * statistics.median(found[1:]) / (STEPS * program.episodes)
        for program, found in zip(programs, times, strict=True)
    ]


def compiling() -> Row:
    """Seconds of compiling a run's update, with XLA's newer emitter of loops and with its older."""
    config = pgjax.TrainConfig()
    policy, env = pgjax.make_policy("reinforce", 4, 2), pgjax.CartPole()
    optimizer = pgjax.make_optimizer(config)
    state = pgjax.init(jax.random.key(0), policy, optimizer)
    step = pgjax.make_train_step(policy, env, optimizer, config)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    found = {}
    for _ in range(4):  # a process's first one takes longer, and is left out
        for newer, spent in seconds.items():
            jax.clear_caches()  # else it is not compiled again
            lowered = jax.jit(step).lower(state, jax.random.key(1))
            options: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": newer}
            started = time.perf_counter()
            compiled = lowered.compile(compiler_options=options)
            spent.append(time.perf_counter() - started)
            found[newer] = jax.tree.leaves(compiled(state, jax.random.key(1)))
    assert all(np.array_equal(*leaves) for leaves in zip(*found.values(), strict=True))
    what = "compiling an update: XLA's newer emitter of loops, its older (equal results)"
    return Row(what, "s", *(statistics.median(spent[1:]) for spent in seconds.values()))


def _normal(seed: int, *shape: int) -> Any:
    return jax.random.normal(jax.random.key(seed), shape)


def _steps(body: Callable[..., Any]) -> Callable[..., Any]:
    """`carry = body(1, *arguments)`, step after step; it is like the last argument.

    The 1 has a trace of the carry in it, which keeps XLA from computing a layer only once.
    """

    def steps(*arguments: Any) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            return body(1 + 1e-20 * jnp.ravel(carry)[0], *arguments), None

        return jax.lax.scan(step, jnp.zeros_like(arguments[-1]), length=STEPS)[0]

    return steps


def _layers(product: Callable[..., Any]) -> Callable[..., Any]:
    """The network of 4-24-12-1, for `_steps`."""
    return lambda one, w1, w2, w3, s, _: product(w3, relu(product(w2, relu(product(w1, one * s)))))


def _played(*, is_ahead: bool) -> Callable[..., Any]:
    """Steps of CartPole, each with a score's noise that decides, moves and is kept."""

    def program(key: Any, counters: Any) -> Any:
        counters = counters.reshape(2, EPISODES)

        def noise_at(time: Any) -> Any:
            return threefry.normal(key, counters + 2 * EPISODES * time)

        def step(carry: Any, time: Any) -> Any:
            physics, noise = carry
            drawn = noise if is_ahead else noise_at(time)
            score = jnp.tanh(physics[:2]) + jnp.exp(physics[2:]) * drawn
            physics = jnp.stack(
                cartpole._move(0.1 * physics, score[1] > score[0], fast_rollout._sin_and_cos)
            )
            return (physics, noise_at(time + 1) if is_ahead else noise), drawn

        times = jnp.arange(STEPS, dtype=jnp.uint32)
        start = jnp.zeros((4, EPISODES)), noise_at(times[0])
        return jax.lax.scan(step, start, times)

    return program


def pairs() -> dict[str, tuple[Program, Program]]:
    """What the choice is between: what was not chosen, what was."""
    counters = jnp.arange(STEPS * EPISODES * 2, dtype=jnp.uint32)
    angle = 0.2 * jnp.sin(jnp.arange(STEPS * EPISODES, dtype=jnp.float32))
    w1, w2, obs, delta = (
        _normal(seed, *shape)
        for seed, shape in enumerate([(24, 4), (12, 24), (4, EPISODES), (12, EPISODES)])
    )
    hidden, w2_transposed = relu(_normal(5, 24, EPISODES)), jnp.array(w2.T)
    rows, columns = (w1, w2, jnp.array(obs.T), jnp.array(delta.T)), (w1, w2, obs, delta)
    back = w2_transposed, delta, hidden
    few = w1, w2, _normal(6, 1, 12), obs[:, :FEW], delta[:1, :FEW]
    return {
        "two Gumbel numbers: `jax.random`, its rounds written out": (
            Program(
                lambda key, counters: jax.random.gumbel(key, counters.shape),
                (jax.random.key(0), counters),
            ),
            Program(threefry.gumbel, (jax.random.key(0), counters)),
        ),
        "two layers forward: `[B, features]`, `[features, B]`": (
            Program(_steps(lambda one, w1, w2, s, _: relu(relu(one * s @ w1.T) @ w2.T)), rows),
            Program(_steps(lambda one, w1, w2, s, _: relu(w2 @ relu(w1 @ (one * s)))), columns),
        ),
        "sine and cosine: the C library's, their series": (
            Program(lambda angle: (jnp.sin(angle), jnp.cos(angle)), (angle,)),
            Program(fast_rollout._sin_and_cos, (angle,)),
        ),
        "back through a layer of 24: `where(h > 0, …)`, `sign(h) * …`": (
            Program(_steps(lambda one, w, d, h: jnp.where(h > 0, one * w @ d, 0)), back),
            Program(_steps(lambda one, w, d, h: jnp.sign(h) * (one * w @ d)), back),
        ),
        "three layers of 104 episodes: products, short ones written out": (
            Program(_steps(_layers(jnp.matmul)), few, FEW),
            Program(_steps(_layers(fast_rollout._product)), few, FEW),
        ),
        "the Gaussian agent's noise, of several uses: in its step, ahead of it": (
            Program(_played(is_ahead=False), (jax.random.key(0), counters[: 2 * EPISODES])),
            Program(_played(is_ahead=True), (jax.random.key(0), counters[: 2 * EPISODES])),
        ),
        "its weights: transposed in each step, once before": (
            Program(_steps(lambda one, w, d, _: (one * w).T @ d), (w2, delta, hidden)),
            Program(_steps(lambda one, w, d, _: one * w @ d), back),
        ),
    }


def table(rows: list[Row]) -> str:
    """Both, and how many times less the chosen one takes."""
    cells = [
        (
            row.what,
            f"{row.other:.3g} {row.unit}",
            f"{row.ours:.3g} {row.unit}",
            f"{row.other / row.ours:.1f}",
        )
        for row in rows
    ]
    return results.table(("what: the one, the other", "the one", "the other, ours", "times"), cells)


if __name__ == "__main__":
    main()
