"""`first_divergence`: both sides run and recorded, then searched, forward before backward."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity import sides
from parity.arrays import nudge
from parity.locate.backward import Backward
from parity.locate.forward import Forward, wrong_outputs
from parity.locate.jax_slopes import slopes
from parity.locate.jax_tape import record_jax
from parity.locate.matching import Partners
from parity.locate.tape import Tape, joined
from parity.locate.torch_tape import TorchRun, record_torch
from parity.names import Arrays, cotangents
from parity.yardstick import GATE, SLACK, UNIT_ROUNDOFF

NUM_RESPONSES = 2
"""Runs of PyTorch whose inputs are rounded otherwise: what rounding is worth to each value."""


class Searched(NamedTuple):
    """What both sides did, and where they part.

    Attributes:
        phase: `"forward"` or `"backward"`.
        partners: The tapes, and what is the same on both.
        blame: What was found.
    """

    phase: str
    partners: Partners
    blame: Any
    search: Any


def search(
    in_torch: Callable[..., Any],
    in_jax: Callable[..., Any],
    arrays: Arrays,
    wrt: Sequence[str],
) -> Searched | None:
    """Where two callables of arrays by path part; `None` if nowhere."""
    sets = sides.input_sets(arrays)
    torch_runs = [record_torch(in_torch, each) for each in sets]
    jax_runs = record_jax(in_jax, sets)
    torch = joined([run.recording for run in torch_runs])
    partners = Partners(
        torch,
        joined([run.recording for run in jax_runs]),
        _responses(in_torch, sets[0], torch, torch_runs[0]),
    )
    if wrong := wrong_outputs(partners):
        forward = Forward(partners, jax_runs, wrong)
        return Searched("forward", partners, forward.blame(), forward)
    return _slopes(in_torch, in_jax, sets, wrt) if wrt else None


def _slopes(
    in_torch: Callable[..., Any],
    in_jax: Callable[..., Any],
    sets: Sequence[Arrays],
    wrt: Sequence[str],
) -> Searched | None:
    """Where the slopes part, of outputs that PyTorch can lead back to the inputs."""
    names = [*wrt]
    first = record_torch(in_torch, sets[0], names)
    if not first.has_graph:
        return None
    entries = first.recording
    outputs = {path: entries.entries[entries.outputs[path]].array for path in first.has_graph}
    weights = {k.removeprefix(sides.COTANGENT): w for k, w in cotangents(outputs).items()}
    torch_runs = [record_torch(in_torch, each, names, weights) for each in sets]
    shaken = [record_torch(in_torch, each, names, weights).gradients for each in _nudged(sets[0])]
    jax_runs = record_jax(in_jax, sets, opaque=True)
    found, compiled = [], {}
    for run in jax_runs:
        seeds: dict[int, Any] = {}
        for path, array in outputs.items():
            if (place := run.recording.outputs.get(path)) is not None:
                seed = weights.get(path, np.ones(array.shape))
                seeds[place] = seeds.get(place, 0) + seed
        places = [run.recording.inputs[name] for name in names]
        found.append(slopes(run.program, seeds, places, compiled))
    share = 0.0
    differ = False
    for name in names:
        right = torch_runs[0].gradients[name]
        scale = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
        moved = max(float(np.abs(each[name] - right).max(initial=0.0)) for each in shaken)
        share = max(share, moved / scale if scale > 0 else 0.0)
        bound = max(GATE * scale, SLACK * moved)
        for run, slope, reference in zip(jax_runs, found, torch_runs, strict=True):
            place = run.recording.inputs[name]
            other = slope.total.get(place, np.zeros(right.shape))
            with np.errstate(invalid="ignore"):
                apart = np.abs(other - reference.gradients[name])
            differ |= not bool((apart <= bound).all())
    if not differ:
        return None
    torch = joined([run.recording for run in torch_runs])
    jax = joined([run.recording for run in jax_runs])
    partners = Partners(torch, jax, _responses(in_torch, sets[0], torch, torch_runs[0]))
    backward = Backward(partners, torch_runs, jax_runs, found, share)
    return Searched("backward", partners, backward.blame(), backward)


def _nudged(arrays: Arrays) -> list[dict[str, Any]]:
    draws = range(NUM_RESPONSES)
    return [
        nudge(arrays, UNIT_ROUNDOFF["float64"], np.random.default_rng(draw), {}) for draw in draws
    ]


def _responses(
    function: Callable[..., Any], arrays: Arrays, tape: Tape, run: TorchRun
) -> list[float]:
    """What rounded inputs are worth to each of PyTorch's values."""
    largest = np.zeros(len(tape.values))
    for moved in _nudged(arrays):
        recording = record_torch(function, moved).recording
        by_key = {entry.key: entry.array for entry in recording.entries}
        for value, place in zip(tape.values, tape.places[0], strict=True):
            entry = run.recording.entries[place]
            other = by_key.get(entry.key)
            if other is None or other.shape != entry.array.shape or other.dtype.kind != "f":
                continue
            with np.errstate(invalid="ignore"):
                apart = np.abs(other - entry.array)
            apart = apart[np.isfinite(apart)]
            largest[value.index] = max(largest[value.index], float(apart.max(initial=0.0)))
    return [*largest]
