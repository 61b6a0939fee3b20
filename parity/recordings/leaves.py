"""Arrays of any framework as NumPy's, to the last bit, and trees of them by path."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity.arrays import is_number
from pgcore.errors import UsageError

_SIZES = {"int": (8, 16, 32, 64), "uint": (8, 16, 32, 64), "float": (16, 32, 64)}
DTYPES = {
    "bool": "BOOL",
    **{f"{kind}{n}": f"{kind[0].upper()}{n}" for kind, sizes in _SIZES.items() for n in sizes},
    "bfloat16": "BF16",
}
"""What a recording may hold, with safetensors' name for it."""
PRECISIONS = ("float64", "float32", "bfloat16", "float16")
"""Of the runs of an output, in the order in which they are judged: meaning before rounding."""


class Leaf(NamedTuple):
    """One array.

    Attributes:
        dtype: Its name, as `array.dtype` has it but for `bfloat16`, which NumPy lacks.
        array: The numbers; those of a bfloat16 array as the float32 numbers that they are.
        is_number: Whether it was a plain Python number, which has no dtype.
    """

    dtype: str
    array: np.ndarray
    is_number: bool = False

    @property
    def is_floating(self) -> bool:
        """Whether it holds floating numbers."""
        return self.array.dtype.kind == "f"

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.array.shape)}"

    def to_bytes(self) -> bytes:
        """The bits of its dtype, little end first."""
        array = self.array
        if self.dtype == "bfloat16":
            array = (array.view(np.uint32) >> 16).astype(np.uint16)
        return array.astype(array.dtype.newbyteorder("<")).tobytes()

    @classmethod
    def from_bytes(cls, dtype: str, shape: tuple[int, ...], data: bytes) -> "Leaf":
        """What `to_bytes` made bytes of.

        Raises:
            ValueError: There are not as many as the shape has.
        """
        if dtype == "bfloat16":
            return cls(dtype, _widened(np.frombuffer(data, "<u2").reshape(shape)))
        kind = np.dtype(dtype)
        return cls(dtype, np.frombuffer(data, kind.newbyteorder("<")).reshape(shape).astype(kind))


def leaf_of(where: str, value: Any) -> Leaf:
    """A copy of an array of torch, JAX or NumPy, or of a plain number.

    Raises:
        UsageError: It is none of these, or of another dtype than those of `DTYPES`.
    """
    try:
        dtype, array = _as_numpy(value)
    except Exception as error:  # a traced value, a sparse tensor: each has an error of its own
        kind = type(value).__name__
        said = str(error).partition("\n")[0]
        raise UsageError(
            f"{where} is a {kind} that NumPy can't read ({said}), accepted is a dense array of "
            "torch, JAX or NumPy: what jax.jit traces has no numbers yet, record what it returns"
        ) from error
    if dtype == "bfloat16":
        return Leaf(dtype, _widened(array))
    if dtype not in DTYPES:
        said = type(value).__name__ if array.dtype.kind in "OUS" else dtype
        hint = ": record its real and its imaginary part" if array.dtype.kind == "c" else ""
        raise UsageError(f"{where} is of {said}, accepted are {', '.join(DTYPES)}{hint}")
    return Leaf(dtype, np.array(array, array.dtype.newbyteorder("=")), is_number(value))


def _as_numpy(value: Any) -> tuple[str, np.ndarray]:
    """The dtype's name and the array, or the bits where it is bfloat16."""
    if not hasattr(value, "detach"):
        array = np.asarray(value)
    else:
        import torch

        tensor = value.detach().cpu().resolve_neg()
        if tensor.dtype == torch.bfloat16:
            return "bfloat16", tensor.contiguous().view(torch.int16).numpy().view(np.uint16)
        array = tensor.numpy()
    name = array.dtype.name
    return name, array.view(np.uint16) if name == "bfloat16" else array


def _widened(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers that begin with these 16 bits."""
    return np.array(bits.astype(np.uint32) << 16).view(np.float32)


def paths(tree: Any, where: str) -> dict[str, Any]:
    """The leaves of a nest of mappings, named tuples and sequences, by path; a lone one is `value`.

    Raises:
        UsageError: Two of them have one path, or a key is no string.
    """
    found: dict[str, Any] = {}
    for path, leaf in _leaves(tree, "", where):
        if (path := path or "value") in found:
            raise UsageError(f"{where} has two leaves of the path {path!r}, accepted is one")
        found[path] = leaf
    return found


def _leaves(tree: Any, path: str, where: str) -> Iterator[tuple[str, Any]]:
    children = children_of(tree, where)
    if children is None:
        yield path, tree
        return
    for name, child in children:
        yield from _leaves(child, f"{path}/{name}" if path else str(name), where)


def children_of(tree: Any, where: str) -> list[tuple[str, Any]] | None:
    """What is directly in a nest, by name; `None` if this is none."""
    if isinstance(tree, Mapping):
        for key in tree:
            if not isinstance(key, str):
                raise UsageError(f"{where} has the key {key!r}, accepted is a string")
        return [*tree.items()]
    if isinstance(tree, tuple) and (fields := getattr(tree, "_fields", None)):
        return [*zip(fields, tree, strict=True)]
    if isinstance(tree, tuple | list):
        return [(str(index), child) for index, child in enumerate(tree)]
    return [] if tree is None else None
