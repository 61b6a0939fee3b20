"""What each choice of the fast path is worth: the one that was not made beside the one that was.

    python -m benchmarks.fast_pieces [--save]

Each row is two programs that compute the same, in turn, in one process on one core: medians, in
nanoseconds an environment step of 1,024 episodes, or in seconds of compiling. The inputs of a layer
change from step to step of a scan, as they do in training.
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

import pgjax
from benchmarks import results
from pgjax import fast, threefry

NAME, PAGE = "fast_pieces", "docs/speed.md"
EPISODES, STEPS, REPEATS = 1024, 200, 15


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
    rows = [Row(what, "ns", *nanoseconds(*pair)) for what, pair in pairs().items()]
    rows.append(compiling())
    print(table(rows))
    if options.save:
        figures = {"rows": [row._asdict() for row in rows]}
        results.save(NAME, "python -m benchmarks.fast_pieces", figures)
        results.put_table(PAGE, NAME, table(rows))


def nanoseconds(*programs: Callable[[], Any]) -> list[float]:
    """The median time of each, by environment step; they take turns."""
    compiled = [jax.jit(program) for program in programs]
    for each in compiled:
        jax.block_until_ready(each())
    times: list[list[float]] = [[] for _ in compiled]
    for _ in range(REPEATS):
        for each, found in zip(compiled, times, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(each())
            found.append(time.perf_counter() - started)
    return [1e9 * statistics.median(found) / (STEPS * EPISODES) for found in times]


def compiling() -> Row:
    """Seconds of compiling a run's update, with XLA's own emitter of loops and with the older."""
    config = pgjax.TrainConfig()
    policy, env = pgjax.make_policy("reinforce", 4, 2), pgjax.CartPole()
    optimizer = pgjax.make_optimizer(config)
    state = pgjax.init(jax.random.key(0), policy, optimizer)
    step = jax.jit(pgjax.make_train_step(policy, env, optimizer, config))
    lowered = step.lower(state, jax.random.key(1))
    seconds, found = [], []
    for newer in (True, False):
        options: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": newer}
        lowered.compile(compiler_options=options)  # a process's first one takes longer
        started = time.perf_counter()
        compiled = lowered.compile(compiler_options=options)
        seconds.append(time.perf_counter() - started)
        found.append(jax.tree.leaves(compiled(state, jax.random.key(1))))
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))
    return Row("compiling: XLA's newer emitter of loops, its older (equal results)", "s", *seconds)


def _normal(seed: int, *shape: int) -> Any:
    return jax.random.normal(jax.random.key(seed), shape)


def _steps(body: Callable[[Any, Any], Any], start: Any) -> Callable[[], Any]:
    """`body(carry, 1)` step by step; a factor out of the carry keeps XLA from doing it once."""
    return lambda: jax.lax.scan(
        lambda carry, _: (body(carry, 1 + 1e-20 * jnp.ravel(carry)[0]), None), start, length=STEPS
    )[0]


def pairs() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """What the choice is between, what was not chosen, what was."""
    key, counters = jax.random.key(0), jnp.arange(STEPS * EPISODES * 2, dtype=jnp.uint32)
    angle = 0.2 * jnp.sin(jnp.arange(STEPS * EPISODES, dtype=jnp.float32))
    w1, w2, obs, delta = (
        _normal(seed, *shape)
        for seed, shape in enumerate([(24, 4), (12, 24), (4, EPISODES), (12, EPISODES)])
    )
    w2_transposed, hidden = jnp.array(w2.T), jax.nn.relu(_normal(5, 24, EPISODES))
    relu = jax.nn.relu
    return {
        "two Gumbel numbers: `jax.random`, its rounds written out": (
            lambda: jax.random.gumbel(key, counters.shape),
            lambda: threefry.gumbel(key, counters),
        ),
        "two layers forward: `[B, features]`, `[features, B]`": (
            _steps(lambda h, one: relu(relu((one * obs.T) @ w1.T) @ w2.T), delta.T),
            _steps(lambda h, one: relu(w2 @ relu(w1 @ (one * obs))), delta),
        ),
        "sine and cosine: the C library's, their series": (
            lambda: (jnp.sin(angle), jnp.cos(angle)),
            lambda: fast._sin_and_cos(angle),
        ),
        "back through a layer of 24: `where(h > 0, …)`, `sign(h) * …`": (
            _steps(lambda d, one: jnp.where(hidden > 0, (one * w2_transposed) @ delta, 0), hidden),
            _steps(lambda d, one: jnp.sign(hidden) * ((one * w2_transposed) @ delta), hidden),
        ),
        "its weights: transposed in each step, once before": (
            _steps(lambda d, one: (one * w2).T @ delta, hidden),
            _steps(lambda d, one: (one * w2_transposed) @ delta, hidden),
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
