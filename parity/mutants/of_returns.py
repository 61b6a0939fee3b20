"""Variants of returns, advantages and the loss."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import torch

from parity.mutants.variants import Package, Variant, instead
from pgjax import losses as jax_losses
from pgjax import returns as jax_returns
from pgtorch import losses as torch_losses
from pgtorch import returns as torch_returns

JAX = Package("pgjax", jnp, jax.lax.stop_gradient)
TORCH = Package("pgtorch", torch, lambda x: x.detach())
RETURNS = {"pgjax": jax_returns, "pgtorch": torch_returns}
LOSSES = {"pgjax": jax_losses, "pgtorch": torch_losses}


def of_returns() -> Iterator[Variant]:
    """Discounting, and masks in it."""

    def variant(name: str, wrong: Callable, package: Package, kind: str = "discounting") -> Variant:
        patch = instead(RETURNS[package.name], "discounted_returns", wrong(package.xp))
        return Variant(name, kind, package.name, (patch,))

    for package in (JAX, TORCH):
        yield variant("γ on its own reward", recursion(lambda r, g, d: d * (r + g)), package)
        yield variant("γ forgotten", recursion(lambda r, g, d: r + g), package)
        yield variant("γ² for γ", recursion(lambda r, g, d: r + d * d * g), package)
    yield variant("own reward left out", later_rewards_only, JAX)
    yield variant("discounted from the episode's start", discounted_from_start, JAX)
    yield variant("division by powers of γ", divided_by_powers, TORCH)
    yield variant("rewards to date, not to go", to_date, JAX)
    yield variant("not reset between episodes", not_reset, JAX, "masking")
    yield variant("rewards masked by product", recursion(clean=multiplied), JAX, "masking")
    yield variant("padding in the returns", recursion(clean=kept), TORCH, "masking")
    yield variant("last step of an episode masked", recursion(clean=without_last), JAX, "masking")


def zeroed(xp: Any, array: Any, mask: Any) -> Any:
    return xp.where(mask, array, 0.0)


def multiplied(xp: Any, array: Any, mask: Any) -> Any:
    # JAX makes `array * mask` a selection if the mask is boolean; with numbers NaN · 0 is NaN.
    return array * xp.where(mask, 1.0, 0.0)


def kept(xp: Any, array: Any, mask: Any) -> Any:
    return array


def without_last(xp: Any, array: Any, mask: Any) -> Any:
    following = xp.concatenate([mask[1:], xp.zeros_like(mask[:1])], 0)
    return xp.where(mask & following, array, 0.0)


def recursion(
    step: Callable = lambda r, g, d: r + d * g, clean: Callable = zeroed
) -> Callable[[Any], Callable]:
    """G_t = step(r_t, G_{t+1}, γ), with one thing or another wrong."""

    def made(xp: Any) -> Callable:
        def discounted_returns(rewards, mask, discount):
            rewards = clean(xp, rewards, mask)
            following, rows = 0.0 * rewards[0], []
            for t in reversed(range(len(rewards))):
                following = step(rewards[t], following, discount)
                if clean is zeroed:
                    following = xp.where(mask[t], following, 0.0)
                rows.append(following)
            return xp.stack(rows[::-1])

        return discounted_returns

    return made


def later_rewards_only(xp: Any) -> Callable:
    def discounted_returns(rewards, mask, discount):
        returns = recursion()(xp)(rewards, mask, discount)
        return returns - zeroed(xp, rewards, mask)

    return discounted_returns


def discounted_from_start(xp: Any) -> Callable:
    """Σ_{k ≥ t} γᵏ r_k, which is γᵗ G_t."""

    def discounted_returns(rewards, mask, discount):
        powers = xp.stack([xp.ones_like(rewards[0]) * discount**t for t in range(len(rewards))])
        return recursion()(xp)(rewards, mask, discount) * powers

    return discounted_returns


def to_date(xp: Any) -> Callable:
    def discounted_returns(rewards, mask, discount):
        flipped = xp.flip(zeroed(xp, rewards, mask), (0,))
        backwards = recursion()(xp)(flipped, xp.flip(mask, (0,)), discount)
        return xp.where(mask, xp.flip(backwards, (0,)), 0.0)

    return discounted_returns


def divided_by_powers(xp: Any) -> Callable:
    def discounted_returns(rewards, mask, discount):
        powers = xp.stack([xp.ones_like(rewards[0]) * discount**t for t in range(len(rewards))])
        terms = zeroed(xp, rewards, mask) * powers
        before = xp.cumsum(terms, 0) - terms
        return zeroed(xp, (terms.sum(0) - before) / powers, mask)

    return discounted_returns


def not_reset(xp: Any) -> Callable:
    """The return runs on from one episode into the one beside it."""

    def discounted_returns(rewards, mask, discount):
        following, columns = 0.0 * rewards[0, 0], []
        cleaned = zeroed(xp, rewards, mask)
        for b in reversed(range(rewards.shape[1])):
            rows = []
            for t in reversed(range(rewards.shape[0])):
                following = cleaned[t, b] + discount * following
                rows.append(following)
            columns.append(xp.stack(rows[::-1]))
        return zeroed(xp, xp.stack(columns[::-1], 1), mask)

    return discounted_returns


# --- advantages ----------------------------------------------------------------------------------


def of_advantages() -> Iterator[Variant]:
    """Normalising."""

    def variant(name: str, package: Package, **wrong: Any) -> Variant:
        patch = instead(RETURNS[package.name], "normalize_returns", normalized(package, **wrong))
        return Variant(name, "normalising", package.name, (patch,))

    for package in (JAX, TORCH):
        yield variant("unbiased deviation", package, ddof=1)
        yield variant("epsilon of 1e-8 on the deviation", package, eps=1e-8)
        yield variant("statistics of the batch for the episode's", package, episode=(0, 1))
    yield variant("statistics of the episode for the batch's", JAX, batch=(0,))
    yield variant("statistics over episodes, not over time", JAX, episode=(1,), batch=(1,))
    yield variant("padding in mean and deviation", JAX, over_padding=True)
    yield variant("noise divided by noise", JAX, floor=0.0)
    yield variant("no signal below 1e-3", TORCH, floor=1e-3)
    for package in (JAX, TORCH):
        yield variant("no signal below 1.11e-5", package, floor=1.11e-5)
        yield variant("a signal from 0.84e-5", package, floor=0.84e-5)
    yield variant("divided by the variance", JAX, power=1.0)
    yield variant("mean not subtracted", TORCH, centre=False)
    yield variant("deviation not divided by", JAX, power=0.0)
    yield variant("the scope is not looked at", JAX, none=(0,))
    shared = [
        instead(RETURNS[p.name], "normalize_returns", normalized(p, ddof=1)) for p in (JAX, TORCH)
    ]
    yield Variant("unbiased deviation in both", "normalising", "both", tuple(shared))


def normalized(
    package: Package,
    *,
    episode: tuple[int, ...] = (0,),
    batch: tuple[int, ...] = (0, 1),
    none: tuple[int, ...] | None = None,
    ddof: int = 0,
    eps: float = 0.0,
    floor: float = 1e-5,
    power: float = 0.5,
    centre: bool = True,
    over_padding: bool = False,
) -> Callable:
    """The advantages, with one thing or another wrong."""
    xp = package.xp

    def normalize_returns(returns, mask, scope="episode"):
        where = xp.ones_like(mask) if over_padding else mask
        values = xp.where(mask, returns, 0.0)
        axes = {"episode": episode, "batch": batch, "none": none}[scope]
        if axes is None:
            return values
        largest = xp.amax(abs(package.stop(values)), axes, keepdims=True)
        values = values / xp.where(largest == 0, 1.0, largest)
        count = where.sum(axes, keepdims=True)
        mean = values.sum(axes, keepdims=True) / count if centre else 0.0
        deviation = xp.where(where, values - mean, 0.0)
        variance = (deviation**2).sum(axes, keepdims=True) / xp.clip(count - ddof, 1, None)
        degenerate = variance <= floor**2
        spread = xp.where(degenerate, 1.0, variance) ** power
        # Here epsilon is a share of max|G|; it is one of the deviation in the returns' own unit.
        eps_here = eps / xp.where(largest == 0, 1.0, largest)
        return xp.where(degenerate | ~mask, 0.0, deviation / (spread + eps_here))

    return normalize_returns


# --- the loss ------------------------------------------------------------------------------------


def of_loss() -> Iterator[Variant]:
    """Reductions, masks, stops and shapes."""

    def variant(name: str, kind: str, package: Package, **wrong: Any) -> Variant:
        patch = instead(LOSSES[package.name], "reinforce_loss", weighed(package, **wrong))
        train = instead(train_of(package), "reinforce_loss", weighed(package, **wrong))
        return Variant(name, kind, package.name, (patch, train))

    def masked(product: Callable) -> Callable:
        return lambda package, x, mask: product(package.xp, x, mask)

    for package in (JAX, TORCH):
        yield variant("summed over episodes", "reductions", package, reduce=lambda x, m: x.sum())
        yield variant("averaged over time", "reductions", package, reduce=lambda x, m: x.mean())
        yield variant(
            "averaged over steps", "reductions", package, reduce=lambda x, m: x.sum() / m.sum()
        )
        yield variant(
            "advantages carry gradient", "missing stops", package, stop=lambda package, x: x
        )
        yield variant("loss masked by product", "masking", package, clean=masked(multiplied))
    yield variant("sign of the loss", "reductions", TORCH, reduce=lambda x, m: -x.sum(0).mean())
    yield variant("first episode only", "reductions", JAX, reduce=lambda x, m: x[:, 0].sum())
    yield variant("padding in the loss", "masking", JAX, clean=masked(kept))
    yield variant("last step left out of the loss", "masking", TORCH, clean=masked(without_last))
    yield variant(
        "log-probabilities carry no gradient",
        "missing stops",
        JAX,
        through=lambda package, x: package.stop(x),
    )
    yield variant(
        "(T, B, 1) times (T, B)", "shapes", JAX, multiply=lambda p, a: p[:, :, None] * a[:, None]
    )
    yield variant(
        "(T, B, 1) times (T, B), in PyTorch",
        "shapes",
        TORCH,
        multiply=lambda p, a: p[:, :, None] * a[:, None],
    )


def weighed(
    package: Package,
    *,
    clean: Callable = lambda package, x, mask: zeroed(package.xp, x, mask),
    stop: Callable = lambda package, x: package.stop(x),
    through: Callable = lambda package, x: x,
    multiply: Callable = lambda p, a: p * a,
    reduce: Callable = lambda x, mask: x.sum(0).mean(),
) -> Callable:
    """The loss, with one thing or another wrong."""

    def reinforce_loss(log_probs, advantages, mask):
        p = through(package, clean(package, log_probs, mask))
        return -reduce(multiply(p, stop(package, clean(package, advantages, mask))), mask)

    return reinforce_loss


def train_of(package: Package) -> Any:
    """The module that imported the loss by its name. (The attribute `train` is a function.)"""
    from importlib import import_module

    return import_module(f"{package.name}.train")
