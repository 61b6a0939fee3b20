"""Which values of two tapes are the same numbers, whatever their layout.

Two values are partners if at every input set they hold the same numbers up to a transpose, a
reshape or a broadcast. How near they must be is the gate's rule (a): a share of the largest, or
what rounded inputs are worth to PyTorch's value. A loop's values are also taken together, in the
order of its iterations and in reverse, so that a scan has a partner in a loop and in neither.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from parity.locate.tape import LITERALS, Tape
from parity.yardstick import GATE, SLACK

Arrays = tuple[np.ndarray, ...]
MAX_AXES = 5
"""Of values with more axes, transposes are not tried."""


class Item(NamedTuple):
    """A value, or those of a loop together, without axes along which nothing changes.

    Attributes:
        members: The values on the tape that it is made of.
        core: Its numbers in float64, at each input set.
        shape: The axes that are left.
        slack: How far a partner's numbers may be off.
        print: What is the same of partners: some sums, at the first input set.
    """

    members: tuple[int, ...]
    core: np.ndarray
    shape: tuple[int, ...]
    slack: float
    print: np.ndarray


class Shelf:
    """Items of one size, found by their prints."""

    def __init__(self, kept: Sequence[Item]) -> None:
        self._kept = kept
        self._prints = np.stack([each.print for each in kept])
        self._allowed = np.stack([_allowed(each) for each in kept])

    def like(self, item: Item) -> Iterable[Item]:
        """Those of which the prints are as near as those of partners are."""
        with np.errstate(invalid="ignore", over="ignore"):  # sums with 2e300 for an infinity
            apart = np.abs(self._prints - item.print) <= self._allowed
        alike = (apart | (self._prints == item.print)).all(axis=1)
        return [each for each, is_near in zip(self._kept, alike, strict=True) if is_near]


class Partners:
    """The partners of JAX's values on PyTorch's tape, and the other way round."""

    def __init__(self, torch: Tape, jax: Tape, slack: Sequence[float]) -> None:
        """Args: the tapes, and for each of PyTorch's values what rounding is worth to it."""
        self.torch, self.jax = torch, jax
        self.of_jax: dict[int, list[tuple[int, ...]]] = {}
        self.of_torch: dict[int, list[tuple[int, ...]]] = {}
        self._shelves = _by_size(items(torch, slack, both_orders=True))
        self.slack = slack
        for item in items(jax, [0.0] * len(jax.values), both_orders=False):
            for other in self.alike(item):
                self._note(item.members, other.members)
        self._note_choices()

    def _note_choices(self) -> None:
        """Whole numbers and flags of loops of which one goes on for longer: those both have."""
        theirs = [(members, _rows(self.torch, members)) for members in self.torch.families()]
        for ours in self.jax.families():
            if self.jax.values[ours[0]].arrays[0].dtype.kind not in "biu":
                continue
            mine = _rows(self.jax, ours)
            for members, rows in theirs:
                shared = min(len(ours), len(members))
                if shared < 2 or len(ours) == len(members) or rows.shape[2] != mine.shape[2]:
                    continue
                if np.array_equal(mine[:, :shared], rows[:, :shared]):
                    for our, their in zip(ours[:shared], members[:shared], strict=True):
                        self._add(our, their)

    def alike(self, item: Item) -> list[Item]:
        """PyTorch's values with the same numbers."""
        shelf = self._shelves.get(math.prod(item.shape))
        return [] if shelf is None else [each for each in shelf.like(item) if same(each, item)]

    def _note(self, ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
        # One by one, where a loop stands against a loop; else each against the whole.
        pairs = (
            zip(ours, theirs, strict=True)
            if len(ours) == len(theirs)
            else ((o, t) for o in ours for t in theirs)
        )
        if len(ours) == len(theirs):
            for our, their in pairs:
                self._add(our, their)
            return
        for our in ours:
            self.of_jax.setdefault(our, []).append(theirs)
        for their in theirs:
            self.of_torch.setdefault(their, []).append(ours)

    def _add(self, our: int, their: int) -> None:
        for table, key, value in ((self.of_jax, our, (their,)), (self.of_torch, their, (our,))):
            found = table.setdefault(key, [])
            if value not in found:
                found.append(value)


def items(tape: Tape, slack: Sequence[float], *, both_orders: bool) -> Iterable[Item]:
    """The values of a tape that can have a partner, alone and by loops."""
    for value in tape.values:
        # One row of flags is soon like another's: a loop over them is matched as a whole.
        in_loop = value.iteration is not None and not value.varies
        if not (in_loop or (value.op in LITERALS and value.is_plain)):
            yield item((value.index,), value.arrays, slack[value.index])
    operands = tape.operand_families() if both_orders else ()
    for members in (*tape.families(), *operands):
        for order in (members, members[::-1]) if both_orders else (members,):
            arrays = tuple(
                np.stack([tape.values[i].arrays[s] for i in order])
                for s in range(len(tape.values[order[0]].arrays))
            )
            yield item(tuple(order), arrays, max(slack[i] for i in order))


def item(members: tuple[int, ...], arrays: Arrays, slack: float = 0.0) -> Item:
    """A value in the form in which it is compared."""
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:  # a branch that gives another shape: no two sets are alike
        arrays = (arrays[0],)
    if arrays[0].dtype.kind == "c":  # as pairs of real numbers
        arrays = tuple(np.stack([np.real(array), np.imag(array)], axis=-1) for array in arrays)
    core: np.ndarray = np.stack([array.astype(np.float64) for array in arrays])
    for axis in range(core.ndim - 1, 0, -1):
        if core.shape[axis] > 0 and _equal(core, first := core.take([0], axis=axis)):
            core = np.asarray(first.take(0, axis=axis))
    finite = np.abs(core[np.isfinite(core)])
    scale = float(finite.max(initial=0.0))
    first = np.nan_to_num(core[0].ravel(), nan=1e300, posinf=2e300, neginf=-2e300)
    with np.errstate(over="ignore"):  # of masked scores, say, which are the least number there is
        summary = np.array([first.sum(), np.abs(first).sum(), first.max(initial=-np.inf)])
    return Item(members, core, core.shape[1:], max(GATE * scale, SLACK * slack), summary)


def same(reference: Item, other: Item) -> bool:
    """Whether two values hold the same numbers at every input set, up to layout."""
    if other.core.size != reference.core.size:
        return False
    return layout(reference.core, other.core, reference.slack) is not None


def _allowed(item: Item) -> np.ndarray:
    """How far a partner's print may be off."""
    total = item.slack * max(1, item.core[0].size)
    sums = np.array([total, total, item.slack])
    with np.errstate(over="ignore"):
        return sums * (1 + 1e-9) + 1e-12 * np.abs(item.print)


def layout(reference: np.ndarray, other: np.ndarray, slack: float) -> np.ndarray | None:
    """The other's numbers laid out as the reference's; the first axis is that of input sets."""
    if other.size != reference.size:
        return None
    flat = reference.reshape(len(reference), -1)
    for arranged in _transposes(other):
        laid = arranged.reshape(flat.shape)
        if near(flat, laid, slack):
            return laid.reshape(reference.shape)
    for order in _orders(reference):  # a reshape that the other side made before its transpose
        laid = reference.transpose(order).reshape(len(reference), -1)
        if near(laid, other.reshape(laid.shape), slack):
            return reference
    return None


def near(left: np.ndarray, right: np.ndarray, slack: float) -> bool:
    """Whether numbers are within the slack; what is not finite must be the same."""
    if left.dtype == right.dtype == bool:
        return bool((left == right).all())
    with np.errstate(invalid="ignore"):
        close = np.abs(left - right) <= slack
    if bool(close.all()):
        return True
    return bool((close | (left == right) | (np.isnan(left) & np.isnan(right))).all())


def _orders(array: np.ndarray) -> Iterable[tuple[int, ...]]:
    axes = range(1, array.ndim)
    if array.ndim - 1 > MAX_AXES:
        return [(0, *axes)]
    return ((0, *order) for order in permutations(axes))


def _transposes(array: np.ndarray) -> Iterable[np.ndarray]:
    return (array.transpose(order) for order in _orders(array))


def _equal(array: np.ndarray, first: np.ndarray) -> bool:
    return bool(((array == first) | (np.isnan(array) & np.isnan(first))).all())


def _rows(tape: Tape, members: Sequence[int]) -> np.ndarray:
    """A loop's values one below the other, at each input set."""
    arrays = [[a.ravel() for a in tape.values[i].arrays] for i in members]
    return np.stack([np.stack([each[s] for each in arrays]) for s in range(len(arrays[0]))])


def _by_size(found: Iterable[Item]) -> dict[int, Shelf]:
    by_size: dict[int, list[Item]] = {}
    for each in found:
        by_size.setdefault(math.prod(each.shape), []).append(each)
    return {size: Shelf(kept) for size, kept in by_size.items()}
