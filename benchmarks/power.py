"""What the suite sees: each known wrong variant, and right code on 100,000 examples.

    python -m benchmarks.power --save                     # the variants, about two minutes
    python -m benchmarks.power --examples 100000 --save   # right code, about half an hour
    python -m benchmarks.power --examples 100000 --only loss --save   # one stage's figures anew

With `--save` the figures are kept in results/power.json and results/false_alarms.json, and the
tables of docs/power.md are written anew.
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import tyro

from benchmarks import results
from parity import workers
from parity.mutants.command import as_json as variants_as_json
from parity.mutants.power import selftest
from parity.suite.checking import ONE_IN, shared_out, tally_of
from parity.suite.command import as_json as examples_as_json
from parity.suite.families import families
from parity.workers import default_jobs

PAGE = "docs/power.md"


@dataclass(frozen=True)
class Power:
    """Measure what the suite catches, and how often it is wrong."""

    examples: int | None = None
    """Draw so many examples of right code, and try no variants."""
    only: str | None = None
    """Of these, only families that begin with one of these names; the others' figures stay."""
    seed: int = 0
    """What these are drawn from."""
    save: bool = False
    """Keep the figures and write the tables."""


def measure_variants() -> dict[str, Any]:
    """Every variant, and where it is caught."""
    started = time.perf_counter()
    found = selftest(jobs=default_jobs())
    return variants_as_json(found, time.perf_counter() - started)


def measure_examples(examples: int, seed: int, only: str | None) -> dict[str, Any]:
    """Right code on so many examples."""
    started = time.perf_counter()
    numbers = shared_out(examples, families())
    names = [n for n in numbers if only is None or n.startswith(tuple(only.split(",")))]
    tasks = [(name, seed, 0, numbers[name]) for name in names]
    found = {tally.family: tally for _, tally in workers.results(tally_of, tasks, default_jobs())}
    tallies = [found[name] for name in names]
    figures = examples_as_json(tallies, seed, time.perf_counter() - started)
    for stage in figures["stages"]:
        del stage["seconds"]
    return figures if only is None else merged(results.load("false_alarms"), figures)


def merged(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The committed figures with those of some families made anew, in today's order."""
    by_name = {stage["name"]: stage for stage in [*known["stages"], *new["stages"]]}
    stages = [by_name[family.name] for family in families()]
    replaced = {stage["name"] for stage in new["stages"]}
    kept = [each for each in known["failures"] if each["family"] not in replaced]
    return {
        **new,
        "ok": all(stage["ok"] for stage in stages),
        "examples": sum(stage["examples"] for stage in stages),
        "seconds": known["seconds"],
        "stages": stages,
        "failures": [*kept, *new["failures"]],
    }


def summary_table(found: dict[str, Any]) -> str:
    """By kind: how many variants there are, how many were caught, and at which stages."""
    wrong = [each for each in found["variants"] if not each["equivalent"]]
    rows = []
    for kind in dict.fromkeys(each["kind"] for each in wrong):
        of_kind = [each for each in wrong if each["kind"] == kind]
        caught = [each for each in of_kind if each["caught"]]
        stages = Counter(each["stage"] for each in caught)
        where = ", ".join(f"{stage} {number}" for stage, number in stages.most_common())
        rows.append([kind, f"{len(caught)} of {len(of_kind)}", where])
    total = sum(each["caught"] for each in wrong)
    rows.append(["all", f"{total} of {len(wrong)}", ""])
    return results.table(["kind", "caught", "at stage"], rows)


def variants_table(found: dict[str, Any]) -> str:
    """Every wrong variant."""
    rows = [
        [each["name"], each["kind"], each["stage"] or "NOT CAUGHT"]
        for each in found["variants"]
        if not each["equivalent"]
    ]
    return results.table(["variant", "kind", "caught at"], [list(map(_cell, row)) for row in rows])


def equivalents_table(found: dict[str, Any]) -> str:
    """Every equivalent variant, and why no input tells it apart."""
    rows = [
        [each["name"], "caught" if each["caught"] else "passes", each["proof"]]
        for each in found["variants"]
        if each["equivalent"]
    ]
    header = ["variant", "verdict", "why no input tells it apart"]
    return results.table(header, [list(map(_cell, row)) for row in rows])


def examples_table(found: dict[str, Any]) -> str:
    """By stage: examples, alarms, and how close the closest came to its bound."""
    rows = []
    for stage in found["stages"]:
        examples = {
            each["example"] for each in found["failures"] if each["family"] == stage["name"]
        }
        closest = stage["closest"]
        share = closest if isinstance(closest, str) else f"{closest:.2g}"
        rows.append([stage["name"], f"{stage['examples']:,}", str(len(examples)), share])
    alarms = len({(each["family"], each["example"]) for each in found["failures"]})
    rows.append(["all", f"{found['examples']:,}", str(alarms), ""])
    return results.table(["stage", "examples", "alarms", "largest error / allowed"], rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    options = tyro.cli(Power, description=__doc__)
    ok = True
    if options.examples is None:
        variants = measure_variants()
        print(summary_table(variants))
        print(f"{variants['seconds']:.0f} s")
        ok = variants["ok"]
        if options.save:
            results.save("power", "python -m benchmarks.power --save", variants)
            results.put_table(PAGE, "power: kinds", summary_table(variants))
            results.put_table(PAGE, "power: variants", variants_table(variants))
            results.put_table(PAGE, "power: equivalents", equivalents_table(variants))
    else:
        examples = measure_examples(options.examples, options.seed, options.only)
        print(examples_table(examples))
        print(f"one in {ONE_IN} also eager and vmapped; {examples['seconds']:.0f} s")
        ok = ok and examples["ok"]
        if options.save:
            command = f"python -m benchmarks.power --examples {options.examples} --save"
            results.save("false_alarms", command, examples)
            results.put_table(PAGE, "power: false alarms", examples_table(examples))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
