"""Evidence laid out for the signatures: pairs to explain, and what there is to explain them by."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from parity.locate.evidence import Arrays, Evidence, Seen
from parity.locate.kinds import kind_of
from parity.yardstick import GATE

NUM_NEAR = 5
"""Values without partner, on either side, that are looked at beside the main pair."""
NUM_ARRAYS = 24
"""Arrays at hand that are tried as operands."""
MAX_SIZE = 20_000
"""Entries of an array beyond which it is not tried as an operand."""
LITERAL = re.compile(r"(?<![\w.])(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)(?![\w.])")


class Pair(NamedTuple):
    """What is to be explained: what should be there, what is, and how closely to fit them.

    It is rich if there are numbers in it that could not be anything.
    """

    reference: Seen
    candidate: Seen
    right: Arrays
    wrong: Arrays
    right_tolerances: tuple[float, ...]
    wrong_tolerances: tuple[float, ...]
    is_rich: bool


class Clues(NamedTuple):
    """Evidence laid out.

    Attributes:
        evidence: What it was made from.
        main: The pair to explain; several if the reference is not known, one for each guess.
        handed: What should be there, and operands of the candidate: what it went on with.
        pairs: These and pairs of the values nearby.
        arrays: Values at hand with an axis or more, nearest first.
        scalars: Values at hand without axes.
        numbers: The scalars, and the numbers written in the two statements, at each input set.
        computed: Those of them that JAX makes of others.
        text: The operations' names and the statements at which the two part, in lower case.
        around: The same of the values nearby.
    """

    evidence: Evidence
    main: tuple[Pair, ...]
    handed: tuple[Pair, ...]
    pairs: tuple[Pair, ...]
    arrays: tuple[Arrays, ...]
    scalars: tuple[Arrays, ...]
    numbers: tuple[tuple[float, ...], ...]
    computed: frozenset[tuple[float, ...]]
    text: str
    around: str

    @property
    def values(self) -> tuple[Arrays, ...]:
        """All that is at hand."""
        return (*self.arrays, *self.scalars)

    @property
    def is_backward(self) -> bool:
        """Whether slopes part."""
        return self.evidence.phase == "backward"

    @property
    def forward(self) -> Arrays | None:
        """The value whose slopes part."""
        seen = self.evidence.forward
        return None if seen is None else _floats(seen.values)

    def support(self, pattern: str) -> int:
        """3 if the statements or operations say it, 1 if only those nearby do, else 0."""
        if re.search(pattern, self.text):
            return 3
        return 1 if re.search(pattern, self.around) else 0

    def says(self, pattern: str) -> bool:
        """Whether the two statements or operations themselves say it."""
        return re.search(pattern, self.text) is not None


class Found(NamedTuple):
    """That a signature fits: the numbers, how much else speaks for it, and a closer remedy."""

    evidence: str
    support: int = 0
    remedy: str = ""
    trap: str = ""
    title: str = ""


class Signature(NamedTuple):
    """A trap, and the function that knows its numbers."""

    trap: str
    title: str
    remedy: str
    check: Callable[[Clues], Found | None]


def laid_out(evidence: Evidence) -> Clues:
    """The clues that there are in what was seen."""
    references, candidates = [*evidence.references[:NUM_NEAR]], [*evidence.candidates[:NUM_NEAR]]
    guesses = [evidence.reference] if evidence.reference is not None else references
    main = [_pair(guess, evidence.candidate) for guess in guesses]
    others = [(r, c) for r in [*guesses, *references] for c in [evidence.candidate, *candidates]]
    near = [p for r, c in _unlike(others, main) if not _is_settled(p := _pair(r, c))]
    seen = [evidence.candidate, *guesses, *([evidence.forward] if evidence.forward else [])]
    nearby = [*references, *candidates, *evidence.matched]
    arrays, scalars = _at_hand(seen, nearby, evidence)
    literals = {float(text) for each in seen for text in LITERAL.findall(each.code)}
    num_sets = len(evidence.candidate.values)
    numbers = [tuple(float(a) for a in scalar) for scalar in scalars]
    numbers += [(x,) * num_sets for x in sorted(literals) if (x,) * num_sets not in numbers]
    constants = (each.values for each in evidence.matched if each.op == "constant")
    written = literals | {abs(float(a.flat[0])) for v in constants for a in v if a.size == 1}
    finite = tuple(n for n in numbers if len(n) == num_sets and np.isfinite(n).all())
    text, around = (" ".join(f"{s.op} {s.code}" for s in each).lower() for each in (seen, nearby))
    return Clues(
        evidence=evidence,
        main=tuple(main),
        handed=tuple(_handed(main)),
        pairs=(*main, *near),
        arrays=tuple(arrays),
        scalars=tuple(scalars),
        numbers=finite,
        computed=frozenset(
            tuple(float(a.flat[0]) for a in map(np.asarray, each.values))
            for each in (evidence.candidate, *candidates, *evidence.matched)
            if kind_of(each) is not None and all(np.size(a) == 1 for a in each.values)
        )
        | {n for n in finite if _is_count(n) and not {abs(x) for x in n} <= written},
        text=text,
        around=around,
    )


def rich(values: Arrays) -> bool:
    """Whether there are two numbers other than 0, 1 and −1 among these."""
    found = np.unique(np.concatenate([a[np.isfinite(a)].ravel() for a in values]))
    return int((~np.isin(found, (0.0, 1.0, -1.0))).sum()) >= 2


def _handed(main: Sequence[Pair]) -> Iterator[Pair]:
    for pair in main[:1]:
        for operand in pair.candidate.operands:
            if len(operand) == len(pair.right) and all(np.ndim(a) for a in operand):
                yield _pair(pair.reference, pair.candidate._replace(values=operand))


def lengths(clues: Clues) -> Iterator[tuple[tuple[int, ...], str]]:
    """Lengths of axes, and their products, at each input set, and what they are lengths of."""
    known = set()
    for values in clues.arrays:
        shapes = [a.shape for a in values]
        if len({len(shape) for shape in shapes}) > 1:
            continue
        axes = range(len(shapes[0]))
        for count in range(1, min(len(axes), 4) + 1):
            for chosen in combinations(axes, count):
                n = tuple(int(np.prod([shape[i] for i in chosen])) for shape in shapes)
                if min(n) > 1 and n not in known:
                    known.add(n)
                    yield n, f"axis {', '.join(map(str, chosen))} of an operand {shapes[0]}"


def _unlike(pairs: Iterable[tuple[Seen, Seen]], main: Sequence[Pair]) -> list[tuple[Seen, Seen]]:
    taken = {(id(pair.reference), id(pair.candidate)) for pair in main}
    found = []
    for reference, candidate in pairs:
        if (key := (id(reference), id(candidate))) not in taken:
            taken.add(key)
            found.append((reference, candidate))
    return found


def _floats(values: Arrays) -> Arrays:
    return tuple(np.asarray(a, np.float64) for a in values)


def _scale(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.abs(finite).max(initial=0.0))


def _is_split(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two shapes differ only in how the axes before the last are counted."""
    same = ours.ndim > 1 and theirs.ndim > 1 and ours.shape[-1] == theirs.shape[-1] > 1
    return same and ours.size == theirs.size and ours.ndim != theirs.ndim


