"""One array of a layer on both sides: what is taken of it, and in which order its numbers lie."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from pgcore.errors import UsageError

Part = tuple[int, int]
"""`(k, n)`: the k-th, from 0, of n equal parts along the first axis."""
Role = Literal["carried", "added", "zero", "torch's own"]


class Leaf(NamedTuple):
    """One array of a layer, on both sides.

    Attributes:
        torch: Its name in the torch layer.
        flax: Its path in the Flax layer, `kernel` or `hi/kernel`; empty if it has no such array.
        axes: `axes[i]` is the torch axis that becomes Flax axis i; None leaves the array as it is.
        optional: It may be absent (a bias), on both sides then.
        part: Only this part of the torch tensor (a gate); None is all of it.
        flip: Torch axes along which the order is reversed.
        sizes: For each torch axis the sizes of the axes that it is made of, the first the slowest,
            -1 for what is left: `((-1,), (16, 5, 5))` is a weight [out, 16 · 5 · 5]. `axes` and
            `flip` then count these.
        counts: For each Flax axis how many of the axes it is made of, by default one; 0 is an axis
            of size 1.
        role: What becomes of it.

            - `"carried"`: it is the Flax array, or that part of it.
            - `"added"`: Flax has one array for the sum of two (a recurrent layer's biases). This
              one must be zeros and comes back as zeros; `merge_biases=True` adds it.
            - `"zero"`: Flax has nothing of the kind: it must be zeros, and comes back as zeros.
            - `"torch's own"`: no number of the network (a count of batches). It stays in torch, and
              on the way back is the template's.
        into: Of a leaf that is added: the part of the Flax array that it is added to.
        positive: It is a variance: `certify` draws it above zero.
        collection: The collection of Linen's variables that it is in, unless it is a parameter.
    """

    torch: str
    flax: str = ""
    axes: tuple[int, ...] | None = None
    optional: bool = False
    part: Part | None = None
    flip: tuple[int, ...] = ()
    sizes: tuple[tuple[int, ...], ...] | None = None
    counts: tuple[int, ...] | None = None
    role: Role = "carried"
    into: Part | None = None
    positive: bool = False
    collection: str = ""

    def to_flax(self, tensor: Any, name: str) -> Any:
        """Flax's array of torch's, NumPy's or a traced JAX array; the numbers are not touched.

        Raises:
            UsageError: `tensor`, called `name`, has another number of axes, or can't be divided.
        """
        if self.part is not None:
            tensor = _part(tensor, self.part, name)
        if self._is_as_it_is:
            return tensor
        groups = self.sizes or ((-1,),) * len(self.axes or (0,))
        array = _reversed(tensor.reshape(_divided(tensor.shape, groups, name)), self.flip)
        array = array.transpose(self._order)
        return array.reshape([int(np.prod(g)) for g in _grouped(array.shape, self._counts)])

    def to_torch(self, array: Any, name: str) -> Any:
        """Torch's tensor, or its part, of Flax's array: the inverse of `to_flax`.

        Raises:
            UsageError: As `to_flax`.
        """
        if self._is_as_it_is:
            return array
        groups = self.sizes or ((-1,),) * len(self.axes or (0,))
        flat = [size for group in groups for size in group]
        wanted = _grouped([flat[i] for i in self._order], self._counts)
        array = array.reshape(_divided(array.shape, wanted, name))
        array = _reversed(array.transpose(np.argsort(self._order)), self.flip)
        back = _grouped(array.shape, tuple(map(len, groups)))
        return array.reshape([int(np.prod(group)) for group in back])

    @property
    def _is_as_it_is(self) -> bool:
        return self.axes is None and self.sizes is None and self.counts is None and not self.flip

    @property
    def _order(self) -> tuple[int, ...]:
        number = sum(map(len, self.sizes)) if self.sizes else 1
        return tuple(range(number)) if self.axes is None else self.axes

    @property
    def _counts(self) -> tuple[int, ...]:
        return (1,) * len(self._order) if self.counts is None else self.counts

    def __str__(self) -> str:
        """What is done to the array, for a line of a map: `, part 1 of 4, axes (1, 0)`."""
        done = [] if self.part is None else [f"part {self.part[0]} of {self.part[1]}"]
        if self.sizes is not None and any(len(group) > 1 for group in self.sizes):
            done.append(f"sizes {self.sizes}")
        done += [f"axes {self.flip} flipped"] if self.flip else []
        done += [] if self.axes is None else [f"axes {self.axes}"]
        done += [] if self.role == "carried" else [self.role]
        return "".join(f", {word}" for word in done)


def _part(tensor: Any, part: Part, name: str) -> Any:
    index, number = part
    if tensor.ndim == 0 or tensor.shape[0] % number:
        raise UsageError(
            f"{name} has the shape {list(tensor.shape)}, accepted is a first axis of {number} "
            "equal parts"
        )
    size = tensor.shape[0] // number
    return tensor[index * size : (index + 1) * size]


def _divided(shape: Sequence[int], groups: Sequence[Sequence[int]], name: str) -> list[int]:
    """The sizes of all axes, where each axis is made of a group of them, one of which is -1."""
    if len(shape) != len(groups):
        raise UsageError(f"{name} has the shape {list(shape)}, accepted are {len(groups)} axes")
    sizes: list[int] = []
    for length, group in zip(shape, groups, strict=True):
        known = int(np.prod([size for size in group if size != -1]))
        if length % known or (-1 not in group and length != known):
            product = " · ".join("…" if size == -1 else str(size) for size in group) or "1"
            raise UsageError(
                f"{name} has the shape {list(shape)}, accepted instead of {length} is {product}"
            )
        sizes += [length // known if size == -1 else size for size in group]
    return sizes


def _grouped(sizes: Sequence[int], counts: Sequence[int]) -> list[list[int]]:
    ends = np.cumsum(counts)
    return [list(sizes[end - count : end]) for end, count in zip(ends, counts, strict=True)]


def _reversed(array: Any, axes: Sequence[int]) -> Any:
    return array[tuple(slice(None, None, -1 if i in axes else 1) for i in range(array.ndim))]
