"""Environments by name."""

from pgcore.envs.gym import CARTPOLE
from pgjax.envs.base import Env
from pgjax.envs.cartpole import CartPole
from pgjax.envs.gymnasium import GymnasiumEnv


def make_env(
    env_id: str = "CartPole-v1", max_steps: int | None = None, timeout: float | None = None
) -> Env:
    """The environment that `train` uses: our own CartPole for CartPole-v1, else Gymnasium's.

    Our own needs no time limit (`timeout`, in seconds, of one reset or step on the host).

    Raises:
        UsageError: Gymnasium can't make it, or its spaces do not fit.
    """
    if env_id != CARTPOLE:
        return GymnasiumEnv(env_id, max_steps, timeout)
    return CartPole() if max_steps is None else CartPole(max_steps)
