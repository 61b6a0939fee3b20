"""Wrong calls: over other axes, of another reduction, with other arguments, or none at all."""

import ast
from collections.abc import Iterator
from itertools import pairwise

from parity.mutation.edits import Change, Code, Edit
from parity.mutation.operators import literal, name_of, shifted

PAIRS = (
    ("mean", "sum"),
    ("max", "min"),
    ("amax", "amin"),
    ("nanmax", "nanmin"),
    ("nanmean", "nansum"),
    ("maximum", "minimum"),
    ("argmax", "argmin"),
    ("std", "var"),
    ("cumsum", "cumprod"),
    ("any", "all"),
    ("softmax", "log_softmax"),
    ("max_pool", "avg_pool"),
    ("max_pool1d", "avg_pool1d"),
    ("max_pool2d", "avg_pool2d"),
    ("floor", "ceil"),
)
SWAPPED = {a: b for one, other in PAIRS for a, b in ((one, other), (other, one))} | {
    "prod": "sum",
    "median": "mean",
    "log1p": "log",
    "expm1": "exp",
}
"""A reduction, and one of the same arguments that is taken for it."""
BUILTIN = {"max", "min", "any", "all"}
"""Of what is called by its bare name, the other one of these is sure to be there."""
AXES = ("axis", "dim", "axes", "dims")
KEEP = ("keepdims", "keepdim")
OVER_AXES = {
    *SWAPPED,
    *("logsumexp", "flip", "squeeze", "unsqueeze", "expand_dims", "concatenate", "cat", "stack"),
    *("argsort", "sort", "cummax", "cummin", "norm", "take"),
}
"""Functions that may take an axis by position: after the array, or first as a method."""
COMMUTATIVE = {"maximum", "minimum", "max", "min", "add", "multiply", "mul", "logaddexp", "equal"}
COMMUTATIVE |= {"logical_and", "logical_or", "allclose", "isclose", "gcd", "hypot", "where"}
COMMUTATIVE |= {"isinstance", "issubclass", "hasattr", "cond", "select"}
"""Order is nothing to them, or is nothing that could run, or is another kind's (`where`)."""
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Pow, ast.MatMult)
"""Operators whose operands may not change places."""
NOT_DROPPED = {
    *("len", "range", "list", "tuple", "dict", "set", "frozenset", "zip", "enumerate", "iter"),
    *("int", "float", "bool", "str", "repr", "bytes", "type", "id", "super", "next", "map", "vars"),
    *("array", "asarray", "tensor", "as_tensor", "from_numpy", "dtype", "cast", "copy", "deepcopy"),
    *("zeros", "ones", "empty", "arange", "eye", "key", "PRNGKey", "manual_seed", "default_rng"),
    *("zeros_like", "ones_like", "empty_like", "jit", "vmap", "grad", "finfo", "iinfo", "no_grad"),
    *("open", "Path", "getattr", "hash", "callable", "input", "iscomplexobj", "result_type"),
}
"""Calls that make something of another sort of what they are given, or the same once more."""
DROPPED_WITH_MORE = {
    *("clip", "clamp", "clip_", "clamp_", "flip", "roll", "softmax", "log_softmax", "where"),
    *("dropout", "leaky_relu", "gelu", "elu", "cumsum", "cumprod", "nan_to_num", "normalize"),
    *("layer_norm", "transpose", "swapaxes", "moveaxis", "permute", "masked_fill", "sort"),
}
"""Calls that are dropped though they have more than one argument: what is left is the first."""
METHODS = DROPPED_WITH_MORE | {
    *("detach", "exp", "log", "relu", "tanh", "sigmoid", "abs", "sqrt", "square", "neg", "float"),
    *("softplus", "sin", "cos", "log1p", "expm1", "round", "floor", "ceil", "sign", "conj", "t"),
}
"""Methods without which the array itself is left."""


def axes(node: ast.AST, code: Code) -> Iterator[Change]:
    """The axis before and after, one axis fewer, none; `keepdims` the other way round."""
    if not isinstance(node, ast.Call):
        return
    for keyword in node.keywords:
        if keyword.arg in AXES:
            yield from _other_axes(keyword.value, code)
            dropped = code.drop_argument(node, keyword)
            yield Change(keyword, f"{code.of(keyword)} is left out", dropped)
        elif keyword.arg in KEEP and isinstance(literal(keyword.value), bool):
            new = str(not literal(keyword.value))
            summary = f"{code.of(keyword)} becomes {new}"
            yield Change(keyword, summary, code.replace(keyword.value, new))
    place = 1 if _is_function_of_module(node) else 0
    if name_of(node) in OVER_AXES and len(node.args) > place:
        yield from _other_axes(node.args[place], code)


def reductions(node: ast.AST, code: Code) -> Iterator[Change]:
    """`sum` for `mean`, `min` for `max`, `var` for `std`, the maximum for `logsumexp`."""
    if not isinstance(node, ast.Call):
        return
    old, function = name_of(node), node.func
    if old in SWAPPED and (isinstance(function, ast.Attribute) or old in BUILTIN):
        owner = f"{code.of(function.value)}." if isinstance(function, ast.Attribute) else ""
        new = SWAPPED[old]
        yield Change(node, f"{old} becomes {new}", code.replace(function, f"{owner}{new}"))
    elif old == "logsumexp" and isinstance(function, ast.Attribute):
        if not _is_function_of_module(node) or code.of(function.value) == "torch":
            edits = code.replace(function, f"{code.of(function.value)}.amax")
            yield Change(node, "logsumexp becomes amax", edits)
        elif node.args:
            rest = code.between(code.end(node.args[0]), code.end(node)).lstrip(", \n")
            edits = code.replace(node, f"{code.atom(node.args[0])}.max({rest}")
            yield Change(node, "logsumexp becomes max", edits)


