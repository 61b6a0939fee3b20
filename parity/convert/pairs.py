"""The map itself: which torch tensor is which Flax leaf, followed to the last bit, both ways."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity.convert.leaves import Leaf
from pgcore.errors import UsageError

Arrays = Mapping[str, np.ndarray]
IN_NAMES = "say in names= which Flax module each torch module is"


class Pair(NamedTuple):
    """One tensor, or a part of one: its name on both sides, the layer, how its axes change places.

    `flax` is empty for what Flax has no place for. `kind` is the layer's, with its sizes.
    """

    torch: str
    flax: str
    leaf: Leaf
    layer: str
    kind: str

    @property
    def axes(self) -> tuple[int, ...] | None:
        """`axes[i]` is the torch axis that becomes Flax axis i; None leaves the array as it is."""
        return self.leaf.axes

    def __str__(self) -> str:
        return f"{self.torch} -> {self.flax or 'nothing'}{self.leaf}"


class Layout(NamedTuple):
    """The whole map between two sets of parameters. Printed, it is a line for each tensor."""

    pairs: tuple[Pair, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.pairs))

    @property
    def tensors(self) -> list[str]:
        """The torch names, each once."""
        return list(dict.fromkeys(pair.torch for pair in self.pairs))

    @property
    def paths(self) -> list[str]:
        """The Flax paths, each once."""
        return list(dict.fromkeys(pair.flax for pair in self.pairs if pair.flax))

    @property
    def tied(self) -> dict[str, str]:
        """Torch names that are another's tensor, and that name: Flax has one leaf for both."""
        first: dict[str, str] = {}
        carried = (pair for pair in self.pairs if pair.leaf.role == "carried")
        names = {pair.torch: first.setdefault(pair.flax, pair.torch) for pair in carried}
        return {name: other for name, other in names.items() if name != other}

    def to_flax(
        self, tensors: Arrays, where: str = "the tensors", *, merge_biases: bool = False
    ) -> dict[str, np.ndarray]:
        """Copies of arrays by torch name, as Flax has them, by path.

        Raises:
            UsageError: A tensor is missing, left over, of another number of axes, or not zeros
                where Flax has no place for it.
        """
        require_names(tensors, self.tensors, where)
        for name, other in self.tied.items():
            if not np.array_equal(tensors[name], tensors[other], equal_nan=True):
                raise UsageError(f"{name} is tied to {other}, and their values differ in {where}")
        for pair, array in self._at(tensors, "zero", "added"):
            if np.any(array) and not (merge_biases and pair.leaf.role == "added"):
                raise _not_zeros(pair)
        arrays = {pair.flax: np.array(a, order="C") for pair, a in self._at(tensors, "carried")}
        for pair, array in self._at(tensors, "added"):
            if np.any(array):  # zeros would make -0.0 of a bias 0.0
                _whole_or_part(arrays[pair.flax], pair)[...] += array
        return arrays

    def traced(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """As `to_flax`, of traced arrays, with biases merged; that all names are there is given.

        Raises:
            UsageError: As `to_flax`; or a tensor has no place in Flax at all.
        """
        import jax.numpy as jnp

        arrays = {pair.flax: array for pair, array in self._at(tensors, "carried")}
        for pair, array in self._at(tensors, "added"):
            base = arrays[pair.flax]
            if pair.leaf.into is None:
                arrays[pair.flax] = base + array
                continue
            index, number = pair.leaf.into
            parts = jnp.split(base, number)
            parts[index] = parts[index] + array
            arrays[pair.flax] = jnp.concatenate(parts)
        for pair, _ in self._at(tensors, "zero"):
            raise UsageError(f"{pair.torch}{pair.leaf}: {pair.kind} has no place for it in Flax")
        return arrays

    def to_torch(
        self, arrays: Arrays, where: str = "the Flax tree", *, own: Arrays | None = None
    ) -> dict[str, np.ndarray]:
        """Copies of arrays by Flax path, as torch has them, by name.

        Args:
            arrays: The arrays.
            where: What has them, for the error.
            own: The values of what is torch's own, by name.

        Raises:
            UsageError: A leaf is missing, left over, or has another number of axes.
        """
        require_names(arrays, self.paths, where)
        parts: dict[str, dict[int, np.ndarray]] = {name: {} for name in self.tensors}
        for pair in self.pairs:
            index, _ = pair.leaf.part or (0, 1)
            if pair.leaf.role == "torch's own":
                parts[pair.torch][index] = np.asarray((own or {})[pair.torch])
            elif pair.leaf.role != "zero":
                array = arrays[pair.flax]
                if pair.leaf.role == "added":
                    array = np.zeros_like(_whole_or_part(array, pair))
                parts[pair.torch][index] = pair.leaf.to_torch(array, pair.flax)
        for pair in self.pairs:
            if pair.leaf.role == "zero":
                other = next(iter(parts[pair.torch].values()))
                parts[pair.torch][pair.leaf.part[0] if pair.leaf.part else 0] = np.zeros_like(other)
        return {name: _assembled(found, name) for name, found in parts.items()}

    def _at(self, tensors: Mapping[str, Any], *roles: str) -> Iterator[tuple[Pair, Any]]:
        for pair in self.pairs:
            if pair.leaf.role in roles:
                yield pair, pair.leaf.to_flax(tensors[pair.torch], pair.torch)


def require_names(
    found: Collection[str], expected: Collection[str], where: str, remedy: str = IN_NAMES
) -> None:
    """Raises a `UsageError` that names what is missing in `found`, and what is left over."""
    missing = [name for name in expected if name not in found]
    leftover = [name for name in found if name not in set(expected)]
    if missing or leftover:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(leftover)} left over"] if leftover else []
        raise UsageError(f"{where} {' and '.join(parts)}; {remedy}")


def require_shapes(
    arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], axes: Mapping[str, Any], where: str
) -> None:
    """Raises a `UsageError` unless each array has its shape; `axes` says which were permuted."""
    for name, array in arrays.items():
        if array.shape == shapes[name]:
            continue
        hint = ""
        if sorted(array.shape) == sorted(shapes[name]):
            done = f"permuted by {axes[name]}" if axes[name] else "left as they are"
            hint = f": its kind says that the axes are {done}, and that is not what this needs"
        raise UsageError(
            f"{name} becomes {list(array.shape)}, and {where} has {list(shapes[name])}{hint}"
        )


def _whole_or_part(array: np.ndarray, pair: Pair) -> np.ndarray:
    """A view of what an added leaf is added to."""
    if pair.leaf.into is None:
        return array
    index, number = pair.leaf.into
    return np.split(array, number)[index]


def _assembled(parts: Mapping[int, np.ndarray], name: str) -> np.ndarray:
    found = [parts[index] for index in sorted(parts)]
    if len({part.dtype for part in found}) > 1:
        dtypes = ", ".join(str(part.dtype) for part in found)
        raise UsageError(f"the parts of {name} are of {dtypes}, accepted is one dtype")
    return np.array(np.concatenate(found) if len(found) > 1 else found[0], order="C")


def _not_zeros(pair: Pair) -> UsageError:
    part = "" if pair.leaf.part is None else f" (part {pair.leaf.part[0]} of {pair.leaf.part[1]})"
    if pair.leaf.role == "zero":
        return UsageError(
            f"{pair.torch}{part} is not zeros, and this {pair.kind} has no such array"
        )
    return UsageError(
        f"{pair.torch}{part} is not zeros, and Flax has one bias, {pair.flax}, for the sum of two: "
        "to_flax(merge_biases=True) adds it, which no way back undoes (it comes back as zeros, "
        "the first bias as the sum)"
    )
