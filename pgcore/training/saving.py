"""What a run leaves while it goes on, and when it ends: policy, rows, checkpoints, result.

A folder that cannot be written to any more stops the run with a `RunError`, whatever the reason.
"""

import errno
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from pgcore.checkpoints import Progress, ResumeWarning, StoredCheckpoint, write_checkpoint
from pgcore.config import TrainConfig
from pgcore.errors import RunError
from pgcore.evaluation.solving import Kept
from pgcore.files.schema import PolicyFile, Tensors, write_policy
from pgcore.runs import RunFolder
from pgcore.runs.metrics import Row, SolvedAt
from pgcore.runs.metrics_file import Position

Freeze = Callable[[Any], Callable[[], Tensors]]
"""`state -> function` that gives the state as it is now, and the random streams, as arrays by
neutral name, however late it is called. (What later steps change has to be copied at once.)"""


class UnsavedWarning(ResumeWarning):
    """A run that stopped for another reason could not save its end either."""


class _Finished(NamedTuple):
    """The end of an update: what a checkpoint is made of."""

    progress: Progress
    kept: Kept
    state: Callable[[], Tensors]


class _CutShort(NamedTuple):
    """The end of an update that a signal may have come into: a row, and no state that it leads to.

    To put it right, everything from the beginning is undone and done again.
    """

    begin: Position
    end: Callable[[], None]


class Saver:
    """Writes one run's folder."""

    def __init__(
        self,
        folder: RunFolder,
        config: TrainConfig,
        system: dict[str, Any],
        tensors: Callable[[Any], Tensors],
        freeze: Freeze | None,
        *,
        saved: int = 0,
    ) -> None:
        """Takes a run's folder.

        Args:
            folder: The folder, new or put back to the end of an update.
            config: The run's settings.
            system: Framework, versions, cores and flags.
            tensors: `params -> arrays` by their neutral name.
            freeze: What gives a checkpoint its state; without it there are none.
            saved: The update whose checkpoint is there already.
        """
        self._folder, self._config, self._system = folder, config, system
        self._tensors = tensors
        self._freeze = freeze if config.checkpoint_every else None
        self._saved = saved
        self._finished: _Finished | None = None
        self._cut_short: _CutShort | None = None

    def keep(self, params: Any) -> None:
        """Writes the best policy so far.

        Raises:
            RunError: It cannot be written.
        """
        with self._writing():
            write_policy(self._folder.policy_path, self._policy_file(params))

    def finish_update(
        self, row: Row, progress: Callable[[Position], Progress], kept: Kept, state: Any
    ) -> None:
        """Adds an update's row, and holds on to its end: what comes after may be stopped half way.

        Args:
            row: What metrics.csv gets.
            progress: What the run has counted, given where metrics.csv ends then.
            kept: The kept policy.
            state: What the next update starts from.

        Raises:
            RunError: The row cannot be written, and nothing of it is; or a checkpoint is due that
                cannot be.
        """
        frozen = None if self._freeze is None else self._freeze(state)

        def end() -> None:
            position = self._folder.append(row)
            if frozen is not None:
                self._finished = _Finished(progress(position), kept, frozen)

        with self._writing():
            self._cut_short = _CutShort(self._folder.position(), end)
            try:
                end()
            except OSError:
                self._cut_short = None
                raise
        self._cut_short = None
        if frozen is not None and row.update % self._config.checkpoint_every == 0:
            self._checkpoint()

    def close(
        self,
        ended: Callable[[BaseException | None], str],
        solved_at: SolvedAt | None,
        kept: Kept | None,
        error: BaseException | None,
    ) -> None:
        """Saves the last finished update and writes down how the run ended.

        Args:
            ended: How, in a word, given what ended it.
            solved_at: What it took, if it was solved.
            kept: The kept policy, if there was an update.
            error: What ended the run, if it did not end by itself.

        Raises:
            RunError: It ended by itself, and this cannot be written. (If something else ended it,
                that is an `UnsavedWarning`.)
        """
        unsaved: BaseException | None = None
        try:
            if self._cut_short is not None:
                with self._writing():
                    self._folder.cut(self._cut_short.begin)
                    self._cut_short.end()
            self._checkpoint()
        except BaseException as failure:  # a second Ctrl-C among them
            unsaved = failure
        ended_by = error or unsaved
        try:
            with self._writing():
                self._folder.finish(ended(ended_by), solved_at, kept, ended_by)
        except RunError as failure:
            self._folder.close()
            unsaved = unsaved or failure
        if unsaved is not None:
            if error is None or not isinstance(unsaved, RunError):
                raise unsaved
            if str(unsaved) != str(error):  # `error` goes on its way
                warnings.warn(str(unsaved), UnsavedWarning, stacklevel=4)

    def _checkpoint(self) -> None:
        """Writes the last finished update as a checkpoint, unless it is written already."""
        last, folder = self._finished, self._folder
        if last is None or last.progress.update == self._saved:
            return
        returns = {"kept.returns": last.kept.evaluation.returns.astype(np.float64)}
        policy = self._policy_file(last.kept.params)
        state = last.state() | returns
        stored = StoredCheckpoint(self._config, self._system, last.progress, state, policy)
        with self._writing("no checkpoint in {} can be written"):
            folder.sync()
            write_checkpoint(folder.path, stored)
        self._saved = last.progress.update

    def _policy_file(self, params: Any) -> PolicyFile:
        return PolicyFile(self._config.agent, self._config.env_id, self._tensors(params))

    @contextmanager
    def _writing(self, what: str = "{} cannot be written to") -> Iterator[None]:
        """Makes one sentence of what the system says."""
        path = self._folder.path
        try:
            self._folder.require_present()  # by now another run's may be there
            yield
        except OSError as error:
            reason = f"{what.format(repr(str(path)))}: {error.strerror or error}"
            if error.errno in (errno.ENOENT, errno.ESTALE, errno.ENOTDIR):
                reason = f"{str(path)!r} was moved or removed while the run was writing it"
            raise RunError(reason) from error
