"""The stages composed, from `params` to `loss`, so that a gradient can be taken through them."""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, NamedTuple

from parity import sides
from parity.pipeline.feed import Feed, rebuilt

Functions = Mapping[str, Callable[..., Any]]
Swap = Callable[[Any, Any], Any]


class Route(NamedTuple):
    """The stages of one side that lead to a goal, in order, each a callable of known names."""

    feed: Feed
    side: str
    functions: Functions

    def run(self, known: dict[str, Any], fed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Everything known after the last stage.

        With `fed`, leaves by path, each stage's floating outputs are replaced by these, while
        derivatives go to what was computed; the discrete ones are replaced altogether.
        """
        swap = torch_fed if self.side == "reference" else jax_fed()
        for stage, function in self.functions.items():
            names = self.feed.takes[self.side][stage]
            output = function(**{name: known[name] for name in names})
            if fed is not None:
                output = _swapped(stage, output, fed, swap)
            known = known | self.feed.named(stage, output)
        return known

    def known_names(self) -> set[str]:
        """What its stages take."""
        return {name for stage in self.functions for name in self.feed.takes[self.side][stage]}


def route(
    feed: Feed, side: str, functions: Functions, wanted: Collection[str], moved_by: str = ""
) -> Route:
    """The stages, of these, that what is wanted by name is made by, in their order.

    With `moved_by`, only those that depend on this name.
    """
    needed: list[str] = []
    names = set(wanted)
    for stage in reversed([*functions]):
        bound = set(feed.binds[stage])
        if bound & names:
            needed.insert(0, stage)
            names = names - bound | set(feed.takes[side][stage])
    if moved_by:
        needed = _dependent(feed, side, needed, moved_by)
    return Route(feed, side, {stage: functions[stage] for stage in needed})


def _dependent(feed: Feed, side: str, stages: list[str], name: str) -> list[str]:
    moved, found = {name}, []
    for stage in stages:
        bound = set(feed.binds[stage])
        if moved & set(feed.takes[side][stage]):
            found.append(stage)
            moved |= bound
        else:
            moved -= bound
    return found


def fed_loss(feed: Feed, side: str, functions: Functions) -> Callable[..., Any]:
    """The loss as a function of everything fed, through the side's own stages.

    It is fed from arrays by path: the inputs, and the output of each stage under its name.
    """
    moving = route(feed, side, functions, ["loss"], "params")
    roots = feed.roots()
    template = {name: feed.trees[side][name] for name in [*roots, *functions]}

    def call(**tree: Any) -> Any:
        leaves = sides.flat(tree)
        given = rebuilt(template, leaves)
        known = {name: given[name] for name in roots}
        for stage, function in functions.items():
            if stage in moving.functions:
                known = moving._replace(functions={stage: function}).run(known, leaves)
            else:
                known |= feed.named(stage, given[stage])
        return known["loss"]

    return call


def _swapped(stage: str, output: Any, fed: Mapping[str, Any], swap: Swap) -> Any:
    computed = sides.flat({stage: output})
    leaves = {
        path: swap(leaf, fed[path]) if path in fed else leaf for path, leaf in computed.items()
    }
    return rebuilt(output, leaves, stage)


def torch_fed(computed: Any, fed: Any) -> Any:
    """The fed value, with derivatives passed to what was computed, be it NaN or not."""
    import torch

    class Fed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, computed: Any, fed: Any) -> Any:
            return fed.clone()

        @staticmethod
        def backward(ctx: Any, *slopes: Any) -> Any:
            return slopes[0], None

    is_floating = isinstance(computed, torch.Tensor) and computed.dtype.is_floating_point
    return Fed.apply(computed, fed) if is_floating else fed


@cache
def jax_fed() -> Swap:
    """`torch_fed` in JAX."""
    import jax
    import jax.numpy as jnp

    @jax.custom_jvp
    def swapped(computed: Any, fed: Any) -> Any:
        return fed

    @swapped.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return primals[1], tangents[0]

    def fed_instead(computed: Any, fed: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(computed), jnp.floating):
            return fed
        return swapped(jnp.asarray(computed).astype(fed.dtype), fed)

    return fed_instead
