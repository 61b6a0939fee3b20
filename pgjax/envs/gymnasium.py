"""Any Gymnasium environment as an `Env`, stepped on the host."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Int, Num

from pgcore.envs.deadline import Deadline, are_there_any, late_elsewhere
from pgcore.envs.gym import CARTPOLE, GymEpisodes, gym_spec
from pgjax.envs import cartpole
from pgjax.envs.base import Env


class _GymnasiumState(NamedTuple):
    """The environment itself stays on the host; its state here is the step count."""

    time: Int[Array, " B"]


def GymnasiumEnv(
    env_id: str = "CartPole-v1", max_steps: int | None = None, timeout: float | None = None
) -> Env:
    """A Gymnasium environment whose episodes `rollout` can play, jitted or not.

    CartPole's reset noise is its initial state, any other environment's its seeds. The episodes
    live on the host, one set for each number of episodes: `step` plays on from wherever they are,
    not from an older state, and `vmap` is refused. One reset or step of one of them may take
    `timeout` seconds, by default for ever; what takes longer is an `EnvironmentFault`.

    Raises:
        UsageError: Gymnasium can't make it, or its spaces do not fit (see
            `pgcore.envs.gym.gym_spec`).
    """
    spec, deadline = gym_spec(env_id, max_steps), Deadline(timeout)
    hosts: dict[int, GymEpisodes] = {}

    def host(num_episodes: int) -> GymEpisodes:
        if num_episodes not in hosts:
            hosts[num_episodes] = GymEpisodes(spec, num_episodes, deadline)
        return hosts[num_episodes]

    def reset(noise: Num[Array, "B ..."]) -> tuple[_GymnasiumState, Array]:
        num_episodes = noise.shape[0]

        is_wide = noise.dtype == jnp.float64

        def play(noise: Array) -> np.ndarray:
            given = np.asarray(noise)
            return host(num_episodes).reset(_from_halves(given) if is_wide else given)

        shape = jax.ShapeDtypeStruct((num_episodes, spec.obs_dim), jnp.float32)
        sent = jax.lax.bitcast_convert_type(noise, jnp.uint32) if is_wide else noise
        obs = io_callback(_remembering(play), shape, sent, ordered=True)
        return _GymnasiumState(jnp.zeros_like(obs[:, 0], jnp.int32)), obs

    def step(
        state: _GymnasiumState, action: Int[Array, " B"]
    ) -> tuple[_GymnasiumState, Array, Array, Array, Array]:
        num_episodes = action.shape[0]
        dtype = jnp.result_type(float)
        is_wide = dtype == jnp.float64

        def play(action: Array) -> tuple[np.ndarray, ...]:
            obs, reward, *flags = host(num_episodes).step(np.asarray(action))
            with np.errstate(over="ignore"):  # what overflows is found as infinite, by name
                return obs, _halves(reward) if is_wide else reward.astype(dtype), *flags

        obs = jax.ShapeDtypeStruct((num_episodes, spec.obs_dim), jnp.float32)
        flags = jax.ShapeDtypeStruct((num_episodes,), jnp.bool_)
        reward = jax.ShapeDtypeStruct((num_episodes,), dtype)
        if is_wide:
            reward = jax.ShapeDtypeStruct((num_episodes, 2), jnp.uint32)
        obs, reward, *flags = io_callback(
            _remembering(play), (obs, reward, flags, flags), action, ordered=True
        )
        reward = jax.lax.bitcast_convert_type(reward, dtype) if is_wide else reward
        return _GymnasiumState(state.time + 1), obs, reward, *flags

    def draw_reset(key: Array, num_episodes: int) -> Num[Array, "B ..."]:
        if env_id == CARTPOLE:
            return cartpole.draw_reset(key, num_episodes)
        return jax.random.randint(key, (num_episodes,), 0, jnp.iinfo(jnp.int32).max)

    return Env(reset, step, draw_reset, spec.obs_dim, spec.num_actions, spec.max_steps)


# JAX rounds what goes through a callback to 32 bits where x64 is off on the callback's thread,
# which may be another one than the caller's. So numbers of 64 bits travel as pairs of halves.


def _halves(array: np.ndarray) -> np.ndarray:
    """`[..., 2]`, the bits of `array [...]` in float64; `bitcast_convert_type` takes them back."""
    return np.ascontiguousarray(array, np.float64)[..., None].view(np.uint32)


def _from_halves(halves: np.ndarray) -> np.ndarray:
    """The inverse of `_halves`."""
    return np.ascontiguousarray(halves).view(np.float64)[..., 0]


_raised: list[BaseException] = []
_held: list[Callable[[], object]] = []


def _remembering(play: Callable[..., Any]) -> Callable[..., Any]:
    """`play`, with what it raises noted for `_host_errors`."""

    def remembering(*arrays: Array) -> Any:
        try:
            _deliver()
            return play(*arrays)
        except BaseException as error:
            _raised.append(error)
            raise

    return remembering


@contextmanager
def _host_errors() -> Iterator[None]:
    """Raises what an environment raised (Ctrl-C included) and not JAX's report of it."""
    _raised.clear()
    _JAX_REPORTS.addFilter(_is_news)
    try:
        with _signals_held():
            yield
    except jax.errors.JaxRuntimeError:
        if not _raised:
            raise
        error = _raised.pop()
        raise error from error.__cause__
    finally:
        _JAX_REPORTS.removeFilter(_is_news)


_JAX_REPORTS = logging.getLogger("jax._src.callback")
"""Where JAX prints the traceback of what a callback raised."""


def _is_news(_: logging.LogRecord) -> bool:
    """Whether it is not raised in a moment anyway."""
    return not _raised


def _finished(arrays: Any) -> Any:
    """`arrays`, computed.

    JAX may call back to the host from a thread of its own. One that hangs there would be waited for
    by code that no signal ends, so as long as a call is limited it is looked for here.
    """
    while are_there_any() and not all(leaf.is_ready() for leaf in jax.tree.leaves(arrays)):
        if (fault := late_elsewhere()) is not None:
            raise fault
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return jax.block_until_ready(arrays)


_SECONDS_BETWEEN_LOOKS = 0.001


@contextmanager
def _signals_held() -> Iterator[None]:
    """Holds signals that stop a run back until the next environment step, or until the block ends.

    What their handlers raise in the middle of JAX's own callback code would reach the caller as
    a `JaxRuntimeError`. A second signal acts at once: an environment may hang.
    """
    handlers: dict[int, Any] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        if _held:
            _held.clear()
            handlers[number](number, frame)
        _held.append(lambda: handlers[number](number, frame))

    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(signal.getsignal(number)):  # the system's own way needs no help
                handlers[number] = signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) == hold:  # a signal's own handler may have set another
                signal.signal(number, handler)
        _deliver()


def _deliver() -> None:
    """Acts on the signal that is held back, if there is one."""
    if _held:
        _held.pop()()
