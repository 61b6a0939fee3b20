"""Initialisation, which two frameworks can't draw alike: the laws are compared, not the numbers.

Both sides draw for the same seeds. What is random is the seed, so all tests are over seeds:

- *law*: for each entry, and for all entries of a leaf together, the two-sample
  Kolmogorov–Smirnov distance. With n numbers on each side it is above √(log(e / p) / n) with
  probability below p (Wei and Dudley 2012). Entries of a leaf may depend on each other, so n is
  the number of independent ones that would spread as much from seed to seed.
- *dependence*: for each pair of entries, the difference of the two sides' rank correlations, each
  through atanh, which makes it nearly Normal with variance 1 / (seeds − 3).
- *repeats*: a seed gives the same draw again.

The same law on both sides fails anywhere with probability below `FALSE_ALARM`. A distance of
twice the critical value, which a report shows as what is allowed, is seen as surely. Of a small
network and 512 seeds: a uniform law whose bound is off by 3 % in a leaf of 1,000 entries, by 10 %
in one of 100, threefold in one of two, or one key used twice. Pairs are formed of the first
entries of each leaf, for there are many.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity import sides
from parity.cases import unlike
from parity.tolerance import Comparison, Mismatch, Verdict
from pgcore.errors import UsageError

FALSE_ALARM = 1e-9
"""Probability that right code fails in one run, were the seeds drawn anew."""
NUM_SEEDS, FEWEST_SEEDS = 512, 64
MOST_NUMBERS = 2**25
"""Of a side; a large network is drawn fewer times."""
MOST_PAIRED = 1024
"""Entries whose correlations are compared."""
NUM_THRESHOLDS = 15
"""At which the spread from seed to seed is measured."""
SAME_CONSTANT = 2.0**-20
"""Entries that no seed changes are equal up to this, relative to the leaf's largest."""

Draws = Mapping[str, np.ndarray]
"""Leaves by path, each `[seeds, ...]`."""


class _Fault(NamedTuple):
    """The worst of one leaf under one test: how far beyond what chance allows, and where."""

    error: float
    bound: float
    at: tuple[int, ...]
    reference: str
    candidate: str


