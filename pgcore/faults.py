"""Where a run met a number that is not finite, in words that a person can act on."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pgcore.errors import RunError
from pgcore.schema import Tensors


class Played(NamedTuple):
    """Whole episodes that a policy played."""

    returns: np.ndarray
    """Undiscounted, `[B]`, in order of `b`."""
    is_finite: Any
    """Whether all observations, rewards and parameters are finite; what `bool` takes."""
    trajectory: Callable[[], Any]
    """The episodes themselves, a `Trajectory` of the framework. Asked for only if they are not."""


def require_finite(
    played: Played,
    tensors: Callable[[], Tensors],
    where: str,
    *,
    episodes: int,
    env_steps: int | None = None,
) -> None:
    """Raises a `RunError` that names the first parameter, reward or observation that is not finite.

    Args:
        played: The episodes.
        tensors: The parameters that played them, asked for only if something is not finite.
        where: What they were played for.
        episodes: Episodes before them.
        env_steps: Environment steps before them, where these are counted.
    """
    if played.is_finite:
        return
    if fault := _parameter_fault(tensors()):
        raise RunError(f"{fault} in {where}; {REMEDY}")
    fault = _first_fault(played.trajectory(), episodes, env_steps)
    raise RunError(f"{fault} in {where}; what an environment returns must be finite")


def require_finite_metrics(metrics: Any, where: str, env_steps: int) -> None:
    """Raises a `RunError` if the loss or the norm of its gradient is not finite.

    Args:
        metrics: Has `loss` and `grad_norm`.
        where: The update, in words.
        env_steps: Environment steps before it.
    """
    for field in ("loss", "grad_norm"):
        if not math.isfinite(value := float(getattr(metrics, field))):
            raise RunError(
                f"{field} is {value} in {where}, which began at environment step {env_steps:,}; "
                f"{REMEDY}"
            )


REMEDY = "a lower learning_rate or a max_grad_norm usually helps"


def _parameter_fault(tensors: Tensors) -> str | None:
    """The first parameter that is not finite, if there is one."""
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            return f"parameter {name}{_index(array)} is {array[~np.isfinite(array)][0]}"
    return None


def _first_fault(trajectory: Any, episodes: int, env_steps: int | None) -> str:
    """The first reward or observation, in order of time, that is not finite."""
    obs, reward, mask = (
        np.asarray(getattr(trajectory, name)) for name in ("obs", "reward", "mask")
    )
    bad_obs = mask & ~np.isfinite(obs).all(axis=-1)
    t, b = np.argwhere(bad_obs | (mask & ~np.isfinite(reward)))[0]
    if bad_obs[t, b]:
        values = obs[t, b]
        fault = f"observation{_index(values)} is {values[~np.isfinite(values)][0]}"
    else:
        fault = f"the reward is {reward[t, b]}"
    at = f"step {t + 1} of episode {episodes + b + 1}"
    if env_steps is None:
        return f"{fault} at {at}"
    step = env_steps + int(mask[:t].sum() + mask[t, : b + 1].sum())
    return f"{fault} at environment step {step:,} ({at})"


def _index(array: np.ndarray) -> str:
    """Where `array` is not finite first, as an index: `[3, 2]`."""
    return str(np.argwhere(~np.isfinite(array))[0].tolist())
