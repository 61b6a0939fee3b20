"""What passes between the stages: plain tuples of tensors, time first.

Shapes: T time steps, B episodes, O observation, A actions.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn


class Noise(NamedTuple):
    """All the randomness of B episodes: how each one starts, and one draw for each decision."""

    reset: Num[Tensor, "B ..."]
    policy: Float[Tensor, "T B A"]


class Trajectory(NamedTuple):
    """B episodes, started together and padded with zeros to T steps.

    `sample` is what the log-probability is of: the action for a categorical policy, the real
    vector z for a Gaussian one. `mask[t, b]` is true while episode b runs, its last step included;
    what lies outside it has no meaning. `terminated[b]` tells an episode that ended in a terminal
    state from one that ran out of time.
    """

    obs: Float[Tensor, "T B O"]
    sample: Num[Tensor, "T B ..."]
    action: Int[Tensor, "T B"]
    reward: Float[Tensor, "T B"]
    mask: Bool[Tensor, "T B"]
    terminated: Bool[Tensor, "B"]


class TrainState(NamedTuple):
    """What one update hands to the next. An update changes all three in place."""

    params: nn.Module
    opt_state: torch.optim.Optimizer
    update: Int[Tensor, ""]


class Metrics(NamedTuple):
    """What an update reports, as detached scalar tensors; nothing depends on it.

    `grad_norm` is the gradient's norm before any clipping, `entropy` the mean over steps in nats,
    `mean_return` the mean over episodes of the undiscounted return. Steps after an episode's end
    are not counted in `num_steps`.
    """

    loss: Float[Tensor, ""]
    grad_norm: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    mean_return: Float[Tensor, ""]
    num_episodes: Int[Tensor, ""]
    num_steps: Int[Tensor, ""]
