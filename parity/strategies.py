"""Hypothesis strategies for arrays on which wrong code shows.

Hypothesis draws a seed, a shape and the names of hazards; `parity.hazards` makes the arrays from
them, so that an example is small to draw, to shrink and to repeat. A failing example prints what
was drawn. Everything is float64; shapes come from short lists, since each new one is compiled
anew.

`HAZARDS` says which hazards each strategy draws, and how each is told from the arrays alone:

    >>> list(HAZARDS["normals"])
    ['narrow', 'wide', 'distant', 'at_mean']
    >>> wide = {"loc": np.zeros((1, 2)), "scale": np.full((1, 2), 1e6), "sample": np.ones((1, 2))}
    >>> present("normals", wide)
    ['wide']

Needs Hypothesis: `pip install 'policy-gradient-parity[parity]'`.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from hypothesis import note
from hypothesis import strategies as st

from parity import hazards
from parity.hazard_catalogue import HAZARDS as HAZARDS
from parity.hazard_catalogue import Hazard as Hazard
from parity.hazard_catalogue import present as present
from parity.hazards import Arrays, Batch, Size
from pgcore.errors import require, unknown_choice

SEEDS = st.integers(0, 2**32 - 1)
"""What arrays are made from."""

Shape2 = tuple[int, int]
Shape = tuple[int, ...]
T = TypeVar("T")


class Episodes(NamedTuple):
    """Rewards of episodes `[T, B]` with something else outside the mask, and a discount."""

    reward: np.ndarray
    mask: np.ndarray
    discount: float


class BatchCase(NamedTuple):
    """What an update learns from, the sizes of a network that fits, and a discount."""

    batch: Batch
    size: Size
    discount: float


class ClipCase(NamedTuple):
    """Gradients by name, and the global norm that they are to be clipped to."""

    gradients: Arrays
    max_norm: float


class Bounded(NamedTuple):
    """Values `[*batch]` in, on, next to and outside of two bounds."""

    values: np.ndarray
    lower: float
    upper: float


@st.composite
def masks(
    draw: st.DrawFn,
    shapes: Sequence[Shape2] = hazards.EPISODES,
    kinds: Sequence[str] = hazards.MASKS,
) -> np.ndarray:
    """Which steps belong to the episodes, boolean `[T, B]`; each episode has one at least."""
    shape, kind = _one_of(draw, "shapes", shapes), _one_of(draw, "kinds", kinds, hazards.MASKS)
    return hazards.mask(_generator(draw, f"mask {kind}, T and B {shape}"), shape, kind)


@st.composite
def episodes(
    draw: st.DrawFn,
    shapes: Sequence[Shape2] = hazards.EPISODES,
    masks: Sequence[str] = hazards.MASKS,
    rewards: Sequence[str] = hazards.REWARDS,
    paddings: Sequence[str] = hazards.PADDINGS,
    discounts: Sequence[float] = hazards.DISCOUNTS,
) -> Episodes:
    """What returns are computed from; each argument lists what is drawn from."""
    shape = _one_of(draw, "shapes", shapes)
    mask_kind = _one_of(draw, "masks", masks, hazards.MASKS)
    reward_kind = _one_of(draw, "rewards", rewards, hazards.REWARDS)
    padding = _one_of(draw, "paddings", paddings, hazards.PADDINGS)
    discount = _one_of(draw, "discounts", discounts)
    drawn = f"mask {mask_kind}, rewards {reward_kind}, padding {padding}, discount {discount}"
    rng = _generator(draw, f"{drawn}, T and B {shape}")
    mask = hazards.mask(rng, shape, mask_kind)
    rewards_ = hazards.rewards(rng, mask, discount, reward_kind)
    return Episodes(hazards.padded(rng, rewards_, mask, padding), mask, discount)


@st.composite
def batches(
    draw: st.DrawFn,
    agent: str = "reinforce",
    runs: Sequence[tuple[Size, Shape2]] = hazards.RUNS,
    masks: Sequence[str] = hazards.MASKS,
    rewards: Sequence[str] = hazards.REWARDS,
    paddings: Sequence[str] = hazards.PADDINGS,
    discounts: Sequence[float] = hazards.DISCOUNTS,
) -> BatchCase:
    """Whole batches for an update, of one of the article's agents.

    `batch.sample` is the action for `"reinforce"`, and `[T, B, A]` for `"reparam"`. Outside the
    mask, integers are actions that there are not, unless the padding is zeros.
    """
    size, shape = _one_of(draw, "runs", runs)
    mask = _one_of(draw, "masks", masks, hazards.MASKS)
    reward = _one_of(draw, "rewards", rewards, hazards.REWARDS)
    padding = _one_of(draw, "paddings", paddings, hazards.PADDINGS)
    discount = _one_of(draw, "discounts", discounts)
    drawn = f"mask {mask}, rewards {reward}, padding {padding}, discount {discount}"
    rng = _generator(draw, f"{drawn}, {size}, T and B {shape}")
    batch = hazards.batch(
        rng, agent, size, shape, mask_hazard=mask, reward_hazard=reward, discount=discount
    )
    filled = {
        name: hazards.padded(rng, getattr(batch, name), batch.mask, padding)
        for name in ("obs", "sample", "action", "reward")
    }
    return BatchCase(batch._replace(**filled), size, discount)


@st.composite
def logits(
    draw: st.DrawFn,
    shapes: Sequence[Shape] = hazards.LAWS,
    kinds: Sequence[str] = hazards.LOGITS,
) -> np.ndarray:
    """Logits `[*batch, A]`; rows of the kind `mixed` are of the others in `kinds`."""
    shape, kind = _one_of(draw, "shapes", shapes), _one_of(draw, "kinds", kinds, hazards.LOGITS)
    mixed = [other for other in kinds if other != "mixed"] or hazards.LOGITS
    return hazards.logits(_generator(draw, f"logits {kind} {list(shape)}"), shape, kind, mixed)


@st.composite
def normals(
    draw: st.DrawFn,
    shapes: Sequence[Shape] = hazards.LAWS,
    kinds: Sequence[str] = hazards.NORMALS,
) -> Arrays:
    """`loc`, `scale` and `sample` of a Normal distribution, each `[*batch, A]`."""
    shape, kind = _one_of(draw, "shapes", shapes), _one_of(draw, "kinds", kinds, hazards.NORMALS)
    return hazards.normal(_generator(draw, f"normal {kind} {list(shape)}"), shape, kind)


@st.composite
def noises(
    draw: st.DrawFn,
    agent: str = "reinforce",
    shapes: Sequence[Shape] = hazards.LAWS,
    kinds: Sequence[str] = hazards.NOISES,
) -> np.ndarray:
    """An agent's standard noise `[*batch, A]`; zeros act greedily and make ties of equals."""
    shape, kind = _one_of(draw, "shapes", shapes), _one_of(draw, "kinds", kinds, hazards.NOISES)
    return hazards.noise(_generator(draw, f"noise {kind} {list(shape)}"), agent, shape, kind)


