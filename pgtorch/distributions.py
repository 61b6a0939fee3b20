"""The two distributions over actions, with noise as an argument.

Both samples are one formula, `location + scale · noise`; the densities are `torch.distributions`'.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Categorical(NamedTuple):
    """A choice among A actions: p(a) = softmax(logits)_a."""

    logits: Float[Tensor, "*batch A"]

    def sample(self, noise: Float[Tensor, "*batch A"]) -> Int[Tensor, "*batch"]:
        """The Gumbel-max form, with standard Gumbel noise: a = argmax_i (log p(i) + noise_i).

        Zero noise gives the most probable action. Of equal scores the first one wins.
        """
        return torch.argmax(torch.log_softmax(self.logits, dim=-1) + noise, dim=-1)

    def log_prob(self, value: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The log-probability: log p(value) = logits_value − log Σ_i exp(logits_i)."""
        return self._density().log_prob(value)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """The entropy in nats: H = −Σ_i p(i) · log p(i)."""
        return self._density().entropy()

    def _density(self) -> torch.distributions.Categorical:
        # Logits, not probabilities: torch clamps probabilities to [eps, 1 − eps] of the dtype.
        return torch.distributions.Categorical(logits=self.logits, validate_args=False)


class Normal(NamedTuple):
    """Independent Gaussians N(loc, scale²): everything is per dimension, nothing is summed."""

    loc: Float[Tensor, "*batch A"]
    scale: Float[Tensor, "*batch A"]

    def sample(self, noise: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """The reparameterization trick, with standard Normal noise: z = loc + scale · noise."""
        return self.loc + self.scale * noise

    def log_prob(self, value: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """The log-density: log p(z) = −(z − loc)² / (2 scale²) − log scale − ½ log 2π."""
        return self._density().log_prob(value)

    def entropy(self) -> Float[Tensor, "*batch A"]:
        """The entropy in nats: H = ½ + ½ log 2π + log scale."""
        return self._density().entropy()

    def _density(self) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.loc, self.scale, validate_args=False)
