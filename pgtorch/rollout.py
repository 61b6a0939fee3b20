"""Playing episodes."""

from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor, nn

from pgcore.errors import require, require_count
from pgtorch.envs.base import Env
from pgtorch.policies import Policy
from pgtorch.types import Noise, Trajectory


def draw_noise(policy: Policy, env: Env, key: torch.Generator, num_episodes: int) -> Noise:
    """All the noise of B episodes, each as long as the environment allows.

    Raises:
        UsageError: `num_episodes` is no number of episodes.
    """
    require_count("num_episodes", num_episodes)
    return Noise(
        reset=env.draw_reset(key, num_episodes),
        policy=policy.draw_noise(key, env.max_steps, num_episodes),
    )


def rollout(
    policy: Policy, params: nn.Module, env: Env, noise: Noise, *, early_exit: bool = True
) -> Trajectory:
    """Plays one episode in each of B environments: observe, sample, act, until all have ended.

    The same noise gives the same trajectory. Everything after an episode's end is zero.

    Args:
        policy: Decides.
        params: The policy's parameters.
        env: The environment.
        noise: `noise.reset` starts the episodes; `noise.policy[t]` makes the decisions of step t.
            Its length T is the trajectory's; an episode that would run longer is cut there.
        early_exit: Stop when the last episode has ended, and record no gradients. False plays all
            T steps, differentiably: samples depend on `params`, observations on `noise.reset`.

    Raises:
        UsageError: The noise is not for the environment's actions, or not for as many episodes as
            it starts. (It might broadcast, or an action too many be played as another.)
    """
    found, num_episodes = tuple(noise.policy.shape), len(noise.reset)
    require(
        len(found) == 3 and found[1:] == (num_episodes, env.num_actions),
        "shape of noise.policy",
        found,
        f"[T, B, A]: B = {num_episodes} as in noise.reset, A = {env.num_actions} actions",
    )
    with torch.set_grad_enabled(torch.is_grad_enabled() and not early_exit):
        return _play(policy, params, env, noise, early_exit)


def _play(
    policy: Policy, params: nn.Module, env: Env, noise: Noise, early_exit: bool
) -> Trajectory:
    num_steps, num_episodes = noise.policy.shape[:2]
    state, obs = env.reset(noise.reset)
    running = torch.ones(num_episodes, dtype=torch.bool, device=obs.device)
    ended_terminally = torch.zeros_like(running)
    observations, samples, actions, rewards, masks = [], [], [], [], []

    for t in range(num_steps):
        dist = policy.apply(params, obs)
        sample = policy.sample(dist, noise.policy[t])
        action = policy.action(sample)
        next_state, next_obs, reward, terminated, truncated = env.step(state, action)

        observations.append(obs)
        samples.append(sample)
        actions.append(action)
        rewards.append(reward)
        masks.append(running)

        # A finished episode stays where it is: stepping on could overflow, and then spoil the
        # gradients of the steps before.
        state = _where_running(running, next_state, state)
        obs = _where_running(running, next_obs, obs)
        ended_terminally = ended_terminally | (running & terminated)
        running = running & ~(terminated | truncated)
        if early_exit and not running.any():
            break

    mask = torch.stack(masks)
    return Trajectory(
        obs=_stack(observations, mask, num_steps),
        sample=_stack(samples, mask, num_steps),
        action=_stack(actions, mask, num_steps),
        reward=_stack(rewards, mask, num_steps),
        mask=_stack(masks, mask, num_steps),
        terminated=ended_terminally,
    )


def _where_running(running: Bool[Tensor, "B"], stepped: Any, stayed: Any) -> Any:
    """Moves the running episodes on. A state that is no tensor is its environment's affair."""
    if isinstance(stepped, Tensor):
        return torch.where(_expand(running, stepped), stepped, stayed)
    if isinstance(stepped, tuple):
        fields = zip(stepped, stayed, strict=True)
        return type(stepped)(*(_where_running(running, new, old) for new, old in fields))
    return stepped


def _stack(
    steps: list[Shaped[Tensor, "B ..."]], mask: Bool[Tensor, "S B"], num_steps: int
) -> Shaped[Tensor, "T B ..."]:
    """Stacks S steps, zero outside the mask, and fills up with zeros to T steps."""
    stacked = torch.stack(steps)
    padded = stacked.new_zeros(num_steps, *stacked.shape[1:])
    padded[: len(steps)] = torch.where(_expand(mask, stacked), stacked, 0)
    return padded


def _expand(mask: Bool[Tensor, "..."], like: Tensor) -> Bool[Tensor, "..."]:
    """The mask with as many dimensions as `like`, so that it is applied to the leading ones."""
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))
