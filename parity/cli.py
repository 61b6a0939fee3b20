"""The command `parity`: see `parity --help`.

Exit codes: 0 good; 1 a parity failure; 2 something given is not usable; 130 stopped by Ctrl-C;
141 nobody reads on (`| head`).
"""

import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from pgcore.cli import choice_registry, exit_code
from pgcore.errors import unknown_choice

COMMANDS = {
    "check": "parity.suite.command:Check",
    "convert": "parity.convert.command:Convert",
    "diff": "parity.recordings.command:Diff",
    "lockstep": "parity.runs.command:Lockstep",
    "power": "parity.mutation.command:PowerCommand",
    "preflight": "parity.preflight:Preflight",
    "recording": "parity.recordings.command:Show",
    "selftest": "parity.mutants.command:Selftest",
    "traps": "parity.traps.command:Traps",
    "where": "parity.locate.command:Where",
}
"""Each command's dataclass, by name. Its fields are the options, and `run()` returns the exit code.
The module that it is in loads neither framework."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    return exit_code("parity", lambda: parse(arguments).run())


def parse(argv: list[str]) -> Any:
    """The command that `argv` asks for. tyro exits with 2 where it can't be parsed."""
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise unknown_choice("command", argv[0], COMMANDS)
    return tyro.extras.subcommand_cli_from_dict(
        {name: pkgutil.resolve_name(command) for name, command in COMMANDS.items()},
        prog="parity",
        description="What proves a PyTorch and a JAX implementation the same.",
        args=argv,
        registry=choice_registry(),
    )
