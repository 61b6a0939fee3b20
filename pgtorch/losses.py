"""The score-function (REINFORCE) loss."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def reinforce_loss(
    log_probs: Float[Tensor, "T B"], advantages: Float[Tensor, "T B"], mask: Bool[Tensor, "T B"]
) -> Float[Tensor, ""]:
    """L = −(1/B) Σ_b Σ_t A_tb · log π(z_tb | s_tb), over the steps inside the mask.

    Its gradient is the policy gradient (Williams 1992). A sum over time, not a mean; with B = 1
    it is the article's loss. The advantages carry no gradient; the caller sees to it that the
    samples z carry none either. Outside the mask both inputs may be anything, NaN too.
    """
    log_probs = torch.where(mask, log_probs, 0)
    advantages = torch.where(mask, advantages.detach(), 0)
    return -(log_probs * advantages).sum(dim=0).mean()
