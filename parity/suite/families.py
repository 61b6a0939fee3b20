"""The families of examples: for each stage what is drawn, over every named hazard."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from parity import hazards
from parity.hazards import DEPTHS, EPISODES, LAWS, RUNS, SIZES
from parity.suite import (
    adapters,
    drawing_learning,
    drawing_playing,
    drawing_policies,
    environment,
    laws,
    learning,
    optimizers,
    randomness,
)
from parity.suite.family import Comparable, Family
from parity.suite.stages import BOTH

AGENTS, SCOPES = laws.AGENTS, learning.SCOPES


@cache
def families() -> tuple[Family, ...]:
    """All, in the order of the pipeline; what is dear to compile comes last."""
    return (
        Family("environment reset", {"kind": ("usual",)}, drawing_playing.reset, 0.2),
        Family(
            "environment step",
            {"kind": environment.STATES, "dtypes": (BOTH, BOTH[:1])},
            drawing_playing.step,
        ),
        Family(
            "environment limit",
            {"max_steps": environment.LIMITS},
            drawing_playing.limited_step,
            0.2,
        ),
        *(
            Family(
                f"gymnasium {package}",
                {"env_id": adapters.ENVIRONMENTS},
                partial(adapters.episodes, package=package),
                0.2,
            )
            for package in adapters.PACKAGES
        ),
        *_of_agents("weights", {"size": SIZES + DEPTHS}, drawing_policies.weights, 0.2),
        *_of_agents("network", {"run": RUNS, "weights": hazards.PARAMS}, drawing_policies.network),
        *_of_agents("network depth", DEEP, drawing_policies.network_at_depth, 0.2),
        *_of_draws("initialisation", randomness.initialisation),
        Family(
            "sample reinforce",
            {"shape": LAWS, "law": hazards.LOGITS} | NOISES,
            drawing_policies.choice,
        ),
        Family(
            "sample reparam",
            {"shape": LAWS, "law": hazards.NORMALS} | NOISES,
            drawing_policies.normal_sample,
        ),
        Family(
            "action reinforce",
            {"shape": LAWS, "values": hazards.TIES},
            drawing_policies.greedy_choice,
        ),
        Family("action reparam", {"shape": LAWS, "values": hazards.TIES}, drawing_policies.action),
        *_of_agents(
            "make_act",
            {"weights": hazards.PARAMS, "noise": hazards.NOISES},
            drawing_policies.act,
            0.05,
        ),
        Family(
            "log_prob reinforce",
            {"shape": LAWS, "law": hazards.LOGITS},
            drawing_policies.choice_log_prob,
        ),
        Family(
            "log_prob reparam",
            {"shape": LAWS, "law": hazards.NORMALS},
            drawing_policies.normal_log_prob,
        ),
        Family(
            "entropy reinforce",
            {"shape": LAWS, "law": hazards.LOGITS},
            drawing_policies.choice_entropy,
        ),
        Family(
            "entropy reparam",
            {"shape": LAWS, "law": hazards.NORMALS},
            drawing_policies.normal_entropy,
        ),
        Family("returns", {"discount": hazards.DISCOUNTS} | EPISODE, drawing_learning.returns, 2.0),
        Family("episode returns", EPISODE, drawing_learning.episode_returns),
        *(
            Family(
                f"advantages {scope}",
                {"discount": hazards.DISCOUNTS} | EPISODE,
                partial(drawing_learning.advantages, scope=scope),
            )
            for scope in SCOPES
        ),
        *(
            Family(
                f"advantages threshold {scope}",
                {"discount": hazards.DISCOUNTS} | THRESHOLD,
                partial(drawing_learning.advantages, scope=scope),
                0.05,
            )
            for scope in SCOPES[:2]
        ),
        Family("loss", {"magnitude": (0, -20, 20, -3, 3)} | MASKED, drawing_learning.loss),
        *_of_agents(
            "gradient",
            {"run": RUNS, "weights": hazards.PARAMS, "mask": hazards.MASKS, "scope": SCOPES},
            drawing_learning.gradient,
        ),
        *_of_agents("gradient depth", DEEP, drawing_learning.gradient_at_depth, 0.2),
        Family(
            "clipped gradient",
            {"norm": hazards.NORMS, "max_norm": (0.5, 1e-5)} | GRADIENTS,
            drawing_learning.clip,
        ),
        Family(
            "update",
            {"count": hazards.COUNTS, "learning_rate": (1e-3, 0.5)} | GRADIENTS,
            drawing_learning.update,
        ),
        Family(
            "update constants",
            {"count": hazards.COUNTS} | GRADIENTS,
            drawing_learning.update_constants,
            0.5,
        ),
        Family(
            "update schedule",
            {
                "schedule": tuple(optimizers.SCHEDULES),
                "count": optimizers.SCHEDULE_COUNTS,
                "gradients": hazards.GRADIENTS,
            },
            drawing_learning.scheduled_update,
            0.5,
        ),
        *_of_draws("noise", randomness.noise),
        *_of_draws("long noise", randomness.LongNoise),
        *_of_agents(
            "whole update",
            WHOLE | {"config": tuple(drawing_learning.CONFIGS)},
            drawing_learning.whole_update,
            0.5,
            10.0,
        ),
        *_of_agents(
            "chained updates",
            WHOLE | {"config": ("default", "clipped")},
            drawing_learning.chained,
            0.2,
            10.0,
        ),
        *_of_agents(
            "updates with SGD", WHOLE | {"config": ("default",)}, drawing_learning.sgd, 0.2, 6.0
        ),
        *_of_agents("rollout", {"early_exit": (True, False)}, drawing_playing.rollout, 0.5, 2.0),
        *_of_agents(
            "train step pgjax", {"kind": ("usual",)}, drawing_playing.jax_train_step, 0.05, 8.0
        ),
        *_of_agents(
            "train step pgtorch", {"kind": ("usual",)}, drawing_playing.torch_train_step, 0.05
        ),
        *(
            Family(
                f"training run {package}",
                {"kind": ("usual",)},
                partial(drawing_playing.first_updates, package=package),
                0.0,
                4.0,
            )
            for package in randomness.PACKAGES
        ),
    )


NOISES = {"noise": hazards.NOISES}
GRADIENTS = {"size": SIZES, "gradients": hazards.GRADIENTS}
DEEP = {"depth": DEPTHS, "weights": hazards.PARAMS}
MASKED = {"shape": EPISODES, "mask": hazards.MASKS, "padding": hazards.PADDINGS}
THRESHOLD = MASKED | {
    "reward": hazards.THRESHOLD,
    "shape": EPISODES[1:],
    "mask": [kind for kind in hazards.MASKS if kind != "one_step"],  # which has no deviation
}
EPISODE = MASKED | {"reward": hazards.REWARDS[: -len(hazards.THRESHOLD)]}
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


def _of_draws(name: str, draws: Callable[[str, str], Any]) -> list[Family]:
    return [
        Family(
            f"{name} {package} {agent}",
            {"kind": ("usual",)},
            partial(drawing_playing.statistical, draws, package, agent),
            0.0,
        )
        for package in randomness.PACKAGES
        for agent in AGENTS
    ]
