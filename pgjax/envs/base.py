"""What a rollout needs of an environment."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array


class Env(NamedTuple):
    """An environment as functions over `B` episodes at once. The step count is in the state.

    Attributes:
        reset: `noise [B, ...] -> (state, obs [B, O])`.
        step: `(state, action [B]) -> (state, obs, reward, terminated, truncated)`, each `[B]` but
            for `obs [B, O]` and the state, whose leaves lead with B.
        draw_reset: `(key, num_episodes) -> noise [B, ...]` for `reset`.
        obs_dim: O.
        num_actions: A; actions are 0 … A−1.
        max_steps: Steps after which an episode is truncated.
    """

    reset: Callable[[Array], tuple[Any, Array]]
    step: Callable[[Any, Array], tuple[Any, Array, Array, Array, Array]]
    draw_reset: Callable[[Array, int], Array]
    obs_dim: int
    num_actions: int
    max_steps: int
