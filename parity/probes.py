"""What `parity.preflight` looks at. Each probe yields findings; a framework that it needs and that
is missing is its caller's affair.
"""

import os
import shlex
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from parity import sides
from parity.installed import versions
from parity.preflight import Finding

MATMUL_SIZE = 512
"""Large enough for a GPU's matrix units to be used."""
MATMUL_LIMIT = 32
"""An error of |A||B| in units roundoff: 1.5 to 3.2 measured on CPUs, and 512 is the
worst there can be. Factors rounded to TF32's 11 bits make hundreds, to bfloat16 thousands."""
HALF_SMALLEST = {"float32": 2.0**-127, "float64": 2.0**-1023}
"""Half of the smallest normal number."""
ABSORBED = 2.0**25
"""In float32 1 is lost beside it: (1 + c) − c is 0, unless a compiler reorders it."""
ARITHMETIC_FLAGS = ("fast_math", "fast_min_max", "excess_precision", "bf16", "f16", "precision")
"""Parts of the names of XLA's flags that change what is computed."""

# --- NumPy ---------------------------------------------------------------------------------------


def _numpy() -> Iterator[Finding]:
    """NumPy's arithmetic on this thread: the oracle's, and that of every judgement."""
    raising = [name for name, action in np.geterr().items() if action in ("raise", "call")]
    yield _verdict(
        "numpy errors",
        f"raised for {', '.join(raising)}" if raising else "warned of or ignored",
        spoils=bool(raising),
        remedy="np.seterr(all='warn'): an underflow is no fault",
    )
    flushed = [name for name in HALF_SMALLEST if _numpy_flushes(name)]
    yield _verdict(
        "numpy subnormals",
        f"taken for zero in {', '.join(flushed)}" if flushed else "kept",
        spoils=bool(flushed),
        remedy="torch.set_flush_denormal(False); else a library built with -ffast-math has set "
        "it for the process",
    )
    one = np.ones(1)
    to_nearest = (one + 2.0**-54 == 1).all() and (one - 2.0**-55 == 1).all()
    yield _verdict(
        "numpy rounding",
        "to nearest" if to_nearest else "in one direction",
        spoils=not to_nearest,
        remedy="something has set the processor's rounding direction: start a fresh process",
    )
    number = len(sides.rounding_directions())
    yield (
        Finding("rounding directions", f"{number} to try besides to nearest")
        if number
        else (
            Finding(
                "rounding directions",
                "none can be set here",
                "note",
                "where two right programs part by rounding on the way, the bound may be too small; "
                "on Linux and macOS it is measured",
            )
        )
    )


def _numpy_flushes(dtype: str) -> bool:
    half = np.array([2 * HALF_SMALLEST[dtype]], dtype) * np.array([0.5], dtype)
    return not half.view(f"u{half.itemsize}").any()  # comparing might flush too


# --- PyTorch -------------------------------------------------------------------------------------


def _torch() -> Iterator[Finding]:
    """PyTorch's settings and arithmetic."""
    import torch

    default = str(torch.get_default_dtype()).removeprefix("torch.")
    yield _verdict(
        "torch default dtype",
        default,
        spoils=default != "float32",
        remedy="torch.set_default_dtype(torch.float32): what a float32 run makes itself follows it",
    )
    device = str(torch.get_default_device())
    yield _verdict(
        "torch device",
        f"{device}; CUDA {'available' if torch.cuda.is_available() else 'not available'}",
        notable=device != "cpu",
        remedy="torch.set_default_device('cpu'), unless the device is what you compare",
    )
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        yield from _torch_matmuls(device)
        automatic = torch.is_autocast_enabled(device)
        yield _verdict(
            f"torch autocast on {device}",
            "on" if automatic else "off",
            spoils=automatic,
            remedy="leave torch.autocast: it computes in 16 bits",
        )
    on_cuda = torch.cuda.is_available()
    fast, convolutions, state = _tf32()
    yield _verdict(
        "torch TF32",
        state if on_cuda else f"{state}; no GPU",
        spoils=fast and on_cuda,
        notable=fast or (convolutions and on_cuda),
        remedy="torch.set_float32_matmul_precision('highest'); "
        "torch.backends.cudnn.allow_tf32 = False for convolutions",
    )
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield _verdict(
        "torch determinism",
        "deterministic algorithms only" if deterministic else "any algorithm",
        notable=on_cuda and not deterministic,
        remedy="torch.use_deterministic_algorithms(True): on a GPU sums may differ between runs",
    )
    smallest = torch.tensor([2.0**-126], dtype=torch.float32, device="cpu")
    flushes = (smallest * 0.5).view(torch.int32).item() == 0
    yield _verdict(
        "torch subnormals",
        "taken for zero" if flushes else "kept",
        notable=flushes,
        remedy="torch.set_flush_denormal(False); the sides set it themselves while they run",
    )
    number = torch.get_num_threads()
    yield _verdict(
        "torch threads",
        str(number),
        notable=number > 1,
        remedy="OMP_NUM_THREADS=1 repeats sums bit by bit; the sides use one thread themselves",
    )


