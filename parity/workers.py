"""Work shared by processes that are started fresh: JAX and fork do not mix."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

from pgcore.errors import require

T = TypeVar("T")


def default_jobs() -> int:
    """As many processes as there are cores to this one, two at most: each loads both frameworks."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(2, available or 1)


class Counted:
    """A line on a terminal that says how many are done and which came last; else nothing."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._number = 0

    def tell(self, name: str) -> None:
        """One more is done."""
        self._number += 1
        self._show(f"{self._number} {self._what}, the last {name}")

    def clear(self) -> None:
        """Takes the line away."""
        self._show("")

    def _show(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text[:100]}", end="", file=sys.stderr, flush=True)


def results(
    function: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    jobs: int,
    *,
    optimise: bool = True,
) -> Iterator[tuple[int, T]]:
    """`function(*task)` of each task with its number, as they are done; the first are begun first.

    Args:
        function: At the top of a module, so that another process can import it.
        tasks: Arguments that can be sent to one.
        jobs: Processes; with one everything is done here.
        optimise: Whether XLA does what takes it long in the processes that are started. For what
            is run a few times only, that time is lost.

    Raises:
        UsageError: There is no such number of processes.
    """
    require(jobs >= 1, "jobs", jobs, "a number of processes from 1")
    if jobs == 1 or len(tasks) < 2:
        for number, task in enumerate(tasks):
            yield number, function(*task)
        return
    context = multiprocessing.get_context("spawn")
    number = min(jobs, len(tasks))
    flags = "" if optimise else xla_flags(QUICK)
    with ProcessPoolExecutor(
        number, mp_context=context, initializer=_prepare, initargs=(flags,)
    ) as pool:
        waiting: dict[Future[T], int] = {
            pool.submit(function, *task): number for number, task in enumerate(tasks)
        }
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def xla_flags(options: Mapping[str, Any]) -> str:
    """Options of XLA as its flags, without those that it does not know, which would end it."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in known(options).items())


def known(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of some options of XLA those that this XLA knows."""
    import jax

    trial, found = jax.jit(lambda x: x).lower(0.0), {}
    for name, value in options.items():
        with suppress(jax.errors.JaxRuntimeError):
            trial.compile(compiler_options={name: value})
            found[name] = value
    return found


QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""For what is run a few times only: compiling gets fast, and the code slow."""


def _prepare(flags: str) -> None:
    """Runs in a new process before anything is imported there."""
    if flags:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
