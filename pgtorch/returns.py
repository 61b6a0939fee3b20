"""From rewards to advantages."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pgcore.errors import unknown_choice

DEGENERATE_STD = 1e-5
"""Returns whose deviation is below this part of the largest are equal up to rounding."""


def discounted_returns(
    rewards: Float[Tensor, "T B"], mask: Bool[Tensor, "T B"], discount: float
) -> Float[Tensor, "T B"]:
    """G_t = r_t + discount · G_{t+1} inside an episode, zero outside.

    Rewards outside the mask may be anything, NaN too.
    """
    rewards = torch.where(mask, rewards, 0)
    returns = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[0])
    longest = int(mask.any(dim=1).sum())  # Nothing follows the longest episode's last step.
    for t in reversed(range(longest)):
        following = rewards[t] + discount * following
        returns[t] = following
    return returns


def normalize_returns(
    returns: Float[Tensor, "T B"], mask: Bool[Tensor, "T B"], scope: str = "episode"
) -> Float[Tensor, "T B"]:
    """A = (G − mean G) / std G, over the steps of one episode or of the whole batch.

    The deviation is the population's: std² = (1/n) Σ (G − mean G)², as NumPy has it. Where
    std ≤ 1e-5 · max|G| (one-step episodes, returns equal up to rounding) A is zero.

    Args:
        returns: G. What lies outside the mask may be anything, NaN too; there A is zero.
        mask: True on the episodes' own steps.
        scope: `"episode"` (the article's), `"batch"`, or `"none"` for A = G.

    Raises:
        ValueError: For any other scope.
    """
    returns = torch.where(mask, returns, 0)
    if scope == "none":
        return returns
    if scope == "episode":
        dims = (0,)
    elif scope == "batch":
        dims = (0, 1)
    else:
        raise unknown_choice("scope", scope, ("episode", "batch", "none"))

    # A does not depend on the unit of G. In units of max|G| no square over- or underflows. For the
    # same reason nothing has to be differentiated through the unit.
    largest = returns.detach().abs().amax(dim=dims, keepdim=True)
    scaled = returns / torch.where(largest > 0, largest, 1)

    num_steps = mask.sum(dim=dims, keepdim=True).clamp(min=1)
    mean = scaled.sum(dim=dims, keepdim=True) / num_steps
    deviation = torch.where(mask, scaled - mean, 0)
    variance = deviation.square().sum(dim=dims, keepdim=True) / num_steps

    # The root is taken of 1 where it would not be used: its derivative at 0 is infinite.
    usable = variance.sqrt() > DEGENERATE_STD
    std = torch.where(usable, variance, 1).sqrt()
    return torch.where(usable, deviation / std, 0)


def episode_returns(
    rewards: Float[Tensor, "T B"], mask: Bool[Tensor, "T B"]
) -> Float[Tensor, " B"]:
    """R = Σ_t r_t of each episode, not discounted."""
    return torch.where(mask, rewards, 0).sum(dim=0)