@st.composite
def ties(
    draw: st.DrawFn,
    shapes: Sequence[Shape] = hazards.LAWS,
    num_values: Sequence[int] = hazards.TIES,
) -> np.ndarray:
    """Scores `[*batch, A]` of few different values, where an argmax must take the first of equals.

    Its decision rests on nothing else, so no margin excuses another one.
    """
    shape, number = _one_of(draw, "shapes", shapes), _one_of(draw, "num_values", num_values)
    return hazards.ties(_generator(draw, f"ties of {number} values {list(shape)}"), shape, number)


@st.composite
def bounded(
    draw: st.DrawFn,
    lower: float,
    upper: float,
    shapes: Sequence[Shape] = hazards.LAWS,
    kinds: Sequence[str] = hazards.BOUNDED,
) -> Bounded:
    """Values around the bounds of a clip or a clamp, of a probability ratio for example.

    Raises:
        UsageError: The bounds are not in order, or no float32 numbers.
    """
    shape, kind = _one_of(draw, "shapes", shapes), _one_of(draw, "kinds", kinds, hazards.BOUNDED)
    rng = _generator(draw, f"{kind} {list(shape)}")
    return Bounded(hazards.bounded(rng, shape, lower, upper, kind), lower, upper)


@st.composite
def network_params(
    draw: st.DrawFn,
    agent: str = "reinforce",
    sizes: Sequence[Size] = hazards.SIZES,
    kinds: Sequence[str] = hazards.PARAMS,
) -> Arrays:
    """Tensors of one of the article's networks by neutral name, `linear1.weight [out, in]`, …

    One of the sizes has square layers, which load without their transpose.
    """
    size, kind = _one_of(draw, "sizes", sizes), _one_of(draw, "kinds", kinds, hazards.PARAMS)
    return hazards.params(_generator(draw, f"{kind} parameters, {size}"), agent, size, kind)


@st.composite
def gradients(
    draw: st.DrawFn,
    agent: str = "reinforce",
    sizes: Sequence[Size] = hazards.SIZES,
    kinds: Sequence[str] = hazards.GRADIENTS,
) -> Arrays:
    """Gradients of such a network, by the same names."""
    size, kind = _one_of(draw, "sizes", sizes), _one_of(draw, "kinds", kinds, hazards.GRADIENTS)
    rng = _generator(draw, f"{kind} gradients, {size}")
    return hazards.gradients(rng, hazards.params(rng, agent, size, "initial"), kind)


@st.composite
def clip_cases(
    draw: st.DrawFn,
    agent: str = "reinforce",
    max_norms: Sequence[float] = (0.5, 1e-5),
    norms: Sequence[float] = hazards.NORMS,
    kinds: Sequence[str] = hazards.GRADIENTS,
) -> ClipCase:
    """Gradients far below, far above and at the global norm that they are clipped to.

    Args:
        draw: Supplied by Hypothesis.
        agent: Whose network.
        max_norms: What they are clipped to.
        norms: Their own global norm, as a multiple of that.
        kinds: Of what kind they are.
    """
    max_norm, share = _one_of(draw, "max_norms", max_norms), _one_of(draw, "norms", norms)
    note(f"clipped to {max_norm}, global norm {share} times that")
    drawn = draw(gradients(agent, kinds=kinds))
    return ClipCase(hazards.with_norm(drawn, share * max_norm), max_norm)


def _one_of(
    draw: st.DrawFn, field: str, given: Sequence[T], accepted: Sequence[T] | None = None
) -> T:
    """One of `given`, which must all be `accepted` where those are listed."""
    require(len(given) > 0, field, given, "one at least")
    for choice in given:
        if accepted is not None and choice not in accepted:
            raise unknown_choice(field, choice, [str(kind) for kind in accepted])
    return draw(st.sampled_from(given))


def _generator(draw: st.DrawFn, drawn: str) -> np.random.Generator:
    """A generator with a drawn seed; a failing example prints it with what else was drawn."""
    seed = draw(SEEDS)
    note(f"{drawn}, seed {seed}")
    return np.random.default_rng(seed)
