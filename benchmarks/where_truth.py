"""Where each wrong variant of `parity.mutants` is wrong: the lines, and the cause.

A variant puts `patch.wrong(right)` in the place of something of ours. Most are made by a host with
one wrong piece, `weighed(package, reduce=lambda x, m: x.sum())`. The lines at fault are those of
the piece and those of the host that use it. They are read off the functions themselves: a piece is
a free variable that is not what the host has by default, or a function that a variant is written
with. A name that is replaced for its users (a constant, a function of a library, a function that
then hands on what it is given) is at fault where they use it.

A piece that computes nothing with arrays (a number is handed on, two values are exchanged) leaves
no trace on its own line. `ENTRIES` names the lines at which its numbers first meet an array, or
those that make what is handed on in the wrong place.
"""

import dis
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypeVar

from benchmarks.results import ROOT
from parity.mutants.variants import Lookalike, Package, Patch, Variant

T = TypeVar("T")
Line = tuple[str, int]
"""A file, relative to the repository where it is in it, and a line."""
MUTANTS = "parity/mutants/"
RIGHT_HELPERS = {"zeroed", "recursion", "_factor", "_picked", "rate_of", "adam"}
"""Functions of `parity.mutants` that pieces are written with and that do the right thing."""
ONE_PIECE = {
    "the middle one of three layers left out": "layers",
    "the last two of three layers in the other order": "layers",
    "no ReLU after the second layer": "is_on",
    "no ReLU after a lone layer": "is_on",
}
"""Of hosts whose pieces have no right default: which one is wrong."""
HANDED_ON = {
    ("normalize_returns", "episode"): "axes",
    ("normalize_returns", "batch"): "axes",
    ("normalize_returns", "none"): "axes",
    ("normalize_returns", "over_padding"): "where",
    ("made", "changes"): "scale",
}
"""By host and piece: the host's variable that has in it what is wrong, before anything is computed
with it."""
AT_ITS_USERS = (
    "padding of observations kept",
    "another scope in an update",
    "no discount in an update",
    "discount of 0.99 whatever is asked for",
)
"""What hands on something else than it is asked to is at fault where it is called."""

