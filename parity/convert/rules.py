"""Which optax states a torch optimizer's state is, and how their fields are called."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pgcore.errors import require, unknown_choice


class Rule(NamedTuple):
    """What a torch optimizer remembers, in optax's terms.

    `states` are optax's types, each with its fields by torch's keys. `counts` says that torch
    counts the steps, `counted_by` which of the states does, if any.
    """

    states: Mapping[str, Mapping[str, str]]
    counts: bool
    counted_by: str = ""

    @property
    def keys(self) -> list[str]:
        """Torch's keys."""
        return [key for fields in self.states.values() for key in fields]


ADAM = Rule({"ScaleByAdamState": {"exp_avg": "mu", "exp_avg_sq": "nu"}}, True, "ScaleByAdamState")
RMS = {"ScaleByRmsState": {"square_avg": "nu"}}
CENTERED = {"ScaleByRStdDevState": {"square_avg": "nu", "grad_avg": "mu"}}
MOMENTUM = {"TraceState": {"momentum_buffer": "trace"}}


def find_rule(optimizer: Any) -> Rule:
    """The rule of a torch optimizer.

    Raises:
        UsageError: There is none, or its groups are of several kinds.
    """
    import torch

    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        return ADAM
    if isinstance(optimizer, torch.optim.RMSprop):
        states = CENTERED if _one(optimizer, "centered") else RMS
        momentum = _one(optimizer, "momentum") > 0
        return Rule({**states, **MOMENTUM} if momentum else states, counts=True)
    if isinstance(optimizer, torch.optim.SGD):
        if _one(optimizer, "momentum") == 0:
            return Rule({}, counts=False)
        for group in optimizer.param_groups:
            # optax has no dampening: its trace would go on otherwise than the buffer.
            require(group["dampening"] == 0, "dampening", group["dampening"], "0")
        return Rule(MOMENTUM, counts=False)
    accepted = ("Adam", "AdamW", "RMSprop", "SGD")
    raise unknown_choice("the optimizer", type(optimizer).__name__, accepted)


def _one(optimizer: Any, option: str) -> Any:
    values = {group[option] for group in optimizer.param_groups}
    require(len(values) == 1, option, values, "one for all groups, as optax has it")
    return values.pop()
