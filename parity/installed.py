"""Installed releases against the ranges that this project was tested with."""

import importlib.metadata
import re
from collections.abc import Callable, Iterator

from parity.preflight import Finding

DISTRIBUTION = "policy-gradient-parity"
EXTRAS = ("torch", "parity")
"""What a comparison may need beside the base install."""


def versions() -> Iterator[Finding]:
    """A finding for each package that a comparison uses."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        remedy = f"pip install it, and the ranges of {DISTRIBUTION} are checked"
        yield Finding("versions", f"{DISTRIBUTION} is not installed here", "note", remedy)
        return
    for requirement in requirements:
        name, extras, ranges, marker = _parsed(requirement)
        extra = re.search(r"extra\s*==\s*['\"](.+?)['\"]", marker)
        if extras or (extra and extra[1] not in EXTRAS):
            continue  # itself with extras, or for reports and development
        wanted = f"{name}{ranges}"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            remedy = f"pip install '{wanted}'; what does not need it can be compared"
            yield Finding(f"version of {name}", "not installed", "note", remedy)
            continue
        state = f"{version}, tested with {ranges or 'any'}"
        if in_range(version, ranges):
            yield Finding(f"version of {name}", state)
        else:
            yield Finding(f"version of {name}", state, "spoils", f"pip install '{wanted}'")


def _parsed(requirement: str) -> tuple[str, str, str, str]:
    """Name, extras, ranges and marker of a requirement in the metadata."""
    found = re.match(r"\s*([\w.-]+)\s*(\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$", requirement)
    name, extras, ranges, marker = found.groups(default="") if found else (requirement, "", "", "")
    return name, extras, ranges.replace(" ", ""), marker


def in_range(version: str, ranges: str) -> bool:
    """Whether a release is in all ranges, `>=0.12,<0.13`, by its numbers alone.

    A release candidate counts as its release, and what follows `+` does not count.

    >>> in_range("2.13.0+cpu", ">=2.11,<3"), in_range("0.12", ">=0.12.0,<0.13")
    (True, True)
    >>> in_range("0.9.2", ">=0.10"), in_range("3.0rc1", "<3")
    (False, False)
    """
    compared: dict[str, Callable[[list[int], list[int]], bool]] = {
        ">=": lambda a, b: a >= b,
        "<=": lambda a, b: a <= b,
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        ">": lambda a, b: a > b,
        "<": lambda a, b: a < b,
    }
    for part in filter(None, ranges.split(",")):
        sign = next(sign for sign in compared if part.startswith(sign))
        if not compared[sign](_numbers(version), _numbers(part.removeprefix(sign))):
            return False
    return True


def _numbers(version: str) -> list[int]:
    found = re.match(r"[\d.]+", version.strip())
    numbers = [int(number) for number in found[0].strip(".").split(".")] if found else []
    return (numbers + [0] * 6)[:6]
