"""The host side of training: counting, keeping the best policy, knowing when it is solved.

What a step and an evaluation *do* belongs to `pgjax` and `pgtorch`; when to evaluate, what to
keep and when to stop is said here once, so that both frameworks stop by the same rule.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pgcore.config import TrainConfig
from pgcore.errors import RunError
from pgcore.evaluation import Evaluation
from pgcore.metrics import Row, SolvedAt
from pgcore.runs import RunFolder

SOLVED_WINDOW = 100
"""Training episodes that "solved" averages over."""


class Kept(NamedTuple):
    """The best policy so far, by evaluation."""

    params: Any
    evaluation: Evaluation
    update: int
    """The update whose episodes these parameters played (they are what it started from)."""


class Update(NamedTuple):
    """What a training callback is called with after each update."""

    row: Row
    kept: Kept
    state: Any


class Result(NamedTuple):
    """What `train` returns."""

    policy: Any
    params: Any
    """The kept policy's parameters."""
    history: list[Row]
    solved_at: SolvedAt | None
    """None if the budget of environment steps ran out first."""
    evaluation: Evaluation
    """The evaluation by which the kept policy was chosen."""


class StepResult(NamedTuple):
    """What one training step hands to the host."""

    state: Any
    metrics: Any
    """A `Metrics` of the framework, scalars that `float` takes."""
    returns: Any
    """Undiscounted returns of the step's episodes, `[B]`, in order of `b`."""


class SolveRule:
    """Keeps the best policy and says when the environment is solved.

    Whenever a batch's mean return reaches the best so far, the parameters that played it are
    evaluated on fresh episodes, and the best evaluation is kept. Solved: the last 100 training
    episodes average at least the threshold, and so does the kept evaluation. (Policies keep
    oscillating after they first cross the threshold, so neither alone is enough.)
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.recent: deque[float] = deque(maxlen=SOLVED_WINDOW)
        self.best_batch_mean = -math.inf
        self.kept: Kept | None = None

    def record(self, returns: np.ndarray) -> bool:
        """Counts a batch's returns; true if its mean reaches the best batch mean so far."""
        self.recent.extend(float(value) for value in returns)
        mean = float(np.mean(returns))
        promising = mean >= self.best_batch_mean
        self.best_batch_mean = max(self.best_batch_mean, mean)
        return promising

    def offer(self, candidate: Kept) -> None:
        """Keeps `candidate` if it evaluates better than what is kept."""
        if self.kept is None or candidate.evaluation.mean > self.kept.evaluation.mean:
            self.kept = candidate

    @property
    def recent_mean(self) -> float:
        """Mean return of the last 100 training episodes, or of all if fewer."""
        return sum(self.recent) / len(self.recent)

    @property
    def solved(self) -> bool:
        """Whether both averages have reached the threshold, over a full window."""
        return (
            len(self.recent) == SOLVED_WINDOW
            and self.recent_mean >= self.threshold
            and self.kept is not None
            and self.kept.evaluation.mean >= self.threshold
        )


class Trainer(NamedTuple):
    """What the host loop needs of `pgjax` or `pgtorch` for one run."""

    name: str
    step: Callable[[Any], StepResult]
    """One training step."""
    snapshot: Callable[[Any], Any]
    """`state -> params`, parameters that later steps leave alone."""
    evaluate: Callable[[Any, int], np.ndarray]
    """`(params, update) -> returns` of fresh episodes."""
    save_policy: Callable[[Path, TrainConfig, Any], None]
    """`(path, config, params)`."""


def run(
    config: TrainConfig,
    policy: Any,
    state: Any,
    trainer: Trainer,
    *,
    callback: Callable[[Update], None] | None,
    started: float,
) -> Result:
    """Trains until solved or until the budget of environment steps is spent.

    With `config.run_dir` it leaves a run folder, whatever ends it; the best policy so far is in it
    from the first update on.

    Args:
        config: The budget, the threshold, the run folder.
        policy: Handed through to the result.
        state: The framework's `TrainState` to start from.
        trainer: What a step and an evaluation are.
        callback: Called after each update.
        started: `time.perf_counter()` when the run began.

    Raises:
        UsageError: The run folder exists, or it cannot be made.
        RunError: The loss or the gradient is not finite.
    """
    rule, history = SolveRule(config.solve_threshold), []
    folder = RunFolder.create(config, trainer.name) if config.run_dir else None
    ended, solved_at = "failed", None
    try:
        for update in _updates(config, state, trainer, rule, started):
            if folder is not None:
                if update.kept.update == update.row.update:
                    trainer.save_policy(folder.policy_path, config, update.kept.params)
                folder.append(update.row)
            history.append(update.row)
            if callback is not None:
                callback(update)
        if rule.solved:
            last = history[-1]
            solved_at = SolvedAt(last.env_steps, last.episodes, last.update, last.seconds)
        ended = "solved" if solved_at else "budget spent"
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    finally:
        if folder is not None:
            folder.finish(ended, solved_at, rule.kept.evaluation if rule.kept else None)
    assert rule.kept is not None  # total_timesteps is at least 1, so there was an update
    return Result(policy, rule.kept.params, history, solved_at, rule.kept.evaluation)


def _updates(
    config: TrainConfig, state: Any, trainer: Trainer, rule: SolveRule, started: float
) -> Iterator[Update]:
    """Trains, one update at a time, and feeds `rule`."""
    env_steps = episodes = num_updates = 0
    while env_steps < config.total_timesteps and not rule.solved:
        params = trainer.snapshot(state)
        state, metrics, returns = trainer.step(state)
        num_updates += 1
        env_steps += int(metrics.num_steps)
        episodes += int(metrics.num_episodes)
        _require_finite(metrics, num_updates, env_steps)
        if rule.record(returns):
            evaluation = Evaluation(trainer.evaluate(params, num_updates))
            rule.offer(Kept(params, evaluation, num_updates))
        assert rule.kept is not None  # the first batch is the best so far
        row = Row(
            update=num_updates,
            env_steps=env_steps,
            episodes=episodes,
            seconds=time.perf_counter() - started,
            mean_return=float(np.mean(returns)),
            mean_return_100=rule.recent_mean,
            loss=float(metrics.loss),
            entropy=float(metrics.entropy),
            grad_norm=float(metrics.grad_norm),
            best_evaluation=rule.kept.evaluation.mean,
        )
        yield Update(row, rule.kept, state)


def _require_finite(metrics: Any, update: int, env_steps: int) -> None:
    for field in ("loss", "grad_norm"):
        if not math.isfinite(value := float(getattr(metrics, field))):
            raise RunError(
                f"{field} is {value} at update {update} (environment step {env_steps}); "
                "a lower learning_rate or a max_grad_norm usually helps"
            )
