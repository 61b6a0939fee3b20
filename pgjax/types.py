"""What the stages of training hand to one another. Time leads: `T` steps, `B` episodes."""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Num


class Noise(NamedTuple):
    """All the randomness of a rollout.

    `reset` is what the environment starts from (for CartPole the initial states themselves);
    `policy` is the agent's standard noise, Gumbel or Normal.
    """

    reset: Num[Array, "B ..."]
    policy: Float[Array, "T B A"]


class Trajectory(NamedTuple):
    """`B` whole episodes, padded to the length of the noise.

    `mask[t, b]` is true while episode b runs, its last step included. `sample` is what the
    log-probability is of: the action, or the Gaussian `z = mu + std·noise [T, B, A]`.
    `terminated[b]` is true if episode b ended by itself and not by the step limit.
    """

    obs: Float[Array, "T B O"]
    sample: Num[Array, "T B ..."]
    action: Int[Array, "T B"]
    reward: Float[Array, "T B"]
    mask: Bool[Array, "T B"]
    terminated: Bool[Array, "B"]


class TrainState(NamedTuple):
    """What one update hands to the next; arrays only."""

    params: Any
    opt_state: Any
    update: Int[Array, ""]


class Metrics(NamedTuple):
    """What is looked at after an update and not carried on.

    `grad_norm` is the global norm before clipping, `entropy` the mean over unmasked steps in
    nats, `mean_return` the mean undiscounted return, `num_steps` counts unmasked steps.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    entropy: Float[Array, ""]
    mean_return: Float[Array, ""]
    num_episodes: Int[Array, ""]
    num_steps: Int[Array, ""]
