"""`TrainConfig`: everything that decides a training run, for the API and the command line alike.

Every field is checked when a configuration is made; a bad one is a `UsageError`.

>>> TrainConfig(agent="reparam", seed=3).episodes_per_update
8
>>> TrainConfig(discount=1.5)
Traceback (most recent call last):
    ...
pgcore.errors.UsageError: discount is 1.5, accepted is a number from 0 to 1
"""

import dataclasses
import operator
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pgcore.agents import AgentName, find_agent
from pgcore.errors import (
    UsageError,
    is_int,
    is_real,
    require,
    require_count,
    require_seed,
    require_timeout,
    unknown_choice,
)

Scope = Literal["episode", "batch", "none"]
SCOPES: tuple[Scope, ...] = ("episode", "batch", "none")
LARGEST_LEARNING_RATE = 1e37
"""Adam divides by 1 − b1 = 0.1 at first, and float32 ends at 3.4e38."""
ADDED = ("env_timeout",)
"""Settings that older run folders and checkpoints lack; no update depends on them."""
LARGEST_WIDTH = 65_536
MOST_WEIGHTS = 10_000_000
"""Of a hidden layer; more is taken for a slip of the keyboard."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run."""

    agent: AgentName = "reinforce"
    """reinforce: a categorical policy. reparam: the Gaussian reparameterization-trick variant."""
    env_id: str = "CartPole-v1"
    """A Gymnasium environment with a flat Box observation and a Discrete action space."""
    seed: int = 0
    """Seed of the initial weights and of all noise, from 0 to 2^32 - 1."""
    discount: float = 0.99
    """The γ of the discounted returns, from 0 to 1."""
    learning_rate: float = 1e-2
    """Adam's step size."""
    hidden_sizes: tuple[int, ...] = (24, 12)
    """Widths of the hidden layers, from the observation up."""
    episodes_per_update: int = 8
    """Whole episodes that one update learns from, all started together."""
    normalize: Scope = "batch"
    """What the returns are normalised over: each episode (the article), the batch, or nothing."""
    max_grad_norm: float | None = None
    """Clip the gradient to this global norm before Adam; None leaves it as it is."""
    total_timesteps: int = 500_000
    """Stop after the update that reaches this many environment steps, solved or not."""
    solve_threshold: float = 475.0
    """Solved when the last 100 training episodes and the kept policy's evaluation average this."""
    eval_episodes: int = 100
    """Fresh episodes on which a promising policy is evaluated."""
    until_update: int | None = None
    """Pause after this many updates, with a checkpoint from which either framework resumes."""
    checkpoint_every: int = 1000
    """Updates from one checkpoint in the run folder to the next. However a run ends, it makes one
    too, unless it is killed. 0 makes none at all."""
    env_timeout: float = 300.0
    """Seconds that one reset or step of an environment may take; one that takes longer stops the
    run. 0 lets it take for ever."""
    run_dir: str | Path | None = None
    """The run folder to make. On the command line the default is a new one under runs/."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        find_agent(self.agent)
        if self.normalize not in SCOPES:
            raise unknown_choice("normalize", self.normalize, SCOPES)
        is_id = isinstance(self.env_id, str) and bool(self.env_id)
        require(is_id, "env_id", self.env_id, "the id of a Gymnasium environment")
        require_seed(self.seed)
        require_count("episodes_per_update", self.episodes_per_update)
        require_count("eval_episodes", self.eval_episodes)
        is_budget = is_int(self.total_timesteps, 1)
        require(is_budget, "total_timesteps", self.total_timesteps, "an integer of at least 1")
        self._require_pauses()
        require(
            is_real(self.learning_rate) and 0 < self.learning_rate < LARGEST_LEARNING_RATE,
            "learning_rate",
            self.learning_rate,
            f"a number above 0 (and below {LARGEST_LEARNING_RATE:g})",
        )
        require(
            is_real(self.discount) and 0 <= self.discount <= 1,
            "discount",
            self.discount,
            "a number from 0 to 1",
        )
        object.__setattr__(self, "hidden_sizes", as_sizes(self.hidden_sizes))
        require(
            self.max_grad_norm is None or (is_real(self.max_grad_norm) and self.max_grad_norm > 0),
            "max_grad_norm",
            self.max_grad_norm,
            "None or a finite number above 0",
        )
        require(
            self.run_dir is None or (isinstance(self.run_dir, str) and bool(self.run_dir)),
            "run_dir",
            self.run_dir,
            "None or the path of a folder to make",
        )
        require(
            is_real(self.solve_threshold),
            "solve_threshold",
            self.solve_threshold,
            "a finite number",
        )
        require_timeout(self.env_timeout)

    def _require_pauses(self) -> None:
        """Raises a `UsageError` unless the run can pause and go on as it is said."""
        is_update = self.until_update is None or is_int(self.until_update, 1)
        accepted = "None or an integer of at least 1"
        require(is_update, "until_update", self.until_update, accepted)
        is_interval = is_int(self.checkpoint_every, 0)
        accepted = "an integer of at least 0"
        require(is_interval, "checkpoint_every", self.checkpoint_every, accepted)
        goes_on = self.until_update is None or self.checkpoint_every > 0
        accepted = "an integer of at least 1 beside until_update: a pause leaves a checkpoint"
        require(goes_on, "checkpoint_every", self.checkpoint_every, accepted)

    def to_dict(self) -> dict[str, object]:
        """The configuration as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """The configuration that `to_dict` wrote. Unknown and missing keys are `UsageError`s.

        What older versions did not write yet (`ADDED`) has its default.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise unknown_choice("configuration key", key, names)
        missing = [name for name in names if name not in values and name not in ADDED]
        if missing:
            raise UsageError(f"the configuration has no {', '.join(missing)}")
        return cls(**values)


def _plain(value: Any) -> Any:
    """NumPy's scalars and paths as the plain values that JSON can hold."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def as_sizes(value: object) -> tuple[int, ...]:
    """`value` as a tuple of the widths of hidden layers (JSON has lists).

    Raises:
        UsageError: It is no list or tuple of such widths, or an empty one.
    """
    sizes = tuple(map(_plain, value)) if isinstance(value, list | tuple) else ()
    require(
        bool(sizes) and all(is_int(size, 1, LARGEST_WIDTH) for size in sizes),
        "hidden_sizes",
        value,
        f"at least one integer, each at least 1 (and at most {LARGEST_WIDTH:,}), such as (24, 12)",
    )
    num_weights = sum(map(operator.mul, sizes, sizes[1:]))
    accepted = f"widths with at most {MOST_WEIGHTS:,} weights between them"
    require(num_weights <= MOST_WEIGHTS, "hidden_sizes", value, accepted)
    return sizes


PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "article": TrainConfig(episodes_per_update=1, normalize="episode"),
}
"""Named starting points of the command line; options given beside `--preset` win over it."""