_LIMIT = "envs/cartpole.py: truncated = time >= max_steps"
_TOLD = "parity/suite/environment.py: (env.max_steps)}"
_DISCOUNT = "returns.py: + discount * following, 0)"
_STEP = (
    "parity/suite/optimizers.py: adam.step()",
    'optim.py: group["lr"] = self._rate(count)',
    "optim.py: return (step.__wrapped__",
    "train.py: state.opt_state.step()",
)
_UNCLIPPED = (
    "optim.py: updates, opt_state = optax.with_extra_args_support(",
    "optim.py: mu = jax.tree.map(",
    "optim.py: nu = jax.tree.map(",
    "optim.py: return start + weight * (end - start)",  # how mu is made, of the gradient first
)
ENTRIES: dict[str, tuple[str, ...]] = {
    # Numbers.
    "one step fewer": (_LIMIT,),
    "never truncated": (_LIMIT,),
    "500 steps whatever is asked for": (_LIMIT, _TOLD),
    "ends at max_steps and says 500": (_TOLD,),
    "no discount in an update": (_DISCOUNT,),
    "mean return of discounted rewards": (_DISCOUNT,),
    "discount of 0.99 whatever is asked for": (_DISCOUNT,),
    "another scope in an update": ("returns.py: largest = jnp.max(",),
    "b1 and b2 exchanged": ("parity/mutants/of_optimizers.py: scale: Any = optax.scale_by_adam(",),
    "no bias correction": ("optim.py: count = jnp.asarray(optax.safe_increment(",),
    "pgjax: schedule asked once, when Adam is made": ("optim.py: step_size = jnp.asarray(rate",),
    "pgtorch: schedule one ahead": _STEP,
    "pgtorch: schedule one behind": _STEP,
    "pgtorch: schedule stands still": _STEP,
    "pgtorch: schedule asked once, when Adam is made": _STEP,
    "ascent for descent, in PyTorch": _STEP,
    "weight decay of 1e-2": _STEP,
    "ε of 1e-6 in PyTorch": _STEP,
    "b2 of 0.99 in PyTorch": _STEP,
    "RAdam": _STEP,
    "AdamW": _STEP,
    # Values that are handed on in the wrong place, or not at all.
    "pgjax: terminated and truncated exchanged": (
        "envs/cartpole.py: return (jnp.abs(x) > X_LIMIT)",
        _LIMIT,
    ),
    "steps not counted": ("envs/cartpole.py: time = state.time + 1",),
    "mean and deviation exchanged": (
        "networks.py: mu = torch.tanh(",
        "networks.py: std = torch.exp(",
    ),
    "swapped heads": ("networks.py: mu = nn.tanh(", "networks.py: logvar = nn.tanh("),
    "never clipped": _UNCLIPPED,
    "clipped after Adam": _UNCLIPPED,
    "stops when the first episode ends": (
        "rollout.py: return (index < num_chunks) & _any_running(",
    ),
}
"""By variant: files, of its package if no other is named, and a text that the line has."""
_CAUSES: dict[str, str] = {
    "A02": "ε inside the root",
    "A04": "weight decay of 1e-2",
    "A09": "no 1e-6 in clipping",
    "B01": "unbiased deviation",
    "C02": "probabilities clamped",
    "C04": "sample not stopped",
    "C06 R14": "(T, B, 1) times (T, B); (T, B, 1) times (T, B), in PyTorch",
    "C10": "last of equal choices; last of equal dimensions",
    "D01": "ReLU's slope at zero is ½",
    "D01 D02": "clamp for ReLU",
    "E03": "log-softmax over time",
    "F01": "observations not rounded",
    "G10": "division by powers of γ",
    # The heads' names, or the operand of each: both say so.
    "A14 R43": "swapped heads",
    "R01 R28": "γ on its own reward; discounted from the episode's start",
    "R28 R05": "γ forgotten; no discount in an update",
    "R28 R01 R05": "γ² for γ",
    "R28 R06": "own reward left out",
    "R28 R10": "rewards to date, not to go",
    "R28": "not reset between episodes; discount of 0.99 whatever is asked for; "
    "mean return of discounted rewards",
    "R02": "an episode's last step not in the mask; observations after the step; "
    "noise of the step before",
    "R02 R35": "schedule one ahead; schedule one behind",
    "R02 R24": "last step of an episode masked; last step left out of the loss",
    "R03": "entropy of the mean policy; log-probability averaged over dimensions; "
    "mean return per step",
    "R03 R08": "summed over episodes; averaged over time; averaged over steps",
    "R04": "noise subtracted; sign of the loss; ascent for descent; ascent for descent, in PyTorch",
    "R04 R37": "Gumbel noise subtracted",
    "R04 R07 R24": "actions exchanged",
    "R05": "deviation not divided by; twice the learning rate",
    # The factor that is left out is an array, 1/σ².
    "R05 R44": "σ not in the exponent",
    "R05 R06": "square not halved",
    "R05 R13": "entropy over padding",
    "R06": "no noise in a Normal; no noise in a choice; actions played again without noise",
    "R06 R12": "log σ² for log σ",
    "R08": "statistics of the batch for the episode's; statistics of the episode for the batch's; "
    "statistics over episodes, not over time; clipped by the largest entry",
    "R08 R09": "stops when the first episode ends",
    "R09": "smallest dimension acts",
    "R10": "samples drawn again; noise in the other order of time",
    "R11": "leaky ReLU for ReLU; softplus for ReLU; no tanh on the heads; sigmoid for tanh; "
    "softplus for exp; GELU for ReLU; no ReLU after the second layer; no ReLU after a lone layer; "
    "density for log-density; probability for its logarithm; logit for log-probability; "
    "p for log p in Gumbel-max; clipped by the squared norm",
    "R12": "log-variance not halved; variance for deviation; "
    "variance for deviation in the sample; divided by the variance",
    "R13": "padding in mean and deviation; padding counted as steps",
    "R13 R24": "padding in the returns; padding in the loss; padding kept; "
    "padding of observations kept",
    "R15": "always scaled to the bound; never clipped; norm after clipping",
    "R16": "first dimension's noise for all; one step's noise for all steps; "
    "one episode's noise for all",
    "R18": "epsilon of 1e-8 on the deviation; ε of 1e-7; ε of 1e-6 in PyTorch",
    "R19": "½ log 2π missing",
    "R20": "no gradient in σ; log-probabilities carry no gradient; "
    "pgtorch: advantages carry gradient",
    "R21 R41": "pgjax: advantages carry gradient",
    "R23": "rewards masked by product; loss masked by product",
    "R24": "no reward for the last step; termination hides truncation; plays on after the end; "
    "stays where it started",
    "R29": "clipped elementwise; clipped by value",
    "R30": "b1 of 0.99; b2 of 0.99; b1 and b2 exchanged; b2 of 0.99 in PyTorch; AdamW",
    "R31": "no bias correction",
    "R31 R35 R02": "count one ahead; count one behind",
    "R32": "entropy in bits",
    "R33": "entropy without its ½",
    "R34": "mean not subtracted",
    # The step limit and the floor are numbers like the others: 10⁶ for 500, and 0 for 1e-5.
    "R42": "never truncated; noise divided by noise; 15 degrees for 12; gravity of 9.81; "
    "push of 9 N; mass plus length for mass times length; "
    "steps of 10 ms; the track ends at 2.5 m; no signal below 1e-3; no signal below 1.11e-5; "
    "a signal from 0.84e-5; 500 steps whatever is asked for; ends at max_steps and says 500",
    "R42 R05": "the pole's whole length; the cart's mass for the total",
    # The velocity after the step stands where the one before it belongs.
    "R43": "velocities first, then positions",
    "R42 R35": "one step fewer",
    "R35": "steps not counted; count not carried on; counted twice",
}
CAUSES = {name: traps.split() for traps, names in _CAUSES.items() for name in names.split("; ")}
"""By variant: the traps that it is, where several mean the same of it. Of the others no trap is."""


