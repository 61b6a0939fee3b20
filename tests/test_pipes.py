"""A command whose output nobody reads on, as in `parity traps | head -1`: it says nothing more."""

import os
import subprocess
import sys

import pytest

from pgcore.cli import exit_code

COMMANDS = [
    ("parity", "--help"),
    ("parity", "traps"),
    ("parity", "traps", "list", "--json"),
    ("pgjax", "train", "--help"),
    ("pgtorch", "train", "--help"),
]


def started(*words: str, **streams: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *words]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, env=env, text=True, check=False, **streams)


def unread(*words: str, errors: bool = False, how: str = "-m") -> tuple[int, str | None]:
    """Its exit code and what it says elsewhere, where nobody reads its output (or errors too)."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        other = subprocess.STDOUT if errors else subprocess.PIPE
        process = started(how, *words, stdout=writing, stderr=other)
    finally:
        os.close(writing)
    return process.returncode, process.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_it_ends_without_a_word_by_the_code_of_a_broken_pipe(words):
    assert unread(*words) == (141, "")


def test_so_does_one_that_says_little_which_is_written_only_when_it_ends():
    code = "from pgcore.cli import exit_code; exit(exit_code('parity', lambda: print('a') or 0))"
    assert unread(code, how="-c") == (141, "")


def test_so_it_does_where_nobody_reads_its_errors_either():
    assert unread("pgjax", "eval", "no such run", errors=True) == (141, None)


def test_what_is_wrong_is_still_said_where_its_output_is_not_read():
    code, said = unread("parity", "traps", "show", "Z99")
    assert code == 2
    assert said is not None
    assert "id is 'Z99'" in said


def test_a_broken_pipe_to_another_process_is_an_error():
    def broken() -> int:
        raise BrokenPipeError("a worker has gone")

    with pytest.raises(BrokenPipeError, match="a worker has gone"):
        exit_code("parity", broken)
