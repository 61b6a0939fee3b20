"""A run that was interrupted, and is gone on with, ends as one that was not, to the last bit.

What an interruption leaves is a copy of the folder as it is at that moment, which is what SIGKILL
leaves too.
"""

import importlib
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.reliability.rows import Row, Try, tally
from benchmarks.reliability.runs import FRAMEWORKS, differing, settings
from pgcore.agents import AGENTS

NUM_SHORT, NUM_LONG, NUM_DRAWN = 12, 300, 6
"""Updates of a short run, of a long one, and how many of the long one's are drawn."""


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """Every update of short runs, and drawn ones of long runs."""
    for framework in FRAMEWORKS:
        for agent in AGENTS:
            every = range(1, NUM_SHORT)
            name = f"interrupted after each update of {NUM_SHORT}, {framework}, {agent}"
            tries = interrupted(framework, agent, every, NUM_SHORT, folder / "short")
            yield tally(name, tries)
            drawn = sorted(rng.sample(range(1, NUM_LONG), NUM_DRAWN))
            name = f"interrupted after one drawn of {NUM_LONG} updates, {framework}, {agent}"
            yield tally(name, interrupted(framework, agent, drawn, NUM_LONG, folder / "long"))


def interrupted(
    framework: str, agent: str, updates: Sequence[int], last: int, folder: Path
) -> Iterator[Try]:
    """Goes on from each of these updates of a run to the last, and compares."""
    package = importlib.import_module(framework)
    whole, left = folder / "whole", folder / "left"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def keep(update) -> None:
        if update.row.update in updates:
            shutil.copytree(whole, left / str(update.row.update))

    # The call back comes after the checkpoint of its update.
    config = settings(agent, whole, until_update=last, checkpoint_every=1)
    package.train(config, callback=keep)
    for update in updates:
        package.resume(left / str(update), until_update=last)
        parts = differing(left / str(update), whole)
        yield Try(not parts, f"after update {update} other: {', '.join(parts)}")