class Truth(NamedTuple):
    """Where a variant is wrong.

    Attributes:
        fault: What is wrong.
        entries: Where it first meets an array, if it computes nothing.
    """

    fault: frozenset[Line]
    entries: frozenset[Line]

    def has(self, file: str, line: int, *, within: int = 2, by_entry: bool = True) -> bool:
        """Whether a line is one of these, or as near as that to one."""
        known = self.fault | self.entries if by_entry else self.fault
        return any(file == name and abs(line - number) <= within for name, number in known)


def truth(variant: Variant) -> Truth:
    """The lines of a variant."""
    fault: set[Line] = set()
    for patch in variant.patches:
        wrong = patch.wrong(getattr(patch.owner, patch.name))
        fault |= set(_of_patch(variant.name, patch, wrong))
    entries = {
        (file, number)
        for text in _of_variant(ENTRIES, variant, ())
        for file, number in _lines_with(variant.side, *text.split(": ", 1))
    }
    return Truth(frozenset(fault), frozenset(entries))


def causes(variant: Variant) -> list[str]:
    """The traps that it is; none if the catalogues have nothing of the kind."""
    return _of_variant(CAUSES, variant, [])


def _of_patch(name: str, patch: Patch, wrong: Any) -> Iterator[Line]:
    right = getattr(patch.owner, patch.name)
    if isinstance(wrong, Lookalike):
        replaced = {k: v for k, v in vars(wrong).items() if k != "_module"}
        for attribute, piece in replaced.items():
            yield from _uses_in(patch.owner, patch.name, attribute)
            if _is_ours(piece):
                yield from _of_piece(name, piece, None)
    elif isinstance(wrong, FunctionType):
        yield from _of_piece(name, wrong, right)
        if _is_identity(wrong) or name in AT_ITS_USERS:
            yield from _uses_in(patch.owner, patch.name)
    elif not callable(wrong):
        yield from _uses_in(patch.owner, patch.name)


def _of_piece(name: str, piece: Any, right: Any) -> Iterator[Line]:
    """Its lines; or, of a host, those that use what is wrong, and that."""
    wrong = _wrong_parts(name, piece, right)
    code = piece.__code__
    if not wrong:
        yield from ((relative(code.co_filename), number) for number in _span(code))
        for each in _names(code) - RIGHT_HELPERS:
            helper = piece.__globals__.get(each)
            if _is_ours(helper) and helper is not piece:
                yield from _of_piece(name, helper, right)
    for variable, part in wrong.items():
        handed_on = HANDED_ON.get((code.co_name, variable))
        for each in (variable, *([handed_on] if handed_on else [])):
            yield from ((relative(code.co_filename), number) for number in _loads(code, each))
        if _is_ours(part):
            yield from _of_piece(name, part, right)


