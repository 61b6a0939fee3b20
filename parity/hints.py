"""Notes that say what to do about what was found: beside the numbers, never in place of them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from parity import sides
from parity.arrays import Arrays
from parity.tolerance import Comparison


def plain_numbers(returned: Mapping[str, Any]) -> list[str]:
    """That a reference's output is a Python float: it may be a result that has lost its graph."""
    return [
        f"output {leaf} of the reference is a plain Python number (as of .item()): its value alone "
        "is compared, no gradient"
        for leaf, value in returned.items()
        if isinstance(value, float)
    ]


def both_nonfinite(comparisons: Iterable[Comparison]) -> list[str]:
    """The outputs in which both sides are not finite, in the same places."""
    found = {
        verdict.leaf: None
        for each in comparisons
        for verdict in each.verdicts
        if verdict.term == "nonfinite" and verdict.side == "candidate"
    }
    return [*found]


def expect_nonfinite(names: Collection[str]) -> list[str]:
    """What to give if values that are not finite are right."""
    if not names:
        return []
    found = f"{', '.join(names)}: NaN or infinite on both sides, in the same places"
    return [f"{found}; if that is meant, give expect_nonfinite={[*names]!r}"]


def gradients(
    comparisons: Collection[Comparison],
    reference: Callable[..., Any],
    arrays: Arrays,
    wrt: Collection[str],
) -> list[str]:
    """What to do about gradients that part, or that neither side has."""
    lines = []
    if leaves := both_nonfinite(comparisons):
        lines.append(
            f"the gradient in {', '.join(leaves)} is NaN or infinite on both sides, in the same "
            "places: move the input away from there, or leave it out of wrt"
        )
    parted = any(each.mismatches for each in comparisons)
    has_run = all(mismatch.leaf != "all" for each in comparisons for mismatch in each.mismatches)
    if parted and has_run and not sides.torch_has_graph(reference, wrt, arrays):
        lines.append(
            "the reference returns nothing that PyTorch can differentiate (no graph), so that its "
            "gradients are zero: is there a .detach(), torch.no_grad(), .item() or NumPy in it?"
        )
    return lines
