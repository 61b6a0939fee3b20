"""One attempt of a hostile file: in a process of its own, with its time, its memory, its traces."""

import contextlib
import io
import os
import resource
import signal
import time
import traceback
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pgcore.errors import UsageError

MOST_SECONDS, MOST_MEGABYTES = 1.0, 200.0
PATIENCE = 60
"""Seconds after which an attempt is stopped: it waits for something, or reads without end."""
REFUSED, DONE, BROKE = 2, 0, 3


class Outcome(NamedTuple):
    """What came of an attempt.

    Attributes:
        code: 2 if it was refused, 0 if it was not, 3 if something else was raised; minus a signal.
        seconds: Of the processor: others may be busy on this machine.
        megabytes: The most memory, beyond what the process had when the packages were imported.
        said: What was printed or raised.
    """

    code: int
    seconds: float
    megabytes: float
    said: str

    @property
    def is_frugal(self) -> bool:
        return self.seconds <= MOST_SECONDS and self.megabytes <= MOST_MEGABYTES


def attempt(action: Callable[[], Any], scratch: Path) -> Outcome:
    """Does it in a copy of this process, as it is after its imports, and waits for its end."""
    noted = scratch / "noted"
    before = _megabytes("VmRSS", "self")
    child = os.fork()
    if child == 0:
        code = BROKE
        try:
            code = _in_the_copy(action, noted)
        finally:
            os._exit(code)
    deadline = time.monotonic() + PATIENCE
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    said, _, peak = noted.read_text().rpartition("\n") if noted.exists() else ("", "", "inf")
    noted.unlink(missing_ok=True)
    return Outcome(code, used.ru_utime + used.ru_stime, max(float(peak) - before, 0.0), said)


def _in_the_copy(action: Callable[[], Any], noted: Path) -> int:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result = action()
        code = result if isinstance(result, int) else DONE
    except UsageError as error:
        said.write(str(error))
        code = REFUSED
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else BROKE
    except BaseException:
        said.write(traceback.format_exc())
        code = BROKE
    noted.write_text(f"{said.getvalue()}\n{_megabytes('VmHWM', 'self')}", errors="replace")
    return code


def _megabytes(field: str, process: str) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise LookupError(field)


def steers_the_terminal(text: str) -> bool:
    """Whether text has a character that moves, colours or reorders what a terminal shows."""
    return any(unicodedata.category(each) in ("Cc", "Cf") and each not in "\n\t" for each in text)
