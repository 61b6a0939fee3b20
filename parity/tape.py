"""The noise that both sides of a comparison read.

No random stream is imitated: a tape is made with NumPy, and each framework gets its arrays.

    >>> tape = NoiseTape("reinforce", num_steps=500, num_episodes=8, num_actions=2, seed=0)
    >>> noise = tape.update(3)
    >>> noise.reset.shape, noise.policy.shape
    ((8, 4), (500, 8, 2))

In JAX it is `pgjax.Noise(*map(jnp.array, noise))`, in PyTorch `pgtorch.Noise(*map(torch.tensor,
noise))`; `tape.update(3, "float32")` is the same noise, rounded once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pgcore.agents import find_agent
from pgcore.config import TrainConfig
from pgcore.envs.gym import CARTPOLE, draw_reset, gym_spec
from pgcore.errors import UsageError, require
from pgcore.files.tensors import read_tensors, to_bytes
from pgcore.files.writing import write_atomically

SCHEMA = "policy-gradient-parity/tape/1"
"""Name and version of the file schema, stored in every file."""

ABOUT = ("schema", "agent", "env_id", "seed", "recorded_with")
"""What a file says about its noise."""
_RESET, _POLICY = 0, 1
"""Which of an episode's two streams."""


class Noise(NamedTuple):
    """All the randomness of B episodes: NumPy's twin of `pgjax.Noise` and `pgtorch.Noise`.

    `reset [B, ...]` is what the environment starts from (CartPole's initial states, other
    environments' seeds), `policy [T, B, A]` the agent's standard noise, Gumbel or Normal.
    """

    reset: np.ndarray
    policy: np.ndarray


