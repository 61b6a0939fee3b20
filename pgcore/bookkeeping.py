"""One run as the host sees it: its counters, its best policy, its folder, its checkpoints."""

import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from pgcore.checkpoints import Progress, ResumeWarning, StoredCheckpoint, write_checkpoint
from pgcore.config import TrainConfig
from pgcore.errors import RunError, UsageError
from pgcore.evaluation import Evaluation
from pgcore.faults import Played, require_finite, require_finite_metrics
from pgcore.metrics import Row, SolvedAt
from pgcore.metrics_file import Position
from pgcore.reopening import Reopened
from pgcore.runs import RunFolder
from pgcore.schema import PolicyFile, Tensors, write_policy
from pgcore.solving import Kept, SolveRule, highest_return
from pgcore.system import system


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


Freeze = Callable[[Any], Callable[[], Tensors]]
"""`state -> function` that gives the state as it is now, and the random streams, as arrays by
neutral name, however late it is called. (What later steps change has to be copied at once.)"""


class _Finished(NamedTuple):
    """The end of an update: what a checkpoint is made of."""

    progress: Progress
    kept: Kept
    state: Callable[[], Tensors]


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
        self._tensors, self._freeze = tensors, freeze
        self._started = started
        self._system = system(framework)
        self._finished: _Finished | None = None
        self._saved = 0
        self._is_closed = False
        self.solved_at: SolvedAt | None = None
        """What it took to solve the environment; None as long as it is not solved."""
        if resumed is not None:
            self._go_on(resumed)
        elif config.run_dir is None:
            self._folder = None
        else:
            self._folder = RunFolder.create(config, framework)

    def _go_on(self, run: Reopened) -> None:
        stored, rows = run.stored, run.rows
        end = stored.progress.metrics
        try:
            run.folder.rewind(self.config, stored.policy, rows, end, self._system)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"{str(run.folder.path)!r} cannot be written to: {reason}") from error
        self._folder = run.folder
        self.rule, self.history = run.rule, list(rows)
        self.num_updates, self.env_steps, self.episodes = stored.progress[:3]
        self._started -= rows[-1].seconds
        self._saved = self.num_updates

    @property
    def is_over(self) -> bool:
        """Whether it is solved, its budget of environment steps is spent, or it is to pause."""
        until = self.config.until_update
        is_to_pause = until is not None and self.num_updates >= until
        return self.rule.solved or self.env_steps >= self.config.total_timesteps or is_to_pause

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
            RunError: A reward or an observation of the evaluation is not finite, or a checkpoint
                cannot be written.
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
                write_policy(self._folder.policy_path, self._policy_file(params))
            self._finish_update(self._folder.append(row), kept, step.state)
        self.history.append(row)
        if self.rule.solved:
            self.solved_at = SolvedAt(self.env_steps, self.episodes, self.num_updates, row.seconds)
        if self.config.checkpoint_every and self.num_updates % self.config.checkpoint_every == 0:
            self._checkpoint()
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
        """Writes down how the run ended, by itself or by `error`; the first call counts.

        Raises:
            RunError: It ended by itself, but its last checkpoint cannot be written.
        """
        if self._folder is None or self._is_closed:
            return
        self._is_closed = True
        unsaved: BaseException | None = None
        try:
            self._checkpoint()
        except BaseException as failure:  # a second Ctrl-C among them
            unsaved = failure
        ended_by = error or unsaved
        self._folder.finish(self._ended(ended_by), self.solved_at, self.rule.kept, ended_by)
        if unsaved is not None:
            if error is None or not isinstance(unsaved, RunError):
                raise unsaved
            warnings.warn(str(unsaved), ResumeWarning, stacklevel=2)  # `error` goes on its way

    def _ended(self, error: BaseException | None) -> str:
        if error is not None:
            return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        if self.rule.solved:
            return "solved"
        return "budget spent" if self.env_steps >= self.config.total_timesteps else "paused"

    def _finish_update(self, metrics: Position, kept: Kept, state: Any) -> None:
        """Holds on to the end of this update: what comes after it may be stopped half way."""
        if self._freeze is None or self.config.checkpoint_every == 0:
            return
        progress = Progress(
            self.num_updates,
            self.env_steps,
            self.episodes,
            tuple(self.rule.recent),
            self.rule.best_batch_mean,
            kept.update,
            metrics,
        )
        self._finished = _Finished(progress, kept, self._freeze(state))

    def _checkpoint(self) -> None:
        """Writes the last finished update as a checkpoint, unless it is written already."""
        last, folder = self._finished, self._folder
        if folder is None or last is None or last.progress.update == self._saved:
            return
        returns = {"kept.returns": last.kept.evaluation.returns.astype(np.float64)}
        policy = self._policy_file(last.kept.params)
        state = last.state() | returns
        stored = StoredCheckpoint(self.config, self._system, last.progress, state, policy)
        try:
            folder.sync()
            write_checkpoint(folder.path, stored)
        except OSError as error:
            reason = f"{error.strerror or error}"
            raise RunError(
                f"no checkpoint in {str(folder.path)!r} can be written: {reason}"
            ) from error
        self._saved = last.progress.update

    def _evaluation(self, params: Any, batches: list[Played]) -> Evaluation:
        where = f"the evaluation at update {self.num_updates} of {self.config.env_id}"
        episodes = 0
        for played in batches:
            require_finite(played, lambda: self._tensors(params), where, episodes=episodes)
            episodes += len(played.returns)
        returns = np.concatenate([played.returns for played in batches])
        return Evaluation(returns[: self.config.eval_episodes])

    def _policy_file(self, params: Any) -> PolicyFile:
        return PolicyFile(self.config.agent, self.config.env_id, self._tensors(params))
