"""Fuzzes one target for some seconds: `python -m benchmarks.fuzz.one TARGET SECONDS FOLDER SEED`.

With atheris what the code does with an input leads to the next ones; libFuzzer's own lines go to
the standard error. Without it they are drawn from the kept ones alone. A finding ends it: its
input is FOLDER/finding, its report the last thing that is printed, and the exit code is not 0.
"""

import contextlib
import importlib
import importlib.util
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_SECONDS, MOST_MEGABYTES = 2.0, 500
LARGEST_INPUT = 20_000
"""Seconds of the processor that one input may take, megabytes of the process, bytes of an input."""


def main() -> None:
    """Fuzzes, and prints what was seen as one JSON object."""
    name, seconds, folder, seed = sys.argv[1:]
    if importlib.util.find_spec("atheris"):
        _guided(name, int(float(seconds)), Path(folder), int(seed))
    else:
        _unguided(name, float(seconds), Path(folder), int(seed))


def _watched(target: Callable[[bytes], bool]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        started = time.process_time()
        target(data)
        if (seconds := time.process_time() - started) > MOST_SECONDS:
            raise TimeoutError(f"an input of {len(data)} bytes took {seconds:.1f} s")

    return run


def _guided(name: str, seconds: int, folder: Path, seed: int) -> None:
    atheris: Any = importlib.import_module("atheris")
    packages = ["pgcore", "parity.convert", "parity.mutation", "parity.recordings", "parity.tape"]
    with atheris.instrument_imports(include=packages):
        from benchmarks.fuzz.mutations import mutated
        from benchmarks.fuzz.targets import TARGETS, corpus

        # What a reader imports when it is first called, too: of files that are read to their end.
        for path in corpus(name):
            TARGETS[name](path.read_bytes())

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return atheris.Mutate(data, most)
        return mutated(name, bytes(data), rng)[:most]

    (folder / "found").mkdir(exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={LARGEST_INPUT}",
        "-timeout=30",
        f"-rss_limit_mb={4 * MOST_MEGABYTES}",
        f"-exact_artifact_path={folder / 'finding'}",
        "-print_final_stats=1",
        str(folder / "found"),
        *{str(path.parent) for path in corpus(name)},
    ]
    atheris.Setup([sys.argv[0], *options], _watched(TARGETS[name]), custom_mutator=mutate)
    atheris.Fuzz()


def _unguided(name: str, seconds: float, folder: Path, seed: int) -> None:
    from benchmarks.fuzz.mutations import mutated
    from benchmarks.fuzz.targets import TARGETS, corpus

    rng, run = random.Random(seed), _watched(TARGETS[name])
    known = [path.read_bytes() for path in corpus(name)]
    number, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        data = mutated(name, rng.choice(known), rng)[:LARGEST_INPUT]
        number += 1
        try:
            run(data)
            megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            if megabytes > MOST_MEGABYTES:
                raise MemoryError(f"the process has {megabytes} MB")
        except BaseException:
            (folder / "finding").write_bytes(data)
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps({"executions": number}), flush=True)
            raise
    print(json.dumps({"executions": number}))


if __name__ == "__main__":
    main()
