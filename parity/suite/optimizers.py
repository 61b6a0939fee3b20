"""Stages of the optimizer: clipping, and one step of Adam with everything that it carries on."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from parity import oracle
from parity.suite.stages import Stage
from pgjax import optim as jax_optim
from pgtorch import optim as torch_optim

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "decay": lambda count: 0.1 / (1 + count),
    "warm-up": lambda count: 0.1 * ((count < 4) * count / 4 + (count >= 4)),
    "in pieces": lambda count: 0.1 * (count < 3) + 0.01 * (count >= 3),
}
"""Learning rates after so many updates, of a Python number or of a traced one. A neighbour's rate
is another one at each count, at those up to 4, and about 3."""
SCHEDULE_COUNTS = (0, 1, 2, 3, 4, 1_000)


@cache
def clip(max_norm: float) -> Stage:
    """Inputs `gradients/*`."""

    def of_torch(gradients):
        parameters = _as_parameters(gradients, gradients)
        torch_optim.clip_by_global_norm(max_norm)(parameters.values())
        return {name: parameter.grad for name, parameter in parameters.items()}

    def of_jax(gradients):
        transform = jax_optim.clip_by_global_norm(max_norm)
        return transform.update(gradients, transform.init(gradients), gradients)[0]

    return Stage(
        "clipped gradient",
        of_torch,
        of_jax,
        oracle=lambda gradients: oracle.clip_by_global_norm(gradients, max_norm),
        exact_zeros=("gradients",),
    )


@cache
def update(learning_rate: float | Callable[[Any], Any], **constants: float) -> Stage:
    """Inputs `gradients/*`, `m/*`, `v/*`, `count`; the change of the parameters is the output.

    A learning rate may follow a schedule: a function of `count`. The change is measured from
    parameters of zero: added to larger ones, its error would be lost in their rounding. Every
    operation is elementwise, so a zero stays one.
    """

    def of_torch(gradients, m, v, count):
        parameters = _as_parameters({name: 0.0 * g for name, g in gradients.items()}, gradients)
        adam = torch_optim.adam(learning_rate, **constants)(parameters.values())
        for name, parameter in parameters.items():
            step = count.to(torch.get_default_dtype())
            adam.state[parameter] = {"step": step, "exp_avg": m[name], "exp_avg_sq": v[name]}
        adam.step()
        state = {name: adam.state[parameter] for name, parameter in parameters.items()}
        return {
            "update": parameters,
            "m": {name: s["exp_avg"] for name, s in state.items()},
            "v": {name: s["exp_avg_sq"] for name, s in state.items()},
            "count": {name: s["step"].to(torch.int64) for name, s in state.items()},
        }

    def of_jax(gradients, m, v, count):
        adam: Any = jax_optim.adam(learning_rate, **constants)
        before = optax.ScaleByAdamState(count=count, mu=m, nu=v)
        change, after = adam.update(gradients, before, jax.tree.map(jnp.zeros_like, gradients))
        counts = dict.fromkeys(gradients, after.count)
        return {"update": change, "m": after.mu, "v": after.nu, "count": counts}

    def by_hand(gradients, m, v, count):
        zeros = {name: np.zeros_like(g) for name, g in gradients.items()}
        rate = learning_rate(int(count)) if callable(learning_rate) else learning_rate
        step = oracle.adam_step(zeros, gradients, m, v, int(count), learning_rate=rate, **constants)
        counts = {name: np.asarray(step.count) for name in gradients}
        return {"update": step.params, "m": step.m, "v": step.v, "count": counts}

    name = "update schedule" if callable(learning_rate) else "update"
    return Stage(name, of_torch, of_jax, by_hand, exact_zeros=("gradients", "m", "v"))


def adam_inputs(
    rng: np.random.Generator, gradients: Mapping[str, np.ndarray], count: int
) -> dict[str, Any]:
    """Gradients, and Adam's state after `count` steps with gradients of that kind."""
    # After t steps the moments are at most 1 − βᵗ times those of the gradients.
    m = {k: (1 - 0.9**count) * rng.uniform(-1, 1, g.shape) * abs(g) for k, g in gradients.items()}
    v = {k: (1 - 0.999**count) * rng.uniform(0.1, 1, g.shape) * g**2 for k, g in gradients.items()}
    trees = {"gradients": gradients, "m": m, "v": v}
    arrays = {
        f"{tree}/{name}": array for tree, each in trees.items() for name, array in each.items()
    }
    return {**arrays, "count": np.asarray(count, np.int32)}


def _as_parameters(
    values: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor]
) -> dict[str, torch.nn.Parameter]:
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in values.items()}
    for name, parameter in parameters.items():
        parameter.grad = gradients[name].clone()
    return parameters
