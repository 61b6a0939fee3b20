"""Whole episodes of a Gymnasium environment, started together, one per copy."""

import shlex
import sys
import weakref
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgcore.envs.deadline import Deadline
from pgcore.envs.one_episode import EnvironmentWarning, OneEpisode, close_quietly
from pgcore.errors import RunError, UsageError, unknown_choice

CARTPOLE = "CartPole-v1"
CARTPOLE_RESET_BOUND = 0.05
"""CartPole's initial state is uniform within ± this, in each of its four dimensions."""

LARGEST_STEPS = 1_000_000
"""Of an episode. Its noise alone takes 64 MB then, for 8 episodes and two actions."""

PACKAGES = {"ALE": ("ale-py", "ale_py")}
"""Well-known namespaces that Gymnasium does not have itself: their package and its module."""


class GymSpec(NamedTuple):
    """What a policy and a rollout need to know of an environment."""

    env_id: str
    obs_dim: int
    num_actions: int
    max_steps: int


def gym_spec(env_id: str, max_steps: int | None = None) -> GymSpec:
    """Reads an environment's spaces and step limit.

    Args:
        env_id: A registered id, such as `"CartPole-v1"`.
        max_steps: Overrides the registered step limit.

    Raises:
        UsageError: The environment is unknown, lacks a package, can't be made, has no step limit
            or one beyond a million, or has spaces other than a flat `Box` observation and a
            `Discrete` action that starts at 0.
    """
    env = _make(env_id, max_steps)
    try:
        obs_space, action_space = env.observation_space, env.action_space
        limit = max_steps if max_steps is not None else getattr(env.spec, "max_episode_steps", None)
    except Exception as error:  # a property may do anything
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"env_id is {env_id!r}, whose spaces cannot be read: {reason}") from error
    finally:
        close_quietly(env, env_id)
    if not isinstance(obs_space, gymnasium.spaces.Box) or len(obs_space.shape) != 1:
        raise UsageError(
            f"env_id {env_id!r} observes {obs_space}, accepted is a Box of one dimension; "
            "wrap it, with gymnasium.wrappers.FlattenObservation for example"
        )
    if not isinstance(action_space, gymnasium.spaces.Discrete) or action_space.start != 0:
        raise UsageError(
            f"env_id {env_id!r} takes actions in {action_space}, accepted is Discrete starting at 0"
        )
    if limit is None:
        raise UsageError(f"env_id {env_id!r} has no step limit; register it with max_episode_steps")
    if limit > LARGEST_STEPS:
        raise UsageError(
            f"env_id {env_id!r} has a step limit of {limit:,}, accepted is at most "
            f"{LARGEST_STEPS:,}, for the noise of a whole episode is drawn before it; register it "
            "with a smaller max_episode_steps"
        )
    return GymSpec(env_id, obs_space.shape[0], int(action_space.n), int(limit))


def require_imported(env_id: str, where: str) -> None:
    """Raises a `UsageError` if making an environment that a file names would import a module.

    `"module:Env-v0"` has Gymnasium import `module`, which runs whatever is in it. That is a
    person's to ask for, on the command line or by an import; a file can't.
    """
    module, colon, _ = env_id.partition(":")
    if colon and module not in sys.modules:
        raise UsageError(
            f"{where!r} names the environment {env_id!r}, for which the module {module!r} would be "
            "imported and its code run, which no file may ask for. If you trust that module, say "
            f"so: --env-id {shlex.quote(env_id)} on the command line; in Python, import it first"
        )


