"""Errors that a person can act on: they name the field, the value, what is accepted and the fix."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any, TypeGuard

LONGEST_VALUE = 2_000
"""Characters of a value that a message shows."""
LARGEST_BATCH = 1_000_000
"""Episodes. A batch's steps are counted in int32, and an episode has up to a thousand or two."""


SHORTEST_TIMEOUT_S, LONGEST_TIMEOUT_S = 0.1, 1e6


class UsageError(ValueError):
    """Something that a person gave is not usable. The command line exits with 2."""


class RunError(RuntimeError):
    """A run cannot go on (a loss that is not finite, say). The command line exits with 1."""


def unknown_choice(
    field: str, value: object, choices: Iterable[str], *, listed: bool = True
) -> UsageError:
    """An error for `value`, which is none of `choices`, with the closest match offered.

    `listed` is False where the choices are too many to be listed.
    """
    accepted = list(choices)
    close = difflib.get_close_matches(str(value)[:LONGEST_VALUE], accepted, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    which = f"accepted are {', '.join(accepted)}" if listed else "which is not registered"
    return UsageError(f"{field} is {_shown(value)}, {which}{hint}")


def require(condition: bool, field: str, value: object, accepted: str) -> None:
    """Raises a `UsageError` that says what `field` accepts, unless `condition` holds."""
    if not condition:
        raise UsageError(f"{field} is {_shown(value)}, accepted is {accepted}")


def _shown(value: object) -> str:
    """A value in a message, its middle left out where it is long."""
    text = repr(value)
    if len(text) <= LONGEST_VALUE:
        return text
    half = LONGEST_VALUE // 2
    return f"{text[:half]} … {text[-half:]}"


def printable(text: str) -> str:
    r"""Text for a terminal, with all that could steer one escaped; line ends and tabs stay.

    >>> printable("layer \x1b[2J")
    'layer \\x1b[2J'
    """
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )


def is_int(value: Any, low: int, high: float = math.inf) -> TypeGuard[int]:
    """Whether `value` is an integer from `low` to `high`, Python's or NumPy's, and no bool."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and low <= int(value) <= high


def is_real(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite number, Python's or NumPy's, and no bool."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what a float can hold
        return False


def require_count(field: str, value: object) -> None:
    """Raises a `UsageError` unless `value` is a number of episodes that a batch can have."""
    accepted = f"an integer of at least 1 (and at most {LARGEST_BATCH:,})"
    require(is_int(value, 1, LARGEST_BATCH), field, value, accepted)


def require_seed(value: object) -> None:
    """Raises a `UsageError` unless `value` is a seed."""
    require(is_int(value, 0, 2**32 - 1), "seed", value, "an integer from 0 to 2^32 - 1")


def require_timeout(value: object) -> None:
    """Raises a `UsageError` unless `value` is a time limit, in seconds."""
    is_limit = is_real(value) and (value == 0 or SHORTEST_TIMEOUT_S <= value <= LONGEST_TIMEOUT_S)
    accepted = f"seconds, from {SHORTEST_TIMEOUT_S:g} to {LONGEST_TIMEOUT_S:g}, or 0 for no limit"
    require(is_limit, "env_timeout", value, accepted)


def require_learning_rate(value: object) -> None:
    """Raises a `UsageError` unless `value` is a step size."""
    is_rate = is_real(value) and value > 0
    require(is_rate, "learning_rate", value, "a finite number above 0")


def require_betas(b1: object, b2: object) -> None:
    """Raises a `UsageError` unless both are numbers that Adam can decay by."""
    for name, beta in {"b1": b1, "b2": b2}.items():
        is_beta = is_real(beta) and 0 <= beta < 1
        require(is_beta, name, beta, "a Python number from 0 to 1, 1 left out")
