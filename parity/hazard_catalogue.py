"""The hazards that each strategy of `parity.strategies` draws, told from the arrays alone.

A predicate sees an example as the strategy returns it, or as anyone else made it, and says whether
the hazard is there. So a strategy's promise is checked by what it draws and not by what it meant
to draw, and a person can see what their own inputs lack.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity import hazards, oracle
from pgcore.errors import unknown_choice

LARGE, SMALL = 1e9, 1e-6
"""What is far from usual numbers, which are about 1."""
TINY = 1e-20
"""Its square is zero in float32."""
SMALLEST_NORMAL = 2.0**-126
"""Of float32; XLA on a CPU takes anything smaller for zero."""


class Hazard(NamedTuple):
    """A hazard: what goes wrong where it is not thought of, and whether an example has it."""

    what: str
    present: Callable[[Any], bool]


def present(strategy: str, example: Any) -> list[str]:
    """Names of the hazards in an example of the strategy called `strategy`.

    Raises:
        UsageError: There is no such strategy.
    """
    if strategy not in HAZARDS:
        raise unknown_choice("strategy", strategy, HAZARDS)
    return [name for name, hazard in HAZARDS[strategy].items() if hazard.present(example)]


# --- masks ---------------------------------------------------------------------------------------


def _is_ragged(mask: np.ndarray) -> bool:
    lengths = mask.sum(axis=0)
    return bool(((lengths > 1) & (lengths < len(mask))).any())


def _is_one_step(mask: np.ndarray) -> bool:
    return len(mask) > 1 and bool((mask.sum(axis=0) == 1).all())


def _is_one_short(mask: np.ndarray) -> bool:
    lengths = sorted(mask.sum(axis=0))
    return len(mask) > 1 < len(lengths) and lengths == [1] + [len(mask)] * (len(lengths) - 1)


def _is_square(mask: np.ndarray) -> bool:
    return mask.shape[0] == mask.shape[1] > 1


# --- rewards, given as something with `reward`, `mask` and `discount` ----------------------------


def _spreads(episodes: Any) -> list[float]:
    """std / max|G| of the returns, of each episode of several steps whose returns are not 0."""
    returns = oracle.discounted_returns(episodes.reward, episodes.mask, episodes.discount)
    columns = [
        returns[running, b] for b, running in enumerate(episodes.mask.T) if running.sum() > 1
    ]
    return [float(np.std(g) / abs(g).max()) for g in columns if abs(g).max() > 0]


def _spread(low: float, high: float) -> Callable[[Any], bool]:
    return lambda episodes: any(low < spread <= high for spread in _spreads(episodes))


def _size(low: float, high: float) -> Callable[[Any], bool]:
    """Whether the largest reward is within bounds."""
    return lambda episodes: low < abs(episodes.reward[episodes.mask]).max() < high


def _is_sparse(episodes: Any) -> bool:
    """A reward at the end alone, worth less the earlier the step."""
    several = [
        episodes.reward[running, b]
        for b, running in enumerate(episodes.mask.T)
        if running.sum() > 1
    ]
    at_the_end = any(not rewards[:-1].any() and rewards[-1] for rewards in several)
    return at_the_end and episodes.discount < 1


def _is_filled(number: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], bool]:
    return lambda episodes: bool(number(episodes.reward[~episodes.mask]).any())


# --- distributions -------------------------------------------------------------------------------


def _leads(logits: np.ndarray) -> np.ndarray:
    """By how much the most likely action leads."""
    ordered = np.sort(logits, axis=-1)
    return ordered[..., -1] - ordered[..., -2]


def _lead(low: float, high: float) -> Callable[[np.ndarray], bool]:
    """Of most rows: a few are within any bounds by chance."""
    return lambda logits: low <= np.median(_leads(logits)) <= high


def _are_tied(logits: np.ndarray) -> bool:
    rows = logits.reshape(-1, logits.shape[-1])
    return any(_leads(row) == 0 and row.min() < row.max() for row in rows)


def _are_shifted(logits: np.ndarray) -> bool:
    return bool(((abs(logits).max(-1) > 100) & (np.ptp(logits, axis=-1) < 50)).any())


def _are_mixed(logits: np.ndarray) -> bool:
    leads = _leads(logits)
    return bool((leads == 0).any() and (leads > 14).any())


def _distances(normal: Mapping[str, np.ndarray]) -> np.ndarray:
    return abs((normal["sample"] - normal["loc"]) / normal["scale"])


def _is_tied_later(scores: np.ndarray) -> bool:
    """The largest score comes twice, and not at the first index."""
    is_largest = scores == scores.max(axis=-1, keepdims=True)
    return bool(((is_largest.sum(-1) > 1) & ~is_largest[..., 0]).any())


# --- networks and gradients ----------------------------------------------------------------------


def _is_square_layer(tensors: Mapping[str, np.ndarray]) -> bool:
    return any(w.ndim == 2 and w.shape == w.T.shape and (w != w.T).any() for w in tensors.values())


def _is_flat(tensors: Mapping[str, np.ndarray]) -> bool:
    heads = [n for n in ("mu_linear.weight", "logvar_linear.weight") if n in tensors]
    weights = heads or [max(n for n in tensors if n.endswith(".weight"))]
    return not any(tensors[name].any() for name in weights)


def _largest(low: float, high: float) -> Callable[[Mapping[str, np.ndarray]], bool]:
    return lambda tensors: low < max(abs(tensor).max() for tensor in tensors.values()) < high


def _share_of_zeros(tensors: Mapping[str, np.ndarray]) -> float:
    return float(np.mean(np.concatenate([tensor.ravel() == 0 for tensor in tensors.values()])))


def _is_uneven(tensors: Mapping[str, np.ndarray]) -> bool:
    sizes = [abs(tensor).max() for tensor in tensors.values()]
    return min(sizes) > 0 and max(sizes) / min(sizes) > 1e4


def _norm(low: float, high: float) -> Callable[[Any], bool]:
    """Whether the global norm, as a multiple of what it is clipped to, is within bounds."""
    return lambda case: low < hazards.global_norm(case.gradients) / case.max_norm < high


def _is_at_bound(case: Any, bound: float, direction: float = 0.0) -> bool:
    """Whether a value is on a bound, or the next float32 number in a direction from it."""
    near = np.nextafter(np.float32(bound), np.float32(direction)) if direction else bound
    return bool((case.values == near).any())


def _is_next_to_bounds(case: Any) -> bool:
    bounds = (case.lower, case.upper)
    return any(_is_at_bound(case, bound, way) for bound in bounds for way in (-np.inf, np.inf))


# --- the catalogue -------------------------------------------------------------------------------

_MASKS = {
    "ragged": Hazard("episodes of several lengths: padding counted as data", _is_ragged),
    "one_step": Hazard("one step each: std(ddof=1) is NaN, a std is 0", _is_one_step),
    "one_short": Hazard("one of one step beside full ones: means weigh by steps", _is_one_short),
    "square": Hazard("as many steps as episodes: a wrong axis fits", _is_square),
}
_EPISODES = {
    "equal_returns": Hazard("equal but for rounding: noise over noise", _spread(0.0, 1e-12)),
    "degenerate": Hazard("a deviation of 1e-6 of max|G|: no signal yet", _spread(1e-9, 8e-6)),
    "nearly_equal": Hazard("a deviation of 3e-4 of max|G|: a signal", _spread(2e-5, 3e-3)),
    "just_degenerate": Hazard("a deviation just below 1e-5 of max|G|", _spread(8e-6, 1e-5)),
    "just_a_signal": Hazard("a deviation just above 1e-5 of max|G|", _spread(1e-5, 1.2e-5)),
    "sparse": Hazard("one reward at the end: γ applied once too often shows", _is_sparse),
    "zeros": Hazard("no reward at all: 0 over 0", lambda e: not e.reward[e.mask].any()),
    "tiny": Hazard("rewards whose squares are 0 in float32", _size(SMALLEST_NORMAL, TINY)),
    "huge": Hazard("rewards whose squares are infinite in float32", _size(1e20, np.inf)),
    "subnormal": Hazard("rewards that XLA flushes to 0", _size(0.0, SMALLEST_NORMAL)),
    "nan": Hazard("NaN and infinities outside the mask", _is_filled(lambda x: ~np.isfinite(x))),
    "garbage": Hazard("numbers outside the mask", _is_filled(lambda x: np.isfinite(x) & (x != 0))),
    "no_future": Hazard("γ = 0: 0⁰, and division by powers of γ", lambda e: e.discount == 0),
    "undiscounted": Hazard("γ = 1: 1 − γ is 0", lambda e: e.discount == 1),
}


class _Rewards(NamedTuple):
    reward: np.ndarray
    mask: np.ndarray
    discount: float


def _of_mask(hazard: Hazard) -> Hazard:
    return Hazard(hazard.what, lambda episodes: hazard.present(episodes.mask))


def _of_batch(hazard: Hazard) -> Hazard:
    return Hazard(
        hazard.what,
        lambda case: hazard.present(_Rewards(case.batch.reward, case.batch.mask, case.discount)),
    )


def _no_such_action(case: Any) -> bool:
    action, num_actions = case.batch.action, case.size.num_actions
    return bool(((action < 0) | (action >= num_actions)).any())


_MASKED = {name: _of_mask(hazard) for name, hazard in _MASKS.items()} | _EPISODES
_GRADIENTS = {
    "tiny": Hazard("Adam's epsilon outweighs them", _largest(TINY, SMALL)),
    "huge": Hazard("their squares are large", _largest(LARGE, np.inf)),
    "sparse": Hazard("exact zeros among others", lambda g: 0.2 < _share_of_zeros(g) < 0.8),
    "uneven": Hazard("tensors of very different sizes: one norm hides the others", _is_uneven),
    "zeros": Hazard("all zero: 0 over 0 in a clip", lambda g: _share_of_zeros(g) == 1),
    "vanishing": Hazard("squares that are 0 in float32", _largest(0.0, TINY)),
}

HAZARDS: dict[str, dict[str, Hazard]] = {
    "masks": _MASKS,
    "episodes": _MASKED,
    "batches": {name: _of_batch(hazard) for name, hazard in _MASKED.items()}
    | {"no_such_action": Hazard("actions out of range outside the mask", _no_such_action)},
    "logits": {
        "saturated": Hazard("other probabilities are 0: log p clamped", _lead(105.1, np.inf)),
        "vanishing": Hazard("other probabilities are subnormal", _lead(85, 105)),
        "absorbed": Hazard("1 + p rounds to 1 in float32", _lead(14, 40)),
        "equal": Hazard("every action a tie", lambda x: bool((np.ptp(x, axis=-1) == 0).all())),
        "tied": Hazard("two lead and others do not: the first must win", _are_tied),
        "shifted": Hazard("a large constant: softmax without its shift", _are_shifted),
        "mixed": Hazard("rows of several kinds: a row's max taken over all", _are_mixed),
    },
    "normals": {
        "narrow": Hazard("a variance of 1e-13", lambda n: n["scale"].max() < 1e-4),
        "wide": Hazard("a variance of 1e13", lambda n: n["scale"].min() > 1e4),
        "distant": Hazard("samples some 50 std off", lambda n: _distances(n).max() > 15),
        "at_mean": Hazard(
            "the sample is the mean: a slope of 0", lambda n: not _distances(n).any()
        ),
    },
    "noises": {
        "zeros": Hazard("none: the policy acts greedily, and equals tie", lambda x: not x.any()),
        "extreme": Hazard("unlikely actions are taken", lambda x: abs(x).max() > 15),
    },
    "ties": {
        "tied_later": Hazard("the largest twice: not the last, nor index 0", _is_tied_later),
    },
    "bounded": {
        "at_lower": Hazard("a gradient of 0, ½ or 1", lambda c: _is_at_bound(c, c.lower)),
        "at_upper": Hazard("a gradient of 0, ½ or 1", lambda c: _is_at_bound(c, c.upper)),
        "next_to_bounds": Hazard("one float32 number off a bound", _is_next_to_bounds),
        "outside": Hazard("clipped", lambda c: bool((c.values > c.upper).any())),
    },
    "network_params": {
        "large": Hazard("a saturated policy", _largest(2.0, 100.0)),
        "dead": Hazard("no unit is on: no gradient", lambda p: p["linear1.bias"].max() < -100),
        "kink": Hazard("inputs of exactly 0 to ReLU", lambda p: not p["linear1.weight"].any()),
        "flat": Hazard("the same distribution everywhere; ties", _is_flat),
        "square_layer": Hazard("fits without its transpose", _is_square_layer),
    },
    "gradients": _GRADIENTS,
    "clip_cases": {
        "at_max_norm": Hazard("just the norm", _norm(1 - 1e-12, 1 + 1e-12)),
        "just_below": Hazard("not clipped, but for torch's 1e-6", _norm(1 - 1e-5, 1 - 1e-8)),
        "just_above": Hazard("clipped by less than torch's 1e-6", _norm(1 + 1e-8, 1 + 1e-5)),
        "far_above": Hazard("clipped to a millionth", _norm(1e5, np.inf)),
        "far_below": Hazard("not clipped at all", _norm(0.0, 1e-4)),
        "zero_norm": Hazard(
            "a norm of 0: 0 over 0", lambda c: hazards.global_norm(c.gradients) == 0
        ),
    },
}
"""Hazards by strategy and name."""
