"""What would spoil a comparison on this machine, in this process: looked at before one is made.

What can be measured is measured, in NumPy, in PyTorch and in jitted JAX, rather than read off a
flag: how exact a matrix product is, whether small numbers become zero, whether the compiler
reorders sums. `parity.probes` has the measurements.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Verdict = Literal["ok", "note", "spoils"]


class Finding(NamedTuple):
    """One thing looked at.

    Attributes:
        name: What, such as `"jax matmul float32"`.
        state: How it is here.
        verdict: `"ok"`; `"note"`, worth knowing, and a comparison holds all the same; `"spoils"`,
            right code may be called wrong here, or wrong code right.
        remedy: What to do about it; empty if ok.
    """

    name: str
    state: str
    verdict: Verdict = "ok"
    remedy: str = ""


@dataclass(frozen=True)
class Findings:
    """What `preflight` found.

    Attributes:
        findings: Everything looked at.
        strict: Whether anything that spoils a comparison fails.
    """

    findings: tuple[Finding, ...]
    strict: bool = False

    @property
    def spoiling(self) -> list[Finding]:
        """What would spoil a comparison."""
        return [finding for finding in self.findings if finding.verdict == "spoils"]

    @property
    def ok(self) -> bool:
        """False if strict and something would spoil a comparison."""
        return not (self.strict and self.spoiling)

    def assert_ok(self) -> None:
        """Raises an `AssertionError` with the whole table unless `ok`."""
        if not self.ok:
            raise AssertionError(str(self))

    def to_json(self) -> str:
        """One JSON object: `ok`, `strict` and `findings`, a list of objects."""
        findings = [finding._asdict() for finding in self.findings]
        return json.dumps({"ok": self.ok, "strict": self.strict, "findings": findings})

    def __str__(self) -> str:
        width = max((len(finding.name) for finding in self.findings), default=0)
        lines = []
        for name, state, verdict, remedy in self.findings:
            lines.append(f"{verdict:6}  {name:{width}}  {state}")
            if remedy:
                lines.append(f"{'':6}  {'':{width}}  -> {remedy}")
        number = len(self.spoiling)
        if number == 0:
            return "\n".join([*lines, "nothing here spoils a comparison"])
        noun = "thing spoils" if number == 1 else "things spoil"
        return "\n".join([*lines, f"{number} {noun} a comparison here"])


def preflight(strict: bool = False) -> Findings:
    """Looks at NumPy, PyTorch, JAX and the versions of what is installed.

    Nothing is changed, and nothing has to be installed but NumPy: a framework that is missing is
    a finding. JAX compiles a few small functions, which takes seconds.

    Args:
        strict: Whether the result is not `ok` if anything spoils a comparison.
    """
    from parity import probes

    return Findings(tuple(_all(probes.PROBES)), strict)


def _all(probes: Mapping[str, Callable[[], Iterable[Finding]]]) -> Iterator[Finding]:
    """The findings of each probe. One that fails is a finding too, for nothing is known then."""
    for name, probe in probes.items():
        try:
            yield from probe()
        except ModuleNotFoundError as error:
            remedy = "pip install 'policy-gradient-parity[parity]'; recordings can be compared"
            yield Finding(name, f"{error.name} is not installed", "note", remedy)
        except Exception as error:
            state = f"can't be measured: {type(error).__name__}: {error}".partition("\n")[0]
            yield Finding(name, state, "spoils", "make it work in a script of its own first")


@dataclass(frozen=True)
class Preflight:
    """Look for what would spoil a comparison here: precision, subnormals, threads, versions."""

    strict: bool = False
    """Exit with 1 if anything would spoil a comparison."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        """Prints what was found and returns the exit code: 1 if strict and something spoils."""
        found = preflight(self.strict)
        print(found.to_json() if self.json else found)
        return 0 if found.ok else 1
