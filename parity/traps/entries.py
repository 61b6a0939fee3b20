"""What an entry of the catalogue is: a function that computes what both sides give.

    @trap("B01", "std and var divide by …", "jnp.std(x, ddof=1), or …")
    def spread(torch, jnp):
        x = np.arange(4.0)
        return pair(
            torch=torch.tensor(x).std(),
            jax=jnp.array(x).std(),
            mended={"jax": jnp.array(x).std(ddof=1)},
        )

Its docstring says why the two differ. A parameter is a module, by the name that people give it: so
an entry imports nothing, and the catalogue can be read where no framework is installed.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from typing import Any, Literal, NamedTuple

Kind = Literal["trap", "warning", "agreement"]
KINDS: Mapping[Kind, str] = {
    "trap": "the two part, and with the remedy they agree",
    "warning": "the two part, and there is no remedy that makes them agree",
    "agreement": "believed to be a trap, or one before a release, and the two agree",
}
MODULES = {
    "torch": "torch",
    "F": "torch.nn.functional",
    "jax": "jax",
    "jnp": "jax.numpy",
    "lax": "jax.lax",
    "checkify": "jax.experimental.checkify",
    "optax": "optax",
    "linen": "flax.linen",
    "pgjax": "pgjax",
}
"""The modules that an entry may ask for."""


class Pair(NamedTuple):
    """What the two sides give, by name, and what those of them give that the remedy changes.

    Attributes:
        sides: Two values: numbers, arrays of NumPy, PyTorch or JAX, texts, or mappings of these.
        mended: The values of the sides that are written otherwise; empty without a remedy to run.
        exact: Whether the two are held to the last bit, since the trap is in the last bits. What
            the remedy makes of them is held to the rule.
    """

    sides: Mapping[str, Any]
    mended: Mapping[str, Any]
    exact: bool


def pair(*, mended: Mapping[str, Any] | None = None, exact: bool = False, **sides: Any) -> Pair:
    """What an entry returns: its two sides by name, mostly `torch` and `jax`; see `Pair`."""
    if len(sides) != 2 or not {*(mended or {})} <= {*sides}:
        raise ValueError(f"an entry has two sides and mends these, not {[*sides]}, {mended}")
    return Pair(sides, mended or {}, exact)


class Source(NamedTuple):
    """The code of an entry: what comes before its two sides, these, and those that are mended."""

    before: str
    sides: Mapping[str, str]
    mended: Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """One difference between PyTorch and JAX, or one that there only seems to be.

    Attributes:
        id: Its number: a letter for its family, two digits.
        title: What it is, in a few words.
        remedy: What to write so that both agree.
        kind: What it claims; `KINDS` says what each is.
        function: What computes both sides.
        x64: Whether JAX has float64 while it does.
        before: The release from which on the two agree, `"jax 0.11"` say; empty if none is known.
    """

    id: str
    title: str
    remedy: str
    kind: Kind
    function: Callable[..., Pair]
    x64: bool = True
    before: str = ""

    def kind_with(self, versions: Mapping[str, str]) -> Kind:
        """What it claims of these releases, by distribution: an agreement once its time is over."""
        name, _, end = self.before.partition(" ")
        over = bool(name) and release(versions[name]) >= release(end)
        return "agreement" if over else self.kind

    @property
    def named(self) -> str:
        """Its title, with the release that ended it."""
        return f"{self.title} (before {self.before})" if self.before else self.title

    @property
    def family(self) -> str:
        """The letter of its family."""
        return self.id[0]

    @property
    def explanation(self) -> str:
        """Why the two differ."""
        return inspect.getdoc(self.function) or ""

    def measure(self) -> Pair:
        """What the sides give here. Whatever they raise is raised; `results.run` sets the scene."""
        names = inspect.signature(self.function).parameters
        return self.function(**{name: import_module(MODULES[name]) for name in names})

    @property
    def place(self) -> str:
        """Its file and line."""
        file = self.function.__module__.replace(".", "/")
        return f"{file}.py:{self.function.__code__.co_firstlineno}"

    @cached_property
    def source(self) -> Source:
        """Its code, in parts."""
        text = textwrap.dedent(inspect.getsource(self.function))
        definition = ast.parse(text).body[0]
        assert isinstance(definition, ast.FunctionDef)
        *before, last = definition.body[1:]
        assert isinstance(last, ast.Return)
        assert isinstance(last.value, ast.Call)

        def code(node: ast.AST) -> str:
            first, newline, rest = (ast.get_source_segment(text, node) or "").partition("\n")
            return first + newline + textwrap.dedent(rest)

        written = text.splitlines()
        lines = written[before[0].lineno - 1 : last.lineno - 1] if before else []
        given = {keyword.arg: keyword.value for keyword in last.value.keywords}
        mended = given.pop("mended", ast.Dict([], []))
        given.pop("exact", None)
        assert isinstance(mended, ast.Dict)
        changed = zip(mended.keys, mended.values, strict=True)
        return Source(
            textwrap.dedent("\n".join(lines)).strip(),
            {str(name): code(value) for name, value in given.items()},
            {ast.literal_eval(name): code(value) for name, value in changed if name},
        )


def _entry(
    kind: Kind, id: str, title: str, remedy: str, *, x64: bool = True, before: str = ""
) -> Callable[[Callable[..., Pair]], Entry]:
    return lambda function: Entry(id, title, remedy, kind, function, x64, before)


trap = partial(_entry, "trap")
"""An entry whose sides part, and agree once its remedy is followed."""
warning = partial(_entry, "warning")
"""An entry whose sides part, and for which no remedy can be run."""
agreement = partial(_entry, "agreement")
"""An entry whose sides are believed to part, and agree."""


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, in order: those of `"2.13.0+cpu"` are (2, 13, 0)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    if numbers is None:
        raise ValueError(f"{version!r} does not begin with the numbers of a release")
    return tuple(int(number) for number in numbers[0].split("."))


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or the text `"raises"`: the two frameworks have other types of errors."""
    try:
        return call()
    except Exception:
        return "raises"
