"""What the early exit of `pgjax.rollout` costs or saves, under `vmap` over 100 seeds.

    python -m benchmarks.early_exit

Each row is a median of 9 runs, early exit and full scan in turn: 100 × 8 episodes of CartPole with
fresh networks, whose episodes are short, and with a policy that never falls, so that nothing can be
saved.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import pgjax

NUM_SEEDS, NUM_EPISODES, NUM_RUNS = 100, 8, 9
BALANCE = jnp.array([0.1, 0.5, 3.0, 3.0])
"""A linear controller that keeps the pole up for 500 steps."""


def main() -> None:
    """Prints milliseconds and the ratio for each case."""
    env = pgjax.CartPole()
    fresh = pgjax.make_policy("reinforce", env.obs_dim, env.num_actions)
    steady = pgjax.from_callable({}, balance, env.num_actions)
    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    print("episodes   mean steps   early exit ms   full scan ms   ratio")
    for name, policy in (("short", fresh), ("full", steady)):
        params = jax.vmap(policy.init)(keys)
        noise = jax.jit(jax.vmap(lambda key, p=policy: pgjax.draw_noise(p, env, key, NUM_EPISODES)))
        early, full = (compiled(policy, env, early_exit) for early_exit in (True, False))
        arguments = (params, noise(keys))
        length = float(early(*arguments).mask.sum(axis=1).mean())
        full(*arguments)
        pairs = [(timed(early, *arguments), timed(full, *arguments)) for _ in range(NUM_RUNS)]
        in_early, in_full = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"{name:8} {length:12.1f} {in_early:15.1f} {in_full:14.1f} {in_early / in_full:7.2f}")


def balance(params: Any, obs: jax.Array) -> jax.Array:
    """Logits that push towards balance, strongly."""
    push = 20 * (obs @ BALANCE)
    return jnp.stack([-push, push], axis=-1)


def compiled(policy: pgjax.Policy, env: pgjax.Env, early_exit: bool) -> Callable[..., Any]:
    """The rollout of one seed, mapped over all of them."""
    return jax.jit(
        jax.vmap(
            lambda params, noise: pgjax.rollout(policy, params, env, noise, early_exit=early_exit)
        )
    )


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
