"""`parity power`: a test command is run on mutants of a small project, each in its own process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parity.cli import main
from parity.mutation.mutations import mutations
from parity.mutation.power import Power, clock, tried
from parity.mutation.processes import Ended, by_import

ROOT = Path(__file__).parent.parent.parent
RETURNS = """
def discounted(rewards, discount):
    following, returns = 0.0, []
    for reward in reversed(rewards):
        following = reward + discount * following
        returns.append(following)
    return returns[::-1]


def countdown(n):
    while n > 0:
        n -= 1
    return n


def unused(x):
    return x + 1
"""
SUMS = """
class Sum:
    def __init__(self):
        self.start = 1

    def of(self, x):
        return self.start + x
"""
CHECK = """
import sys
from port.returns import countdown, discounted
assert discounted([1.0, 0.0, 2.0], 0.5) == {expected}
assert countdown(3) == 0
"""
STRONG = CHECK.format(expected="[1.5, 1.0, 2.0]")
WEAK = STRONG.replace("discounted([1.0, 0.0, 2.0], 0.5) ==", "len(discounted([1.0, 2.0], 0.5)) ==")
WEAK = WEAK.replace("[1.5, 1.0, 2.0]", "2")
COMMAND = ["--", "python", "check.py"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "port").mkdir()
    (tmp_path / "port" / "__init__.py").touch()
    (tmp_path / "port" / "returns.py").write_text(RETURNS, "utf-8")
    (tmp_path / "check.py").write_text(STRONG, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def power(capsys, *options, command=COMMAND):
    """The exit code, what was printed, and the mutants of the JSON file."""
    code = main(["power", *options, "--json", "found.json", *command])
    said = capsys.readouterr()
    path = Path("found.json")
    return code, said.out + said.err, json.loads(path.read_text("utf-8"))["mutants"]


def of(*functions):
    return ["--of", *(f"port.returns:{name}" for name in functions)]


def outcomes(mutants):
    return {each["summary"]: each["outcome"] for each in mutants}


def test_a_strong_test_kills_all_and_files_stay_as_they_are(project, capsys):
    code, said, mutants = power(capsys, *of("discounted"))
    assert (code, {each["outcome"] for each in mutants}) == (0, {"killed"})
    assert len(mutants) >= 6
    assert f"{len(mutants)} of {len(mutants)} mutants killed" in said
    assert (project / "port" / "returns.py").read_text("utf-8") == RETURNS
    assert not list(project.rglob("*.pyc"))


def test_a_weak_test_lets_some_survive_each_with_its_diff(project, capsys):
    (project / "check.py").write_text(WEAK, "utf-8")
    code, said, mutants = power(capsys, *of("discounted"))
    assert code == 1
    found = outcomes(mutants)
    assert found["+ becomes -"] == "survived"
    assert found["returns.append(following) is left out"] == "killed"
    assert "survived: port/returns.py:5 in discounted, operators: + becomes -" in said
    assert "+        following = reward - discount * following" in said


def test_a_loop_without_end_is_stopped_by_the_clock(project, capsys, monkeypatch):
    monkeypatch.setattr("parity.mutation.power.LEAST_SECONDS", 4.0)
    options = [*of("countdown"), "--kinds", "operators", "--timeout", "2"]
    code, said, mutants = power(capsys, *options)
    assert outcomes(mutants) == {"> becomes <=": "killed", "-= becomes +=": "timed out"}
    assert code == 0
    assert "(1 by the clock)" in said


def test_what_is_never_called_is_told_apart(project, capsys):
    code, said, mutants = power(capsys, *of("unused"))
    assert (code, {each["outcome"] for each in mutants}) == (1, {"never called"})
    assert "never called by the command: unused (port/returns.py)" in said


def test_methods_of_classes_take_note_that_they_were_called(project, capsys):
    (project / "port" / "sums.py").write_text(SUMS, "utf-8")
    (project / "check.py").write_text(
        "from port.sums import Sum\nassert Sum().of(2) == 3\n", "utf-8"
    )
    code, _, mutants = power(capsys, "--of", "port.sums", "--kinds", "operators,constants")
    assert outcomes(mutants) == {"1 becomes 0": "killed", "+ becomes -": "killed"}
    assert code == 0


def test_by_default_what_is_called_outside_of_tests_is_mutated(project, capsys):
    options = ["--kinds", "operators", "--max", "2", "--seed", "1"]
    _, _, mutants = power(capsys, *options)
    assert len(mutants) == 2
    assert {each["function"] for each in mutants} <= {"discounted", "countdown"}
    _, said, again = power(capsys, *options)
    assert [each["id"] for each in again] == [each["id"] for each in mutants]
    assert "2 of them known from an earlier run" in said


def test_a_start_up_of_ones_own_runs_too(project, capsys, monkeypatch):
    (project / "own").mkdir()
    text = "import builtins\nbuiltins.started = True\n"
    (project / "own" / "sitecustomize.py").write_text(text, "utf-8")
    (project / "check.py").write_text(f"assert started\n{STRONG}", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(project / "own"))
    code, _, mutants = power(capsys, *of("discounted"), "--kinds", "operators")
    assert (code, {each["outcome"] for each in mutants}) == (0, {"killed"})


@pytest.fixture
def listens():
    """Lets children hear SIGINT: in a shell's background job it is ignored, which is inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def is_alive(pid):
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


