"""Environments by name."""

from pgtorch.envs.base import Env
from pgtorch.envs.gymnasium import GymnasiumEnv


def make_env(
    env_id: str = "CartPole-v1", max_steps: int | None = None, timeout: float | None = None
) -> Env:
    """The environment to train in: Gymnasium's own, `CartPole-v1` included.

    Args:
        env_id: A registered id.
        max_steps: Another step limit than the registered one.
        timeout: Seconds that one of its resets or steps may take; None lets it take for ever.

    Raises:
        UsageError: Gymnasium cannot make it, or its spaces are of another kind.
    """
    return GymnasiumEnv(env_id, max_steps, timeout)
