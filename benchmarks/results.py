"""Where the benchmarks keep their figures, and the tables of them that stand in the pages."""

import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def save(name: str, command: str, figures: dict[str, Any], indent: int | None = 2) -> None:
    """Keeps `figures` as `results/<name>.json`, with the command that gives them."""
    RESULTS.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    values = {"command": command, "machine": machine} | figures
    (RESULTS / f"{name}.json").write_text(
        json.dumps(values, indent=indent) + "\n", encoding="utf-8"
    )


def load(name: str) -> dict[str, Any]:
    """The committed figures of that name."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table that reads well in a terminal and in Markdown."""
    cells = [header, *rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in cells]
    rule = f"| {' | '.join('-' * width for width in widths)} |"
    return "\n".join([lines[0], rule, *lines[1:]])


def put_table(page: str, name: str, text: str) -> None:
    """Puts a table between its two marks in a page of the repository."""
    path = ROOT / page
    whole, count = _marks(name).subn(
        lambda found: f"{found[1]}{text}\n{found[3]}", path.read_text(encoding="utf-8")
    )
    if count != 1:
        raise ValueError(f"{page} has {count} places for the table {name!r}, not one")
    path.write_text(whole, encoding="utf-8")


def table_in(page: str, name: str) -> str:
    """The table that stands between its two marks in a page of the repository."""
    found = _marks(name).search((ROOT / page).read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{page} has no table {name!r}")
    return found[2]


def _marks(name: str) -> re.Pattern[str]:
    return re.compile(
        rf"(<!-- table: {re.escape(name)} -->\n)(.*?)\n?(<!-- end of table -->)", re.DOTALL
    )