NOTED = """
import os, subprocess, time
from pathlib import Path
def note():
    with Path("log").open("a") as log:
        log.write("run\\n")
note()
holds = Path("hold").exists() and len(Path("log").read_text().splitlines()) > 4
if holds:
    Path("child").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    os.rename("child", "waits")
while holds and Path("hold").exists():
    time.sleep(0.02)
{check}
note()
"""
"""Of the right code two lines, of a mutant that is killed one; the third mutant waits."""


@pytest.mark.usefixtures("listens")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_another_run_goes_on_where_one_was_interrupted(project, sent, code):
    log, hold = project / "log", project / "hold"
    hold.touch()
    (project / "check.py").write_text(NOTED.format(check=STRONG), "utf-8")
    own = ["--timeout", "100000"]  # the clock ends nothing here
    command = [sys.executable, "-m", "parity", "power", *of("discounted"), *own, *COMMAND]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    file = project / "parity-power" / "power.json"
    until = time.monotonic() + 60
    while not (project / "waits").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    child = int((project / "waits").read_text("utf-8"))
    process.send_signal(sent)
    try:
        said = process.communicate(timeout=60)[1]
    finally:
        hold.unlink()
    assert process.returncode == code, said
    assert not is_alive(child)
    assert "the same command goes on from here" in said
    known = json.loads(file.read_text("utf-8"))["outcomes"]
    assert len(known) == 2
    if sent == signal.SIGTERM:
        return  # what follows is the same
    before = len(log.read_text("utf-8").splitlines())

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(known)} of them known from an earlier run" in done.stderr
    outcomes = json.loads(file.read_text("utf-8"))["outcomes"]
    assert {name: outcomes[name] for name in known} == known
    # A mutant is killed before the second line is written: each new one wrote one.
    assert len(log.read_text("utf-8").splitlines()) - before == len(outcomes) - len(known)


def test_what_has_changed_is_tried_anew(project, capsys):
    options = [*of("discounted"), "--kinds", "reductions,operators"]
    power(capsys, *options)
    (project / "check.py").write_text(WEAK, "utf-8")
    code, said, mutants = power(capsys, *options)
    assert "check.py has changed: starting anew" in said
    assert (code, outcomes(mutants)["+ becomes -"]) == (1, "survived")


def test_a_file_that_is_gone_has_changed_and_another_command_knows_nothing(project, capsys):
    (project / "port" / "extra.py").touch()
    text = f"try:\n    import port.extra\nexcept ImportError:\n    pass\n{STRONG}"
    (project / "check.py").write_text(text, "utf-8")
    options = [*of("discounted"), "--kinds", "operators", "--max", "1"]
    power(capsys, *options)
    (project / "port" / "extra.py").unlink()
    assert "extra.py has changed: starting anew" in power(capsys, *options)[1]
    other = ["--", "python", "-B", "check.py"]
    said = power(capsys, *options, command=other)[1]
    assert "power.json is of another command: starting anew" in said


SCRIPT = """
import sys
def half(x):
    return x / 2
if __name__ == "__main__":
    assert sys.argv == ["script.py", "-v"] and sys.path[0] == {root!r}
    assert __import__("__main__").half is half
    assert half(4) == 2
"""


def test_a_script_that_the_command_runs_is_mutated_if_it_is_named(project, capsys):
    (project / "script.py").write_text(SCRIPT.format(root=str(project)), "utf-8")
    command = ["--", "python", "-X", "dev", "script.py", "-v"]
    kinds = ["--kinds", "operators,constants"]
    code, _, mutants = power(capsys, "--of", "script:half", *kinds, command=command)
    assert outcomes(mutants) == {"/ becomes *": "killed", "2 becomes 3": "killed"}
    assert code == 0
    assert main(["power", "--fresh", *command]) == 2  # the script is the test, by default
    assert "there is nothing to mutate" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["pytest", "check.py"],
        ["python", "-c", "1", "check.py"],
        ["python", "-m", "port", "check.py"],
        ["python", "-", "check.py"],
        ["python", "checks"],
        ["python"],
    ],
    ids=" ".join,
)
def test_what_is_no_script_of_python_runs_as_it_is_written(command):
    assert by_import(command) == command[1:]


