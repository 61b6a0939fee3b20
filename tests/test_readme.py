"""The README's examples run as they stand, and its table is the committed result's."""

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import demo
from pgcore import cli

ROOT = Path(__file__).parent.parent


def test_the_python_examples_in_the_readme_run(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert examples
    script = tmp_path / "readme.py"
    script.write_text("\n".join(examples), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_readmes_table_is_that_of_the_committed_result():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = demo.IN_README.search(text)
    assert found is not None
    assert found[2] == demo.table(demo.read_rows())


def test_the_readmes_commands_are_accepted_as_they_stand():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^((?:pgjax|pgtorch) .*?)(?: *#.*)?$", text, flags=re.MULTILINE)
    assert len(commands) >= 4
    for line in commands:
        name, *args = line.split()
        if "--help" not in args:
            cli.parse(name, args)
