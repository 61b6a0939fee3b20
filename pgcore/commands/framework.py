"""What the commands need of a framework."""

from collections.abc import Callable
from typing import NamedTuple

from pgcore.training.bookkeeping import Result


class BenchCase(NamedTuple):
    """One training step to be timed."""

    step: Callable[[int], int]
    """`update -> environment steps that were learned from`, once they are."""
    memory_bytes: Callable[[], int | None]
    """What the step needs beyond its arguments and results, if that is known; asked for last."""


class Framework(NamedTuple):
    """What the commands need of `pgjax` or `pgtorch`."""

    train: Callable[..., Result]
    resume: Callable[..., Result]
    train_seeds: Callable[..., list[Result]]
    load_policy: Callable
    make_act: Callable
    bench: Callable[..., BenchCase]
    """`(config, params) -> case`, its steps from these parameters."""
    matmul: Callable[[int], Callable[[], object]]
    """`size -> multiply`, two square matrices of float32."""
