"""metrics.csv while a run writes it: counted, hashed, and locked against a second process."""

import csv
import errno
import fcntl
import hashlib
import io
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pgcore.errors import UsageError
from pgcore.runs.metrics import CSV_COLUMNS, Row


class Position(NamedTuple):
    """How far metrics.csv was written at some time, and the SHA-256 of that much of it."""

    num_bytes: int
    sha256: str


class MetricsFile:
    """metrics.csv, open to be appended to. The system lets go of the lock when a process ends."""

    def __init__(self, file: io.FileIO, path: Path) -> None:
        self._file, self._path = file, path
        self._num_bytes = 0
        self._hash = hashlib.sha256()
        _lock(file, path)

    @classmethod
    def create(cls, path: Path) -> "MetricsFile":
        """A new one, with its header."""
        metrics = cls(path.open("x+b", buffering=0), path)
        metrics._write(CSV_COLUMNS.values())
        return metrics

    @classmethod
    def open(cls, path: Path) -> "MetricsFile":
        """One that is there; `rewind` says from where it goes on.

        Raises:
            UsageError: It cannot be opened, is a link (it may lead anywhere) or no file, or
                another process has it.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise UsageError(f"{str(path)!r} cannot be written to: it is no file")
            return cls(os.fdopen(descriptor, "r+b", buffering=0), path)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"{str(path)!r} cannot be written to: {reason}") from error

    @property
    def position(self) -> Position:
        """How far it is written."""
        return Position(self._num_bytes, self._hash.hexdigest())

    def append(self, row: Row) -> None:
        """Adds a row.

        Raises:
            OSError: It cannot be written, and nothing of it is; or the file is no longer there.
        """
        self.require_present()
        self._write(getattr(row, name) for name in CSV_COLUMNS)

    def require_present(self) -> None:
        """Raises an `OSError` if the file has another name by now, or none.

        What is written would succeed all the same, and be lost.
        """
        if not os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path))

    def rewind(self, position: Position) -> None:
        """Cuts off what was written after `position`."""
        self._file.seek(0)
        self._hash = hashlib.sha256(self._file.read(position.num_bytes))
        self._num_bytes = position.num_bytes
        self._file.truncate(position.num_bytes)
        self._file.seek(position.num_bytes)

    def sync(self) -> None:
        """Makes sure that what was written is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file, which unlocks it."""
        self._file.close()

    def _write(self, values: object) -> None:
        line = io.StringIO(newline="")
        csv.writer(line).writerow(values)  # pyright: ignore[reportArgumentType]
        data = line.getvalue().encode()
        try:
            left = memoryview(data)
            while left:  # a disk that gets full takes a part
                left = left[self._file.write(left) :]
        except BaseException:
            with suppress(OSError):  # a line is there or it is not
                self._file.truncate(self._num_bytes)
                self._file.seek(self._num_bytes)
            raise
        self._num_bytes += len(data)
        self._hash.update(data)


def _lock(file: io.FileIO, path: Path) -> None:
    """Raises a `UsageError` if another process has locked the file."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UsageError(
            f"{str(path)!r} is being written by another process, which trains this run; "
            "wait for its end, or stop it"
        ) from None
    except OSError:
        pass  # a file system without locks: nobody can be kept out there
