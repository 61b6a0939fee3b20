"""The training step on an accelerator: steps a second up to the largest batch, and what bounds it.

    python -m benchmarks.gpu                          # 1,024 to 1,048,576 episodes, both agents
    python -m benchmarks.gpu --blocks 24576 4194304   # numbers in a block of the gradient's sum
    python -m benchmarks.gpu --batches 256 --any-device
    python -m benchmarks.gpu --save                   # keeps the figures in results/gpu.json

Each batch is played and learned from apart and together, with a policy that solves CartPole-v1 and
is not changed. A time step of the rollout is a round of a loop: as long as a round takes as long
whatever the batch, launches bound it, and from where it grows with the batch, arithmetic or memory.
A batch that does not fit ends the sweep, and is named. `float32` products are exact ones
(`jax_default_matmul_precision`), as the conventions ask.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import pgjax
from benchmarks import results
from pgcore.agents import AgentName
from pgcore.commands.benching import STANDING_STILL
from pgjax import fast

NAME = "gpu"
BATCHES = [4**power for power in range(5, 11)]
REPEATS = 5


class Row(NamedTuple):
    """One batch: seconds of playing, of learning and of both, and what was learned from."""

    agent: AgentName
    block: int
    episodes: int
    first_call: float
    play: float
    learn: float
    update: float
    rounds: int
    """Time steps that the longest episode took."""
    steps: int
    peak_bytes: int | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--blocks", nargs="+", type=int, default=[fast.BLOCK_NUMBERS, 2**22])
    parser.add_argument("--any-device", action="store_true", help="a processor will do")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not options.any_device:
        parser.error("JAX sees no accelerator here; --any-device measures the processor instead")
    jax.config.update("jax_default_matmul_precision", "highest")
    rows = sweep(options.batches, options.blocks)
    if options.save:
        figures = {"device": device.device_kind, "rows": [row._asdict() for row in rows]}
        results.save(NAME, "python -m benchmarks.gpu", figures)


def sweep(batches: list[int], blocks: list[int]) -> list[Row]:
    """Measures, and prints each row as it comes."""
    rows = []
    print(jax.devices()[0].device_kind)
    print(HEADER)
    for agent in ("reinforce", "reparam"):
        solved = pgjax.train(pgjax.TrainConfig(agent=agent)).params
        for block in blocks:
            for episodes in sorted(batches):
                try:
                    rows.append(measured(agent, solved, block, episodes))
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    print(f"{agent}, {episodes:,} episodes: they do not fit into the memory")
                    break
                print(line(rows[-1]), flush=True)
                gc.collect()  # its buffers, before a larger batch asks for room
    return rows


def measured(agent: AgentName, solved: Any, block: int, episodes: int) -> Row:
    """Times one batch."""
    config = pgjax.TrainConfig(
        agent=agent, episodes_per_update=episodes, learning_rate=STANDING_STILL
    )
    policy, env = pgjax.make_policy(agent, 4, 2), pgjax.CartPole()
    found = fast.find_fast(policy, env)
    assert found is not None
    fast.BLOCK_NUMBERS = block
    optimizer = pgjax.make_optimizer(config)
    state = pgjax.init(jax.random.key(0), policy._replace(init=lambda key: solved), optimizer)
    update = jax.jit(fast.make_fast_train_step(found, optimizer, config))
    play = jax.jit(lambda params, key: fast.play(found, params, key, episodes))
    learn = jax.jit(fast.make_fast_update_step(found, optimizer, config))

    started = time.perf_counter()
    jax.block_until_ready(update(state, jax.random.key(0)))
    first_call = time.perf_counter() - started
    key = jax.random.key(1)
    played = play(state.params, key)
    stats: dict[str, int] = jax.devices()[0].memory_stats() or {}
    return Row(
        agent,
        block,
        episodes,
        first_call,
        seconds(lambda: play(state.params, key)),
        seconds(lambda: learn(state, played)),
        seconds(lambda: update(state, key)),
        int(played.num_steps),
        int(played.length.sum()),
        stats.get("peak_bytes_in_use"),
    )


def seconds(run: Callable[[], Any]) -> float:
    """The median of some calls, after a first."""
    times = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


HEADER = (
    f"{'agent':10}{'block':>9}{'episodes':>11}{'steps/s':>16}{'play ms':>10}{'learn ms':>10}"
    f"{'both ms':>10}{'µs a round':>12}{'first s':>9}{'peak GiB':>10}"
)


def line(row: Row) -> str:
    """One row, below `HEADER`."""
    peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f}"
    return (
        f"{row.agent:10}{row.block:9}{row.episodes:11,}{row.steps / row.update:16,.0f}"
        f"{row.play * 1e3:10.2f}{row.learn * 1e3:10.2f}{row.update * 1e3:10.2f}"
        f"{row.play / row.rounds * 1e6:12.2f}{row.first_call:9.1f}{peak:>10}"
    )


if __name__ == "__main__":
    main()
