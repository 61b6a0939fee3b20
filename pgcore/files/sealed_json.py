"""JSON files in which no byte can change unseen: the last entry is the SHA-256 of the others."""

import hashlib
import json
from typing import Any

from pgcore.files.reading import parse_json

SEAL = "sha256"


def to_json(values: object) -> bytes:
    """The text of a JSON file."""
    return (json.dumps(values, indent=2) + "\n").encode()


def seal(table: dict[str, Any]) -> bytes:
    """The table as JSON, with the SHA-256 of the JSON that it is without it."""
    return to_json(table | {SEAL: hashlib.sha256(to_json(table)).hexdigest()})


def unseal(data: bytes) -> dict[str, Any]:
    """What `seal` made the text of.

    Raises:
        ValueError: It is no JSON, or a byte is another than it was.
    """
    table = parse_json(data)
    if not isinstance(table, dict):
        raise ValueError("it holds no table")
    unsealed = {name: value for name, value in table.items() if name != SEAL}
    try:
        is_whole = seal(unsealed) == data
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not is_whole:
        raise ValueError("it is not what was written (by its SHA-256)")
    return unsealed
