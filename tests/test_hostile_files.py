"""Files that somebody made to do harm: refused by name, nothing run, nothing written elsewhere.

Here once each, in this process; `python -m benchmarks.reliability --only hostile` makes every
attempt in a process of its own, and measures its time and memory.
"""

import json
import shutil

import pytest

from benchmarks.reliability import hostile
from benchmarks.reliability.attacks import MODULE, STEERING, attacks
from benchmarks.reliability.attempts import steers_the_terminal
from pgcore.cli import exit_code
from pgcore.errors import UsageError, printable


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    hostile.make_good(place)
    return place / "good"


@pytest.fixture(scope="module")
def readers():
    return hostile.READERS()


TOO_LARGE = ("100 MB", "300,000", "million", "sparse")
"""What takes its time to be written; the benchmark has it."""


def test_hostile_files_are_refused_and_leave_no_trace(tmp_path, monkeypatch, capfd, good, readers):
    here, canary = tmp_path / "here", tmp_path / "canary"
    number, wrong = 0, []
    for attack in attacks(canary):
        is_long = attack.goes_on and "go_on" in attack.readers and "policy" not in attack.name
        if is_long or any(word in attack.name for word in TOO_LARGE):
            continue
        number += 1
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(good, here)
        attack.place(here)
        monkeypatch.chdir(here)
        before = hostile.outside(here)
        try:
            code = readers[attack.readers[0]]() or 0
        except UsageError as error:
            code = 2
            print(printable(str(error)))
        except Exception as error:
            code = repr(error)
        said = "".join(capfd.readouterr())
        seen = {
            "code": code,
            "executed": canary.exists(),
            "written": hostile.outside(here) != before,
            "steered": steers_the_terminal(said),
        }
        expected = {"code": 0 if attack.goes_on else 2}
        if seen != expected | dict.fromkeys(("executed", "written", "steered"), False):
            wrong.append((attack.kind, attack.name, seen, said[-300:]))
    assert wrong == []
    assert number > 300


def test_an_environment_of_a_module_is_made_when_a_person_names_it_too(
    tmp_path, monkeypatch, capfd, good, readers
):
    import sys

    from pgcore.cli import run_cli

    [attack] = [a for a in attacks(tmp_path / "ran") if a.name == "whole run"]
    shutil.copytree(good, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    attack.place(tmp_path / "here")

    def load():
        raise UsageError("the framework is asked for")

    named = f"{MODULE}:CartPole-v1"
    for command in (["eval", "run"], ["resume", "run", "--until-update", "3"]):
        assert run_cli("pgtorch", load, command) == 2
        assert f"--env-id {named}" in capfd.readouterr().err
        assert not (tmp_path / "ran").exists()
        assert run_cli("pgtorch", load, [*command, "--env-id", "CartPole-v1"]) == 2
        assert not (tmp_path / "ran").exists()
    assert run_cli("pgtorch", load, ["eval", "run", "--env-id", named]) == 2
    assert "the framework is asked for" in capfd.readouterr().err
    assert (tmp_path / "ran").exists()
    del sys.modules[MODULE]


def test_what_could_steer_a_terminal_is_printed_escaped(capfd):
    def fail():
        raise UsageError(f"the name is {STEERING}\n\tü")

    assert exit_code("x", fail) == 2
    said = capfd.readouterr().err
    assert said == "x: error: the name is \\x1b[2J\\x1b]0;owned\\x07\\u202e\n\tü\n"
    assert not steers_the_terminal(said)
    assert steers_the_terminal(STEERING)


def test_a_long_value_is_shortened_in_a_message(tmp_path):
    from pgcore.runs import RunFolder

    (tmp_path / "config.json").write_text(json.dumps({"x" * 100_000: 1}))
    with pytest.raises(UsageError) as error:
        RunFolder.open(tmp_path)
    assert len(str(error.value)) < 4_000
