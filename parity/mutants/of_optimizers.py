"""Variants of clipping and of Adam."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch

from parity.mutants.variants import Patch, Variant, instead
from pgjax import optim as jax_optim
from pgtorch import optim as torch_optim


def of_clipping() -> Iterator[Variant]:
    """The norm, the factor, and what it is applied to."""

    def in_jax(name: str, factor: Callable) -> Variant:
        patch = instead(
            jax_optim, "clip_by_global_norm", lambda max_norm: _scaled(factor, max_norm)
        )
        return Variant(name, "clipping", "pgjax", (patch,))

    def in_torch(name: str, clip: Callable) -> Variant:
        patch = instead(
            torch_optim,
            "clip_by_global_norm",
            lambda max_norm: lambda parameters: clip(list(parameters), max_norm),
        )
        return Variant(name, "clipping", "pgtorch", (patch,))

    def each(scale: Callable) -> Callable:
        return lambda grads, limit: jax.tree.map(lambda g: g * scale(g, grads, limit), grads)

    norm = optax.tree.norm
    yield in_jax("no 1e-6 in clipping", each(lambda g, all, c: jnp.minimum(1, c / norm(all))))
    yield in_jax("clipped tensor by tensor", each(lambda g, all, c: _factor(norm(g), c)))
    yield in_jax("clipped by the squared norm", each(lambda g, all, c: _factor(norm(all) ** 2, c)))
    yield in_jax("always scaled to the bound", each(lambda g, all, c: c / (norm(all) + 1e-6)))
    yield in_jax("clip_by_block_rms", each(lambda g, all, c: _factor(jnp.sqrt((g**2).mean()), c)))
    yield in_jax(
        "clipped elementwise",
        lambda grads, limit: jax.tree.map(lambda g: jnp.clip(g, -limit, limit), grads),
    )
    yield in_torch("clipped by value", torch.nn.utils.clip_grad_value_)
    yield in_torch(
        "clipped by the largest entry",
        lambda parameters, limit: torch.nn.utils.clip_grad_norm_(parameters, limit, torch.inf),
    )
    never = instead(
        jax_optim, "make_optimizer", lambda config: jax_optim.adam(config.learning_rate)
    )
    yield Variant("never clipped", "clipping", "pgjax", (never,))
    after = instead(
        jax_optim,
        "make_optimizer",
        lambda config: optax.chain(
            jax_optim.adam(config.learning_rate),
            jax_optim.clip_by_global_norm(config.max_grad_norm or 1e30),
        ),
    )
    yield Variant("clipped after Adam", "clipping", "pgjax", (after,))


def _factor(norm: Any, limit: float) -> Any:
    return jnp.minimum(1, limit / (norm + 1e-6))


def _scaled(factor: Callable, max_norm: float) -> optax.GradientTransformation:
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(),
        lambda updates, state, params=None: (factor(updates, max_norm), state),
    )


# --- Adam ----------------------------------------------------------------------------------------


def of_adam() -> Iterator[Variant]:
    """Each of its constants, its counter, and its kin."""

    def in_jax(name: str, wrong: Callable, kind: str = "Adam's constants") -> Variant:
        return Variant(name, kind, "pgjax", (instead(jax_optim, "adam", wrong),))

    def in_torch(name: str, wrong: Callable, kind: str = "Adam's constants") -> Variant:
        return Variant(name, kind, "pgtorch", (instead(torch_optim, "adam", wrong),))

    yield in_jax("ε inside the root", adam(eps=lambda eps: 0.0, eps_root=1e-8))
    yield in_jax("ε of 1e-7", adam(eps=lambda eps: 1e-7))
    yield in_jax("b1 of 0.99", adam(b1=lambda b1: 0.99))
    yield in_jax("b2 of 0.99", adam(b2=lambda b2: 0.99))
    yield in_jax(
        "b1 and b2 exchanged", lambda lr, b1=0.9, b2=0.999, eps=1e-8: adam()(lr, b2, b1, eps)
    )
    yield in_jax("twice the learning rate", adam(rate=2.0))
    yield in_jax("bias correction in float32", adam())
    yield in_jax("Nesterov's Adam", adam(nesterov=True))
    yield in_jax("no bias correction", corrected(lambda t: 1_000_000_000))
    yield in_jax("count one ahead", corrected(lambda t: t + 1), "schedules and counters")
    yield in_jax(
        "count one behind", corrected(lambda t: jnp.maximum(t - 1, 1)), "schedules and counters"
    )
    yield in_jax("count not carried on", counted(lambda t: t - 1), "schedules and counters")
    yield in_jax("counted twice", counted(lambda t: t + 1), "schedules and counters")
    yield in_jax("ascent for descent", adam(rate=-1.0))
    yield in_torch("ascent for descent, in PyTorch", of_torch(maximize=True))
    yield in_torch("weight decay of 1e-2", of_torch(weight_decay=1e-2))
    yield in_torch("ε of 1e-6 in PyTorch", of_torch(eps=1e-6))
    yield in_torch("b2 of 0.99 in PyTorch", of_torch(betas=(0.9, 0.99)))
    yield in_torch("RAdam", lambda lr, *_, **__: lambda p: torch.optim.RAdam(p, lr=lr))
    yield in_torch("AdamW", lambda lr, *_, **__: lambda p: torch.optim.AdamW(p, lr=lr))
    shared = (
        instead(jax_optim, "adam", adam(b1=lambda b1: 0.95)),
        instead(torch_optim, "adam", of_torch(betas=(0.95, 0.999))),
    )
    yield Variant("b1 of 0.95 in both", "Adam's constants", "both", shared)


def of_schedules() -> Iterator[Variant]:
    """Which number of updates a schedule is asked about."""
    for owner, package in ((jax_optim, "pgjax"), (torch_optim, "pgtorch")):
        for name, asked in (
            ("schedule one ahead", lambda count: count + 1),
            ("schedule one behind", lambda count: count - (count > 0)),
            ("schedule stands still", lambda count: 0 * count),
        ):
            patch = Patch(owner, "adam", lambda right, asked=asked: _asking(right, asked))
            yield Variant(name, "schedules and counters", package, (patch,))
        once = Patch(owner, "adam", _asked_once)
        name = "schedule asked once, when Adam is made"
        yield Variant(name, "schedules and counters", package, (once,))


def _asking(right: Callable, asked: Callable) -> Callable:
    def adam(learning_rate: Any, *args: Any, **kwargs: Any) -> Any:
        if not callable(learning_rate):
            return right(learning_rate, *args, **kwargs)
        return right(lambda count: learning_rate(asked(count)), *args, **kwargs)

    return adam


def _asked_once(right: Callable) -> Callable:
    def adam(learning_rate: Any, *args: Any, **kwargs: Any) -> Any:
        rate: Any = learning_rate(0) if callable(learning_rate) else learning_rate
        # A rate of 0, as at the start of a warm-up, is no number to make Adam with.
        return right(float(rate) or 1e-30, *args, **kwargs)

    return adam


def adam(rate: float = 1.0, **changes: Any) -> Callable:
    """optax's own Adam, with its bias correction in float32, and something else wrong."""

    def made(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
        given: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps}
        options: dict[str, Any] = {
            k: change(given[k]) if k in given else change for k, change in changes.items()
        }
        scale: Any = optax.scale_by_adam(**(given | options))

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            step = rate_of(learning_rate, state.count)
            change, state = scale.update(updates, state, params)
            return jax.tree.map(lambda c: -rate * jnp.asarray(step, c.dtype) * c, change), state

        return optax.GradientTransformation(scale.init, update)

    return made


