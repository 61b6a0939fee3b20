"""Whether a function of the port is right, and was called with something else, or needlessly.

The test is a run: within one call, and nowhere else, an argument is replaced by another value that
was at hand where it was called; or what a call returned is replaced by what it was given. If that
mends every output, the call is to blame.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from types import CodeType

import numpy as np

from parity.jax_side import x64
from parity.locate.correspondence import is_inside
from parity.locate.jax_tape import JaxRun
from parity.locate.kinds import LAYOUTS, base_of
from parity.locate.matching import near
from parity.locate.places import Location, Mark
from parity.locate.placing import Placing
from parity.locate.plain import Plain

Swaps = dict[int, int]
"""What takes the place of what, by their places on the tape."""
MAX_SWAPS = 80


def wrong_call(search: Placing, runs: Sequence[JaxRun], index: int) -> Location | None:
    """The line on which a wrong argument was handed on, or made, on the way to a value.

    A function inside another finds what it needs around it: its call hands on nothing wrong.
    """
    value = search.jax.values[index]
    for depth in range(1, len(value.marks)):
        if _is_nested(value.marks, depth - 1):
            continue
        inside = _inside(search, value.marks[depth:])
        outside = _boundary(search, inside)
        around = _is_nested(value.marks, depth)
        available = _available(search, () if around else value.marks[depth + 1 :])
        for swaps in islice(_swaps(search, outside, available), MAX_SWAPS):
            if _loses_inputs(search, inside, swaps):
                continue
            if all(_mends(search, runs, s, inside, swaps) for s in range(len(runs))):
                made = search.jax.values[next(iter(swaps))]
                laid_out = base_of(made) in LAYOUTS and made.place is not None
                return made.place if laid_out else value.place_at(depth)
    return None


def needless_call(search: Plain, index: int) -> Location | None:
    """The line of a call, on the way to a value, that should have returned what it was given.

    PyTorch's function of that name does nothing there that JAX lacks: what JAX's makes right is
    what belongs there, and what it goes on to do is too much.
    """
    value = search.jax.values[index]
    wrong = [search.target_of(path) for path in search.wrong]
    for depth in range(1, len(value.marks)):
        if _is_nested(value.marks, depth - 1) or not _is_idle(search, value.marks[depth - 1][0]):
            continue
        inside = _inside(search, value.marks[depth:])
        right = {i for i in {*_boundary(search, inside)} | inside if search.has_partner(i)}
        given = {each: _last_right(search, each, right) for each in _results(search, inside)}
        if {*given} <= {*search.jax.outputs.values()}:
            continue  # the function itself is what is compared
        changed = {i: search.jax.values[g].arrays for i, g in given.items() if g is not None}
        if changed and len(changed) == len(given) and search.repairs.mends_all(changed, wrong):
            return value.place_at(depth)
    return None


def _is_idle(search: Plain, code: CodeType) -> bool:
    """Whether PyTorch has a function of this name, and JAX has all that it computed."""
    made = [v for v in search.torch.values if code.co_name in {c.co_name for c, _ in v.marks}]
    return bool(made) and all(search.is_known(value.index) for value in made)


def _results(search: Plain, inside: set[int]) -> list[int]:
    """What a call computed and something else goes on with."""
    used = {p for v in search.jax.values if v.index not in inside for p in v.parents}
    return sorted(inside & (used | {*search.jax.outputs.values()}))


def _last_right(search: Plain, index: int, right: set[int]) -> int | None:
    """The last of some arrays that led to a result and that is like it."""
    like = (i for i in search.jax.ancestors([index]) & right - {index} if _alike(search, i, index))
    return max((i for i in like if not search.jax.values[i].is_plain), default=None)


def _is_nested(marks: Sequence[Mark], depth: int) -> bool:
    """Whether a line is in a function that is defined in the body of one that led to it."""
    around = marks[depth][0].co_qualname.rpartition(".<locals>.")[0]
    return any(code.co_qualname == around for code, _ in marks[depth + 1 :])


def _inside(search: Placing, outer: tuple) -> set[int]:
    """The values that a call computed."""
    return {value.index for value in search.jax.values if is_inside(value.marks, outer)}


def _boundary(search: Placing, inside: set[int]) -> list[int]:
    """What a call was given: its arguments, and what it found in the scopes around it."""
    found = {p for i in inside for p in search.jax.values[i].parents if p not in inside}
    return sorted(i for i in found if search.jax.values[i].op != "constant")


def _available(search: Placing, outer: tuple) -> set[int]:
    """What was at hand where it was called: what that was given, and what it computed."""
    if not outer:
        return {value.index for value in search.jax.values}
    inside = _inside(search, outer)
    return inside | {*_boundary(search, inside)}


def _swaps(search: Placing, outside: list[int], available: set[int]) -> Iterator[Swaps]:
    values = search.jax.values
    for swaps in _other_trees(search, outside):
        if {*swaps.values()} <= available:
            yield swaps
    floats = [i for i in outside if not values[i].is_plain]
    for one, other in combinations(floats, 2):
        if _alike(search, one, other):
            yield {one: other, other: one}
    for one in floats:
        before = [i for i in available if i < one or values[i].is_input]
        for other in sorted(before, key=lambda i: abs(i - one)):
            if other != one and _alike(search, one, other) and search.has_partner(other):
                yield {one: other}


def _other_trees(search: Placing, outside: list[int]) -> Iterator[Swaps]:
    """All inputs below one name replaced by those below another: another network's weights."""
    paths = {index: path for path, index in search.jax.inputs.items()}
    trees: dict[str, dict[str, int]] = {}
    for path, index in search.jax.inputs.items():
        name, _, leaf = path.rpartition("/")
        if name:
            trees.setdefault(name, {})[leaf] = index
    given: dict[str, dict[str, int]] = {}
    for index in outside:
        name, _, leaf = paths.get(search.laid_out_from(search.jax, index), "").rpartition("/")
        if name:
            given.setdefault(name, {})[leaf] = index
    for name, leaves in given.items():
        for other, theirs in trees.items():
            if other != name and leaves.keys() <= theirs.keys():
                swaps = {index: theirs[leaf] for leaf, index in leaves.items()}
                if all(_alike(search, a, b) for a, b in swaps.items()):
                    yield swaps


