"""How many environment steps a second are learned from, against PyTorch, side by side.

    python -m benchmarks.throughput [--rounds 5] [--only NAME ...] [--save]

Every contender is a fresh process, in turn, round after round, with one core unless it says two.
All start from one policy that solves CartPole-v1, and no update changes it (a learning rate of
1e-30), so episodes stay as long. Only steps that are learned from count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results
from pgcore.agents import AgentName
from pgcore.commands.benching import STANDING_STILL, flops_per_step

NAME, PAGES = "throughput", ("README.md", "docs/speed.md")
SECONDS = 2.0
"""How long a contender is timed in each round, after it has warmed up."""
FLOPS = {"reinforce": flops_per_step((4, 24, 12, 2)), "reparam": flops_per_step((4, 24, 12, 4))}


class Contender(NamedTuple):
    """What is timed: the framework's step of one agent with some episodes an update."""

    label: str
    kind: str
    agent: AgentName
    episodes: int
    cores: int = 1


CONTENDERS = {
    "jax-256": Contender("pgjax", "jax", "reinforce", 256),
    "jax-1024": Contender("pgjax", "jax", "reinforce", 1024),
    "jax-2048": Contender("pgjax", "jax", "reinforce", 2048),
    "jax-plain-256": Contender("pgjax, its plain path", "plain", "reinforce", 256),
    "jax-reparam-1024": Contender("pgjax", "jax", "reparam", 1024),
    "jax-two-2048": Contender("pgjax, two host devices", "devices", "reinforce", 2048, cores=2),
    "torch-256": Contender("pgtorch", "torch", "reinforce", 256),
    "torch-1024": Contender("pgtorch", "torch", "reinforce", 1024),
    "twin-256": Contender("PyTorch by hand", "twin", "reinforce", 256),
    "twin-1024": Contender("PyTorch by hand", "twin", "reinforce", 1024),
    "twin-4096": Contender("PyTorch by hand", "twin", "reinforce", 4096),
    "compiled-4096": Contender("PyTorch by hand, compiled", "compiled", "reinforce", 4096),
    "jax-article": Contender("pgjax, one episode an update", "article", "reinforce", 1),
    "plain-article": Contender(
        "pgjax, its plain path, one episode", "plain-article", "reinforce", 1
    ),
    "torch-article": Contender("pgtorch, one episode an update", "gym", "reinforce", 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(CONTENDERS[options.worker[0]], Path(options.worker[1]))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory() as folder:
        policies = Path(folder)
        for agent in ("reinforce", "reparam"):
            make_policy(agent, policies)
        for number in range(options.rounds):
            for name in options.only:
                runs[name].append(timed(name, policies))
                speed = runs[name][-1]["steps_per_second"]
                print(f"round {number + 1}, {name}: {speed:,.0f} steps/s", flush=True)
    print(table(runs))
    if options.save:
        results.save(NAME, f"python -m benchmarks.throughput --rounds {options.rounds}", runs)
        for page in PAGES:
            results.put_table(page, NAME, table(runs))


def make_policy(agent: str, folder: Path) -> None:
    """A policy that solves it, as a file that both frameworks read."""
    script = (
        "import sys, pgjax; config = pgjax.TrainConfig(agent=sys.argv[1]); "
        "result = pgjax.train(config); assert result.solved_at; "
        "pgjax.save_policy(sys.argv[2], config, result.params)"
    )
    command = [sys.executable, "-c", script, agent, str(folder / f"{agent}.safetensors")]
    subprocess.run(command, check=True, cwd=results.ROOT)


def timed(name: str, policies: Path) -> dict[str, float]:
    """One round of one contender, in a process of its own."""
    one = {"OMP_NUM_THREADS": "1"} if CONTENDERS[name].cores == 1 else {}
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    two = flags if CONTENDERS[name].kind == "devices" else {}
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", "--worker", name, str(policies)],
        env=os.environ | one | two,
        stdout=subprocess.PIPE,
        check=True,
        cwd=results.ROOT,
    )
    return json.loads(result.stdout.splitlines()[-1])


def work(contender: Contender, policies: Path) -> None:
    """Times one contender and prints its figures as JSON."""
    if contender.cores == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    started = time.perf_counter()
    step = MAKERS[contender.kind](contender, str(policies / f"{contender.agent}.safetensors"))
    step()
    first = time.perf_counter() - started
    steps = step()
    speeds, until = [], time.perf_counter() + SECONDS
    while len(speeds) < 3 or time.perf_counter() < until:
        before = time.perf_counter()
        steps = step()
        speeds.append(steps / (time.perf_counter() - before))
    figures = {"steps_per_second": statistics.median(speeds), "first_call": first, "steps": steps}
    if contender.kind in ("jax", "twin"):
        figures["peak_flops"] = peak()
    print(json.dumps(figures))


def peak() -> float:
    """Floating-point operations a second of NumPy's float32 matrix product, the best of 20."""
    import numpy as np

    matrix, best = np.ones((1024, 1024), np.float32), float("inf")
    for _ in range(20):
        before = time.perf_counter()
        _ = matrix @ matrix
        best = min(best, time.perf_counter() - before)
    return 2 * 1024**3 / best


# --- what is timed -------------------------------------------------------------------------------

Step = Callable[[], int]
"""One update, or some; the environment steps that were learned from."""


def _jax(contender: Contender, path: str, *, is_plain: bool = False, updates: int = 1) -> Step:
    import jax

    import pgjax
    from pgjax.rollout import draw_noise, rollout

    config, state, keys = _jax_parts(contender, path)
    policy, env = pgjax.make_policy(config.agent, 4, 2), pgjax.CartPole()
    optimizer = pgjax.make_optimizer(config)
    train_step: Any = pgjax.make_train_step(policy, env, optimizer, config)
    if is_plain:
        update_step = pgjax.make_update_step(policy, optimizer, config)

        def plain_step(state: Any, key: Any) -> Any:
            noise = draw_noise(policy, env, key, config.episodes_per_update)
            return update_step(state, rollout(policy, state.params, env, noise))

        train_step = plain_step

    if updates == 1:
        compiled = jax.jit(train_step)
        return lambda: int(compiled(state, next(keys))[1].num_steps)
    many = jax.jit(lambda state, keys: jax.lax.scan(train_step, state, keys)[1].num_steps.sum())
    return lambda: int(many(state, jax.random.split(next(keys), updates)))


def _devices(contender: Contender, path: str) -> Step:
    import jax
    from jax.sharding import PartitionSpec

    import pgjax
    from pgjax import fast

    config, state, keys = _jax_parts(contender, path)
    found = fast.find_fast(pgjax.make_policy(config.agent, 4, 2), pgjax.CartPole())
    assert found is not None
    step = fast.make_fast_train_step(found, pgjax.make_optimizer(config), config, "devices")
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    both = jax.shard_map(step, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec())
    compiled = jax.jit(both)
    state = jax.device_put(state, jax.sharding.NamedSharding(mesh, PartitionSpec()))
    return lambda: int(compiled(state, next(keys))[1].num_steps)


def _jax_parts(contender: Contender, path: str) -> tuple[Any, Any, Iterator[Any]]:
    import jax

    import pgjax

    config = pgjax.TrainConfig(
        agent=contender.agent,
        episodes_per_update=contender.episodes,
        learning_rate=STANDING_STILL,
        normalize="episode" if contender.episodes == 1 else "batch",
    )
    policy, params = pgjax.load_policy(path)
    state = pgjax.init(
        jax.random.key(0), policy._replace(init=lambda key: params), pgjax.make_optimizer(config)
    )
    return config, state, iter(list(jax.random.split(jax.random.key(1), 4096)))


def _torch(contender: Contender, path: str, *, env_id: str | None = None) -> Step:
    import torch

    import pgtorch

    torch.set_num_threads(1)
    config = pgtorch.TrainConfig(
        agent=contender.agent,
        episodes_per_update=contender.episodes,
        learning_rate=STANDING_STILL,
        normalize="batch" if env_id is None else "episode",
    )
    policy, module = pgtorch.load_policy(path)
    optimizer = pgtorch.make_optimizer(config)
    env = pgtorch.CartPole() if env_id is None else pgtorch.make_env(env_id)
    key = torch.Generator().manual_seed(0)
    state = pgtorch.init(key, policy._replace(init=lambda key: module), optimizer)
    train_step = pgtorch.make_train_step(policy, env, optimizer, config)
    return lambda: int(train_step(state, key)[1].num_steps)


def _twin(contender: Contender, path: str, *, is_compiled: bool = False) -> Step:
    import torch

    import pgtorch
    from benchmarks import torch_twin

    torch.set_num_threads(1)
    _, module = pgtorch.load_policy(path)
    step = torch_twin.make_train_step(
        contender.agent,
        contender.episodes,
        compiled=is_compiled,
        learning_rate=STANDING_STILL,
    )
    return lambda: step(module)


MAKERS: dict[str, Callable[[Contender, str], Step]] = {
    "jax": _jax,
    "plain": lambda contender, path: _jax(contender, path, is_plain=True),
    "plain-article": lambda contender, path: _jax(contender, path, is_plain=True, updates=100),
    "article": lambda contender, path: _jax(contender, path, updates=100),
    "devices": _devices,
    "torch": _torch,
    "gym": lambda contender, path: _torch(contender, path, env_id="CartPole-v1"),
    "twin": _twin,
    "compiled": lambda contender, path: _twin(contender, path, is_compiled=True),
}


# --- the table -----------------------------------------------------------------------------------


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Medians over the rounds, with their spread."""
    peaks = [run["peak_flops"] for rows in runs.values() for run in rows if "peak_flops" in run]
    one_core = statistics.median(peaks) if peaks else float("nan")
    rows = []
    for name, found in runs.items():
        contender = CONTENDERS[name]
        speeds = [run["steps_per_second"] for run in found]
        speed = statistics.median(speeds)
        share = f"{speed * FLOPS[contender.agent] / one_core:.0%}" if contender.cores == 1 else ""
        rows.append(
            (
                contender.label,
                contender.agent,
                f"{contender.episodes:,}",
                f"{speed:,.0f}",
                f"{min(speeds):,.0f} to {max(speeds):,.0f}",
                share,
                f"{statistics.median(run['first_call'] for run in found):.1f}",
            )
        )
    header = ("contender", "agent", "episodes", "steps/s", "rounds", "of peak", "first call, s")
    return results.table(header, rows)


if __name__ == "__main__":
    main()
