"""What somebody could put in the place of a file that a person then reads."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reliability import forged
from benchmarks.reliability.payloads import (
    STEERING,
    Payload,
    bombs,
    headers,
    json_bombs,
    not_files,
    pickles,
    sparse,
)

MODULE = "evil_environment"


class Attack(NamedTuple):
    """A hostile file.

    Attributes:
        kind: The row of the table that it is counted in.
        name: What it is.
        readers: Those whom it is meant for (see `hostile.READERS`).
        place: Puts it into a folder of good files.
        goes_on: It is no fault: what was asked for is done, and the attack leaves no trace.
    """

    kind: str
    name: str
    readers: tuple[str, ...]
    place: Callable[[Path], object]
    goes_on: bool = False


FILES: dict[str, tuple[str, ...]] = {
    "run/config.json": ("eval", "resume", "plot", "load_checkpoint"),
    "run/system.json": ("plot",),
    "run/metrics.csv": ("plot", "resume"),
    "run/policy.safetensors": ("eval", "load_policy"),
    "run/SHA256SUMS": ("eval", "plot", "resume"),
    "run/checkpoints/update-000002/checkpoint.json": ("load_one",),
    "run/checkpoints/update-000002/state.safetensors": ("load_one",),
    "run/checkpoints/update-000002/policy.safetensors": ("load_one",),
    "seeds/seeds.csv": ("eval_seeds", "plot_seeds"),
    "x.parity": ("recording", "diff"),
    "x.tape": ("tape",),
    "weights.safetensors": ("convert",),
    "power.json": ("power",),
}
"""The files that are read, and by whom."""
TENSORS = {
    "run/policy.safetensors": ("eval", "load_policy"),
    "x.tape": ("tape",),
    "weights.safetensors": ("convert",),
    "x.parity": ("recording", "diff"),
}
JSON = ("run/config.json", "run/system.json", "power.json")


def attacks(canary: Path) -> Iterator[Attack]:
    """All of them. What is executed creates `canary`."""
    yield from _anywhere("pickle under the name", pickles(canary))
    yield from _anywhere("compressed bomb", bombs())
    yield from _anywhere("pipe, device, folder, link", not_files())
    yield from _anywhere("gigabytes of nothing", {"sparse": sparse})
    for file, readers in TENSORS.items():
        for name, data in headers(file).items():
            yield Attack("safetensors that lies", f"{file}: {name}", readers, _put(file, data))
    for file in JSON:
        for name, data in json_bombs().items():
            yield Attack("JSON bomb", f"{file}: {name}", FILES[file], _put(file, data))
    yield from in_checkpoints()
    yield from in_recordings()
    yield from settings()
    yield from links()
    yield from environments(canary)


def _anywhere(kind: str, payloads: dict[str, Any]) -> Iterator[Attack]:
    for file, readers in FILES.items():
        for name, payload in payloads.items():
            place = _put(file, payload) if isinstance(payload, bytes) else _made(file, payload)
            yield Attack(kind, f"{file}: {name}", readers, place)


def _put(file: str, data: Payload) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(data() if callable(data) else data)


def _made(file: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def place(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return place


def _changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Changes what the checkpoint's table says."""

    def place(folder: Path) -> None:
        path = folder / "run/checkpoints/update-000002"
        table = json.loads((path / "checkpoint.json").read_text())
        del table["sha256"]
        change(table)
        forged.checkpoint(path, **table)

    return place


def in_checkpoints() -> Iterator[Attack]:
    """Checkpoints whose digests are right and that say what they may not."""

    def set_to(value: Any, *keys: Any) -> Callable[[dict[str, Any]], None]:
        def change(table: dict[str, Any]) -> None:
            for key in keys[:-1]:
                table = table[key]
            table[keys[-1]] = value

        return change

    position = {"num_bytes": 10, "sha256": "0" * 64}
    tables = {
        "a newer schema": set_to("policy-gradient-checkpoint/2", "schema"),
        "files elsewhere": set_to({"../../../../outside/victim": position}, "files"),
        "a file of 2^60 bytes": set_to(2**60, "files", "state.safetensors", "num_bytes"),
        "a file of -1 bytes": set_to(-1, "files", "state.safetensors", "num_bytes"),
        "a size that is text": set_to("9", "files", "state.safetensors", "num_bytes"),
        "metrics of -1 bytes": set_to(-1, "progress", "metrics", "num_bytes"),
        "metrics of 2^60 bytes": set_to(2**60, "progress", "metrics", "num_bytes"),
        "returns that are none": set_to([None, {}], "progress", "recent_returns"),
        "an update of 10^400": set_to(10**400, "progress", "update"),
        "a progress that is a list": set_to([1, 2, 3], "progress"),
        "a field more": set_to(1, "progress", STEERING),
        "an unknown setting": set_to("import os", "config", "evaluate"),
        "layers of 2^40": set_to([2**40], "config", "hidden_sizes"),
        "a system that is a list": set_to([1], "system"),
    }
    for name, change in tables.items():
        yield Attack("checkpoint with good digests", name, ("load_one",), _changed(change))
    for file in ("state.safetensors", "policy.safetensors"):
        for name, data in headers("run/policy.safetensors").items():

            def place(folder: Path, file: str = file, data: Payload = data) -> None:
                path = folder / "run/checkpoints/update-000002"
                _put(file, data)(path)
                forged.checkpoint(path)

            name = f"checkpoint's {file}: {name}"
            yield Attack("safetensors that lies", name, ("load_one",), place)