class GymEpisodes:
    """`B` copies of a Gymnasium environment in lockstep, each playing one episode from `reset` on.

    The copies stand in a `SyncVectorEnv` with NEXT_STEP autoreset: the step after an episode's
    end ignores its action and resets the copy, which would then play another episode. Here it
    rests instead until the next `reset`. What comes from it meanwhile is no data, and it is the
    caller's to mask. Taking the first episodes to finish instead would favour short ones.
    """

    def __init__(self, spec: GymSpec, num_episodes: int, deadline: Deadline | None = None) -> None:
        """Makes the copies.

        Args:
            spec: The environment.
            num_episodes: B.
            deadline: The time limit of each copy's reset and step, by default none.

        Raises:
            RunError: A copy cannot be made, though one could before.
        """
        self.spec = spec
        spaces = (
            gymnasium.spaces.Box(-np.inf, np.inf, (spec.obs_dim,)),
            gymnasium.spaces.Discrete(spec.num_actions),
        )
        make = partial(_copy, spec, spaces, deadline or Deadline())
        self._envs = SyncVectorEnv(
            [partial(make, episode) for episode in range(num_episodes)],
            autoreset_mode=AutoresetMode.NEXT_STEP,
        )
        # What it is given must not lead back to `self`, which would never end.
        self._close = weakref.finalize(self, _close_all, self._envs)

    def reset(self, noise: np.ndarray) -> np.ndarray:
        """Starts an episode in each copy.

        Args:
            noise: For CartPole the initial states themselves, `[B, 4]`; for any other
                environment its seeds, integers `[B]`.

        Returns:
            obs: `[B, O]`, float32.

        Raises:
            EnvironmentFault: A copy raises, returns something of another kind, or hangs.
        """
        for env in self._envs.envs:
            env.is_resting = False  # pyright: ignore[reportAttributeAccessIssue]
        if self.spec.env_id != CARTPOLE:
            return self._envs.reset(seed=[int(seed) for seed in noise])[0]
        self._envs.reset()
        states = np.array(noise, dtype=np.float64)
        for env, state in zip(self._envs.envs, states, strict=True):
            env.unwrapped.state = state  # pyright: ignore[reportAttributeAccessIssue]
        return states.astype(np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Plays `action [B]` and returns `(obs [B, O], reward, terminated, truncated [B])`.

        Raises:
            EnvironmentFault: A copy raises, returns something of another kind, or hangs.
        """
        return self._envs.step(action)[:4]

    def close(self) -> None:
        """Closes the copies, which happens by itself when nobody has them any more."""
        self._close()


def _copy(
    spec: GymSpec,
    spaces: tuple[gymnasium.Space, gymnasium.Space],
    deadline: Deadline,
    episode: int,
) -> OneEpisode:
    """One of the copies, by its number."""
    try:
        env = _make(spec.env_id, spec.max_steps)
    except UsageError as error:
        raise RunError(f"copy {episode + 1} of the environment: {error}") from error
    return OneEpisode(env, spec.env_id, spaces, spec.max_steps, episode=episode, deadline=deadline)


def _close_all(envs: SyncVectorEnv) -> None:
    """Closes the copies; what one raises keeps none of the others open, and reaches nobody."""
    for env in envs.envs:
        with suppress(EnvironmentWarning):  # where warnings are errors
            env.close()


def draw_reset(rng: np.random.Generator, env_id: str, num_episodes: int) -> np.ndarray:
    """Reset noise for `GymEpisodes.reset`: CartPole's initial states, other environments' seeds."""
    if env_id == CARTPOLE:
        bound = CARTPOLE_RESET_BOUND
        return rng.uniform(-bound, bound, size=(num_episodes, 4))
    return rng.integers(2**31, size=num_episodes)


def _make(env_id: str, max_steps: int | None) -> gymnasium.Env:
    try:
        return gymnasium.make(env_id, max_episode_steps=max_steps, disable_env_checker=True)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"env_id {env_id!r} needs a package that is missing: {error}") from error
    except ModuleNotFoundError as error:
        module = error.name or env_id.partition(":")[0]
        raise UsageError(
            f"env_id {env_id!r} needs the module {module!r}, which is not installed; "
            "pip install the package that has it"
        ) from error
    except gymnasium.error.NamespaceNotFound as error:
        namespace = env_id.partition("/")[0]
        package, module = PACKAGES.get(namespace, ("the package that has it", "its_module"))
        raise UsageError(
            f"env_id is {env_id!r}, but nothing installed has registered {namespace!r}: "
            f"pip install {package}, and name its module too, as '{module}:{env_id}'"
        ) from error
    except gymnasium.error.UnregisteredEnv as error:
        raise unknown_choice("env_id", env_id, gymnasium.registry, listed=False) from error
    except gymnasium.error.Error as error:
        raise UsageError(f"env_id is {env_id!r}, which Gymnasium cannot make: {error}") from error
    except Exception as error:  # whatever a constructor, or a module's import, may raise
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"env_id is {env_id!r}, which cannot be made: {reason}") from error
