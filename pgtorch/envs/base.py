"""What an environment is to a rollout."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor


class Env(NamedTuple):
    """B episodes in lockstep, as functions that draw no random numbers.

    | field | is |
    | --- | --- |
    | `reset(noise)` | `(state, obs)`: the first state of each episode, made of the noise |
    | `step(state, action)` | `(state, obs, reward, terminated, truncated)` |
    | `draw_reset(key, num_episodes)` | the noise for `reset`, from the generator `key` |
    | `obs_dim`, `num_actions` | O and A |
    | `max_steps` | the longest an episode can be |

    The step count is part of the state. `terminated` tells that the episode reached a terminal
    state, `truncated` that its time is up; both may be true. What `step` returns for an episode
    that has ended has no meaning. A state is a NamedTuple of tensors, episodes first, or an
    object of the environment's own.
    """

    reset: Callable[[Num[Tensor, "B ..."]], tuple[Any, Float[Tensor, "B O"]]]
    step: Callable[
        [Any, Int[Tensor, "B"]],
        tuple[Any, Float[Tensor, "B O"], Float[Tensor, "B"], Bool[Tensor, "B"], Bool[Tensor, "B"]],
    ]
    draw_reset: Callable[[torch.Generator, int], Num[Tensor, "B ..."]]
    obs_dim: int
    num_actions: int
    max_steps: int
