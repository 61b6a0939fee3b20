"""The policy-gradient loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def reinforce_loss(
    log_probs: Float[Array, "T B"], advantages: Float[Array, "T B"], mask: Bool[Array, "T B"]
) -> Float[Array, ""]:
    """`−(1/B) Σ_b Σ_t log π(a_tb) · A_tb` over the episodes' own steps.

    Its gradient in the policy's parameters is REINFORCE (Williams 1992); advantages carry none.
    """
    weighted = jnp.where(mask, log_probs, 0) * jnp.where(mask, jax.lax.stop_gradient(advantages), 0)
    return -jnp.mean(jnp.sum(weighted, axis=0))
