"""What is drawn and can't be compared number by number: initial weights, noise, first states.

Both packages are held against the exact law. With F its distribution function and Fₙ the share of
n draws below a number, right code gives sup |Fₙ − F| > √(ln(2/α) / 2n) with a probability of at
most α (Massart 1990). No draw may lie outside the law's support, and the extremes must come near
its ends. And no two numbers of one draw may depend on each other: over n draws two independent ones
have a correlation |r| > z/√n with a probability of at most 2·e^(−z²/2). A key used twice, or
a tied row, shows there.

Noise that comes again after many steps shows in numbers that come again. Each of n equals an
earlier one with a probability of at most n·p, p that of the likeliest number, so d of them or more
do with at most C(n, d) · (n·p)^d ≤ (e·n²·p / d)^d.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from parity.hazards import SIZES
from parity.suite.weights import from_flax, jax_policy, torch_policy
from parity.tolerance import Comparison, Mismatch, Verdict
from pgcore.agents import layer_shapes
from pgjax.envs import cartpole as jax_cartpole
from pgtorch.envs import cartpole as torch_cartpole

jax_rollout, torch_rollout = import_module("pgjax.rollout"), import_module("pgtorch.rollout")

ERROR_RATE = 1e-9
"""Of each verdict, were the seeds drawn anew: α above."""
NUM_DRAWS = 2_000
HEAD_BOUND = 3e-3
"""The Gaussian heads start uniform in ± this, weight and bias."""
RESET_BOUND = 0.05
"""CartPole's first states are uniform in ± this, in each component."""
PACKAGES = ("pgjax", "pgtorch")
NOISE_STEPS, NOISE_EPISODES = 5, 3
LONG_STEPS, LONG_EPISODES = 1_000, 2
"""Twice CartPole's longest episode, so that noise of that period comes again."""
LIKELIEST = 2.0**-20
"""No number is drawn more often: float32 generators have 2²³ or more, of which few round to one."""


class Law(NamedTuple):
    """A distribution function, and the bounds of its support."""

    cdf: Callable[[np.ndarray], np.ndarray]
    low: float = -math.inf
    high: float = math.inf


def uniform(bound: float) -> Law:
    """Uniform within ±bound."""
    return Law(lambda x: np.clip((x / bound + 1) / 2, 0, 1), -bound, bound)


