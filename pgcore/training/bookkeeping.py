"""One run as the host sees it: its counters, its best policy, its folder, its checkpoints."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from pgcore.checkpoints import Progress
from pgcore.config import TrainConfig
from pgcore.envs.deadline import when_stuck
from pgcore.envs.faults import (
    EnvironmentFault,
    Played,
    located,
    require_finite,
    require_finite_metrics,
)
from pgcore.errors import RunError, UsageError
from pgcore.evaluation import Evaluation
from pgcore.evaluation.solving import Kept, SolveRule, highest_return
from pgcore.files.schema import Tensors
from pgcore.runs import RunFolder
from pgcore.runs.metrics import Row, SolvedAt
from pgcore.runs.metrics_file import Position
from pgcore.runs.system import system
from pgcore.training.reopening import Reopened
from pgcore.training.saving import Freeze as Freeze
from pgcore.training.saving import Saver


class Update(NamedTuple):
    """What a training callback is called with after each update."""

    row: Row
    kept: Kept
    state: Any
    is_last: bool
    """Whether the run is over: solved, its budget spent, or paused."""


class Result(NamedTuple):
    """What `train` returns."""

    policy: Any
    params: Any
    """The kept policy's parameters."""
    history: list[Row]
    solved_at: SolvedAt | None
    """None if it is not solved: its budget of environment steps ran out, or it is paused."""
    evaluation: Evaluation
    """The evaluation by which the kept policy was chosen."""


class StepResult(NamedTuple):
    """What one training step hands to the host."""

    state: Any
    metrics: Any
    """A `Metrics` of the framework, scalars that `float` takes."""
    played: Played
    """The episodes that were learned from."""


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
        freeze: Freeze | None = None,
        resumed: Reopened | None = None,
    ) -> None:
        """Begins a run, and makes its folder if `config.run_dir` is set; or goes on with one.

        Args:
            config: The budget, the threshold, the run folder.
            framework: The name to note in the folder.
            tensors: `params -> arrays` by their neutral name.
            started: `time.perf_counter()` when the run began, or goes on.
            freeze: What gives a checkpoint its state; without it there are none.
            resumed: The run to go on with, in its own folder.

        Raises:
            UsageError: The run folder exists, or it cannot be made.
        """
        self.config = config
        self.rule = SolveRule(config.solve_threshold, highest_return(config.env_id))
        self.history: list[Row] = []
        self.env_steps = self.episodes = self.num_updates = 0
        self._tensors = tensors
        self._started = started
        self._system = system(framework)
        self._saver: Saver | None = None
        self._is_evaluating = self._is_closed = False
        self._guard = when_stuck(self._give_up)
        self.solved_at: SolvedAt | None = None
        """What it took to solve the environment; None as long as it is not solved."""
        if resumed is not None:
            folder = self._go_on(resumed)
        elif config.run_dir is None:
            return
        else:
            folder = RunFolder.create(config, framework)
        self._saver = Saver(folder, config, self._system, tensors, freeze, saved=self.num_updates)

    def _go_on(self, run: Reopened) -> RunFolder:
        stored, rows = run.stored, run.rows
        end = stored.progress.metrics
        try:
            run.folder.rewind(self.config, stored.policy, rows, end, self._system)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"{str(run.folder.path)!r} cannot be written to: {reason}") from error
        self.rule, self.history = run.rule, list(rows)
        self.num_updates, self.env_steps, self.episodes = stored.progress[:3]
        self._started -= rows[-1].seconds
        return run.folder

    @property
    def is_over(self) -> bool:
        """Whether it is solved, its budget of environment steps is spent, or it is to pause."""
        until = self.config.until_update
        is_to_pause = until is not None and self.num_updates >= until
        return self.rule.solved or self.env_steps >= self.config.total_timesteps or is_to_pause

    def located(self) -> AbstractContextManager[None]:
        """Says of what an environment does meanwhile in which update, or evaluation, it is.

        Raises:
            RunError: For the `EnvironmentFault` that it was.
        """
        return located(self._where, self._before)

    @property
    def _where(self) -> str:
        """What is under way."""
        env_id = self.config.env_id
        if self._is_evaluating:
            return f"the evaluation at update {self.num_updates} of {env_id}"
        return f"update {self.num_updates + 1} of {env_id}"

    @property
    def _before(self) -> int:
        """Episodes that were played before it."""
        return 0 if self._is_evaluating else self.episodes

    def count(self, params: Callable[[], Any], step: StepResult) -> bool:
        """Counts an update; true if the parameters that played it are worth an evaluation.

        Args:
            params: Gives these parameters, if they have to be looked at.
            step: What the update did.

        Raises:
            RunError: A reward, an observation, a parameter, the loss or its gradient is not finite.
        """
        metrics = step.metrics
        where = self._where
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
        self._is_evaluating = self.rule.record(step.played.returns)
        return self._is_evaluating

    def conclude(self, params: Any, step: StepResult, batches: list[Played] | None) -> Update:
        """Finishes an update: keeps the policy if it is the best, and writes its row.

        Args:
            params: What played the update's episodes; asked for if there was an evaluation.
            step: What `count` was given.
            batches: The evaluation's episodes, if there was one.

        Raises:
            RunError: A reward or an observation of the evaluation is not finite, or the folder
                cannot be written to.
        """
        if batches is not None:
            self.rule.offer(Kept(params, self._evaluation(params, batches), self.num_updates))
        self._is_evaluating = False
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
        self.history.append(row)
        if self.rule.solved:
            self.solved_at = SolvedAt(self.env_steps, self.episodes, self.num_updates, row.seconds)
        if self._saver is not None:
            if kept.update == self.num_updates:
                self._saver.keep(params)
            self._saver.finish_update(row, lambda end: self._progress(kept, end), kept, step.state)
        return Update(row, kept, step.state, self.is_over)

    def result(self, policy: Any) -> Result:
        """What the run came to; there was at least one update."""
        kept = self.rule.kept
        assert kept is not None
        return Result(policy, kept.params, self.history, self.solved_at, kept.evaluation)

    def __enter__(self) -> Self:
        self._guard.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._guard.__exit__(None, None, None)
        self.close(error)

    def _give_up(self, fault: RunError) -> None:
        """Ends the run, from another thread, for a call of its environment that hangs."""
        is_located = isinstance(fault, EnvironmentFault)
        self.close(fault.within(self._where, self._before) if is_located else fault)

    def close(self, error: BaseException | None = None) -> None:
        """Writes down how the run ended, by itself or by `error`; the first call counts.

        Raises:
            RunError: It ended by itself, but its folder cannot be written to.
        """
        if self._saver is not None and not self._is_closed:
            self._is_closed = True
            self._saver.close(self._ended, self.solved_at, self.rule.kept, error)

    def _ended(self, error: BaseException | None) -> str:
        if error is not None:
            return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        if self.rule.solved:
            return "solved"
        return "budget spent" if self.env_steps >= self.config.total_timesteps else "paused"

    def _progress(self, kept: Kept, end: Position) -> Progress:
        return Progress(
            self.num_updates,
            self.env_steps,
            self.episodes,
            tuple(self.rule.recent),
            self.rule.best_batch_mean,
            kept.update,
            end,
        )

    def _evaluation(self, params: Any, batches: list[Played]) -> Evaluation:
        where = f"the evaluation at update {self.num_updates} of {self.config.env_id}"
        episodes = 0
        for played in batches:
            require_finite(played, lambda: self._tensors(params), where, episodes=episodes)
            episodes += len(played.returns)
        returns = np.concatenate([played.returns for played in batches])
        return Evaluation(returns[: self.config.eval_episodes])
