"""A time limit on what an environment does, so that one that hangs does not hold a run for ever.

A daemon thread looks, a few times within the shortest limit, whether a call that it saw under way
still is. One that takes too long is interrupted. In the main thread a signal does it, whose handler
raises: that ends a loop, a sleep and a wait for a lock alike. In another thread Python can only
raise at that thread's next instruction: that ends a loop, and no wait.

What neither ends (code in C that looks at no signals, a wait outside of the main thread) is
*stuck*. Then the thread itself does what was registered by `when_stuck`: a run saves its last
finished update, and the command ends the process. Time during which the process was stopped
(Ctrl-Z) does not count.

The signal is SIGURG: nothing else uses it, and one that comes too late is ignored.
"""

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

from pgcore.errors import RunError

TO_END_S = 1.0
"""Seconds that a call has to end in once it is interrupted; then others need not wait for it."""
TO_GIVE_UP_S = 3.0
"""Seconds after which a call that was interrupted is stuck."""
LONGEST_LOOK_S = 1.0
LOOKS_WITHIN_LIMIT = 20


class Overdue(BaseException):
    """Raised inside a call that takes too long. (No `except Exception` there may catch it.)"""


class Caller(Protocol):
    """Who makes a call, and can say what is wrong with it."""

    def late(self) -> RunError:
        """That the call takes too long, and which call it is."""
        ...


class Deadline:
    """A limit on each call that is told of by `begin` and `end`, one call at a time."""

    def __init__(self, seconds: float | None = None) -> None:
        """Limits calls to so many seconds, or to none.

        Made in the main thread, or else what waits in the main thread cannot be interrupted.
        """
        self.seconds = seconds
        self.thread = 0
        self.is_stuck = False
        self._caller: Caller | None = None
        self._calls = 0  # begun and ended: odd while one is under way
        self._seen, self._waited_s, self._last_look = 0, 0.0, time.monotonic()
        if seconds is not None:
            _watch(self)

    def begin(self, caller: Caller) -> None:
        """Says that a call begins. It is cheap: no clock is looked at."""
        self._caller = caller
        self.thread = threading.get_ident()
        self._calls += 1

    def end(self) -> None:
        """Says that it has ended."""
        self._calls += 1

    def is_late_by(self, seconds: float) -> bool:
        """Whether a call is under way that has used up its time, and so many seconds more."""
        is_same_call = self._calls % 2 == 1 and self._calls == self._seen
        limit = self.seconds
        return limit is not None and is_same_call and self._waited_s >= limit + seconds

    def fault(self) -> RunError:
        """What is to be said of the call that is late."""
        assert self._caller is not None
        return self._caller.late()

    def look(self, now: float, longest_s: float) -> None:
        """What the thread does: interrupts a late call, and acts on one that is stuck."""
        elapsed, self._last_look = min(now - self._last_look, longest_s), now
        if self._calls != self._seen:
            self._seen, self._waited_s = self._calls, 0.0
        elif self._calls % 2 == 1:
            self._waited_s += elapsed
        if self.is_late_by(TO_GIVE_UP_S):
            if not self.is_stuck:
                self.is_stuck = True
                _give_up(self.fault())
        elif self.is_late_by(0):
            self._interrupt()

    def _interrupt(self) -> None:
        if self.thread == threading.main_thread().ident:
            signal.pthread_kill(self.thread, signal.SIGURG)
        else:
            thread, error = ctypes.c_ulong(self.thread), ctypes.py_object(Overdue)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)


_deadlines: weakref.WeakSet[Deadline] = weakref.WeakSet()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_actions: list[Callable[[RunError], None]] = []
_is_ending_the_process = False


def late_elsewhere() -> RunError | None:
    """What is to be said of a call in another thread that did not end when it was interrupted."""
    for deadline in tuple(_deadlines):
        if deadline.thread != threading.get_ident() and deadline.is_late_by(TO_END_S):
            return deadline.fault()
    return None


def are_there_any() -> bool:
    """Whether any call is limited at all."""
    return bool(_deadlines)


@contextmanager
def when_stuck(action: Callable[[RunError], None]) -> Iterator[None]:
    """While open, `action(fault)` is called when a call is stuck, by the thread that sees it.

    Of several the last comes first.
    """
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


@contextmanager
def ending_the_process(say: Callable[[RunError], None]) -> Iterator[None]:
    """While open, a call that is stuck ends the process with exit code 1, after `say(fault)`.

    For commands. Code in C that holds Python's lock lets no thread look: for it the process ends
    at twice the limit, and what says where it hangs is Python's own list of the threads.
    """
    global _is_ending_the_process

    def end(fault: RunError) -> None:
        say(fault)
        _exit(1)

    _is_ending_the_process = True
    try:
        with when_stuck(end):
            yield
    finally:
        with _lock:
            _is_ending_the_process = False
            faulthandler.cancel_dump_traceback_later()


def leave(code: int) -> int:
    """Ends the process with `code` if a call that was given up is still under way; else returns it.

    (The interpreter would wait for it at its end.)
    """
    if any(deadline.is_late_by(0) for deadline in tuple(_deadlines)):
        _exit(code)
    return code


def _exit(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _give_up(fault: RunError) -> None:
    if not _is_ending_the_process:
        logging.getLogger("pgcore").error("%s; what can be saved of the run is", fault)
    for action in reversed(tuple(_actions)):
        action(fault)


def _watch(deadline: Deadline) -> None:
    global _thread
    with _lock:
        _deadlines.add(deadline)
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            _listen()
        if _thread is None:
            _thread = threading.Thread(target=_look_on, name="env_timeout", daemon=True)
            _thread.start()


def _look_on() -> None:
    """Looks at all deadlines as long as there are any."""
    global _thread
    while True:
        with _lock:
            deadlines = tuple(_deadlines)
            if not deadlines:
                _thread = None
                return
        shortest = min(deadline.seconds or 0.0 for deadline in deadlines)
        pause = min(shortest / LOOKS_WITHIN_LIMIT, LONGEST_LOOK_S)
        with _lock:  # or this could come after the process has left `ending_the_process`
            if _is_ending_the_process:
                _end_at(2 * shortest + TO_GIVE_UP_S)
        del deadlines  # so that what nobody else has any more ends
        time.sleep(pause)
        _look(time.monotonic(), 2 * pause)


def _look(now: float, longest_s: float) -> None:
    with _lock:
        deadlines = tuple(_deadlines)
    for deadline in deadlines:
        deadline.look(now, longest_s)


def _end_at(seconds: float) -> None:
    """The process ends after so many seconds, unless this is called again before."""
    with suppress(OSError, ValueError, AttributeError, RuntimeError):  # a stream without a file
        faulthandler.dump_traceback_later(seconds, exit=True)


def _listen() -> None:
    """Lets SIGURG raise in a late call, and otherwise do what it did before."""
    before = signal.getsignal(signal.SIGURG)
    if getattr(before, "raises_overdue", False):
        return

    def interrupt(number: int, frame: FrameType | None) -> Any:
        here = threading.get_ident()
        if any(d.thread == here and d.is_late_by(0) for d in tuple(_deadlines)):
            raise Overdue
        return before(number, frame) if callable(before) else None

    interrupt.raises_overdue = True  # pyright: ignore[reportFunctionMemberAccess]
    signal.signal(signal.SIGURG, interrupt)
