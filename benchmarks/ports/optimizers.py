"""RMSprop with momentum and AdamW over six steps on given gradients, with a warm-up of the rate.

Hinton's lecture 6e (2012) with momentum as in Graves 2013, https://arxiv.org/abs/1308.0850;
Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2, after clipping by the
global norm as in Pascanu et al. 2013, https://arxiv.org/abs/1211.5063.

    RMSprop:  v ← ρ v + (1 − ρ) g²,  b ← μ b + g / (√v + ε),  θ ← θ − η_t b
    AdamW:    θ ← θ − η_t (m̂ / (√v̂ + ε) + λ θ),  where biases do not decay
    warm-up:  η_t = η min(1, t / warmup),  t = 1, 2, …
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.ports.faults import Fault

TorchTree = Mapping[str, torch.Tensor]
Tree = Mapping[str, Any]
"""Arrays by name: `w0`, `b0`, `w1`, `b1`."""


def _rate_torch(peak: float, t: int, warmup: int) -> float:
    return peak * min(1.0, t / warmup)


def _rmsprop_torch(
    params: TorchTree, grads: TorchTree, peak: float, warmup: int, rho: float, mu: float, eps: float
) -> dict[str, torch.Tensor]:
    moved = {}
    for name, param in params.items():
        square, buffer = torch.zeros_like(param), torch.zeros_like(param)
        for t, grad in enumerate(grads[name], start=1):
            square = rho * square + (1 - rho) * grad * grad
            buffer = mu * buffer + grad / (square.sqrt() + eps)
            param = param - _rate_torch(peak, t, warmup) * buffer
        moved[name] = param
    return moved


def _clipped_torch(grads: TorchTree, max_norm: float) -> dict[str, torch.Tensor]:
    """As `torch.nn.utils.clip_grad_norm_` does it."""
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in grads.values()]))
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    return {name: grad * factor for name, grad in grads.items()}


def _adamw_torch(
    params: TorchTree,
    grads: TorchTree,
    peak: float,
    warmup: int,
    b1: float,
    b2: float,
    eps: float,
    decay: float,
    max_norm: float,
) -> dict[str, torch.Tensor]:
    params = dict(params)
    first = {name: torch.zeros_like(param) for name, param in params.items()}
    second = {name: torch.zeros_like(param) for name, param in params.items()}
    num_steps = len(next(iter(grads.values())))
    for t in range(1, num_steps + 1):
        now = _clipped_torch({name: grad[t - 1] for name, grad in grads.items()}, max_norm)
        rate = _rate_torch(peak, t, warmup)
        for name, grad in now.items():
            if params[name].ndim > 1:
                params[name] = params[name] * (1 - rate * decay)
            first[name] = torch.lerp(first[name], grad, 1 - b1)
            second[name] = b2 * second[name] + (1 - b2) * grad**2
            denominator = (second[name] / (1 - b2**t)).sqrt() + eps
            params[name] = params[name] - rate / (1 - b1**t) * first[name] / denominator
    return params


def in_torch(
    *,
    params: TorchTree,
    grads: TorchTree,
    peak: float = 0.05,
    warmup: int = 4,
    rho: float = 0.95,
    mu: float = 0.9,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-3,
    decay: float = 0.1,
    max_norm: float = 0.125,
) -> dict[str, torch.Tensor]:
    """The weights that each optimizer ends with."""
    rmsprop = _rmsprop_torch(params, grads, peak, warmup, rho, mu, eps)
    adamw = _adamw_torch(params, grads, peak, warmup, b1, b2, eps, decay, max_norm)
    return {
        **{f"rmsprop_{name}": value for name, value in rmsprop.items()},
        **{f"adamw_{name}": value for name, value in adamw.items()},
    }


class Moments(NamedTuple):
    """What AdamW remembers."""

    num_steps: jax.Array
    mu: Any
    nu: Any


def _warm_up(peak: float, warmup: int) -> Callable[[Any], Any]:
    """The rate after `count` steps."""
    return lambda count: peak * jnp.minimum(1.0, (jnp.asarray(count, float) + 1) / warmup)


def _rmsprop(
    schedule: Callable[[Any], Any], rho: float, momentum: float, eps: float
) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_rms(decay=rho, eps=eps, eps_in_sqrt=False),
        optax.trace(decay=momentum, nesterov=False),
        optax.scale_by_learning_rate(schedule),
    )


def _global_norm(tree: Tree) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _clip(grads: Tree, max_norm: float) -> Tree:
    factor = jnp.minimum(1.0, max_norm / (_global_norm(grads) + 1e-6))
    return jax.tree.map(lambda grad: factor * grad, grads)


def _unbiased(moment: Any, rate: float, count: jax.Array) -> Any:
    return jax.tree.map(lambda each: each / (1 - rate**count), moment)


def _adamw_step(
    params: Tree,
    state: Moments,
    grads: Tree,
    schedule: Callable[[Any], Any],
    b1: float,
    b2: float,
    eps: float,
    decay: float,
) -> tuple[Tree, Moments]:
    count = state.num_steps + 1
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
    lr = schedule(state.num_steps)

    def move(param: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        change = m / (jnp.sqrt(v) + eps)
        if param.ndim > 1:
            change = change + decay * param
        return param - lr * change

    mu_hat, nu_hat = _unbiased(mu, b1, count), _unbiased(nu, b2, count)
    return jax.tree.map(move, params, mu_hat, nu_hat), Moments(count, mu, nu)


def _named(prefix: str, tree: Tree) -> dict[str, jax.Array]:
    return {f"{prefix}_{name}": leaf for name, leaf in tree.items()}


def in_jax(
    *,
    params: Tree,
    grads: Tree,
    peak: float = 0.05,
    warmup: int = 4,
    rho: float = 0.95,
    mu: float = 0.9,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-3,
    decay: float = 0.1,
    max_norm: float = 0.125,
) -> dict[str, jax.Array]:
    """The same: optax's RMSprop and an AdamW of our own, each in a scan over the gradients."""
    schedule = _warm_up(peak, warmup)
    rmsprop = _rmsprop(schedule, rho, mu, eps)

    def rmsprop_step(carry: tuple[Any, Any], now: Tree) -> tuple[tuple[Any, Any], None]:
        weights, state = carry
        updates, state = rmsprop.update(now, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    def adamw_step(carry: tuple[Any, Moments], now: Tree) -> tuple[tuple[Any, Moments], None]:
        weights, state = carry
        now = _clip(now, max_norm)
        return _adamw_step(weights, state, now, schedule, b1, b2, eps, decay), None

    params = dict(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    (by_rmsprop, _), _ = jax.lax.scan(rmsprop_step, (params, rmsprop.init(params)), dict(grads))
    start = (params, Moments(jnp.zeros((), int), zeros, zeros))
    (by_adamw, _), _ = jax.lax.scan(adamw_step, start, dict(grads))
    return _named("rmsprop", by_rmsprop) | _named("adamw", by_adamw)


def in_jax_leafwise(
    *,
    params: Tree,
    grads: Tree,
    peak: float = 0.05,
    warmup: int = 4,
    rho: float = 0.95,
    mu: float = 0.9,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-3,
    decay: float = 0.1,
    max_norm: float = 0.125,
) -> dict[str, jax.Array]:
    """The same: moments as weighted sums of all earlier gradients, and then the steps at once."""
    num_steps = len(jax.tree.leaves(dict(grads))[0])
    time = jnp.arange(1, num_steps + 1)
    rates = jnp.clip(time / warmup, 0, 1) * peak
    lag = time[:, None] - time[None, :]

    def averaged(x: jax.Array, keep: float) -> jax.Array:
        """Σ_{k ≤ t} keep^{t−k} x_k"""
        powers = jnp.where(lag >= 0, keep ** jnp.maximum(lag, 0), 0.0)
        return jnp.tensordot(powers, x, axes=1)

    squares = [jnp.sum(g**2, axis=tuple(range(1, g.ndim))) for g in grads.values()]
    norms = jnp.sqrt(jnp.stack(squares).sum(axis=0)) + 1e-6
    factors = jnp.where(norms > max_norm, max_norm / norms, 1.0)

    outputs = {}
    for name, grad in grads.items():
        param = params[name]

        def along(each: jax.Array, ndim: int = grad.ndim) -> jax.Array:
            return each.reshape(-1, *[1] * (ndim - 1))

        scaled = grad / (jnp.sqrt((1 - rho) * averaged(grad**2, rho)) + eps)
        outputs[f"rmsprop_{name}"] = param - jnp.sum(along(rates) * averaged(scaled, mu), axis=0)

        clipped = along(factors) * grad
        m = (1 - b1) * averaged(clipped, b1) / along(1 - b1**time)
        v = (1 - b2) * averaged(clipped**2, b2) / along(1 - b2**time)
        changes = along(rates) * m / (jnp.sqrt(v) + eps)
        for rate, change in zip(rates, changes, strict=True):
            shrunk = param - rate * decay * param if param.ndim > 1 else param
            param = shrunk - change
        outputs[f"adamw_{name}"] = param
    return outputs


def inputs() -> dict[str, Any]:
    """Six gradients of two layers; three or four of them are clipped."""
    rng = np.random.default_rng(14)
    num_steps = 6
    sizes = {"w0": (5, 4), "b0": (5,), "w1": (3, 5), "b1": (3,)}
    scales = np.array([0.3, 0.7, 0.2, 0.5, 0.25, 0.6]) / 20

    def gradients(shape: tuple[int, ...]) -> np.ndarray:
        draws = rng.normal(size=(num_steps, *shape))
        return (scales.reshape(-1, *[1] * len(shape)) * draws).astype(np.float32)

    return {
        "params": {name: rng.normal(size=each).astype(np.float32) for name, each in sizes.items()},
        "grads": {name: gradients(each) for name, each in sizes.items()},
    }


FAULTS = (
    Fault("ε inside RMSprop's root", "eps_in_sqrt=False", "eps_in_sqrt=True", "A05"),
    Fault(
        "decay of 0.9 in RMSprop",
        "optax.scale_by_rms(decay=rho, eps=eps, eps_in_sqrt=False)",
        "optax.scale_by_rms(eps=eps, eps_in_sqrt=False)",
        "A05",
    ),
    Fault(
        "momentum after the rate",
        "optax.trace(decay=momentum, nesterov=False),\n"
        "        optax.scale_by_learning_rate(schedule),",
        "optax.scale_by_learning_rate(schedule),\n"
        "        optax.trace(decay=momentum, nesterov=False),",
        "A06",
    ),
    Fault("Nesterov's momentum", "nesterov=False", "nesterov=True"),
    Fault(
        "warm-up one step behind",
        "(jnp.asarray(count, float) + 1) / warmup",
        "jnp.asarray(count, float) / warmup",
    ),
    Fault(
        "nothing added to the norm", "(_global_norm(grads) + 1e-6)", "_global_norm(grads)", "A09"
    ),
    Fault(
        "clipped leaf by leaf",
        "return jax.tree.map(lambda grad: factor * grad, grads)",
        "return jax.tree.map("
        "lambda grad: grad * jnp.minimum(1.0, max_norm / (_global_norm(grad) + 1e-6)), grads)",
    ),
    Fault(
        "always of the greatest norm",
        "jnp.minimum(1.0, max_norm / (_global_norm(grads) + 1e-6))",
        "max_norm / (_global_norm(grads) + 1e-6)",
    ),
    Fault(
        "decay coupled to the moments",
        "now = _clip(now, max_norm)\n",
        "now = jax.tree.map(lambda g, w: g + decay * w, _clip(now, max_norm), weights)\n",
        "A04",
    ),
    Fault(
        "ε inside AdamW's root",
        "change = m / (jnp.sqrt(v) + eps)",
        "change = m / jnp.sqrt(v + eps)",
        "A02",
    ),
    Fault(
        "correction by the count before",
        "_unbiased(mu, b1, count), _unbiased(nu, b2, count)",
        "_unbiased(mu, b1, count), _unbiased(nu, b2, count + 1)",
    ),
    Fault(
        "first moment corrected like the second",
        "_unbiased(mu, b1, count), _unbiased",
        "_unbiased(mu, b2, count), _unbiased",
    ),
    Fault(
        "biases decay as well",
        "if param.ndim > 1:\n            change",
        "if decay:\n            change",
    ),
    Fault(
        "second moment held fast",
        "change = m / (jnp.sqrt(v) + eps)",
        "change = m / (jnp.sqrt(jax.lax.stop_gradient(v)) + eps)",
        phase="backward",
    ),
)
