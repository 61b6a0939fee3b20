"""What a run's figures depend on beside its configuration: versions, cores, flags."""

import functools
import importlib.metadata
import os
import platform
from typing import Any

REPORTED_PACKAGES = (
    "policy-gradient-parity",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "torch",
    "gymnasium",
    "numpy",
)
REPORTED_FLAGS = ("XLA_FLAGS", "JAX_ENABLE_X64", "JAX_PLATFORMS", "OMP_NUM_THREADS")
UNUSED = {"pgjax": {"torch"}, "pgtorch": {"jax", "jaxlib", "flax", "optax"}}
"""Packages that a framework's runs do not depend on."""


def system(framework: str) -> dict[str, Any]:
    """The framework, the versions, the processor, the cores and the flags, as plain values."""
    return {
        "framework": framework,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": num_cores(),
        "versions": {package: _version(package) for package in REPORTED_PACKAGES},
        "flags": {flag: os.environ.get(flag) for flag in REPORTED_FLAGS},
    }


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what two systems of one framework differ, as `name before → now`."""
    unused = UNUSED.get(str(now.get("framework")), set())
    old, new = _flat(before), _flat(now)
    return [
        f"{name} {old.get(name)} → {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if name not in unused and old.get(name) != new.get(name)
    ]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """The tables inside the table spread out."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def num_cores() -> int | None:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _processor() -> str:
    """The processor's model. XLA compiles for it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
