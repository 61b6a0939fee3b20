"""Variants of the noise that training steps and whole runs draw."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import torch

from parity.mutants.variants import Patch, Variant, instead, seen_by
from pgjax import policies as jax_policies
from pgjax import types as jax_types
from pgtorch import policies as torch_policies

jax_train, torch_train = import_module("pgjax.train"), import_module("pgtorch.train")
jax_rollout, torch_rollout = import_module("pgjax.rollout"), import_module("pgtorch.rollout")


def of_noise() -> Iterator[Variant]:
    """Its law, and where it comes again: in a training step, over many steps, in a run."""
    for module, package in ((jax_train, "pgjax"), (torch_train, "pgtorch")):
        yield Variant(
            f"the same noise in every training step of {package}",
            "stale noise",
            package,
            (Patch(module, "draw_noise", _stale(package)),),
        )
    yield Variant(
        "one key for first states and for noise",
        "stale noise",
        "pgjax",
        (instead(jax_rollout, "draw_noise", _one_key), instead(jax_train, "draw_noise", _one_key)),
    )
    for name, wrong in (
        ("Normal noise for Gumbel", lambda key, shape: jax.random.normal(key, shape)),
        ("uniform noise for Gumbel", lambda key, shape: jax.random.uniform(key, shape)),
    ):
        yield Variant(name, "sampling", "pgjax", (_noise_of_policies("gumbel", wrong),))
    yield Variant(
        "Normal noise of spread 0.9",
        "sampling",
        "pgjax",
        (_noise_of_policies("normal", lambda key, shape: 0.9 * jax.random.normal(key, shape)),),
    )
    yield Variant(
        "noise of every 100 steps again",
        "stale noise",
        "pgjax",
        (_noise_of_policies("gumbel", _periodic(jax.random.gumbel, 100)),),
    )
    yield Variant(
        "noise played to and fro",
        "stale noise",
        "pgjax",
        (_noise_of_policies("normal", _to_and_fro),),
    )
    in_run = ((jax_train, "_make_parts"),)
    drawn = ((torch_rollout, "draw_noise"), (torch_train, "draw_noise"))
    again = seen_by(torch_policies, "torch", *drawn, randn=_periodic_in_torch)
    yield Variant("noise of every 500 steps again", "stale noise", "pgtorch", (again,))
    yield Variant(
        "the same noise in every update of a run",
        "stale noise",
        "pgjax",
        (Patch(jax_train, "fold_in", lambda right: lambda key, number: key, in_run),),
    )
    yield Variant(
        "a run's updates draw from copies of the generator",
        "stale noise",
        "pgtorch",
        (Patch(torch_train, "draw_noise", _from_a_copy),),
    )


def _periodic(draw: Callable, period: int) -> Callable:
    return lambda key, shape: jnp.resize(draw(key, (period, *shape[1:])), shape)


def _to_and_fro(key: Any, shape: tuple[int, ...]) -> Any:
    half = jax.random.normal(key, (500, *shape[1:]))
    return jnp.resize(jnp.concatenate([half, jnp.flip(half, 0)]), shape)


def _periodic_in_torch(shape: tuple[int, ...], **options: Any) -> Any:
    drawn = torch.randn((500, *shape[1:]), **options)
    return drawn.repeat(1 + shape[0] // 500, 1, 1)[: shape[0]]


def _noise_of_policies(what: str, wrong: Callable) -> Patch:
    def in_place_of(right):
        return lambda each, key, shape: (
            wrong(key, shape) if each.__name__ == what else right(each, key, shape)
        )

    seen = (jax_rollout, "draw_noise"), (jax_train, "draw_noise")
    return Patch(jax_policies, "draw", in_place_of, seen)


def _stale(package: str) -> Callable:
    def wrong(right):
        def draw_noise(policy, env, key, num_episodes):
            same = jax.random.key(0) if package == "pgjax" else torch.Generator().manual_seed(0)
            return right(policy, env, same, num_episodes)

        return draw_noise

    return wrong


def _one_key(policy: Any, env: Any, key: Any, num_episodes: int) -> Any:
    reset = env.draw_reset(key, num_episodes)
    return jax_types.Noise(reset, policy.draw_noise(key, env.max_steps, num_episodes))


def _from_a_copy(right: Callable) -> Callable:
    return lambda policy, env, key, number: right(policy, env, key.clone_state(), number)