GUMBEL = Law(lambda x: np.exp(-np.exp(-x)))
NORMAL = Law(lambda x: 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


class Draws(NamedTuple):
    """Something drawn: `draw(key)` gives arrays by name, each of which has a law."""

    stage: str
    package: str
    draw: Callable[..., Mapping]
    laws: Mapping[str, Law]

    def compare(self, seed: int) -> Comparison:
        """Draws from many seeds, and holds them to their laws."""
        many = _in_jax if self.package == "pgjax" else _in_torch
        return held(f"{self.stage}, {self.package}", many(self.draw, seed), self.laws)

    def trace(self) -> None:
        """Calls everything that a draw would."""
        if self.package == "pgjax":
            jax.eval_shape(self.draw, jax.random.key(0))
        else:
            self.draw(torch.Generator())


def initialisation(package: str, agent: str) -> Draws:
    """The weights and biases of new networks."""
    size = SIZES[0]
    laws = {}
    for layer, (_, inputs) in layer_shapes(agent, *size).items():
        is_gaussian_head = agent == "reparam" and not layer.removeprefix("linear").isdigit()
        law = uniform(HEAD_BOUND if is_gaussian_head else 1 / math.sqrt(inputs))
        laws |= {f"{layer}.weight": law, f"{layer}.bias": law}
    if package == "pgjax":
        init = jax_policy(agent, size).init
        return Draws("initialisation", package, lambda key: from_flax(init(key)), laws)
    init = torch_policy(agent, size).init
    return Draws("initialisation", package, lambda key: dict(init(key).named_parameters()), laws)


def noise(package: str, agent: str) -> Draws:
    """A rollout's noise: the agent's own, and CartPole's first states."""
    is_jax = package == "pgjax"
    rollout = jax_rollout if is_jax else torch_rollout
    policy = (jax_policy if is_jax else torch_policy)(agent)

    def draw(key: Any) -> dict[str, Any]:
        env = (jax_cartpole if is_jax else torch_cartpole).CartPole(NOISE_STEPS)
        return rollout.draw_noise(policy, env, key, NOISE_EPISODES)._asdict()

    laws = {"reset": uniform(RESET_BOUND), "policy": NORMAL if agent == "reparam" else GUMBEL}
    return Draws("noise", package, draw, laws)


class LongNoise(NamedTuple):
    """A rollout's noise over many steps, from two seeds."""

    package: str
    agent: str

    def compare(self, seed: int) -> Comparison:
        """Counts the numbers that come again."""
        keys = (seed, seed + 1)
        if self.package == "pgjax":
            drawn = [jax.jit(self._draw)(jax.random.key(key)) for key in keys]
        else:
            drawn = [self._draw(torch.Generator().manual_seed(key)) for key in keys]
        found = repeats(np.stack([np.asarray(noise) for noise in drawn]))
        findings = {("policy", "repeats"): (*found, "as drawn", "numbers of their own")}
        return _judged(f"long noise, {self.package}", findings)

    def trace(self) -> None:
        """Calls everything that a draw would."""
        if self.package == "pgjax":
            jax.eval_shape(self._draw, jax.random.key(0))
        else:
            self._draw(torch.Generator())

    def _draw(self, key: Any) -> Any:
        if self.package == "pgjax":
            env, policy = jax_cartpole.CartPole(LONG_STEPS), jax_policy(self.agent)
            return jax_rollout.draw_noise(policy, env, key, LONG_EPISODES).policy
        env, policy = torch_cartpole.CartPole(LONG_STEPS), torch_policy(self.agent)
        return torch_rollout.draw_noise(policy, env, key, LONG_EPISODES).policy


def held(stage: str, drawn: Mapping[str, np.ndarray], laws: Mapping[str, Law]) -> Comparison:
    """Draws `[n, ...]` by name, the last one a repetition of the first, against their laws."""
    if set(drawn) != set(laws):
        found, known = ", ".join(sorted(drawn)), ", ".join(sorted(laws))
        return _judged(stage, {("all", "names"): (math.inf, 0.0, found, known)})
    findings = {}
    for name, law in laws.items():
        array = np.asarray(drawn[name], np.float64)
        findings[name, "law"] = (*distance(array[:-1], law), "as drawn", "the law")
        outside = np.maximum(array - np.float32(law.high), np.float32(law.low) - array).max()
        findings[name, "reach"] = (*shortfall(array[:-1], law), "as drawn", "the law")
        findings[name, "support"] = (max(float(outside), 0.0), 0.0, "as drawn", "the law")
        differs = float(np.max(np.abs(array[0] - array[-1])))
        findings[name, "the same seed again"] = (differs, 0.0, "as drawn", "the same")
    together = [
        np.asarray(drawn[name], float)[:-1].reshape(len(drawn[name]) - 1, -1) for name in laws
    ]
    findings["all", "dependence"] = (*dependence(np.concatenate(together, 1)), "as drawn", "none")
    return _judged(stage, findings)


def distance(drawn: np.ndarray, law: Law) -> tuple[float, float]:
    """sup |Fₙ − F|, and what chance allows it."""
    ordered = np.sort(drawn.ravel())
    expected, n = law.cdf(ordered), ordered.size
    above = np.max(np.arange(1, n + 1) / n - expected)
    below = np.max(expected - np.arange(n) / n)
    return float(max(above, below)), math.sqrt(math.log(2 / ERROR_RATE) / (2 * n))


def shortfall(drawn: np.ndarray, law: Law) -> tuple[float, float]:
    """How much of the law lies beyond the extremes of n draws, and what chance allows it.

    None of n draws falls into a tail of probability p with a probability of (1 − p)ⁿ ≤ e^(−np).
    """
    ends = law.cdf(np.array([drawn.min(), drawn.max()]))
    return float(max(ends[0], 1 - ends[1])), math.log(2 / ERROR_RATE) / drawn.size


def dependence(drawn: np.ndarray) -> tuple[float, float]:
    """The largest correlation among the columns of `[n, numbers]`, and what chance allows it.

    What is always the same depends on everything.
    """
    num_pairs = drawn.shape[1] * (drawn.shape[1] - 1) // 2
    bound = math.sqrt(2 * math.log(2 * num_pairs / ERROR_RATE) / len(drawn))
    if (np.ptp(drawn, axis=0) == 0).any():
        return 1.0, bound
    correlation = np.corrcoef(drawn, rowvar=False)
    return float(np.abs(correlation[np.triu_indices(len(correlation), 1)]).max()), bound


def repeats(drawn: np.ndarray) -> tuple[float, float]:
    """How many numbers came before, and what chance allows."""
    n = drawn.size
    allowed = next(
        d for d in range(1, n + 1) if (math.e * n * n * LIKELIEST / d) ** d <= ERROR_RATE
    )
    return float(n - len(np.unique(drawn))), float(allowed)


def _judged(
    stage: str, findings: Mapping[tuple[str, str], tuple[float, float, str, str]]
) -> Comparison:
    verdicts, mismatches = [], []
    for (name, what), (error, bound, found, expected) in findings.items():
        leaf = f"{name}: {what}"
        verdicts.append(Verdict(leaf, "float32", "candidate", error, bound, "chance"))
        if not error <= bound:
            mismatches.append(
                Mismatch(stage, leaf, (), expected, found, None, error, bound, "float32")
            )
    return Comparison(stage, mismatches, verdicts)


def _in_jax(draw: Callable, seed: int) -> dict[str, np.ndarray]:
    # A map and not vmap, which takes 15 s to compile.
    drawn = jax.jit(partial(jax.lax.map, lambda one: draw(jax.random.key(one))))(_seeds(seed))
    return {name: np.asarray(array) for name, array in drawn.items()}


def _in_torch(draw: Callable, seed: int) -> dict[str, np.ndarray]:
    drawn = [draw(torch.Generator().manual_seed(int(one))) for one in _seeds(seed)]
    return {name: np.stack([each[name].detach().numpy() for each in drawn]) for name in drawn[0]}


def _seeds(seed: int) -> np.ndarray:
    """Of all draws; the last is the first again."""
    return np.array([*range(seed, seed + NUM_DRAWS), seed], np.uint32)
