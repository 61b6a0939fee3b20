"""One value that two wrong ones are made of, solved for: what it must be for all to be right.

PyTorch may have no such value: it masks what is discounted, where JAX masks the discounts that two
formulas share. Entry by entry it follows from what one of the two should be. It is what is wrong if
the other, and every output, is right with it as well.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from parity.arrays import is_floating
from parity.jax_side import x64
from parity.locate.jax_tape import JaxRun
from parity.locate.plain import Plain
from parity.locate.repairs import layouts

SECONDS = 3.0
"""So much of the processor's time is spent."""
TELLS = 1e-9
"""How much of the steepest slope another must be, for an entry to follow from it."""


def shared_value(search: Plain, runs: Sequence[JaxRun]) -> int | None:
    """The first value of which this holds, or the first wrong flags of what it was made of.

    Values that are wrong come before those that are one number everywhere.
    """
    wrong = [search.target_of(path) for path in search.wrong]
    until = time.process_time() + SECONDS
    for index, users in _shared(search):
        for user in users:
            for right in _rights(search, user):
                if time.process_time() > until:
                    return None
                solved = _solved(search, runs, index, user, right)
                if solved is None or all(np.ptp(each) == 0 for each in solved):
                    continue  # another number everywhere is no value of its own
                if search.repairs.mends_all({index: solved}, wrong):
                    return _first_wrong(search, index)
    return None


def _shared(search: Plain) -> list[tuple[int, list[int]]]:
    """The values that several wrong ones are made of and that are not known to be right; those."""
    region = {*search.region}
    leading = search.jax.ancestors([*search.targets])
    found = []
    for value in (search.jax.values[i] for i in sorted(leading)):
        is_open = value.is_plain or not search.has_partner(value.index)
        if is_open and value.marks and value.arrays[0].ndim and is_floating(value.arrays[0]):
            users = search.users(value.index) & leading
            alike = [u for u in users if _is_alike(search, u, value.arrays[0].size)]
            if len(users) > 1 and alike:
                found.append((value.index, sorted(alike)))
    return sorted(found, key=lambda pair: (pair[0] not in region, pair[0]))


def _is_alike(search: Plain, user: int, size: int) -> bool:
    array = search.jax.values[user].arrays[0]
    return array.size == size and is_floating(array)


def _rights(search: Plain, user: int) -> Iterator[list[np.ndarray]]:
    """PyTorch's values, alone or of a loop together, that one of JAX's may have to be."""
    torch = search.torch.values
    for members in search.missing:
        arrays = torch[members[0]].arrays
        size = search.jax.values[user].arrays[0].size
        if len(members) * arrays[0].size == size and is_floating(arrays[0]):
            yield [np.stack([torch[i].arrays[s] for i in members]) for s in range(len(arrays))]


def _solved(
    search: Plain, runs: Sequence[JaxRun], index: int, user: int, right: Sequence[np.ndarray]
) -> list[np.ndarray] | None:
    """The value with which another is right, entry by entry; `None` if it does not depend on it."""
    found = []
    for s, run in enumerate(runs):
        where = search.jax.places[s]
        now, out = (search.jax.values[i].arrays[s] for i in (index, user))
        wanted = next(layouts(out, right[s]), None)
        if wanted is None:
            return None
        with x64(True):
            moved = run.program.again({where[index]: now + 1}, where[user])
        slope = (np.asarray(moved) - out).reshape(now.shape)
        apart = (wanted - out).reshape(now.shape)
        tells = np.abs(slope) > TELLS * np.abs(slope).max(initial=0.0)
        if not tells.any():
            return None
        found.append(now + np.divide(apart, slope, out=np.zeros_like(now), where=tells))
    return found


def _first_wrong(search: Plain, index: int) -> int:
    """Of what led to a value the first flags that are wrong, or the value itself."""
    leading = search.jax.ancestors([index])
    wrong = (search.jax.values[i] for i in search.edge if i in leading)
    flags = (v.index for v in wrong if v.marks and v.arrays[0].dtype == bool)
    return next(flags, index)
