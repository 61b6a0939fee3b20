"""What a page of `docs/` shows of an output, held against what was printed."""

import re
from collections.abc import Iterable

import numpy as np

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
ELIDED = "…"


def require_shown(shown: Iterable[str], printed: Iterable[str]) -> None:
    """In order and word by word; numbers to 1 %, for processors round differently."""
    left = iter([*printed])
    for line in shown:
        if line.strip() != ELIDED:
            assert any(alike(line, each) for each in left), line


def alike(shown: str, printed: str) -> bool:
    """Whether two lines have the same words, and the same numbers but for rounding."""
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    numbers = [np.array(NUMBER.findall(line), float) for line in (shown, printed)]
    # A page shows three digits, which are off by half of the last: at most 1 in 200.
    return np.allclose(*numbers, rtol=0.01, atol=0)