def arguments(node: ast.AST, code: Code) -> Iterator[Change]:
    """Two neighbours change places: arguments of a call, operands, results, names they go to."""
    if isinstance(node, ast.Call) and name_of(node) not in COMMUTATIVE:
        yield from _exchanged(node.args, code)
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
        yield from _exchanged(node.value.elts, code)
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        if isinstance(node.targets[0], ast.Tuple):
            yield from _exchanged(node.targets[0].elts, code)
    elif (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ORDERED)
        and not _same(node.left, node.right)
    ):
        left, right = _short(code.of(node.left)), _short(code.of(node.right))
        edits = code.swap(node.left, node.right, operands=True)
        yield Change(node, f"{left} and {right} change places", edits)


def calls(node: ast.AST, code: Code) -> Iterator[Change]:
    """What is called is left out, and its argument is left; a statement is left out, or the `with`
    around some.
    """
    if isinstance(node, ast.With | ast.AsyncWith):
        yield from _without(node, code)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        yield Change(node, f"{_short(code.of(node))} is left out", code.replace(node, "pass"))
    if not isinstance(node, ast.Call) or any(isinstance(a, ast.Starred) for a in node.args):
        return
    name, function = name_of(node), node.func
    if isinstance(function, ast.Attribute) and not _is_function_of_module(node):
        if name in METHODS:
            left = code.replace(node, code.atom(function.value))
            yield Change(node, f"{name} is left out", left)
    elif name and name not in NOT_DROPPED and not name[0].isupper() and node.args:
        alone = len(node.args) == 1 and not node.keywords
        over_axis = name in OVER_AXES and name not in SWAPPED
        if alone or name in DROPPED_WITH_MORE or (over_axis and len(node.args) == 1):
            left = code.replace(node, code.atom(node.args[0]))
            yield Change(node, f"{name} is left out", left)


def _without(node: ast.With | ast.AsyncWith, code: Code) -> Iterator[Change]:
    """A `with` loses one of its managers; of the last one an `if True` is left, which indents."""
    last = node.items[-1].optional_vars or node.items[-1].context_expr
    colon = code.end(last) + code.between(code.end(last), code.start(node.body[0])).index(":")
    word = "with" if isinstance(node, ast.With) else "async with"
    for lost in node.items:
        if lost.optional_vars is not None:
            continue  # without the name nothing would run
        rest = [_item(each, code) for each in node.items if each is not lost]
        header = f"{word} {', '.join(rest)}" if rest else "if True"
        edits = (Edit(code.start(node), colon, header),)
        yield Change(node, f"{word} {_short(code.of(lost.context_expr))} is left out", edits)


def _item(item: ast.withitem, code: Code) -> str:
    """A manager of a `with`, and the name that it is given."""
    name = "" if item.optional_vars is None else f" as {code.of(item.optional_vars)}"
    return f"{code.atom(item.context_expr)}{name}"


def keywords(node: ast.AST, code: Code) -> Iterator[Change]:
    """An argument that is given by its name is not, and falls back on its default."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg is not None and keyword.arg not in AXES:
                summary = f"{_short(code.of(keyword))} is left out"
                yield Change(keyword, summary, code.drop_argument(node, keyword))


def _other_axes(node: ast.AST, code: Code) -> Iterator[Change]:
    if isinstance(literal(node), int) and not isinstance(literal(node), bool):
        for by in (1, -1):
            new = shifted(node, code, by)
            yield Change(node, f"axis {code.of(node)} becomes {new}", code.replace(node, new))
    elif isinstance(node, ast.Tuple) and len(node.elts) > 1:
        for lost in node.elts:
            rest = [code.of(each) for each in node.elts if each is not lost]
            new = f"({', '.join(rest)},)"
            yield Change(node, f"axes {code.of(node)} become {new}", code.replace(node, new))


def _exchanged(nodes: list[ast.expr], code: Code) -> Iterator[Change]:
    for left, right in pairwise(nodes):
        starred = isinstance(left, ast.Starred) or isinstance(right, ast.Starred)
        if not starred and not _same(left, right):
            summary = f"{_short(code.of(left))} and {_short(code.of(right))} change places"
            yield Change(left, summary, code.swap(left, right))


def _is_function_of_module(node: ast.Call) -> bool:
    """Whether a call is `f(x)` or `module.f(x)`, rather than `array.f()`: a module has a name that
    is no array's.
    """
    function = node.func
    if not isinstance(function, ast.Attribute):
        return True
    root = function.value
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in MODULES


MODULES = {"np", "numpy", "jnp", "jax", "nn", "lax", "torch", "F", "optax", "jsp", "scipy", "math"}
MODULES |= {"special", "random", "linalg", "onp", "mnp", "eqx", "flax", "functional", "distrax"}
MODULES |= {"rlax", "nnx", "tree", "einops"}


def _same(left: ast.AST, right: ast.AST) -> bool:
    return ast.dump(left) == ast.dump(right)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
