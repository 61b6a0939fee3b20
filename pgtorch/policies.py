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

from pgcore.config import as_sizes
from pgcore.errors import UsageError, is_int, require, unknown_choice
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
        UsageError: For any other name, and for sizes that no network has. `apply` raises it for
            observations that are not `[..., obs_dim]`.
    """
    require(is_int(obs_dim, 1), "obs_dim", obs_dim, "an integer of at least 1")
    widths = as_sizes(hidden_sizes)
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
            return network(obs_dim, num_actions, widths).to(key.device)

    def forward(params: nn.Module, obs: Float[Tensor, "*batch O"]) -> Any:
        fits = obs.ndim > 0 and obs.shape[-1] == obs_dim
        require(fits, "shape of obs", tuple(obs.shape), f"[..., {obs_dim}]")
        return params(obs)

    return _policy(init, forward, num_actions, distribution)


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
        UsageError: For any other distribution. `apply` raises it where `fn` returns anything else,
            or in other shapes. (A deviation `[A]`, the same at every observation, will do.)
    """
    return _policy(lambda key: copy.deepcopy(params), fn, num_actions, distribution)


def make_act(
    policy: Policy, params: nn.Module
) -> Callable[[Float[np.ndarray, "B O"], Float[np.ndarray, "B A"]], Int[np.ndarray, " B"]]:
    """The policy as a function of NumPy arrays, `act(obs, noise) -> actions`, for evaluation.

    Zero noise acts greedily.

    Raises:
        UsageError: From `act`, where the noise does not fit the observations.
    """

    def act(obs, noise):
        # torch.tensor copies: an environment may reuse the memory of its observations.
        with torch.no_grad():
            dist = policy.apply(params, torch.tensor(obs))
            _check("noise", torch.tensor(noise), dist[0].shape)
            noise = torch.tensor(noise).to(dist[0])
            return policy.action(policy.sample(dist, noise)).cpu().numpy()

    return act


def _policy(init, fn, num_actions: int, distribution: str) -> Policy:
    require(is_int(num_actions, 1), "num_actions", num_actions, "an integer of at least 1")
    if distribution == "categorical":

        def draw_gumbel(key, num_steps, num_episodes):
            # −log X is standard Gumbel where X is standard exponential. A float32 X may be 0,
            # whose noise would be infinite.
            exponential = torch.empty(num_steps, num_episodes, num_actions, device=key.device)
            exponential.exponential_(generator=key)
            return -torch.log(exponential.clamp(min=torch.finfo(exponential.dtype).tiny))

        def categorical(params, obs):
            logits = fn(params, _as_parameters(obs, params))
            return Categorical(_check("the logits", logits, (*obs.shape[:-1], num_actions)))

        return Policy(
            init=init,
            apply=categorical,
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

        def normal(params, obs):
            outputs = fn(params, _as_parameters(obs, params))
            if not (isinstance(outputs, tuple | list) and len(outputs) == 2):
                raise UsageError(
                    f"fn returns {_what(outputs)}, accepted for a normal policy is a pair "
                    f"(mu, std) of tensors [..., {num_actions}]; a tensor that holds both is taken "
                    "apart by out.unbind(0) or out.chunk(2, dim=-1)"
                )
            everywhere = (*obs.shape[:-1], num_actions)
            mu, std = outputs
            is_shared = isinstance(std, Tensor) and std.ndim == 1
            return Normal(
                _check("mu", mu, everywhere),
                _check("std", std, (num_actions,) if is_shared else everywhere),
            )

        return Policy(
            init=init,
            apply=normal,
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


def _check(name: str, tensor: Any, shape: Sequence[int]) -> Tensor:
    """The tensor itself; a `UsageError` if it is none or has another shape."""
    if isinstance(tensor, Tensor) and tuple(tensor.shape) == tuple(shape):
        return tensor
    raise UsageError(
        f"{name} is {_what(tensor)}, accepted is a tensor of shape {list(shape)}, "
        "num_actions at its end"
    )


def _what(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return f"a {kind} of {len(value)}" if isinstance(value, tuple | list) else f"a {kind}"
