"""The command `pgjax`: see `pgjax --help`."""

from collections.abc import Sequence

from pgcore.cli import run_cli
from pgcore.commands.framework import Framework


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return run_cli("pgjax", _load, argv)


def _load() -> Framework:
    import pgjax

    return Framework(
        pgjax.train, pgjax.resume, pgjax.train_seeds, pgjax.load_policy, pgjax.make_act
    )
