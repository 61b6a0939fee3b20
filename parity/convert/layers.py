"""The registry: how the leaves of each kind of layer are called and laid out on both sides."""

import pkgutil
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from parity.convert import recurrent
from parity.convert.leaves import Leaf
from pgcore.errors import UsageError, unknown_choice

Leaves = tuple[Leaf, ...]


class Layer(NamedTuple):
    """What a kind of layer is made of.

    Attributes:
        torch_class: The class of the torch module, or its dotted name, so that torch need not be
            imported; a subclass is of this kind too. Empty if the kind is only ever stated.
        leaves: The only arrays that it may have: Linen's, and NNX's where it calls them alike.
        forms: The same where they are called otherwise: of NNX, of Equinox. Which form it is, the
            names in the Flax tree say; two forms of one kind never have the same names.
        stacked: The torch module holds several such layers, and each tensor's name ends with its
            layer's: `weight_ih_l0` is `weight_ih` of `l0`.
        sized: The leaves, in every form, of a kind with sizes: `Linear[16x5x5]`.
        size: The attribute of the torch module that is its size, if it always has one.
    """

    torch_class: type | str
    leaves: Leaves
    forms: tuple[Leaves, ...] = ()
    stacked: bool = False
    sized: Callable[..., tuple[Leaves, ...]] | None = None
    size: str = ""


WEIGHT = Leaf("weight", "weight")
BIAS = Leaf("bias", "bias", optional=True)
SCALE = Leaf("weight", "scale", optional=True)


def _flattened(channels: int, *image: int) -> tuple[Leaves, ...]:
    """A Linear behind a flattened image: torch has channels first, Flax last, Equinox as torch."""
    space = tuple(range(2, 2 + len(image)))
    kernel = Leaf(
        "weight",
        "kernel",
        (*space, 1, 0),
        sizes=((-1,), (channels, *image)),
        counts=(len(image) + 1, 1),
    )
    return (kernel, BIAS), (WEIGHT, BIAS)


def _conv(dims: int) -> Layer:
    space = tuple(range(2, 2 + dims))
    kernel = Leaf("weight", "kernel", (*space, 1, 0))
    return Layer(f"torch.nn.Conv{dims}d", (kernel, BIAS), ((WEIGHT, _image_bias(dims)),))


def _conv_transpose(dims: int) -> Layer:
    """Torch's is the gradient of a convolution: Flax's default is not, until the kernel is flipped.

    Equinox has [out, in, …].
    """
    space = tuple(range(2, 2 + dims))
    kernel = Leaf("weight", "kernel", (*space, 0, 1), flip=space)
    weight = Leaf("weight", "weight", (1, 0, *space), flip=space)
    return Layer(f"torch.nn.ConvTranspose{dims}d", (kernel, BIAS), ((weight, _image_bias(dims)),))


def _transpose_kernel(dims: int) -> Layer:
    space = tuple(range(2, 2 + dims))
    return Layer("", (Leaf("weight", "kernel", (*space, 1, 0)), BIAS))


def _image_bias(dims: int) -> Leaf:
    """Equinox's bias of a convolution, [out, 1, 1]."""
    return Leaf("bias", "bias", optional=True, counts=(1, *(0,) * dims))


def _norm(name: str) -> Layer:
    return Layer(f"torch.nn.{name}", (SCALE, BIAS), ((WEIGHT._replace(optional=True), BIAS),))


def _batch_norm(dims: int) -> Layer:
    count = Leaf("num_batches_tracked", role="torch's own", optional=True)
    mean, variance = (
        Leaf("running_mean", "mean", optional=True),
        Leaf("running_var", "var", optional=True, positive=True),
    )
    stats = (leaf._replace(collection="batch_stats") for leaf in (mean, variance))
    equinox = (WEIGHT._replace(optional=True), BIAS, mean, variance, count)
    forms = ((SCALE, BIAS, mean, variance, count), equinox)
    return Layer(f"torch.nn.BatchNorm{dims}d", (SCALE, BIAS, *stats, count), forms)


def _attention(heads: int) -> tuple[Leaves, ...]:
    """Queries, keys and values are in one torch tensor; Flax has an axis of heads of its own."""
    flax, equinox = [], []
    for k, name in enumerate(("query", "key", "value")):
        part = (k, 3)
        sizes = ((heads, -1), (-1,))
        flax += [
            Leaf("in_proj_weight", f"{name}/kernel", (2, 0, 1), sizes=sizes, part=part),
            Leaf("in_proj_bias", f"{name}/bias", optional=True, sizes=((heads, -1),), part=part),
        ]
        equinox += [
            Leaf("in_proj_weight", f"{name}_proj/weight", part=part),
            Leaf("in_proj_bias", f"{name}_proj/bias", optional=True, part=part),
        ]
    out = Leaf("out_proj.weight", "out/kernel", (1, 2, 0), sizes=((-1,), (heads, -1)))
    flax += [out, Leaf("out_proj.bias", "out/bias", optional=True)]
    equinox += [
        Leaf("out_proj.weight", "output_proj/weight"),
        Leaf("out_proj.bias", "output_proj/bias", optional=True),
    ]
    return tuple(flax), tuple(equinox)


