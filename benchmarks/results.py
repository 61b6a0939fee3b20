"""Where the benchmarks keep their figures, and what is noted beside them."""

import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def save(name: str, command: str, figures: dict[str, Any]) -> Path:
    """Keeps `figures` as `results/<name>.json`, with the command that gives them."""
    RESULTS.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"command": command, "machine": machine} | figures, indent=2) + "\n")
    return path


def load(name: str) -> dict[str, Any]:
    """The committed figures of that name."""
    return json.loads((RESULTS / f"{name}.json").read_text())
