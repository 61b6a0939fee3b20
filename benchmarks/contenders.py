"""What `benchmarks.throughput` times: updates by this project, and by PyTorch written to win."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from pgcore.agents import AgentName
from pgcore.commands.benching import STANDING_STILL

SOLVED = 475.0
"""The mean return of an update's episodes at which a run from scratch ends."""


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
    "jax-scratch-256": Contender("pgjax, from scratch", "scratch", "reinforce", 256),
    "jax-plain-256": Contender("pgjax, its plain path", "plain", "reinforce", 256),
    "jax-reparam-1024": Contender("pgjax", "jax", "reparam", 1024),
    "jax-two-2048": Contender("pgjax, two host devices", "devices", "reinforce", 2048, cores=2),
    "torch-256": Contender("pgtorch", "torch", "reinforce", 256),
    "torch-1024": Contender("pgtorch", "torch", "reinforce", 1024),
    "twin-256": Contender("PyTorch by hand", "twin", "reinforce", 256),
    "twin-scratch-256": Contender(
        "PyTorch by hand, from scratch", "twin-scratch", "reinforce", 256
    ),
    "twin-1024": Contender("PyTorch by hand", "twin", "reinforce", 1024),
    "twin-4096": Contender("PyTorch by hand", "twin", "reinforce", 4096),
    "compiled-4096": Contender("PyTorch by hand, compiled", "compiled", "reinforce", 4096),
    "jax-article": Contender("pgjax, one episode an update", "article", "reinforce", 1),
    "plain-article": Contender(
        "pgjax, its plain path, one episode", "plain-article", "reinforce", 1
    ),
    "torch-article": Contender("pgtorch, one episode an update", "gym", "reinforce", 1),
}


Step = Callable[[], int]
"""One update, or some; the environment steps that were learned from."""


def _jax(
    contender: Contender,
    path: str,
    *,
    is_plain: bool = False,
    is_learning: bool = False,
    updates: int = 1,
) -> Step:
    import jax

    import pgjax
    from pgjax.rollout import draw_noise, rollout

    config, state, keys = _jax_parts(contender, path)
    if is_learning:
        config = dataclasses.replace(config, learning_rate=pgjax.TrainConfig().learning_rate)
    policy, env = pgjax.make_policy(config.agent, 4, 2), pgjax.CartPole()
    optimizer = pgjax.make_optimizer(config)
    train_step: Any = pgjax.make_train_step(policy, env, optimizer, config)
    if is_plain:
        update_step = pgjax.make_update_step(policy, optimizer, config)

        def plain_step(state: Any, key: Any) -> Any:
            noise = draw_noise(policy, env, key, config.episodes_per_update)
            return update_step(state, rollout(policy, state.params, env, noise))

        train_step = plain_step

    if is_learning:
        return _jax_from_scratch(policy, config, train_step, keys)
    if updates == 1:
        compiled = jax.jit(train_step)
        return lambda: int(compiled(state, next(keys))[1].num_steps)
    many = jax.jit(lambda state, keys: jax.lax.scan(train_step, state, keys)[1].num_steps.sum())
    return lambda: int(many(state, jax.random.split(next(keys), updates)))


def _jax_from_scratch(policy: Any, config: Any, train_step: Any, keys: Iterator[Any]) -> Step:
    import jax

    import pgjax

    optimizer = pgjax.make_optimizer(config)
    start = jax.jit(lambda key: pgjax.init(key, policy, optimizer))
    compiled = jax.jit(train_step)

    def run() -> int:
        state, steps, mean = start(next(keys)), 0, 0.0
        while mean < SOLVED:
            state, metrics = compiled(state, next(keys))
            steps, mean = steps + int(metrics.num_steps), float(metrics.mean_return)
        return steps

    return run


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
    return config, state, itertools.cycle(list(jax.random.split(jax.random.key(1), 64)))


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


def _twin(
    contender: Contender, path: str, *, is_compiled: bool = False, is_learning: bool = False
) -> Step:
    import torch

    import pgtorch
    from benchmarks import torch_twin

    torch.set_num_threads(1)
    _, module = pgtorch.load_policy(path)
    make_step = partial(
        torch_twin.make_train_step, contender.agent, contender.episodes, compiled=is_compiled
    )
    if not is_learning:
        step = make_step(learning_rate=STANDING_STILL)
        return lambda: step(module)
    policy, key = pgtorch.make_policy(contender.agent, 4, 2), torch.Generator().manual_seed(0)

    def run() -> int:
        fresh, learn, steps, mean = policy.init(key), make_step(), 0, 0.0
        while mean < SOLVED:
            mean = learn(fresh)
            steps, mean = steps + mean, mean / contender.episodes
        return steps

    return run


MAKERS: dict[str, Callable[[Contender, str], Step]] = {
    "jax": _jax,
    "plain": lambda contender, path: _jax(contender, path, is_plain=True),
    "scratch": lambda contender, path: _jax(contender, path, is_learning=True),
    "plain-article": lambda contender, path: _jax(contender, path, is_plain=True, updates=100),
    "article": lambda contender, path: _jax(contender, path, updates=100),
    "devices": _devices,
    "torch": _torch,
    "gym": lambda contender, path: _torch(contender, path, env_id="CartPole-v1"),
    "twin": _twin,
    "twin-scratch": lambda contender, path: _twin(contender, path, is_learning=True),
    "compiled": lambda contender, path: _twin(contender, path, is_compiled=True),
}
