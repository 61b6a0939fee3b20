"""`docs/porting.md` followed to the letter in an empty folder, and its templates in another."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from parity import workers
from tests.tools.pages import require_shown

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "porting.md").read_text("utf-8")
TEMPLATES = ROOT / "docs" / "templates"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"\n]*)")?\n(.*?)^```', flags=re.MULTILINE | re.DOTALL)
EXITS = re.compile(r" *# exits with (\d+)$")


def ran(line: str, folder: Path, code: int = 0) -> str:
    """What a command prints in a folder, with the packages of this checkout and their commands."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {workers.xla_flags(workers.QUICK)}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    # The page's commands compile the same small programs, each in a process of its own.
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    result = subprocess.run(
        shlex.split(line), cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, f"{line}\n{result.stdout}{result.stderr}"
    return result.stdout


def edited(before: str, after: str) -> str:
    """A file in which functions are written anew, as the page's reader would."""
    names = {getattr(node, "name", None) for node in ast.parse(after).body} - {None}
    lines = before.splitlines(keepends=True)
    for node in reversed(ast.parse(before).body):
        if getattr(node, "name", None) in names:
            del lines[node.lineno - 1 : node.end_lineno]
    return "".join(lines) + after


@pytest.mark.takes_long
def test_the_page_does_what_it_says_from_top_to_bottom(tmp_path):
    printed, num_commands = "", 0
    for language, title, text in BLOCK.findall(PAGE):
        if title:
            file = tmp_path / title
            before = file.read_text("utf-8") if file.exists() else ""
            file.write_text(edited(before, text), "utf-8")
        elif language == "sh":
            for line in text.splitlines():
                num_commands += 1
                code = EXITS.search(line)
                printed = ran(EXITS.sub("", line), tmp_path, int(code[1]) if code else 0)
        else:
            assert language == "text"
            require_shown(text.splitlines(), printed.splitlines())
    assert num_commands == 18


@pytest.mark.takes_long
def test_the_templates_work_in_an_empty_repository(tmp_path):
    """The workflow's own commands, but for those that install."""
    shutil.copy(TEMPLATES / "test_parity.py", tmp_path)
    workflow = yaml.safe_load((TEMPLATES / "parity.yml").read_text("utf-8"))
    commands = [step["run"] for step in workflow["jobs"]["parity"]["steps"] if "run" in step]
    for command in commands:
        if not command.startswith("pip install"):
            ran(command, tmp_path)
    assert {"parity.html", "parity.json"} <= {path.name for path in tmp_path.iterdir()}
    (kept,) = (step for step in workflow["jobs"]["parity"]["steps"] if "if" in step)
    assert kept["with"]["path"].split() == ["parity.html", "parity.json", "parity-repro/"]
