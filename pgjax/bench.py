"""What `pgjax bench` times."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgcore.commands.framework import BenchCase
from pgcore.config import TrainConfig
from pgjax.envs.cartpole import CartPole
from pgjax.optim import make_optimizer
from pgjax.policies import make_policy
from pgjax.train import init, make_train_step


def bench_case(config: TrainConfig, params: Any) -> BenchCase:
    """The jitted training step of a configuration, each time from these parameters."""
    env = CartPole()
    policy = make_policy(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    optimizer = make_optimizer(config)
    state = init(jax.random.key(0), policy._replace(init=lambda key: params), optimizer)
    train_step = make_train_step(policy, env, optimizer, config)
    keys = [jax.random.key(update) for update in range(64)]
    compiled = jax.jit(train_step)

    def step(update: int) -> int:
        return int(compiled(state, keys[update % len(keys)])[1].num_steps)

    def memory_bytes() -> int | None:
        analysis = compiled.lower(state, keys[0]).compile().memory_analysis()
        return getattr(analysis, "temp_size_in_bytes", None)

    return BenchCase(step, memory_bytes)


def matmul(size: int) -> Callable[[], object]:
    """The product of two square matrices of float32, jitted."""
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(matrix, matrix))
