"""Whether a conversion is right, seen by running both networks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from parity import sides
from parity.arrays import largest_magnitude, minus
from parity.convert.fast_variance import fast_variance, norms
from parity.convert.faults import alterations, settings, transposed
from parity.convert.layouts import Kinds, Names, layout
from parity.convert.pairs import Arrays, Layout
from parity.convert.parameters import to_flax, to_torch, torch_arrays
from parity.convert.probes import Probe, draw, filled
from parity.convert.trees import flax_leaves
from parity.tolerance import SLACK, Comparison
from pgcore.errors import UsageError

NUM_PROBES = 3
"""A unit of a ReLU network may be dead under one draw of weights, hardly under three."""
MAX_FAULTS = 500
"""Faults that are tried; a deep network has more pairs of one shape than anyone waits for."""


class Certificate(NamedTuple):
    """What `certify` found.

    `problems` are what speaks against the conversion, a sentence each; `notes` what no run of these
    networks can tell (two biases that are added: exchanging them changes nothing). `layout` is the
    map.
    """

    layout: Layout
    problems: list[str]
    notes: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the conversion, and there was anything to convert."""
        return bool(self.layout.pairs) and not self.problems

    def assert_ok(self) -> None:
        """Raises an `AssertionError` that names every problem."""
        if not self.ok:
            raise AssertionError("\n".join(self.problems) or "there was nothing to convert")

    def __str__(self) -> str:
        verdict = "certified" if self.ok else "not certified"
        number = len(self.layout.tensors)
        return "\n".join([f"{verdict}, {number} tensors", *self.problems, *self.notes])


def certify(
    module: Any,
    apply: Callable[..., Any],
    template: Any,
    inputs: np.ndarray | Sequence[np.ndarray],
    *,
    names: Names | None = None,
    kinds: Kinds | None = None,
    convert: Callable[[Any], Any] | None = None,
    merge_biases: bool = False,
    jit: bool = True,
    seed: int = 0,
) -> Certificate:
    """Whether a torch module and a Flax network are the same function of the same weights.

    In a copy of the module every tensor is filled with random numbers, so that no two are alike and
    none is symmetric. Then

    1. the weights go to Flax and back, and must return to the last bit;
    2. both networks run on `inputs` in float64, and must agree by the gate of `parity.tolerance`;
    3. each tensor alone is drawn anew, and the torch network's output must change: what does not
       reach the output can't be certified.

    Where the networks disagree, the certificate says which tensor, transposed, or which two,
    exchanged, would make them agree. The torch module runs in evaluation mode.

    Args:
        module: The torch module; it is not changed.
        apply: The Flax network, `apply(params, *inputs)`. Where inputs or outputs are laid out
            otherwise than torch's (images), it has to transpose them.
        template: Flax parameters of any values, as for `to_flax`.
        inputs: The array that both are called with, or several, in order. Rows that differ show
            more than one row.
        names: As in `to_flax`: torch module paths to Flax module paths.
        kinds: As in `to_flax`.
        convert: A conversion of your own to be certified, from the torch module to Flax parameters,
            in place of `to_flax`. In step 1 its result comes back by `to_torch`.
        merge_biases: As in `to_flax`. The biases that are added are random then in step 2; in step
            1, and without it in all, they are the zeros that can come back.
        jit: Whether to jit `apply`: otherwise Flax is slow.
        seed: Of the weights.

    Raises:
        UsageError: As `to_flax`.
    """
    import jax

    found = layout(module, names=names, kinds=kinds, like=flax_leaves(template))
    if not found.pairs:
        return Certificate(found, [], [])
    inputs = [np.asarray(x) for x in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
    how: Any = {"names": names, "kinds": kinds}
    convert = convert or (lambda p: to_flax(p, template, **how, merge_biases=merge_biases))
    probe = Probe(module, jax.jit(apply) if jit else apply, convert, inputs, found.tied)

    def drawn(i: int, *, merge_biases: bool) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, i])
        return draw(torch_arrays(module), rng, found, merge_biases=merge_biases)

    def back(params: Any) -> dict[str, np.ndarray]:
        return torch_arrays(to_torch(params, module, **how))

    problems = [*_round_trip(probe, drawn(0, merge_biases=False), back)]
    draws = [drawn(i, merge_biases=merge_biases) for i in range(NUM_PROBES)]
    comparisons = [probe.compare(weights) for weights in draws]
    failed = next((i for i, c in enumerate(comparisons) if not c.ok), None)
    if failed is not None:
        problems += [str(m) for m in comparisons[failed].mismatches] or ["there is no output"]
        problems += _explanation(probe, draws[failed], comparisons[failed], found)
        return Certificate(found, problems, [])
    unreached = _unreached(probe, draws, comparisons, found, seed)
    problems += [
        f"{name} can't be certified: drawn anew, it does not change the output"
        for name in unreached
    ]
    notes = [] if problems else _indistinct(probe, draws, comparisons, found)
    if not problems:
        notes += _held_at_zero(found, merge_biases=merge_biases)
    return Certificate(found, problems, notes)


