"""Records a PyTorch callable: every operation below autograd, its line, and its slopes.

A tensor is known by its memory, place, shape and strides, since autograd hands on other objects for
the same numbers. What is written in place is read anew: a value of its own, made of all that was
written into its memory.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from parity.locate.places import Mark, own_marks
from parity.locate.tape import NUMBER, Entry, Recording, as_array
from parity.locate.torch_slopes import FlowingSlopes, Slopes
from parity.locate.torch_tensors import identity, is_plain, memory, one_by_one, written_by
from parity.names import Arrays, differentiated, flat, nested
from parity.torch_side import arithmetic

IGNORED = ("_local_scalar_dense", "_is_all_true", "is_nonzero", "equal", "lift_fresh")
"""What looks at a value and makes none, for torch's own checks among others."""

OVERWRITING = frozenset(
    ["copy_", "fill_", "zero_", "uniform_", "normal_", "random_", "bernoulli_", "exponential_"]
)
"""What leaves nothing of what was there before."""
ROWS = ("unbind", "split", "chunk")
UNWRITTEN = frozenset(
    ["empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"]
)
"""What makes room and no numbers. It is given zeros: whatever lay there before, other numbers each
time, would seem to answer to rounding with all of itself, and so be like any other value."""


class TorchRun(NamedTuple):
    """A run, and, if slopes were asked for, those of values and of inputs.

    Attributes:
        recording: The forward values.
        slopes: By place on the tape.
        gradients: By input.
        backward: The values that the backward pass made, with the lines of their forward steps.
        has_graph: The outputs that PyTorch can lead back to the inputs.
    """

    recording: Recording
    slopes: dict[int, Slopes]
    gradients: dict[str, np.ndarray]
    backward: list[Entry]
    has_graph: list[str]


def record_torch(
    function: Callable[..., Any],
    arrays: Arrays,
    wrt: list[str] | None = None,
    cotangents: Mapping[str, np.ndarray] | None = None,
) -> TorchRun:
    """Runs a torch callable of arrays by path; with `wrt` its backward pass too."""
    import torch

    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items()}
    names = differentiated(arrays, wrt) if wrt is not None else []
    for name in names:
        tensors[name].requires_grad_()
    recorder = _Recorder()
    with arithmetic(flush=False):
        inputs = {
            path: recorder.input(path, tensor)
            for path, tensor in tensors.items()
            if isinstance(tensor, torch.Tensor)
        }
        with recorder.recording():
            returned = flat(function(**nested(tensors)))
        outputs = {path: recorder.output(path, leaf) for path, leaf in returned.items()}
        kept = {path: place for path, place in outputs.items() if place is not None}
        recording = Recording(list(recorder.entries), inputs, kept)
        graph = [p for p, leaf in returned.items() if getattr(leaf, "requires_grad", False)]
        if not (names and graph):
            zeros = {name: np.zeros(np.shape(arrays[name])) for name in names}
            return TorchRun(recording, {}, zeros, [], graph)
        total = torch.zeros((), dtype=torch.float64)
        for path in graph:
            leaf = returned[path]
            weight = (cotangents or {}).get(path)
            weight = torch.ones_like(leaf) if weight is None else torch.tensor(weight).to(leaf)
            total = total + (weight * leaf).sum()
        found = FlowingSlopes(total)
        recorder.forward_nodes = {e.node: e for e in recorder.entries if e.node is not None}
        with recorder.recording():
            slopes = torch.autograd.grad(total, [tensors[n] for n in names], allow_unused=True)
        by_place = {
            place: slope
            for place, entry in enumerate(recording.entries)
            if entry.node is not None and (slope := found.of(entry.node)) is not None
        }
        gradients = {
            name: np.zeros(np.shape(arrays[name])) if s is None else s.detach().numpy().copy()
            for name, s in zip(names, slopes, strict=True)
        }
        for name, gradient in gradients.items():
            leaf = found.leaf(tensors[name])
            by_place[inputs[name]] = Slopes(gradient, leaf)
        backward = recorder.entries[len(recording.entries) :]
        return TorchRun(recording, by_place, gradients, backward, graph)


