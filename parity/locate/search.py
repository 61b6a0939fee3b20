"""`first_divergence`: both sides run and recorded, then searched, forward before backward."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from parity import sides
from parity.arrays import is_floating, nudge
from parity.locate.backward import Backward
from parity.locate.correspondence import wrong_outputs
from parity.locate.forward import Forward
from parity.locate.jax_slopes import slopes
from parity.locate.jax_tape import JaxRun, record_jax
from parity.locate.matching import Partners
from parity.locate.tape import Tape, joined
from parity.locate.torch_tape import TorchRun, record_torch
from parity.names import Arrays, cotangents
from parity.yardstick import GATE, SLACK, UNIT_ROUNDOFF

NUM_SETS = 3
"""The given inputs, and others near them."""
APART = 2.0**-6
"""How far, relatively, these lie apart: near enough for all to be of the given set's kind."""
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
    partners, sets, jax_runs = _recorded(in_torch, in_jax, arrays)
    if wrong := wrong_outputs(partners, range(len(sets))):
        forward = Forward(partners, jax_runs, wrong)
        return Searched("forward", partners, forward.blame(), forward)
    return _slopes(in_torch, in_jax, sets, wrt) if wrt else None


def _recorded(
    in_torch: Callable[..., Any], in_jax: Callable[..., Any], arrays: Arrays
) -> tuple[Partners, list[dict[str, Any]], list[JaxRun]]:
    """Both tapes, the input sets that they were recorded on, and JAX's runs.

    What moved too far may part on its own account: then less is moved.
    """
    with suppress(Exception):  # what is awake may be out of the range that the callables accept
        partners, sets, runs = _on(in_torch, in_jax, _sets(arrays, awake=True))
        if wrong_outputs(partners, range(len(sets))) == wrong_outputs(partners):
            return partners, sets, runs
    return _on(in_torch, in_jax, _sets(arrays))


def _on(
    in_torch: Callable[..., Any], in_jax: Callable[..., Any], sets: list[dict[str, Any]]
) -> tuple[Partners, list[dict[str, Any]], list[JaxRun]]:
    torch_runs = [record_torch(in_torch, each) for each in sets]
    jax_runs = record_jax(in_jax, sets)
    torch = joined([run.recording for run in torch_runs])
    jax = joined([run.recording for run in jax_runs])
    responses = _responses(in_torch, sets[0], torch, torch_runs[0])
    return Partners(torch, jax, responses), sets, jax_runs


def _sets(arrays: Arrays, *, awake: bool = False) -> list[dict[str, Any]]:
    """The inputs, and others near them, with which values that chance to be equal are told apart.

    What is 0 stays so, and so do flags: arrays of zeros and ones. `awake`: lone numbers move as
    well, a discount of 0, say, which makes much of a computation vanish.
    """
    still = {
        name: ~np.isfinite(array)
        | (array == 0 if array.ndim or not awake else False)
        | (array.ndim > 0 and bool(np.isin(array, (0.0, 1.0)).all()))
        for name, array in arrays.items()
        if is_floating(array)
    }
    draws = (np.random.default_rng(number) for number in range(1, NUM_SETS))
    sets = [dict(arrays), *(nudge(arrays, APART, draw, still) for draw in draws)]
    if awake:
        for number, each in enumerate(sets):
            each |= {k: _awake(x, number) for k, x in arrays.items() if type(x) is float}
    return sets


def _awake(number: float, by: int) -> float:
    """A plain number moved: towards 0, where it is most likely to be accepted, or off it."""
    return number * (1 - by * APART) if number else by * APART


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
    found, compiled, all_seeds = [], {}, []
    for run in jax_runs:
        seeds: dict[int, Any] = {}
        for path, array in outputs.items():
            if (place := run.recording.outputs.get(path)) is not None:
                seed = weights.get(path, np.ones(array.shape))
                seeds[place] = seeds.get(place, 0) + seed
        places = [run.recording.inputs[name] for name in names]
        found.append(slopes(run.program, seeds, places, compiled))
        all_seeds.append(seeds)
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
    backward = Backward(partners, torch_runs, jax_runs, found, share, all_seeds)
    return Searched("backward", partners, backward.blame(), backward)


def _nudged(arrays: Arrays) -> list[dict[str, Any]]:
    """The inputs rounded otherwise. A zero is exact: what meets another at a kink still does."""
    exact = {name: array == 0 for name, array in arrays.items() if is_floating(array)}
    draws = map(np.random.default_rng, range(NUM_RESPONSES))
    return [nudge(arrays, UNIT_ROUNDOFF["float64"], draw, exact) for draw in draws]


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
