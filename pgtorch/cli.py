"""The command `pgtorch`: see `pgtorch --help`."""

from collections.abc import Sequence

from pgcore.cli import run_cli
from pgcore.commands.framework import Framework


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return run_cli("pgtorch", _load, argv)


def _load() -> Framework:
    import pgtorch
    from pgtorch import bench

    return Framework(
        pgtorch.train,
        pgtorch.resume,
        pgtorch.train_seeds,
        pgtorch.load_policy,
        pgtorch.make_act,
        bench.bench_case,
        bench.matmul,
    )
