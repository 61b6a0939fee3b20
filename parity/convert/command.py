"""The command `parity convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from parity.convert.files import convert_file
from parity.convert.layers import REGISTRY
from pgcore.commands.parsing import parse_pairs
from pgcore.errors import printable

KINDS_HELP = (
    "What the layers are: Linear if all are, or linear1=Linear,norm=LayerNorm,log_std=Parameter. "
    "Needed unless SRC is a policy of this project or was converted before. A Linear behind a "
    "flattened image of 16 channels is Linear[16x5x5], attention with 8 heads "
    f"MultiheadAttention[8]. Known are {', '.join(REGISTRY)}."
)


@dataclass(frozen=True)
class Convert:
    """Convert a file of weights from torch's layout to Flax's, or back."""

    src: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SRC")]
    """The safetensors file to read. With linear1.weight in it, it is torch's; with
    params/linear1/kernel, Flax's."""
    dst: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST")]
    """The safetensors file to write."""
    to: Annotated[Literal["flax", "torch"] | None, tyro.conf.arg(metavar="{flax,torch}")] = None
    """Fail if DST would not be of this layout."""
    names: Annotated[str | None, tyro.conf.arg(metavar="TORCH=FLAX,...")] = None
    """Modules that Flax calls otherwise: linear1=Dense_0,actor.mu=actor/Dense_1."""
    kinds: Annotated[
        str | None, tyro.conf.arg(metavar="KIND | LAYER=KIND,...", help=KINDS_HELP)
    ] = None
    force: bool = False
    """Replace a DST that exists."""

    def run(self) -> int:
        """Converts, says what was written, and returns the exit code."""
        names = None if self.names is None else parse_pairs("names", self.names, "linear1=Dense_0")
        kinds = self.kinds
        if kinds is not None and "=" in kinds:
            kinds = parse_pairs("kinds", kinds, f"linear1={next(iter(REGISTRY))}")
        converted = convert_file(
            self.src, self.dst, to=self.to, names=names, kinds=kinds, force=self.force
        )
        print(f"{self.dst}: {converted.num_tensors} tensors in the layout of {converted.to}")
        print(printable(str(converted.layout)))
        return 0
