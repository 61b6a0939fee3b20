"""A policy is a handful of pure functions. Both agents act by one formula:

action = argmax(loc + scale · noise)
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from pgcore.agents import find_agent
from pgcore.errors import unknown_choice
from pgjax.distributions import Categorical, Normal
from pgjax.networks import ReinforceAgent, ReparamTrickAgent

Distribution = Categorical | Normal


class Policy(NamedTuple):
    """The functions that rollouts, losses and evaluations need of a policy.

    Attributes:
        init: `key -> params`.
        apply: `(params, obs [..., O]) -> distribution`.
        draw_noise: `(key, num_steps, num_episodes) -> noise [T, B, A]`, the agent's standard noise.
        sample: `(distribution, noise [..., A]) -> sample`: an action, or `z [..., A]`.
        action: `sample -> action [...]`.
        log_prob: `(distribution, sample) -> [...]`, summed over the dimensions of `z`.
        entropy: `distribution -> [...]` in nats, summed likewise.
    """

    init: Callable[[Array], Any]
    apply: Callable[[Any, Float[Array, "*batch O"]], Distribution]
    draw_noise: Callable[[Array, int, int], Float[Array, "T B A"]]
    sample: Callable[[Distribution, Float[Array, "*batch A"]], Num[Array, "..."]]
    action: Callable[[Num[Array, "..."]], Int[Array, "*batch"]]
    log_prob: Callable[[Distribution, Num[Array, "..."]], Float[Array, "*batch"]]
    entropy: Callable[[Distribution], Float[Array, "*batch"]]


def make_policy(
    agent: str, obs_dim: int, num_actions: int, hidden_sizes: tuple[int, ...] = (24, 12)
) -> Policy:
    """The article's policy `"reinforce"` or `"reparam"`.

    Raises:
        UsageError: There is no such agent.
    """
    heads = find_agent(agent).heads
    network = ReparamTrickAgent if heads else ReinforceAgent
    module = network(obs_dim, num_actions, tuple(hidden_sizes))
    policy = from_callable(
        None, module.apply, num_actions, distribution="normal" if heads else "categorical"
    )
    return policy._replace(init=lambda key: module.init(key, jnp.zeros(obs_dim)))


def from_callable(
    params: Any,
    fn: Callable[[Any, Float[Array, "*batch O"]], Any],
    num_actions: int,
    distribution: Literal["categorical", "normal"] = "categorical",
) -> Policy:
    """A policy from any function: plain, NNX or Equinox.

    Args:
        params: The initial parameters, any pytree; `Policy.init` returns them whatever the key.
        fn: `(params, obs [..., O]) -> logits [..., A]`, or `(mu, std)` for `"normal"`.
        num_actions: A.
        distribution: `"categorical"` or `"normal"`.
    """
    match distribution:
        case "categorical":
            return Policy(
                init=lambda key: params,
                apply=lambda params, obs: Categorical(fn(params, obs)),
                draw_noise=lambda key, steps, episodes: jax.random.gumbel(
                    key, (steps, episodes, num_actions)
                ),
                sample=lambda dist, noise: dist.sample(noise),
                action=lambda sample: sample,
                log_prob=lambda dist, sample: dist.log_prob(sample),
                entropy=lambda dist: dist.entropy(),
            )
        case "normal":
            return Policy(
                init=lambda key: params,
                apply=lambda params, obs: Normal(*fn(params, obs)),
                draw_noise=lambda key, steps, episodes: jax.random.normal(
                    key, (steps, episodes, num_actions)
                ),
                sample=lambda dist, noise: dist.sample(noise),
                action=lambda sample: jnp.argmax(sample, axis=-1),
                log_prob=lambda dist, sample: dist.log_prob(sample).sum(axis=-1),
                entropy=lambda dist: dist.entropy().sum(axis=-1),
            )
        case _:
            raise unknown_choice("distribution", distribution, ("categorical", "normal"))


def make_act(policy: Policy, params: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`act(obs [B, O], noise [B, A]) -> actions [B]`, NumPy to NumPy, compiled once a shape.

    Zero noise acts greedily.
    """

    def act(params: Any, obs: Array, noise: Array) -> Array:
        return policy.action(policy.sample(policy.apply(params, obs), noise))

    compiled = jax.jit(act)
    return lambda obs, noise: np.asarray(compiled(params, obs, noise))
