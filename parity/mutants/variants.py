"""What a variant is, and how it is put in its place: from outside, and for a while."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock


class Patch(NamedTuple):
    """`wrong(right)` in the place of `owner.name`.

    Attributes:
        owner: A module or a class.
        name: Its attribute.
        wrong: From what is there to what is put there.
        through: Which functions use it, as owners and names: where none of them is called, it
            changes nothing. By default what is replaced is such a function itself.
    """

    owner: Any
    name: str
    wrong: Callable[[Any], Any]
    through: tuple[tuple[Any, str], ...] = ()

    @property
    def functions(self) -> tuple[tuple[Any, str], ...]:
        """Without a call of one of these it changes nothing."""
        return self.through or ((self.owner, self.name),)


class Variant(NamedTuple):
    """One thing done otherwise.

    Attributes:
        name: What is wrong; unlike any other's.
        kind: What sort of mistake it is.
        side: `"pgjax"`, `"pgtorch"`, or `"both"` for a bug that the two share.
        patches: What is put where.
        equivalent: Whether it is the same algorithm, which must pass.
        proof: Why no input can tell it apart, if it is.
    """

    name: str
    kind: str
    side: str
    patches: tuple[Patch, ...]
    equivalent: bool = False
    proof: str = ""


@contextmanager
def applied(patches: tuple[Patch, ...]) -> Iterator[None]:
    """While open, the patches are in place."""
    with ExitStack() as stack:
        for owner, name, wrong, _ in patches:
            stack.enter_context(mock.patch.object(owner, name, wrong(getattr(owner, name))))
        yield


def instead(owner: Any, name: str, wrong: Any, *through: tuple[Any, str]) -> Patch:
    """Something else, whatever was there."""
    return Patch(owner, name, lambda right: wrong, through)


class Lookalike:
    """A module with some names replaced, for another module to see in its place."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def seen_by(owner: Any, module: str, *through: tuple[Any, str], **replaced: Any) -> Patch:
    """`owner` sees names of `module`, which it imports, replaced; it uses them in `through`."""
    return Patch(owner, module, lambda right: Lookalike(right, **replaced), through)


class Package(NamedTuple):
    """What a variant of either package is written with.

    Attributes:
        name: `"pgjax"` or `"pgtorch"`.
        xp: `jax.numpy` or `torch`, which share most names.
        stop: Stops a gradient.
    """

    name: str
    xp: Any
    stop: Callable[[Any], Any]
