"""What `parity power` changes in the Python that a test command starts, and what it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from parity.cli import main
from parity.mutation.processes import Processes
from tests.tools.test_power_command import outcomes, power


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(files):
    for path, text in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, "utf-8")


SHOWS = """
import os, sys
here = os.getcwd()
print(__name__, __file__, __spec__, sys.argv, [path for path in sys.path if here in path])
"""


@pytest.mark.parametrize(
    "arguments",
    [["below/script.py", "-v"], ["-P", "below/script.py"], ["link.py"], ["below/../link.py"]],
    ids=" ".join,
)
def test_a_script_finds_what_python_gives_one(here, arguments):
    write({"below/script.py": SHOWS})
    (here / "link.py").symlink_to(here / "below" / "script.py")
    plain = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    assert Processes(["python", *arguments]).run({}, first_failure=True).output == plain.stdout


HALF = "def half(x):\n    return x / 2\n"


@pytest.mark.usefixtures("here")
def test_a_script_that_ends_without_ado_is_the_test_too(capsys):
    write({"script.py": f"import os\n{HALF}assert half(4) == 2\nos._exit(0)\n"})
    assert main(["power", "--", "python", "script.py"]) == 2
    assert "there is nothing to mutate" in capsys.readouterr().err


DIVISION = ["--of", "port.py", "--kinds", "operators"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("check", "outcome"),
    [
        ("assert half(4)", "survived"),
        ("import inspect; half(4); assert 'x / 2' in inspect.getsource(half)", "killed"),
    ],
)
def test_the_lines_that_are_shown_are_the_mutants(capsys, check, outcome):
    write({"port.py": HALF, "check.py": f"from port import half\n{check}\n"})
    assert outcomes(power(capsys, *DIVISION)[2]) == {"/ becomes *": outcome}


@pytest.mark.usefixtures("here")
def test_a_mutant_is_read_in_the_encoding_that_its_file_declares(capsys):
    text = f"# coding: latin-1\n{HALF}NAME = 'é'\n"
    Path("port.py").write_text(text, "latin-1")
    write({"check.py": "import port\nassert port.half(4) and port.NAME == '\\xe9'\n"})
    assert outcomes(power(capsys, *DIVISION)[2]) == {"/ becomes *": "survived"}


LOADER = """
import sys
from importlib.machinery import FileFinder, SourceFileLoader

class Loader(SourceFileLoader):
    def source_to_code(self, data, path, **how):
        return super().source_to_code(bytes(data) + b"\\nis_checked = True\\n", path, **how)

sys.path_hooks.insert(0, FileFinder.path_hook((Loader, [".py"])))
sys.path_importer_cache.clear()
import port
assert port.half(4) and port.is_checked
"""


@pytest.mark.usefixtures("here")
def test_what_a_loader_of_ones_own_adds_is_there_in_every_run(capsys):
    write({"port.py": HALF, "check.py": LOADER})
    assert outcomes(power(capsys, *DIVISION)[2]) == {"/ becomes *": "survived"}


ASYNC = """
async def half(x):
    '''Half of it.'''
    return x / 2
"""


@pytest.mark.usefixtures("here")
def test_functions_are_watched_that_are_awaited_and_keep_their_docstrings(capsys):
    check = "import asyncio, port\nassert asyncio.run(port.half(4)) == 2\n"
    write({"port.py": ASYNC, "check.py": f"{check}assert port.half.__doc__ == 'Half of it.'\n"})
    assert outcomes(power(capsys, *DIVISION)[2]) == {"/ becomes *": "killed"}


@pytest.mark.usefixtures("here")
def test_by_default_an_environment_in_the_folder_is_not_ones_own(capsys):
    folders = [".venv", "site-packages", "own"]
    imports = "".join(f"import {name}\nassert {name}.half(4) == 2\n" for name in "abc")
    write({f"{folder}/{name}.py": HALF for folder, name in zip(folders, "abc", strict=True)})
    write({"check.py": f"import sys\nsys.path += {folders}\n{imports}"})
    _, _, mutants = power(capsys, "--kinds", "operators")
    assert [each["file"] for each in mutants] == ["own/c.py"]


@pytest.mark.usefixtures("here")
def test_pytest_says_of_a_failing_test_what_it_says_otherwise(capsys):
    test = "from port import half\ndef test_half():\n    assert half(4) == 3\n"
    write({"port.py": HALF, "test_half.py": test})
    assert main(["power", "--", "pytest", "-n", "0", "-p", "no:parity"]) == 2
    assert "where 2.0 = half(4)" in capsys.readouterr().err
