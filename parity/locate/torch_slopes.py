"""The slopes that flow back through PyTorch's graph, value by value and use by use."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Slopes(NamedTuple):
    """The slopes of the weighted outputs in a value, and what each use of it adds to them."""

    total: np.ndarray
    parts: tuple[np.ndarray, ...] = ()


class FlowingSlopes:
    """What flows through each step of the graph of gradients, by its number."""

    def __init__(self, total: Any) -> None:
        """`total` is the sum whose slopes are asked for."""
        self._outputs: dict[int, list[np.ndarray]] = {}
        self._uses: dict[Any, list[np.ndarray]] = {}
        self._nodes: dict[int, Any] = {}
        self._leaves: dict[int, Any] = {}
        open_, seen = [total.grad_fn], set()
        while open_:
            node = open_.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if hasattr(node, "variable"):
                self._leaves[id(node.variable)] = node
            else:
                self._nodes[node._sequence_nr()] = node
                node.register_hook(self._flowed(node))
            open_ += [each for each, _ in node.next_functions]

    def _flowed(self, node: Any) -> Callable[..., None]:
        def hook(inputs: Any, outputs: Any) -> None:
            found = [each.detach().numpy().copy() for each in outputs if each is not None]
            self._outputs[node._sequence_nr()] = found
            for slope, (child, _) in zip(inputs, node.next_functions, strict=False):
                if slope is not None and child is not None:
                    self._uses.setdefault(child, []).append(slope.detach().numpy().copy())

        return hook

    def of(self, number: int) -> Slopes | None:
        """The slopes of the first value that a step made."""
        found = self._outputs.get(number)
        if not found:
            return None
        return Slopes(found[0], tuple(self._uses.get(self._nodes[number], ())))

    def leaf(self, tensor: Any) -> tuple[np.ndarray, ...]:
        """What each use of an input adds to its slopes."""
        node = self._leaves.get(id(tensor))
        return tuple(self._uses.get(node, ())) if node is not None else ()
