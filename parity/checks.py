"""`check`: two callables, one in PyTorch and one in JAX, on the same inputs.

>>> import jax.numpy as jnp, numpy as np, torch
>>> inputs = {"input": np.linspace(-1, 1, 5), "dim": 0}
>>> check(torch.cumsum, jnp.cumsum, inputs, rename={"input": "a", "dim": "axis"}).ok
True
>>> check(torch.std, jnp.std, inputs, rename={"input": "a", "dim": "axis"}).ok  # n − 1 and n
False
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from parity import cases, hints, repro, sides
from parity.arrays import is_number
from parity.inputs import require_known
from parity.locate import where
from parity.prepared import prepared
from parity.report import Report
from parity.signatures import called, require_accepted, require_callable


def check(
    reference: Callable[..., Any],
    candidate: Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    wrt: Collection[str] | None = None,
    rename: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | str | None = None,
    oracle: Callable[..., Any] | None = None,
    expect_nonfinite: Collection[str] = (),
    name: str | None = None,
) -> Report:
    """Holds a JAX callable against a PyTorch one: values and gradients, by the rule.

    Values and gradients are compared in float64 and in float32, with the candidate eager and
    jitted; its values, in float64, also vmapped over three input sets, each of whose results must
    be the reference's at that set alone. Gradients are those of the sum of
    all floating outputs, each weighted by a fixed random cotangent (lone scalars by 1).

    Args:
        reference: The PyTorch callable or `torch.nn.Module`, which sets the yardstick. A module's
            weights are the input `params`, by torch's names; it is not changed.
        candidate: The JAX callable or Flax module (Linen or NNX), which is judged. If both are
            modules, `params` is laid out for Flax as `parity.convert` would.
        inputs: By parameter name, passed to both by keyword: arrays, trees of them, or plain
            numbers and strings, which are constants. Each call gets copies. Floating arrays are
            rounded to float32 first, so that both precisions start from the same numbers. A
            module's own weights are its `params` where none are given.
        wrt: The inputs to differentiate in, each by name or by path (`"params/linear1.weight"`);
            a name stands for all below it. By default every floating array.
        rename: What the candidate calls an input or an output, by the reference's name or path
            for it, where the two differ. A name that both an input and an output have is the
            input's. If both sides are modules, also which Flax module a torch module is, as
            `names` of `parity.convert`: `{"body.0": "Dense_0"}`, or `"params/body.0"` where an
            input or output is called alike.
        kinds: If both sides are modules, the kind of what no class tells, as in `parity.convert`:
            `{"log_std": "Parameter"}`.
        oracle: A third opinion, NumPy to NumPy in float64, called as the reference is.
        expect_nonfinite: Outputs that may hold values which are not finite, in the same places.
            They take no part in the gradients.
        name: What the report calls it; by default the candidate's name.

    Returns:
        A report; its `assert_ok()` raises if anything parted, with the lines at which the two part
        (`first_divergence`). A candidate that runs eagerly but
        can't be jitted or vmapped has parted.

    Raises:
        UsageError: `inputs` is no mapping or has no floating array; a side does not take its
            inputs by name, lacks one or has one too many; `wrt`, `rename` or `expect_nonfinite`
            names what there is not; a side gives another result each time it is called; a module
            is on the wrong side, or lacks a weight or has one too many.
    """
    functions = {"reference": reference, "candidate": candidate, "oracle": oracle}
    require_callable("oracle", oracle, optional=True)
    ready = prepared(reference, candidate, inputs, wrt=wrt, rename=rename, kinds=kinds)
    given, moving, in_torch, in_jax, returned, outputs, of_module = ready
    if oracle is not None:
        require_accepted("oracle", oracle, [*given.tree])
    require_known("expect_nonfinite", expect_nonfinite, outputs)
    values = cases.Values(in_torch, in_jax, given.arrays, expect_nonfinite=expect_nonfinite)
    comparisons = [
        values.eager(None if oracle is None else given.call(oracle)),
        values.jitted(),
    ]
    judged = {
        leaf: array
        for leaf, array in outputs.items()
        if np.issubdtype(array.dtype, np.floating)
        and leaf not in expect_nonfinite
        and not is_number(returned[leaf])
    }
    notes = [*given.notes, *of_module, *hints.plain_numbers(returned)]
    notes += hints.expect_nonfinite(hints.both_nonfinite(comparisons))
    if judged and moving:
        torch_part, jax_part = cases.only(in_torch, judged), cases.only(in_jax, judged)
        weighted = given.arrays | sides.cotangents(judged)
        found = cases.gradients(torch_part, jax_part, weighted, wrt=moving)
        comparisons += found
        notes += hints.gradients(found, torch_part, weighted, moving)
    comparisons.append(values.vmapped())
    title = name or called(candidate)
    options = {
        "wrt": None if wrt is None else [*wrt],
        "rename": None if rename is None else dict(rename),
        "kinds": dict(kinds) if isinstance(kinds, Mapping) else kinds,
        "expect_nonfinite": [*expect_nonfinite],
    }
    return Report(
        title,
        comparisons,
        notes,
        lambda: repro.script(title, functions, given.tree, options),
        lambda: where.text(ready, candidate),
    )
