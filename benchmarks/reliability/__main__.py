"""Brings faults about and counts what survives them.

    python -m benchmarks.reliability                        # all of them, some of them for minutes
    python -m benchmarks.reliability --only killed          # one kind
    python -m benchmarks.reliability --only killed --save   # keeps it, and puts it in the page

Each kind is a module beside this one. It exits with 1 if a fault was not survived. What is random
is drawn from `--seed`.
"""

import importlib
import random
import signal
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import results
from benchmarks.reliability.rows import Row
from pgcore.errors import unknown_choice

PAGE, NAME = "docs/reliability.md", "reliability"
KINDS = (
    "resumed",
    "killed",
    "signals",
    "damaged",
    "hostile",
    "environments",
    "disk",
    "company",
    "long",
)
HEADER = ("fault", "tries", "survived", "lost", "command")


@dataclass(frozen=True)
class Measure:
    """Bring faults about, and count what survives them."""

    only: tuple[str, ...] = KINDS
    """The kinds to bring about."""
    seed: int = 0
    """Of what is drawn: moments, updates, places in a file."""
    save: bool = False
    """Keep what was seen, and put it in the page."""


def command(kind: str, seed: int) -> str:
    """What measures a kind, as one types it."""
    return f"python -m benchmarks.reliability --only {kind}" + (f" --seed {seed}" if seed else "")


def table(kinds: Iterable[str] = KINDS) -> str:
    """The rows that were kept, as the table of the page."""
    kept = results.load(NAME)["kinds"]
    rows = []
    for kind in (kind for kind in kinds if kind in kept):
        for row in (Row(**row) for row in kept[kind]["rows"]):
            cells = (row.fault, f"{row.tries:,}", f"{row.survived:,}", row.lost)
            rows.append([*cells, f"`--only {kind}`"])
    return results.table(HEADER, rows)


def keep(kind: str, rows: list[Row], seed: int) -> None:
    """Keeps the rows of a kind beside those of the others."""
    path = results.RESULTS / f"{NAME}.json"
    kinds = results.load(NAME)["kinds"] if path.exists() else {}
    kinds[kind] = {"command": command(kind, seed), "rows": [row._asdict() for row in rows]}
    kinds = {kind: kinds[kind] for kind in KINDS if kind in kinds}
    results.save(NAME, "python -m benchmarks.reliability --save", {"kinds": kinds})
    results.put_table(PAGE, NAME, table())


def main(options: Measure) -> int:
    """Brings about each kind, prints its rows as they come, and returns the exit code."""
    # A shell's background job ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    is_all_well = True
    for kind in options.only:
        if kind not in KINDS:
            raise unknown_choice("only", kind, KINDS)
        rows = []
        with tempfile.TemporaryDirectory(prefix=f"{kind}-") as folder:
            module = importlib.import_module(f"benchmarks.reliability.{kind}")
            for row in module.rows(random.Random(options.seed), Path(folder)):
                said = f"{row.fault}: {row.survived:,} of {row.tries:,} survived, lost: {row.lost}"
                # At once: a process that is forked would print it again.
                print(said, *(f"  {failure}" for failure in row.failures), sep="\n", flush=True)
                rows.append(row)
        is_all_well &= not any(row.failures for row in rows)
        if options.save:
            keep(kind, rows, options.seed)
    return 0 if is_all_well else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Measure)))
