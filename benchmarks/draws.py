"""How many draws it takes to see what rounding can do: term (d) of `parity.tolerance`.

`reparam` with one episode an update, seed 1, falls back to episodes of nine steps, with both heads'
tanh saturated. Its gradient is then made of slopes 1 - tanh² of which few digits are left. For the
gradient's norm at some updates of that run: how far JAX's is off, and how far n runs of PyTorch
whose operations are moved by an ulp show that it may be off, for more and more of them.

`--save` keeps the figures in `benchmarks/results/draws.json` and their table in `docs/parity.md`.
The last update takes some five minutes to get to.
"""

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tyro

from benchmarks import results
from pgcore.config import PRESETS
from pgcore.errors import require

LEAF = "metrics/grad_norm"
DRAWS = (8, 16, 32, 64, 128, 256)
PAGE = "docs/parity.md"


@dataclass(frozen=True)
class Draws:
    """Measure what more and more draws of rounding show."""

    updates: tuple[int, ...] = (100, 1_000, 10_000, 33_432)
    """Of the run, counted from 1, in rising order."""
    save: bool = False
    """Keep the figures and the table."""


def main(options: Draws) -> int:
    """Measures it at each of the updates."""
    from parity.runs.proofs import START, lead

    config = replace(PRESETS["article"], agent="reparam", seed=1)
    require([*options.updates] == sorted(options.updates), "updates", options.updates, "rising")
    led, rows = START, []
    for update in options.updates:
        led = lead(config, update - 1, led)
        rows.append({"update": update, **measured(config, led)})
        print(rows[-1], flush=True)
    print(f"\n{table(rows)}")
    if options.save:
        results.save("draws", "python -m benchmarks.draws --save", {"updates": rows}, indent=None)
        results.put_table(PAGE, "draws", table(rows))
    return 0


def measured(config: Any, led: Any) -> dict[str, Any]:
    """The next update's norm, JAX's error in it, and what the draws allow."""
    from parity import sides
    from parity.arrays import minus
    from parity.runs.agents import agent_run
    from parity.runs.steps import Candidate, Reference
    from parity.tolerance import SLACK, cast

    run = agent_run(config, state=led.state, played=led.updates)
    reference = Reference(run.reference_step, run.state, run.inputs(0))
    candidate = Candidate(run.candidate_step, run.to_candidate, run.to_reference, reference)
    arrays = cast(reference.arrays, np.float64)
    exact = reference(arrays)[LEAF]
    roundings = sides.torch_roundings(reference)
    moved = [
        float(np.abs(minus(nudged[LEAF], exact)))
        for nudged in roundings(arrays, draws=range(max(DRAWS)))
    ]
    return {
        "norm": float(exact),
        "error": float(np.abs(minus(candidate(arrays)[LEAF], exact))),
        # A nudge moves by an ulp, twice what rounding to nearest can.
        "allowed": [SLACK * max(moved[:number]) / 2 for number in DRAWS],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each update."""
    header = ("update", "norm", "JAX's error", *(f"{number} draws allow" for number in DRAWS))
    return results.table(
        header,
        [
            [f"{row['update']:,}", *(f"{row[name]:.2g}" for name in ("norm", "error"))]
            + [f"{allowed:.2g}" for allowed in row["allowed"]]
            for row in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Draws)))
