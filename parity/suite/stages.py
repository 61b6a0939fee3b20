"""What a stage is: one step of the algorithm, in PyTorch, in JAX and by hand."""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, NamedTuple

from parity import sides
from parity.tolerance import Comparison, Decider, Function, compare

Side = Callable[..., Any]
"""Takes a stage's inputs by keyword, as `parity.sides` hands them over."""

BOTH = ("float64", "float32")


class Stage(NamedTuple):
    """One step of the algorithm, three times over; the functions take their inputs by keyword.

    Attributes:
        name: What reports call it.
        torch: The reference.
        jax: The candidate.
        oracle: The definition, in NumPy.
        gradient_oracle: The gradient by hand: the inputs by path to gradients by path.
        decided_by: What decides a discrete output, by its name: scores, or a distance.
        exact_zeros: Inputs whose zeros are no result of rounding.
        is_exact: Whether exact numbers decide in it how it goes on. Nudged by an ulp they would
            decide otherwise, and a yardstick of that would let anything pass: nothing is nudged.
    """

    name: str
    torch: Side
    jax: Side
    oracle: Side | None = None
    gradient_oracle: Function | None = None
    decided_by: Mapping[str, Side] = {}
    exact_zeros: tuple[str, ...] = ()
    is_exact: bool = False

    def reference(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The float64 reference's outputs: what the next stage is fed."""
        return torch_side(self.torch)(inputs)


class Example(NamedTuple):
    """Inputs of a stage, and how it is held to them.

    Attributes:
        stage: Which.
        inputs: By name or path.
        padding: For an input, where it is padding and no data.
        exact_zeros: Inputs whose zeros are exact here.
        wrt: The inputs in which gradients are compared; none if empty.
        values: Whether the values are compared.
        precisions: Those that are compared.
        is_mappable: Whether inputs near these are inputs of the stage too.
    """

    stage: Stage
    inputs: dict[str, Any]
    padding: Mapping[str, Any] = {}
    exact_zeros: tuple[str, ...] = ()
    wrt: tuple[str, ...] = ()
    values: bool = True
    precisions: tuple[str, ...] = BOTH
    is_mappable: bool = True

    def compare(self, *, jit: bool = True, precisions: Collection[str] = BOTH) -> list[Comparison]:
        """JAX against PyTorch against the definition: values, then gradients."""
        kept = tuple(dtype for dtype in self.precisions if dtype in precisions)
        if kept != self.precisions:
            return self._replace(precisions=kept).compare(jit=jit) if kept else []
        found = [self._values(jit)] if self.values else []
        return [*found, self._gradients(jit)] if self.wrt else found

    def vmapped(self) -> list[Comparison]:
        """The values of three input sets in one `vmap`, each against the reference alone."""
        if not (self.values and self.is_mappable):
            return []
        sets = sides.input_sets(self.inputs)
        outputs = jax_mapped(self.stage.jax)(sets)
        return [
            self._replace(inputs=each, precisions=("float64",))._held_to(
                lambda _, index=index: {leaf: array[index] for leaf, array in outputs.items()},
                f"{self.stage.name}, vmapped",
            )
            for index, each in enumerate(sets)
        ]

    def trace(self) -> None:
        """Calls everything that a comparison would, in JAX without computing anything."""
        self.stage.reference(self.inputs)
        sides.jax_trace(self.stage.jax, self.inputs)

    def _values(self, jit: bool) -> Comparison:
        return self._held_to(jax_side(self.stage.jax, jit), self.stage.name)

    def _held_to(self, candidate: Function, name: str) -> Comparison:
        stage = self.stage
        reference = torch_side(stage.torch)
        return compare(
            reference,
            candidate,
            self.inputs,
            stage=name,
            oracle=None if stage.oracle is None else oracle_side(stage.oracle),
            sensitivity=None if stage.is_exact else sides.torch_sensitivity(stage.torch),
            roundings=None if stage.is_exact else sides.torch_roundings(reference),
            deciders={
                leaf: Decider(torch_side(scores), sides.torch_roundings(torch_side(scores)))
                for leaf, scores in stage.decided_by.items()
            },
            padding=sides.everywhere(self.inputs) if stage.is_exact else self.padding,
            exact_zeros=(*stage.exact_zeros, *self.exact_zeros),
            precisions=self.precisions,
        )

    def _gradients(self, jit: bool) -> Comparison:
        stage = self.stage
        reference = torch_gradient(stage.torch, self.wrt)
        weights = sides.cotangents(stage.reference(self.inputs))
        return compare(
            reference,
            jax_gradient(stage.jax, self.wrt, jit),
            {**self.inputs, **weights},
            stage=f"{stage.name} gradient" if self.values else stage.name,
            oracle=stage.gradient_oracle,
            roundings=sides.torch_roundings(reference),
            padding=self.padding,
            exact_zeros=(*stage.exact_zeros, *self.exact_zeros),
            precisions=self.precisions,
        )


# One side for each function, so that a shape is compiled once in a process.
torch_side = cache(sides.torch_values)
torch_gradient = cache(sides.torch_gradients)


@cache
def jax_side(function: Side, jit: bool) -> Function:
    """A JAX callable on NumPy arrays."""
    return sides.jax_values(function, jit=jit)


@cache
def jax_gradient(function: Side, wrt: tuple[str, ...], jit: bool) -> Function:
    """Its gradients."""
    return sides.jax_gradients(function, wrt, jit=jit)


jax_mapped = cache(sides.jax_mapped)


made: list[Any] = []
"""Caches of what is made of the packages' functions before it is called."""


def forget(*, compiled: bool = True) -> None:
    """What is compared next is made, and compiled, anew: something was put in another's place."""
    for cached in [*made, *([jax_side, jax_gradient, jax_mapped] if compiled else [])]:
        cached.cache_clear()


def oracle_side(function: Side) -> Function:
    """A NumPy callable on NumPy arrays, by the same names."""
    return lambda inputs: sides.flat(function(**sides.nested(inputs)))
