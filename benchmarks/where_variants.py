"""Where `parity.first_divergence` says that known wrong variants are wrong, against where they are.

    python -m benchmarks.where_variants                  # a table and what was missed
    python -m benchmarks.where_variants --save
    python -m benchmarks.where_variants --truth          # only what a right answer would be

Each wrong variant of `parity.mutants` is put in its place. The suite's first example on which
PyTorch and JAX part in float64 is handed to `first_divergence` as a user would: two functions and
their inputs. Its line is right if it is within two of one that is at fault
(`benchmarks.where_truth`), on the side at fault. Its cause is right if the first that it names is
the one that was put there; where the catalogues have none, it is right to name none.

With `--save` the figures are kept in results/where_variants.json, and the table of docs/where.md is
written anew.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tyro

import parity
from benchmarks import results
from benchmarks.where_truth import ROOT, Truth, causes, relative, truth
from parity import sides, workers
from parity.mutants.catalogue import VARIANTS
from parity.mutants.power import MIN_EXAMPLES, SEED, called, full_name, narrowed
from parity.mutants.variants import Variant, applied
from parity.suite.checking import held
from parity.suite.family import Direct, Family
from parity.suite.stages import Example, forget
from parity.workers import default_jobs

PAGE, TABLE = "docs/where.md", "where: variants"

SHARED = "both packages have it: only the definitions see it"
RANDOM = "shows in what is drawn, which is held to a law"
OWN_NOISE = "shows where steps or runs draw noise of their own"
ONE_PACKAGE = "shows in one package's adapter or files, which no code of the other does"
SINGLE = "shows in float32 alone"
RAISES = "one side raises an error"


class Place(NamedTuple):
    """The example on which a variant shows, or why there is none with two sides.

    Attributes:
        example: Two sides and their inputs.
        name: The family, and the example's number.
        reason: Why it can't be located.
    """

    example: Example | None
    name: str
    reason: str = ""


@dataclass(frozen=True)
class WhereVariants:
    """Measure whether the first divergence is where the fault is."""

    only: str | None = None
    """Only variants with one of these texts in their names, divided by commas."""
    truth: bool = False
    """Print examples, lines and causes, and look for nothing."""
    save: bool = False
    """Keep the figures and write the table."""
    jobs: int = field(default_factory=default_jobs)
    """Processes that share the work."""


def place_of(variant: Variant) -> Place:
    """The first example that parts between PyTorch and JAX in float64. The variant is in place."""
    functions = {function for patch in variant.patches for function in patch.functions}
    touched = [family for family in narrowed() if functions & called()[family.name]]
    raises = False
    for family, index, example in _examples(touched):
        if not isinstance(example, Example):
            continue
        _, parts = held(family, SEED, index, precisions=("float64",), all_ways=False)
        verdicts = [verdict for _, comparison in parts for verdict in comparison.verdicts]
        wrong = [verdict for verdict in verdicts if not verdict.error <= verdict.bound]
        if any(verdict.leaf == "all" for verdict in wrong):
            raises = True
        elif any(verdict.side == "candidate" for verdict in wrong):
            if not example.is_mappable:
                return Place(None, family.name, OWN_NOISE)
            return Place(example, f"{family.name} {index}")
        elif wrong:
            return Place(None, family.name, SHARED)
    return Place(None, *_elsewhere(touched, raises=raises))


def _elsewhere(touched: Sequence[Family], *, raises: bool) -> tuple[str, str]:
    """The family without two sides in which it shows, and what that means."""
    if raises:
        return "", RAISES
    for family, index, example in _examples(touched):
        is_two_sided = isinstance(example, Example)
        precision = "float32" if is_two_sided else "float64"
        _, parts = held(family, SEED, index, precisions=(precision,), all_ways=False)
        if any(not comparison.ok for _, comparison in parts if comparison.verdicts):
            if is_two_sided:
                return family.name, SINGLE
            if not isinstance(example, Direct):
                return family.name, RANDOM
            plays = family.name.startswith(("train step", "training run"))
            return family.name, OWN_NOISE if plays else ONE_PACKAGE
    return "", "shows nowhere"


def _examples(families: Sequence[Family]):
    for family in families:
        number = max(MIN_EXAMPLES, *map(len, family.axes.values())) if family.share else 1
        for index in range(number):
            yield family, index, family.example(SEED, index)[1]


def outcome_of(name: str, only_truth: bool) -> dict[str, Any]:
    """What is said of a variant, and what is so."""
    started = time.perf_counter()
    variant = next(variant for variant in VARIANTS if full_name(variant) == name)
    compiled = variant.side != "pgtorch"  # what is compiled knows nothing of PyTorch
    called()  # watches the right code
    known = truth(variant)
    forget(compiled=compiled)
    try:
        with applied(variant.patches):
            place = place_of(variant)
            forget(compiled=compiled)
            said = {} if only_truth or place.example is None else _said(place.example)
    finally:
        forget(compiled=compiled)
    found = {
        "name": name,
        "kind": variant.kind,
        "example": place.name,
        "reason": place.reason,
        "truth": _shown(known.fault),
        "entries": _shown(known.entries),
        "causes_right": causes(variant),
        **said,
        "seconds": round(time.perf_counter() - started, 1),
    }
    if said:
        found["line"] = _judged(variant, known, said)
        first = said["causes"][0][0] if said["causes"] else None
        found["cause_is_right"] = first in (causes(variant) or [None])
    return found


def _said(example: Example) -> dict[str, Any]:
    """The answer for two functions and their inputs, as far as it is judged."""
    stage = example.stage
    try:
        found = parity.first_divergence(
            stage.torch, stage.jax, sides.nested(example.inputs), wrt=example.wrt or None
        )
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return {"raised": text, "pgtorch": None, "pgjax": None, "causes": []}
    if found is None:
        return {"pgtorch": None, "pgjax": None, "causes": []}
    places = {"pgtorch": found.reference, "pgjax": found.candidate}
    return {
        "phase": found.phase,
        **{side: at and [relative(at.file), at.line] for side, at in places.items()},
        "causes": [[cause.trap, cause.evidence] for cause in found.causes],
    }


def _judged(variant: Variant, known: Truth, said: dict[str, Any]) -> str:
    """Whether it is the line at fault, one where that first meets an array, or neither."""
    at = said[variant.side]
    if at is None:
        return "raised" if "raised" in said else "none"
    if known.has(*at, by_entry=False):
        return "fault"
    return "entry" if known.has(*at) else "wrong"


def _shown(lines: frozenset[tuple[str, int]]) -> list[str]:
    return [f"{file}:{number}" for file, number in sorted(lines)]


# --- tables --------------------------------------------------------------------------------------


def table(found: Sequence[dict[str, Any]]) -> str:
    """By kind: how many have two sides, how often line and cause are right; then why not all."""
    kinds = [*dict.fromkeys(each["kind"] for each in found)]
    rows = [_row(kind, [each for each in found if each["kind"] == kind]) for kind in kinds]
    header = ["kind", "variants", "on two sides", "right line", "right cause", "rightly no cause"]
    reasons = Counter(each["reason"] for each in found if each["reason"])
    others = [[reason, str(number)] for reason, number in reasons.most_common()]
    by_kind = results.table(header, [*rows, _row("all", found)])
    return f"{by_kind}\n\n{results.table(['why it is not on two sides', 'variants'], others)}"


def _row(kind: str, found: Sequence[dict[str, Any]]) -> list[str]:
    tried = [each for each in found if "line" in each]
    right = [each for each in tried if each["line"] in ("fault", "entry")]
    known = [each for each in tried if each["causes_right"]]
    unknown = [each for each in tried if not each["causes_right"]]
    return [
        kind,
        str(len(found)),
        str(len(tried)),
        _share(right, tried),
        _share([each for each in known if each["cause_is_right"]], known),
        _share([each for each in unknown if each["cause_is_right"]], unknown),
    ]


def _share(some: Sequence[Any], of_all: Sequence[Any]) -> str:
    return f"{len(some)} of {len(of_all)}" if of_all else ""


def misses(found: Sequence[dict[str, Any]]) -> str:
    """What was not located, or not explained as it is."""
    lines = []
    for each in found:
        if "line" not in each or (each["line"] in ("fault", "entry") and each["cause_is_right"]):
            continue
        said = each.get("raised") or ", ".join(
            f"{side} {'nowhere' if each[side] is None else ':'.join(map(str, each[side]))}"
            for side in ("pgtorch", "pgjax")
        )
        lines += [
            f"{each['name']}  ({each['example']})",
            f"  line {each['line']}: said {said}; is {', '.join(each['truth'] + each['entries'])}",
            f"  cause: said {[t for t, _ in each['causes']]}; is {each['causes_right']}",
        ]
    return "\n".join(lines)


def as_truth(each: dict[str, Any]) -> str:
    """A variant's example, its lines with their text, and its cause."""
    lines = [f"{each['name']}  [{each['example']}] {each['reason']} {each['causes_right']}"]
    for sign, where in (("-", each["truth"]), ("+", each["entries"])):
        for at in where:
            file, _, number = at.rpartition(":")
            text = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(number) - 1]
            lines.append(f"  {sign} {at}  {text.strip()}")
    return "\n".join(lines)


def main() -> int:
    options = tyro.cli(WhereVariants, description=__doc__)
    started = time.perf_counter()
    texts = (options.only or "").split(",")
    wrong = [variant for variant in VARIANTS if not variant.equivalent]
    names = [full_name(v) for v in wrong if any(text in full_name(v) for text in texts)]
    # Variants in PyTorch share what is compiled of the right code.
    tasks = [(name, options.truth) for name in sorted(names, key=lambda n: n.startswith("pgjax"))]
    done, by_name = workers.Counted("variants"), {}
    for _, each in workers.results(outcome_of, tasks, options.jobs, optimise=False):
        done.tell(each["name"])
        by_name[each["name"]] = each
    done.clear()
    found = [by_name[name] for name in names]
    if options.truth:
        print("\n".join(map(as_truth, found)))
        return 0
    seconds = round(time.perf_counter() - started, 1)
    print(f"{misses(found)}\n\n{table(found)}\n{seconds:.0f} s")
    if options.save:
        command = "python -m benchmarks.where_variants --save"
        results.save("where_variants", command, {"seconds": seconds, "variants": found})
        results.put_table(PAGE, TABLE, table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
