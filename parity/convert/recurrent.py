"""The leaves of LSTM and GRU, in each form that JAX has them in.

Torch stacks the gates along the first axis, i, f, g, o and r, z, n, and has two biases:

    LSTM  gate = W_ih x + b_ih + W_hh h + b_hh
    GRU   r, z likewise;  n = tanh(W_in x + b_in + r · (W_hn h + b_hn))

The others have one, the sum, but for the b_hn of Linen's and Equinox's GRU. So torch's b_hh has to
be zeros, but for that gate, or has to be added to b_ih, which no way back undoes.
"""

from typing import Any

from parity.convert.leaves import Leaf

_IN, _STATE, _IN_BIAS, _STATE_BIAS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


def _gates(torch: str, paths: tuple[str, ...], **how: Any) -> tuple[Leaf, ...]:
    """A leaf for each gate of a torch tensor."""
    number = len(paths)
    return tuple(Leaf(torch, path, part=(k, number), **how) for k, path in enumerate(paths))


def _dense(torch: str, paths: tuple[str, ...]) -> tuple[Leaf, ...]:
    return _gates(torch, tuple(f"{path}/kernel" for path in paths), axes=(1, 0))


def _lstm(names: tuple[str, ...]) -> tuple[Leaf, ...]:
    biases = tuple(f"h{gate}/bias" for gate in "ifgo")
    return (
        *_dense(_IN, names),
        *_dense(_STATE, tuple(f"h{gate}" for gate in "ifgo")),
        *_gates(_IN_BIAS, biases, optional=True),
        *_gates(_STATE_BIAS, biases, optional=True, role="added"),
    )


def _whole(
    bias: str, *, axes: tuple[int, int] | None, weights: tuple[str, str]
) -> tuple[Leaf, ...]:
    """Weights with all gates in one, and a bias likewise, without torch's second."""
    return (
        Leaf(_IN, weights[0], axes),
        Leaf(_STATE, weights[1], axes),
        Leaf(_IN_BIAS, bias, optional=True),
    )


_NNX: Any = {"axes": (1, 0), "weights": ("dense_i/kernel", "dense_h/kernel")}
_EQUINOX: Any = {"axes": None, "weights": ("weight_ih", "weight_hh")}


def _added(bias: str) -> Leaf:
    return Leaf(_STATE_BIAS, bias, optional=True, role="added")


def _added_gates(bias: str) -> tuple[Leaf, ...]:
    """The second bias of r and z, added to their parts of the first."""
    return tuple(
        Leaf(_STATE_BIAS, bias, optional=True, part=(k, 3), role="added", into=(k, 3))
        for k in (0, 1)
    )


LSTM = (
    _lstm(("ii", "if", "ig", "io")),  # Linen: LSTMCell, OptimizedLSTMCell
    _lstm(("ii", "if_", "ig", "io")),  # NNX: LSTMCell
    (*_whole("dense_h/bias", **_NNX), _added("dense_h/bias")),  # NNX: OptimizedLSTMCell
    (*_whole("bias", **_EQUINOX), _added("bias")),
)

_LAST = Leaf(_STATE_BIAS, optional=True, part=(2, 3))
GRU = (
    (  # Linen
        *_dense(_IN, ("ir", "iz", "in")),
        *_dense(_STATE, ("hr", "hz", "hn")),
        *_gates(_IN_BIAS, ("ir/bias", "iz/bias", "in/bias"), optional=True),
        *(
            Leaf(_STATE_BIAS, path, optional=True, part=(k, 3), role="added")
            for k, path in enumerate(("ir/bias", "iz/bias"))
        ),
        _LAST._replace(flax="hn/bias"),
    ),
    # NNX, which has no b_hn
    (
        *_whole("dense_i/bias", **_NNX),
        *_added_gates("dense_i/bias"),
        _LAST._replace(role="zero"),
    ),
    (*_whole("bias", **_EQUINOX), *_added_gates("bias"), _LAST._replace(flax="bias_n")),
)
