"""The families of examples: for each stage what is drawn, over every named hazard."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from parity import hazards
from parity.hazards import EPISODES, LAWS, RUNS, SIZES
from parity.suite import drawing, environment, laws, learning, randomness
from parity.suite.family import Comparable, Family
from parity.suite.stages import BOTH

AGENTS, SCOPES = laws.AGENTS, learning.SCOPES


@cache
def families() -> tuple[Family, ...]:
    """All, in the order of the pipeline; what is dear to compile comes last."""
    return (
        Family("environment reset", {"kind": ("usual",)}, drawing.reset, 0.2),
        Family(
            "environment step",
            {"kind": environment.STATES, "dtypes": (BOTH, BOTH[:1])},
            drawing.step,
        ),
        *_of_agents("weights", {"size": SIZES}, drawing.weights, 0.2),
        *_of_agents("network", {"run": RUNS, "weights": hazards.PARAMS}, drawing.network),
        Family("sample reinforce", {"shape": LAWS, "law": hazards.LOGITS} | NOISES, drawing.choice),
        Family(
            "sample reparam",
            {"shape": LAWS, "law": hazards.NORMALS} | NOISES,
            drawing.normal_sample,
        ),
        Family("action reinforce", {"shape": LAWS, "values": hazards.TIES}, drawing.greedy_choice),
        Family("action reparam", {"shape": LAWS, "values": hazards.TIES}, drawing.action),
        *_of_agents(
            "make_act", {"weights": hazards.PARAMS, "noise": hazards.NOISES}, drawing.act, 0.05
        ),
        Family(
            "log_prob reinforce", {"shape": LAWS, "law": hazards.LOGITS}, drawing.choice_log_prob
        ),
        Family(
            "log_prob reparam", {"shape": LAWS, "law": hazards.NORMALS}, drawing.normal_log_prob
        ),
        Family("entropy reinforce", {"shape": LAWS, "law": hazards.LOGITS}, drawing.choice_entropy),
        Family("entropy reparam", {"shape": LAWS, "law": hazards.NORMALS}, drawing.normal_entropy),
        Family("returns", {"discount": hazards.DISCOUNTS} | EPISODE, drawing.returns, 2.0),
        Family("episode returns", EPISODE, drawing.episode_returns),
        *(
            Family(
                f"advantages {scope}",
                {"discount": hazards.DISCOUNTS} | EPISODE,
                partial(drawing.advantages, scope=scope),
            )
            for scope in SCOPES
        ),
        Family("loss", {"magnitude": (0, -20, 20, -3, 3)} | MASKED, drawing.loss),
        *_of_agents(
            "gradient",
            {"run": RUNS, "weights": hazards.PARAMS, "mask": hazards.MASKS, "scope": SCOPES},
            drawing.gradient,
        ),
        Family(
            "clipped gradient",
            {"norm": hazards.NORMS, "max_norm": (0.5, 1e-5)} | GRADIENTS,
            drawing.clip,
        ),
        Family(
            "update",
            {"count": hazards.COUNTS, "learning_rate": (1e-3, 0.5)} | GRADIENTS,
            drawing.update,
        ),
        Family(
            "update constants", {"count": hazards.COUNTS} | GRADIENTS, drawing.update_constants, 0.5
        ),
        *(
            Family(f"{what} {package} {agent}", {"kind": ("usual",)}, draw, 0.0)
            for package in randomness.PACKAGES
            for agent in AGENTS
            for what, draw in (
                (
                    "initialisation",
                    partial(drawing.statistical, randomness.initialisation, package, agent),
                ),
                ("noise", partial(drawing.statistical, randomness.noise, package, agent)),
            )
        ),
        *_of_agents(
            "whole update",
            WHOLE | {"config": tuple(drawing.CONFIGS)},
            drawing.whole_update,
            0.5,
            10.0,
        ),
        *_of_agents(
            "chained updates",
            WHOLE | {"config": ("default", "clipped")},
            drawing.chained,
            0.2,
            10.0,
        ),
        *_of_agents("updates with SGD", WHOLE | {"config": ("default",)}, drawing.sgd, 0.2, 6.0),
        *_of_agents("rollout", {"early_exit": (True, False)}, drawing.rollout, 0.5, 2.0),
        *_of_agents("train step pgjax", {"kind": ("usual",)}, drawing.jax_train_step, 0.05, 8.0),
        *_of_agents("train step pgtorch", {"kind": ("usual",)}, drawing.torch_train_step, 0.05),
    )


NOISES = {"noise": hazards.NOISES}
GRADIENTS = {"size": SIZES, "gradients": hazards.GRADIENTS}
MASKED = {"shape": EPISODES, "mask": hazards.MASKS, "padding": hazards.PADDINGS}
EPISODE = MASKED | {"reward": hazards.REWARDS}
WHOLE = {
    "mask": hazards.MASKS,
    "padding": hazards.PADDINGS,
    "reward": ("ones", "normal", "equal_returns", "sparse", "zeros"),
}


def _of_agents(
    name: str,
    axes: Mapping[str, Sequence[Any]],
    draw: Callable[..., Comparable],
    share: float = 1.0,
    seconds: float = 1.0,
) -> list[Family]:
    return [
        Family(f"{name} {agent}", axes, partial(draw, agent=agent), share, seconds)
        for agent in AGENTS
    ]
