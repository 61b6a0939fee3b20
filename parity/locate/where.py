"""The lines at which a failing check parts, as its report shows them.

It must never hide what the check found: what goes wrong in looking is said in a line.
"""

from typing import Any


def text(ready: Any, candidate: Any) -> str:
    """What `first_divergence` says of two sides that are ready to run, indented as a report is."""
    from parity.locate.divergence import Divergence, divergence_of

    try:
        found: Divergence | None = divergence_of(ready, candidate)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        return f"  (where they part could not be found: {type(error).__name__}: {reason})"
    if found is None:
        return (
            "  in float64, eagerly, no line parts: what differs is rounding in float32, a way of "
            "running it, or a slope of what has none in PyTorch"
        )
    return "\n".join(f"  {line}" if line else "" for line in ["", *str(found).splitlines()])
