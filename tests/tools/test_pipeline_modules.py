"""Modules as stages of `parity.check_pipeline`, and what is refused."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import parity
from pgcore.errors import UsageError

RNG = np.random.default_rng(0)
INPUTS = {"obs": RNG.normal(size=(5, 3)), "target": RNG.normal(size=(5, 4))}


class Actor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(3, 4)
        self.head = torch.nn.Linear(4, 4)  # square: it loads untransposed too

    def forward(self, obs):
        return self.head(torch.tanh(self.body(obs)))


class LinenActor(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.Dense(4)(x)
        return nn.Dense(4)(jnp.tanh(hidden))


class NnxActor(nnx.Module):
    def __init__(self, rngs, act=jnp.tanh):
        self.body = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 4, rngs=rngs)
        self.act = act

    def __call__(self, obs):
        return self.head(self.act(self.body(obs)))


torch.manual_seed(0)
ACTOR = Actor()
FLAX = {
    "linen": (LinenActor(), {"obs": "x", "body": "Dense_0", "head": "Dense_1"}),
    "nnx": (NnxActor(nnx.Rngs(0)), None),
}


def loss(network, target):
    return ((network - target) ** 2).mean()


def check(reference, candidate, inputs=INPUTS, **options):
    stages = ({"network": each, "loss": loss} for each in (reference, candidate))
    return parity.check_pipeline(*stages, inputs, steps=2, **options)


@pytest.mark.parametrize("kind", FLAX)
def test_modules_are_stages_and_the_gradient_is_by_torchs_names(kind):
    candidate, rename = FLAX[kind]
    report = check(ACTOR, candidate, rename=rename)
    report.assert_ok()
    by_stage = {each.stage: each for each in report.comparisons}
    assert {v.leaf for v in by_stage["gradient"].verdicts} == {*ACTOR.state_dict()}
    assert "2 chained steps with adam" in by_stage


def test_another_activation_is_found_in_the_stage_of_the_module():
    report = check(ACTOR, NnxActor(nnx.Rngs(0), jnp.sin))
    assert report.failures[0].stage == "network"


def test_exchanged_modules_are_found():
    rename = {"obs": "x", "body": "Dense_1", "head": "Dense_0"}
    report = check(ACTOR, LinenActor(), rename=rename)
    assert report.failures[0].stage == "network"


def test_a_module_may_stand_beside_a_function():
    def by_hand(params, obs):
        body = jnp.tanh(obs @ params["body.weight"].T + params["body.bias"])
        return body @ params["head.weight"].T + params["head.bias"]

    check(ACTOR, by_hand).assert_ok()

    def of_kernels(params, obs):
        body, head = params["body"], params["head"]
        return torch.tanh(obs @ body["kernel"] + body["bias"]) @ head["kernel"] + head["bias"]

    check(of_kernels, NnxActor(nnx.Rngs(0))).assert_ok()


def test_given_weights_are_used_in_place_of_the_modules_own():
    weights = {name: 2 * tensor.numpy() for name, tensor in ACTOR.state_dict().items()}
    seen = []

    def by_hand(params, obs):
        seen.append(np.array_equal(params["head.bias"], weights["head.bias"]))
        return obs @ params["body.weight"].T

    check(ACTOR, by_hand, {**INPUTS, "params": weights})
    assert seen[0]


OTHER = NnxActor(nnx.Rngs(0))


@pytest.mark.parametrize(
    ("reference", "candidate", "options", "message"),
    [
        (Actor, OTHER, {}, r"reference is the class Actor, accepted is a module made of it"),
        (OTHER, OTHER, {}, "reference is NnxActor, a nnx module"),
        (ACTOR, LinenActor(), {}, "a parameter of stage 'network' of the candidate is 'x'"),
        (ACTOR, OTHER, {"rename": {"boddy": "body"}}, "boddy"),
        (loss, loss, {"rename": {"body": "b"}}, "rename is 'body', .* no stage is a Flax module"),
        (ACTOR, loss, {"kinds": {"a": "Parameter"}}, "kinds is .*, accepted is None where no"),
    ],
    ids=["a class", "on the wrong side", "an argument", "no module", "no Flax module", "no kind"],
)
def test_what_does_not_fit_is_refused_in_words(reference, candidate, options, message):
    with pytest.raises(UsageError, match=message):
        check(reference, candidate, **options)


def test_two_modules_are_refused_with_how_to_give_them():
    stages = {"actor": ACTOR, "critic": Actor()}
    with pytest.raises(UsageError, match="'actor', 'critic' of the reference .*functional_call"):
        parity.check_pipeline(stages, {"actor": OTHER, "critic": OTHER}, INPUTS)