def in_recordings() -> Iterator[Attack]:
    """Recordings whose digests are right."""

    def told(text: str) -> Callable[[Path], object]:
        def place(folder: Path) -> None:
            header, tensors = forged.header_of((folder / "x.parity").read_bytes())
            header["__metadata__"]["recording"] = text
            (folder / "x.parity").write_bytes(forged.recording(header, tensors))

        return place

    kind, readers = "recording with good digests", ("recording", "diff")
    for name, data in json_bombs().items():
        if not callable(data):  # a header of a 100 MB is among those that lie
            yield Attack(kind, name, readers, told(data.decode()))

    def schema(folder: Path) -> None:
        header, tensors = forged.header_of((folder / "x.parity").read_bytes())
        header["__metadata__"]["schema"] = "policy-gradient-parity/recording/2"
        (folder / "x.parity").write_bytes(forged.recording(header, tensors))

    yield Attack(kind, "a newer schema", readers, schema)

    def named(folder: Path) -> None:
        header, tensors = forged.header_of((folder / "x.parity").read_bytes())
        table = json.loads(header["__metadata__"]["recording"])
        table["stages"][0] |= {"name": STEERING, "place": [f"/etc/{STEERING}", 1, STEERING]}
        header["__metadata__"]["recording"] = json.dumps(table)
        (folder / "x.parity").write_bytes(forged.recording(header, tensors))

    yield Attack("names that steer a terminal", "stages", ("recording",), named, goes_on=True)


def settings() -> Iterator[Attack]:
    """A config.json that says what it may not."""
    bad = {
        "an unknown key": {"evaluate": "import os"},
        "layers of 2^40": {"hidden_sizes": [2**40]},
        "2^40 weights": {"hidden_sizes": [65_536] * 3},
        "10^9 episodes": {"eval_episodes": 10**9},
        "another agent": {"agent": f"reinforce{STEERING}"},
        "an environment that steers": {"env_id": STEERING},
        "an environment that is a path": {"env_id": "../../../outside/victim"},
        "an environment that is long": {"env_id": "x" * 10**6},
    }
    for name, values in bad.items():

        def place(folder: Path, values: dict[str, Any] = values) -> None:
            path = folder / "run/config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | values))

        yield Attack("settings of a stranger", name, ("eval", "resume"), place)


def links() -> Iterator[Attack]:
    """Links that lead out of the run's folder, where something would be written."""

    def metrics(folder: Path) -> None:
        shutil.move(folder / "run/metrics.csv", folder / "outside/metrics.csv")
        (folder / "run/metrics.csv").symlink_to(folder / "outside/metrics.csv")

    def checkpoints(folder: Path) -> None:
        shutil.move(folder / "run/checkpoints", folder / "outside/checkpoints")
        (folder / "run/checkpoints").symlink_to(folder / "outside/checkpoints")

    kind = "links to what is outside"
    yield Attack(kind, "metrics.csv", ("resume",), metrics)
    yield Attack(kind, "checkpoints", ("resume", "load_checkpoint"), checkpoints)
    for name in ("config.json", "system.json", "policy.safetensors", "SHA256SUMS", "result.json"):

        def partial(folder: Path, name: str = name) -> None:
            (folder / f"run/.{name}.partial").symlink_to(folder / "outside/victim")

        yield Attack(kind, f".{name}.partial", ("go_on",), partial, goes_on=True)

    def next_one(folder: Path) -> None:
        for name in ("update-000003", ".update-000003.partial", "update-000000"):
            (folder / "run/checkpoints" / name).symlink_to(folder / "outside")

    yield Attack(kind, "update-000003", ("go_on",), next_one, goes_on=True)


def environments(canary: Path) -> Iterator[Attack]:
    """Whole and right in all but that the environment is to be imported from a module."""

    def place(folder: Path) -> None:
        (folder / f"{MODULE}.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n")
        named = f"{MODULE}:CartPole-v1"
        for path in (folder / "run").rglob("*.json"):
            table = json.loads(path.read_text())
            table = table | {"env_id": named} if "env_id" in table else table
            path.write_text(json.dumps(table, indent=2) + "\n")
        one = folder / "run/checkpoints/update-000002"
        for path in (folder / "run/policy.safetensors", one / "policy.safetensors"):
            header, tensors = forged.header_of(path.read_bytes())
            header["__metadata__"]["env"] = named
            path.write_bytes(forged.tensor_file(header, tensors))
        for path in (folder / "run/checkpoints").iterdir():
            table = json.loads((path / "checkpoint.json").read_text())
            forged.checkpoint(path, config=table["config"] | {"env_id": named})
        for name in ("SHA256SUMS", "result.json"):
            (folder / "run" / name).unlink(missing_ok=True)

    yield Attack("environment of a module", "whole run", ("eval", "resume"), place)
    for readers in (("load_policy", "load_checkpoint", "load_one", "plot"),):
        yield Attack("environment of a module", "never made", readers, place, goes_on=True)
