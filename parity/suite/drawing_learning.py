"""Draws the inputs of the stages from rewards to parameters: returns, the loss, Adam, updates."""

from typing import Any

from parity import hazards
from parity.hazards import EPISODES, SIZES, Size
from parity.suite import learning, optimizers, updates
from parity.suite.stages import Example
from parity.suite.weights import under
from pgcore.config import TrainConfig

CONFIGS: dict[str, dict[str, Any]] = {
    "default": {},
    "article": {"normalize": "episode"},
    "clipped": {"normalize": "none", "max_grad_norm": 0.3, "learning_rate": 0.1, "discount": 0.8},
}
CONFIG_SHAPES = {"default": EPISODES[1], "article": EPISODES[2], "clipped": EPISODES[1]}
"""T and B of each: a config is compiled anew for every shape."""


def returns(rng, shape, mask, padding, reward, discount):
    running = hazards.mask(rng, shape, mask)
    rewards = hazards.rewards(rng, running, discount, reward)
    inputs = {"rewards": hazards.padded(rng, rewards, running, padding), "mask": running}
    return Example(
        learning.returns(),
        {**inputs, "discount": discount},
        padding={"rewards": ~running},
        wrt=("rewards",),
    )


def episode_returns(rng, shape, mask, padding, reward):
    running = hazards.mask(rng, shape, mask)
    rewards = hazards.rewards(rng, running, 0.99, reward)
    inputs = {"rewards": hazards.padded(rng, rewards, running, padding), "mask": running}
    return Example(learning.episode_returns(), inputs, padding={"rewards": ~running})


def advantages(rng, shape, mask, padding, reward, discount, scope):
    running = hazards.mask(rng, shape, mask)
    rewards = hazards.rewards(rng, running, discount, reward)
    before = {"rewards": rewards, "mask": running, "discount": discount}
    returns = learning.returns().reference(before)["value"]
    return Example(
        learning.advantages(scope),
        {"returns": hazards.padded(rng, returns, running, padding), "mask": running},
        padding={"returns": ~running},
        wrt=("returns",),
    )


def loss(rng, shape, mask, padding, magnitude):
    running = hazards.mask(rng, shape, mask)
    log_probs = rng.normal(size=shape) - 1
    advantages = 10.0**magnitude * rng.normal(size=shape)
    inputs = {
        "log_probs": hazards.padded(rng, log_probs, running, padding),
        "advantages": hazards.padded(rng, advantages, running, padding),
        "mask": running,
    }
    outside = {"log_probs": ~running, "advantages": ~running}
    return Example(learning.loss(), inputs, padding=outside, wrt=("log_probs", "advantages"))


def gradient(rng, agent, run, weights, mask, scope):
    size, shape = run
    params = under("params", hazards.params(rng, agent, size, weights))
    batch = hazards.batch(
        rng, agent, size, shape, mask_hazard=mask, reward_hazard="normal", discount=0.9
    )
    noise = hazards.noise(rng, agent, (*shape, size.num_actions), "usual")
    return Example(
        learning.gradient(agent, size),
        learning.gradient_inputs(agent, size, params, batch, noise, scope),
        # Where all units stand exactly at the kink, a nudge of zero would turn them on.
        exact_zeros=("params",) if weights == "kink" else (),
        wrt=("params",),
        values=False,
    )


# --- the optimizer, whole updates ----------------------------------------------------------------


def gradient_at_depth(rng, agent, depth, weights):
    return gradient(rng, agent, (depth, (3, 2)), weights, "ragged", "batch")


def clip(rng, size, gradients, norm, max_norm):
    shapes = hazards.params(rng, "reparam", size, "initial")
    drawn = hazards.with_norm(hazards.gradients(rng, shapes, gradients), norm * max_norm)
    return Example(optimizers.clip(max_norm), under("gradients", drawn))


def update(rng, size, gradients, count, learning_rate, **constants):
    shapes = hazards.params(rng, "reparam", size, "initial")
    drawn = hazards.gradients(rng, shapes, gradients)
    stage = optimizers.update(learning_rate, **constants)
    return Example(stage, optimizers.adam_inputs(rng, drawn, count))


def update_constants(rng, size, gradients, count):
    return update(rng, size, gradients, count, 1e-2, b1=0.7, b2=0.9, eps=1e-3)


def scheduled_update(rng, gradients, count, schedule):
    # A lone layer: the schedule is the same for all, and compiling takes less.
    layer = hazards.params(rng, "reinforce", Size(3, 2, ()), "initial")
    stage = optimizers.update(optimizers.SCHEDULES[schedule])
    return Example(
        stage, optimizers.adam_inputs(rng, hazards.gradients(rng, layer, gradients), count)
    )


def _updates(rng, agent, mask, padding, reward, config, *, num_updates=1, sgd=False):
    settings = TrainConfig(agent=agent, **CONFIGS[config])
    size, shape = SIZES[0], CONFIG_SHAPES[config]
    params = hazards.params(rng, agent, size, "initial")
    batches = []
    for _ in range(num_updates):
        batch = hazards.batch(
            rng,
            agent,
            size,
            shape,
            mask_hazard=mask,
            reward_hazard=reward,
            discount=settings.discount,
        )
        filled = {
            name: hazards.padded(rng, getattr(batch, name), batch.mask, padding)
            for name in ("obs", "sample", "action", "reward")
        }
        batches.append(batch._replace(**filled))
    inputs = updates.stacked(batches) if num_updates > 1 else batches[0]._asdict()
    return Example(
        updates.update_step(settings, size, num_updates=num_updates, sgd=sgd),
        {**under("params", params), **inputs},
        padding=updates.padding(inputs),
        precisions=("float64",),
    )


def whole_update(rng, **choices):
    return _updates(rng, **choices)


def chained(rng, **choices):
    return _updates(rng, **choices, num_updates=4)


def sgd(rng, **choices):
    return _updates(rng, **choices, num_updates=4, sgd=True)