REGISTRY: dict[str, Layer] = {
    "Linear": Layer(
        "torch.nn.Linear",
        (Leaf("weight", "kernel", (1, 0)), BIAS),
        ((WEIGHT, BIAS),),
        sized=_flattened,
    ),
    **{f"Conv{dims}d": _conv(dims) for dims in (1, 2, 3)},
    **{f"ConvTranspose{dims}d": _conv_transpose(dims) for dims in (1, 2, 3)},
    **{f"ConvTranspose{dims}dTransposeKernel": _transpose_kernel(dims) for dims in (1, 2, 3)},
    "Embedding": Layer("torch.nn.Embedding", (Leaf("weight", "embedding"),), ((WEIGHT,),)),
    "LayerNorm": _norm("LayerNorm"),
    "GroupNorm": _norm("GroupNorm"),
    "RMSNorm": Layer("torch.nn.RMSNorm", (SCALE,), ((WEIGHT,),)),
    **{f"BatchNorm{dims}d": _batch_norm(dims) for dims in (1, 2, 3)},
    "LSTMCell": Layer("torch.nn.LSTMCell", recurrent.LSTM[0], recurrent.LSTM[1:]),
    "GRUCell": Layer("torch.nn.GRUCell", recurrent.GRU[0], recurrent.GRU[1:]),
    "LSTM": Layer("torch.nn.LSTM", recurrent.LSTM[0], recurrent.LSTM[1:], stacked=True),
    "GRU": Layer("torch.nn.GRU", recurrent.GRU[0], recurrent.GRU[1:], stacked=True),
    "MultiheadAttention": Layer(
        "torch.nn.MultiheadAttention", (), sized=_attention, size="num_heads"
    ),
    "Parameter": Layer("torch.nn.Parameter", (Leaf("", ""),)),
}
"""The kinds that are known. Another layer is one entry:

    REGISTRY["Bilinear"] = Layer("torch.nn.Bilinear", (Leaf("weight", "kernel", (1, 2, 0)), BIAS))

`Parameter` is a tensor of its own, laid out alike on both sides (`log_std`): its name is the
layer's, and it is never assumed but stated, `kinds={"log_std": "Parameter"}`. So are
`Linear[16x5x5]`, a Linear behind a flattened image of 16 channels, and
`ConvTranspose2dTransposeKernel`, for Flax's `ConvTranspose(transpose_kernel=True)`.
"""


def find_layer(kind: str, of: str) -> Layer:
    """The entry of a kind; `of` is the layer that is said to be of it, for the error.

    Raises:
        UsageError: There is none, it takes no sizes, or it needs them.
    """
    name, bracket, rest = kind.partition("[")
    if name not in REGISTRY:
        raise unknown_choice(f"kind of {of!r}", kind, REGISTRY)
    layer = REGISTRY[name]
    if not bracket:
        if layer.size:
            raise UsageError(f"kind of {of!r} is {kind!r}, accepted is {kind}[{layer.size}]")
        return layer
    if layer.sized is None or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*\]", rest):
        sized = [name for name, layer in REGISTRY.items() if layer.sized]
        raise UsageError(
            f"kind of {of!r} is {kind!r}, accepted are sizes as in Linear[16x5x5], of "
            f"{', '.join(sized)}"
        )
    sizes = tuple(map(int, rest[:-1].split("x")))
    accepted = 1 if layer.size else None
    if accepted is not None and len(sizes) != accepted:
        raise UsageError(f"kind of {of!r} is {kind!r}, accepted is one size, {layer.size}")
    leaves, *forms = layer.sized(*sizes)
    return layer._replace(leaves=leaves, forms=tuple(forms))


def kind_of(module: Any) -> str | None:
    """The kind whose class is nearest to a torch module's own; None if it is of none.

    Raises:
        UsageError: Two kinds are registered for that class.
    """
    for cls in type(module).__mro__:
        kinds = [kind for kind, layer in REGISTRY.items() if _is_class(cls, layer.torch_class)]
        if len(kinds) > 1:
            raise UsageError(f"{cls.__name__} is registered as {' and as '.join(kinds)}: state one")
        if kinds:
            size = REGISTRY[kinds[0]].size
            return f"{kinds[0]}[{getattr(module, size)}]" if size else kinds[0]
    return None


def _is_class(cls: type, registered: type | str) -> bool:
    if isinstance(registered, str):
        # Only a class of that name is worth an import of what it is registered as.
        if cls.__name__ != registered.rpartition(".")[2]:
            return False
        registered = pkgutil.resolve_name(registered)
    return cls is registered