def _loses_inputs(search: Placing, inside: set[int], swaps: Swaps) -> bool:
    """Whether an output would no longer depend on an input on which PyTorch's depends."""
    for path in search.wrong:
        wanted = search.jax.outputs[path]
        needed = search.inputs_of_torch[search.torch.outputs[path]]
        before = search.inputs_of_jax[wanted]
        if not needed & before <= _inputs_after(search, inside, swaps, wanted):
            return True
    return False


def _inputs_after(search: Placing, inside: set[int], swaps: Swaps, wanted: int) -> set[str]:
    """The inputs that a value depends on if a call is given other arguments."""
    paths = {index: path for path, index in search.jax.inputs.items()}
    found, seen, open_ = set(), {wanted}, [wanted]
    while open_:
        index = open_.pop()
        found |= {paths[index]} if index in paths else set()
        for parent in search.jax.values[index].parents:
            other = swaps.get(parent, parent) if index in inside else parent
            if other not in seen:
                seen.add(other)
                open_.append(other)
    return found


def _alike(search: Placing, one: int, other: int) -> bool:
    mine, others = search.jax.values[one].arrays[0], search.jax.values[other].arrays[0]
    return mine.shape == others.shape and mine.dtype == others.dtype


def _mends(search: Placing, runs: Sequence[JaxRun], s: int, inside: set[int], swaps: Swaps) -> bool:
    where, program = search.jax.places[s], runs[s].program
    changed = {where[one]: program.arrays[where[other]] for one, other in swaps.items()}
    places = {where[i] for i in inside}
    for path, slack in search.wrong.items():
        wanted = where[search.jax.outputs[path]]
        with x64(True):
            new = program.again_inside(changed, places, wanted)
        right = search.torch.values[search.torch.outputs[path]].arrays[s]
        found = np.asarray(program.arrays[wanted] if new is None else new)
        if found.shape != right.shape or not near(right, found, slack):
            return False
    return True
