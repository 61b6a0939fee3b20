"""Kinds of operations, as both frameworks name them."""

from typing import Protocol

LAYOUTS = frozenset(
    ["broadcast_in_dim", "reshape", "squeeze", "transpose", "expand_dims", "copy", "copy_p"]
    + ["convert_element_type", "stop_gradient", "scan input", "scan output"]
    + [f"aten.{name}" for name in ("t", "view", "expand", "unsqueeze", "squeeze", "detach")]
    + [f"aten.{name}" for name in ("permute", "transpose", "select", "unbind", "clone")]
    + ["aten._to_copy", "aten.alias", "aten.lift_fresh", "aten.copy_", "read"]
)
"""Operations that only lay out what there is."""
SHAPED = frozenset(
    [f"aten.{name}_like" for name in ("zeros", "ones", "full", "empty", "rand", "randn")]
    + [f"aten.new_{name}" for name in ("zeros", "ones", "full", "empty")]
)
"""Operations that take nothing but a shape from their operand."""
ARRANGING = LAYOUTS | frozenset(
    ["slice", "dynamic_slice", "split", "gather", "rev", "concatenate", "pad", "reduce_precision"]
)
"""Operations that hand on entries of what they are given, at most rounded."""


KINDS = {
    "add": "add add_any",
    "sub": "sub rsub",
    "mul": "mul",
    "div": "div true_divide reciprocal",
    "neg": "neg",
    "abs": "abs",
    "sign": "sign sgn",
    "power": "pow integer_pow square",
    "exp": "exp exp2 expm1",
    "log": "log log1p log2",
    "root": "sqrt rsqrt",
    "where": "where select_n masked_fill",
    "larger": "max maximum clamp clamp_min clip",
    "smaller": "min minimum clamp_max",
    "largest": "reduce_max amax argmax",
    "smallest": "reduce_min amin argmin",
    "sum": "reduce_sum sum mean",
    "product": "reduce_prod prod",
    "any": "reduce_or reduce_and any all",
    "running": "cumsum cumprod cummax cumlogsumexp logcumsumexp",
    "matrix": "dot_general mm bmm addmm baddbmm matmul linear mv dot einsum",
    "convolution": "conv_general_dilated convolution",
    "order": "gt ge lt le",
    "equal": "eq ne",
    "logic": "and or not xor logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not",
    "tanh": "tanh",
    "sigmoid": "logistic sigmoid",
    "erf": "erf",
    "sine": "sin cos",
    "picked": "gather index_select index take take_along_axis dynamic_slice slice",
    "joined": "concatenate cat stack",
    "sorted": "sort argsort topk top_k",
}
"""Operations that are the same on both sides, or close kin: what each kind is called."""
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}


ARITHMETIC = frozenset(["add", "sub", "mul", "div", "neg", "power"])
"""Kinds of operations that a formula is made of, number by number."""


class Made(Protocol):
    """What an operation made."""

    @property
    def op(self) -> str:
        """What that is called."""
        ...


def base_of(value: Made) -> str:
    """An operation without its overload."""
    return ".".join(value.op.split(".")[:2])


def kind_of(value: Made) -> str | None:
    """The kind of operation that made a value, on either side; `None` of those not told apart."""
    return KIND_OF.get(base_of(value).removeprefix("aten.").removesuffix("_"))
