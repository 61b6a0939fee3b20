"""One function of a value in place of another: activations, their variants, transforms of a std."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np

from parity.locate.evidence import Arrays
from parity.locate.signatures.clues import Clues, Found, Pair, Signature, rich
from parity.locate.signatures.names import catalogued
from parity.locate.signatures.relations import (
    each_set,
    is_right,
    is_wrong,
    recomputed,
    telling,
)
from parity.locate.tape import LITERALS

erf = np.vectorize(math.erf, otypes=[np.float64])

Function = Callable[[np.ndarray], np.ndarray]


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x))"""
    return np.logaddexp(x, 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1/(1 + exp(−x))"""
    return np.exp(-softplus(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    """x·Φ(x)"""
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))"""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """x − log Σ exp(x)"""
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """exp(x)/Σ exp(x)"""
    return np.exp(log_softmax(x, axis))


def tanh_log_det(x: np.ndarray) -> np.ndarray:
    """log(1 − tanh²x) = 2(log 2 − x − softplus(−2x))"""
    return 2 * (math.log(2) - x - softplus(-2 * x))


GELU_PARTS: tuple[Function, ...] = (
    gelu_tanh,
    lambda x: 0.044715 * x**3,
    lambda x: x + 0.044715 * x**3,
    lambda x: math.sqrt(2 / math.pi) * (x + 0.044715 * x**3),
    lambda x: np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    lambda x: 1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    lambda x: 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
)
ACTIVATIONS: dict[str, Function] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "exp": np.exp,
    "log": np.log,
    "softplus": softplus,
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "leaky_relu(0.2)": lambda x: np.where(x > 0, x, 0.2 * x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "log_sigmoid": lambda x: -softplus(-x),
    "softmax": softmax,
    "log_softmax": log_softmax,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "square": np.square,
    "exp(x/2)": lambda x: np.exp(x / 2),
    "exp(2x)": lambda x: np.exp(2 * x),
    "exp(-x)": lambda x: np.exp(-x),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "trunc": np.trunc,
}
BENT = ("relu", "elu", "leaky_relu", "leaky_relu(0.2)", "abs")
"""What is a multiple of x on either side of 0: to tell it, x must lie on both."""
ELEMENTWISE = frozenset(
    [
        *("relu", "max", "maximum", "clamp", "tanh", "exp", "log", "sigmoid", "logistic"),
        *("softplus", "log1p", "logaddexp", "gelu", "silu", "elu", "erf", "leaky_relu", "mul"),
        *("abs", "sqrt", "square", "pow", "integer_pow", "expm1", "sign", "neg"),
    ]
)
"""Operations that make one entry of one."""
SAME = {"relu": "max", "maximum": "max", "clamp": "max", "sigmoid": "logistic", "square": "pow"}
SAME |= {"integer_pow": "pow"}
SPREADS = ("square", "sqrt", "exp", "log", "exp(x/2)", "exp(2x)")
ROUNDINGS = ("floor", "ceil", "round", "trunc")
LOGARITHMS = r"log_?(std|var|sigma|scale)"
SHOWN_BY = r"std|\bvar\b|_var|var_|variance|sigma|scale|precision"


def gelu_variant(clues: Clues) -> Found | None:
    """x·Φ(x) against ½·x·(1 + tanh(√(2/π)(x + 0.044715·x³)))."""
    for right, wrong in ((gelu, gelu_tanh), (gelu_tanh, gelu)):
        if recomputed(clues, right, wrong):
            exact = "PyTorch" if right is gelu else "JAX"
            return Found(f"{exact}'s is x·Φ(x), the other's the approximation by tanh", 5)
    for x in clues.arrays:
        exact = [*each_set(gelu, x)]
        for pair in clues.pairs:
            if not (telling(pair) and is_right(pair, exact)):
                continue
            if any(is_wrong(pair, each_set(part, x)) for part in GELU_PARTS):
                return Found("PyTorch's is x·Φ(x), JAX's a term of the approximation", 5)
    return None


def softplus_threshold(clues: Clues) -> Found | None:
    """softplus(x), and x itself beyond 20, against log(1 + exp(x)) everywhere."""
    for threshold in (20.0, *(n[0] for n in clues.numbers if n[0] > 1)):

        def cut(x: np.ndarray, threshold=threshold):
            return np.where(x > threshold, x, softplus(x))

        if recomputed(clues, cut, softplus):
            return Found(f"they differ where x > {threshold:g} alone, where PyTorch's is x", 5)
    return None


def log_det(clues: Clues) -> Found | None:
    """2(log 2 − x − softplus(−2x)) against log(1 − tanh²x + ε), each entry or summed."""
    for summed in (False, True) if clues.support("tanh|log|squash") else ():
        for sign in (1, -1):
            for epsilon in (1e-6, 1e-7, 1e-8, 1e-5, 1e-4, 1e-3, 1e-12):

                def finish(x: np.ndarray, summed=summed, sign=sign):
                    return sign * (x.sum(-1) if summed else x)

                def exact(x: np.ndarray, finish=finish):
                    return finish(tanh_log_det(x))

                def naive(x: np.ndarray, finish=finish, epsilon=epsilon):
                    return finish(np.log(1 - np.tanh(x) ** 2 + epsilon))

                def of_squashed(y: np.ndarray, finish=finish, epsilon=epsilon):
                    return finish(np.log(1 - y**2 + epsilon))

                def of_squashed_exact(y: np.ndarray, finish=finish):
                    return finish(np.log(1 - y**2))

                forms = ((exact, naive), (of_squashed_exact, of_squashed))
                for right, wrong in (*forms, *((w, r) for r, w in forms)):
                    if recomputed(clues, right, wrong, values=clues.arrays):
                        return Found(f"one has {epsilon:g} inside the logarithm, one nothing", 5)
    return None


def transformed_spread(clues: Clues) -> Found | None:
    """One is the other's square, root, exponential or logarithm, and it is a std or var."""
    if not clues.says(SHOWN_BY):
        return None
    spreads = [name for name in SPREADS if name not in ("exp", "log") or clues.says(LOGARITHMS)]
    for pair in _computed(clues):
        found = _one_of_the_other(pair, spreads) or _another_of(clues, pair, spreads)
        if found:
            return Found(found, 8)
    return None


def activation(clues: Clues) -> Found | None:
    """y = f(x) against x, x against f(x), or f(x) against g(x)."""
    names = [name for name in ACTIVATIONS if name not in ROUNDINGS]
    for pair in _computed(clues):
        both = _another_of(clues, pair, names) or _one_of_the_other(pair, names, clues)
        if both:
            return Found(both, 6 if clues.support(r"tanh|relu|sigm|exp|log|soft|elu|sq|pow") else 4)
    return None


def activation_of_a_constant(clues: Clues) -> Found | None:
    """f(x) = 0 and g(x) = log 2 at x = 0 everywhere: what was not fed yet tells an activation.

    PyTorch's operation says which f is, and only one g of those known comes out as JAX's does.
    """
    for pair in clues.pairs:
        name = pair.reference.op.removeprefix("aten.").split(".")[0]
        if name not in ACTIVATIONS or telling(pair) or np.isin(pair.wrong[0], (0, 1, -1)).all():
            continue
        given = [*map(_floats, pair.candidate.operands)]
        for x in map(_floats, pair.reference.operands):
            known = any(len(x) == len(y) and all(map(np.array_equal, x, y)) for y in given)
            if not known or not is_right(pair, each_set(ACTIVATIONS[name], x)):
                continue
            fits = [g for g in ACTIVATIONS if is_wrong(pair, each_set(ACTIVATIONS[g], x))]
            if len(fits) == 1:
                return Found(f"PyTorch's is {name} of x, JAX's {fits[0]} of x", 5)
    return None


def _computed(clues: Clues) -> list[Pair]:
    """What to explain, but for numbers that are written or given: one is any function of others."""
    return [p for p in clues.main if not {p.reference.op, p.candidate.op} & {*LITERALS}]


def another_function(clues: Clues) -> Found | None:
    """Two elementwise functions of one operand: by the operations that made the values."""
    for pair in clues.main if clues.evidence.reference is not None else ():
        right, wrong = (seen.op.split(".")[1 if "." in seen.op else 0] for seen in pair[:2])
        if not ({right, wrong} <= ELEMENTWISE) or SAME.get(right, right) == SAME.get(wrong, wrong):
            continue
        for x, y in product(pair.reference.operands, pair.candidate.operands):
            if x[0].shape == y[0].shape and x[0].ndim and all(map(np.allclose, x, y)):
                return Found(f"PyTorch's is {right} of a value, JAX's {wrong} of the same", 3)
    return None


def rounding_to_integers(clues: Clues) -> Found | None:
    """floor(x) against ceil, round or trunc."""
    for pair in clues.main:
        if found := _another_of(clues, pair, ROUNDINGS) or _one_of_the_other(pair, ROUNDINGS):
            return Found(found, 5)
    return None


def _one_of_the_other(pair: Pair, names, clues: Clues | None = None) -> str:
    if not (rich(pair.right) and rich(pair.wrong)):
        return ""
    fits = []
    for name in names:
        function = ACTIVATIONS[name]
        bent = name in BENT
        if _may(bent, pair.wrong) and is_right(pair, each_set(function, pair.wrong)):
            fits.append((name, f"PyTorch's is {name} of JAX's", pair.reference))
        if _may(bent, pair.right) and is_wrong(pair, each_set(function, pair.right)):
            fits.append((name, f"JAX's is {name} of PyTorch's", pair.candidate))
    if not fits:
        return ""
    # log and exp undo each other: what is named in the operation is what was done.
    named = [text for name, text, seen in fits if name.split("(")[0] in f"{seen.op} {seen.code}"]
    return (named or [text for _, text, _ in fits])[0]


def _floats(values: Arrays) -> Arrays:
    return tuple(np.asarray(a, np.float64) for a in values)


def _may(bent: bool, x: Arrays) -> bool:
    """Whether x can tell a function: one with a bend at 0 needs it on both sides of 0."""
    return not bent or (any((a > 0).any() for a in x) and any((a < 0).any() for a in x))


def _another_of(clues: Clues, pair: Pair, names) -> str:
    for x in clues.values if telling(pair) else ():
        kept = [name for name in names if _may(name in BENT, x)]
        made = {name: [*each_set(ACTIVATIONS[name], x)] for name in kept}
        made = {name: y for name, y in made.items() if not all(map(np.array_equal, y, x))}
        right = [name for name in made if is_right(pair, made[name])]
        wrong = [name for name in made if is_wrong(pair, made[name])]
        if right and wrong and not {*right} & {*wrong}:
            return f"PyTorch's is {right[0]} of x, JAX's {wrong[0]} of x"
    return ""


SIGNATURES = (
    catalogued("E01", gelu_variant),
    catalogued("E02", softplus_threshold),
    catalogued("C05", log_det),
    Signature(
        "R12",
        "std, variance and their logarithms are taken for one another",
        "pass the same: std = exp(log_std) = sqrt(var) = exp(log_var / 2)",
        transformed_spread,
    ),
    Signature(
        "R11",
        "another activation or elementwise function, or one left out",
        "apply the same function on both sides",
        activation,
    ),
    Signature(
        "R11",
        "another activation or elementwise function, or one left out",
        "apply the same function on both sides",
        another_function,
    ),
    Signature(
        "R11",
        "another activation or elementwise function, or one left out",
        "apply the same function on both sides",
        activation_of_a_constant,
    ),
    Signature(
        "R26",
        "another rounding to whole numbers",
        "torch.floor <-> jnp.floor, torch.round <-> jnp.round, int() <-> jnp.trunc",
        rounding_to_integers,
    ),
)
