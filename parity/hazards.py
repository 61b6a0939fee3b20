"""Inputs on which wrong code shows: named hazards, filled from a seeded generator.

Each function makes arrays of one kind, and most kinds are a hazard; `parity.strategies` draws the
seed and the kind and says how a hazard is told from its arrays. Shapes come from short lists,
since each new shape is compiled anew.

Shapes: T time steps, B episodes, O observation, A actions; `*batch` is any leading dimensions.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from parity.reward_hazards import rewards as rewards
from pgcore.agents import find_agent, layer_shapes
from pgcore.errors import require

Arrays = dict[str, np.ndarray]
"""Arrays by name."""


class Size(NamedTuple):
    """A network's sizes."""

    obs_dim: int
    num_actions: int
    hidden_sizes: tuple[int, ...]


EPISODES = ((1, 1), (5, 5), (24, 2))
"""T and B."""
SIZES = (Size(4, 2, (24, 12)), Size(5, 3, (5, 5)))
"""CartPole's, and one with square layers, which load without their transpose."""
DEPTHS = (Size(4, 2, (5,)), Size(4, 2, (5, 5, 5)))
"""Fewer hidden layers than the article's two, and more: square ones, so that any order fits."""

RUNS = ((SIZES[0], (1, 1)), (SIZES[0], (24, 2)), (SIZES[1], (5, 5)))
"""A network's sizes with T and B."""
LAWS = ((1, 1, 2), (24, 2, 2), (5, 5, 3))
"""T, B and A of a distribution's arrays."""

MASKS = ("full", "ragged", "one_step", "one_short")
THRESHOLD = ("just_degenerate", "just_a_signal")
"""Rewards about the deviation from which on returns are a signal."""
REWARDS = (
    "ones",
    "normal",
    "equal_returns",
    "degenerate",
    "nearly_equal",
    "sparse",
    "zeros",
    "tiny",
    "huge",
    "subnormal",
    *THRESHOLD,
)
PADDINGS = ("zeros", "nan", "garbage")
LOGITS = ("normal", "saturated", "vanishing", "absorbed", "equal", "tied", "shifted", "mixed")
NORMALS = ("usual", "narrow", "wide", "distant", "at_mean")
NOISES = ("usual", "zeros", "extreme")
PARAMS = ("initial", "large", "dead", "kink", "flat")
GRADIENTS = ("normal", "tiny", "huge", "sparse", "uneven", "zeros", "vanishing")
DISCOUNTS = (0.0, 0.99, 1.0)
COUNTS = (0, 1, 9, 999, 1_000_000)
"""Adam's steps so far; at 0 the bias correction is largest."""
NORMS = (2e-6, 1 - 1e-6, 1.0, 1 + 1e-6, 6.0, 2e6)
"""Global norms of a gradient, as a multiple of what it is clipped to."""
BOUNDED = ("inside", "outside", "at_bounds", "next_to_bounds")
TIES = (1, 2, 5)
"""From how many different values an array with ties is made."""


def mask(rng: np.random.Generator, shape: tuple[int, int], hazard: str) -> np.ndarray:
    """Which steps belong to the episodes `[T, B]`; each has one at least."""
    num_steps, num_episodes = shape
    lengths = {
        "full": np.full(num_episodes, num_steps),
        "ragged": rng.integers(1, num_steps + 1, num_episodes),
        "one_step": np.ones(num_episodes, int),
        "one_short": np.where(np.arange(num_episodes) == 0, 1, num_steps),
    }[hazard]
    return np.arange(num_steps)[:, None] < lengths


def padded(
    rng: np.random.Generator, array: np.ndarray, mask: np.ndarray, hazard: str
) -> np.ndarray:
    """The array with something else outside the mask: NaN and infinities, or numbers."""
    outside = np.broadcast_to(~mask.reshape(mask.shape + (1,) * (array.ndim - 2)), array.shape)
    if np.issubdtype(array.dtype, np.integer):
        filler = rng.choice([-1, 99, 2**31 - 1], size=array.shape)
    elif hazard == "nan":
        filler = rng.choice([np.nan, np.inf, -np.inf], size=array.shape)
    else:
        filler = 1e30 * rng.normal(size=array.shape)
    values = np.where(outside, 0 if hazard == "zeros" else filler, array)
    return values.astype(array.dtype)