def test_a_script_that_something_else_runs_is_said_not_to_be_seen(project, capsys):
    (project / "script.py").write_text("def half(x):\n    return x / 2\nhalf(2)\n", "utf-8")
    command = ["--", "sh", "-c", f"{sys.executable} script.py"]
    code, said, mutants = power(capsys, "--of", "script.py", command=command)
    assert (code, {each["outcome"] for each in mutants}) == (1, {"never called"})
    assert "script.py was run as a script, past Python's imports" in said
    assert "is seen only if the command itself is python script.py" in said


@pytest.mark.parametrize(
    ("first_run", "factor", "seconds"), [(0.1, 5, 5), (1, 5, 5), (1.5, 5, 7.5), (60, 2, 120)]
)
def test_the_clock_is_a_multiple_of_the_first_run_and_5_seconds_at_least(
    project, first_run, factor, seconds
):
    assert clock(first_run, factor) == seconds
    given = []

    class Fake:
        def run(self, plan, *, first_failure, seconds):
            given.append(seconds)
            return Ended(1, 0.0, "", frozenset())

    file = project / "port" / "returns.py"
    found = list(mutations(file.read_text("utf-8"), "port/returns.py", ["operators"]))
    lines = {(str(file), each.definition_line) for each in found}
    known = Power(["x"], first_run, {}, sorted(lines))
    for _ in tried(Fake(), known, found[:2], project, jobs=1, factor=factor):  # pyright: ignore[reportArgumentType]
        pass
    assert given == [seconds, seconds]


def test_a_slip_in_a_name_is_found_before_the_command_runs(project, capsys):
    for path, text in {
        "src/loss.py": "class Huber:\n    def of(self, x):\n        return x + 1\n",
        "src/old/loss.py": "def squared(x):\n    return x * x\n",
        "src/bad.py": "def f(:\n",
        ".venv/hidden.py": "def f(x):\n    return x\n",
        "site-packages/theirs.py": "def f(x):\n    return x\n",
    }.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text, "utf-8")
    (project.parent / f"{project.name}.py").touch()
    command = ["--", "python", "-c", "open('ran', 'w')"]
    for target, said in {
        "port.returns:discount": "did you mean 'discounted'?",
        "port.retruns": "did you mean 'port.returns'?",
        "port/returns.py:countdwn": "did you mean 'countdown'?",
        "loss:Hubert": "did you mean 'Huber'?",
        "loss:Huber.fo": "did you mean 'Huber.of'?",
        "src/lost.py": "there is no file 'src/lost.py'",
        f"../{project.name}.py": "there is no file '../",
        "bad:f": "bad.py is no Python",
        "hidden:f": "of is 'hidden:f'",
        "theirs": "of is 'theirs'",
    }.items():
        assert main(["power", "--of", target, *command]) == 2, target
        assert said in capsys.readouterr().err
    assert not (project / "ran").exists()
    # The command imports nothing; which of two files it would have meant, nobody knows before.
    assert main(["power", "--of", "loss:Huber", "loss:squared", *command]) == 2
    assert (project / "ran").exists()


@pytest.mark.takes_long
def test_pytest_with_workers_and_a_mutated_conftest(project, capsys):
    (project / "conftest.py").write_text("def half(x):\n    return x / 2\n", "utf-8")
    test = "from conftest import half\ndef test_half():\n    assert half(4) == 2\n"
    (project / "test_half.py").write_text(test, "utf-8")
    command = ["--", "pytest", "-q", "-n", "1", "-p", "no:parity"]
    code, _, mutants = power(
        capsys,
        *("--of", "conftest.py:half", "--kinds", "operators", "--timeout", "600"),
        command=command,
    )
    assert outcomes(mutants) == {"/ becomes *": "killed"}
    assert code == 0
    assert not (project / ".pytest_cache").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--of", "port.retruns", *COMMAND], "did you mean 'port.returns'?"),
        (["--of", "port.returns:discount", *COMMAND], "did you mean 'discounted'?"),
        (["--of", "nothing.py", *COMMAND], "there is no file 'nothing.py'"),
        (["--kinds", "axis", *COMMAND], "did you mean 'axes'?"),
        (["--max", "0", *COMMAND], "max is 0"),
        (["--jobs", "0", *COMMAND], "jobs is 0"),
        (["--timeout", "0.5", *COMMAND], "timeout is 0.5"),
        (["--out", "check.py", *COMMAND], "which is a file"),
        (["--", "no-such-program"], "there is no such program"),
        (["--", "python", "-c", "print('so'); raise SystemExit(3)"], "exit code 3"),
        (["--", "python", "-c", "print(1)"], "imports no Python file below"),
        ([], "there is no command"),
    ],
)
def test_what_is_not_usable_is_refused_by_name(project, capsys, arguments, said):
    assert main(["power", *arguments]) == 2
    assert said in capsys.readouterr().err
