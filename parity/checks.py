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

from parity import cases, repro, sides
from parity.report import Report
from pgcore.errors import UsageError, unknown_choice

COTANGENT_SEED = 0x636F74
"""Not 0: inputs that a person draws with `default_rng(0).normal` would be their own cotangent,
which the Jacobian of a normalisation, say, sends to zero whatever its scale."""


def check(
    reference: Callable[..., Any],
    candidate: Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    wrt: Collection[str] | None = None,
    rename: Mapping[str, str] | None = None,
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
        reference: The PyTorch callable, which sets the yardstick.
        candidate: The JAX callable, which is judged.
        inputs: By parameter name, passed to both by keyword: arrays, trees of them, or plain
            numbers and strings, which are constants. Each call gets copies. Floating arrays are
            rounded to float32 first, so that both precisions start from the same numbers.
        wrt: The inputs to differentiate in, each by name or by path (`"params/linear1.weight"`);
            a name stands for all below it. By default every floating array.
        rename: What the candidate calls an input or an output, by the reference's name or path
            for it, where the two differ. A name that both an input and an output have is the
            input's.
        oracle: A third opinion, NumPy to NumPy in float64, called as the reference is.
        expect_nonfinite: Outputs that may hold values which are not finite, in the same places.
            They take no part in the gradients.
        name: What the report calls it; by default the candidate's name.

    Returns:
        A report; its `assert_ok()` raises if anything parted. A candidate that runs eagerly but
        can't be jitted or vmapped has parted.

    Raises:
        UsageError: `inputs` has no floating array, or `wrt`, `rename` or `expect_nonfinite` names
            what there is not.
    """
    given = _Inputs(inputs, rename or {})
    in_torch, in_jax = given.call(reference), given.call_renamed(candidate)
    values = cases.Values(in_torch, in_jax, given.arrays, expect_nonfinite=expect_nonfinite)
    outputs = values.reference(given.arrays)
    given.require_known(outputs, wrt, expect_nonfinite)
    comparisons = [
        values.eager(None if oracle is None else given.call(oracle)),
        values.jitted(),
    ]
    floating = [
        leaf
        for leaf, array in outputs.items()
        if np.issubdtype(array.dtype, np.floating) and leaf not in expect_nonfinite
    ]
    if floating and (wrt is None or wrt):
        torch_part, jax_part = _only(in_torch, floating), _only(in_jax, floating)
        weighted = given.arrays | _cotangents({leaf: outputs[leaf] for leaf in floating})
        comparisons += cases.gradients(torch_part, jax_part, weighted, wrt=wrt)
    comparisons.append(values.vmapped())
    title = name or getattr(candidate, "__qualname__", type(candidate).__name__)
    functions = {"reference": reference, "candidate": candidate, "oracle": oracle}
    options = {
        "wrt": None if wrt is None else [*wrt],
        "rename": None if rename is None else dict(rename),
        "expect_nonfinite": [*expect_nonfinite],
    }
    return Report(
        title, comparisons, given.notes, lambda: repro.script(title, functions, inputs, options)
    )


class _Inputs:
    """The inputs as arrays by path, and callables that take them as they were given."""

    def __init__(self, inputs: Mapping[str, Any], rename: Mapping[str, str]) -> None:
        self.arrays: dict[str, Any] = {}
        self.notes: list[str] = []
        self._template = dict(inputs)
        self._rename = dict(rename)
        for path, leaf in sides.flat(self._template).items():
            self.arrays[path] = self._leaf(path, leaf)
        if not any(_is_floating(leaf) for leaf in self.arrays.values()):
            raise UsageError(
                f"inputs has {', '.join(self.arrays) or 'nothing'}, accepted is at least one "
                "floating array: its precision is what the two sides compute in"
            )

    def _leaf(self, path: str, leaf: Any) -> Any:
        """A leaf as a NumPy array, in float64 if it is floating, or as the constant that it is."""
        if not hasattr(leaf, "shape"):
            return leaf
        array = np.array(leaf.detach().cpu() if hasattr(leaf, "detach") else leaf)
        if not np.issubdtype(array.dtype, np.floating):
            return array
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float32).astype(np.float64)
        if not np.array_equal(rounded, array, equal_nan=True):
            self.notes.append(f"input {path} was rounded to float32")
        return rounded

    def call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, fed from arrays by path."""
        return lambda **tree: function(**_rebuilt(self._template, sides.flat(tree)))

    def call_renamed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function fed likewise by its own names, with its outputs under the reference's."""
        of_inputs = _prefixes([*self.arrays])
        theirs = {new: old for old, new in self._rename.items() if old not in of_inputs}

        def call(**tree: Any) -> dict[str, Any]:
            outputs = function(**_rebuilt(self._template, sides.flat(tree), self._rename))
            return {_renamed(path, theirs): leaf for path, leaf in sides.flat(outputs).items()}

        return call

    def require_known(
        self,
        outputs: Mapping[str, np.ndarray],
        wrt: Collection[str] | None,
        expect_nonfinite: Collection[str],
    ) -> None:
        """Raises a `UsageError` for a name that is neither an input nor an output."""
        floating = [path for path, leaf in self.arrays.items() if _is_floating(leaf)]
        known = {
            "wrt": _prefixes(floating),
            "rename": _prefixes([*self.arrays, *outputs]),
            "expect_nonfinite": [*outputs],
        }
        given = {"wrt": wrt or (), "rename": self._rename, "expect_nonfinite": expect_nonfinite}
        for field, names in given.items():
            for name in names:
                if name not in known[field]:
                    raise unknown_choice(field, name, known[field])


def _rebuilt(
    tree: Any, leaves: Mapping[str, Any], rename: Mapping[str, str] | None = None, path: str = ""
) -> Any:
    """`tree` with its leaves from `leaves`, by path, and its keys renamed."""

    def inner(key: object) -> str:
        return f"{path}/{key}" if path else str(key)

    def child(key: object, subtree: Any) -> Any:
        return _rebuilt(subtree, leaves, rename, inner(key))

    if isinstance(tree, Mapping):
        names = {key: (rename or {}).get(inner(key), key) for key in tree}
        return {names[key]: child(key, each) for key, each in tree.items()}
    if isinstance(tree, tuple) and (fields := getattr(tree, "_fields", None)):
        return type(tree)(*(child(*pair) for pair in zip(fields, tree, strict=True)))
    if isinstance(tree, tuple | list):
        return type(tree)(child(*pair) for pair in enumerate(tree))
    return None if tree is None else leaves[path]


def _renamed(path: str, names: Mapping[str, str]) -> str:
    """`path` with its longest beginning that has another name replaced by that."""
    parts = path.split("/")
    for end in range(len(parts), 0, -1):
        if (new := names.get("/".join(parts[:end]))) is not None:
            return "/".join([new, *parts[end:]])
    return path


def _prefixes(paths: Collection[str]) -> list[str]:
    """The paths, and everything that they are below."""
    found = {}
    for path in paths:
        parts = path.split("/")
        found |= {"/".join(parts[:end]): None for end in range(1, len(parts) + 1)}
    return list(found)


def _only(function: Callable[..., Any], leaves: list[str]) -> Callable[..., Any]:
    """The function with these of its outputs alone."""

    def call(**tree: Any) -> dict[str, Any]:
        outputs = sides.flat(function(**tree))
        return {leaf: outputs[leaf] for leaf in leaves}

    return call


def _cotangents(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A fixed random weight for each entry of the outputs; none where all are lone scalars."""
    if all(array.ndim == 0 for array in outputs.values()):
        return {}
    rng = np.random.default_rng(COTANGENT_SEED)
    return {
        f"{sides.COTANGENT}{leaf}": rng.normal(size=array.shape) for leaf, array in outputs.items()
    }


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating)
