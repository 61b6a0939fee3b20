"""Variants of whole updates, rollouts and training steps."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from parity.mutants.variants import Patch, Variant, instead

jax_train, torch_train = import_module("pgjax.train"), import_module("pgtorch.train")
jax_rollout, torch_rollout = import_module("pgjax.rollout"), import_module("pgtorch.rollout")


def of_updates() -> Iterator[Variant]:
    """What an update makes of its pieces, and what it reports."""

    def in_train(
        name: str, kind: str, what: str, wrong: Callable, module: Any = jax_train
    ) -> Variant:
        package = "pgjax" if module is jax_train else "pgtorch"
        return Variant(name, kind, package, (Patch(module, what, wrong),))

    yield in_train("padding kept", "masking", "_without_padding", lambda f: lambda x: x)
    yield in_train(
        "padding of observations kept",
        "masking",
        "_without_padding",
        lambda f: lambda x: f(x)._replace(obs=x.obs),
    )
    yield in_train(
        "padding kept in PyTorch",
        "masking",
        "_zero_outside",
        lambda f: lambda mask, values: values,
        torch_train,
    )
    yield in_train(
        "another scope in an update",
        "normalising",
        "normalize_returns",
        lambda f: lambda returns, mask, scope: f(returns, mask),
    )
    yield in_train(
        "no discount in an update",
        "discounting",
        "discounted_returns",
        lambda f: lambda rewards, mask, discount: f(rewards, mask, 1.0),
    )
    yield in_train(
        "discount of 0.99 whatever is asked for",
        "discounting",
        "discounted_returns",
        lambda f: lambda rewards, mask, discount: f(rewards, mask, 0.99),
        torch_train,
    )
    yield in_train(
        "action for sample",
        "resampled actions",
        "_without_padding",
        lambda f: lambda x: f(x)._replace(sample=_from_actions(f(x))),
    )
    yield in_train(
        "mean return of discounted rewards",
        "discounting",
        "episode_returns",
        lambda right: lambda r, m: jax_train.discounted_returns(r, m, 0.99)[0],
    )
    yield in_train(
        "mean return per step",
        "reductions",
        "episode_returns",
        lambda right: lambda r, m: right(r, m) / m.sum(0),
        torch_train,
    )

    def reporting(name: str, kind: str, change: Callable) -> Variant:
        patch = Patch(jax_train, "make_update_step", lambda right: _reporting(right, change))
        return Variant(name, kind, "pgjax", (patch,))

    yield reporting(
        "padding counted as steps",
        "reductions",
        lambda state, m: (state, m._replace(num_steps=m.num_steps * 0 + 25)),
    )
    yield reporting(
        "norm after clipping",
        "reductions",
        lambda state, m: (state, m._replace(grad_norm=jnp.minimum(m.grad_norm, 0.1))),
    )
    yield reporting(
        "entropy over padding",
        "reductions",
        lambda state, m: (state, m._replace(entropy=m.entropy / 2)),
    )
    yield reporting(
        "updates not counted",
        "schedules and counters",
        lambda state, m: (state._replace(update=state.update * 0), m),
    )


def _reporting(right: Callable, change: Callable) -> Callable:
    def make_update_step(*args):
        update_step = right(*args)
        return lambda state, trajectory: change(*update_step(state, trajectory))

    return make_update_step


def _from_actions(trajectory: Any) -> Any:
    """One-hot actions in the place of a Normal's samples."""
    if trajectory.sample.ndim == 2:
        return trajectory.sample
    return jax.nn.one_hot(
        trajectory.action, trajectory.sample.shape[-1], dtype=trajectory.obs.dtype
    )


# --- rollouts and training steps -----------------------------------------------------------------


def of_rollouts() -> Iterator[Variant]:
    """What is played and recorded, on which noise."""

    def in_rollout(name: str, kind: str, after: Callable) -> Variant:
        patches = tuple(
            Patch(module, "rollout", lambda right: _afterwards(right, after))
            for module in (jax_rollout, jax_train)
        )
        return Variant(name, kind, "pgjax", patches)

    def on_noise(name: str, change: Callable) -> Variant:
        patches = tuple(
            Patch(module, "rollout", lambda right: _on(right, change))
            for module in (jax_rollout, jax_train)
        )
        return Variant(name, "stale noise", "pgjax", patches)

    ended = "terminated against truncated"
    yield in_rollout(
        "truncated episodes told as terminated",
        ended,
        lambda t, **_: t._replace(terminated=jnp.ones_like(t.terminated)),
    )
    yield in_rollout(
        "terminated episodes not told",
        ended,
        lambda t, **_: t._replace(terminated=jnp.zeros_like(t.terminated)),
    )
    yield in_rollout(
        "an episode's last step not in the mask",
        "masking",
        lambda t, **_: t._replace(mask=_short(t.mask)),
    )
    yield in_rollout(
        "observations after the step",
        "masking",
        lambda t, **_: t._replace(obs=jnp.roll(t.obs, -1, axis=0)),
    )
    yield in_rollout("actions played again without noise", "resampled actions", _greedy)
    yield in_rollout(
        "samples drawn again",
        "resampled actions",
        lambda t, policy, params, noise, **_: t._replace(
            sample=policy.sample(policy.apply(params, t.obs), jnp.flip(noise.policy, 1))
        ),
    )
    yield on_noise("one step's noise for all steps", lambda n: jnp.broadcast_to(n[:1], n.shape))
    yield on_noise("noise of the step before", lambda n: jnp.roll(n, 1, axis=0))
    yield on_noise("one episode's noise for all", lambda n: jnp.broadcast_to(n[:, :1], n.shape))
    yield on_noise("noise in the other order of time", lambda n: jnp.flip(n, 0))
    first = Patch(
        jax_rollout,
        "_any_running",
        lambda right: lambda running: jnp.all(running),
    )
    yield Variant("stops when the first episode ends", "masking", "pgjax", (first,))
    frozen = instead(jax_rollout, "_where", lambda condition, x, y: x)
    yield Variant("plays on after the end", "masking", "pgjax", (frozen,))
    moved = Patch(
        torch_rollout, "_where_running", lambda right: lambda running, stepped, stayed: stayed
    )
    yield Variant("stays where it started", "environment", "pgtorch", (moved,))


def _afterwards(right: Callable, change: Callable) -> Callable:
    def rollout(policy, params, env, noise, *, early_exit=True):
        trajectory = right(policy, params, env, noise, early_exit=early_exit)
        return change(trajectory, policy=policy, params=params, noise=noise)

    return rollout


def _on(right: Callable, change: Callable) -> Callable:
    def rollout(policy, params, env, noise, *, early_exit=True):
        moved = noise._replace(policy=change(noise.policy))
        return right(policy, params, env, moved, early_exit=early_exit)

    return rollout


def _short(mask: Any) -> Any:
    return jnp.concatenate([mask[1:], jnp.zeros_like(mask[:1])])


def _greedy(trajectory: Any, policy: Any, params: Any, noise: Any) -> Any:
    drawn = policy.sample(policy.apply(params, trajectory.obs), 0 * noise.policy)
    return trajectory._replace(sample=drawn, action=policy.action(drawn))
