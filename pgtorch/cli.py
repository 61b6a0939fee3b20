"""The command `pgtorch`: see `pgtorch --help`."""

from collections.abc import Sequence

from pgcore.cli import Framework, run_cli


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return run_cli("pgtorch", _load, argv)


def _load() -> Framework:
    import torch

    import pgtorch

    # Layers of 24 and 12 units are too small to share: a second thread only waits for the first.
    torch.set_num_threads(1)
    return Framework(pgtorch.train, pgtorch.save_policy, pgtorch.load_policy, pgtorch.make_act)
