"""A policy is seven pure functions around a network.

A decision is `action(sample(apply(params, obs), noise))`: the network names a distribution, the
noise picks the sample, and the sample names the action. `params` is the module itself.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from pgcore.errors import unknown_choice
from pgtorch.distributions import Categorical, Normal
from pgtorch.networks import ReinforceAgent, ReparamTrickAgent

Distribution = Categorical | Normal


class Policy(NamedTuple):
    """What an agent is, as pure functions of `params`, observations and noise.

    | field | is |
    | --- | --- |
    | `init(key)` | fresh parameters, drawn from the generator `key` |
    | `apply(params, obs)` | the distribution at each observation, obs in the parameters' dtype |
    | `draw_noise(key, num_steps, num_episodes)` | standard noise `[T, B, A]` |
    | `sample(dist, noise)` | what is drawn: actions, or real vectors z |
    | `action(sample)` | the action that a sample stands for |
    | `log_prob(dist, sample)` | log-probability of each sample |
    | `entropy(dist)` | entropy of each distribution, in nats |
    """

    init: Callable[[torch.Generator], nn.Module]
    apply: Callable[[nn.Module, Float[Tensor, "*batch O"]], Distribution]
    draw_noise: Callable[[torch.Generator, int, int], Float[Tensor, "T B A"]]
    sample: Callable[[Any, Float[Tensor, "*batch A"]], Num[Tensor, "..."]]
    action: Callable[[Num[Tensor, "..."]], Int[Tensor, "*batch"]]
    log_prob: Callable[[Any, Num[Tensor, "..."]], Float[Tensor, "*batch"]]
    entropy: Callable[[Any], Float[Tensor, "*batch"]]


def make_policy(
    agent: str, obs_dim: int, num_actions: int, hidden_sizes: Sequence[int] = (24, 12)
) -> Policy:
    """One of the article's two agents: `"reinforce"` or `"reparam"`.

    Raises:
        ValueError: For any other name.
    """
    if agent == "reinforce":
        network, distribution = ReinforceAgent, "categorical"
    elif agent == "reparam":
        network, distribution = ReparamTrickAgent, "normal"
    else:
        raise unknown_choice("agent", agent, ("reinforce", "reparam"))

    def init(key: torch.Generator) -> nn.Module:
        # torch's layers initialise themselves from the global generator. It is seeded from `key`
        # for that long and then put back, so that nothing but `key` advances.
        seed = int(torch.randint(2**32, (), generator=key, device=key.device))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return network(obs_dim, num_actions, hidden_sizes).to(key.device)

    return _policy(init, lambda params, obs: params(obs), num_actions, distribution)


def from_callable(
    params: nn.Module,
    fn: Callable[[nn.Module, Float[Tensor, "*batch O"]], Any],
    num_actions: int,
    distribution: str = "categorical",
) -> Policy:
    """A policy made of any module.

    Args:
        params: The module that holds the parameters. `init` ignores its key and returns a copy.
        fn: `fn(params, obs)` returns the logits `[*batch, A]` of a `"categorical"` policy, or
            the means and standard deviations of a `"normal"` one.
        num_actions: A.
        distribution: `"categorical"` or `"normal"`.

    Raises:
        ValueError: For any other distribution.
    """
    return _policy(lambda key: copy.deepcopy(params), fn, num_actions, distribution)


def make_act(
    policy: Policy, params: nn.Module
) -> Callable[[Float[np.ndarray, "B O"], Float[np.ndarray, "B A"]], Int[np.ndarray, " B"]]:
    """The policy as a function of NumPy arrays, `act(obs, noise) -> actions`, for evaluation.

    Zero noise acts greedily.
    """

    def act(obs, noise):
        # torch.tensor copies: an environment may reuse the memory of its observations.
        with torch.no_grad():
            dist = policy.apply(params, torch.tensor(obs))
            noise = torch.tensor(noise).to(dist[0])
            return policy.action(policy.sample(dist, noise)).cpu().numpy()

    return act


def _policy(init, fn, num_actions: int, distribution: str) -> Policy:
    if distribution == "categorical":

        def draw_gumbel(key, num_steps, num_episodes):
            # −log X is standard Gumbel where X is standard exponential. A float32 X may be 0,
            # whose noise would be infinite.
            exponential = torch.empty(num_steps, num_episodes, num_actions, device=key.device)
            exponential.exponential_(generator=key)
            return -torch.log(exponential.clamp(min=torch.finfo(exponential.dtype).tiny))

        return Policy(
            init=init,
            apply=lambda params, obs: Categorical(fn(params, _as_parameters(obs, params))),
            draw_noise=draw_gumbel,
            sample=Categorical.sample,
            action=lambda sample: sample,
            log_prob=Categorical.log_prob,
            entropy=Categorical.entropy,
        )
    if distribution == "normal":

        def draw_normal(key, num_steps, num_episodes):
            shape = (num_steps, num_episodes, num_actions)
            return torch.randn(shape, generator=key, device=key.device)

        return Policy(
            init=init,
            apply=lambda params, obs: Normal(*fn(params, _as_parameters(obs, params))),
            draw_noise=draw_normal,
            sample=Normal.sample,
            action=lambda sample: torch.argmax(sample, dim=-1),
            log_prob=lambda dist, sample: dist.log_prob(sample).sum(dim=-1),
            entropy=lambda dist: dist.entropy().sum(dim=-1),
        )
    raise unknown_choice("distribution", distribution, ("categorical", "normal"))


def _as_parameters(obs: Tensor, params: nn.Module) -> Tensor:
    """The observation in the dtype and on the device of the parameters."""
    parameter = next(params.parameters(), None)
    return obs if parameter is None else obs.to(parameter)
