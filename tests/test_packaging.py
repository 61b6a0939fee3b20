"""What a person installs: the pins, the ranges, and what is in the wheel."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("pgcore", "pgjax", "pgtorch", "parity")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def requirements(*extras: str) -> dict[str, Requirement]:
    """What the base install needs, with the given extras, by name."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    found = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    itself = found.pop(PROJECT["name"], None)
    return found | (requirements(*itself.extras) if itself else {})


def test_every_pin_is_one_exact_public_version():
    wrong = [pin for pin in PINS if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin)]
    assert wrong == []
    assert "torch==2.13.0" in PINS


def test_every_requirement_is_pinned_within_its_range():
    pinned = dict(pin.split("==") for pin in PINS)
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    wrong = [
        str(requirement)
        for name, requirement in requirements("dev").items()
        if name not in pinned or pinned[name] not in requirement.specifier
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "release", ["torch==2.11.0", "torch==2.13.0", "jax==0.10.2", "jax==0.11.0", "flax==0.12.8"]
)
def test_the_ranges_admit(release):
    name, version = release.split("==")
    assert version in requirements("torch")[name].specifier


def test_the_base_install_is_the_jax_side():
    assert {"jax", "flax", "optax"} <= set(requirements())
    assert set(requirements()) & {"torch", "mpmath", "hypothesis", "matplotlib"} == set()


def test_the_wheel_holds_the_four_packages_with_their_types_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    hidden = shutil.ignore_patterns("__pycache__")
    for folder in (*PACKAGES, "benchmarks", "tests"):
        shutil.copytree(ROOT / folder, source / folder, ignore=hidden)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-index", "--wheel-dir", tmp_path, source], check=True)

    [wheel] = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".pyi") or path.name == "py.typed" or path.parent.name == "tables"
    }
    assert names == expected
    assert {
        f"{package}/{name}" for package in PACKAGES for name in ("py.typed", "__init__.py")
    } <= names


def test_the_licences_that_are_listed_are_those_of_the_installed_packages():
    from benchmarks import licences, results

    page = results.table_in(licences.PAGE, licences.NAME)
    listed = {tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in page.splitlines()}
    found = {(name, *about) for name, about in licences.found().items()}
    assert len(found) > 40
    # An environment of other versions (`benchmarks.environments`) may need other packages.
    pins = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in PINS)}
    is_pinned = {name: pins.get(name) == version(name).partition("+")[0] for name, *_ in found}
    assert all(is_pinned.values()) or version("flax") != pins["flax"]
    assert sum(is_pinned.values()) > 20
    assert {row for row in found - listed if is_pinned[row[0]]} == set()
    assert not any("unknown" in licence.lower() or not licence for _, licence, _ in found)
