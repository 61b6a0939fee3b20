"""Stages that play: whole episodes on given noise, and training steps with their own noise."""

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from parity import oracle
from parity.hazards import Size
from parity.suite.stages import Stage
from parity.suite.weights import from_flax, jax_policy, to_flax, torch_policy
from pgcore.config import TrainConfig
from pgjax import optim as jax_optim
from pgjax import types as jax_types
from pgjax.envs.base import Env as JaxEnv
from pgtorch import optim as torch_optim
from pgtorch import types as torch_types
from pgtorch.envs.base import Env as TorchEnv

# The packages' attributes of these names are functions.
jax_rollout, torch_rollout = import_module("pgjax.rollout"), import_module("pgtorch.rollout")
jax_train, torch_train = import_module("pgjax.train"), import_module("pgtorch.train")

CORRIDOR_SIZE = Size(4, 3, (5, 5))
CORRIDOR_STEPS = 22
NUM_STEPS = 24
"""More than the corridor's limit, and more than one chunk of an early exit."""


class Walk(NamedTuple):
    """Where the walkers of a corridor stand, in eighths, and for how long they have walked."""

    position: Any
    time: Any


def _corridor(env_type: Any, xp: Any, as_number: Any, draw_reset: Any) -> Any:
    """A corridor in which every number is exact, so that rounding can decide nothing.

    Action 1 goes on by an eighth, 0 back, 2 stays. It ends half a unit off its start, or after 22
    steps. The reward is 1 and a quarter of the position before the step.
    """

    def observe(walk: Walk) -> Any:
        at, time = walk.position / 8, walk.time / 16
        return xp.stack([at, time, at * time, xp.ones_like(at)], -1)

    def reset(noise: Any) -> Any:
        # The noise is where they start: at −1, 0 or 1 eighths.
        walk = Walk(noise[:, 0], xp.zeros_like(noise[:, 0]))
        return walk, observe(walk)

    def step(walk: Walk, action: Any) -> Any:
        reward = 1 + walk.position / 32
        move = as_number(action == 1, walk.position) - as_number(action == 0, walk.position)
        after = Walk(walk.position + move, walk.time + 1)
        terminated, truncated = abs(after.position) >= 4, after.time >= CORRIDOR_STEPS
        return after, observe(after), reward, terminated, truncated

    return env_type(reset, step, draw_reset, 4, 3, CORRIDOR_STEPS)


TORCH_CORRIDOR = _corridor(
    TorchEnv,
    torch,
    lambda flag, like: flag.to(like),
    lambda key, number: torch.randint(-1, 2, (number, 1), generator=key).double(),
)
JAX_CORRIDOR = _corridor(
    JaxEnv,
    jnp,
    lambda flag, like: flag.astype(like.dtype),
    lambda key, number: jax.random.randint(key, (number, 1), -1, 2).astype(float),
)


@cache
def rollout(agent: str, *, early_exit: bool) -> Stage:
    """Inputs `params/*`, `start [B, 1]`, `noise [T, B, A]`: whole episodes in the corridor."""

    def of_torch(params, start, noise):
        policy = torch_policy(agent, CORRIDOR_SIZE)
        module = policy.init(torch.Generator()).to(noise.dtype)
        module.load_state_dict(params)
        given = torch_types.Noise(start, noise)
        return torch_rollout.rollout(
            policy, module, TORCH_CORRIDOR, given, early_exit=early_exit
        )._asdict()

    def of_jax(params, start, noise):
        policy = jax_policy(agent, CORRIDOR_SIZE)
        given = jax_types.Noise(start, noise)
        return jax_rollout.rollout(
            policy, to_flax(params), JAX_CORRIDOR, given, early_exit=early_exit
        )._asdict()

    return Stage(
        "rollout",
        of_torch,
        of_jax,
        oracle=lambda params, start, noise: _walked(agent, params, start, noise),
        is_exact=True,
    )


