"""From rewards to advantages."""

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from pgcore.errors import unknown_choice

DEGENERATE_STD = 1e-5
"""Returns whose deviation is below this part of the largest are equal up to rounding."""


def discounted_returns(
    rewards: Num[Tensor, "T B"], mask: Bool[Tensor, "T B"], discount: float
) -> Float[Tensor, "T B"]:
    """G_t = r_t + discount · G_{t+1} inside an episode, zero outside.

    Rewards outside the mask may be anything, NaN too.
    """
    rewards = torch.where(mask, rewards, 0.0)  # 0.0 makes floats of integer rewards
    returns = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[0])
    steps_of_any = mask.any(dim=1).nonzero()
    num_steps = int(steps_of_any[-1]) + 1 if len(steps_of_any) else 0  # nothing comes after
    for t in reversed(range(num_steps)):
        following = torch.where(mask[t], rewards[t] + discount * following, 0)
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
    returns = torch.where(mask, returns, 0.0)
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
    scaled = returns / torch.where(largest == 0, 1, largest)

    num_steps = mask.sum(dim=dims, keepdim=True).clamp(min=1)
    mean = scaled.sum(dim=dims, keepdim=True) / num_steps
    deviation = torch.where(mask, scaled - mean, 0)
    variance = deviation.square().sum(dim=dims, keepdim=True) / num_steps

    # The root is taken of 1 where it would not be used: its derivative at 0 is infinite. A return
    # that is NaN compares as false and stays NaN.
    degenerate = variance.sqrt() <= DEGENERATE_STD
    std = torch.where(degenerate, 1, variance).sqrt()
    return torch.where(degenerate, 0, deviation / std)


def episode_returns(rewards: Num[Tensor, "T B"], mask: Bool[Tensor, "T B"]) -> Num[Tensor, " B"]:
    """R = Σ_t r_t of each episode, not discounted."""
    return torch.where(mask, rewards, 0).sum(dim=0)
