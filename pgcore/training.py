"""The host side of training: counting, keeping the best policy, writing the run folder.

What a step and an evaluation *do* belongs to `pgjax` and `pgtorch`; when to evaluate, what to
keep and when to stop is said here once, so that both frameworks stop by the same rule, and many
seeds at once by the rule of one.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from pgcore.config import TrainConfig
from pgcore.evaluation import Evaluation
from pgcore.faults import Played, require_finite, require_finite_metrics
from pgcore.metrics import Row, SolvedAt
from pgcore.runs import RunFolder
from pgcore.schema import PolicyFile, Tensors, write_policy
from pgcore.solving import Kept, SolveRule, highest_return, warn_of_threshold


class Update(NamedTuple):
    """What a training callback is called with after each update."""

    row: Row
    kept: Kept
    state: Any
    is_last: bool
    """Whether the run is over: solved, or its budget spent."""


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
    played: Played
    """The episodes that were learned from."""


class Trainer(NamedTuple):
    """What the host loop needs of `pgjax` or `pgtorch` for one run."""

    name: str
    step: Callable[[Any], StepResult]
    """One training step."""
    snapshot: Callable[[Any], Any]
    """`state -> params`, parameters that later steps leave alone."""
    evaluate: Callable[[Any, int], list[Played]]
    """`(params, update) -> batches` of fresh episodes, `config.eval_episodes` at least."""
    tensors: Callable[[Any], Tensors]
    """`params -> arrays` by their neutral name."""


class Run:
    """One run: what it has done so far, its best policy, and its folder if it has one.

    An update is told in two parts, for an evaluation may come between them: `count` takes what
    was played, `conclude` what the evaluation gave. As a context manager it writes down how the
    run ended, whatever ended it.
    """

    def __init__(
        self,
        config: TrainConfig,
        framework: str,
        tensors: Callable[[Any], Tensors],
        *,
        started: float,
    ) -> None:
        """Begins a run, and makes its folder if `config.run_dir` is set.

        Args:
            config: The budget, the threshold, the run folder.
            framework: The name to note in the folder.
            tensors: `params -> arrays` by their neutral name.
            started: `time.perf_counter()` when the run began.

        Raises:
            UsageError: The run folder exists, or it cannot be made.
        """
        self.config = config
        self.rule = SolveRule(config.solve_threshold, highest_return(config.env_id))
        self.history: list[Row] = []
        self.env_steps = self.episodes = self.num_updates = 0
        self._tensors = tensors
        self._started = started
        run_dir = config.run_dir
        self._folder = None if run_dir is None else RunFolder.create(config, framework)
        self._is_closed = False
        self.solved_at: SolvedAt | None = None
        """What it took to solve the environment; None as long as it is not solved."""

    @property
    def is_over(self) -> bool:
        """Whether it is solved, or the budget of environment steps is spent."""
        return self.rule.solved or self.env_steps >= self.config.total_timesteps

    def count(self, params: Callable[[], Any], step: StepResult) -> bool:
        """Counts an update; true if the parameters that played it are worth an evaluation.

        Args:
            params: Gives these parameters, if they have to be looked at.
            step: What the update did.

        Raises:
            RunError: A reward, an observation, a parameter, the loss or its gradient is not finite.
        """
        metrics = step.metrics
        where = f"update {self.num_updates + 1} of {self.config.env_id}"
        require_finite(
            step.played,
            lambda: self._tensors(params()),
            where,
            episodes=self.episodes,
            env_steps=self.env_steps,
        )
        require_finite_metrics(metrics, where, self.env_steps)
        self.num_updates += 1
        self.env_steps += int(metrics.num_steps)
        self.episodes += int(metrics.num_episodes)
        return self.rule.record(step.played.returns)

    def conclude(self, params: Any, step: StepResult, batches: list[Played] | None) -> Update:
        """Finishes an update: keeps the policy if it is the best, and writes its row.

        Args:
            params: What played the update's episodes; asked for if there was an evaluation.
            step: What `count` was given.
            batches: The evaluation's episodes, if there was one.

        Raises:
            RunError: A reward or an observation of the evaluation is not finite.
        """
        if batches is not None:
            self.rule.offer(Kept(params, self._evaluation(params, batches), self.num_updates))
        kept = self.rule.kept
        assert kept is not None  # the first batch is the best so far
        row = Row(
            update=self.num_updates,
            env_steps=self.env_steps,
            episodes=self.episodes,
            seconds=time.perf_counter() - self._started,
            mean_return=float(np.mean(step.played.returns)),
            mean_return_100=self.rule.recent_mean,
            loss=float(step.metrics.loss),
            entropy=float(step.metrics.entropy),
            grad_norm=float(step.metrics.grad_norm),
            best_evaluation=kept.evaluation.mean,
        )
        if self._folder is not None:
            if kept.update == self.num_updates:
                self._save(self._folder.policy_path, params)
            self._folder.append(row)
        self.history.append(row)
        if self.rule.solved:
            self.solved_at = SolvedAt(self.env_steps, self.episodes, self.num_updates, row.seconds)
        return Update(row, kept, step.state, self.is_over)

    def result(self, policy: Any) -> Result:
        """What the run came to; there was at least one update."""
        kept = self.rule.kept
        assert kept is not None
        return Result(policy, kept.params, self.history, self.solved_at, kept.evaluation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """Writes down how the run ended, by itself or by `error`; the first call counts."""
        if self._folder is not None and not self._is_closed:
            self._folder.finish(self._ended(error), self.solved_at, self.rule.kept, error)
        self._is_closed = True

    def _ended(self, error: BaseException | None) -> str:
        if error is not None:
            return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        return "solved" if self.rule.solved else "budget spent"

    def _evaluation(self, params: Any, batches: list[Played]) -> Evaluation:
        where = f"the evaluation at update {self.num_updates} of {self.config.env_id}"
        episodes = 0
        for played in batches:
            require_finite(played, lambda: self._tensors(params), where, episodes=episodes)
            episodes += len(played.returns)
        returns = np.concatenate([played.returns for played in batches])
        return Evaluation(returns[: self.config.eval_episodes])

    def _save(self, path: Path, params: Any) -> None:
        write_policy(path, PolicyFile(self.config.agent, self.config.env_id, self._tensors(params)))


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
        RunError: A reward, an observation, a parameter, the loss or its gradient is not finite.
    """
    warn_of_threshold(config)
    with Run(config, trainer.name, trainer.tensors, started=started) as training:
        while not training.is_over:
            params = trainer.snapshot(state)
            step = trainer.step(state)
            state = step.state
            is_promising = training.count(lambda params=params: params, step)
            batches = trainer.evaluate(params, training.num_updates) if is_promising else None
            update = training.conclude(params, step, batches)
            if callback is not None:
                callback(update)
    return training.result(policy)