def _torch_matmuls(device: str) -> Iterator[Finding]:
    import torch

    for dtype in ("float32", "float64"):

        def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            result = torch.tensor(a, device=device) @ torch.tensor(b, device=device)
            return result.double().cpu().numpy()

        yield _matmul(f"torch matmul {dtype} on {device}", product, dtype, _TORCH_MATMUL)


_TORCH_MATMUL = "torch.set_float32_matmul_precision('highest'), and leave torch.autocast"


def _tf32() -> tuple[bool, bool, str]:
    """Whether matrix products and convolutions may round to TF32, and that as a sentence."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer releases deprecate what older ones need
        precision = torch.get_float32_matmul_precision()
        try:
            matmul = torch.backends.cuda.matmul.allow_tf32
            convolutions = torch.backends.cudnn.allow_tf32
        except RuntimeError:  # and can't say it this way once it was set the newer way
            return True, True, f"precision {precision!r}, and newer settings that contradict it"
    state = f"precision {precision!r}, matmul {matmul}, convolutions {convolutions}"
    return bool(precision != "highest" or matmul), convolutions, state


# --- JAX -----------------------------------------------------------------------------------------


def _jax() -> Iterator[Finding]:
    """JAX's settings, and the arithmetic of what it compiles."""
    import jax

    yield Finding("jax platform", f"{jax.default_backend()}, {jax.device_count()} device(s)")
    debugging = [name for name in ("jax_debug_nans", "jax_debug_infs") if _jax_option(name)]
    yield _verdict(
        "jax debugging",
        ", ".join(debugging) or "off",
        spoils=bool(debugging),
        remedy="unset JAX_DEBUG_NANS and JAX_DEBUG_INFS: padding may hold NaN, and that is right",
    )
    yield _verdict(
        "jax jit",
        "disabled" if _jax_option("jax_disable_jit") else "on",
        spoils=bool(_jax_option("jax_disable_jit")),
        remedy="unset JAX_DISABLE_JIT: what is compiled would not be what is compared",
    )
    promotion, rank = (_jax_option(f"jax_numpy_{n}_promotion") for n in ("dtype", "rank"))
    yield _verdict(
        "jax promotion",
        f"dtypes {promotion}, ranks {rank}",
        notable=promotion != "standard",
        remedy="jax.config.update('jax_numpy_dtype_promotion', 'standard'), if mixed dtypes raise",
    )
    with jax.debug_nans(False), jax.debug_infs(False), jax.disable_jit(False):
        yield from _jax_x64()
        yield from _jax_arithmetic()


def _jax_option(name: str) -> Any:
    import jax

    return getattr(jax.config, name, None)


def _jax_x64() -> Iterator[Finding]:
    import jax
    import jax.numpy as jnp

    enabled = bool(_jax_option("jax_enable_x64"))
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(lambda x: x + 2.0**-40)(jnp.array(np.ones(1))))
    works = found.dtype == np.float64 and found[0] == 1 + 2.0**-40
    always = "for the whole process" if enabled else "where jax.enable_x64 asks for it"
    yield _verdict(
        "jax float64",
        always if works else f"{found.dtype} in spite of jax.enable_x64",
        spoils=not works,
        notable=enabled,
        remedy="jax.config.update('jax_enable_x64', False): users of float32 run without it"
        if works
        else "compare on a CPU: JAX_PLATFORMS=cpu",
    )


