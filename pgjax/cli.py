"""The command `pgjax`: see `pgjax --help`."""

from collections.abc import Sequence

from pgcore.cli import Commands, run_cli


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return run_cli("pgjax", _load, argv)


def _load() -> Commands:
    import pgjax

    return Commands(pgjax.train, pgjax.load_policy, pgjax.make_act)