def _wrong_parts(name: str, host: FunctionType, right: Any) -> dict[str, Any]:
    """The host's free variables that are not what they are in the right code."""
    cells = zip(host.__code__.co_freevars, host.__closure__ or (), strict=True)
    parts = {variable: cell.cell_contents for variable, cell in cells}
    maker = host.__globals__.get(host.__qualname__.partition(".")[0])
    parameters = inspect.signature(maker).parameters if callable(maker) else {}
    wrong = {}
    for variable, part in parts.items():
        parameter = parameters.get(variable)
        if part is right or isinstance(part, Package | ModuleType):
            continue
        if parameter is not None and parameter.kind is parameter.VAR_KEYWORD:
            is_wrong = bool(part)
        elif parameter is not None and parameter.default is not parameter.empty:
            is_wrong = part is not parameter.default and part != parameter.default
        else:
            is_wrong = _is_ours(part)
        if is_wrong and ONE_PIECE.get(name, variable) == variable:
            wrong[variable] = part
    return wrong


def _is_ours(part: Any) -> bool:
    """Whether it is a function that a variant is written with."""
    return isinstance(part, FunctionType) and relative(part.__code__.co_filename).startswith(
        MUTANTS
    )


def _is_identity(function: FunctionType) -> bool:
    """Whether it returns one of its arguments as it is."""
    kinds = [step.opname for step in dis.get_instructions(function) if step.opname != "RESUME"]
    return len(kinds) == 2 and kinds[0].startswith("LOAD_FAST") and kinds[1] == "RETURN_VALUE"


def _span(code: CodeType) -> range:
    """All lines of a function."""
    lines = [number for each in _codes(code) for _, _, number in each.co_lines() if number]
    return range(min(lines), max(lines) + 1)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _names(code: CodeType) -> set[str]:
    return {name for each in _codes(code) for name in each.co_names}


def _loads(code: CodeType, variable: str) -> Iterator[int]:
    """Lines on which a variable of a function is used."""
    for each in _codes(code):
        for step in dis.get_instructions(each):
            loaded = step.argval if isinstance(step.argval, tuple) else (step.argval,)
            is_load = step.opname.startswith(("LOAD_DEREF", "LOAD_FAST")) and variable in loaded
            if is_load and step.positions and step.positions.lineno:
                yield step.positions.lineno


def _uses_in(owner: Any, name: str, attribute: str | None = None) -> Iterator[Line]:
    """Lines of the functions of a module, or of a class's, that use a name or `name.attribute`."""
    module = owner if isinstance(owner, ModuleType) else import_module(owner.__module__)
    file = inspect.getsourcefile(module) or ""
    for function in _codes(_compiled(file)):
        if function.co_name == "<module>" or name in function.co_qualname.split("."):
            continue
        steps = [*dis.get_instructions(function)]
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            is_use = step.opname == "LOAD_GLOBAL" and step.argval == name
            if is_use and attribute is not None:
                is_use = following is not None and following.argval == attribute
            if is_use and step.positions and step.positions.lineno:
                yield relative(file), step.positions.lineno


@cache
def _compiled(file: str) -> CodeType:
    return compile(Path(file).read_text(encoding="utf-8"), file, "exec")


def _lines_with(side: str, file: str, text: str) -> Iterator[Line]:
    path = file if file.startswith("parity/") else f"{side}/{file}"
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    found = [(path, number) for number, line in enumerate(lines, start=1) if text in line]
    if not found:
        raise ValueError(f"{path} has no line with {text!r}")
    yield from found


def _of_variant(table: Mapping[str, T], variant: Variant, default: T) -> T:
    """A table's entry for a variant, by its name with or without the side."""
    return table.get(f"{variant.side}: {variant.name}", table.get(variant.name, default))


def relative(file: str) -> str:
    """A path as it is named here."""
    path = Path(file)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()
