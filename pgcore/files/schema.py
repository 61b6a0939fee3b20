"""The neutral file schema: safetensors with the article's layer names and torch's layout.

A policy file has, for each layer, `<layer>.weight [out, in]` and `<layer>.bias [out]`, and as
metadata the schema's version, the agent, the environment and a SHA-256 of the whole. Each framework
transposes at its own border, so that either reads what the other wrote.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pgcore.agents import AGENTS, find_agent, layer_shapes
from pgcore.errors import UsageError, require
from pgcore.files.tensors import LARGEST_FILE, read_tensors, to_bytes
from pgcore.files.writing import write_atomically

SCHEMA = "policy-gradient-parity/1"
"""Name and version of the schema, stored in every file."""

DTYPES = ("float32", "float64")
"""What a policy's tensors may be, all of them alike."""

Tensors = dict[str, np.ndarray]
"""Arrays by their neutral name."""


class PolicyFile(NamedTuple):
    """A policy as it is stored."""

    agent: str
    env: str
    tensors: Tensors

    @property
    def layers(self) -> list[str]:
        """Layer names, hidden ones first, in order."""
        heads = find_agent(self.agent).heads
        names = [name.removesuffix(".weight") for name in self.tensors if name.endswith(".weight")]
        linear = sorted(set(names) - set(heads), key=lambda name: int(name.removeprefix("linear")))
        return [*linear, *heads]

    @property
    def obs_dim(self) -> int:
        """Width of the observation."""
        return self.tensors["linear1.weight"].shape[1]

    @property
    def num_actions(self) -> int:
        """Width of the output."""
        return self.tensors[f"{self.layers[-1]}.weight"].shape[0]

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        num_heads = len(find_agent(self.agent).heads) or 1
        return tuple(self.tensors[f"{name}.weight"].shape[0] for name in self.layers[:-num_heads])


def write_policy(path: str | Path, policy: PolicyFile) -> None:
    """Writes a policy file, atomically; the same policy always makes the same bytes.

    It has to be one that `read_policy` would take.
    """
    write_atomically(Path(path), policy_to_bytes(policy))


def policy_to_bytes(policy: PolicyFile) -> bytes:
    """What a policy file holds."""
    metadata = {"schema": SCHEMA, "agent": policy.agent, "env": policy.env}
    return to_bytes(policy.tensors, metadata, seal=True)


def read_policy(path: str | Path) -> PolicyFile:
    """Reads a policy file and checks that it holds just the layers that its agent has.

    Raises:
        UsageError: The file is missing, damaged (by its SHA-256; files of earlier versions have
            none), of another schema, or its tensors are not the agent's: one is missing, left
            over, of another shape or dtype, or not finite.
    """
    where = f"policy file {str(path)!r}"
    known = ("schema", "agent", "env")
    tensors, metadata = read_tensors(Path(path), where, known, LARGEST_FILE)
    require(metadata.get("schema") == SCHEMA, f"schema of {where}", metadata.get("schema"), SCHEMA)
    agent = metadata.get("agent", "")
    require(agent in AGENTS, f"agent of {where}", agent, " or ".join(AGENTS))
    policy = PolicyFile(agent, metadata.get("env", ""), tensors)
    require_policy(policy, where)
    return policy


def require_tensors(tensors: Tensors, shapes: dict[str, tuple[int, ...]], where: str) -> None:
    """Raises a `UsageError` unless `tensors` has just the names and shapes that `shapes` has.

    A shape that would fit if it were transposed is an error like any other.
    """
    for name, shape in shapes.items():
        require(name in tensors, where, sorted(tensors), f"one that has {name!r} {list(shape)} too")
        found = tensors[name].shape
        require(found == shape, f"{name} in {where}", list(found), f"the shape {list(shape)}")
    leftover = sorted(set(tensors) - set(shapes))
    require(not leftover, where, leftover, f"nothing beside {', '.join(shapes)}")


def tensor_shapes(layers: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of linear layers, given as `{layer: (out, in)}`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (out, inputs) in layers.items():
        shapes |= {f"{layer}.weight": (out, inputs), f"{layer}.bias": (out,)}
    return shapes


def require_policy(
    policy: PolicyFile, where: str, hidden_sizes: tuple[int, ...] | None = None
) -> None:
    """Raises a `UsageError` unless it has just its agent's layers, in finite floats of one dtype.

    Args:
        policy: What was read or is to be written.
        where: What to call it.
        hidden_sizes: What its hidden layers must be; None takes any.
    """
    try:
        layers = layer_shapes(policy.agent, policy.obs_dim, policy.num_actions, policy.hidden_sizes)
    except (KeyError, ValueError, IndexError) as error:
        names = sorted(policy.tensors)
        raise UsageError(f"{where} has {names}, which is no {policy.agent} policy") from error
    require_tensors(policy.tensors, tensor_shapes(layers), where)
    dtypes = sorted({str(array.dtype) for array in policy.tensors.values()})
    is_floating = len(dtypes) == 1 and dtypes[0] in DTYPES
    require(is_floating, f"dtype in {where}", " and ".join(dtypes), " or ".join(DTYPES))
    is_fit = hidden_sizes in (None, policy.hidden_sizes)
    require(is_fit, f"hidden_sizes of {where}", policy.hidden_sizes, str(hidden_sizes))
    for name, array in policy.tensors.items():
        finite = np.isfinite(array)
        found = array[~finite].flat[:1].tolist()
        require(not found, f"{name} in {where}", found, "finite numbers alone")