def _explanation(probe: Probe, weights: Arrays, comparison: Comparison, found: Layout) -> list[str]:
    """The fault in the conversion that explains a disagreement, if it is a known one."""
    if any(verdict.term == "form" for verdict in comparison.verdicts):
        return []
    exact = probe.torch(weights)
    for fault, altered in islice(alterations(weights, found), MAX_FAULTS):
        try:
            outputs = probe.flax(altered)
        except UsageError:  # zeros that have no place in Flax exchanged for numbers
            continue
        if not _differs(outputs, exact, comparison):
            return [f"the networks agree with {fault}: so the conversion, or a network, has it"]
    outputs = probe.flax(weights)
    for setting, change in settings(probe.module):
        altered = probe.otherwise(change, weights)
        if _alike(altered, outputs) and not _differs(outputs, altered, comparison):
            return [f"the networks agree with {setting}: no weight says so, set both alike"]
    if fault := _of_fast_variance(probe, weights, exact, outputs):
        return [fault]
    return ["no tensor transposed and no two exchanged explain it: compare the networks"]


def _of_fast_variance(
    probe: Probe, weights: Arrays, exact: Arrays, outputs: Mapping[str, np.ndarray]
) -> str:
    """What is said if Flax's way to a variance explains the difference, which is its rounding.

    E[x²] − E[x]² cancels where the mean is large. How, depends on the order of the sums, so that no
    other run has the same numbers: they are of its size if it allows them `SLACK` times over.
    """
    for paths in norms(probe.module):
        fast = probe.otherwise(fast_variance(paths), weights)
        if not (_alike(fast, outputs) and _alike(exact, outputs)):
            continue
        apart = {leaf: largest_magnitude(minus(outputs[leaf], exact[leaf])) for leaf in exact}
        own = {leaf: largest_magnitude(minus(fast[leaf], exact[leaf])) for leaf in exact}
        if all(apart[leaf] <= SLACK * own[leaf] for leaf in exact):
            return (
                f"the networks differ as far as Flax's fast variance, E[x²] − E[x]², rounds in "
                f"{', '.join(path or 'the module' for path in paths)}: these inputs have a mean "
                "that is large beside their spread; use_fast_variance=False in Flax is torch's way"
            )
    return ""


def _round_trip(
    probe: Probe, weights: Arrays, back: Callable[[Any], dict[str, np.ndarray]]
) -> Iterator[str]:
    """Each tensor that does not come back from Flax as it was, and what it came back as."""
    own = torch_arrays(filled(probe.module, weights))
    with sides.x64(True):
        returned = back(probe.convert(weights))
    for name, array in own.items():
        if _identical(array, returned[name]):
            continue
        sources = [other for other, tensor in own.items() if _identical(tensor, returned[name])]
        what = f"holding {sources[0]}" if sources else f"changed, as {returned[name].dtype}"
        if array.ndim > 1 and any(
            _identical(turned, returned[name]) for _, turned in transposed(array)
        ):
            what = "transposed"
        yield f"round trip: {name} comes back from Flax {what}"


def _unreached(
    probe: Probe,
    draws: list[dict[str, np.ndarray]],
    comparisons: list[Comparison],
    found: Layout,
    seed: int,
) -> list[str]:
    """The tensors that, drawn anew, change no output under any of the draws.

    What is torch's own is no number of the network; a tied tensor is drawn with the other.
    """
    own = {pair.torch for pair in found.pairs if pair.leaf.role == "torch's own"}
    left = [name for name in draws[0] if name not in own and name not in found.tied]
    for i, (weights, comparison) in enumerate(zip(draws, comparisons, strict=True)):
        exact = probe.torch(weights)
        rng = np.random.default_rng([seed, NUM_PROBES + i])
        anew = draw(weights, rng, found, merge_biases=True)
        left = [
            name
            for name in left
            if not _differs(probe.torch(weights | _with_tied(name, anew, found)), exact, comparison)
        ]
    return left


def _with_tied(name: str, weights: Arrays, found: Layout) -> dict[str, np.ndarray]:
    names = [name, *(tied for tied, other in found.tied.items() if other == name)]
    return {name: weights[name] for name in names}


def _indistinct(
    probe: Probe,
    draws: list[dict[str, np.ndarray]],
    comparisons: list[Comparison],
    found: Layout,
) -> list[str]:
    """Faults that would change no output: nothing that runs could see them."""
    exact = probe.torch(draws[0])
    return [
        f"no output can tell {fault} from what it is: the map alone says so"
        for fault, altered in islice(alterations(draws[0], found), MAX_FAULTS)
        if not _differs(probe.torch(altered), exact, comparisons[0])
    ]


def _held_at_zero(found: Layout, *, merge_biases: bool) -> list[str]:
    """What was certified as zeros only, for Flax has no place for other numbers."""
    roles = {"zero"} if merge_biases else {"zero", "added"}
    pairs = [pair for pair in found.pairs if pair.leaf.role in roles]
    return [f"zeros throughout: {pair.torch}{pair.leaf}" for pair in pairs]


def _differs(
    found: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray], comparison: Comparison
) -> bool:
    """Whether the gate would see it."""
    bounds = {verdict.leaf: verdict.bound for verdict in comparison.verdicts}
    return any(
        not np.max(np.abs(found[leaf].astype(float) - exact[leaf]), initial=0.0) <= bounds[leaf]
        for leaf in exact
    )


def _alike(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


def _identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