def rate_of(learning_rate: Any, count: Any) -> Any:
    """The learning rate of an update, which may follow a schedule."""
    return learning_rate(count.astype(int)) if callable(learning_rate) else learning_rate


def corrected(change: Callable) -> Callable:
    """Adam whose bias correction takes another count."""
    right = jax_optim.adam

    def made(*args, **kwargs):
        transform: Any = right(*args, **kwargs)

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            count = change(state.count + 1) - 1
            step, after = transform.update(updates, state._replace(count=count), params)
            return step, after._replace(count=state.count + 1)

        return optax.GradientTransformation(transform.init, update)

    return made


def counted(change: Callable) -> Callable:
    """Adam that hands on another count."""
    right = jax_optim.adam

    def made(*args, **kwargs):
        transform: Any = right(*args, **kwargs)

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            step, after = transform.update(updates, state, params)
            return step, after._replace(count=change(after.count))

        return optax.GradientTransformation(transform.init, update)

    return made


def of_torch(**wrong: Any) -> Callable:
    """torch's own Adam, with other settings."""

    def made(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
        options: dict[str, Any] = {"betas": (b1, b2), "eps": eps} | wrong
        if callable(learning_rate):
            return partial(torch_optim._ScheduledAdam, schedule=learning_rate, **options)
        return lambda parameters: torch.optim.Adam(parameters, lr=learning_rate, **options)

    return made