def compare_draws(
    reference: Callable[[int], Any], candidate: Callable[[Any], Any], stage: str
) -> Comparison:
    """Holds the laws of two initialisations, each a function of a seed, against each other.

    Raises:
        UsageError: The reference gives other values when it is given a seed again.
    """
    first = leaves_of(reference(0))
    if not _equal(first, leaves_of(reference(0))):
        raise UsageError(
            f"stage {stage!r} of the reference is not decided by its seed, accepted is one that "
            "gives the same parameters again: seed the generator inside it"
        )
    size = sum(leaf.size for leaf in first.values())
    num_seeds = int(np.clip(MOST_NUMBERS // max(size, 1), FEWEST_SEEDS, NUM_SEEDS))
    seeds = [*range(num_seeds), 0]
    left, right = _drawn_in_torch(reference, seeds), _drawn_in_jax(candidate, seeds)
    kind = f"{num_seeds} draws"
    if form := _difference_in_form(left, right):
        return unlike(stage, form[0], kind, *form[1:])
    if changed := [leaf for leaf, drawn in right.items() if not _same(drawn[0], drawn[-1])]:
        return unlike(stage, changed[0], kind, "repeats for a seed", "differs for the same seed")
    # In one order: JAX sorts a mapping's keys.
    return _judged(stage, kind, *({k: side[k][:-1] for k in left} for side in (left, right)))


def _judged(stage: str, kind: str, left: Draws, right: Draws) -> Comparison:
    num_entries = sum(math.prod(drawn.shape[1:]) for drawn in left.values())
    laws = {
        leaf: _worst_law(left[leaf], right[leaf], FALSE_ALARM / 2 / (num_entries + len(left)))
        for leaf in left
    }
    tied = _worst_dependence(left, right, FALSE_ALARM / 2)
    verdicts, mismatches = [], []
    for leaf in left:
        for fault in (laws[leaf], tied.get(leaf)):
            if fault is None:
                continue
            verdicts.append(Verdict(leaf, kind, "candidate", fault.error, fault.bound, "chance"))
            if not fault.error <= fault.bound:
                values = (fault.reference, fault.candidate, None)
                found = Mismatch(stage, leaf, fault.at, *values, fault.error, fault.bound, kind)
                mismatches.append(found)
    return Comparison(stage, mismatches, verdicts)


# --- drawing -------------------------------------------------------------------------------------


def _drawn_in_torch(init: Callable[[int], Any], seeds: list[int]) -> Draws:
    drawn = [leaves_of(init(seed)) for seed in seeds]
    return {leaf: np.stack([each[leaf] for each in drawn]) for leaf in drawn[0]}


def _drawn_in_jax(init: Callable[[Any], Any], seeds: list[int]) -> Draws:
    """In one compiled map where the seed may be traced (vmap of a Flax init compiles long)."""
    import jax

    def leaves(seed: Any) -> dict[str, Any]:
        return sides.flat(init(seed))

    with sides.x64(False):
        try:
            drawn = jax.jit(lambda seeds: jax.lax.map(leaves, seeds))(np.array(seeds, np.int32))
        except Exception:  # NumPy inside, say, which can't follow: as the caller would run it
            return _drawn_in_torch(init, seeds)
        return {leaf: np.asarray(array) for leaf, array in drawn.items()}


def leaves_of(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree of tensors or arrays, by path."""
    return {
        leaf: np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        for leaf, value in sides.flat(tree).items()
    }


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def _equal(a: Draws, b: Draws) -> bool:
    return set(a) == set(b) and all(_same(a[leaf], b[leaf]) for leaf in a)


def _difference_in_form(left: Draws, right: Draws) -> tuple[str, str, str] | None:
    for leaf in sorted(set(left) | set(right)):
        form = [_form(side.get(leaf)) for side in (left, right)]
        if form[0] != form[1]:
            return leaf, form[0], form[1]
        finite = ["finite" if np.isfinite(s[leaf]).all() else "not finite" for s in (left, right)]
        if "not finite" in finite:
            return leaf, finite[0], finite[1]
    return None


def _form(drawn: np.ndarray | None) -> str:
    return "absent" if drawn is None else f"{drawn.dtype} of shape {drawn.shape[1:]}"


# --- laws ----------------------------------------------------------------------------------------


def _worst_law(left: np.ndarray, right: np.ndarray, p: float) -> _Fault:
    """Of one leaf: all entries together, and each alone."""
    shape, num_seeds = left.shape[1:], len(left)
    a, b = (drawn.reshape(num_seeds, -1).astype(np.float64) for drawn in (left, right))
    a, b = _with_equal_constants(a, b)
    num = min(_independent(a), _independent(b))
    together = _law(a.reshape(-1, 1), b.reshape(-1, 1), p, num, ())
    each = _law(a, b, p, num_seeds, shape)
    return max(together, each, key=lambda fault: fault.error / fault.bound)


def _law(a: np.ndarray, b: np.ndarray, p: float, num: float, shape: tuple[int, ...]) -> _Fault:
    """The largest distance between the laws of two columns; `shape` is that of a row."""
    points = np.concatenate([a, b])
    order = points.argsort(axis=0, kind="stable")
    points = np.take_along_axis(points, order, 0)
    shares = [np.cumsum(of, axis=0) / len(a) for of in (order < len(a), order >= len(a))]
    tied = np.zeros(points.shape, bool)  # the share of a value counts all that equal it
    tied[:-1] = points[1:] == points[:-1]
    apart = np.where(tied, 0, np.abs(shares[0] - shares[1]))
    at = np.unravel_index(int(np.argmax(apart)), apart.shape)
    told = [f"{share[at]:.1%} of draws ≤ {points[at]:.4g}" for share in shares]
    index = tuple(int(i) for i in np.unravel_index(int(at[1]), shape)) if shape else ()
    # Of fewer than that many numbers no distance is too far: 1 is allowed.
    bound = min(math.sqrt((1 - math.log(p)) / num), 1.0)
    return _Fault(float(apart[at]), bound, index, *told)


def _independent(drawn: np.ndarray) -> float:
    """How many independent numbers would spread as much from seed to seed as these."""
    num_seeds, num_entries = drawn.shape
    fewest = float(drawn.size)
    for threshold in np.quantile(drawn, np.linspace(0, 1, NUM_THRESHOLDS + 2)[1:-1]):
        below = drawn <= threshold
        spread = below.mean(axis=1).var(ddof=1)
        each = below.mean(axis=0)
        alone = (each * (1 - each)).sum() / num_entries**2
        if spread > alone > 0:
            fewest = min(fewest, drawn.size * alone / spread)
    return max(fewest, float(num_seeds))


def _with_equal_constants(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries that no seed changes on either side, and that are equal to rounding, made equal."""
    constant = (a == a[0]).all(axis=0) & (b == b[0]).all(axis=0)
    near = np.abs(a[0] - b[0]) <= SAME_CONSTANT * np.abs(a).max(initial=0)
    return a, np.where(constant & near, a, b)


# --- dependence ----------------------------------------------------------------------------------


def _worst_dependence(left: Draws, right: Draws, p: float) -> dict[str, _Fault]:
    """The pair of entries whose dependence differs most, by the leaf of the later one."""
    each = max(MOST_PAIRED // len(left), 2)
    names = [
        (leaf, index)
        for leaf, drawn in left.items()
        for index in list(np.ndindex(drawn.shape[1:]))[:each]
    ]
    if len(names) < 2:
        return {}
    num_seeds = len(next(iter(left.values())))
    r = [_rank_correlation(side, each) for side in (left, right)]
    most = 1 - 1 / num_seeds  # of equal entries, whose atanh would be infinite
    z = [np.arctanh(np.clip(side, -most, most)) for side in r]
    apart = np.triu(np.abs(z[0] - z[1]), 1)
    num_pairs = len(names) * (len(names) - 1) / 2
    bound = math.sqrt(2 * math.log(2 * num_pairs / p)) * math.sqrt(2 / (num_seeds - 3))
    faults: dict[str, _Fault] = {}
    for j, (leaf, index) in enumerate(names):
        i = int(np.argmax(apart[:, j]))
        error = float(apart[i, j])
        if leaf not in faults or error > faults[leaf].error:
            other = f"{names[i][0]}{list(names[i][1])}"
            told = [f"correlation {side[i, j]:.2f} with {other}" for side in r]
            faults[leaf] = _Fault(error, bound, index, *told)
    return faults


def _rank_correlation(side: Draws, each: int) -> np.ndarray:
    entries = [drawn.reshape(len(drawn), -1)[:, :each] for drawn in side.values()]
    ranks = np.concatenate(entries, axis=1).argsort(axis=0, kind="stable").argsort(axis=0)
    ranks = ranks - ranks.mean(axis=0)
    constant = np.concatenate([(e == e[:1]).all(axis=0) for e in entries])
    ranks = np.where(constant, 0, ranks)  # what no seed changes has a correlation with nothing
    return ranks.T @ ranks / max(float((ranks**2).sum(axis=0).max(initial=0)), 1.0)