class _Recorder:
    """The tape as it grows."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.forward_nodes: dict[int, Entry] = {}
        self._known: dict[tuple[Any, ...], int] = {}
        self._writes: dict[int, list[int]] = {}
        self._counts: dict[tuple[Any, ...], int] = {}
        self._kept: list[Any] = []  # memory that is freed may be another tensor's next
        self._nodes: set[int] = set()
        self._modules: list[tuple[Any, str]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While open, every operation is recorded."""
        from torch.nn.modules import module as modules
        from torch.utils._python_dispatch import TorchDispatchMode

        recorder = self

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                return recorder.operation(func, args, kwargs or {})

        hooks = [
            modules.register_module_forward_pre_hook(lambda m, _: self._enter(m)),
            modules.register_module_forward_hook(lambda m, i, o: self._leave(m), always_call=True),
        ]
        try:
            with Mode():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def input(self, path: str, tensor: Any) -> int:
        """An input, known from now on."""
        array = tensor.detach().numpy().copy()
        return self._add(tensor, Entry(("input", path, 0), "input", (), array))

    def output(self, path: str, leaf: Any) -> int | None:
        """Where an output is; what no operation made is a value without parents."""
        import torch

        if isinstance(leaf, torch.Tensor):
            return self._place(leaf.detach() if leaf.is_sparse else leaf)
        array = as_array(leaf)
        if array is None:
            return None
        self.entries.append(Entry(("output", path, 0), "output", (), array))
        return len(self.entries) - 1

    def operation(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Runs an operation and records what it made or wrote."""
        import torch
        from torch.utils._pytree import tree_leaves

        name = func.overloadpacket.__name__
        given = tree_leaves((args, kwargs))
        places = {id(x): self._place(x) for x in given if is_plain(x)}
        returned = func(*args, **kwargs)
        if name in UNWRITTEN:
            for tensor in filter(is_plain, tree_leaves(returned)):
                tensor.detach().numpy()[...] = 0
        if name in IGNORED and name != "lift_fresh":
            return returned
        numbers = tuple(float(x) for x in given if type(x) in (int, float))
        marks, node = self._marks()
        plain = self._numbers([x for x in given if type(x) is float], marks)
        written = written_by(func, args, kwargs)
        made = [x for x in tree_leaves(returned) if isinstance(x, torch.Tensor)] or written
        for number, tensor in enumerate(made):
            if not is_plain(tensor):
                continue
            operands = one_by_one(args, number) if name.startswith("_foreach") else given
            if name in OVERWRITING:
                operands = [x for x in operands if x is not tensor]
            parents = [places.get(id(x)) for x in operands]
            if written and name not in OVERWRITING:
                parents.append(self._place(tensor, before=True))
            parents += plain
            # The rows that one operation makes are taken one by one, as by a loop.
            key = self._key(marks, str(func), 0 if name in ROWS else number)
            entry = Entry(
                key,
                str(func),
                tuple(dict.fromkeys(p for p in parents if p is not None)),
                tensor.detach().numpy().copy(),
                numbers,
                marks,
                self._modules[-1][1] if self._modules else "",
                node,
            )
            place = self._add(tensor, entry)
            if written:
                self._writes.setdefault(memory(tensor), []).append(place)
        return returned

    def _numbers(self, given: list[float], marks: tuple[Mark, ...]) -> list[int]:
        """Plain numbers that an operation is given: what Python computed is no tensor."""
        first = len(self.entries)
        for number in given:
            key = self._key(marks, NUMBER, 0)
            self.entries.append(Entry(key, NUMBER, (), np.array(number), (), marks))
        return [*range(first, len(self.entries))]

    def _add(self, tensor: Any, entry: Entry) -> int:
        self.entries.append(entry)
        place = len(self.entries) - 1
        self._known[identity(tensor)] = place
        self._kept.append(tensor)
        return place

    def _place(self, tensor: Any, *, before: bool = False) -> int | None:
        """Where a tensor's present numbers are on the tape."""
        known = self._known.get(identity(tensor))
        if before:
            return known
        writes = self._writes.get(memory(tensor), [])
        since = [place for place in writes if known is None or place > known]
        if known is not None and not since:
            return known
        marks = self.entries[since[-1]].marks if since else ()
        parents = (*((known,) if known is not None else ()), *since)
        key = self._key(marks, "read", 0)
        array = tensor.detach().numpy().copy()
        return self._add(tensor, Entry(key, "read", parents, array, (), marks))

    def _key(self, marks: tuple[Mark, ...], op: str, number: int) -> tuple[Any, ...]:
        module = self._modules[-1][1] if self._modules else ""
        group = (tuple((id(code), offset) for code, offset in marks), module, op, number)
        self._counts[group] = self._counts.get(group, -1) + 1
        return (*group, self._counts[group])

    def _marks(self) -> tuple[tuple[Mark, ...], int | None]:
        """The person's lines, and the step of the graph that this operation is or belongs to."""
        import torch

        running = torch._C._current_autograd_node()
        marks = own_marks(_frames())
        if running is not None:  # backward: the lines of the forward step, unless they are a rule's
            number = running._sequence_nr()
            forward = self.forward_nodes.get(number)
            return (marks or (forward.marks if forward else ())), number
        autograd: Any = torch._C._autograd  # pyright: ignore[reportAttributeAccessIssue]
        number = autograd._get_sequence_nr() - 1
        if not torch.is_grad_enabled() or number < 0 or number in self._nodes:
            return marks, None
        self._nodes.add(number)
        return marks, number

    def _enter(self, module: Any) -> None:
        path = ""
        if self._modules:
            parent, above = self._modules[-1]
            name = next((n for n, each in parent.named_modules() if each is module), "")
            path = f"{above}.{name}" if above and name else name or above
        self._modules.append((module, path))

    def _leave(self, module: Any) -> None:
        if self._modules and self._modules[-1][0] is module:
            self._modules.pop()


def _frames() -> list[Mark]:
    found, frame = [], sys._getframe()
    while frame is not None and frame.f_code.co_filename == __file__:  # what records is no place
        frame = frame.f_back
    while frame is not None:
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return found
