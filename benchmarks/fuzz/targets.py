"""What is fuzzed: the readers of files, each given any bytes.

A file is read as it is, and then with digests that fit what it holds: otherwise nothing would ever
come past them. What a reader may raise is a `UsageError`; all else is a finding.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reliability import forged
from pgcore.checkpoints import read_checkpoint
from pgcore.errors import UsageError
from pgcore.files.schema import read_policy
from pgcore.files.sealed_json import SEAL, seal
from pgcore.runs import RunFolder, read_framework

CORPUS = Path(__file__).parent.parent.parent / "tests" / "fuzz_corpus"
CHECKPOINT_FILES = ("checkpoint.json", "state.safetensors", "policy.safetensors")


class Target(NamedTuple):
    """A reader.

    Attributes:
        read: Reads what lies in a folder, under the names that `files` gives.
        files: The files that some bytes are, once as they are, and once with fitting digests.
    """

    read: Callable[[Path], Any]
    files: Callable[[bytes], Iterator[dict[str, bytes]]]

    def __call__(self, data: bytes) -> bool:
        """Reads some bytes, and gives whether any reading of them was not refused."""
        is_read = False
        for files in self.files(data):
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    (Path(folder) / name).write_bytes(content)
                try:
                    self.read(Path(folder))
                    is_read = True
                except UsageError:
                    pass
        return is_read


def _alone(name: str) -> Callable[[bytes], Iterator[dict[str, bytes]]]:
    def files(data: bytes) -> Iterator[dict[str, bytes]]:
        yield {name: data}

    return files


def _sealed(seal: Callable[..., bytes]) -> Callable[[bytes], Iterator[dict[str, bytes]]]:
    def files(data: bytes) -> Iterator[dict[str, bytes]]:
        yield {"file": data}
        try:
            yield {"file": seal(*forged.header_of(data))}
        except (ValueError, LookupError, TypeError, RecursionError):
            return  # no header, and so no place for a digest

    return files


def _of_power(data: bytes) -> Iterator[dict[str, bytes]]:
    yield {"power.json": data}
    try:
        table = json.loads(data)
        table.pop(SEAL, None)
        yield {"power.json": seal(table)}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return  # no table, and so no place for a digest


def packed(files: dict[str, bytes]) -> bytes:
    """A checkpoint's files in one: each after its length, in four bytes."""
    contents = [files[name] for name in CHECKPOINT_FILES]
    return b"".join(len(each).to_bytes(4, "little") + each for each in contents)


def unpacked(data: bytes) -> dict[str, bytes]:
    """The files that any bytes are; what is missing is empty."""
    found = {}
    for name in CHECKPOINT_FILES:
        end = 4 + int.from_bytes(data[:4], "little")
        found[name], data = data[4:end], data[end:]
    return found


def _of_checkpoint(data: bytes) -> Iterator[dict[str, bytes]]:
    files = unpacked(data)
    yield files
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            forged.checkpoint(Path(folder))
        except (ValueError, LookupError, TypeError, RecursionError):
            return  # no table, and so no place for a digest
        yield {name: (Path(folder) / name).read_bytes() for name in files}


def _recording(folder: Path) -> None:
    import parity

    found = parity.Recording.load(folder / "file")
    str(found)
    str(parity.compare(found, found))


def _tape(folder: Path) -> None:
    import parity

    tape = parity.NoiseTape.load(folder / "file")
    for update in tape.stored or ():
        tape.update(update)


def _weights(folder: Path) -> None:
    from parity.convert.files import convert_file

    str(convert_file(folder / "file", folder / "out").layout)


def _policy(folder: Path) -> None:
    found = read_policy(folder / "file")
    str((found.layers, found.obs_dim, found.num_actions, found.hidden_sizes))


def _power(folder: Path) -> None:
    from parity.mutation.power import remembered

    remembered(folder / "power.json", ["pytest"])


TARGETS = {
    "checkpoint": Target(read_checkpoint, _of_checkpoint),
    "config": Target(RunFolder.open, _alone("config.json")),
    "metrics": Target(lambda folder: RunFolder(folder, None).read_rows(), _alone("metrics.csv")),  # pyright: ignore[reportArgumentType]
    "policy": Target(_policy, _sealed(forged.tensor_file)),
    "power": Target(_power, _of_power),
    "recording": Target(_recording, _sealed(forged.recording)),
    "system": Target(read_framework, _alone("system.json")),
    "tape": Target(_tape, _sealed(forged.tensor_file)),
    "weights": Target(_weights, _sealed(forged.tensor_file)),
}
"""The readers, by name."""


def corpus(name: str) -> list[Path]:
    """The kept inputs of a target."""
    return sorted((CORPUS / name).glob("*"))
