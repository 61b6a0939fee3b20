"""Errors that a person can act on: they name the field, the value, what is accepted and the fix."""

import difflib
from collections.abc import Iterable


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
    close = difflib.get_close_matches(str(value), accepted, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    which = f"accepted are {', '.join(accepted)}" if listed else "which there is not"
    return UsageError(f"{field} is {value!r}, {which}{hint}")


def require(condition: bool, field: str, value: object, accepted: str) -> None:
    """Raises a `UsageError` that says what `field` accepts, unless `condition` holds."""
    if not condition:
        raise UsageError(f"{field} is {value!r}, accepted is {accepted}")