def _walked(agent: str, params: Any, start: np.ndarray, noise: np.ndarray) -> dict[str, Any]:
    """Each walk by itself, step by step."""
    num_steps, num_walks, num_actions = noise.shape
    mask = np.zeros((num_steps, num_walks), bool)
    obs, action = np.zeros((*mask.shape, 4)), np.zeros(mask.shape, np.int64)
    reward, terminated = np.zeros(mask.shape), np.zeros(num_walks, bool)
    sample = action if agent == "reinforce" else np.zeros((*mask.shape, num_actions))
    for b in range(num_walks):
        at = float(start[b, 0])
        for t in range(min(num_steps, CORRIDOR_STEPS)):
            now = np.array([at / 8, t / 16, at / 8 * t / 16, 1.0])
            dist = oracle.network(agent, params, now)
            if agent == "reinforce":
                drawn = oracle.categorical_sample(dist["logits"], noise[t, b])
            else:
                drawn = oracle.normal_sample(dist["loc"], dist["scale"], noise[t, b])
            chosen = int(oracle.action(agent, drawn))
            mask[t, b], obs[t, b], sample[t, b], action[t, b] = True, now, drawn, chosen
            reward[t, b] = 1 + at / 32
            at += {0: -1, 1: 1, 2: 0}[chosen]
            if abs(at) >= 4:
                terminated[b] = True
                break
    return {
        "obs": obs,
        "sample": sample,
        "action": action,
        "reward": reward,
        "mask": mask,
        "terminated": terminated,
    }


# --- training steps ------------------------------------------------------------------------------

CONFIG = {
    agent: TrainConfig(agent=agent, episodes_per_update=3) for agent in ("reinforce", "reparam")
}


class Drawn(NamedTuple):
    """The noise of several training steps, and the seeds that each step draws it from."""

    reset: Any
    policy: Any
    seed: Any


def drawn_in_jax(agent: str, seeds: np.ndarray) -> Drawn:
    """What `pgjax.draw_noise` gives for each key, in float64."""
    law, number = jax_policy(agent, CORRIDOR_SIZE), CONFIG[agent].episodes_per_update
    with jax.enable_x64(True):
        noise = [
            jax_rollout.draw_noise(law, JAX_CORRIDOR, jax.random.key(seed), number)
            for seed in seeds
        ]
        reset, policy = (np.stack(part) for part in zip(*noise, strict=True))
    return Drawn(reset, policy, seeds)


def drawn_in_torch(agent: str, seeds: np.ndarray) -> Drawn:
    """What `pgtorch.draw_noise` gives for each generator."""
    law, number = torch_policy(agent, CORRIDOR_SIZE), CONFIG[agent].episodes_per_update
    noise = [
        torch_rollout.draw_noise(law, TORCH_CORRIDOR, _generator(seed), number) for seed in seeds
    ]
    arrays = ([each.double().numpy() for each in part] for part in zip(*noise, strict=True))
    reset, policy = map(np.stack, arrays)
    return Drawn(reset, policy, seeds)


def jax_steps(agent: str, params: Any, reset: Any, policy: Any, seed: Any) -> dict[str, Any]:
    """Training steps of `pgjax`, each with the noise that it draws from its seed itself."""
    config, law = CONFIG[agent], jax_policy(agent, CORRIDOR_SIZE)
    optimizer = jax_optim.make_optimizer(config)
    first = to_flax(params)
    state = jax_types.TrainState(first, optimizer.init(first), jnp.zeros((), jnp.int32))
    step = jax_train.make_train_step(law, JAX_CORRIDOR, optimizer, config)
    state, metrics = jax.lax.scan(lambda state, one: step(state, jax.random.key(one)), state, seed)
    return {"params": from_flax(state.params), "metrics": metrics._asdict()}


def torch_steps(
    agent: str, params: Any, reset: Any, policy: Any, seed: Any, *, own_noise: bool = False
) -> dict[str, Any]:
    """Rollouts and updates of `pgtorch` on given noise, or its training steps with their own."""
    config, law = CONFIG[agent], torch_policy(agent, CORRIDOR_SIZE)
    optimizer = torch_optim.make_optimizer(config)
    module = law.init(torch.Generator()).to(reset.dtype)
    module.load_state_dict(params)
    stepper = optimizer(module.parameters())
    state = torch_types.TrainState(module, stepper, torch.zeros((), dtype=torch.int32))
    update = torch_train.make_update_step(law, optimizer, config)
    step = torch_train.make_train_step(law, TORCH_CORRIDOR, optimizer, config)
    rows = []
    for i, one in enumerate(seed):
        if own_noise:
            state, metrics = step(state, _generator(one))
        else:
            noise = torch_types.Noise(reset[i], policy[i])
            state, metrics = update(
                state, torch_rollout.rollout(law, module, TORCH_CORRIDOR, noise)
            )
        rows.append(metrics)
    metrics = torch_types.Metrics(*map(torch.stack, zip(*rows, strict=True)))
    return {"params": dict(module.named_parameters()), "metrics": metrics._asdict()}


def _generator(seed: Any) -> torch.Generator:
    return torch.Generator().manual_seed(int(seed))
