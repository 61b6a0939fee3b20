"""Inputs on which wrong code shows: named hazards, filled from a drawn seed.

Hypothesis draws a seed and the names; the arrays come from the seed. Shapes come from short lists,
since each new shape is compiled anew.
"""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

Arrays = dict[str, np.ndarray]

SEEDS = st.integers(0, 2**32 - 1)


class Size(NamedTuple):
    """A network's sizes."""

    obs_dim: int
    num_actions: int
    hidden_sizes: tuple[int, ...]


EPISODES = ((1, 1), (5, 5), (24, 2))
"""T and B."""
SIZES = (Size(4, 2, (24, 12)), Size(5, 3, (5, 5)))
"""CartPole's, and one with square layers, which load without their transpose."""

RUNS = ((SIZES[0], (1, 1)), (SIZES[0], (24, 2)), (SIZES[1], (5, 5)))
"""A network's sizes with T and B."""

MASKS = ("full", "ragged", "one_step", "one_short")
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
)
PADDINGS = ("zeros", "nan", "garbage")
LOGITS = ("normal", "saturated", "vanishing", "absorbed", "equal", "shifted", "mixed")
NORMALS = ("usual", "narrow", "wide", "distant")
NOISES = ("usual", "zeros", "extreme")
PARAMS = ("initial", "large", "dead", "kink")
GRADIENTS = ("normal", "tiny", "huge", "sparse", "uneven")
DISCOUNTS = (0.0, 0.99, 1.0)
COUNTS = (0, 1, 9, 999, 1_000_000)


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


def rewards(rng: np.random.Generator, mask: np.ndarray, discount: float, hazard: str) -> np.ndarray:
    """Rewards `[T, B]`.

    The returns' deviation is, as a share of max|G|: rounding for `equal_returns`, about 1e-6 for
    `degenerate`, still no signal, and about 3e-4 for `nearly_equal`, which is one.
    """
    normal = rng.normal(size=mask.shape)
    ones = np.ones(mask.shape)
    # G_t = r_t + γG_{t+1} stays G if every reward is (1 − γ)G and the last one is G.
    last = mask & ~np.vstack([mask[1:], np.zeros((1, mask.shape[1]), bool)])
    equal = 3.7 * np.where(last, 1.0, 1.0 - discount)
    values = {
        "ones": ones,
        "normal": normal,
        "equal_returns": equal,
        "degenerate": equal + 1e-6 * normal,
        "nearly_equal": equal + 1e-3 * normal,
        "sparse": np.where(last, ones, 0.0),
        "zeros": 0.0 * ones,
        "tiny": 1e-30 * normal,
        "huge": 1e30 * normal,
    }[hazard]
    return np.where(mask, values, 0.0)


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


def logits(rng: np.random.Generator, shape: tuple[int, ...], hazard: str) -> np.ndarray:
    """Logits `[*batch, A]`.

    `saturated`: one action leads by 1 to 700. `vanishing`: by 85 to 105, where float32 has
    subnormal probabilities. `absorbed`: by 14 to 40, where 1 + p rounds to 1.
    """
    if hazard == "mixed":
        kinds = [logits(rng, shape, kind) for kind in LOGITS if kind != "mixed"]
        return np.choose(rng.integers(len(kinds), size=(*shape[:-1], 1)), kinds)
    normal = rng.normal(size=shape)
    leads = {"saturated": (1.0, 700.0), "vanishing": (85.0, 105.0), "absorbed": (14.0, 40.0)}
    if hazard in leads:
        leader = rng.integers(shape[-1], size=(*shape[:-1], 1))
        lead = rng.uniform(*leads[hazard], size=(*shape[:-1], 1))
        trailing = -lead - np.abs(normal) * (shape[-1] > 2)
        return np.where(np.arange(shape[-1]) == leader, 0.0, trailing)
    return {
        "normal": 3.0 * normal,
        "equal": np.broadcast_to(normal[..., :1], shape).copy(),
        "shifted": normal + 1e4 * rng.normal(size=(*shape[:-1], 1)),
    }[hazard]


def noise(rng: np.random.Generator, agent: str, shape: tuple[int, ...], hazard: str) -> np.ndarray:
    """Standard noise `[*batch, A]`; zeros make ties of equal logits."""
    usual = rng.gumbel(size=shape) if agent == "reinforce" else rng.standard_normal(shape)
    return {"usual": usual, "zeros": np.zeros(shape), "extreme": 30.0 * usual}[hazard]


def normal(rng: np.random.Generator, shape: tuple[int, ...], hazard: str) -> Arrays:
    """Means, standard deviations and a sample `[*batch, A]`.

    `narrow` and `wide`: std of about 3e-7 and 3e6 (torch itself squares it, so not e^±50).
    `distant`: samples some 50 std off.
    """
    unit = np.exp({"narrow": -15.0, "wide": 15.0}.get(hazard, 0.0))
    loc = unit * np.tanh(rng.normal(size=shape))
    scale = unit * np.exp(0.5 * np.tanh(rng.normal(size=shape)))
    distance = 50.0 if hazard == "distant" else 1.0
    sample = loc + distance * scale * rng.standard_normal(shape)
    return {"loc": loc, "scale": scale, "sample": sample}


def params(rng: np.random.Generator, agent: str, size: Size, hazard: str) -> Arrays:
    """A network's tensors by neutral name.

    `large`: outputs saturate. `dead`: the first layer's units are all off. `kink`: their inputs
    are exactly 0, where ReLU has no derivative and both sides must take 0.
    """
    widths = (size.obs_dim, *size.hidden_sizes)
    layers = {f"linear{i + 1}": (widths[i + 1], widths[i]) for i in range(len(size.hidden_sizes))}
    if agent == "reinforce":
        heads = (f"linear{len(size.hidden_sizes) + 1}",)
    else:
        heads = ("mu_linear", "logvar_linear")
    layers |= dict.fromkeys(heads, (size.num_actions, widths[-1]))
    tensors: Arrays = {}
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
    return tensors


def gradients(rng: np.random.Generator, shapes: Arrays, hazard: str) -> Arrays:
    """Gradients in the shape of a network's tensors; `sparse` has exact zeros, as of dead units."""
    scale = {"tiny": 1e-12, "huge": 1e12}.get(hazard, 1.0)
    drawn: Arrays = {}
    for name, tensor in shapes.items():
        values = scale * rng.normal(size=tensor.shape)
        if hazard == "sparse":
            values *= rng.random(tensor.shape) < 0.5
        if hazard == "uneven":
            values *= 10.0 ** rng.integers(-6, 7)
        drawn[name] = values
    return drawn


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
