"""`first_divergence`: the source lines at which a PyTorch and a JAX computation first part."""

from collections.abc import Callable, Collection, Mapping
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from parity.locate.causes import likely_causes
from parity.locate.correspondence import number_of
from parity.locate.evidence import Cause, Evidence, Seen
from parity.locate.matching import Partners
from parity.locate.page import compiled_like
from parity.locate.places import Location, line_of, of_callable
from parity.locate.search import Searched, search
from parity.locate.syntax import constants, defaults, names_at, numbers_at
from parity.locate.tape import LITERALS, Tape, Value
from parity.locate.unmade import line_without
from parity.prepared import Prepared, prepared

NEAREST = 24
"""Values beside those that part that the signatures of traps look at, of each kind."""


class Divergence(NamedTuple):
    """Where two computations part.

    Attributes:
        phase: `"forward"` if a value differs, `"backward"` if only slopes do.
        reference: The line in PyTorch's code.
        candidate: The line in JAX's code, which is to blame.
        last_agreement: The last lines that agree, PyTorch's and JAX's; `None` if none does.
        causes: The traps that explain the numbers, likeliest first; empty if none is known.
        values: Where both have a value there: its index, PyTorch's number and JAX's.
    """

    phase: str
    reference: Location
    candidate: Location
    last_agreement: tuple[Location, Location] | None
    causes: list[Cause]
    values: tuple[tuple[int, ...], float, float] | None = None

    def __str__(self) -> str:
        return compiled_like(self)

    def plain(self) -> dict[str, Any]:
        """For a machine: plain values alone."""
        places = self.last_agreement
        return {
            "phase": self.phase,
            "reference": self.reference._asdict(),
            "candidate": self.candidate._asdict(),
            "last_agreement": None if places is None else [each._asdict() for each in places],
            "causes": [cause._asdict() for cause in self.causes],
            "values": None if self.values is None else [*map(_plain, self.values)],
        }


def first_divergence(
    reference: Callable[..., Any],
    candidate: Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    wrt: Collection[str] | None = None,
    rename: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | str | None = None,
) -> Divergence | None:
    """The first lines, on both sides, at which a PyTorch and a JAX computation part.

    Both run in float64 on three input sets, the given one and two near it, and every intermediate
    value is recorded with its line, through jit, vmap, scan, while, cond and custom derivatives.
    Values are matched by their numbers, whatever their layout: what is computed in another but
    equivalent way is not blamed. Where all values agree, the slopes of the outputs that PyTorch can
    differentiate are compared likewise.

    Args:
        reference: The PyTorch callable or `torch.nn.Module`, taken to be right.
        candidate: The JAX callable or Flax module (Linen or NNX), which is searched.
        inputs: As those of `parity.check`.
        wrt: The inputs to differentiate in, as those of `parity.check`.
        rename: As that of `parity.check`.
        kinds: As those of `parity.check`.

    Returns:
        The lines, with their values and likely causes; `None` if nothing parts in float64.

    Raises:
        UsageError: As `parity.check`, of which this takes the same arguments.
    """
    ready = prepared(reference, candidate, inputs, wrt=wrt, rename=rename, kinds=kinds)
    return divergence_of(ready, candidate, reference)


