"""`scripts/bootstrap` with a stand-in for Python: its sentences, and when it installs again.

The stand-in answers questions as the real interpreter does, "makes" an environment by copying
itself, and only counts what it is asked to install.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAND_IN = """#!/bin/sh
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && sh on_venv ;;
    "-m pip --version") ;;
    "-m pip install "*) echo "$PIP_CONSTRAINT $*" >>installs; sh on_install ;;
    *) exec "{python}" "$@" ;;
esac
"""
OLD = """#!/bin/sh
[ "$1" = -c ] || exit 1
code="import sys; sys.version_info = (3, 9, 18); sys.version = '3.9.18'
$2"
shift 2
exec "{python}" -c "$code" "$@"
"""
WITHOUT_ENSUREPIP = """#!/bin/sh
[ "$1" = -c ] || exit 1
code="import sys; sys.modules['ensurepip'] = None
$2"
shift 2
exec "{python}" -c "$code" "$@"
"""


class Checkout:
    """A copy of what the script reads, in a folder with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "bootstrap", folder / "scripts")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        self.during("venv", "true")
        self.during("install", "true")
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in ("sh", "dirname", "cat", "cksum", "rm", "mkdir", "mv", "cp"):
            (self.bin / tool).symlink_to(shutil.which(tool))

    def during(self, stage: str, command: str) -> None:
        """Makes the stand-in run a command at the end of a stage, `venv` or `install`."""
        (self.folder / f"on_{stage}").write_text(command, encoding="utf-8")

    def add_python(self, name: str = "python3", script: str = STAND_IN) -> Path:
        path = self.bin / name
        path.write_text(script.replace("{python}", sys.executable), encoding="utf-8")
        path.chmod(0o755)
        return path

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "scripts" / "bootstrap"],
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def num_installs(self) -> int:
        log = self.folder / "installs"
        return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a folder 12")


@pytest.fixture
def installed(checkout: Checkout) -> Checkout:
    checkout.add_python()
    result = checkout.run()
    assert (result.returncode, checkout.num_installs) == (0, 1), result.stderr
    return checkout


def fails_with_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> bool:
    assert result.returncode == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert [word for word in words if word not in line] == []
    assert line.endswith(".")
    return True


def test_no_python_at_all_is_said_in_one_sentence(checkout):
    assert fails_with_one_sentence(checkout.run(), "No python3 was found", "Python 3.11")


def test_an_old_python_is_said_in_one_sentence(checkout):
    checkout.add_python(script=OLD)
    assert fails_with_one_sentence(checkout.run(), "python3 is Python 3.9.18", "Python 3.11")


def test_a_missing_ensurepip_is_said_in_one_sentence_with_the_remedy(checkout):
    checkout.add_python(script=WITHOUT_ENSUREPIP)
    version = "{}.{}".format(*sys.version_info)
    words = ("lacks ensurepip", f"apt install python{version}-venv")
    assert fails_with_one_sentence(checkout.run(), *words)


def test_an_interpreter_asked_for_that_is_none_is_said_in_one_sentence(checkout):
    checkout.add_python()  # there is a good one, but it was not asked for
    result = checkout.run(PYTHON="no-such-python")
    assert fails_with_one_sentence(result, "PYTHON", "no-such-python does not run")


def test_a_usable_python_further_down_the_list_is_found(checkout):
    checkout.add_python("python3", OLD)
    checkout.add_python("python3.13", WITHOUT_ENSUREPIP)
    checkout.add_python("python3.12")
    assert checkout.run().returncode == 0
    assert checkout.num_installs == 1


def test_it_installs_with_the_pins_and_says_so(checkout):
    checkout.add_python()
    result = checkout.run()
    [line] = result.stdout.splitlines()
    assert "minutes" in line
    [install] = (checkout.folder / "installs").read_text(encoding="utf-8").splitlines()
    assert install.startswith("constraints.txt ")
    assert install.endswith("--editable .[dev]")


def test_a_second_run_does_and_says_nothing(installed):
    result = installed.run()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert installed.num_installs == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_is_installed_once(installed, name):
    marker = installed.folder / ".venv" / "kept"
    marker.touch()
    with (installed.folder / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    installed.run()
    installed.run()
    assert installed.num_installs == 2
    assert marker.exists()  # brought up to date, not made anew


@pytest.mark.parametrize("command", ["exit 1", "kill -9 $PPID"], ids=["failed", "killed"])
def test_an_interrupted_install_is_started_from_nothing(checkout, command):
    checkout.add_python()
    checkout.during("install", command)
    result = checkout.run()
    assert result.returncode == 1
    assert "try again" in result.stderr
    (checkout.folder / ".venv" / "half").touch()

    checkout.during("install", "true")
    result = checkout.run()
    assert (result.returncode, checkout.num_installs) == (0, 2)
    assert "interrupted" in result.stdout
    assert not (checkout.folder / ".venv" / "half").exists()
    assert checkout.run().stdout == ""


@pytest.mark.parametrize("stage", ["venv", "install"])
def test_a_script_that_is_killed_leaves_no_good_stamp(checkout, stage):
    checkout.add_python()
    checkout.during(stage, 'kill -9 "$(cat pid)"')
    script = checkout.folder / "scripts" / "bootstrap"
    command = ["sh", "-c", 'echo $$ >pid; exec "$0"', script]
    environment = {"PATH": str(checkout.bin)}
    killed = subprocess.run(command, cwd=checkout.folder, env=environment, timeout=60, check=False)
    assert killed.returncode == -9

    checkout.during(stage, "true")
    assert "interrupted" in checkout.run().stdout
    assert checkout.run().stdout == ""


def test_an_environment_whose_python_is_gone_is_made_anew(installed):
    (installed.folder / ".venv" / "bin" / "python").unlink()
    result = installed.run()
    assert (result.returncode, installed.num_installs) == (0, 2)
    assert "does not run" in result.stdout


def test_an_environment_that_moved_with_its_folder_is_made_anew(installed):
    moved = installed.folder.with_name("elsewhere")
    installed.folder.rename(moved)
    result = subprocess.run(
        [moved / "scripts" / "bootstrap"],
        env={"PATH": str(moved / "bin")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "another folder" in result.stdout


def test_an_environment_that_a_person_made_is_installed_into(checkout):
    python = checkout.add_python()
    made = checkout.folder / ".venv" / "bin"
    made.mkdir(parents=True)
    shutil.copy(python, made / "python")
    (made / "theirs").touch()
    assert checkout.run().returncode == 0
    assert checkout.num_installs == 1
    assert (made / "theirs").exists()


def test_an_environment_without_pip_is_made_anew(checkout):
    checkout.add_python()
    made = checkout.add_python(
        "without_pip", STAND_IN.replace('version") ;;', 'version") exit 1 ;;')
    )
    (checkout.folder / ".venv" / "bin").mkdir(parents=True)
    made.rename(checkout.folder / ".venv" / "bin" / "python")
    assert "no pip" in checkout.run().stdout
    assert checkout.num_installs == 1


def test_another_interpreter_asked_for_makes_it_anew_once(installed):
    answer = '"-c import sys; print(sys.version)") echo 3.99 ;;'
    installed.add_python("newer", STAND_IN.replace('case "$*" in', f'case "$*" in {answer}'))
    assert "PYTHON asks for another Python" in installed.run(PYTHON="newer").stdout
    assert installed.run(PYTHON="newer").stdout == ""
    assert installed.num_installs == 2