def _pair(reference: Seen, candidate: Seen) -> Pair:
    right, wrong = _floats(reference.values), _floats(candidate.values)
    if all(_is_split(r, w) for r, w in zip(right, wrong, strict=True)):
        split = tuple(r.reshape(w.shape) for r, w in zip(right, wrong, strict=True))
        right = right if _equal(split, wrong) else split
    right_tolerances, wrong_tolerances = [], []
    for ours, theirs in zip(right, wrong, strict=True):
        closest = np.inf
        if ours.shape == theirs.shape:
            with np.errstate(all="ignore"):
                difference = _scale(ours - theirs)
            closest = 1e-2 * difference if difference else np.inf
        for slack, values in ((right_tolerances, ours), (wrong_tolerances, theirs)):
            scale = _scale(values)
            # The gate lets nothing pass that is further off than 1e-11: a fit must be closer.
            slack.append(min(1e-9 * scale, max(closest, 1e-14 * scale)))
    tolerances = tuple(right_tolerances), tuple(wrong_tolerances)
    return Pair(reference, candidate, right, wrong, *tolerances, rich(right) or rich(wrong))


def _at_hand(
    seen: Sequence[Seen], nearby: Sequence[Seen], evidence: Evidence
) -> tuple[list[Arrays], list[Arrays]]:
    """Operands and matched values, those with axes and those without, each once."""
    offered = [operand for each in seen for operand in each.operands]
    offered += [evidence.forward.values] if evidence.forward else []
    offered += [each.values for each in evidence.matched]
    offered += [operand for each in nearby for operand in each.operands]
    arrays: list[Arrays] = []
    scalars: list[Arrays] = []
    for each in offered:
        if len(each) != len(evidence.candidate.values):
            continue
        values = _floats(each)
        kept = arrays if all(a.ndim for a in values) else scalars
        room = len(kept) < NUM_ARRAYS and max(a.size for a in values) <= MAX_SIZE
        if room and not any(_equal(values, other) for other in kept):
            kept.append(values)
    return arrays, [s for s in scalars if not any(a.ndim for a in s)]


def _equal(ours: Arrays, theirs: Arrays) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, theirs, strict=True))


def _is_count(number: Sequence[float]) -> bool:
    """Whether it is a whole number other than 0 and 1, as a count of something is."""
    return all(x == int(x) and abs(x) > 1 for x in number)


def _is_settled(pair: Pair) -> bool:
    """Whether there is nothing to explain in a pair of values: they are the same."""
    return all(
        r.shape == w.shape and np.allclose(r, w, rtol=0, atol=GATE * _scale(r), equal_nan=True)
        for r, w in zip(pair.right, pair.wrong, strict=True)
    )
