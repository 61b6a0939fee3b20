"""Adam with decoupled weight decay and clipping by the global norm: some steps on given gradients.

Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1; Loshchilov and Hutter 2019,
https://arxiv.org/abs/1711.05101, algorithm 2, in the form of `torch.optim.AdamW`, with
`torch.nn.utils.clip_grad_norm_` before it.

    g ← g min(1, c / (‖g‖ + 1e-6)),    m ← β₁ m + (1 − β₁) g,    v ← β₂ v + (1 − β₂) g²
    θ ← θ (1 − η λ) − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.ports.faults import Fault

Tree = Mapping[str, Any]


def in_torch(
    *,
    params: Tree,
    grads: Tree,
    first: Tree,
    second: Tree,
    count: int = 4,
    learning_rate: float = 1e-2,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 1e-2,
    max_norm: float = 2.0,
) -> dict[str, Any]:
    """Parameters and moments after one step for each leading entry of `grads`; `count` are done."""
    params, first, second = dict(params), dict(first), dict(second)
    num_steps = next(iter(grads.values())).shape[0]
    for step in range(num_steps):
        squares = torch.stack([grad[step].pow(2).sum() for grad in grads.values()])
        scale = torch.clamp(max_norm / (squares.sum().sqrt() + 1e-6), max=1.0)
        count += 1
        correction1, correction2 = 1 - beta1**count, 1 - beta2**count
        for name in params:
            grad = grads[name][step] * scale
            first[name] = torch.lerp(first[name], grad, 1 - beta1)
            second[name] = beta2 * second[name] + (1 - beta2) * grad * grad
            denominator = second[name].sqrt() / correction2**0.5 + epsilon
            kept = params[name] * (1 - learning_rate * weight_decay)
            params[name] = kept - learning_rate / correction1 * first[name] / denominator
    return {"params": params, "first": first, "second": second}


def _clipped(grads: Tree, max_norm: float) -> Tree:
    total = sum(jnp.vdot(grad, grad) for grad in jax.tree.leaves(grads))
    norm = jnp.sqrt(total) + 1e-6
    scale = jnp.where(norm > max_norm, max_norm / norm, 1.0)
    return jax.tree.map(lambda grad: scale * grad, grads)


def in_jax(
    *,
    params: Tree,
    grads: Tree,
    first: Tree,
    second: Tree,
    count: int = 4,
    learning_rate: float = 1e-2,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 1e-2,
    max_norm: float = 2.0,
) -> dict[str, Any]:
    """The same by a scan over steps, and a map over leaves."""

    def step(state: tuple[Tree, Tree, Tree], now: tuple[Tree, jax.Array]) -> tuple[Any, None]:
        params, first, second = state
        grads, power = now
        grads = _clipped(grads, max_norm)
        first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, first, grads)
        second = jax.tree.map(lambda v, g: v + (1 - beta2) * (g**2 - v), second, grads)

        def moved(param: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            m_hat = m / (1 - beta1**power)
            v_hat = v / (1 - beta2**power)
            update = m_hat / (jnp.sqrt(v_hat) + epsilon)
            return param - learning_rate * (update + weight_decay * param)

        return (jax.tree.map(moved, params, first, second), first, second), None

    num_steps = jax.tree.leaves(grads)[0].shape[0]
    powers = count + jnp.arange(1, num_steps + 1)
    state, _ = jax.lax.scan(step, (params, first, second), (grads, powers))
    return dict(zip(("params", "first", "second"), state, strict=True))


def in_jax_by_optax(
    *,
    params: Tree,
    grads: Tree,
    first: Tree,
    second: Tree,
    count: int = 4,
    learning_rate: float = 1e-2,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 1e-2,
    max_norm: float = 2.0,
) -> dict[str, Any]:
    """The same by a chain of transformations, with a clipping that divides as PyTorch's does."""

    def clip(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return optax.tree.scale(scale, updates), state

    chain = optax.chain(
        optax.GradientTransformation(lambda params: optax.EmptyState(), clip),
        optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    done = jnp.asarray(count, jnp.int32)
    moments = optax.ScaleByAdamState(count=done, mu=dict(first), nu=dict(second))
    empty = optax.EmptyState()
    state: Any = (empty, moments, empty, empty)
    moved: Any = dict(params)
    for step in range(jax.tree.leaves(grads)[0].shape[0]):
        now = {name: grad[step] for name, grad in grads.items()}
        updates, state = chain.update(now, state, moved)
        moved = optax.apply_updates(moved, updates)
    return {"params": moved, "first": state[1].mu, "second": state[1].nu}


def inputs() -> dict[str, Any]:
    """Three steps for two layers; the first gradient is small enough to stay as it is."""
    rng = np.random.default_rng(7)
    shapes = {"w0": (16, 8), "b0": (16,), "w1": (4, 16), "b1": (4,)}
    norms = np.array([0.05, 0.6, 1.5])
    arrays: dict[str, Any] = {}
    for name, shape in shapes.items():
        steps = norms.reshape(-1, *(1 for _ in shape))
        arrays[f"params/{name}"] = rng.normal(size=shape)
        arrays[f"grads/{name}"] = steps * rng.normal(size=(3, *shape))
        arrays[f"first/{name}"] = 0.1 * rng.normal(size=shape)
        arrays[f"second/{name}"] = 1e-4 * rng.uniform(0.5, 2, size=shape)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


FAULTS = (
    Fault("norm without its root", "norm = jnp.sqrt(total) + 1e-6", "norm = total + 1e-6"),
    Fault(
        "norm without its epsilon", "norm = jnp.sqrt(total) + 1e-6", "norm = jnp.sqrt(total)", "A09"
    ),
    Fault(
        "scaled up to the norm too",
        "scale = jnp.where(norm > max_norm, max_norm / norm, 1.0)",
        "scale = max_norm / norm",
    ),
    Fault(
        "each array clipped by its own norm",
        "grads = _clipped(grads, max_norm)",
        "grads = {name: _clipped({name: g}, max_norm)[name] for name, g in grads.items()}",
    ),
    Fault(
        "gradients not clipped",
        "grads = _clipped(grads, max_norm)",
        "grads = dict(grads)",
    ),
    Fault(
        "weights of the first moment swapped",
        "beta1 * m + (1 - beta1) * g",
        "(1 - beta1) * m + beta1 * g",
    ),
    Fault("gradient not squared", "(g**2 - v)", "(abs(g) - v)"),
    Fault(
        "second moment by the first's decay", "v + (1 - beta2) * (g**2", "v + (1 - beta1) * (g**2"
    ),
    Fault("first moment not corrected", "m_hat = m / (1 - beta1**power)", "m_hat = m"),
    Fault(
        "second correction by the first's decay", "v / (1 - beta2**power)", "v / (1 - beta1**power)"
    ),
    Fault(
        "epsilon inside the root", "(jnp.sqrt(v_hat) + epsilon)", "jnp.sqrt(v_hat + epsilon)", "A02"
    ),
    Fault(
        "a larger epsilon",
        "(jnp.sqrt(v_hat) + epsilon)",
        "(jnp.sqrt(v_hat) + 1e-5)",
    ),
    Fault(
        "no decay of the weights",
        "learning_rate * (update + weight_decay * param)",
        "learning_rate * update",
    ),
    Fault(
        "decay not scaled by the learning rate",
        "param - learning_rate * (update + weight_decay * param)",
        "param - learning_rate * update - weight_decay * param",
    ),
    Fault(
        "steps counted from zero",
        "count + jnp.arange(1, num_steps + 1)",
        "count + jnp.arange(num_steps)",
    ),
    Fault(
        "clipping's scale held fast",
        "lambda grad: scale * grad, grads",
        "lambda grad: jax.lax.stop_gradient(scale) * grad, grads",
        phase="backward",
    ),
    Fault(
        "second moment held fast in the update",
        "m_hat / (jnp.sqrt(v_hat) + epsilon)",
        "m_hat / (jnp.sqrt(jax.lax.stop_gradient(v_hat)) + epsilon)",
        phase="backward",
    ),
)