def logits(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    hazard: str,
    mixed: Collection[str] = LOGITS,
) -> np.ndarray:
    """Logits `[*batch, A]`.

    `saturated`: one action leads by 1 to 700. `vanishing`: by 85 to 105, where float32 has
    subnormal probabilities. `absorbed`: by 14 to 40, where 1 + p rounds to 1. `tied`: two lead.
    `mixed`: each row is of one of the kinds `mixed`.
    """
    if hazard == "mixed":
        kinds = [logits(rng, shape, kind) for kind in mixed if kind != "mixed"]
        return np.choose(rng.integers(len(kinds), size=(*shape[:-1], 1)), kinds)
    normal = rng.normal(size=shape)
    leads = {"saturated": (1.0, 700.0), "vanishing": (85.0, 105.0), "absorbed": (14.0, 40.0)}
    if hazard in leads:
        leader = rng.integers(shape[-1], size=(*shape[:-1], 1))
        lead = rng.uniform(*leads[hazard], size=(*shape[:-1], 1))
        trailing = -lead - np.abs(normal) * (shape[-1] > 2)
        return np.where(np.arange(shape[-1]) == leader, 0.0, trailing)
    if hazard == "tied":
        order = np.argsort(rng.random(shape), axis=-1)
        return np.where(order < 2, 0.0, -0.5 - np.abs(normal)) + normal[..., :1]
    return {
        "normal": 3.0 * normal,
        "equal": np.broadcast_to(normal[..., :1], shape).copy(),
        "shifted": normal + 1e4 * rng.normal(size=(*shape[:-1], 1)),
    }[hazard]


def noise(rng: np.random.Generator, agent: str, shape: tuple[int, ...], hazard: str) -> np.ndarray:
    """Standard noise `[*batch, A]`; zeros make ties of equal logits."""
    usual = find_agent(agent).draw_noise(rng, shape)
    return {"usual": usual, "zeros": np.zeros(shape), "extreme": 30.0 * usual}[hazard]


def normal(rng: np.random.Generator, shape: tuple[int, ...], hazard: str) -> Arrays:
    """Means, standard deviations and a sample `[*batch, A]`.

    `narrow` and `wide`: std of about 3e-7 and 3e6 (torch itself squares it, so not e^±50).
    `distant`: samples some 50 std off. `at_mean`: the sample is the mean, where the slope is 0.
    """
    unit = np.exp({"narrow": -15.0, "wide": 15.0}.get(hazard, 0.0))
    loc = unit * np.tanh(rng.normal(size=shape))
    scale = unit * np.exp(0.5 * np.tanh(rng.normal(size=shape)))
    distance = {"distant": 50.0, "at_mean": 0.0}.get(hazard, 1.0)
    sample = loc + distance * scale * rng.standard_normal(shape)
    return {"loc": loc, "scale": scale, "sample": sample}


def params(rng: np.random.Generator, agent: str, size: Size, hazard: str) -> Arrays:
    """A network's tensors by neutral name: `linear1.weight [out, in]`, `linear1.bias [out]`, …

    `large`: outputs saturate. `dead`: the first layer's units are all off. `kink`: their inputs
    are exactly 0, where ReLU has no derivative and both sides must take 0. `flat`: the output
    layers' weights are 0, so that every observation gives the same distribution.
    """
    tensors: Arrays = {}
    layers = layer_shapes(agent, *size)
    for layer, (outputs, inputs) in layers.items():
        bound = 1 / np.sqrt(inputs)
        tensors[f"{layer}.weight"] = rng.uniform(-bound, bound, (outputs, inputs))
        tensors[f"{layer}.bias"] = rng.uniform(-bound, bound, outputs)
    if hazard == "large":
        tensors = {name: 8.0 * tensor for name, tensor in tensors.items()}
    elif hazard == "dead":
        tensors["linear1.bias"] = tensors["linear1.bias"] - 1e4
    elif hazard == "kink":
        tensors["linear1.weight"][:] = 0.0
        tensors["linear1.bias"][:] = 0.0
    elif hazard == "flat":
        for layer in list(layers)[len(size.hidden_sizes) :]:
            tensors[f"{layer}.weight"][:] = 0.0
    return tensors


