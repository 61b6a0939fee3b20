"""Discounted returns and advantages over padded episodes."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from pgcore.errors import unknown_choice

DEGENERATE_STD = 1e-5
"""A standard deviation at most this share of max|G| is rounding, not signal; in every dtype."""


def discounted_returns(
    rewards: Num[Array, "T B"], mask: Bool[Array, "T B"], discount: float
) -> Float[Array, "T B"]:
    """`G_t = r_t + γ · G_{t+1}` inside each episode, by a reverse recursion; 0 outside."""

    def step(
        following: Float[Array, " B"], now: tuple[Float[Array, " B"], Bool[Array, " B"]]
    ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        reward, running = now
        ret = jnp.where(running, reward + discount * following, 0)
        return ret, ret

    rewards = jnp.where(mask, rewards, 0.0)  # 0.0 makes floats of integer rewards
    _, returns = jax.lax.scan(step, jnp.zeros_like(rewards[0]), (rewards, mask), reverse=True)
    return returns


def normalize_returns(
    returns: Float[Array, "T B"],
    mask: Bool[Array, "T B"],
    scope: Literal["episode", "batch", "none"] = "episode",
) -> Float[Array, "T B"]:
    """Advantages `(G − mean G) / std G`, with the population standard deviation; 0 outside.

    Mean and deviation are over the steps of each episode (`"episode"`, the article's), over all
    steps of the batch (`"batch"`), or not taken at all (`"none"`: the returns themselves).
    Where `std ≤ 1e-5 · max|G|` (one-step episodes, equal returns up to rounding) the advantages
    are 0 and not noise divided by noise.
    """
    returns = jnp.where(mask, returns, 0.0)
    match scope:
        case "none":
            return returns
        case "episode":
            axes: tuple[int, ...] = (0,)
        case "batch":
            axes = (0, 1)
        case _:
            raise unknown_choice("scope", scope, ("episode", "batch", "none"))

    # Advantages do not depend on the returns' scale. Dividing by max|G| first keeps the squares
    # of tiny and of huge returns representable (in float32 for max|G| from 1e-37 to 8e37, beyond
    # which XLA takes the reciprocal for zero); no gradient needs to pass through the scale.
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(returns)), axis=axes, keepdims=True)
    scaled = returns / jnp.where(largest == 0, 1, largest)
    count = jnp.maximum(jnp.sum(mask, axis=axes, keepdims=True), 1)
    mean = jnp.sum(scaled, axis=axes, keepdims=True) / count
    centred = jnp.where(mask, scaled - mean, 0)
    variance = jnp.sum(centred * centred, axis=axes, keepdims=True) / count
    # The root is taken of 1 where it is not used: its gradient at 0 is infinite. A return that is
    # NaN compares as false and stays NaN.
    is_degenerate = variance <= DEGENERATE_STD**2
    std = jnp.sqrt(jnp.where(is_degenerate, 1, variance))
    return jnp.where(is_degenerate, 0, centred / std)


def episode_returns(rewards: Num[Array, "T B"], mask: Bool[Array, "T B"]) -> Num[Array, " B"]:
    """Undiscounted return of each episode: `Σ_t r_t` over its own steps."""
    return jnp.sum(jnp.where(mask, rewards, 0), axis=0)
