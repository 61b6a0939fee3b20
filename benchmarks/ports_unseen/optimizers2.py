"""Lion, LAMB and Adafactor over five steps on given gradients, on a cosine schedule.

Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2; You et al. 2020,
https://arxiv.org/abs/1904.00962, algorithm 2, with vectors left out of decay and trust ratio;
Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235, algorithms 4 and 5; Loshchilov and Hutter
2017, https://arxiv.org/abs/1608.03983, equation 5.

    Lion:       θ ← θ − η (sign(β₁ m + (1 − β₁) g) + λ θ),    m ← β₂ m + (1 − β₂) g
    LAMB:       u = m̂ / (√v̂ + ε) + λ θ,    θ ← θ − η ‖θ‖ / ‖u‖ u
    Adafactor:  v̂ = R Cᵀ / mean(R),  u = g / √v̂,  θ ← θ − η max(ε₂, rms θ) u / max(1, rms(u) / d)
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.ports.faults import Fault

PEAK, FLOOR = 0.1, 0.01
B1, B2, LION_B2, EPS, DECAY = 0.9, 0.98, 0.95, 1e-3, 0.2
FACTOR_EPS, LEAST_SCALE, THRESHOLD, EXPONENT = 1e-4, 1e-3, 0.8, 0.8

Tree = Mapping[str, Any]
"""Arrays by name; those of the gradients have the step as first axis."""


def _rates_torch(num_steps: int) -> list[float]:
    turns = (math.cos(math.pi * t / num_steps) for t in range(num_steps))
    return [FLOOR + (PEAK - FLOOR) * (1 + turn) / 2 for turn in turns]


def _lion_torch(param: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    exp_avg = torch.zeros_like(param)
    for rate, grad in zip(_rates_torch(len(grads)), grads, strict=True):
        param = param * (1 - rate * DECAY)
        param = param - rate * torch.lerp(exp_avg, grad, 1 - B1).sign()
        exp_avg = torch.lerp(exp_avg, grad, 1 - LION_B2)
    return param


def _lamb_torch(param: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    exp_avg, exp_avg_sq = torch.zeros_like(param), torch.zeros_like(param)
    for t, (rate, grad) in enumerate(zip(_rates_torch(len(grads)), grads, strict=True), start=1):
        exp_avg = B1 * exp_avg + (1 - B1) * grad
        exp_avg_sq = B2 * exp_avg_sq + (1 - B2) * grad.square()
        denominator = (exp_avg_sq / (1 - B2**t)).sqrt() + EPS
        update = exp_avg / (1 - B1**t) / denominator
        if param.ndim > 1:
            update = update + DECAY * param
            update = update * (param.norm() / update.norm())
        param = param - rate * update
    return param


def _rms_torch(x: torch.Tensor) -> torch.Tensor:
    return x.norm() / math.sqrt(x.numel())


def _adafactor_torch(param: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    row = col = full = 0.0
    for t, (rate, grad) in enumerate(zip(_rates_torch(len(grads)), grads, strict=True), start=1):
        beta = 1 - t**-EXPONENT
        square = grad**2 + FACTOR_EPS
        if param.ndim > 1:
            row = beta * row + (1 - beta) * square.mean(dim=-1)
            col = beta * col + (1 - beta) * square.mean(dim=-2)
            second = torch.outer(row / row.mean(), col)
        else:
            second = full = beta * full + (1 - beta) * square
        update = grad * second.rsqrt()
        update = update / torch.clamp(_rms_torch(update) / THRESHOLD, min=1.0)
        param = param - rate * torch.clamp(_rms_torch(param), min=LEAST_SCALE) * update
    return param


def in_torch(
    *, params: Mapping[str, torch.Tensor], grads: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, torch.Tensor]]:
    """The weights that each optimizer ends with."""
    optimizers = {"lion": _lion_torch, "lamb": _lamb_torch, "adafactor": _adafactor_torch}
    return {
        name: {leaf: optimize(param, grads[leaf]) for leaf, param in params.items()}
        for name, optimize in optimizers.items()
    }


def _cosine(count: Any, num_steps: int) -> jax.Array:
    return FLOOR + 0.5 * (PEAK - FLOOR) * (1 + jnp.cos(jnp.pi * count / num_steps))


def _blend(keep: float, old: Tree, new: Tree) -> Tree:
    return jax.tree.map(lambda o, n: keep * o + (1 - keep) * n, old, new)


def _lion(params: Tree, grads: Tree, num_steps: int) -> Tree:
    def step(carry: tuple[Tree, Tree], now: tuple[jax.Array, Tree]) -> Any:
        params, momentum = carry
        count, grads = now
        rate = _cosine(count, num_steps)
        direction = jax.tree.map(jnp.sign, _blend(B1, momentum, grads))
        params = jax.tree.map(lambda p, d: p - rate * (d + DECAY * p), params, direction)
        return (params, _blend(LION_B2, momentum, grads)), None

    start = (params, jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(step, start, (jnp.arange(num_steps), grads))[0][0]


def _lamb(params: Tree, grads: Tree, num_steps: int) -> Tree:
    matrices = {name: param.ndim > 1 for name, param in params.items()}
    optimizer = optax.chain(
        optax.scale_by_adam(b1=B1, b2=B2, eps=EPS),
        optax.add_decayed_weights(DECAY, mask=matrices),
        optax.masked(optax.scale_by_trust_ratio(), matrices),
        optax.scale_by_learning_rate(lambda count: _cosine(count, num_steps)),
    )

    def step(carry: Any, grads: Tree) -> Any:
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), grads)[0][0]


class Factored(NamedTuple):
    """The second moments of a matrix's rows and columns; of a vector as its rows."""

    row: jax.Array
    col: jax.Array


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def _precondition(grad: jax.Array, state: Factored, beta: jax.Array) -> tuple[jax.Array, Factored]:
    """The gradient over the root of its second moment, and the moments."""
    square = jnp.square(grad) + FACTOR_EPS
    if grad.ndim < 2:
        row = beta * state.row + (1 - beta) * square
        return grad * jax.lax.rsqrt(row), Factored(row, state.col)
    row = beta * state.row + (1 - beta) * jnp.mean(square, axis=1)
    col = beta * state.col + (1 - beta) * jnp.mean(square, axis=0)
    row_factor = jax.lax.rsqrt(row / jnp.mean(row))
    col_factor = jax.lax.rsqrt(col)
    return grad * row_factor[:, None] * col_factor[None, :], Factored(row, col)


