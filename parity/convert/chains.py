"""The states of an optax chain: those that a rule names, wrappers, and nothing left over."""

from collections.abc import Callable, Mapping
from typing import Any

from parity.convert.rules import Rule
from parity.convert.trees import flax_leaves
from pgcore.errors import UsageError, require

Leaf = Any
SCHEDULES = ("ScaleByScheduleState", "WrappedScheduleState")
INJECTED = ("InjectHyperparamsState", "InjectStatefulHyperparamsState")


class Counted:
    """Counts of the same steps, collected by where they are."""

    def __init__(self, given: Mapping[str, int] | None = None) -> None:
        self.found: dict[str, int] = dict(given or {})

    def read(self, where: str, leaf: Leaf) -> None:
        """Notes a count."""
        [value] = flax_leaves(leaf).values()
        self.found[where] = int(value)

    def leaf(self, leaf: Leaf) -> Leaf:
        """Notes the count of a wrapper, and gives it back as it is."""
        self.read(f"count {len(self.found)}", leaf)
        return leaf

    def agreed(self) -> int | None:
        """The count, None if there is none.

        Raises:
            UsageError: Two differ.
        """
        if len(set(self.found.values())) > 1:
            counts = ", ".join(f"{where} {count}" for where, count in self.found.items())
            raise UsageError(f"the number of steps is {counts}, accepted is one for all")
        return next(iter(self.found.values()), None)


def replace_states(
    opt_state: Any,
    rule: Rule,
    replaced: Callable[[str, Any], Any],
    counted: Callable[[Leaf], Leaf],
    *,
    schedules: bool,
) -> Any:
    """The optax state with the states that the rule names replaced, nothing else left over.

    Args:
        opt_state: The state.
        rule: Which states are replaced.
        replaced: Makes the new state of its type's name and the old one.
        counted: Makes the new count of steps of an old one, for wrappers and schedules.
        schedules: Whether counts of schedules are such counts; otherwise they are left over.

    Raises:
        UsageError: A state of the rule is missing or there twice; a trace is not of torch's buffer;
            something is left over; or a wrapper is of a kind that is not known.
    """
    walk = _Walk(rule, replaced, counted, schedules)
    root = type(opt_state).__name__ if hasattr(opt_state, "_fields") else ""
    result = walk.node(opt_state, root)
    for name in rule.states:
        accepted = f"one {name}, for the torch optimizer has such a state"
        require(
            walk.seen.count(name) == 1,
            f"number of {name} in the optax state",
            walk.seen.count(name),
            accepted,
        )
    return result


class _Walk:
    """One way through a state. It remembers which states of the rule were met."""

    def __init__(self, rule: Rule, replaced: Any, counted: Any, schedules: bool) -> None:
        self.rule, self.replaced, self.counted = rule, replaced, counted
        self.schedules = schedules
        self.seen: list[str] = []

    def node(self, node: Any, path: str) -> Any:
        name = type(node).__name__
        if _is_optax(node):
            if name in self.rule.states:
                self.seen.append(name)
                return self.replaced(name, node)
            if name in INJECTED and (self.schedules or not flax_leaves(node[2:3])):
                return self._injected(node, path)
            if name == "MultiStepsState":
                return self._multi_steps(node, path)
            if name in SCHEDULES and self.schedules:
                return node._replace(count=self.counted(node.count))
        if isinstance(node, tuple):
            fields = getattr(node, "_fields", range(len(node)))
            if not hasattr(node, "_fields"):
                _require_own_trace(node, self.rule, path)
            children = [
                self.node(child, f"{path}/{field}")
                for field, child in zip(fields, node, strict=True)
            ]
            return type(node)(*children) if hasattr(node, "_fields") else tuple(children)
        if leaves := flax_leaves(node):
            raise UsageError(
                f"the optax state has {', '.join(_join(path, leaf) for leaf in leaves)} left over: "
                "the torch optimizer has nothing of the kind"
            )
        return node

    def _injected(self, node: Any, path: str) -> Any:
        """Hyperparameters are the template's, as those in a closure are; the count is a count."""
        changed: dict[str, Any] = {"count": self.counted(node.count)} if self._counts(node) else {}
        changed["inner_state"] = self.node(node.inner_state, f"{path}/inner_state")
        if hasattr(node, "hyperparams_states"):
            changed["hyperparams_states"] = {
                key: state._replace(count=self.counted(state.count))
                for key, state in node.hyperparams_states.items()
            }
        return node._replace(**changed)

    def _counts(self, node: Any) -> bool:
        """Where torch counts nothing, a count that no schedule reads stays as it is."""
        return self.rule.counts or bool(flax_leaves(getattr(node, "hyperparams_states", {})))

    def _multi_steps(self, node: Any, path: str) -> Any:
        import numpy as np

        [mini_step] = flax_leaves(node.mini_step).values()
        gathered = any(np.any(np.asarray(leaf)) for leaf in flax_leaves(node.acc_grads).values())
        if int(mini_step) or gathered or flax_leaves(node.skip_state):
            raise UsageError(
                f"{_join(path, 'mini_step')} is {int(mini_step)}, accepted is a state between two "
                "steps, 0 and without gathered gradients: torch's optimizer gathers none"
            )
        changed: dict[str, Any] = {
            "inner_opt_state": self.node(node.inner_opt_state, f"{path}/inner_opt_state")
        }
        if self.rule.counts:
            changed["gradient_step"] = self.counted(node.gradient_step)
        return node._replace(**changed)


def _require_own_trace(chain: tuple[Any, ...], rule: Rule, path: str) -> None:
    """Raises a `UsageError` if RMSprop's trace comes after the learning rate.

    torch adds up g/√v, and takes lr times the sum; `optax.rmsprop(momentum=…)` adds up -lr · g/√v.
    """
    names = [type(state).__name__ for state in chain]
    scaled = next((n for n in rule.states if n != "TraceState" and n in names), None)
    if scaled is None or "TraceState" not in names or "TraceState" not in rule.states:
        return
    if names.index("TraceState") != names.index(scaled) + 1:
        raise UsageError(
            f"{_join(path, 'TraceState')} does not follow {scaled}, as in "
            "optax.rmsprop(momentum=…): it holds -lr times torch's momentum_buffer. Accepted is "
            "optax.chain(optax.scale_by_rms(…) or optax.scale_by_stddev(…), optax.trace(momentum), "
            "optax.scale_by_learning_rate(lr))"
        )


def _is_optax(node: Any) -> bool:
    """Whether it is a state of optax itself: another's of the same name is not of that kind."""
    return isinstance(node, tuple) and type(node).__module__.partition(".")[0] == "optax"


def _join(path: str, leaf: str) -> str:
    return f"{path}/{leaf}".strip("/")
