"""Damages a file, in every way, and looks whether it is refused by its name."""

import random
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.reliability.rows import Try
from pgcore.checkpoints import find_checkpoint, read_checkpoint
from pgcore.errors import UsageError

EVERY = 2**16
"""Bytes up to which each is tried, and how many of a larger file are."""
Reader = Callable[[], Any]
"""Reads something and gives what a person would get; a `UsageError` refuses it."""
Fault = Callable[[], Callable[[], None]]
"""Damages a file, and gives what mends it."""


def damages(rng: random.Random, path: Path, others: list[Path]) -> Iterator[tuple[str, list]]:
    """What can happen to a file, and each way in which it does."""
    whole = path.read_bytes()
    places = range(len(whole))
    if len(whole) > EVERY:
        places = sorted(rng.sample(places, EVERY))

    def with_(data: bytes | None) -> Fault:
        def damage() -> Callable[[], None]:
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            return lambda: put_back(path, whole)

        return damage

    def flipped(at: int) -> Fault:
        data = bytearray(whole)
        data[at] ^= rng.randrange(1, 256)
        return with_(bytes(data))

    yield "each byte", [flipped(at) for at in places]
    yield "each length", [with_(whole[:at]) for at in places]
    yield "removed", [with_(None)]
    found = [other.read_bytes() for other in others]
    if others and any(data != whole for data in found):
        yield "another's", [with_(data) for data in found if data != whole]


def put_back(path: Path, data: bytes) -> None:
    """Puts a file back as it was."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def named(folder: Path, fault: Fault, file: str) -> Try:
    """Whether the checkpoint of a damaged file is refused, by the name of either."""
    mend = fault()
    try:
        read_checkpoint(folder)
        return Try(False, "it is read")
    except UsageError as error:
        # Whole files that do not belong together can't tell which of them is the wrong one.
        return Try(file in str(error) or folder.name in str(error), str(error))
    except Exception as error:
        return Try(False, repr(error))
    finally:
        mend()


def passed_over(run: Path, newer: Path, fault: Fault) -> Try:
    """Whether a damaged checkpoint is named, and the one before it used."""
    mend = fault()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = find_checkpoint(run).progress.update
        said = " ".join(str(each.message) for each in caught)
        return Try(found == 1 and newer.name in said, f"update {found} is used; {said}")
    except Exception as error:
        return Try(False, repr(error))
    finally:
        mend()


def exchanged(run: Path, newer: Path, other: Path) -> Iterator[Try]:
    """Another run's checkpoint, whole, is passed over."""
    kept = run / "kept"
    newer.rename(kept)
    shutil.copytree(other / "checkpoints" / newer.name, newer)
    yield passed_over(run, newer, lambda: lambda: None)
    shutil.rmtree(newer)
    kept.rename(newer)


def swapped(run: Path, newer: Path, older: Path) -> Try:
    """Neither is what its name says, so that neither is used."""
    kept = run / "kept"
    for source, target in ((newer, kept), (older, newer), (kept, older)):
        source.rename(target)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return Try(False, f"update {find_checkpoint(run).progress.update} is used")
    except UsageError as error:
        return Try(newer.name in str(error) and older.name in str(error), str(error))
    finally:
        for source, target in ((newer, kept), (older, newer), (kept, older)):
            source.rename(target)


def refused(
    readers: Mapping[str, Reader], faults: list[Fault], file: str, *, must: bool = True
) -> Iterator[Try]:
    """Whether each fault is refused by the file's name, or said, and nothing else is ever read.

    `must` is False where a byte may be another and say the same, such as a space in a JSON file.
    """
    before = {name: reader() for name, reader in readers.items()}
    for number, fault in enumerate(faults):
        mend = fault()
        wrong, num_refused = [], 0
        for name, reader in readers.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    if (found := reader()) != before[name]:
                        wrong.append(f"{name} reads something else: {str(found)[:200]}")
            except (UsageError, UserWarning) as error:
                num_refused += 1
                if file not in str(error):
                    wrong.append(f"{name} does not name it: {error}")
            except Exception as error:
                wrong.append(f"{name}: {error!r}")
        mend()
        if must and not num_refused:
            wrong.append("nobody refuses it")
        yield Try(not wrong, f"number {number}: {'; '.join(wrong)}")
