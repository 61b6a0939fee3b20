"""From two arrays that part to the known traps that explain them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from parity.locate.causes import likely_causes
from parity.locate.evidence import Cause, Evidence, Seen
from parity.traps.rule import readable, verdict
from pgcore.errors import UsageError, require

ALONE = "value"
"""What an array is called that came without a name."""
SINGLE = (
    "a value is in float32, whose rounding hides what a trap leaves in numbers: run both sides in "
    "float64"
)


class Match(NamedTuple):
    """What explains a difference.

    Attributes:
        differing: The names of the arrays that part.
        causes: The known traps that explain one of them, by its name, the likeliest first.
        note: What stood in the way, if anything did.
    """

    differing: tuple[str, ...]
    causes: Mapping[str, tuple[Cause, ...]]
    note: str = ""

    @property
    def first(self) -> Cause | None:
        """The likeliest cause of the first array that has one."""
        return next((causes[0] for causes in self.causes.values()), None)

    def __str__(self) -> str:
        if not self.differing:
            return "nothing differs"
        lines = []
        for name in self.differing:
            for cause in self.causes.get(name, ()):
                lines.append(f"{name}: {cause.trap} {cause.title}: {cause.evidence}")
                lines.append(f"{'':{len(name)}}  mend: {cause.remedy}")
            if name not in self.causes:
                lines.append(f"{name}: no known trap explains it")
        return "\n".join([*lines, *([self.note] if self.note else [])])


def match(
    reference: Any,
    candidate: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    code: str = "",
) -> Match:
    """The known traps that explain how a candidate's values part from a reference's.

    It is the matcher of `parity.first_divergence`, for numbers that somebody has seen. The more it
    is given the more it finds: that std divides by n - 1 shows in what it was computed of.

    Args:
        reference: PyTorch's value, or its values by name: arrays, tensors or numbers.
        candidate: JAX's, by the same names.
        inputs: What both were computed from, by name.
        code: The statements that computed them, as a text.

    Raises:
        UsageError: If the two have other names than each other, nothing is given, or something
            that is given is no array of numbers.
    """
    right, wrong = _arrays("reference", reference), _arrays("candidate", candidate)
    require(bool(right), "reference", reference, "an array, or arrays by name, at least one")
    if right.keys() != wrong.keys():
        raise UsageError(
            f"candidate has the names {', '.join(wrong)}, accepted are the reference's, "
            f"{', '.join(right)}"
        )
    given = _arrays("inputs", inputs or {})
    differing = tuple(n for n in right if verdict(right[n], wrong[n]) != "agree")
    causes = {name: _causes(name, right, wrong, given, code, differing) for name in differing}
    single = any(a.dtype in (np.float32, np.float16) for a in [*right.values(), *wrong.values()])
    note = SINGLE if single and not all(causes.values()) else ""
    return Match(differing, {name: found for name, found in causes.items() if found}, note)


def _causes(
    name: str,
    right: Mapping[str, np.ndarray],
    wrong: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    code: str,
    differing: tuple[str, ...],
) -> tuple[Cause, ...]:
    def seen(array: np.ndarray, *operands: np.ndarray) -> Seen:
        return Seen("", (array,), tuple((each,) for each in operands), code)

    alike = [array for other, array in right.items() if other not in differing]
    rest = [other for other in differing if other != name]
    evidence = Evidence(
        "forward",
        seen(right[name], *given.values()),
        seen(wrong[name], *given.values()),
        references=[seen(right[other]) for other in rest],
        candidates=[seen(wrong[other]) for other in rest],
        matched=[seen(array) for array in (*given.values(), *alike)],
    )
    return tuple(likely_causes(evidence))


def _arrays(field: str, given: Any) -> dict[str, np.ndarray]:
    """Arrays by name; what comes without one is called `value`."""
    named = given if isinstance(given, Mapping) else {ALONE: given}
    found = {}
    for name, each in named.items():
        try:
            array = readable(each)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{field} has at {name!r} what is no array: {error}") from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            kind = type(each).__name__
            raise UsageError(
                f"{field} has at {name!r} a value of type {kind}, accepted is an array of numbers"
            )
        found[str(name)] = array
    return found
