"""Files and folders that are either whole or absent."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, so that a crash leaves the old file or the new one, never a part.

    A write that fails leaves nothing beside them.

    Raises:
        OSError: The file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        _write_synced(partial, data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Makes the folder `path` with these files, on the disk before its name is.

    A crash leaves the whole folder or none (and perhaps `.NAME.partial` beside it). What was at
    `path` before is replaced. One process at a time may do this.

    Raises:
        OSError: It cannot be written. Nothing new is left.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if partial.is_symlink():
            partial.unlink()
        partial.mkdir()
        for name, data in files.items():
            _write_synced(partial / name, data)
        sync_folder(partial)
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        partial.rename(path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def sync_folder(path: Path) -> None:
    """Makes sure that the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:  # a link that somebody put there is not written through
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
