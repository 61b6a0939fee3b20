"""The two laws that the agents act by. Both sample as `loc + scale · noise`, from noise given."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Categorical(NamedTuple):
    """A choice among A actions with `p = softmax(logits)`."""

    logits: Float[Array, "*batch A"]

    def sample(self, noise: Float[Array, "*batch A"]) -> Int[Array, "*batch"]:
        """Gumbel-max: `argmaxₐ (log pₐ + noiseₐ)` is a draw from p if noise is standard Gumbel.

        Zero noise gives the most likely action. The first index wins a tie.
        """
        return jnp.argmax(jax.nn.log_softmax(self.logits) + noise, axis=-1)

    def log_prob(self, value: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """`log p(value)`. NaN where `value` is no action."""
        log_p = jax.nn.log_softmax(self.logits)
        is_action = (value >= 0) & (value < self.logits.shape[-1])
        picked = jnp.take_along_axis(log_p, value[..., None], axis=-1)[..., 0]
        return jnp.where(is_action, picked, jnp.nan)

    def entropy(self) -> Float[Array, "*batch"]:
        """`−Σₐ pₐ · log pₐ`, in nats."""
        log_p = jax.nn.log_softmax(self.logits)
        # A masked action has log p = −∞ and adds nothing; 0 · −∞ would be NaN.
        finite_log_p = jnp.where(jnp.isfinite(log_p), log_p, 0)
        return -jnp.sum(jnp.exp(log_p) * finite_log_p, axis=-1)


class Normal(NamedTuple):
    """Independent Normal distributions, one a dimension."""

    loc: Float[Array, "*batch A"]
    scale: Float[Array, "*batch A"]

    def sample(self, noise: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """`loc + scale · noise`: the reparameterization trick."""
        return self.loc + self.scale * noise

    def log_prob(self, value: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """`−½ z² − log scale − ½ log 2π` with `z = (value − loc) / scale`, per dimension.

        The quotient comes before the square: scale² would underflow first.
        """
        z = (value - self.loc) / self.scale
        return -0.5 * z * z - jnp.log(self.scale) - _HALF_LOG_2PI

    def entropy(self) -> Float[Array, "*batch A"]:
        """`½ + ½ log 2π + log scale`, in nats, per dimension."""
        return 0.5 + _HALF_LOG_2PI + jnp.log(self.scale)
