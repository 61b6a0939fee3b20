"""Numbers as a person writes them on the command line."""

import math

from pgcore.errors import UsageError, require

MAX_SEEDS = 10_000
"""More is taken for a slip of the keyboard."""


def parse_int(text: str) -> int:
    """An integer, `1e5` and `1_000` included.

    >>> parse_int("1e5")
    100000

    Raises:
        ValueError: `text` is no integer.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"{text!r} is no integer")
    return int(number)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds as a range without its end, or as a list.

    >>> parse_seeds("0:3"), parse_seeds("4,8")
    ((0, 1, 2), (4, 8))

    Raises:
        UsageError: `text` is neither, or it has no seed.
    """
    try:
        if ":" in text:
            first, end = (parse_int(part) for part in text.split(":"))
            num_seeds, seeds = end - first, range(first, end)
        else:
            seeds = [parse_int(part) for part in text.split(",")]
            num_seeds = len(seeds)
    except ValueError:
        num_seeds, seeds = 0, ()
    require(num_seeds > 0, "seeds", text, "a range such as 0:50 (50 is left out) or a list, 4,8,15")
    require(num_seeds <= MAX_SEEDS, "seeds", text, f"at most {MAX_SEEDS:,} seeds")
    return tuple(seeds)


def parse_pairs(field: str, text: str, example: str) -> dict[str, str]:
    """Names with what each stands for.

    >>> parse_pairs("names", "linear1=Dense_0,mu=actor/mu", "linear1=Dense_0")
    {'linear1': 'Dense_0', 'mu': 'actor/mu'}

    Raises:
        UsageError: A part of `field` lacks its `=`, or a name is there twice.
    """
    pairs: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name in pairs:
            raise UsageError(f"{field} is {text!r}, accepted is {example},…, each name once")
        pairs[name] = value
    return pairs
