"""Draws the inputs of each stage, with the hazards that are asked for by name."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from parity import hazards, oracle, sides
from parity.hazards import EPISODES, SIZES
from parity.suite import environment, laws, learning, optimizers, playing, updates
from parity.suite.family import Direct, Statistical
from parity.suite.stages import Example, Side, Stage, torch_side
from parity.suite.weights import acted, carried
from pgcore.config import TrainConfig

CONFIGS: dict[str, dict[str, Any]] = {
    "default": {},
    "article": {"normalize": "episode"},
    "clipped": {"normalize": "none", "max_grad_norm": 0.3, "learning_rate": 0.1, "discount": 0.8},
}
CONFIG_SHAPES = {"default": EPISODES[1], "article": EPISODES[2], "clipped": EPISODES[1]}
"""T and B of each: a config is compiled anew for every shape."""


# --- environment, weights, network ---------------------------------------------------------------


def reset(rng, kind):
    return Example(environment.reset(), {"noise": rng.uniform(-0.05, 0.05, (5, 4))})


def step(rng, kind, dtypes):
    return Example(environment.step(), environment.states(rng, kind), precisions=dtypes)


def weights(rng, agent, size):
    tensors = hazards.params(rng, agent, size, "initial")

    ways = ("pgtorch writes", "pgjax writes", "pgjax reads", "parity to Flax", "parity to PyTorch")

    def unchanged(inputs):
        tensors = sides.nested(inputs)["params"]
        return sides.flat(dict.fromkeys(ways, tensors))

    def found(inputs):
        with sides.x64(True):
            carried_over = carried(agent, size, sides.nested(inputs)["params"])
            return {leaf: np.array(array) for leaf, array in sides.flat(carried_over).items()}

    return Direct("weights", unchanged, found, _under("params", tensors))


def network(rng, agent, run, weights):
    size, shape = run
    obs = rng.normal(size=(*shape, size.obs_dim))
    tensors = _under("params", hazards.params(rng, agent, size, weights))
    return Example(laws.network(agent, size), {"obs": obs, **tensors})


# --- distributions -------------------------------------------------------------------------------


def choice(rng, shape, law, noise):
    logits = hazards.logits(rng, shape, law)
    drawn = hazards.noise(rng, "reinforce", shape, noise)
    return Example(laws.sample("reinforce"), {"logits": logits, "noise": drawn})


def normal_sample(rng, shape, law, noise):
    drawn = hazards.normal(rng, shape, law)
    inputs = {"loc": drawn["loc"], "scale": drawn["scale"]}
    inputs["noise"] = hazards.noise(rng, "reparam", shape, noise)
    return Example(laws.sample("reparam"), inputs)


def greedy_choice(rng, shape, values):
    inputs = {"logits": hazards.ties(rng, shape, values), "noise": np.zeros(shape)}
    return Example(laws.sample("reinforce", excuse_ties=False), inputs)


def action(rng, shape, values):
    return Example(laws.action("reparam"), {"sample": hazards.ties(rng, shape, values)})


def choice_log_prob(rng, shape, law):
    sample = rng.integers(shape[-1], size=shape[:-1]).astype(np.int32)
    inputs = {"logits": hazards.logits(rng, shape, law), "sample": sample}
    return Example(laws.log_prob("reinforce"), inputs, wrt=("logits",))


def normal_log_prob(rng, shape, law):
    inputs = hazards.normal(rng, shape, law)
    return Example(laws.log_prob("reparam"), inputs, wrt=("loc", "scale"))


def choice_entropy(rng, shape, law):
    inputs = {"logits": hazards.logits(rng, shape, law)}
    return Example(laws.entropy("reinforce"), inputs, wrt=("logits",))


def normal_entropy(rng, shape, law):
    drawn = hazards.normal(rng, shape, law)
    inputs = {"loc": drawn["loc"], "scale": drawn["scale"]}
    return Example(laws.entropy("reparam"), inputs, wrt=("scale",))


def act(rng, agent, weights, noise):
    size, batch = SIZES[1], 5
    tensors = hazards.params(rng, agent, size, weights)
    inputs = {
        **_under("params", tensors),
        "obs": rng.normal(size=(batch, size.obs_dim)),
        "noise": hazards.noise(rng, agent, (batch, size.num_actions), noise),
    }

    def by_hand(inputs):
        given = sides.nested(inputs)
        dist = oracle.network(agent, given["params"], given["obs"])
        drawn = (
            oracle.categorical_sample(dist["logits"], given["noise"])
            if agent == "reinforce"
            else oracle.normal_sample(dist["loc"], dist["scale"], given["noise"])
        )
        action = oracle.action(agent, drawn)
        return {"pgtorch": action, "pgjax": action}

    def found(inputs):
        given = sides.nested(inputs)
        with sides.x64(True):
            return acted(agent, size, given["params"], given["obs"], given["noise"])

    return Direct("make_act", by_hand, found, inputs)


# --- from rewards to the gradient ----------------------------------------------------------------


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
    params = _under("params", hazards.params(rng, agent, size, weights))
    batch = hazards.batch(
        rng, agent, size, shape, mask_hazard=mask, reward_hazard="normal", discount=0.9
    )
    noise = hazards.noise(rng, agent, (*shape, size.num_actions), "usual")
    return Example(
        learning.gradient(agent, size),
        learning.gradient_inputs(agent, params, batch, noise, scope),
        # Where all units stand exactly at the kink, a nudge of zero would turn them on.
        exact_zeros=("params",) if weights == "kink" else (),
        wrt=("params",),
        values=False,
    )


# --- the optimizer, whole updates ----------------------------------------------------------------


def clip(rng, size, gradients, norm, max_norm):
    shapes = hazards.params(rng, "reparam", size, "initial")
    drawn = hazards.with_norm(hazards.gradients(rng, shapes, gradients), norm * max_norm)
    return Example(optimizers.clip(max_norm), _under("gradients", drawn))


def update(rng, size, gradients, count, learning_rate, **constants):
    shapes = hazards.params(rng, "reparam", size, "initial")
    drawn = hazards.gradients(rng, shapes, gradients)
    stage = optimizers.update(learning_rate, **constants)
    return Example(stage, optimizers.adam_inputs(rng, drawn, count))


def update_constants(rng, size, gradients, count):
    return update(rng, size, gradients, count, 1e-2, b1=0.7, b2=0.9, eps=1e-3)


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
        {**_under("params", params), **inputs},
        padding=updates.padding(inputs),
        precisions=("float64",),
    )


def whole_update(rng, **choices):
    return _updates(rng, **choices)


def chained(rng, **choices):
    return _updates(rng, **choices, num_updates=4)


def sgd(rng, **choices):
    return _updates(rng, **choices, num_updates=4, sgd=True)


# --- playing -------------------------------------------------------------------------------------


def _walk_params(rng, agent):
    return _under("params", hazards.params(rng, agent, playing.CORRIDOR_SIZE, "initial"))


def rollout(rng, agent, early_exit):
    shape = (playing.NUM_STEPS, 3, playing.CORRIDOR_SIZE.num_actions)
    inputs = {
        **_walk_params(rng, agent),
        "start": rng.integers(-1, 2, (3, 1)).astype(float),
        "noise": hazards.noise(rng, agent, shape, "usual"),
    }
    stage = playing.rollout(agent, early_exit=early_exit)
    return Example(stage, inputs, precisions=("float64",))


def jax_train_step(rng, agent, kind):
    drawn = playing.drawn_in_jax(agent, rng.integers(2**31, size=3))
    inputs = {**_walk_params(rng, agent), **drawn._asdict()}
    reference = _torch_train_steps(agent)
    stage = Stage("train step, pgjax", reference, _jax_train_steps(agent), is_exact=True)
    # The noise is what the seeds draw, and noise near it is not.
    return Example(stage, inputs, precisions=("float64",), is_mappable=False)


def torch_train_step(rng, agent, kind):
    drawn = playing.drawn_in_torch(agent, rng.integers(2**31, size=3))
    inputs = {**_walk_params(rng, agent), **drawn._asdict()}
    own = torch_side(_torch_train_steps(agent, own_noise=True))
    return Direct("train step, pgtorch", torch_side(_torch_train_steps(agent)), own, inputs)


@cache
def _torch_train_steps(agent: str, *, own_noise: bool = False) -> Side:
    return lambda **inputs: playing.torch_steps(agent, **inputs, own_noise=own_noise)


@cache
def _jax_train_steps(agent: str) -> Side:
    return lambda **inputs: playing.jax_steps(agent, **inputs)


def statistical(draws, package, agent, rng, kind):
    return Statistical(draws(package, agent), int(rng.integers(2**31)))


def _under(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}/{key}": array for key, array in arrays.items()}
