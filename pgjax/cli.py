"""The command `pgjax`: see `pgjax --help`."""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pgcore.cli import run_cli
from pgcore.commands.framework import Framework

_CACHE = "policy-gradient-parity"
"""The folder of compiled programs, in the user's own of caches."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    try:
        return run_cli("pgjax", _load_and_keep, argv)
    finally:
        if (programs := sys.modules.get("pgjax.programs")) is not None:
            programs.keep_in(None)  # who calls this from Python may change functions later


def _load_and_keep() -> Framework:
    import jax

    framework = _load()
    _keep_compiled(jax)
    return framework


def _load() -> Framework:
    import pgjax
    from pgjax import bench

    return Framework(
        pgjax.train,
        pgjax.resume,
        pgjax.train_seeds,
        pgjax.load_policy,
        pgjax.make_act,
        bench.bench_case,
        bench.matmul,
    )


def _keep_compiled(jax: ModuleType) -> None:
    """Keeps what is compiled in a folder of the user's, so that the next run need not compile it.

    JAX's own variables go before: JAX_COMPILATION_CACHE_DIR names another folder, and
    JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
    """
    from pgjax import programs

    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if not jax.config.jax_enable_compilation_cache:
        return
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        given = jax.config.jax_compilation_cache_dir
        if not given or "://" in given:
            return  # a bucket, say: JAX's own programs can be there, ours cannot
        folder = Path(given)
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        # A home may be seen from several kinds of machines.
        kind = hashlib.sha256(programs.machine().encode()).hexdigest()[:12]
        folder = Path(home) / _CACHE / f"jax-{jax.__version__}-{kind}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return  # a home that can't be written to: nothing is kept
    jax.config.update("jax_compilation_cache_dir", str(folder))
    programs.keep_in(folder)
