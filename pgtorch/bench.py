"""What `pgtorch bench` times."""

import copy
from collections.abc import Callable

import torch

from pgcore.commands.framework import BenchCase
from pgcore.config import TrainConfig
from pgtorch.envs.cartpole import CartPole
from pgtorch.optim import make_optimizer
from pgtorch.policies import make_policy
from pgtorch.train import init, make_train_step


def bench_case(config: TrainConfig, params: torch.nn.Module) -> BenchCase:
    """The training step on environments that are tensors, from a copy of these parameters."""
    env = CartPole()
    policy = make_policy(config.agent, env.obs_dim, env.num_actions, config.hidden_sizes)
    optimizer = make_optimizer(config)
    key = torch.Generator().manual_seed(0)
    state = init(key, policy._replace(init=lambda key: copy.deepcopy(params)), optimizer)
    train_step = make_train_step(policy, env, optimizer, config)

    def step(update: int) -> int:
        return int(train_step(state, key)[1].num_steps)

    return BenchCase(step, lambda: None)


def matmul(size: int) -> Callable[[], object]:
    """The product of two square matrices of float32."""
    matrix = torch.ones(size, size)
    return lambda: torch.mm(matrix, matrix)
