"""Variants of the environment, and of how weights are carried across."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp

from parity.mutants.variants import Patch, Variant, instead
from pgjax import checkpoint as jax_checkpoint
from pgjax.envs import cartpole as jax_cartpole
from pgtorch import checkpoint as torch_checkpoint
from pgtorch.envs import cartpole as torch_cartpole


def of_environment() -> Iterator[Variant]:
    """CartPole's constants, its integration, and how an episode ends."""

    def constant(name: str, constant: str, value: float, module: Any = jax_cartpole) -> Variant:
        package = "pgjax" if module is jax_cartpole else "pgtorch"
        patch = instead(module, constant, value, (module, "step"), (module, "draw_reset"))
        return Variant(name, "environment", package, (patch,))

    def stepping(name: str, kind: str, after: Callable, module: Any = jax_cartpole) -> Variant:
        package = "pgjax" if module is jax_cartpole else "pgtorch"
        return Variant(name, kind, package, (Patch(module, "step", after),))

    yield constant("15 degrees for 12", "THETA_LIMIT_RAD", 0.2617993877991494)
    yield constant("gravity of 9.81", "GRAVITY", 9.81)
    yield constant("push of 9 N", "FORCE", 9.0)
    yield constant("actions exchanged", "FORCE", -10.0, torch_cartpole)
    yield constant("the pole's whole length", "HALF_POLE_LENGTH", 1.0)
    yield constant("mass plus length for mass times length", "POLE_MASS_LENGTH", 0.6)
    yield constant("the cart's mass for the total", "TOTAL_MASS", 1.0, torch_cartpole)
    yield constant("steps of 10 ms", "TIME_STEP", 0.01)
    yield constant("the track ends at 2.5 m", "X_LIMIT", 2.5, torch_cartpole)
    yield constant("first states within 0.5", "CARTPOLE_RESET_BOUND", 0.5)
    yield constant("first states within 0.1", "CARTPOLE_RESET_BOUND", 0.1, torch_cartpole)
    ended = "terminated against truncated"
    yield stepping(
        "one step fewer", ended, lambda f: lambda s, a, max_steps: f(s, a, max_steps - 1)
    )
    yield stepping("never truncated", ended, lambda f: lambda s, a, max_steps: f(s, a, 10**6))
    yield stepping(
        "truncation told as termination",
        ended,
        _with(lambda state, obs, reward, over, cut: (state, obs, reward, over | cut, cut)),
        torch_cartpole,
    )
    yield stepping(
        "terminated and truncated exchanged",
        ended,
        _with(lambda state, obs, reward, over, cut: (state, obs, reward, cut, over)),
    )
    yield stepping(
        "termination hides truncation",
        ended,
        _with(lambda state, obs, reward, over, cut: (state, obs, reward, over, cut & ~over)),
    )
    yield stepping(
        "no reward for the last step",
        "environment",
        _with(lambda state, obs, reward, over, cut: (state, obs, reward * ~over, over, cut)),
    )
    yield stepping(
        "the step before is observed",
        "environment",
        lambda f: lambda s, a, **m: _late(f, s, a, **m),
    )
    for module in (jax_cartpole, torch_cartpole):
        yield Variant(
            "500 steps whatever is asked for",
            ended,
            "pgjax" if module is jax_cartpole else "pgtorch",
            (Patch(module, "CartPole", lambda right: lambda max_steps=500: right(500)),),
        )
    unlike = Patch(jax_cartpole, "CartPole", lambda right: _told_otherwise(right))
    yield Variant("ends at max_steps and says 500", ended, "pgjax", (unlike,))
    yield stepping("steps not counted", "schedules and counters", _uncounted)
    yield stepping("velocities first, then positions", "environment", _semi_implicit)
    rounded = instead(
        jax_cartpole, "_observe", lambda physics: physics.astype(jnp.bfloat16).astype(jnp.float32)
    )
    yield Variant("observations in bfloat16", "environment", "pgjax", (rounded,))
    unrounded = instead(torch_cartpole, "_observe", lambda physics: physics)
    yield Variant("observations not rounded", "environment", "pgtorch", (unrounded,))


def _with(change: Callable) -> Callable:
    return lambda right: lambda *args, **kwargs: change(*right(*args, **kwargs))


def _late(right: Callable, state: Any, action: Any, **limit: int) -> Any:
    after, _, *rest = right(state, action, **limit)
    return (after, state.physics.astype(jnp.float32), *rest)


def _told_otherwise(right: Callable) -> Callable:
    return lambda max_steps=500: right(max_steps)._replace(max_steps=500)


def _uncounted(right: Callable) -> Callable:
    def step(state, action, *args, **kwargs):
        after, *rest = right(state, action, *args, **kwargs)
        return (after._replace(time=state.time), *rest)

    return step


def _semi_implicit(right: Callable) -> Callable:
    def step(state, action, max_steps=500):
        after, *rest = right(state, action, max_steps)
        x, _, theta, _ = jnp.moveaxis(state.physics, -1, 0)
        _, v_after, _, omega_after = jnp.moveaxis(after.physics, -1, 0)
        tau = jax_cartpole.TIME_STEP
        moved = jnp.stack([x + tau * v_after, v_after, theta + tau * omega_after, omega_after], -1)
        return (after._replace(physics=moved), moved.astype(jnp.float32), *rest[1:])

    return step


# --- weights -------------------------------------------------------------------------------------


def of_weights() -> Iterator[Variant]:
    """Weights carried between the packages' layouts."""

    def written(change: Callable) -> Callable:
        return lambda right: lambda params: change(right(params))

    yield Variant(
        "square kernels written untransposed",
        "weight conversion",
        "pgjax",
        (Patch(jax_checkpoint, "params_to_tensors", written(_untransposed)),),
    )
    yield Variant(
        "square kernels read untransposed",
        "weight conversion",
        "pgjax",
        (
            Patch(
                jax_checkpoint,
                "tensors_to_params",
                lambda right: lambda tensors, params: right(_untransposed(tensors), params),
            ),
        ),
    )
    yield Variant(
        "two biases exchanged on reading",
        "weight conversion",
        "pgtorch",
        (
            Patch(
                torch_checkpoint,
                "tensors_to_params",
                lambda right: lambda tensors, params: right(_exchanged(tensors), params),
            ),
        ),
    )
    yield Variant(
        "weights rounded to float32 on writing",
        "weight conversion",
        "pgtorch",
        (
            Patch(
                torch_checkpoint,
                "params_to_tensors",
                written(lambda tensors: {k: v.astype("float32") for k, v in tensors.items()}),
            ),
        ),
    )


def _untransposed(tensors: dict[str, Any]) -> dict[str, Any]:
    return {
        name: array.T if array.ndim == 2 and array.shape[0] == array.shape[1] else array
        for name, array in tensors.items()
    }


def _exchanged(tensors: dict[str, Any]) -> dict[str, Any]:
    """Biases of two layers that are as wide as each other, exchanged."""
    names = [name for name in tensors if name.endswith(".bias")]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if tensors[one].shape == tensors[other].shape:
                return {**tensors, one: tensors[other], other: tensors[one]}
    return tensors
