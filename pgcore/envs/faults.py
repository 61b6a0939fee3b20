"""Where a run met what it cannot go on from, in words that a person can act on."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from pgcore.errors import RunError
from pgcore.files.schema import Tensors

LARGEST_SHARE = 0.25
"""Of the largest float: a sum of returns still is one, and in JAX one over it is not zero yet."""


class EnvironmentFault(RunError):
    """What an environment did, at which step of which of the episodes that are played together."""

    def __init__(self, what: str, env_id: str, episode: int, step: int | None) -> None:
        """Says what it did.

        Args:
            what: In words, the first of a sentence.
            env_id: The environment.
            episode: From 0.
            step: From 1; 0 is what the reset returned, None the reset itself.
        """
        super().__init__(what, env_id, episode, step)
        self.what, self.env_id, self.episode, self.step = what, env_id, episode, step

    def __str__(self) -> str:
        return f"{self.what}, {self._at(0)} of {self.env_id}"

    def after(self, episodes: int) -> "EnvironmentFault":
        """The same where so many episodes were played before."""
        return EnvironmentFault(self.what, self.env_id, self.episode + episodes, self.step)

    def within(self, where: str, episodes: int) -> RunError:
        """The same in a run.

        Args:
            where: What the episodes were played for, and of which environment.
            episodes: Episodes before them.
        """
        return RunError(f"{self.what}, {self._at(episodes)} in {where}")

    def _at(self, episodes: int) -> str:
        episode = f"episode {self.episode + 1 + episodes}"
        return f"at step {self.step} of {episode}" if self.step else f"at the reset of {episode}"


@contextmanager
def located(where: str, episodes: int) -> Iterator[None]:
    """Says of an `EnvironmentFault` where in a run it was, as `EnvironmentFault.within` does."""
    try:
        yield
    except EnvironmentFault as fault:
        raise fault.within(where, episodes) from fault.__cause__


class Played(NamedTuple):
    """Whole episodes that a policy played."""

    returns: np.ndarray
    """Undiscounted, `[B]`, in order of `b`."""
    is_finite: Any
    """Whether all observations and parameters are finite, and no episode's rewards sum, without
    their signs, to more than `LARGEST_SHARE` of what their dtype holds; what `bool` takes."""
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
    raise RunError(f"{fault} in {where}; {RETURNED}")


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
RETURNED = "what an environment returns must be finite, and rewards small enough to be summed"


def _parameter_fault(tensors: Tensors) -> str | None:
    """The first parameter that is not finite, if there is one."""
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            return f"parameter {name}{_index(array)} is {array[~np.isfinite(array)][0]}"
    return None


def _first_fault(trajectory: Any, episodes: int, env_steps: int | None) -> str:
    """The first reward or observation, in order of time, that is not finite, or too large a sum."""
    obs, reward, mask = (
        np.asarray(getattr(trajectory, name)) for name in ("obs", "reward", "mask")
    )
    bad_obs = mask & ~np.isfinite(obs).all(axis=-1)
    bad = bad_obs | (mask & ~np.isfinite(reward))
    is_sum = not bad.any()
    sums = np.abs(np.where(mask, reward, 0)).cumsum(axis=0, dtype=np.float64)
    if is_sum:
        largest = LARGEST_SHARE * float(np.finfo(reward.dtype).max)
        bad = ~(sums <= largest)  # and how the framework's own sum was rounded decides a tie:
        bad = bad if bad.any() else sums >= sums.max()
    t, b = np.argwhere(bad)[0]
    if bad_obs[t, b]:
        values = obs[t, b]
        fault = f"observation{_index(values)} is {values[~np.isfinite(values)][0]}"
    elif is_sum:
        fault = (
            f"the reward is {reward[t, b]:g} and the episode's rewards sum, without their signs, "
            f"to {sums[t, b]:.3g}, too much for {reward.dtype},"
        )
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
