"""What is given has its numbers in another place, or lacks what PyTorch does to it first.

Then many values are wrong at once, in every turn of a loop, and no single one of them mends the
outputs. But the array that was given does, for all of its uses: as it was before it was rearranged,
or as PyTorch goes on with it.
"""

from collections.abc import Iterator
from itertools import islice, product

import numpy as np

from parity.locate.kinds import ARRANGING, base_of
from parity.locate.loops import Blame
from parity.locate.places import Location, Mark, span
from parity.locate.plain import Plain
from parity.locate.syntax import first_statement
from parity.locate.tape import Tape, Value

MOST = 8
"""So many arrays are tried."""
MOST_PLACES = 64
"""So many ways of giving back what is not used."""


def exchanged_outputs(search: Plain) -> Blame | None:
    """Outputs of a loop each of which is what PyTorch has of another: where a call gave both."""
    ours, theirs = search.jax.outputs, search.torch.outputs
    if len(search.wrong) < 2:
        return None
    others = {}
    for path in search.wrong:
        known = {t for each in search.partners.of_jax.get(ours[path], ()) for t in each}
        others[path] = next((p for p in search.wrong if p != path and theirs[p] in known), None)
    if set(others.values()) != set(search.wrong):
        return None
    path = next(iter(search.wrong))
    one, other = (search.jax.values[ours[each]] for each in (path, others[path] or path))
    in_loop = one.iteration is not None and other.iteration is not None
    if not in_loop or not one.marks or one.marks[-1:] != other.marks[-1:]:
        return None  # each was made in the other's place
    return Blame(one.index, theirs[path], len(one.marks) - 1, one.index)


def rearranged(search: Plain) -> Blame | None:
    """An array whose entries were moved, with which every output is right if they are not."""
    wrong = [search.target_of(path) for path in search.wrong]
    leading = set.intersection(*(search.jax.ancestors([each.candidate]) for each in wrong))
    pairs = (pair for pair in _moved(search.jax) if pair[0] in leading)
    for tried, (index, source) in enumerate(pairs):
        if tried == MOST:
            break
        arrays = search.jax.values[source].arrays
        if search.has_partner(source) and search.repairs.mends_all({index: arrays}, wrong):
            step = search.step_after(search.jax, {source}, index)
            reference, used = _partner(search, source), index if step is None else step
            if reference is None:
                return None
            uses = search.torch.consumers()[reference]
            shown = next((c for c in uses if search.torch.values[c].marks), reference)
            return Blame(used, shown, search.depth_of(used), index, against=reference)
    return None


def unused(search: Plain) -> Blame | None:
    """Numbers in the place of the inputs that PyTorch goes on with and JAX does not."""
    wrong = [search.target_of(path) for path in search.wrong]
    leading = search.jax.ancestors([*search.targets])
    ours, theirs = search.jax.inputs, search.torch.inputs
    paths = [p for p, index in ours.items() if index not in leading and p in theirs][:MOST]
    given = {path: search.jax.values[ours[path]].arrays for path in paths}
    plain = [v for v in map(search.jax.values.__getitem__, sorted(leading)) if v.is_plain]
    like = [
        [v.index for v in plain if v.marks and v.arrays[0].shape == arrays[0].shape][:MOST]
        for arrays in given.values()
    ]
    # One alone first; then those of one kind, the two states of a cell say, together.
    alone = (((path, i),) for path, found in zip(paths, like, strict=True) for i in found)
    together = (tuple(zip(paths, each, strict=True)) for each in product(*like))
    for places in islice((*alone, *islice(together, MOST_PLACES)), MOST_PLACES):
        changed = {index: given[path] for path, index in places}
        if len(changed) == len(places) > 0 and search.repairs.mends_all(changed, wrong):
            path, index = places[0]
            uses = search.torch.consumers()[theirs[path]]
            shown = next((c for c in uses if search.torch.values[c].marks), theirs[path])
            depth, output = search.depth_of(index), wrong[0]
            return Blame(index, shown, depth, output.candidate, against=output.reference)
    return None


