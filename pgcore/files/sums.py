"""SHA256SUMS: what a run that has ended left, as `sha256sum -c SHA256SUMS` reads it too.

While a run goes on there is none: its checkpoints hold the SHA-256 of what it had written.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from pgcore.errors import UsageError
from pgcore.files.reading import LARGEST_JSON, open_file, read_file, require_size
from pgcore.files.writing import write_atomically

SUMS = "SHA256SUMS"
_LARGEST, _PIECE = 10_000, 2**20
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.]+)")


def digest(path: Path) -> str:
    """The SHA-256 of a plain file, read a piece at a time.

    Raises:
        OSError: As `open_file`, and `Unfit` if it is a JSON file that is too large for one.
    """
    found = hashlib.sha256()
    with open_file(path) as file:
        if path.suffix == ".json":
            require_size(file, LARGEST_JSON)
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def write_sums(folder: Path, digests: Mapping[str, str]) -> None:
    """Writes the digests of files in a folder, by name."""
    lines = [f"{found}  {name}\n" for name, found in digests.items()]
    write_atomically(folder / SUMS, "".join(lines).encode())


def read_sums(folder: Path) -> dict[str, str]:
    """The digests that were written, by name.

    Raises:
        UsageError: They are missing or damaged.
    """
    where = str(folder / SUMS)
    try:
        *lines, rest = read_file(folder / SUMS, _LARGEST).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{where!r} cannot be read: {reason}; without it nobody can tell whether the files of "
            f"a run that has ended are as they were written (if you know that they are, run "
            f"`sha256sum *.json *.csv *.safetensors > {SUMS}` in there)"
        ) from error
    found = [_LINE.fullmatch(line) for line in lines]
    noted = {match[2]: match[1] for match in found if match}
    if rest or not lines or len(noted) != len(lines):
        raise UsageError(f"{where!r} is damaged: a line of it is no SHA-256 and name")
    return noted


def require_sums(folder: Path, *names: str) -> None:
    """Raises a `UsageError` unless these files are what the run left when it ended."""
    where, noted = str(folder / SUMS), read_sums(folder)
    for name in names:
        path = str(folder / name)
        try:
            now = digest(folder / name)
        except OSError as error:
            raise UsageError(f"{path!r} cannot be read: {error.strerror or error}") from error
        if noted.get(name) != now:
            raise UsageError(
                f"{path!r} is damaged, or {where!r} is: it is not what the run left when it ended "
                f"(if you changed it yourself, take {SUMS} away and make it anew)"
            )
