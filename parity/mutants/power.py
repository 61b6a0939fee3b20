"""The power of the suite: each known variant is put in its place, and the suite is run on it.

A variant meets some examples of each family, of one shape, in the order of the pipeline and until
one parts: first in float64, where most part, then in float32. A family in which nothing calls what
the variant replaces is left out: its code is the right one. What is called where is watched, not
declared. That the right code passes on these very examples is tested first, as a variant that
changes nothing.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

from parity.hazards import DISCOUNTS, EPISODES, LAWS, RUNS, SIZES
from parity.mutants.catalogue import VARIANTS
from parity.mutants.variants import Variant, applied
from parity.suite.checking import held
from parity.suite.families import families
from parity.suite.family import Family
from parity.suite.stages import BOTH, forget
from parity.tolerance import Mismatch
from parity.workers import results
from pgcore.errors import unknown_choice

MIN_EXAMPLES = 3
"""Of each family, if its longest axis has no more values: every hazard is there. (Of what is
drawn in thousands, one.)"""
SEED = 0
LEFT_OUT = ("whole update", "train step pgjax reparam", "updates with SGD", "gradient depth")
"""Families that take long to compile and see nothing that those beside them do not."""
NOT_WATCHED = ("train step pgjax", "training run")
"""Families that are taken to call everything: watching them takes as long as running them, and
they are met last."""
LEFT_OUT_OF_EQUIVALENT = (
    "chained updates",
    "train step",
    "training run",
    "advantages threshold",
    "make_act",
)
"""Training steps have the same update again, a run's first updates say nothing of it, what is next
to a threshold takes long to be judged, and evaluations call the networks that others compare."""
NARROWED: Mapping[str, tuple[Any, ...]] = {
    "shape": (EPISODES[1],),
    "size": (SIZES[1],),
    "run": (RUNS[2],),
    "config": ("clipped",),
    "discount": DISCOUNTS[:2],
    "max_norm": (0.5,),
    "learning_rate": (1e-3,),
    "early_exit": (True,),
    "dtypes": (BOTH,),
}
"""Of what would be compiled anew, one value each: compiling is what takes the time."""
AS_THEY_ARE = "the packages as they are"

Function = tuple[Any, str]
"""An owner and a name."""


class Outcome(NamedTuple):
    """What the suite made of a variant.

    Attributes:
        name: The variant's side and name.
        kind: What sort of mistake it is.
        equivalent: Whether it must pass.
        proof: Why no input can tell it apart, if so.
        stage: Where it first parts; empty if nowhere.
        mismatch: What parts there.
        raised: Whether it is an exception that parted.
        seconds: How long it took, compilation included.
    """

    name: str
    kind: str
    equivalent: bool
    proof: str
    stage: str
    mismatch: Mismatch | None
    raised: bool
    seconds: float

    @property
    def caught(self) -> bool:
        """Whether anything parted."""
        return self.mismatch is not None

    @property
    def ok(self) -> bool:
        """Whether a wrong variant was caught, or an equivalent one passed."""
        return self.caught is not self.equivalent


def selftest(
    only: Sequence[str] = (),
    *,
    jobs: int = 1,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Runs the suite on the packages as they are, and on every variant of them.

    Args:
        only: Names of variants, with or without their side; all if empty.
        jobs: Processes to share the work.
        tell: Called with each outcome as it is there.

    Raises:
        UsageError: There is no such variant, or number of processes.
    """
    names = [full_name(variant) for variant in VARIANTS]
    for name in only:
        if not any(_is_named(variant, name) for variant in VARIANTS):
            raise unknown_choice("only", name, names)
    chosen = [v for v in VARIANTS if not only or any(_is_named(v, name) for name in only)]
    # Variants in PyTorch share what is compiled of the right code; then what passes takes longest.
    order = sorted(
        range(len(chosen)), key=lambda i: (chosen[i].side != "pgtorch", not chosen[i].equivalent)
    )
    tasks = [("",), *((full_name(chosen[i]),) for i in order)]
    found: dict[str, Outcome] = {}
    for _, outcome in results(outcome_of, tasks, jobs, optimise=False):
        tell(outcome)
        found[outcome.name] = outcome
    return [found[AS_THEY_ARE], *(found[full_name(variant)] for variant in chosen)]