def _jax_arithmetic() -> Iterator[Finding]:
    import jax
    import jax.numpy as jnp

    precision = _jax_option("jax_default_matmul_precision") or "default"
    for dtype in ("float32", "float64"):

        def product(a: np.ndarray, b: np.ndarray, x64: bool = dtype == "float64") -> np.ndarray:
            with jax.enable_x64(x64):
                return np.asarray(jax.jit(jnp.matmul)(jnp.array(a), jnp.array(b)))

        remedy = "jax.config.update('jax_default_matmul_precision', 'highest')"
        name = f"jax matmul {dtype}"
        yield _matmul(name, product, dtype, remedy, f", precision {precision}")

    with jax.enable_x64(False):
        one, c = jnp.ones(8, jnp.float32), jnp.full(8, ABSORBED, jnp.float32)
        reordered = bool(np.asarray(jax.jit(lambda x, c: (x + c) - c)(one, c)).any())
        nans = jnp.full(8, np.nan, jnp.float32)
        blind = not np.asarray(jax.jit(jnp.isnan)(nans)).all()
        smallest = jnp.full(8, 2.0**-126, jnp.float32)
        half = np.asarray(jax.jit(lambda x: x * 0.5)(smallest))
    faults = ["sums are reordered"] * reordered + ["NaN is not seen"] * blind
    yield _verdict(
        "jax compiled arithmetic",
        ", ".join(faults) or "sums in order, NaN seen",
        spoils=bool(faults),
        remedy="take --xla_cpu_enable_fast_math and its like out of XLA_FLAGS",
    )
    flushes = not half.view(np.uint32).any()
    yield _verdict(
        "jax subnormals",
        "taken for zero" if flushes else "kept",
        notable=flushes,
        remedy="usual on a CPU, and allowed for: the reference's float32 runs flush likewise",
    )


# --- the process, and what is installed ----------------------------------------------------------


def _environment() -> Iterator[Finding]:
    """The variables that change arithmetic or the number of threads."""
    flags = [
        flag
        for flag in shlex.split(os.environ.get("XLA_FLAGS", ""))
        if any(part in flag for part in ARITHMETIC_FLAGS)
        and not flag.lower().endswith(("=false", "=0"))
    ]
    yield _verdict(
        "XLA_FLAGS",
        " ".join(flags) or "none that change arithmetic",
        spoils=bool(flags),
        remedy="take them out of XLA_FLAGS and start again",
    )
    omp = os.environ.get("OMP_NUM_THREADS")
    yield Finding("threads", f"{os.cpu_count()} processors, OMP_NUM_THREADS {omp or 'not set'}")


# --- shared --------------------------------------------------------------------------------------


def _verdict(
    name: str, state: str, *, spoils: bool = False, notable: bool = False, remedy: str
) -> Finding:
    if not (spoils or notable):
        return Finding(name, state)
    return Finding(name, state, "spoils" if spoils else "note", remedy)


def _matmul(
    name: str,
    product: Callable[[np.ndarray, np.ndarray], np.ndarray],
    dtype: str,
    remedy: str,
    flag: str = "",
) -> Finding:
    """How exact a matrix product is: its error as a share of |A||B|, in units roundoff."""
    a, b, exact, scale = _matrices()
    found = product(a.astype(dtype), b.astype(dtype))
    unit = {"float32": 2.0**-24, "float64": 2.0**-53}[dtype]
    error = float((np.abs(found - exact) / scale).max() / unit)
    return _verdict(
        name,
        f"off by {error:.2g} units roundoff{flag}",
        spoils=not error <= MATMUL_LIMIT,
        remedy=remedy,
    )


@cache
def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A, B, A B and |A||B|: whole numbers of 23 bits, which float32 holds and nothing shorter."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-(2**23), 2**23, (MATMUL_SIZE, MATMUL_SIZE)) for _ in range(2))
    return a, b, a @ b, np.abs(a) @ np.abs(b)  # in integers: below 2^55


PROBES: dict[str, Callable[[], Iterator[Finding]]] = {
    "numpy": _numpy,
    "torch": _torch,
    "jax": _jax,
    "environment": _environment,
    "versions": versions,
}
"""All of them by name, in the order in which they are reported."""