def _moved(tape: Tape) -> Iterator[tuple[int, int]]:
    """The values that have the entries of one array of their shape in other places, and that."""
    sources: list[set[int]] = []
    for value in tape.values:
        arranged = base_of(value) in ARRANGING and value.parents
        found = set().union(*(sources[p] for p in value.parents)) if arranged else {value.index}
        sources.append(set() if value.is_plain and not arranged else found)
        if arranged and len(found) == 1:
            source = tape.values[next(iter(found))]
            if _is_moved(value, source):
                yield value.index, source.index


def _is_moved(value: Value, source: Value) -> bool:
    first, other = value.arrays[0], source.arrays[0]
    if first.shape != other.shape or first.dtype != other.dtype:
        return False
    pairs = zip(value.arrays, source.arrays, strict=True)
    return not all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def _partner(search: Plain, index: int) -> int | None:
    return next((t for t, *others in search.partners.of_jax.get(index, ()) if not others), None)


def left_out(search: Plain) -> Blame | None:
    """An input with which every output is right once it is what PyTorch makes of it first."""
    wrong = [search.target_of(path) for path in search.wrong]
    found = ((i, t) for i in search.jax.inputs.items() for t in _made_of(search, *i))
    for tried, ((_, index), theirs) in enumerate(found):
        if tried == MOST:
            break
        arrays = [
            np.stack([search.torch.values[t].arrays[s] for t in theirs]).reshape(each.shape)
            for s, each in enumerate(search.jax.values[index].arrays)
        ]
        if search.repairs.mends_all({index: arrays}, wrong):
            used = next((c for c in search.consumers[index]), index)
            like = search.jax.values[used].arrays[0].shape == arrays[0].shape
            if like and search.repairs.mends_all({used: arrays}, wrong):
                continue  # what JAX makes of it is wrong, x·mask for where(mask, x, 0) say
            place = _missing_at(search, theirs[0])
            return Blame(used, theirs[0], search.depth_of(used), index, place)
    return None


def _made_of(search: Plain, path: str, index: int) -> Iterator[tuple[int, ...]]:
    """PyTorch's values that JAX does not go on with, made of an input at once, entry for entry.

    What else they are made of, a mask say, JAX has.
    """
    size, given = search.jax.values[index].arrays[0].size, search.torch.inputs.get(path)
    for theirs in (*search.missing, *_dropped(search)):
        rows = [search.torch.values[t] for t in theirs]
        operands = search.own_parents(search.torch, theirs[0])
        is_alike = len(rows) * rows[0].arrays[0].size == size and given in operands
        if is_alike and all(map(search.is_known, rows[0].parents)):
            yield theirs


def _dropped(search: Plain) -> Iterator[tuple[int, ...]]:
    """PyTorch's values, alone and by loops, that JAX computes and makes nothing of."""
    used = search.jax.ancestors([*search.targets])
    ours = search.partners.of_torch
    dropped = {
        i for i, known in ours.items() if not used & {each for group in known for each in group}
    }
    yield from ((i,) for i in sorted(dropped))
    for members in search.torch.families():
        if dropped >= {*members}:
            yield tuple(members)


def _missing_at(search: Plain, theirs: int) -> Location | None:
    """Where the function of the same name begins, if PyTorch's begins with a value."""
    made = search.torch.values[theirs].marks
    codes = {code.co_name: code for value in search.jax.values for code, _ in value.marks}
    for depth, (code, _) in enumerate(made):
        ours = codes.get(code.co_name)
        if ours is not None:
            return first_statement(ours) if _is_first(search.torch, made[depth:]) else None
    return None


def _is_first(tape: Tape, marks: tuple[Mark, ...]) -> bool:
    """Whether nothing is computed in a function before the line that led there."""
    code, line = marks[0][0], span(marks[0]).line
    for value in tape.values:
        depth = len(value.marks) - len(marks)
        inside = depth >= 0 and value.marks[depth + 1 :] == marks[1:]
        if inside and value.marks[depth][0] is code:
            return span(value.marks[depth]).line == line
    return False
