"""JAX's primitives in NumPy: a step of a recorded program that is run again a thousand times.

To launch one primitive takes JAX far longer than NumPy, on arrays this small. What is not in the
table stays JAX's own, and so does a primitive whose NumPy form does not come out as JAX's did on
the recorded operands (`parity.locate.reruns`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Function = Callable[..., Any]


def in_numpy(name: str, params: Mapping[str, Any]) -> Function | None:
    """A primitive as a function of NumPy's arrays; `None` if there is none in the table."""
    if name in SIMPLE:
        return SIMPLE[name]
    make = WITH_PARAMETERS.get(name)
    return make(params) if make is not None else None


def _selected(which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if which.dtype == bool:
        return np.where(which, cases[1], cases[0])
    return np.choose(which, cases)


SIMPLE: Mapping[str, Function] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "atan2": np.arctan2,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "clamp": lambda least, x, most: np.minimum(np.maximum(x, least), most),
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "cos": np.cos,
    "div": np.true_divide,
    "eq": np.equal,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "pow": np.power,
    "rem": np.fmod,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": _selected,
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": lambda x: x,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "xor": np.bitwise_xor,
}


def _laid_out(params: Mapping[str, Any]) -> Function:
    shape, axes = params["shape"], params["broadcast_dimensions"]

    def broadcast(x: np.ndarray) -> np.ndarray:
        own = [1] * len(shape)
        for axis, length in zip(axes, x.shape, strict=True):
            own[axis] = length
        return np.broadcast_to(x.reshape(own), shape)

    return broadcast


def _sliced(params: Mapping[str, Any]) -> Function:
    strides = params["strides"] or (1,) * len(params["start_indices"])
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    where = tuple(slice(*each) for each in bounds)
    return lambda x: x[where]


def _from(params: Mapping[str, Any]) -> Function:
    sizes = params["slice_sizes"]
    return lambda x, *starts: x[_window(x.shape, sizes, starts)]


def _written(x: np.ndarray, update: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    written = x.copy()
    written[_window(x.shape, update.shape, starts)] = update
    return written


def _window(shape: Any, sizes: Any, starts: Any) -> tuple[slice, ...]:
    """Where a slice of some sizes begins: as far in as it fits, as JAX clamps it."""
    begins = [
        min(max(int(start), 0), length - size)
        for start, length, size in zip(starts, shape, sizes, strict=True)
    ]
    return tuple(slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True))


def _split(params: Mapping[str, Any]) -> Function:
    ends = np.cumsum(params["sizes"])[:-1]
    return lambda x: np.split(x, ends, axis=params["axis"])


def _dot(params: Mapping[str, Any]) -> Function:
    (contracted, other), (batch, other_batch) = params["dimension_numbers"]
    dtype = params.get("preferred_element_type")

    def dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        free = [i for i in range(x.ndim) if i not in (*contracted, *batch)]
        other_free = [i for i in range(y.ndim) if i not in (*other, *other_batch)]
        shared = tuple(x.shape[i] for i in batch)
        rows, columns = tuple(x.shape[i] for i in free), tuple(y.shape[i] for i in other_free)
        length = int(np.prod([x.shape[i] for i in contracted], dtype=int))
        left = x.transpose(*batch, *free, *contracted)
        right = y.transpose(*other_batch, *other, *other_free)
        left = left.reshape(*shared, int(np.prod(rows, dtype=int)), length)
        right = right.reshape(*shared, length, int(np.prod(columns, dtype=int)))
        made = np.matmul(left, right).reshape(*shared, *rows, *columns)
        return made if dtype is None else made.astype(dtype, copy=False)

    return dot


def _over_axes(function: Function) -> Callable[[Mapping[str, Any]], Function]:
    def make(params: Mapping[str, Any]) -> Function:
        axes = tuple(params["axes"])
        return lambda x: function(x, axis=axes)

    return make


def _where_most(function: Function) -> Callable[[Mapping[str, Any]], Function]:
    def make(params: Mapping[str, Any]) -> Function:
        (axis,) = params["axes"]
        return lambda x: function(x, axis=axis).astype(params["index_dtype"])

    return make


def _running(function: Function) -> Callable[[Mapping[str, Any]], Function]:
    def make(params: Mapping[str, Any]) -> Function:
        axis = params["axis"]
        if params["reverse"]:
            return lambda x: np.flip(function(np.flip(x, axis), axis), axis)
        return lambda x: function(x, axis)

    return make


WITH_PARAMETERS: Mapping[str, Callable[[Mapping[str, Any]], Function]] = {
    "convert_element_type": lambda p: lambda x: x.astype(p["new_dtype"]),
    "integer_pow": lambda p: lambda x: x ** p["y"],
    "broadcast_in_dim": _laid_out,
    "reshape": lambda p: lambda x: x.reshape(p["new_sizes"]),
    "squeeze": lambda p: lambda x: x.squeeze(tuple(p["dimensions"])),
    "expand_dims": lambda p: lambda x: np.expand_dims(x, tuple(p["dimensions"])),
    "transpose": lambda p: lambda x: x.transpose(p["permutation"]),
    "rev": lambda p: lambda x: np.flip(x, tuple(p["dimensions"])),
    "slice": _sliced,
    "dynamic_slice": _from,
    "dynamic_update_slice": lambda p: _written,
    "split": _split,
    "concatenate": lambda p: lambda *x: np.concatenate(x, axis=p["dimension"]),
    "dot_general": _dot,
    "reduce_sum": _over_axes(np.sum),
    "reduce_prod": _over_axes(np.prod),
    "reduce_max": _over_axes(np.max),
    "reduce_min": _over_axes(np.min),
    "reduce_and": _over_axes(np.all),
    "reduce_or": _over_axes(np.any),
    "argmax": _where_most(np.argmax),
    "argmin": _where_most(np.argmin),
    "cumsum": _running(np.cumsum),
    "cumprod": _running(np.cumprod),
    "cummax": _running(np.maximum.accumulate),
}
