"""Disks that get full, read-only, or lose the folder, while a run writes.

A small disk is mounted for real, which takes root; without it only the limit of a file's size is
tried, as a quota would set it. Afterwards the fault is mended and the run goes on from what is
there; what it ends as is compared to the last bit with a run that met no fault.
"""

import contextlib
import importlib
import io
import os
import random
import resource
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.reliability.rows import Row, Try, tally
from benchmarks.reliability.runs import FRAMEWORKS, differing, options, settings
from pgcore.checkpoints import checkpoint_folders, find_checkpoint
from pgcore.errors import RunError

LAST = 12
"""Updates of a run."""
DISK_BYTES, PAGE = 2**20, 4096
TRIES = {"pgtorch": 20, "pgjax": 4}
"""JAX compiles each run anew."""


def rows(rng: random.Random, folder: Path) -> Iterator[Row]:
    """A full disk, files that may not grow, a disk that gets read-only, a folder that goes."""
    for framework in FRAMEWORKS:
        parent, num = folder / framework, TRIES[framework]
        parent.mkdir()
        train(framework, parent / "whole")
        sizes = [path.stat().st_size for path in (parent / "whole").rglob("*") if path.is_file()]
        limits = [rng.randrange(max(sizes)) for _ in range(num)]  # too small for the largest file
        yield tally(
            f"a file may not grow (EFBIG), {framework}", too_large(framework, limits, parent)
        )
        if os.geteuid() == 0:
            pages = sum(-(-size // PAGE) for size in sizes)  # of the run at its end
            left = [rng.randrange(pages) for _ in range(num)]
            yield tally(f"the disk is full, {framework}", full(framework, left, parent))
        for title, spoil, mend, words in FAULTS:
            if "read-only" in title and os.geteuid() != 0:
                continue
            updates = [rng.randrange(1, LAST - 1) for _ in range(max(2, num // 4))]
            tries = spoiled(framework, updates, parent, spoil, mend, words)
            yield tally(f"{title}, {framework}", tries)


def train(framework: str, folder: Path, callback: Callable[..., None] | None = None) -> None:
    """A run with a checkpoint after each update, in this process."""
    config = settings("reparam", folder, until_update=LAST, checkpoint_every=1)
    importlib.import_module(framework).train(config, callback=callback)


def command(framework: str, folder: Path) -> tuple[int, str]:
    """The same as a command: its exit code and what it says."""
    config = settings("reparam", folder, until_update=LAST, checkpoint_every=1)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = importlib.import_module(f"{framework}.cli").main(["train", *options(config)])
    return code, said.getvalue()


def too_large(framework: str, limits: list[int], parent: Path) -> Iterator[Try]:
    """No file of the run may have more than so many bytes, for a while."""
    limit_before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in limits:
        folder = parent / "limited"
        shutil.rmtree(folder, ignore_errors=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit_before[1]))
        try:
            code, said = command(framework, folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit_before)
        what = f"{limit} bytes"
        yield told(code, said, "File too large", folder, what) or goes_on(
            framework, folder, parent / "whole", what
        )


def full(framework: str, left: list[int], parent: Path) -> Iterator[Try]:
    """A disk on which so many pages are left, until there is space again."""
    disk = parent / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", disk)
    try:
        for pages in left:
            folder, ballast = disk / "run", disk / "ballast"
            ballast.write_bytes(bytes(DISK_BYTES - pages * PAGE))
            code, said = command(framework, folder)
            what = f"{pages} pages"
            seen = told(code, said, "No space left on device", folder, what)
            ballast.unlink()
            yield seen or goes_on(framework, folder, parent / "whole", what)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        subprocess.run(["umount", disk], check=True)


def told(code: int, said: str, reason: str, folder: Path, what: str) -> Try | None:
    """What is wrong with how a command ended, if anything is."""
    # Where the folder cannot even be made, nothing has begun: that is a bad argument.
    expected = 1 if folder.exists() else 2
    partials = [str(path.name) for path in folder.parent.rglob("*.partial")]
    if code != expected or reason not in said or "Traceback" in said or partials:
        return Try(False, f"{what}: exit {code}, {partials}, {said[-300:]!r}")
    return None


def goes_on(framework: str, folder: Path, whole: Path, what: str) -> Try:
    """Goes on from the newest checkpoint, which must be good, and those before it."""
    if not folder.exists() or not checkpoint_folders(folder):
        return Try(True, what)  # it was stopped before its first checkpoint was written
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_checkpoint(folder)
        importlib.import_module(framework).resume(folder, until_update=LAST)
    parts = differing(folder, whole)
    return Try(not parts, f"{what}: other: {', '.join(parts)}")


def spoiled(
    framework: str,
    updates: list[int],
    parent: Path,
    spoil: Callable[[Path], None],
    mend: Callable[[Path], Path | None],
    words: str,
) -> Iterator[Try]:
    """The folder is spoiled after each of these updates, and mended when the run has stopped."""
    for update in updates:
        folder, what = parent / "home" / "run", f"after update {update}"
        shutil.rmtree(parent / "home", ignore_errors=True)
        error = None

        def callback(done, update: int = update, folder: Path = folder) -> None:
            if done.row.update == update:
                spoil(folder)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                train(framework, folder, callback)
            except RunError as stop:
                error = stop
        found = mend(folder)
        if error is None or words not in str(error):
            yield Try(False, f"{what}: {error}")
        elif found is not None:
            yield goes_on(framework, found, parent / "whole", what)
        else:
            yield Try(True, what)


def mount(*arguments: object) -> None:
    """Mounts a disk."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _lock(folder: Path) -> None:
    """Names that are looked up from now on are on a disk that is read-only."""
    mount("--bind", folder, folder)
    mount("-o", "remount,bind,ro", folder)


def _unlock(folder: Path) -> Path:
    subprocess.run(["umount", folder], check=True)
    return folder


def _nothing_is_left(folder: Path) -> None:
    assert not folder.exists(), "the run has made it again"


def _move(folder: Path) -> None:
    """Moves the folder around it, and puts another run in its place."""
    away = folder.parent.with_name("away")
    shutil.rmtree(away, ignore_errors=True)
    folder.parent.rename(away)
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("another run's\n")


def _moved(folder: Path) -> Path:
    assert [path.name for path in folder.iterdir()] == ["metrics.csv"], "the other run was touched"
    assert (folder / "metrics.csv").read_text() == "another run's\n"
    return folder.parent.with_name("away") / folder.name


GONE = "was moved or removed while the run was writing it"
FAULTS = (
    ("the disk gets read-only", _lock, _unlock, "Read-only file system"),
    ("the folder is removed", shutil.rmtree, _nothing_is_left, GONE),
    ("the folder around it is moved, another run in its place", _move, _moved, GONE),
)
