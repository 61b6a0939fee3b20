"""Which known trap explains an observed difference: those that fit the numbers, likeliest first.

A signature fires if its relation holds at every input set and says something; where none does,
there is no cause to name. What many mistakes could make, a plain factor say, fires only if the
factor is a number that is at hand.
"""

import warnings
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from parity.locate.evidence import Cause, Evidence
from parity.locate.signatures import (
    bounds,
    clips,
    convolutions,
    discounts,
    epsilons,
    factors,
    functions,
    kernels,
    layouts,
    masks,
    nonfinite,
    normalisations,
    operands,
    operations,
    reductions,
    returns,
    slopes,
    softmaxes,
    spread,
    stops,
    terms,
    written,
)
from parity.locate.signatures.clues import Found, Signature, laid_out

MODULES = (
    spread,
    normalisations,
    functions,
    softmaxes,
    slopes,
    stops,
    nonfinite,
    masks,
    kernels,
    convolutions,
    layouts,
    returns,
    bounds,
    epsilons,
    terms,
    reductions,
    factors,
    discounts,
    operands,
    operations,
    clips,
    written,
)
SIGNATURES: tuple[Signature, ...] = tuple(s for module in MODULES for s in module.SIGNATURES)
MOST = 3
"""Causes that are named at most."""
CATALOGUED = 6
"""What a trap of the catalogue has over a mistake that anybody could make."""
BEHIND = 4
"""How far behind the first another cause may be and still be named."""


class _Ranked(NamedTuple):
    score: int
    cause: Cause


def likely_causes(evidence: Evidence) -> list[Cause]:
    """The causes that fit what was seen at every input set, likeliest first; none if none does."""
    causes = _causes_of(evidence)
    if causes or evidence.outputs is None:
        return causes
    # What the place does not tell, what came of it may: a mean for a sum, a term too many.
    reference, candidate = evidence.outputs
    return _causes_of(evidence._replace(reference=reference, candidate=candidate))


def _causes_of(evidence: Evidence) -> list[Cause]:
    if not _is_telling(evidence):
        return []
    clues = laid_out(evidence)
    ranked: list[_Ranked] = []
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a variance of one element's n - 1 is 0
        for signature in SIGNATURES:
            # Numbers whose shapes do not go together are none of that signature's.
            with suppress(ValueError, IndexError):
                if found := signature.check(clues):
                    ranked.append(_ranked(signature, found))
    ranked.sort(key=lambda each: -each.score)
    best: dict[str, Cause] = {}
    for each in ranked:
        if each.score >= ranked[0].score - BEHIND:
            best.setdefault(each.cause.trap, each.cause)
    return [*best.values()][:MOST]


def _ranked(signature: Signature, found: Found) -> _Ranked:
    trap = found.trap or signature.trap
    score = found.support + (0 if trap.startswith("R") else CATALOGUED)
    cause = Cause(
        trap, found.evidence, found.remedy or signature.remedy, found.title or signature.title
    )
    return _Ranked(score, cause)


def _is_telling(evidence: Evidence) -> bool:
    """Whether there is a value at each of at least one input set."""
    seen = [evidence.candidate, *([evidence.reference] if evidence.reference else [])]
    return all(len(each.values) == len(evidence.candidate.values) > 0 for each in seen)
