"""A policy is a handful of pure functions. Both agents act by one formula:

action = argmax(loc + scale · noise)
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from pgcore.agents import find_agent
from pgcore.config import as_sizes
from pgcore.errors import UsageError, is_int, require, unknown_choice
from pgjax.distributions import Categorical, Normal
from pgjax.threefry import draw, gumbel, normal

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
        UsageError: There is no such agent, or no network of these sizes; and where `apply` is
            given observations that are not `[..., obs_dim]`.
    """
    heads = find_agent(agent).heads
    require(is_int(obs_dim, 1), "obs_dim", obs_dim, "an integer of at least 1")
    hidden_sizes = as_sizes(hidden_sizes)

    @functools.cache
    def module() -> Any:
        # Flax takes long to import, and a program that was kept has no need of it.
        from pgjax.networks import ReinforceAgent, ReparamTrickAgent

        network = ReparamTrickAgent if heads else ReinforceAgent
        return network(obs_dim, num_actions, hidden_sizes)

    def apply(params: Any, obs: Float[Array, "*batch O"]) -> Any:
        require(obs.shape[-1:] == (obs_dim,), "shape of obs", obs.shape, f"[..., {obs_dim}]")
        return module().apply(params, obs)

    policy = from_callable(
        None, apply, num_actions, distribution="normal" if heads else "categorical"
    )
    return policy._replace(
        init=lambda key: module().init(key, jnp.zeros(obs_dim)),
        apply=_AgentApply(agent, (obs_dim, num_actions), policy.apply, policy[2:]),
    )


class _AgentApply(NamedTuple):
    """`Policy.apply` of one of the two agents, by which `pgjax.fast` knows it."""

    agent: str
    dims: tuple[int, int]
    """O and A."""
    apply: Callable[[Any, Float[Array, "*batch O"]], Any]
    others: tuple[Callable, ...]
    """The policy's functions after `apply`, as they were made."""

    def __call__(self, params: Any, obs: Float[Array, "*batch O"]) -> Any:
        return self.apply(params, obs)


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

    Raises:
        UsageError: There is no such distribution; and where `apply` is traced, if `fn` returns
            anything else than logits, or a pair `(mu, std)`, of these shapes. (`std [A]` will do.)
    """
    require(is_int(num_actions, 1), "num_actions", num_actions, "an integer of at least 1")

    def to_categorical(params: Any, obs: Float[Array, "*batch O"]) -> Categorical:
        logits = fn(params, obs)
        _require_shape("the logits", logits, (*obs.shape[:-1], num_actions))
        return Categorical(logits)

    def to_normal(params: Any, obs: Float[Array, "*batch O"]) -> Normal:
        outputs = fn(params, obs)
        if not isinstance(outputs, tuple | list) or len(outputs) != 2:
            raise UsageError(
                f"fn returns {_describe(outputs)}, accepted for a normal policy is a pair "
                f"(mu, std) of arrays [..., {num_actions}]; an array `out` that stacks them is "
                "(out[0], out[1]) or jnp.split(out, 2, axis=-1)"
            )
        mu, std = outputs
        shape = (*obs.shape[:-1], num_actions)
        _require_shape("mu", mu, shape)
        _require_shape("std", std, shape[-1:] if jnp.ndim(std) == 1 else shape)
        return Normal(mu, std)

    match distribution:
        case "categorical":
            return Policy(
                init=lambda key: params,
                apply=to_categorical,
                draw_noise=lambda key, steps, episodes: draw(
                    gumbel, key, (steps, episodes, num_actions)
                ),
                sample=lambda dist, noise: dist.sample(noise),
                action=lambda sample: sample,
                log_prob=lambda dist, sample: dist.log_prob(sample),
                entropy=lambda dist: dist.entropy(),
            )
        case "normal":
            return Policy(
                init=lambda key: params,
                apply=to_normal,
                draw_noise=lambda key, steps, episodes: draw(
                    normal, key, (steps, episodes, num_actions)
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

    Raises:
        UsageError: From `act`, where the noise does not fit the observations.
    """

    def act(params: Any, obs: Array, noise: Array) -> Array:
        distribution = policy.apply(params, obs)
        _require_shape("noise", noise, distribution[0].shape)
        return policy.action(policy.sample(distribution, noise))

    compiled = jax.jit(act)
    return lambda obs, noise: np.asarray(compiled(params, obs, noise))


def _require_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raises a `UsageError` unless `array` has this shape; known when it is traced."""
    if getattr(array, "shape", None) != shape:
        accepted = f"an array of shape {list(shape)}, num_actions at its end"
        raise UsageError(f"{name} is {_describe(array)}, accepted is {accepted}")


def _describe(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"an array of shape {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
