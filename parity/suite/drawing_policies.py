"""Draws the inputs of a policy's stages: weights, networks, distributions."""

import numpy as np

from parity import hazards, oracle, sides
from parity.hazards import SIZES
from parity.suite import laws
from parity.suite.family import Direct
from parity.suite.stages import Example
from parity.suite.weights import acted, carried, under


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

    return Direct("weights", unchanged, found, under("params", tensors))


def network(rng, agent, run, weights):
    size, shape = run
    obs = rng.normal(size=(*shape, size.obs_dim))
    tensors = under("params", hazards.params(rng, agent, size, weights))
    return Example(laws.network(agent, size), {"obs": obs, **tensors})


def network_at_depth(rng, agent, depth, weights):
    return network(rng, agent, (depth, (3, 2)), weights)


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
        **under("params", tensors),
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
