"""The compiled programs of a training run: made side by side, kept whole for the next process.

`jax.jit` compiles a function when it is first called, and so one after another; and a process that
finds the machine code in JAX's persistent cache has still to trace and to lower the function, which
takes longer than to load it. So a `Program` is begun with the arguments it will have, and compiles
in a thread; and what `keep_in` was given a folder for is found again by what it was made from,
without a look at the function.
"""

import functools
import hashlib
import os
import pickle
import platform
import re
import stat
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

import pgcore
from pgcore.config import TrainConfig
from pgcore.files.writing import write_atomically
from pgcore.runs.system import system

OPTIONS = {"xla_cpu_use_fusion_emitters": False}
"""XLA's newer emitter of fused loops takes twice as long for the same loops, and a run compiles
each function once, for a second's work. Results are equal."""

_OF_NO_PROGRAM = {
    "seed": 0,
    "total_timesteps": 1,
    "solve_threshold": 0.0,
    "until_update": None,
    "checkpoint_every": 0,
    "run_dir": None,
}
"""Settings that only the host's loop reads."""

MOST_KEPT = 200
"""So many programs, some 100 KB each, stay in the folder: those that were used last."""
_KEPT_NAME = re.compile(r"\w+_[0-9a-f]{64}")

_kept_in: Path | None = None
_HIT = "/jax/compilation_cache/cache_hits"
_of_thread = threading.local()


def keep_in(folder: Path | None) -> None:
    """Keeps programs that begin from now on in a folder, and takes from it what is there already.

    With None, as at first, nothing is kept. A program is code that is run as it is found, so the
    folder must be the user's own. What a function does is read from this package's files, so
    nothing may be kept of functions that were replaced while the process runs.
    """
    global _kept_in
    _kept_in = folder


def _note_hit(event: str, **_: Any) -> None:
    if event == _HIT:
        _of_thread.has_hit = True


jax.monitoring.register_event_listener(_note_hit)


class Program:
    """`function`, compiled once, for arguments of one kind.

    Args:
        name: Of the function, among all of which programs are made.
        function: What to compile.
        config: What the function was made for: with its name, the kinds of its arguments and the
            source of this package it says all that the function does. Without it the program is
            not kept; a function that calls the host must have none.
    """

    def __init__(self, name: str, function: Callable, config: TrainConfig | None) -> None:
        self._name, self._function, self._config = name, function, config
        self._made: Future[jax.stages.Compiled | None] | None = None

    def begin(self, *arguments: Any) -> Any:
        """Begins to compile for such arguments, or for shapes of them; returns the results' shapes.

        The function is traced here, where JAX is set as the caller wants it.
        """
        path = self._path(arguments)
        if path is not None and (found := _read(path)) is not None:
            program, result = found
            self._made = _in_thread(_load, program)
            return result
        return self._compile(arguments, path)

    def _path(self, arguments: tuple) -> Path | None:
        """Where the program is kept, if it is."""
        if _kept_in is None or self._config is None:
            return None
        return _kept_in / f"{self._name}_{_made_from(self._config, arguments)}"

    def _compile(self, arguments: tuple, path: Path | None) -> Any:
        def function(*arguments: Any) -> Any:
            return self._function(*arguments)

        function.__name__ = path.name if path else self._name  # JAX's own cache goes by it too
        jitted: Any = jax.jit(function, compiler_options=OPTIONS)
        traced = jitted.trace(*arguments)
        self._made = _in_thread(_make, traced.lower(), traced.out_info, path)
        return traced.out_info

    @property
    def is_begun(self) -> bool:
        """Whether `begin` was called, or a call has begun it."""
        return self._made is not None

    def __call__(self, *arguments: Any) -> Any:
        """The function's results; the first call waits for the compilation, or begins it."""
        if self._made is None:
            self.begin(*arguments)
        assert self._made is not None
        if self._made.result() is None:  # there was a file, but it was of no use
            self._compile(arguments, self._path(arguments))
        compiled: Any = self._made.result()
        return compiled(*arguments)


def _in_thread(action: Callable, *arguments: Any) -> Future:
    thread = ThreadPoolExecutor(1)
    future = thread.submit(action, *arguments)
    thread.shutdown(wait=False)
    return future


def _made_from(config: TrainConfig, arguments: tuple) -> str:
    """A word for all that a program of some name is made from."""
    leaves, structure = jax.tree.flatten(arguments)
    config = replace(config, **_OF_NO_PROGRAM)
    kinds = [(leaf.shape, str(leaf.dtype)) for leaf in leaves]
    everything = repr((config, str(structure), kinds, OPTIONS, _surroundings()))
    return hashlib.sha256(everything.encode()).hexdigest()


def _read(path: Path) -> tuple[bytes, Any] | None:
    """A file's program, and the shapes of its results; what is none is as if it were not there.

    It is run as it is found, so it counts only where nobody else could have put it.
    """
    if not (_is_private(path.parent) and _is_private(path)):
        return None
    with suppress(Exception):
        program, result = pickle.loads(zlib.decompress(path.read_bytes()))
        with suppress(OSError):  # where nothing can be written, it is no less of use
            path.touch()
        return program, result
    return None


def _load(program: bytes) -> jax.stages.Compiled | None:
    """The program of a file that was read, in a thread of its own: all of a run's side by side."""
    with suppress(Exception):
        return serialize_executable.deserialize_and_load(*pickle.loads(program))
    return None


def _is_private(path: Path) -> bool:
    """Whether it is there, is this user's, and nobody else may write to it."""
    try:
        found = path.lstat()
    except OSError:
        return False
    is_ours = hasattr(os, "getuid") and found.st_uid == os.getuid()
    is_shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_ours and not is_shared and not stat.S_ISLNK(found.st_mode)


def _make(lowered: jax.stages.Lowered, result: Any, path: Path | None) -> jax.stages.Compiled:
    """Compiles, in a thread of its own, and keeps the program if there is a path for it."""
    _of_thread.has_hit = False
    compiled = lowered.compile()
    # What came out of JAX's own cache cannot be serialised again: it would lack its code. And what
    # can't be written, for the disk may be full, is not kept.
    if path is not None and not _of_thread.has_hit:
        with suppress(Exception):
            program = pickle.dumps(serialize_executable.serialize(compiled))
            write_atomically(path, zlib.compress(pickle.dumps((program, result)), 1))
            path.chmod(0o600)  # whatever the umask: one that others may write to is passed over
            _forget_oldest(path.parent)
    return compiled


def _forget_oldest(folder: Path) -> None:
    """Takes away all but the programs that were used last."""
    kept = [path for path in folder.iterdir() if _KEPT_NAME.fullmatch(path.name)]
    for path in sorted(kept, key=lambda path: path.stat().st_mtime)[:-MOST_KEPT]:
        path.unlink(missing_ok=True)  # another process may have taken it away


@functools.cache
def _surroundings() -> str:
    """All that a program depends on beside its function's name: sources, versions, settings."""
    sources = hashlib.sha256()
    for package in (Path(pgcore.__file__).parent, Path(__file__).parent):
        for file in sorted(package.rglob("*.py")):
            sources.update(file.read_bytes())
    # JAX has its own for where it keeps what, which no program depends on.
    settings = {name: jax.config.values[name] for name in jax.config.values if "cache" not in name}
    return repr((sources.hexdigest(), system("pgjax"), machine(), jax.devices(), settings))


def machine() -> str:
    """What the processor is and can do, where the system says so: a program is for one kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {flags}"
