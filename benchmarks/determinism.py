"""What makes two runs the same to the last bit, and what does not.

    python -m benchmarks.determinism            # each circumstance beside a run as it is
    python -m benchmarks.determinism --save     # keeps it, and puts the table in the page

Each run is made in a process of its own. What is compared is the policy, the state and
`metrics.csv`, all but the seconds.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from benchmarks import results
from benchmarks.reliability.runs import FRAMEWORKS, SHORT, differing, lines, options

PAGE, NAME = "docs/reliability.md", "determinism"
NETWORKS = {"(24, 12)": (24, 12), "(512, 512)": (512, 512)}
NUM_UPDATES = 25
AS_IT_IS = ("OMP_NUM_THREADS", "XLA_FLAGS", "JAX_ENABLE_X64", "PYTHONHASHSEED")
"""Variables that are not set unless a circumstance sets them."""


class Circumstance(NamedTuple):
    """What is otherwise than in the run that the others are compared with."""

    name: str
    variables: Mapping[str, str] = {}
    before: tuple[str, ...] = ()
    """What the command is run by."""
    settings: Mapping[str, Any] = {}
    only: str | None = None
    """The framework that it matters to."""


CIRCUMSTANCES = (
    Circumstance("again, in a new process and another folder"),
    Circumstance("another hash seed of Python", {"PYTHONHASHSEED": "1"}),
    Circumstance("checkpoints after every update", settings={"checkpoint_every": 1}),
    Circumstance("one core", before=("taskset", "--cpu-list", "0")),
    Circumstance("OMP_NUM_THREADS=1", {"OMP_NUM_THREADS": "1"}),
    Circumstance(
        "XLA without threads", {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}, only="pgjax"
    ),
    Circumstance(
        "XLA that optimises less", {"XLA_FLAGS": "--xla_backend_optimization_level=0"}, only="pgjax"
    ),
    Circumstance("JAX_ENABLE_X64=1", {"JAX_ENABLE_X64": "1"}, only="pgjax"),
)


@dataclass(frozen=True)
class Measure:
    """Compare runs under different circumstances."""

    save: bool = False
    """Keep what was seen, and put it in the page."""


def compare(framework: str, network: str, each: Circumstance, whole: Path, folder: Path) -> str:
    """How a run under a circumstance ends, beside the run as it is."""
    if each.only not in (None, framework):
        return "–"
    _train(framework, network, each, folder)
    parts = [part for part in differing(folder, whole) if part not in ("config", "progress")]
    if not parts:
        return "the same"
    pairs = zip(lines(whole), lines(folder), strict=False)
    number = next((number for number, (a, b) in enumerate(pairs, start=1) if a != b), None)
    return f"other from update {number} on" if number else f"other: {', '.join(parts)}"


def _train(framework: str, network: str, each: Circumstance, folder: Path) -> None:
    config = replace(SHORT, hidden_sizes=NETWORKS[network], episodes_per_update=8, run_dir=folder)
    config = replace(config, until_update=NUM_UPDATES, **each.settings)
    variables = {name: value for name, value in os.environ.items() if name not in AS_IT_IS}
    command = [*each.before, sys.executable, "-m", framework, "train", *options(config)]
    subprocess.run(
        command,
        env=variables | {"PYTHONPATH": str(results.ROOT), **each.variables},
        check=True,
        capture_output=True,
    )


def table() -> str:
    """What was kept, as the table of the page."""
    seen = results.load(NAME)["seen"]
    header = ["", *next(iter(seen.values()))]
    return results.table(header, [[name, *found.values()] for name, found in seen.items()])


def main(options: Measure) -> None:
    """Compares, prints, and keeps what was seen if it is to."""
    seen: dict[str, dict[str, str]] = {each.name: {} for each in CIRCUMSTANCES}
    with tempfile.TemporaryDirectory() as name:
        for framework in FRAMEWORKS:
            for network in NETWORKS:
                folder = Path(name) / framework / network
                _train(framework, network, Circumstance("as it is"), folder / "whole")
                for i, each in enumerate(CIRCUMSTANCES):
                    found = compare(
                        framework, network, each, folder / "whole", folder / f"other-{i}"
                    )
                    seen[each.name][f"{framework} {network}"] = found
                    print(f"{framework} {network}, {each.name}: {found}", flush=True)
    if options.save:
        results.save(NAME, "python -m benchmarks.determinism --save", {"seen": seen})
        results.put_table(PAGE, NAME, table())


if __name__ == "__main__":
    main(tyro.cli(Measure))
