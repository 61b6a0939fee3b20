"""Where a run's folder is, and how it is made: all of it or nothing."""

import datetime
import os
import secrets
import shutil
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from pgcore.config import TrainConfig
from pgcore.errors import UsageError


def make_folder(path: Path, files: dict[str, bytes]) -> None:
    """Makes a folder with these files in it, all or nothing: no parent folder is left either.

    Raises:
        UsageError: There is something at `path` already, or it cannot be made.
    """
    require_absent(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    made = list(takewhile(lambda parent: not os.path.lexists(parent), path.parents))
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            (partial / name).write_bytes(data)
        partial.rename(path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # one that was not made, or that another run has filled meanwhile
            for parent in made:
                parent.rmdir()
        if isinstance(error, OSError):
            require_absent(path)  # another process was faster
            reason = error.strerror or error
            raise UsageError(f"run_dir {str(path)!r} cannot be made: {reason}") from error
        raise


def default_run_dir(
    config: TrainConfig, framework: str, seeds: tuple[int, ...] | None = None
) -> str:
    """A path under runs/ that no other run has."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    which = f"seed{config.seed}" if seeds is None else f"{len(seeds)}seeds"
    return str(Path("runs") / f"{framework}-{config.agent}-{which}-{now}")


def require_absent(path: Path) -> None:
    """Raises a `UsageError` if there is something at `path`: runs are not mixed."""
    if os.path.lexists(path):  # a link that leads nowhere is something too
        raise UsageError(f"run_dir {str(path)!r} exists; give a path that does not (--run-dir)")