@dataclass(frozen=True, eq=False)
class NoiseTape:
    """Noise for as many updates as one asks for, each always T steps long.

    The noise of an episode depends on the seed and on its number in the run, i·B + b, and on
    nothing else: updates may be asked for in any order, two updates of 4 episodes have the noise
    of one of 8, and a longer tape begins as a shorter one does.

    NumPy may change its streams from version to version (so did JAX), so a file holds
    the arrays. A tape that was loaded, or made `from_arrays`, has just the updates that are
    stored in it.

    Attributes:
        agent: `"reinforce"` for standard Gumbel noise, `"reparam"` for standard Normal noise.
        num_steps: T, the longest episode that can be played on it.
        num_episodes: B.
        num_actions: A.
        seed: From 0 to 2^32 - 1; `None` where the noise was drawn elsewhere.
        recorded_with: What drew the noise, for a person who replays it.
        env_id: CartPole-v1 starts from states uniform in ±0.05, `[B, 4]`; any other environment
            from seeds, integers `[B]`.
        stored: The updates' noise, where it is not made from the seed.

    Raises:
        UsageError: A field is not one of these.
    """

    agent: str
    num_steps: int
    num_episodes: int
    num_actions: int
    seed: int | None = 0
    env_id: str = CARTPOLE
    recorded_with: str = f"numpy {np.__version__}"
    stored: Mapping[int, Noise] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        find_agent(self.agent)
        require(bool(self.env_id), "env_id", self.env_id, "the id of a Gymnasium environment")
        for name in ("num_steps", "num_episodes", "num_actions"):
            value = getattr(self, name)
            require(_is_int(value) and value >= 1, name, value, "an integer from 1")
        if self.stored is None:
            is_seed = self.seed is not None and _is_int(self.seed) and 0 <= self.seed < 2**32
            require(is_seed, "seed", self.seed, "an integer from 0 to 2^32 - 1")

    @classmethod
    def for_config(cls, config: TrainConfig) -> "NoiseTape":
        """A tape for a training run's configuration, with its seed.

        Raises:
            UsageError: Gymnasium can't make the environment, or its spaces do not fit.
        """
        spec = gym_spec(config.env_id)
        return cls(
            agent=config.agent,
            num_steps=spec.max_steps,
            num_episodes=config.episodes_per_update,
            num_actions=spec.num_actions,
            seed=config.seed,
            env_id=config.env_id,
        )

    @classmethod
    def from_arrays(
        cls,
        reset: Any,
        policy: Any,
        *,
        agent: str,
        env_id: str = CARTPOLE,
        updates: Iterable[int] | None = None,
        recorded_with: str = "",
    ) -> "NoiseTape":
        """A tape of noise that was drawn elsewhere, by a framework's own generator for example.

        Float32 noise is widened, so that rounding it to float32 gives it back bit by bit.

        Args:
            reset: `[U, B, ...]`, floating or integer.
            policy: `[U, T, B, A]`, floating.
            agent: Whose noise it is.
            env_id: What it starts.
            updates: Their numbers; by default 0 to U − 1.
            recorded_with: What drew it.

        Raises:
            UsageError: The arrays do not fit one another, or hold something not finite.
        """
        reset, policy = np.asarray(reset), np.asarray(policy)
        require(policy.ndim == 4, "policy noise's shape", policy.shape, "[U, T, B, A]")
        num_updates, num_steps, num_episodes, num_actions = policy.shape
        fits = reset.shape[:2] == (num_updates, num_episodes)
        accepted = f"[{num_updates}, {num_episodes}, ...], as policy noise {policy.shape} has it"
        require(fits, "reset noise's shape", reset.shape, accepted)
        is_float = np.issubdtype(policy.dtype, np.floating)
        require(is_float, "policy noise's dtype", str(policy.dtype), "a floating one")
        if not np.issubdtype(reset.dtype, np.integer):
            require(reset.dtype.kind == "f", "reset noise's dtype", str(reset.dtype), "a number's")
            reset = reset.astype(np.float64)
        policy = policy.astype(np.float64)
        numbers = list(range(num_updates)) if updates is None else [int(i) for i in updates]
        distinct = len(set(numbers)) == num_updates == len(numbers) and min(numbers, default=0) >= 0
        require(distinct, "updates", numbers, f"{num_updates} different numbers from 0")
        for name, array in (("reset", reset), ("policy", policy)):
            finite = np.isfinite(array)
            where = f"{name} noise at {_first(~finite)}"
            require(bool(finite.all()), where, _at_first(array, ~finite), "a finite number")
        stored = {
            i: Noise(*map(_frozen, noise)) for i, *noise in zip(numbers, reset, policy, strict=True)
        }
        return cls(agent, num_steps, num_episodes, num_actions, None, env_id, recorded_with, stored)

    def update(self, i: int, dtype: str = "float64") -> Noise:
        """The noise of update i, as arrays of one's own.

        Args:
            i: Its number, from 0.
            dtype: `"float64"`, or `"float32"` for the same noise rounded once. Integers stay.

        Raises:
            UsageError: The tape does not have it, or not in that dtype.
        """
        require(dtype in ("float64", "float32"), "dtype", dtype, "float64 or float32")
        require(_is_int(i) and i >= 0, "update", i, "an integer from 0")
        noise = self._drawn(i) if self.stored is None else self._stored(i)
        return Noise(
            *(
                array.astype(dtype if array.dtype.kind == "f" else array.dtype)  # copies
                for array in noise
            )
        )

    def save(self, path: str | Path, updates: int | Iterable[int] | None = None) -> None:
        """Writes the noise of some updates as a safetensors file, whole or not at all.

        Args:
            path: The file. It holds `reset [U, B, ...]`, `policy [U, T, B, A]` in float64 and
                `updates [U]`; the metadata says what they were drawn with.
            updates: Their numbers, or how many from 0. Needed but for a tape of stored arrays,
                which is saved whole by default.

        Raises:
            UsageError: The tape does not have one of them, or the file cannot be written.
        """
        tensors, about = self.contents(updates)
        try:
            write_atomically(Path(path), to_bytes(tensors, about, seal=True))
        except OSError as error:
            raise UsageError(f"tape {str(path)!r} cannot be written: {error}") from error

    def contents(
        self, updates: int | Iterable[int] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """The arrays that `save` writes, and what it says about them; it raises as `save` does."""
        if updates is None:
            require(self.stored is not None, "updates", None, "their numbers, or how many")
            updates = self.stored or ()
        numbers = list(range(updates)) if isinstance(updates, int) else [int(i) for i in updates]
        require(len(numbers) > 0, "updates", updates, "one at least")
        noise = [self.update(i) for i in numbers]
        tensors = {
            "reset": np.stack([one.reset for one in noise]),
            "policy": np.stack([one.policy for one in noise]),
            "updates": np.array(numbers, np.int64),
        }
        about = {
            "schema": SCHEMA,
            "agent": self.agent,
            "env_id": self.env_id,
            "seed": "" if self.seed is None else str(self.seed),
            "recorded_with": self.recorded_with,
        }
        return tensors, about

    @classmethod
    def load(cls, path: str | Path) -> "NoiseTape":
        """Reads a tape that `save` wrote, here or on another machine: the same bits.

        Raises:
            UsageError: The file is missing, damaged, or no tape.
        """
        where = f"tape {str(path)!r}"
        return cls.from_contents(*read_tensors(Path(path), where, ABOUT), where)

    @classmethod
    def from_contents(
        cls, tensors: Mapping[str, np.ndarray], about: Mapping[str, str], where: str
    ) -> "NoiseTape":
        """The tape that `contents` describes; a `UsageError` calls it `where`, if it is none."""
        schema = about.get("schema")
        require(schema == SCHEMA, f"schema of {where}", schema, SCHEMA)
        names, expected = sorted(tensors), ["policy", "reset", "updates"]
        require(names == expected, f"arrays in {where}", names, ", ".join(expected))
        updates = tensors["updates"]
        is_list = updates.ndim == 1 and np.issubdtype(updates.dtype, np.integer)
        found = f"{updates.dtype} {list(updates.shape)}"
        require(is_list, f"updates in {where}", found, "integers, [U]")
        tape = cls.from_arrays(
            tensors["reset"],
            tensors["policy"],
            agent=about.get("agent", ""),
            env_id=about.get("env_id", ""),
            updates=updates,
            recorded_with=about.get("recorded_with", ""),
        )
        seed = about.get("seed", "")
        is_seed = not seed or (seed.isdecimal() and len(seed) <= len(str(2**32)))
        require(is_seed, f"seed of {where}", seed, "an integer, or none")
        return replace(tape, seed=int(seed) if seed else None)

    def _drawn(self, i: int) -> Noise:
        last = (i + 1) * self.num_episodes
        require(last <= 2**32, "update", i, f"one whose episodes, to {last}, are at most 2^32")
        numbers = range(i * self.num_episodes, last)
        draw_noise = find_agent(self.agent).draw_noise
        resets = [draw_reset(self._generator(n, _RESET), self.env_id, 1)[0] for n in numbers]
        shape = (self.num_steps, self.num_actions)
        policies = [draw_noise(self._generator(n, _POLICY), shape) for n in numbers]
        return Noise(np.stack(resets), np.stack(policies, axis=1))

    def _stored(self, i: int) -> Noise:
        assert self.stored is not None
        numbers = ", ".join(map(str, sorted(self.stored)))
        require(i in self.stored, "update", i, f"one that is stored in this tape: {numbers}")
        return self.stored[i]

    def _generator(self, episode: int, stream: int) -> np.random.Generator:
        """The generator of one of an episode's streams; none shares a stream with another."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(episode, stream))
        return np.random.Generator(np.random.PCG64(sequence))


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _frozen(array: np.ndarray) -> np.ndarray:
    own = array.copy()
    own.setflags(write=False)
    return own


def _first(where: np.ndarray) -> list[int]:
    """The first index at which an array is true."""
    return [int(i[0]) for i in np.nonzero(where)] if where.any() else []


def _at_first(array: np.ndarray, where: np.ndarray) -> Any:
    return array[where][0].item() if where.any() else None
