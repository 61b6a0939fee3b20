"""A command's process: the signals that end it, and the streams that may go away under it.

A run is not lost because nobody listens any more. What can't be printed is left out: progress, the
last sentences (all of it is in the run folder too). A terminal that goes away sends SIGHUP first,
which stops the run as Ctrl-C does; under `nohup` it does not.
"""

import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar

T = TypeVar("T")


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: what a run does on Ctrl-C is right here too."""

    code = 143


class HungUp(KeyboardInterrupt):
    """SIGHUP arrived: the terminal is gone, or the connection to it."""

    code = 129


def stop_code(stop: KeyboardInterrupt) -> int:
    """The exit code of a process that a person, or the system, stopped so."""
    return getattr(stop, "code", 130)


@contextmanager
def listening() -> Iterator[None]:
    """While open, SIGTERM and SIGHUP stop what runs as Ctrl-C does, and save it.

    Those that follow are ignored meanwhile, for a system may send several. A second Ctrl-C is a
    person's, and ends the process at once: what is being saved is then there or not, whole. What
    whoever began the process has had ignored stays so: SIGHUP under `nohup`, Ctrl-C for what a
    shell runs in the background.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _stop)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    say_of_others = sys.unraisablehook
    sys.unraisablehook = lambda ignored: _stops_again(ignored) or say_of_others(ignored)
    try:
        yield
    finally:
        sys.unraisablehook = say_of_others
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) == _interrupt:  # else the process is about to end
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(number: int, _: object) -> None:
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGHUP:
        raise HungUp("hung up")
    raise Terminated("terminated")


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _stops_again(ignored: "sys.UnraisableHookArgs") -> bool:
    """Has a signal come again in a moment if it was that which could not be raised, or says False.

    (In a callback of the garbage collector's, say, out of which nothing is raised.)
    """
    if not isinstance(ignored.exc_value, KeyboardInterrupt):
        return False
    numbers = {Terminated: signal.SIGTERM, HungUp: signal.SIGHUP}
    number = numbers.get(type(ignored.exc_value), signal.SIGINT)
    signal.signal(number, _interrupt if number == signal.SIGINT else _stop)
    main = threading.main_thread().ident
    again = threading.Timer(_MOMENT_S, signal.pthread_kill, [main, number])
    again.daemon = True
    again.start()
    return True


_MOMENT_S = 0.01
"""Until then such a callback is over; if it is not, the signal comes once more."""


def _end_at_once(*_: object) -> None:
    os._exit(stop_code(KeyboardInterrupt()))


def open_standard_streams() -> None:
    """Opens those of the three that are closed, to nowhere.

    Else the next file that is opened, metrics.csv say, would be what a library takes for its
    standard error; and what Python prints to a standard error that is None comes out on the
    standard output.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process runs
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def uncollected(load: Callable[[], T]) -> T:
    """What `load` returns, which imports much.

    That leaves no garbage, and meanwhile Python would look for it again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return load()
    finally:
        if was_enabled:
            gc.enable()


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints a line, on the standard output by default, if there is anybody to read it."""
    Unbroken(sys.stdout if stream is None else stream).write(f"{text}\n")


class Unbroken(io.TextIOBase):
    """A stream that goes on in silence when what it is written to has gone away."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes at once, or nowhere."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed pipe, a dead terminal, a full disk, a closed file
            _silence(self._stream)
        return len(text)

    def flush(self) -> None:
        """Nothing is left to flush."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The file's number, for its size to be asked."""
        return self._stream.fileno()

    @property
    def encoding(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stream's."""
        return self._stream.encoding


def _silence(stream: TextIO) -> None:
    """What is still in the stream's buffer goes nowhere, when Python ends too."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