def gradients(rng: np.random.Generator, shapes: Mapping[str, np.ndarray], hazard: str) -> Arrays:
    """Gradients in the shape of a network's tensors.

    `sparse` has exact zeros, as of dead units; `zeros` nothing else, so that the global norm is 0.
    The squares of `vanishing` ones are 0 in float32, and so is Adam's second moment.
    """
    scale = {"tiny": 1e-12, "huge": 1e12, "zeros": 0.0, "vanishing": 1e-25}.get(hazard, 1.0)
    drawn: Arrays = {}
    for name, tensor in shapes.items():
        values = scale * rng.normal(size=tensor.shape)
        if hazard == "sparse":
            values *= rng.random(tensor.shape) < 0.5
        if hazard == "uneven":
            values *= 10.0 ** rng.integers(-6, 7)
        drawn[name] = values
    return drawn


def global_norm(tensors: Mapping[str, np.ndarray]) -> float:
    """√Σ g² over all entries of all tensors."""
    return float(np.sqrt(sum(np.sum(tensor**2) for tensor in tensors.values())))


def with_norm(tensors: Mapping[str, np.ndarray], norm: float) -> Arrays:
    """The tensors, scaled so that their global norm is `norm`; zeros stay zeros."""
    found = global_norm(tensors)
    share = norm / found if found else 1.0
    return {name: share * tensor for name, tensor in tensors.items()}


def bounded(
    rng: np.random.Generator, shape: tuple[int, ...], lower: float, upper: float, hazard: str
) -> np.ndarray:
    """Values `[*batch]` for a function that clips at two bounds, or changes its formula there.

    `at_bounds`: exactly on them, where frameworks differ in the gradient.
    `next_to_bounds`: the float32 number before or after. The others stay clear of them.

    Raises:
        UsageError: The bounds are not in order, or not float32 numbers: rounding the values to
            float32 would move them off the bounds.
    """
    require(lower < upper, "bounds", (lower, upper), "a lower one and an upper one, in order")
    for bound in (lower, upper):
        nearest = float(np.float32(bound))
        require(nearest == bound, "a bound", bound, f"a float32 number, for example {nearest!r}")
    width = upper - lower
    if hazard == "inside":
        return rng.uniform(lower + 0.1 * width, upper - 0.1 * width, shape)
    is_upper = rng.random(shape) < 0.5
    bounds = np.where(is_upper, upper, lower)
    if hazard == "at_bounds":
        return bounds
    outward = np.where(is_upper, np.inf, -np.inf)
    if hazard == "next_to_bounds":
        towards = np.where(rng.random(shape) < 0.5, outward, -outward)
        return np.nextafter(bounds.astype(np.float32), towards.astype(np.float32)).astype(float)
    return {"outside": bounds + np.sign(outward) * width * rng.uniform(0.1, 3.0, shape)}[hazard]


def ties(rng: np.random.Generator, shape: tuple[int, ...], num_values: int) -> np.ndarray:
    """Whole numbers `[*batch, A]`, of `num_values` different ones: the first of equals must win."""
    return rng.integers(num_values, size=shape).astype(float)


class Batch(NamedTuple):
    """What an update learns from, with the mask that says what is data."""

    obs: np.ndarray
    sample: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    mask: np.ndarray
    terminated: np.ndarray


def batch(
    rng: np.random.Generator,
    agent: str,
    size: Size,
    shape: tuple[int, int],
    *,
    mask_hazard: str,
    reward_hazard: str,
    discount: float,
) -> Batch:
    """Episodes `[T, B]` with zeros outside the mask."""
    running = mask(rng, shape, mask_hazard)
    obs = np.where(running[..., None], rng.normal(size=(*shape, size.obs_dim)), 0.0)
    z = np.where(running[..., None], rng.normal(size=(*shape, size.num_actions)), 0.0)
    action = np.argmax(z, axis=-1).astype(np.int32)
    return Batch(
        obs=obs,
        sample=action.copy() if agent == "reinforce" else z,
        action=action,
        reward=rewards(rng, running, discount, reward_hazard),
        mask=running,
        terminated=rng.random(shape[1]) < 0.5,
    )