def _adafactor_leaf(param: jax.Array, grads: jax.Array) -> jax.Array:
    num_steps = grads.shape[0]

    def step(carry: tuple[jax.Array, Factored], now: tuple[jax.Array, jax.Array]) -> Any:
        param, state = carry
        count, grad = now
        beta = 1.0 - (count + 1.0) ** -EXPONENT
        update, state = _precondition(grad, state, beta)
        update /= jnp.maximum(1.0, _rms(update) / THRESHOLD)
        scale = jnp.maximum(LEAST_SCALE, _rms(param))
        return (param - _cosine(count, num_steps) * scale * update, state), None

    zeros = jnp.zeros_like(param)
    start = (param, Factored(zeros.T[0] if param.ndim > 1 else zeros, zeros[0]))
    (param, _), _ = jax.lax.scan(step, start, (jnp.arange(num_steps), grads))
    return param


def in_jax(*, params: Tree, grads: Tree) -> dict[str, Tree]:
    """The same by scans: Lion and Adafactor of our own, LAMB as a chain of optax."""
    params, grads = dict(params), dict(grads)
    num_steps = jax.tree.leaves(grads)[0].shape[0]
    lion, lamb = _lion(params, grads, num_steps), _lamb(params, grads, num_steps)
    return {"lion": lion, "lamb": lamb, "adafactor": jax.tree.map(_adafactor_leaf, params, grads)}


