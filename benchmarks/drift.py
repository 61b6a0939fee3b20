"""How far whole episodes of pgjax's own CartPole drift from Gymnasium's, and why.

The two compute the same formulas; what differs is rounding: XLA fuses a product and a sum into one
operation and has a sine and cosine of its own. Upright, the pole is unstable. Its angle obeys
θ̈ = λ² θ with λ² = g / (l (4/3 − m/M)), so that a difference grows by a factor of about 1 + 0.02 λ a
step, whatever it was at first. An open loop (the same pushes in both, recorded in Gymnasium) shows
that growth. In a closed loop each side's controller answers what it observes: the observation is
rounded to float32, and the pushes are the same until a difference has grown to decide one.

`--save` keeps the figures in `benchmarks/results/drift.json` and their table in `docs/lockstep.md`.
"""

import math
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import results
from pgcore.envs.gym import GymEpisodes, gym_spec
from pgjax.envs import cartpole

STEPS = (1, 10, 100, 200, 300, 400, 499)
CONTROLLER = np.array([0.05, 0.2, 1.0, 0.4])
"""Pushes right if this product with the observation is positive: it balances for 500 steps."""
GROWTH = 1 + cartpole.TIME_STEP * math.sqrt(
    cartpole.GRAVITY
    / (cartpole.HALF_POLE_LENGTH * (4 / 3 - cartpole.POLE_MASS / cartpole.TOTAL_MASS))
)
"""A difference's growth a step near the upright, by the linearised equation."""


@dataclass(frozen=True)
class Drift:
    """Play the same episodes in pgjax's own CartPole and in Gymnasium's."""

    episodes: int = 1_000
    """How many."""
    save: bool = False
    """Keep the figures and the table."""


class Played(NamedTuple):
    """Episodes as they were: `obs [T, B, 4]` before each push, `action` and `running [T, B]`."""

    obs: np.ndarray
    action: np.ndarray
    running: np.ndarray


def main(options: Drift) -> int:
    """Plays them, and prints how far apart they come; 1 if the growth is not that of the pole."""
    rng = np.random.default_rng(0)
    start = rng.uniform(-0.05, 0.05, size=(options.episodes, 4))
    theirs = in_gymnasium(start)
    figures: dict[str, Any] = {"episodes": options.episodes, "growth": round(GROWTH, 4)}
    for dtype in ("float64", "float32"):
        with jax.enable_x64(dtype == "float64"):
            given = jnp.array(start.astype(dtype))
            opened = Played(*map(np.asarray, open_loop(given, theirs.action)))
            closed = Played(*map(np.asarray, closed_loop(given)))
        figures[dtype] = compared(theirs, opened, closed)
    print(table(figures))
    if options.save:
        results.save("drift", "python -m benchmarks.drift --save", figures)
        results.put_table("docs/lockstep.md", "drift", table(figures))
    measured = [figures[dtype]["growth"] for dtype in ("float64", "float32")]
    return 0 if all(abs(each - GROWTH) < 0.02 for each in measured) else 1


def in_gymnasium(start: np.ndarray) -> Played:
    """The controller's episodes in Gymnasium's environment, 100 at a time."""
    parts = []
    for first in range(0, len(start), 100):
        part = start[first : first + 100]
        episodes = GymEpisodes(gym_spec("CartPole-v1"), len(part))
        obs, running = episodes.reset(part), np.ones(len(part), bool)
        steps = []
        for _ in range(500):
            action = (obs @ CONTROLLER > 0).astype(np.int64)
            steps.append((obs, action, running))
            obs, _, terminated, truncated = episodes.step(action)
            running = running & ~(terminated | truncated)
        episodes.close()
        parts.append([np.stack(field) for field in zip(*steps, strict=True)])
    return Played(*(np.concatenate(field, axis=1) for field in zip(*parts, strict=True)))


@jax.jit
def open_loop(start: jax.Array, actions: jax.Array) -> tuple[jax.Array, ...]:
    """pgjax's own CartPole under given pushes; `obs` are the states, not rounded."""

    def step(state: cartpole.CartPoleState, action: jax.Array) -> tuple[Any, Any]:
        after, *_ = cartpole.step(state, action)
        return after, (state.physics, action, jnp.ones_like(action, bool))

    return jax.lax.scan(step, cartpole.reset(start)[0], actions)[1]


@jax.jit
def closed_loop(start: jax.Array) -> tuple[jax.Array, ...]:
    """pgjax's own CartPole under the controller."""

    def step(carry: tuple[Any, Any, Any], _: Any) -> tuple[Any, Any]:
        state, obs, running = carry
        action = (obs @ CONTROLLER > 0).astype(jnp.int32)
        state, after, _, terminated, truncated = cartpole.step(state, action)
        return (state, after, running & ~(terminated | truncated)), (obs, action, running)

    state, obs = cartpole.reset(start)
    return jax.lax.scan(step, (state, obs, jnp.ones(len(start), bool)), None, 500)[1]


def compared(theirs: Played, opened: Played, closed: Played) -> dict[str, Any]:
    """What differs, in numbers. In the open loop: the median distance, where both are observed."""
    apart = np.abs(opened.obs.astype(np.float64) - theirs.obs).max(-1)
    both = closed.running & theirs.running
    differs = (closed.obs != theirs.obs).any(-1) & both
    pushes = (closed.action != theirs.action) & both
    lengths = closed.running.sum(0) != theirs.running.sum(0)
    return {
        "open": {str(step): float(f"{np.median(apart[step]):.2g}") for step in STEPS},
        "growth": round(_growth(apart), 4),
        "observations_equal": float(1 - differs.any(0).mean()),
        "first_differs": _first(differs),
        "pushes_differ": float(pushes.any(0).mean()),
        "first_push": _first(pushes),
        "lengths_differ": float(lengths.mean()),
    }


def _growth(apart: np.ndarray) -> float:
    """A difference's growth a step in the open loop, once it is above an observation's rounding."""
    median = np.median(apart, axis=1)
    first = int(np.argmax(median > 1e-6))
    last = int(np.argmax(median > 1e-2)) or len(median) - 1
    return float((median[last] / median[first]) ** (1 / (last - first)))


def _first(differs: np.ndarray) -> int | None:
    """The median step at which an episode first differs, of those that do."""
    found = differs.argmax(0)[differs.any(0)]
    return int(np.median(found)) if found.size else None


def table(figures: dict[str, Any]) -> str:
    """A line for each quantity."""
    rows = [
        ("open loop: growth a step", *(f"{figures[d]['growth']:.3f}" for d in DTYPES)),
        *(
            (
                f"open loop: apart after {n} steps",
                *(f"{figures[d]['open'][str(n)]:.1g}" for d in DTYPES),
            )
            for n in STEPS
        ),
        (
            "closed loop: all observations equal",
            *(_share(figures, d, "observations_equal") for d in DTYPES),
        ),
        (
            "closed loop: first step that differs",
            *(str(figures[d]["first_differs"]) for d in DTYPES),
        ),
        ("closed loop: another push", *(_share(figures, d, "pushes_differ") for d in DTYPES)),
        ("closed loop: first such step", *(str(figures[d]["first_push"]) for d in DTYPES)),
        ("closed loop: another length", *(_share(figures, d, "lengths_differ") for d in DTYPES)),
    ]
    return results.table((f"{figures['episodes']:,} episodes", *DTYPES), rows)


DTYPES = ("float64", "float32")


def _share(figures: dict[str, Any], dtype: str, name: str) -> str:
    return f"{figures[dtype][name]:.1%}"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Drift)))
