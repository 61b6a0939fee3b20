"""What the fixture `parity` is, and reports that know whether somebody looked at them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.report import Report
    from parity.tolerance import Mismatch

DROPPED = (
    "the result of a comparison was dropped: call assert_ok() on the report that parity.check "
    "returns, or assert its ok"
)


class Parity:
    """The public names of the package `parity`; the reports that its functions make are recorded.

    Each name is looked up when it is used, so nothing loads that the test does not need.
    """

    def __init__(self, record: Callable[[Report], Report]) -> None:
        self._record = record

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        import parity

        value = getattr(parity, name)
        return self._recorded(value) if isinstance(value, FunctionType) else value

    def __dir__(self) -> list[str]:
        import parity

        return dir(parity)

    def __repr__(self) -> str:
        return "parity"  # Hypothesis prints it as an argument of the test

    def _recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            from parity.report import Report

            result = function(*args, **kwargs)
            return self._record(result) if isinstance(result, Report) else result

        return call


@dataclasses.dataclass
class Look:
    """What became of a report that is not ok; `text` is the report's.

    Attributes:
        read: Anything of it was read.
        judged: Its `ok` or `failures` was: a test may well expect a difference.
        asserted: Its `assert_ok()` raised, which fails the test, or it expects that.
    """

    text: str
    read: bool = False
    judged: bool = False
    asserted: bool = False

    @property
    def complaint(self) -> str:
        """What is wrong with it as its test passes; nothing, if the test knows of the failure."""
        return "" if self.read or self.judged or self.asserted else DROPPED


class Watch:
    """What a report's class is derived from too, to know whether somebody looked.

    To write a page or a program is not to look: neither makes a test fail.
    """

    @property
    def ok(self) -> bool:
        """Whether everything agreed, and anything was compared at all."""
        self.look.judged = True
        return self._report.ok

    @property
    def failures(self) -> list[Mismatch]:
        """All mismatches, those of the first stage first."""
        self.look.judged = True
        return self._report.failures

    def assert_ok(self) -> None:
        """Raises an `AssertionError` with the report's text unless everything agreed."""
        __tracebackhide__ = True  # the test's own line is the one to show
        if not self._report.ok:
            self.look.asserted = True
            raise AssertionError(self.look.text)

    def __str__(self) -> str:
        self.look.read = True
        return str(self._report)

    def summary(self) -> str:
        """The report's text without the lines at which the two part."""
        self.look.read = True
        return self._report.summary()

    def to_json(self) -> str:
        """The report as a JSON object."""
        self.look.read = True
        return self._report.to_json()

    def to_html(self, path: Any) -> None:
        """Writes one plain page."""
        self._report.to_html(path)

    def repro_script(self, path: Any) -> None:
        """Writes a program that repeats the check."""
        self._report.repro_script(path)

    look: Look
    _report: Report


def watched(report: Report) -> Any:
    """The same report, of a class that says in `look` what became of it."""
    same = _watched_class(type(report))._make(report)
    same._report = report
    # The lines at which they part take seconds to find, and Hypothesis fails hundreds of times.
    same.look = Look("" if report.ok else report.summary())
    return same


@functools.cache
def _watched_class(kind: type) -> Any:
    return type(kind.__name__, (Watch, kind), {"__module__": kind.__module__})
