"""The examples of the README and of `docs/` run as they stand; the README's table is generated."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import parity.cli
from parity import workers
from pgcore import cli

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGES["README.md"] = (ROOT / "README.md").read_text("utf-8")


def blocks(page: str, language: str) -> str:
    """A page's code blocks in one language, in order."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    return "\n".join(found)


def pages_with(language: str) -> list[str]:
    return sorted(page for page in PAGES if blocks(page, language))


def test_the_readme_and_the_recipes_have_examples():
    assert {"README.md", "recipes.md"} <= set(pages_with("python"))


UNHURRIED = """\
from hypothesis import HealthCheck, settings
settings.register_profile("unhurried", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
"""
"""On a machine that does other things too, Hypothesis would call a first draw too slow."""


@pytest.mark.takes_long
@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_examples_of_a_page_run(page, tmp_path):
    script = tmp_path / "examples.py"
    script.write_text(UNHURRIED + blocks(page, "python"), encoding="utf-8")
    # Each program of an example is run a few times: what takes long is to compile it.
    flags = f"{os.environ.get('XLA_FLAGS', '')} {workers.xla_flags(workers.QUICK)}"
    result = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", pages_with("sh"))
def test_the_commands_of_a_page_are_accepted_as_they_stand(page):
    shell = blocks(page, "sh")
    commands = re.findall(r"^((?:pgjax|pgtorch|parity) .*?)(?: *#.*)?$", shell, flags=re.MULTILINE)
    assert len(commands) >= 4 or page != "README.md"
    for line in commands:
        name, *args = shlex.split(line)
        if "--help" not in args:
            parity.cli.parse(args) if name == "parity" else cli.parse(name, args)


def test_every_link_between_the_pages_leads_to_a_file_and_a_heading():
    for page, text in PAGES.items():
        folder = ROOT if page == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^):]+)\)", text):
            path, _, anchor = target.partition("#")
            file = folder / path if path else folder / page
            assert file.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(file), f"{page}: {target}"


def anchors(file: Path) -> set[str]:
    """What GitHub makes of a page's headings: lower case, hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
