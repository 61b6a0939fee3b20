"""What a recording's numbers depend on beside its inputs: versions, the machine, the settings."""

import importlib.metadata
import sys
from typing import Any

from pgcore.runs.system import REPORTED_PACKAGES, system


def surroundings() -> dict[str, Any]:
    """As plain values. A framework that nobody has loaded is not asked."""
    found = system("parity")
    flags = {name: value for name, value in found["flags"].items() if value is not None}
    return {
        "python": found["python"],
        "platform": found["platform"],
        "processor": found["processor"],
        "cores": found["cores"],
        "versions": _versions(),
        "settings": {**flags, **_of_torch(), **_of_jax()},
    }


def _versions() -> dict[str, str]:
    """Of every package that is installed."""
    found = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(filter(None, found), key=str.lower)}


def _of_torch() -> dict[str, str]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return {}
    flushes = (torch.tensor(2.0**-126, dtype=torch.float32, device="cpu") * 0.5).item() == 0
    return {
        "torch default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "torch device": str(torch.get_default_device()),
        "torch matmul precision": torch.get_float32_matmul_precision(),
        "torch subnormals": "taken for zero" if flushes else "kept",
        "torch threads": str(torch.get_num_threads()),
        "torch deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }


def _of_jax() -> dict[str, str]:
    jax: Any = sys.modules.get("jax")
    if jax is None:
        return {}
    names = {
        "jax x64": "jax_enable_x64",
        "jax matmul precision": "jax_default_matmul_precision",
        "jax promotion": "jax_numpy_dtype_promotion",
        "jax jit disabled": "jax_disable_jit",
        "jax threefry partitionable": "jax_threefry_partitionable",
    }
    options = {told: str(getattr(jax.config, name, None)) for told, name in names.items()}
    return {"jax platform": jax.default_backend(), **options}


def told_apart(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """In what two surroundings differ, of what both have: a line for each kind."""
    notes = []
    machine = [
        f"{name} {ours[name]} → {theirs[name]}"
        for name in ("python", "platform", "processor", "cores")
        if ours[name] != theirs[name]
    ]
    before, now = ours["versions"], theirs["versions"]
    changed = [name for name in before if name in now and before[name] != now[name]]
    named = [
        f"{name} {before[name]} → {now[name]}" for name in REPORTED_PACKAGES if name in changed
    ]
    if others := len(changed) - len(named):
        named.append(f"{others} other package{'s' if others > 1 else ''}")
    settings = [
        f"{name} {value} → {theirs['settings'][name]}"
        for name, value in ours["settings"].items()
        if theirs["settings"].get(name, value) != value
    ]
    for kind, differing in (("machines", machine), ("versions", named), ("settings", settings)):
        if differing:
            notes.append(f"{kind} differ: {'; '.join(differing)}")
    return notes
