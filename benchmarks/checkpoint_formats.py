"""Our checkpoints beside Orbax and plain safetensors: size, time, and what becomes of damage.

    python -m benchmarks.checkpoint_formats            # prints the table
    python -m benchmarks.checkpoint_formats --save     # keeps it, and puts it in the page

Each holds the same arrays: the state of a run with the default settings after a few updates. Bytes
are drawn from all files of a checkpoint, one at a time is flipped in its lowest bit; files are cut
at drawn lengths. `silent` is a checkpoint that is read without a word and holds other numbers.
"""

import logging
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp
import tyro
from safetensors.numpy import load_file, save_file

import pgjax
from benchmarks import results
from benchmarks.reliability.runs import settings
from pgcore.checkpoints import (
    StoredCheckpoint,
    checkpoint_folders,
    find_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from pgcore.files.schema import Tensors

PAGE, NAME = "docs/reliability.md", "checkpoint_formats"
NUM_SAVES, NUM_DAMAGES = 20, 200
HEADER = ("", "files", "bytes", "save ms", "load ms", "flipped: silent", "cut: silent")


class Format(NamedTuple):
    """A way to store a state."""

    name: str
    save: Callable[[Path, Tensors], None]
    """Into a folder that is not there yet."""
    load: Callable[[Path], Tensors]


@dataclass(frozen=True)
class Measure:
    """Measure ways to store a checkpoint."""

    save: bool = False
    """Keep the figures, and put the table in the page."""
    seed: int = 0
    """Of the bytes and lengths that are drawn."""


def formats(stored: StoredCheckpoint) -> Iterator[Format]:
    """Ours, which stores the counters and the kept policy too, and the others."""

    def save_ours(folder: Path, tensors: Tensors) -> None:
        folder.mkdir()
        write_checkpoint(folder, stored._replace(state=tensors))

    def load_ours(folder: Path) -> Tensors:
        return read_checkpoint(next(iter(checkpoint_folders(folder).values()))).state

    def save_plainly(folder: Path, tensors: Tensors) -> None:
        folder.mkdir()
        save_file(tensors, folder / "state.safetensors")

    yield Format("ours", save_ours, load_ours)
    yield Format("safetensors", save_plainly, lambda path: load_file(path / "state.safetensors"))
    orbax = ocp.PyTreeCheckpointer()
    yield Format("Orbax", orbax.save, orbax.restore)


def measure(each: Format, tensors: Tensors, folder: Path, rng: random.Random) -> list[str]:
    """A format's line of the table."""
    saved, loaded = [], []
    for number in range(NUM_SAVES):
        path = folder / str(number)
        saved.append(_seconds(lambda path=path: each.save(path, tensors)))
        loaded.append(_seconds(lambda path=path: each.load(path)))
    files = sorted(path for path in (folder / "0").rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    flipped = cut = 0
    for _ in range(NUM_DAMAGES):
        file = rng.choices(files, sizes)[0]
        data = file.read_bytes()
        place = rng.randrange(len(data))
        flip = bytearray(data)
        flip[place] ^= 1
        with _in_its_place(file, bytes(flip)):
            flipped += _is_silent(each, folder / "0", tensors)
        with _in_its_place(file, data[:place]):
            cut += _is_silent(each, folder / "0", tensors)
    times = (f"{1e3 * statistics.median(seconds):.1f}" for seconds in (saved, loaded))
    silent = (f"{number} of {NUM_DAMAGES}" for number in (flipped, cut))
    return [each.name, str(len(files)), f"{sum(sizes):,}", *times, *silent]


@contextmanager
def _in_its_place(file: Path, data: bytes) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(before)


def _is_silent(each: Format, folder: Path, tensors: Tensors) -> bool:
    """Whether it is read without a word and holds something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = each.load(folder)
    except Exception:  # whatever it raises, it has seen it
        return False
    same_names = found.keys() == tensors.keys()
    return not same_names or any(
        np.asarray(found[name]).tobytes() != array.tobytes() for name, array in tensors.items()
    )


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def table() -> str:
    """What was kept, as the table of the page."""
    return results.table(HEADER, results.load(NAME)["lines"])


def main(options: Measure) -> None:
    """Measures each format, prints the table, and keeps it if it is to."""
    logging.disable()  # what Orbax reports beside what it raises
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=".") as name:  # the disk of the working directory
        folder = Path(name).resolve()  # Orbax takes no other
        config = settings("reinforce", folder / "run", hidden_sizes=(24, 12), until_update=3)
        pgjax.train(config)
        stored = find_checkpoint(folder / "run")
        lines = []
        for each in formats(stored):
            path = folder / each.name
            path.mkdir()
            lines.append(measure(each, stored.state, path, rng))
            shutil.rmtree(path)
    print(results.table(HEADER, lines))
    if options.save:
        results.save(NAME, "python -m benchmarks.checkpoint_formats --save", {"lines": lines})
        results.put_table(PAGE, NAME, table())


if __name__ == "__main__":
    main(tyro.cli(Measure))
