"""The registry: how the leaves of each kind of layer are called and laid out on both sides."""

import pkgutil
from typing import Any, NamedTuple

from pgcore.errors import UsageError, unknown_choice


class Leaf(NamedTuple):
    """One array of a layer, on both sides.

    `axes[i]` is the torch axis that becomes Flax axis i; None leaves the array as it is. An
    `optional` leaf may be absent (a bias), on both sides then.
    """

    torch: str
    flax: str
    axes: tuple[int, ...] | None = None
    optional: bool = False


class Layer(NamedTuple):
    """What a kind of layer is made of.

    `torch_class` is the class of the torch module, or its dotted name, so that torch need not be
    imported; a subclass is of this kind too. `leaves` are the only arrays that it may have.
    """

    torch_class: type | str
    leaves: tuple[Leaf, ...]


BIAS = Leaf("bias", "bias", optional=True)

REGISTRY: dict[str, Layer] = {
    "Linear": Layer("torch.nn.Linear", (Leaf("weight", "kernel", (1, 0)), BIAS)),
    "Conv1d": Layer("torch.nn.Conv1d", (Leaf("weight", "kernel", (2, 1, 0)), BIAS)),
    "Conv2d": Layer("torch.nn.Conv2d", (Leaf("weight", "kernel", (2, 3, 1, 0)), BIAS)),
    "Embedding": Layer("torch.nn.Embedding", (Leaf("weight", "embedding"),)),
    "LayerNorm": Layer("torch.nn.LayerNorm", (Leaf("weight", "scale"), BIAS)),
    "GroupNorm": Layer("torch.nn.GroupNorm", (Leaf("weight", "scale"), BIAS)),
    "RMSNorm": Layer("torch.nn.RMSNorm", (Leaf("weight", "scale"),)),
    "Parameter": Layer("torch.nn.Parameter", (Leaf("", ""),)),
}
"""The kinds that are known. Another layer is one entry:

    REGISTRY["Bilinear"] = Layer("torch.nn.Bilinear", (Leaf("weight", "kernel", (1, 2, 0)), BIAS))

`Parameter` is a tensor of its own, laid out alike on both sides (`log_std`): its name is the
layer's, and it is never assumed but stated, `kinds={"log_std": "Parameter"}`.
"""


def find_layer(kind: str, of: str) -> Layer:
    """The entry of a kind; `of` is the layer that is said to be of it, for the error."""
    if kind not in REGISTRY:
        raise unknown_choice(f"kind of {of!r}", kind, REGISTRY)
    return REGISTRY[kind]


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
            return kinds[0]
    return None


def _is_class(cls: type, registered: type | str) -> bool:
    if isinstance(registered, str):
        # Only a class of that name is worth an import of what it is registered as.
        if cls.__name__ != registered.rpartition(".")[2]:
            return False
        registered = pkgutil.resolve_name(registered)
    return cls is registered