def divergence_of(
    ready: Prepared, candidate: Callable[..., Any], reference: Callable[..., Any] | None = None
) -> Divergence | None:
    """The same of two sides that are ready to run."""
    found = search(ready.in_torch, ready.in_jax, ready.given.arrays, ready.moving)
    if found is None:
        return None
    blame = found.blame
    torch, jax = found.partners.torch, found.partners.jax
    sides = candidate, reference or ready.in_torch
    fallback = of_callable(sides[0]), of_callable(sides[1])
    if blame is None:
        return Divergence(found.phase, fallback[1], fallback[0], None, [])
    ours = jax.values[blame.candidate]
    theirs = None if blame.reference is None else torch.values[blame.reference]
    depth = getattr(blame, "depth", 0)
    place = blame.place
    if place is None and found.phase == "forward" and depth == 0:
        place = _number_given(ours, theirs, found)
    if place is None and ours.marks:
        place = ours.place_at(depth)
    other = getattr(blame, "other", None) or (theirs.place if theirs is not None else None)
    if found.phase == "forward":
        place = place or _handed_on(jax, ours, theirs, found.partners.of_torch, sides[0])
        other = other or _handed_on(torch, theirs, ours, found.partners.of_jax, sides[1])
    evidence = _evidence(found)
    return Divergence(
        found.phase,
        other or fallback[1],
        place or fallback[0],
        _agreement(found.partners, blame.candidate, getattr(blame, "evidence", blame.candidate)),
        likely_causes(evidence),
        _apart(evidence),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [*value]
    return value if np.isfinite(value) else str(value)


def _handed_on(
    tape: Tape,
    value: Value | None,
    other: Value | None,
    alike: Mapping[int, list[tuple[int, ...]]],
    function: Callable[..., Any],
) -> Location | None:
    """The line of an output that no operation made; `None` if that is not what a value is."""
    path = next((p for p, i in tape.outputs.items() if value and i == value.index), None)
    if path is None:
        return None
    same = [i for each in alike.get(other.index, ()) for i in each] if other else []
    return line_without(tape, other, same, function, path)


def _number_given(ours: Value, theirs: Value | None, found: Searched) -> Location | None:
    """Where a number that only JAX's operation was given is written, if not on its own line."""
    other = set() if theirs is None else {*theirs.numbers}
    for number in ours.numbers:
        alike = {number, -number}
        if number in (0.0, 1.0) or alike & other or not ours.marks:
            continue
        if alike & numbers_at(ours.marks[0]):
            return None
        is_handed_in = _stands_outside(found, alike, ours.marks[0][0])
        for parameter, value, line in () if is_handed_in else defaults(ours.marks[0]):
            if value in alike and parameter in names_at(ours.marks[0]):
                return line_of(ours.marks[0][0], line)
        for name, value, line in constants(ours.marks[0][0].co_filename):
            if value in alike and name in names_at(ours.marks[0]):
                return line_of(ours.marks[0][0], line)._replace(function="")
        for depth in range(1, len(ours.marks)):
            mark = ours.marks[depth]
            named = {v for parameter, v, _ in defaults(mark) if parameter in names_at(mark)}
            if alike & (numbers_at(mark) | named):
                return ours.place_at(depth)
    return None


def _stands_outside(found: Searched, alike: set[float], code: CodeType) -> bool:
    """Whether a wrong number is also wrong outside a function, whose default it can't be then."""
    region = (found.partners.jax.values[i] for i in found.search.region)
    numbers = (v for v in region if v.is_plain and v.arrays[0].size and number_of(v) in alike)
    return any(code not in {inner for inner, _ in v.marks} for v in numbers)


def _agreement(partners: Partners, index: int, wrong: int) -> tuple[Location, Location] | None:
    """The last lines before a value, on the way to a wrong one, that compute what both have."""
    before = {i for i in partners.jax.ancestors([wrong]) if i < index}
    leading = sorted((before | partners.jax.ancestors([index])) - {index}, reverse=True)
    for each in leading:
        ours = partners.jax.values[each]
        if not ours.marks or ours.place is None:
            continue
        for theirs in partners.of_jax.get(each, ()):
            place = partners.torch.values[theirs[0]].place
            if place is not None:
                return place, ours.place
    return None


def _evidence(found: Searched) -> Evidence:
    """What the signatures of traps look at."""
    partners, blame = found.partners, found.blame
    torch, jax = partners.torch, partners.jax
    if found.phase == "backward":
        value = jax.values[blame.value]
        used = jax.values[blame.candidate]
        theirs = None if blame.reference is None else torch.values[blame.reference]
        return Evidence(
            "backward",
            Seen(theirs.op if theirs else "", blame.theirs, (), theirs.code if theirs else ""),
            Seen(used.op, blame.ours, (), used.code),
            matched=[_seen(jax, jax.values[p]) for p in used.parents],
            forward=_seen(jax, value),
        )
    index = blame.evidence
    reference = None if blame.reference is None else torch.values[blame.reference]
    against = reference if blame.against is None else torch.values[blame.against]
    if against is not None and jax.values[index].is_plain and against.is_plain:
        # A number that is wrong says less than what came of it.
        path = next(iter(found.search.wrong))
        index, numbers = jax.outputs[path], [_seen(jax, jax.values[index])]
        plain, against = [_seen(torch, against)], torch.values[torch.outputs[path]]
    else:
        numbers = plain = []
    inside, before = set(found.search.region), jax.ancestors([index])
    apart = sorted(inside, key=lambda i: abs(i - index))[:NEAREST]
    known = [i for i in sorted(before, reverse=True) if i not in inside][:NEAREST]
    lacking = [torch.values[t[0]] for t in found.search.missing if len(t) == 1]
    middle = 0 if reference is None else reference.index
    lacking.sort(key=lambda value: abs(value.index - middle))
    others = {value.index for value in lacking}
    at_hand = sorted(torch.values, key=lambda value: abs(value.index - middle))
    shared = [v for v in at_hand if v.index not in others and v.op not in LITERALS][:NEAREST]
    paths = [*found.search.wrong]
    outputs = [(torch.values[torch.outputs[p]], jax.values[jax.outputs[p]]) for p in paths[:1]]
    return Evidence(
        "forward",
        None if against is None else _seen(torch, against),
        _seen(jax, jax.values[index]),
        plain + [_seen(torch, value) for value in lacking[:NEAREST] if value is not against],
        numbers + [_seen(jax, jax.values[i]) for i in apart if i != index],
        [_seen(jax, jax.values[i]) for i in known],
        known=[_seen(torch, value) for value in shared],
        outputs=next(((_seen(torch, t), _seen(jax, j)) for t, j in outputs), None),
    )


def _seen(tape: Tape, value: Value) -> Seen:
    operands = [tape.values[parent].arrays for parent in value.parents]
    known = {float(a) for each in operands if not np.ndim(a := each[0])}
    plain = [n for n in value.numbers if n not in known] if value.op.startswith("aten.") else []
    numbers = [tuple(np.array(n) for _ in value.arrays) for n in plain]
    return Seen(value.op, value.arrays, (*operands, *numbers), value.code)


def _apart(evidence: Evidence) -> tuple[tuple[int, ...], float, float] | None:
    """The entry of the given inputs' values at which they part most."""
    if evidence.reference is None:
        return None
    right = np.asarray(evidence.reference.values[0], np.float64)
    wrong = np.asarray(evidence.candidate.values[0], np.float64)
    if right.shape != wrong.shape or right.size == 0:
        return None
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(right - wrong), nan=np.inf)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(apart)), apart.shape))
    return index, float(right[index]), float(wrong[index])
