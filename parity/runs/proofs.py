"""Runs of the project's own agents, played until they are solved, with their learning curves."""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from parity.runs.agents import agent_run
from parity.runs.driver import Mode, lockstep
from parity.runs.reports import LockstepReport
from parity.runs.steps import Reference
from parity.tolerance import cast
from pgcore.config import TrainConfig
from pgcore.evaluation.solving import SOLVED_WINDOW

NO_LIMIT = 1_000_000
"""Updates; a run ends by its budget of environment steps long before."""


class Progress(NamedTuple):
    """How far a run is."""

    update: int
    env_steps: int
    episodes: int
    recent_mean: float


class Proof(NamedTuple):
    """A run, and the mean return of the episodes of each update.

    `solved` says whether the last 100 training episodes of the reference average the threshold;
    the evaluation of a kept policy is no part of such a run.
    """

    report: LockstepReport
    returns: np.ndarray
    candidate_returns: np.ndarray
    env_steps: int
    solved: bool


class Led(NamedTuple):
    """Where the reference is after so many updates that it made alone.

    Attributes:
        state: Its state.
        updates: How many it has made.
        env_steps: How many steps it has played.
        recent: The returns of its last episodes, as many as decide whether it is solved.
    """

    state: Any
    updates: int
    env_steps: int
    recent: tuple[float, ...]


START = Led(None, 0, 0, ())
"""Before the first update, in the state that the config draws."""


def lead(config: TrainConfig, updates: int, led: Led = START) -> Led:
    """Plays the reference alone, in float64, until it has made so many updates or its run is over.

    So a long run is proven in pieces: `prove(config, "resync", updates=1_000, led=led)` compares
    the thousand that follow.
    """
    tally = _Tally(config, led)
    run = agent_run(config, state=led.state, played=led.updates)
    state, number = run.state, 0
    while led.updates + number < updates and not tally.is_over:
        reference = Reference(run.reference_step, state, run.inputs(number))
        done = reference.done(cast(reference.arrays, np.float64))
        state, number = done.state, number + 1
        tally.add(done.outputs)
    return Led(state, led.updates + number, tally.env_steps, (*tally.recent,))


class _Tally:
    """What decides whether a run is over."""

    def __init__(self, config: TrainConfig, led: Led) -> None:
        self._config = config
        self.env_steps = led.env_steps
        self.recent = deque(led.recent, maxlen=SOLVED_WINDOW)

    def add(self, outputs: Any) -> None:
        """Takes in the reference's outputs of one update."""
        played = outputs["act"]
        self.recent.extend((played["reward"] * played["mask"]).sum(0).tolist())
        self.env_steps += int(outputs["metrics"]["num_steps"])

    @property
    def is_solved(self) -> bool:
        """Whether the last episodes average the threshold."""
        mean = float(np.mean(self.recent)) if self.recent else -np.inf
        return len(self.recent) == SOLVED_WINDOW and mean >= self._config.solve_threshold

    @property
    def is_over(self) -> bool:
        """Whether it is solved, or its budget is spent."""
        return self.is_solved or self.env_steps >= self._config.total_timesteps


def prove(
    config: TrainConfig,
    mode: Mode,
    dtype: str = "float64",
    *,
    updates: int | None = None,
    tell: Callable[[Progress], None] | None = None,
    led: Led = START,
    **options: Any,
) -> Proof:
    """Runs one of our agents until it is solved, its budget is spent, or so many updates are made.

    Args:
        config: The agent, its settings and its budget.
        mode: As in `parity.lockstep`.
        dtype: `"float64"` or `"float32"`.
        updates: How many at most.
        tell: Called after each update.
        led: What the reference did before, which is not compared: in float64, from `lead`.
        options: As `parity.runs.agents.agent_run` has them.
    """
    tally = _Tally(config, led)
    returns: list[float] = []
    candidate_returns: list[float] = []
    episodes = 0
    if led is not START:
        options |= {"state": led.state, "played": led.updates}

    def note(update: int, outputs: Any, found: Any = None) -> None:
        nonlocal episodes
        metrics = outputs["metrics"]
        tally.add(outputs)
        returns.append(float(metrics["mean_return"]))
        if found is not None:
            candidate_returns.append(float(found["metrics"]["mean_return"]))
        episodes += int(metrics["num_episodes"])
        if tell is not None:
            tell(Progress(update, tally.env_steps, episodes, float(np.mean(tally.recent))))

    report = lockstep(
        **agent_run(config, dtype, **options)._asdict(),
        updates=updates or NO_LIMIT,
        mode=mode,
        until=lambda _: tally.is_over,
        callback=note,
        name=f"{config.agent}, seed {config.seed}, {mode} in {dtype}",
    )
    returned, found = np.array(returns), np.array(candidate_returns)
    return Proof(report, returned, found, tally.env_steps, tally.is_solved)
