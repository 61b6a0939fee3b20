"""Makes a virtual environment with the newest, the pinned or the lowest versions of everything.

    python -m benchmarks.environments newest FOLDER --python python3.12
    FOLDER/bin/python -m benchmarks.traps --save newest

`newest` is what pip finds in the ranges of pyproject.toml, `pinned` what constraints.txt says, and
`lowest` the lower end of each range but rich's. It needs nothing but Python,
the one that runs it unless another is named.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
KINDS = ("newest", "pinned", "lowest")
OF_LOWEST = (
    *("jax", "flax", "optax", "numpy", "torch"),
    *("gymnasium", "jaxtyping", "lazy_loader", "safetensors", "tyro"),
)
"""Of these the lowest are installed; rich, of which import-linter needs a later one, is whatever
goes with them."""


def lowest() -> list[str]:
    """The lower ends of the ranges in pyproject.toml, as constraints of pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ranges = [*project["dependencies"], *project["optional-dependencies"]["torch"]]
    found = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(ranges), flags=re.MULTILINE))
    return [*(f"{name}=={found[name]}" for name in OF_LOWEST), f"jaxlib=={found['jax']}"]


def build_needs() -> list[str]:
    """What builds a wheel of the project, which its tests do without the network."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"][
        "requires"
    ]


def constraints(kind: str) -> str:
    """What pip is held to."""
    if kind == "pinned":
        return (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return "\n".join(lowest()) if kind == "lowest" else ""


def make(kind: str, folder: Path, python: str) -> None:
    """Makes the environment, with this checkout and all that its tests need."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    with tempfile.TemporaryDirectory() as there:
        held = Path(there) / "constraints.txt"
        held.write_text(constraints(kind), encoding="utf-8")
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run(
            [
                *(*install, "--no-compile", "--constraint", str(held)),
                *(*build_needs(), "--editable", f"{ROOT}[dev]"),
            ],
            check=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a virtual environment of one kind.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the Python of the environment")
    given = parser.parse_args()
    make(given.kind, given.folder, given.python)
