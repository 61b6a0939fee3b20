"""What each agent is, said without a framework: its noise law and its layers.

Both agents act by `action = argmax(loc + scale · noise)`:

| agent     | loc                    | scale | noise           | layers on top of the hidden ones |
| --------- | ---------------------- | ----- | --------------- | -------------------------------- |
| reinforce | log-softmax of logits  | 1     | standard Gumbel | one linear layer: the logits     |
| reparam   | mu                     | std   | standard Normal | mu_linear and logvar_linear      |
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from pgcore.errors import unknown_choice

AgentName = Literal["reinforce", "reparam"]


class Agent(NamedTuple):
    """One agent of the article.

    Attributes:
        draw_noise: `(rng, shape) -> array` of the agent's standard noise, float64.
        heads: names of the output layers; empty if the output is just one more `linear` layer.
    """

    draw_noise: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    heads: tuple[str, ...]


AGENTS: dict[str, Agent] = {
    "reinforce": Agent(lambda rng, shape: rng.gumbel(size=shape), ()),
    "reparam": Agent(lambda rng, shape: rng.standard_normal(shape), ("mu_linear", "logvar_linear")),
}


def find_agent(name: str) -> Agent:
    """The agent called `name`; an unknown one is a `UsageError` that offers the closest match."""
    if not isinstance(name, str) or name not in AGENTS:
        raise unknown_choice("agent", name, AGENTS)
    return AGENTS[name]


def layer_shapes(
    agent: str, obs_dim: int, num_actions: int, hidden_sizes: tuple[int, ...]
) -> dict[str, tuple[int, int]]:
    """Layer names with `(out, in)`, in order: `linear1`, `linear2`, …, then the output layers."""
    widths = (obs_dim, *hidden_sizes)
    layers = {f"linear{i}": (width, widths[i - 1]) for i, width in enumerate(hidden_sizes, start=1)}
    heads = find_agent(agent).heads or (f"linear{len(hidden_sizes) + 1}",)
    return layers | dict.fromkeys(heads, (num_actions, widths[-1]))
