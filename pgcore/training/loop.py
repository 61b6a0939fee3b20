"""The host side of training: the loop.

What a step and an evaluation *do* belongs to `pgjax` and `pgtorch`; when to evaluate, what to
keep and when to stop is said here once, so that both frameworks stop by the same rule, and many
seeds at once by the rule of one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pgcore.config import TrainConfig
from pgcore.envs.faults import Played
from pgcore.evaluation.solving import warn_of_threshold
from pgcore.files.schema import Tensors
from pgcore.training.bookkeeping import Freeze, Result, Run, StepResult, Update
from pgcore.training.reopening import Reopened


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
    freeze: Freeze | None = None
    """What gives a checkpoint its state; without it there are none."""


def run(
    config: TrainConfig,
    policy: Any,
    state: Any,
    trainer: Trainer,
    *,
    callback: Callable[[Update], None] | None,
    started: float,
    resumed: Reopened | None = None,
) -> Result:
    """Trains until solved, until the budget of environment steps is spent, or until it is to pause.

    With `config.run_dir` it leaves a run folder, whatever ends it; the best policy so far is in it
    from the first update on.

    Args:
        config: The budget, the threshold, the run folder.
        policy: Handed through to the result.
        state: The framework's `TrainState` to start from.
        trainer: What a step and an evaluation are.
        callback: Called after each update.
        started: `time.perf_counter()` when the run began, or goes on.
        resumed: The run to go on with, in its own folder.

    Raises:
        UsageError: The run folder exists, or it cannot be made.
        RunError: A reward, an observation, a parameter, the loss or its gradient is not finite, the
            environment raises, hangs or returns what it should not, or the folder cannot be
            written to.
    """
    warn_of_threshold(config)
    with Run(
        config,
        trainer.name,
        trainer.tensors,
        started=started,
        freeze=trainer.freeze,
        resumed=resumed,
    ) as training:
        while not training.is_over:
            params = trainer.snapshot(state)
            with training.located():
                step = trainer.step(state)
            state, batches = step.state, None
            if training.count(lambda params=params: params, step):
                with training.located():
                    batches = trainer.evaluate(params, training.num_updates)
            update = training.conclude(params, step, batches)
            if callback is not None:
                callback(update)
    return training.result(policy)
