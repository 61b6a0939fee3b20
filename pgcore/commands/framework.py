"""What the commands need of a framework."""

from collections.abc import Callable
from typing import NamedTuple

from pgcore.training.bookkeeping import Result


class Framework(NamedTuple):
    """What the commands need of `pgjax` or `pgtorch`."""

    train: Callable[..., Result]
    resume: Callable[..., Result]
    train_seeds: Callable[..., list[Result]]
    load_policy: Callable
    make_act: Callable
