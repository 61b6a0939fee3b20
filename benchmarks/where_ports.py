"""Where `parity.first_divergence` says that ports are wrong, against where a fault was put.

    python -m benchmarks.where_ports --save

Two sets of ports of public algorithms, each with its faults: `benchmarks.ports`, on which the
search was developed, and `benchmarks.ports_unseen`, which was not looked at before it was measured.
A line is right if it is within two of the fault's. Right ports, written in several ways, must be
blamed for nothing. Where a fault is one of the catalogue of traps, the first cause that is named
should be it; where it is none, a trap of the catalogue that is named first is a wrong guess.
"""

import importlib
import importlib.util
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import tyro

from benchmarks import results
from benchmarks.ports.faults import Fault, faulty
from parity.workers import default_jobs
from parity.workers import results as shared

PORTS = {
    "ports": (
        *("a2c", "adam", "attention", "cql", "dqn", "gae", "gpt_block", "gru_policy"),
        *("lstm_policy", "optimizers", "ppo", "qrdqn", "rainbow", "sac", "td3", "transformer"),
        "vtrace",
    ),
    "ports_unseen": (
        *("c51", "optimizers2", "ppo_continuous", "recurrent_ppo", "reinforce_baseline"),
    ),
}
"""The two sets, by their packages."""
WITHIN = 2
PAGE, TABLE = "docs/where.md", "where: ports"


@dataclass(frozen=True)
class Where:
    """Search the faults of ports, and say how often the right line was found."""

    sets: tuple[str, ...] = tuple(PORTS)
    """Which sets of ports."""
    only: tuple[str, ...] = ()
    """Only these ports; what is kept of the others stays."""
    jobs: int = field(default_factory=default_jobs)
    """Processes that share the work."""
    save: bool = False
    """Keep the figures and the table."""


def main(options: Where) -> int:
    """Searches them and prints the table and what was missed; 1 if a right port was blamed."""
    tasks = [
        (s, p) for s in options.sets for p in PORTS[s] if not options.only or p in options.only
    ]
    rows: dict[str, Any] = {}
    if options.only and (results.RESULTS / "where_ports.json").exists():
        known = {f"{package}/{name}" for package, names in PORTS.items() for name in names}
        kept = results.load("where_ports")["ports"]
        rows = {key: row for key, row in kept.items() if key in known}
    for number, row in shared(searched, tasks, options.jobs, optimise=False):
        rows["/".join(tasks[number])] = row
        print(f"{'/'.join(tasks[number])}: {_brief(row)}", flush=True)
        for fault in row["faults"]:
            if not fault["found"]:
                print(f"  {fault['name']}: line {fault['line']}, said {fault['said']}", flush=True)
        if options.save:  # each as it is there
            figures = {"ports": dict(sorted(rows.items()))}
            results.save("where_ports", "python -m benchmarks.where_ports --save", figures)
    print(f"\n{table_of(rows)}")
    if options.save:
        results.put_table(PAGE, TABLE, table_of(dict(sorted(rows.items()))))
    return 1 if any(row["blamed"] for row in rows.values()) else 0


def searched(package: str, name: str) -> dict[str, Any]:
    """All right candidates of a port, and all of its faults."""
    module = importlib.import_module(f"benchmarks.{package}.{name}")
    source = Path(module.__file__ or "").read_text(encoding="utf-8")
    right = [each for each in vars(module) if each.startswith(("in_jax", "CANDIDATE"))]
    blamed = [each for each in right if _divergence(module, each) is not None]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, fault in enumerate(module.FAULTS):
            path = Path(folder) / f"{name}_{number}.py"
            path.write_text(faulty(source, fault), encoding="utf-8")
            found.append(_looked_for(_imported(path), source, fault))
    return {"right": len(right), "blamed": blamed, "faults": found}


def _looked_for(module: ModuleType, source: str, fault: Fault) -> dict[str, Any]:
    first = source[: source.index(fault.old)].count("\n") + 1
    last = first + fault.new.count("\n")
    started = time.perf_counter()
    said = _divergence(module)
    seconds = time.perf_counter() - started
    line = None
    if said is not None and said.candidate.file == module.__file__:
        line = said.candidate.line
    trap = said.causes[0].trap if said is not None and said.causes else None
    return {
        "name": fault.name,
        "line": first,
        "said": line,
        "found": line is not None and first - WITHIN <= line <= last + WITHIN,
        "phase": said.phase if said else None,
        "trap": fault.trap,
        "cause": trap,
        "seconds": round(seconds, 1),
    }


def _divergence(module: ModuleType, candidate: str | None = None) -> Any:
    import parity
    from parity.sides import nested

    inputs = nested(module.inputs())
    if hasattr(module, "REFERENCE"):
        port = getattr(module, candidate or "CANDIDATE")
        names = {"rename": module.RENAME, "kinds": module.KINDS or None}
        return parity.first_divergence(module.REFERENCE, port, inputs, **names)
    return parity.first_divergence(module.in_torch, getattr(module, candidate or "in_jax"), inputs)


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"faulty_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def table_of(rows: dict[str, Any]) -> str:
    """A line a port, and one for each set."""
    cells = []
    for package in PORTS:
        mine = {k: row for k, row in rows.items() if k.startswith(f"{package}/")}
        cells += [_cells(key, [row]) for key, row in mine.items()]
        if mine:
            cells.append(_cells(f"**{package}**", [*mine.values()]))
    header = ["ports", "right ports blamed", "faults", "right line", "trap named first", "guesses"]
    return results.table([*header, "seconds, median and most"], cells)


def _cells(name: str, rows: list[dict[str, Any]]) -> list[str]:
    faults = [fault for row in rows for fault in row["faults"]]
    known = [fault for fault in faults if fault["trap"]]
    guesses = [f for f in faults if not f["trap"] and f["cause"] and f["cause"][0] != "R"]
    seconds = sorted(fault["seconds"] for fault in faults)
    right = sum(fault["found"] for fault in faults)
    blamed, candidates = sum(len(row["blamed"]) for row in rows), sum(row["right"] for row in rows)
    return [
        name,
        f"{blamed} of {candidates}",
        str(len(faults)),
        f"{right} ({right / max(1, len(faults)):.0%})",
        f"{sum(f['cause'] == f['trap'] for f in known)} of {len(known)}",
        str(len(guesses)),
        f"{seconds[len(seconds) // 2]:.0f}, {seconds[-1]:.0f}",
    ]


def _brief(row: dict[str, Any]) -> str:
    found = sum(fault["found"] for fault in row["faults"])
    return f"{found} of {len(row['faults'])}, blamed {row['blamed'] or 'none'}"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Where)))