def in_jax_by_leaf(*, params: Tree, grads: Tree) -> dict[str, dict[str, jax.Array]]:
    """The same by loops: optax's Lion and schedule, the others from weighted sums of the past."""
    num_steps = len(next(iter(grads.values())))
    schedule = optax.cosine_decay_schedule(PEAK, num_steps, alpha=FLOOR / PEAK)
    rates = [schedule(count) for count in range(num_steps)]

    def lion(p: jax.Array, grads: jax.Array) -> jax.Array:
        optimizer = optax.lion(schedule, b1=B1, b2=LION_B2, weight_decay=DECAY)
        state = optimizer.init(p)
        for grad in grads:
            updates, state = optimizer.update(grad, state, p)
            moved: Any = optax.apply_updates(p, updates)
            p = moved
        return p

    def averaged(x: jax.Array, keep: float, t: int) -> jax.Array:
        """The mean of the first t entries, the later ones weighing more."""
        return jnp.average(x[:t], axis=0, weights=keep ** jnp.arange(t - 1, -1, -1.0))

    def lamb(p: jax.Array, grads: jax.Array) -> jax.Array:
        for t, rate in enumerate(rates, start=1):
            u = averaged(grads, B1, t) / (jnp.sqrt(averaged(grads**2, B2, t)) + EPS)
            if p.ndim > 1:
                u = u + DECAY * p
                u = u * jnp.sqrt(jnp.sum(p**2) / jnp.sum(u**2))
            p = p - rate * u
        return p

    def adafactor(p: jax.Array, grads: jax.Array) -> jax.Array:
        mean_square = jnp.zeros_like(p)
        for t, rate in enumerate(rates, start=1):
            grad = grads[t - 1]
            mean_square += (grad**2 + FACTOR_EPS - mean_square) * t**-EXPONENT
            second = mean_square
            if p.ndim > 1:
                rows, cols = mean_square.sum(axis=1), mean_square.sum(axis=0)
                second = jnp.einsum("i,j->ij", rows, cols) / mean_square.sum()
            u = grad / jnp.sqrt(second)
            length, size = (jnp.linalg.norm(x) / x.size**0.5 for x in (u, p))
            u = jnp.where(length > THRESHOLD, u * THRESHOLD / length, u)
            p = p - rate * jnp.where(size > LEAST_SCALE, size, LEAST_SCALE) * u
        return p

    return {
        optimize.__name__: {name: optimize(params[name], grads[name]) for name in params}
        for optimize in (lion, lamb, adafactor)
    }


def inputs() -> dict[str, Any]:
    """Five gradients of two layers; the first layer is square."""
    rng = np.random.default_rng(33)
    sizes = {"w0": (4, 4), "b0": (4,), "w1": (3, 4), "b1": (3,)}
    scales = np.array([0.1, 0.25, 0.05, 0.15, 0.02])

    def gradients(shape: tuple[int, ...]) -> np.ndarray:
        draws = 0.5 + rng.normal(size=(len(scales), *shape))
        return (scales.reshape(-1, *[1] * len(shape)) * draws).astype(np.float32)

    return {
        "params": {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()},
        "grads": {name: gradients(size) for name, size in sizes.items()},
    }


FAULTS = (
    Fault("schedule falls to zero", "return FLOOR + 0.5 * (PEAK", "return 0.5 * (PEAK"),
    Fault("schedule ends one step early", "count / num_steps)", "count / (num_steps - 1))"),
    Fault("Lion's two rates exchanged", "jnp.sign, _blend(B1,", "jnp.sign, _blend(LION_B2,"),
    Fault("step by the momentum before it", "_blend(B1, momentum, grads)", "momentum"),
    Fault("decay without the rate", "rate * (d + DECAY * p)", "rate * d - DECAY * p"),
    Fault("ε inside LAMB's root", "b2=B2, eps=EPS)", "b2=B2, eps=0.0, eps_root=EPS)", "A02"),
    Fault("vectors decay as well", "(DECAY, mask=matrices)", "(DECAY)"),
    Fault(
        "trust ratio of vectors too",
        "optax.masked(optax.scale_by_trust_ratio(), matrices)",
        "optax.scale_by_trust_ratio()",
    ),
    Fault(
        "trust ratio before the decay",
        "        optax.add_decayed_weights(DECAY, mask=matrices),\n"
        "        optax.masked(optax.scale_by_trust_ratio(), matrices),\n",
        "        optax.masked(optax.scale_by_trust_ratio(), matrices),\n"
        "        optax.add_decayed_weights(DECAY, mask=matrices),\n",
    ),
    Fault("rows not over their mean", "rsqrt(row / jnp.mean(row))", "rsqrt(row)"),
    Fault("decay's count one ahead", "(count + 1.0) ** -EXPONENT", "(count + 2.0) ** -EXPONENT"),
    Fault("scale of the gradient", "LEAST_SCALE, _rms(param))", "LEAST_SCALE, _rms(grad))"),
    Fault(
        "moments held fast",
        "    col_factor = jax.lax.rsqrt(col)\n",
        "    col_factor = jax.lax.rsqrt(jax.lax.stop_gradient(col))\n",
        phase="backward",
    ),
    Fault(
        "scale held fast",
        "scale = jnp.maximum(LEAST_SCALE, _rms(param))",
        "scale = jax.lax.stop_gradient(jnp.maximum(LEAST_SCALE, _rms(param)))",
        phase="backward",
    ),
)
