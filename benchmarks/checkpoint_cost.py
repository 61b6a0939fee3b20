"""What checkpoints cost a run: the time of one, and of what is done after every update for it.

    python -m benchmarks.checkpoint_cost

Each framework trains 100 updates of the defaults into a temporary folder under the working
directory, whose disk is the one that counts. Medians; the share is that of a checkpoint every
`checkpoint_every` updates in the time of an update.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pgjax
import pgtorch
from pgcore.checkpoints import find_checkpoint, write_checkpoint

NUM_CHECKPOINTS, NUM_FREEZES, NUM_UPDATES = 50, 500, 100


def main() -> None:
    """Prints a line for each framework."""
    print("framework   update ms   checkpoint ms   each update's part us   share")
    for framework in (pgjax, pgtorch):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            measure(framework, Path(folder) / "run")


def measure(framework, run_dir: Path) -> None:
    config = pgjax.TrainConfig(until_update=NUM_UPDATES, run_dir=run_dir, solve_threshold=500)
    seconds = [row.seconds for row in framework.train(config).history]
    update = float(np.median(np.diff(seconds)))
    stored = find_checkpoint(run_dir)
    numbers = iter(range(NUM_UPDATES + 1, NUM_UPDATES + 1 + NUM_CHECKPOINTS))

    def save() -> None:
        progress = stored.progress._replace(update=next(numbers))
        write_checkpoint(run_dir, stored._replace(progress=progress))

    state = framework.load_checkpoint(run_dir).state
    checkpoint = median_seconds(save, NUM_CHECKPOINTS)
    # JAX's arrays never change, so that all of it waits until a checkpoint is written.
    freeze = 0.0
    if framework is pgtorch:
        freeze = median_seconds(lambda: framework.state_to_tensors(state), NUM_FREEZES)
    share = (checkpoint / config.checkpoint_every + freeze) / update
    name = framework.__name__
    print(
        f"{name:9} {1e3 * update:11.1f} {1e3 * checkpoint:15.1f} {1e6 * freeze:23.0f} {share:7.2%}"
    )


def median_seconds(action: Callable[[], object], times: int) -> float:
    """The median time of one call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
