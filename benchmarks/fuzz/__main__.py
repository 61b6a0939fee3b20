"""Fuzzes all that reads a file, each reader for its share of the time.

    make fuzz TIME=600
    python -m benchmarks.fuzz --seconds 600 --save    # keeps the figures in results/fuzz.json

It is guided by coverage where atheris is installed, and says so where it is not. What it finds is
kept in `fuzz-findings/`, and it exits with 1; a finding that is mended goes into
`tests/fuzz_corpus/`, which the tests read at each change.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import results
from benchmarks.fuzz.targets import TARGETS, corpus
from pgcore.errors import unknown_choice

FINDINGS = Path("fuzz-findings")
PAGE, NAME = "docs/reliability.md", "fuzz"
COUNTED = ("executions", "coverage", "features", "corpus", "findings")
COVERAGE = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/")


@dataclass(frozen=True)
class Fuzz:
    """Read files that nobody wrote, and see that each is read or refused by name."""

    seconds: float = 600
    """For all targets together."""
    only: tuple[str, ...] = tuple(TARGETS)
    """The targets."""
    seed: int = 1
    """Of the changes; with coverage as a guide two runs are not alike all the same."""
    save: bool = False
    """Keep the figures."""


def table() -> str:
    """The figures that were kept, as the table of the page."""
    rows = []
    for name, seen in results.load(NAME)["targets"].items():
        numbers = [f"{seen[each]:,}" if each in seen else "" for each in COUNTED]
        rows.append([name, *numbers, f"{seen['seconds']:.0f}"])
    return results.table(("reader of", *COUNTED, "seconds"), rows)


def main(options: Fuzz) -> int:
    """Fuzzes, prints a line for each target, and returns the exit code."""
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        print("atheris is not installed: inputs are drawn from the corpus, coverage leads nowhere")
    seen = {}
    for name in options.only:
        if name not in TARGETS:
            raise unknown_choice("only", name, TARGETS)
        seen[name] = fuzzed(name, options.seconds / len(options.only), options.seed)
        print(f"{name}: {', '.join(f'{value:,} {key}' for key, value in seen[name].items())}")
    total = sum(each["executions"] for each in seen.values())
    findings = sum(each["findings"] for each in seen.values())
    print(f"{total:,} executions, {findings} findings")
    if options.save:
        command = f"python -m benchmarks.fuzz --seconds {options.seconds:g} --save"
        results.save(NAME, command, {"guided": guided, "targets": seen})
        results.put_table(PAGE, NAME, table())
    return 1 if findings else 0


def fuzzed(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Fuzzes a target, going on after each finding until the time is over."""
    figures = {"executions": 0, "findings": 0, "corpus": len(corpus(name))}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while (left := seconds - (time.monotonic() - started)) > 1:
            ended = _run(name, left, Path(folder), seed)
            said = ended.stderr + ended.stdout
            figures["executions"] += _executions(said)
            for coverage, features, size in COVERAGE.findall(said)[-1:]:
                figures["coverage"] = max(figures.get("coverage", 0), int(coverage))
                figures["features"] = max(figures.get("features", 0), int(features))
                figures["corpus"] = max(figures["corpus"], int(size))
            if ended.returncode == 0:
                break
            figures["findings"] += 1
            seed += 1
            _keep(name, Path(folder) / "finding", said)
    return figures | {"seconds": round(time.monotonic() - started, 1)}


def _run(name: str, seconds: float, folder: Path, seed: int) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        "-m",
        "benchmarks.fuzz.one",
        name,
        str(seconds),
        str(folder),
        str(seed),
    ]
    environment = os.environ | {"PYTHONPATH": str(results.ROOT), "TMPDIR": str(folder)}
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, errors="replace", check=False
    )


def _executions(said: str) -> int:
    if found := re.search(r"number_of_executed_units: (\d+)", said):
        return int(found[1])
    lines = [line for line in said.splitlines() if line.startswith('{"executions"')]
    counts = re.findall(r"^#(\d+)\t", said, re.MULTILINE)
    return json.loads(lines[-1])["executions"] if lines else int(counts[-1]) if counts else 0


def _keep(name: str, finding: Path, said: str) -> None:
    print(f"{name}: a finding")
    print("\n".join(f"  {line}" for line in said.splitlines() if line.strip())[-4000:])
    if finding.exists():
        FINDINGS.mkdir(exist_ok=True)
        kept = FINDINGS / f"{name}-{int(time.time())}"
        finding.rename(kept)
        print(f"  its input is {kept}")


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Fuzz)))
