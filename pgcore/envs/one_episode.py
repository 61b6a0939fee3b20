"""One copy of an environment that plays one episode and rests, and is not trusted meanwhile.

Whatever it raises, returns of another kind than it should, or does not return in time, is an
`EnvironmentFault` that says which step of which episode it was.
"""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from pgcore.envs.deadline import Deadline, Overdue
from pgcore.envs.faults import EnvironmentFault

OLD_API = (
    "; this is the API of Gym before 0.26, see "
    "https://gymnasium.farama.org/introduction/gym_compatibility for how to wrap it"
)


class EnvironmentWarning(UserWarning):
    """An environment misbehaved where nothing is lost by it."""


class OneEpisode(gymnasium.Wrapper):
    """Plays one episode and then rests: no resets, no steps, no rewards, at no cost.

    The episode is cut at `max_steps`, whatever the environment thinks of it. Observations are
    float32; the infos are left out.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        env_id: str,
        spaces: tuple[gymnasium.Space, gymnasium.Space],
        max_steps: int,
        *,
        episode: int,
        deadline: Deadline,
    ) -> None:
        """Takes an environment.

        Args:
            env: What Gymnasium made.
            env_id: Its name.
            spaces: What it has to observe, in float32, and the actions it takes.
            max_steps: Steps after which the episode is truncated.
            episode: Which one of those that are played together, from 0.
            deadline: The time limit of a reset and of a step.
        """
        # Gymnasium's own limit would unpack what the environment returns before it is checked.
        super().__init__(env.env if isinstance(env, TimeLimit) else env)
        self.observation_space, self.action_space = spaces
        self.is_resting = False
        self._env_id, self._max_steps, self._episode = env_id, max_steps, episode
        self._deadline = deadline
        self._shape = spaces[0].shape
        self._time: int | None = None
        self._last_obs: Any = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begins the episode, or goes on resting."""
        if self.is_resting:
            return self._last_obs, {}
        self._time = None
        result = self._call(self.env.reset, **options)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            old = OLD_API if not isinstance(result, tuple) else ""
            raise self._fault(f"reset() returned {_kind(result)}, expected is (obs, info){old}")
        self._time = 0
        return self._as_obs(result[0]), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Plays a step, or goes on resting."""
        if self.is_resting:
            return self._last_obs, 0.0, False, False, {}
        assert self._time is not None
        self._time += 1
        # Discrete takes much longer to accept a NumPy integer than a Python one.
        result = self._call(self.env.step, int(action))
        if not isinstance(result, tuple) or len(result) != 5:
            old = OLD_API if isinstance(result, tuple) and len(result) == 4 else ""
            raise self._fault(
                f"step() returned {_kind(result)}, expected is (obs, reward, terminated, "
                f"truncated, info){old}"
            )
        obs, reward, terminated, truncated, _ = result
        obs = self._as_obs(obs)
        if type(reward) is not float:
            reward = self._as_number(reward)
        if type(terminated) is not bool:
            terminated = self._as_flag("terminated", terminated)
        if type(truncated) is not bool:
            truncated = self._as_flag("truncated", truncated)
        truncated = truncated or self._time >= self._max_steps
        self.is_resting, self._last_obs = terminated or truncated, obs
        return obs, reward, terminated, truncated, {}

    def close(self) -> None:
        """Closes the environment. Its episode is over: what it raises now costs nothing."""
        close_quietly(self.env, self._env_id)

    def late(self) -> EnvironmentFault:
        """That a call takes too long."""
        call = "reset()" if self._time is None else "step()"
        limit = self._deadline.seconds
        return self._fault(f"{call} has not returned within {limit:g} s (env_timeout)")

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        deadline = self._deadline
        deadline.begin(self)
        try:
            result = function(*arguments, **options)
        except Overdue as error:
            raise self.late() from error
        except (Exception, SystemExit) as error:
            name = "reset()" if self._time is None else "step()"
            is_old = isinstance(error, TypeError) and "unexpected keyword argument" in str(error)
            text = f"{name} raised {type(error).__name__}: {error}{OLD_API if is_old else ''}"
            raise self._fault(text) from error
        finally:
            deadline.end()
        if deadline.is_stuck:  # it did return, but the run was given up
            raise self.late()
        return result

    def _as_obs(self, obs: Any) -> np.ndarray:
        try:
            array = np.asarray(obs)
        except Exception as error:  # a list of lists of several lengths, or what an object raises
            raise self._fault(f"the observation is {_kind(obs)}: {error}") from error
        if array.shape != self._shape or array.dtype.kind not in "biuf":
            raise self._fault(
                f"the observation is {_kind(obs)}, expected are numbers of shape {self._shape}, "
                "as its observation_space says"
            )
        if array.dtype != np.float32:
            with np.errstate(over="ignore"):  # what becomes infinite is named as such
                array = array.astype(np.float32)
        return array

    def _as_number(self, reward: Any) -> float:
        try:
            array = np.asarray(reward)
            if array.shape == () and array.dtype.kind in "biuf":
                return float(array)
        except Exception as error:
            raise self._fault(f"the reward is {_kind(reward)}: {error}") from error
        raise self._fault(f"the reward is {_kind(reward)}, expected is a number")

    def _as_flag(self, name: str, flag: Any) -> bool:
        if isinstance(flag, np.bool_) or getattr(flag, "dtype", None) == np.bool_:
            array = np.asarray(flag)
            if array.shape == ():
                return bool(array)
        raise self._fault(f"{name} is {_kind(flag)}, expected is True or False")

    def _fault(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(what, self._env_id, self._episode, self._time)


def close_quietly(env: gymnasium.Env, env_id: str) -> None:
    """Closes an environment; what that raises is an `EnvironmentWarning`."""
    try:
        env.close()
    except Exception as error:
        text = f"close() of {env_id} raised {type(error).__name__}: {error}; nothing is lost by it"
        warnings.warn(text, EnvironmentWarning, stacklevel=2)


def _kind(value: Any) -> str:
    """A value as a message shows it: what it is, and of what size, but not all of it."""
    shape = getattr(value, "shape", None)
    if shape is not None and shape != ():
        return f"an array of {getattr(value, 'dtype', '?')} of shape {tuple(shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return text if value is None or isinstance(value, bool) else f"{text} ({type(value).__name__})"
