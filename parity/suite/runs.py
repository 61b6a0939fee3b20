"""The first updates of `train` itself: each is to be played with noise of its own."""

from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np

from parity.suite.family import Direct
from pgcore.config import TrainConfig
from pgcore.training.loop import Update

NUM_UPDATES = 3
NUMBERS = ("loss", "grad_norm")
"""Of continuous first states: those of two updates are equal once in 10¹² or more."""


class _EnoughError(Exception):
    """Ends a run."""


def first_updates(package: str, seed: int) -> Direct:
    """An example: do a run's updates differ, if the policy as good as stands still?"""
    return Direct(
        f"training run, {package}",
        lambda inputs: {name: np.eye(NUM_UPDATES, dtype=bool) for name in NUMBERS},
        lambda inputs: _equal(_updates(package, int(inputs["seed"]))),
        {"seed": np.array(seed)},
    )


def _updates(package: str, seed: int) -> list[Any]:
    config = TrainConfig(
        seed=seed,
        hidden_sizes=(4,),
        episodes_per_update=2,
        eval_episodes=2,
        learning_rate=1e-30,  # no parameter moves, so that the same noise gives the same update
        normalize="batch",
    )
    rows: list[Any] = []

    def note(update: Update) -> None:
        rows.append(update.row)
        if len(rows) == NUM_UPDATES:
            raise _EnoughError

    with suppress(_EnoughError):
        import_module(f"{package}.train").train(config, callback=note)
    return rows


def _equal(rows: list[Any]) -> dict[str, np.ndarray]:
    """Which pairs of updates have the same numbers."""
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in NUMBERS}
    return {name: column[:, None] == column for name, column in columns.items()}
