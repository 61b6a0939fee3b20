"""Known faults of a conversion: which tensor, or which setting, would make two networks agree."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from parity.convert.pairs import Arrays, Layout

GATES = {"LSTM": "ifgo", "GRU": "rzn"}
"""How torch stacks the gates of its recurrent layers."""
EPSILONS = (1e-6, 1e-5, 1e-3)
"""The defaults of Flax, of torch and of TensorFlow."""


def alterations(weights: Arrays, found: Layout) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The faults of peers, each with the torch tensors that a conversion with it would be right of.

    A tensor transposed or flipped, inputs in another order, two gates exchanged, two tensors of one
    shape, two layers.
    """
    for fault, changed in (
        *_turned(weights),
        *_flipped(weights, found),
        *_reordered(weights, found),
        *_regated(weights, found),
        *_exchanged(weights, found),
    ):
        yield fault, {**weights, **changed}


def transposed(array: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The array with two equal axes exchanged, for each two: no shape can see it."""
    for a, b in combinations(range(array.ndim), 2):
        if array.shape[a] == array.shape[b] > 1:
            yield (a, b), np.swapaxes(array, a, b)


def _turned(weights: Arrays) -> Iterator[tuple[str, Arrays]]:
    for name, array in weights.items():
        for axes, turned in transposed(array):
            yield f"axes {axes} of {name} exchanged", {name: turned}
    matrices = {name: array for name, array in weights.items() if array.ndim == 2}
    square = {name: m.T for name, m in matrices.items() if m.shape[0] == m.shape[1]}
    if len(square) > 1:
        yield "every square matrix transposed", square


def _flipped(weights: Arrays, found: Layout) -> Iterator[tuple[str, Arrays]]:
    """Of a convolution: Flax's `ConvTranspose` flips where it is told to, torch's always does."""
    kinds = {pair.torch: pair.kind for pair in found.pairs}
    for name, array in weights.items():
        if not kinds.get(name, "").startswith("Conv") or array.ndim < 3:
            continue
        flipped = np.flip(array, tuple(range(2, array.ndim)))
        yield f"the kernel {name} flipped", {name: flipped}
        if array.shape[0] == array.shape[1]:
            turned = np.swapaxes(flipped, 0, 1)
            yield f"the kernel {name} flipped and its axes (0, 1) exchanged", {name: turned}


def _reordered(weights: Arrays, found: Layout) -> Iterator[tuple[str, Arrays]]:
    """Of a Linear behind a flattened image: Flax has the channels last, if the map says nothing."""
    channels = {n for array in weights.values() if array.ndim > 2 for n in array.shape[:2]}
    for pair in found.pairs:
        if pair.kind != "Linear" or pair.leaf.torch != "weight":
            continue
        outputs, inputs = weights[pair.torch].shape
        for number in sorted(n for n in channels if 1 < n < inputs and inputs % n == 0):
            rest = inputs // number
            image = weights[pair.torch].reshape(outputs, number, rest)
            order = image.swapaxes(1, 2).reshape(outputs, inputs)
            fault = (
                f"the inputs of {pair.torch} in the order of an image of {number} channels, which "
                f"Flax has last (kinds={{{pair.layer!r}: 'Linear[{number}x{rest}]'}} says so)"
            )
            yield fault, {pair.torch: order}


def _regated(weights: Arrays, found: Layout) -> Iterator[tuple[str, Arrays]]:
    for layer, tensors in _layers(found).items():
        kind = next(pair.kind for pair in found.pairs if pair.layer == layer)
        gates = GATES.get(kind.removesuffix("Cell"), "")
        for a, b in combinations(range(len(gates)), 2):
            changed = {}
            for name in tensors.values():
                parts = np.split(weights[name], len(gates))
                parts[a], parts[b] = parts[b], parts[a]
                changed[name] = np.concatenate(parts)
                if weights[name].ndim > 1:
                    yield (
                        f"the gates {gates[a]} and {gates[b]} of {name} exchanged",
                        {name: changed[name]},
                    )
            yield f"the gates {gates[a]} and {gates[b]} of {layer} exchanged", changed


def _exchanged(weights: Arrays, found: Layout) -> Iterator[tuple[str, Arrays]]:
    for a, b in combinations(weights, 2):
        if weights[a].shape == weights[b].shape and found.tied.get(b) != a:
            yield f"{a} and {b} exchanged", {a: weights[b], b: weights[a]}
    layers = _layers(found)
    for a, b in combinations(layers, 2):
        first, second = layers[a], layers[b]
        if len(first) > 1 and _shapes(weights, first) == _shapes(weights, second):
            swap = {first[leaf]: weights[second[leaf]] for leaf in first}
            swap |= {second[leaf]: weights[first[leaf]] for leaf in first}
            yield f"layers {a} and {b} exchanged", swap


def _layers(found: Layout) -> dict[str, dict[str, str]]:
    """The torch tensors of each layer, by their names in it."""
    layers: dict[str, dict[str, str]] = {}
    for pair in found.pairs:
        if pair.leaf.role != "torch's own":
            layers.setdefault(pair.layer, {})[pair.leaf.torch] = pair.torch
    return layers


def _shapes(weights: Arrays, leaves: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {leaf: weights[name].shape for leaf, name in leaves.items()}


def settings(module: Any) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """What no weight says, set as Flax may have it: each with what sets it in a torch module."""
    modules = dict(module.named_modules())
    norms = {path: m.eps for path, m in modules.items() if isinstance(_eps(m), float)}
    convs = [path for path, m in modules.items() if _is_padded(m)]
    for epsilon in EPSILONS:
        for paths in _all_and_each([path for path, own in norms.items() if own != epsilon]):
            own = ", ".join(f"{path or 'the module'} (torch: {norms[path]:g})" for path in paths)
            yield f"eps {epsilon:g} in {own}", _setter(paths, eps=epsilon)
    for paths in _all_and_each(convs):
        own = ", ".join(
            f"{path or 'the module'} (torch: {modules[path].padding})" for path in paths
        )
        yield f"padding as Flax's SAME does it in {own}", _padder(paths)


def _eps(module: Any) -> Any:
    return getattr(module, "eps", None)


def _is_padded(module: Any) -> bool:
    import torch

    convs = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    return isinstance(module, convs) and isinstance(module.padding, tuple)


def _all_and_each(paths: list[str]) -> list[list[str]]:
    return [[path] for path in paths] + ([paths] if len(paths) > 1 else [])


def _setter(paths: list[str], **values: Any) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        for path in paths:
            for name, value in values.items():
                setattr(module.get_submodule(path), name, value)

    return change


def _padder(paths: list[str]) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        for path in paths:
            conv = module.get_submodule(path)
            conv.register_forward_pre_hook(_pad_same)
            conv.padding = (0,) * len(conv.kernel_size)

    return change


def _pad_same(conv: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pads as XLA's SAME: outputs are inputs/stride rounded up, an odd zero is at the end."""
    import torch

    sizes = []
    for axis in reversed(range(len(conv.kernel_size))):
        length, stride = inputs[0].shape[2 + axis], conv.stride[axis]
        reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        sizes += [total // 2, total - total // 2]
    return (torch.nn.functional.pad(inputs[0], sizes), *inputs[1:])
