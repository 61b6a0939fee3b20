"""Whole steps on each side's own numbers: stages, loss, gradient, clipping, update, again."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity import sides
from parity.pipeline.feed import Feed, part, rebuilt
from parity.pipeline.optimizers import Stepper
from parity.pipeline.through import Functions, Route, route
from parity.tolerance import Arrays
from pgcore.errors import UsageError

FIRST_STATE = ("m", "v", "count")
"""What an update that the user gives may remember, where the inputs do not have it."""


class Chain(NamedTuple):
    """Several steps on one side, as a callable that is fed by `parity.sides`.

    Attributes:
        before: The stages that make the loss, and what the later ones need.
        after: Those between the gradient and the update.
        stepper: The update.
        roots: What all begins with, by name: the inputs, the parameters, an update's first state.
        wanted: What the stages after the gradient take, and the update, by name.
        steps: How many.
    """

    before: Route
    after: Route
    stepper: Stepper
    roots: list[str]
    wanted: set[str]
    steps: int

    def __call__(self, **tree: Any) -> dict[str, Any]:
        """The parameters after each step, as `step 1` and so on."""
        side, feed = self.before.side, self.before.feed
        template = {name: feed.trees[side][name] for name in self.roots}
        leaves = sides.flat(tree)
        step = self._in_torch if side == "reference" else self._in_jax(template, leaves)
        given = rebuilt(template, leaves)
        params, state, found = given["params"], None, {}
        state = self.stepper.init(params, given)
        for number in range(1, self.steps + 1):
            params, state = step(params, state, given)
            found[f"step {number}"] = params
        return found

    def _in_torch(self, params: Any, state: Any, given: dict[str, Any]) -> tuple[Any, Any]:
        import torch

        leaves = {p: x.detach().requires_grad_() for p, x in sides.flat({"g": params}).items()}
        known = self.before.run({**given, "params": rebuilt({"g": params}, leaves)["g"]})
        if not self._has_own_gradient:
            slopes = [torch.zeros_like(x) for x in leaves.values()]
            if known["loss"].requires_grad:
                each = [*leaves.values()]
                slopes = torch.autograd.grad(
                    known["loss"], each, allow_unused=True, materialize_grads=True
                )
            by_path = dict(zip(leaves, slopes, strict=True))
            known |= self._gradients(rebuilt({"g": params}, by_path)["g"])
        still = {p: _detached(x) for p, x in sides.flat(known).items()}
        return self._updated(rebuilt(known, still), state)

    def _in_jax(self, template: Mapping[str, Any], leaves: Mapping[str, Any]) -> Any:
        import jax

        arrays = {path: leaf for path, leaf in leaves.items() if hasattr(leaf, "dtype")}
        constants = {path: leaf for path, leaf in leaves.items() if path not in arrays}

        def loss(params: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            known = self.before.run({**given, "params": params})
            made = {name: known[name] for name in self.wanted - {*given} if name in known}
            return known.get("loss"), made

        @jax.jit
        def one(params: Any, state: Any, arrays: Arrays) -> tuple[Any, Any]:
            given = rebuilt(template, {**arrays, **constants})
            if self._has_own_gradient:
                made = loss(params, given)[1]
            else:
                slopes, made = jax.grad(loss, has_aux=True)(params, given)
                made = made | self._gradients(slopes)
            return self._updated({**given, **made, "params": params}, state)

        return lambda params, state, given: one(params, state, arrays)

    @property
    def _has_own_gradient(self) -> bool:
        return "gradient" in self.before.functions

    def _gradients(self, slopes: Any) -> dict[str, Any]:
        return self.before.feed.named("gradient", slopes)

    def _updated(self, known: dict[str, Any], state: Any) -> tuple[Any, Any]:
        return self.stepper.step(self.after.run(known), state)


def _detached(leaf: Any) -> Any:
    return leaf.detach() if hasattr(leaf, "detach") else leaf


def chain(
    feed: Feed, side: str, functions: Functions, stepper: Stepper, wanted: set[str], steps: int
) -> Chain:
    """The chain of the stages that what an update wants, by name, is made by."""
    names = [*functions]
    cut = max(names.index(stage) + 1 for stage in ("loss", "gradient") if stage in names)
    after = route(feed, side, {name: functions[name] for name in names[cut:]}, wanted)
    needed = {*wanted, *after.known_names()}
    before = route(feed, side, {name: functions[name] for name in names[:cut]}, {"loss", *needed})
    state = [name for name in FIRST_STATE if name in feed.trees[side] and name in wanted]
    roots = [*dict.fromkeys([*feed.roots(), *state])]
    return Chain(before, after, stepper, roots, needed, steps)


# --- an update that the user gives ---------------------------------------------------------------


def first_state(params: Any, count: int = 0, slopes: Any = None) -> dict[str, Any]:
    """Adam's state for parameters: fresh, or as it is after a few steps with such gradients."""
    leaves = sides.flat({"g": params})
    zeros = rebuilt({"g": params}, {p: np.zeros_like(leaf) for p, leaf in leaves.items()})["g"]
    if slopes is None:
        return {"m": zeros, "v": zeros, "count": np.array(count, np.int32)}
    along = sides.flat({"g": slopes})
    # Gradients of about this size, a little apart from the one that comes; exact in float32.
    moments = {
        "m": {path: leaf / 2 for path, leaf in along.items()},
        "v": {path: _rounded(leaf * leaf) for path, leaf in along.items()},
    }
    return {
        **{name: rebuilt({"g": slopes}, each)["g"] for name, each in moments.items()},
        "count": np.array(count, np.int32),
    }


def _rounded(leaf: np.ndarray) -> np.ndarray:
    return leaf.astype(np.float32).astype(np.float64)


def own_stepper(update: Callable[..., Any], names: list[str], returned: Any) -> Stepper:
    """The user's update; what it takes and returns by one name is carried to the next step.

    Raises:
        UsageError: It does not return the parameters.
    """
    if not hasattr(returned, "keys") and not hasattr(returned, "_fields"):
        raise UsageError(_no_params(f"a {type(returned).__name__}"))
    entries = [*(returned if hasattr(returned, "keys") else returned._fields)]
    if "params" not in entries:
        raise UsageError(_no_params(", ".join(map(str, entries))))
    carried = [name for name in entries if name in names and name != "params"]
    if lost := [name for name in FIRST_STATE if name in names and name not in carried]:
        raise UsageError(_no_params(", ".join(map(str, entries)), lost))

    def step(known: Mapping[str, Any], state: Any) -> tuple[Any, Any]:
        found = update(**{name: state[name] if name in state else known[name] for name in names})
        return part(found, "params"), {name: part(found, name) for name in carried}

    return Stepper(lambda _, known: {name: known[name] for name in carried}, step)


def _no_params(found: str, lost: list[str] | None = None) -> str:
    also = "".join(f" and {name!r}" for name in lost or [])
    return (
        f"stage 'update' returns {found}, accepted is a mapping or named tuple with 'params'{also}"
        ": the next chained step goes on from there"
    )