def full_name(variant: Variant) -> str:
    """Its side and its name, unlike any other's."""
    return f"{variant.side}: {variant.name}"


def outcome_of(name: str) -> Outcome:
    """What the suite makes of a variant, or, without a name, of the packages as they are."""
    started = time.perf_counter()
    if not name:
        found = first_parting(narrowed())
        return _outcome(AS_THEY_ARE, "none", True, "nothing is replaced", found, started)
    variant = next(variant for variant in VARIANTS if full_name(variant) == name)
    functions = {function for patch in variant.patches for function in patch.functions}
    touched = [
        family
        for family in narrowed()
        if functions & called()[family.name]
        and not (variant.equivalent and family.name.startswith(LEFT_OUT_OF_EQUIVALENT))
    ]
    compiled = variant.side != "pgtorch"  # what is compiled knows nothing of PyTorch
    forget(compiled=compiled)
    try:
        with applied(variant.patches):
            found = first_parting(touched)
    finally:
        forget(compiled=compiled)
    return _outcome(name, variant.kind, variant.equivalent, variant.proof, found, started)


@cache
def narrowed() -> tuple[Family, ...]:
    """All families, of few shapes."""

    def values(family: Family) -> dict[str, tuple[Any, ...]]:
        laws = family.name.partition(" ")[0] in ("sample", "action", "log_prob", "entropy")
        return {**NARROWED, "shape": (LAWS[2],)} if laws else dict(NARROWED)

    return tuple(
        family.narrowed(values(family))
        for family in families()
        if not family.name.startswith(LEFT_OUT)
    )


@cache
def called() -> dict[str, set[Function]]:
    """Which of the functions that variants replace each family calls, by its name."""
    every = {f for variant in VARIANTS for patch in variant.patches for f in patch.functions}
    found = calls((f for f in narrowed() if not f.name.startswith(NOT_WATCHED)), every)
    return {family.name: found.get(family.name, every) for family in narrowed()}


def calls(chosen: Iterable[Family], functions: Iterable[Function]) -> dict[str, set[Function]]:
    """Which of the functions each family calls, by its name."""
    found: dict[str, set[Function]] = {}
    watched = {(id(owner), name): (owner, name) for owner, name in functions}
    with ExitStack() as stack:
        seen: set[tuple[int, str]] = set()
        for key, (owner, name) in watched.items():
            spy = _spy(getattr(owner, name), key, seen)
            stack.enter_context(mock.patch.object(owner, name, spy))
        for family in chosen:
            forget(compiled=False)
            seen.clear()
            family.example(SEED, 0)[1].trace()
            found[family.name] = {watched[key] for key in seen}
    forget(compiled=False)
    return found


def first_parting(chosen: Iterable[Family]) -> Mismatch | None:
    """The first mismatch in the first examples of these families, of meaning before rounding."""
    chosen = list(chosen)
    return next((each for dtype in BOTH for each in _mismatches(chosen, dtype)), None)


def _mismatches(chosen: Iterable[Family], dtype: str) -> Iterator[Mismatch]:
    for family in chosen:
        number = max(MIN_EXAMPLES, *map(len, family.axes.values())) if family.share else 1
        for index in range(number):
            _, parts = held(family, SEED, index, precisions=(dtype,), all_ways=False)
            for _, comparison in parts:
                yield from comparison.mismatches


def _outcome(
    name: str, kind: str, equivalent: bool, proof: str, found: Mismatch | None, started: float
) -> Outcome:
    seconds = time.perf_counter() - started
    stage = "" if found is None else found.stage
    raised = found is not None and found.reference == "runs"
    return Outcome(name, kind, equivalent, proof, stage, found, raised, seconds)


def _is_named(variant: Variant, name: str) -> bool:
    return name in (variant.name, full_name(variant))


def _spy(right: Callable, key: tuple[int, str], seen: set[tuple[int, str]]) -> Callable:
    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.add(key)
        return right(*args, **kwargs)

    return watched
