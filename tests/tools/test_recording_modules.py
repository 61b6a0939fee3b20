"""Modules of torch, Flax and Equinox in recordings: weights, and gradients by torch's names."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import parity
from parity.recordings.recording import Recording
from pgcore.errors import UsageError

OBS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


class Actor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
        self.log_std = torch.nn.Parameter(torch.full((3,), -0.5))

    def forward(self, obs):
        return {"mu": torch.tanh(self.body(obs)), "std": self.log_std.exp()}


class LinenActor(nn.Module):
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        mean = jnp.tanh(nn.LayerNorm(epsilon=self.epsilon)(nn.Dense(3)(x)))
        return {"mean": mean, "std": jnp.exp(self.param("log_std", nn.initializers.zeros, (3,)))}


class NnxActor(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List(
            [nnx.Linear(3, 3, rngs=rngs), nnx.LayerNorm(3, epsilon=1e-5, rngs=rngs)]
        )
        self.log_std = nnx.Param(jnp.zeros(3))

    def __call__(self, obs):
        return {
            "mu": jnp.tanh(self.layers[1](self.layers[0](obs))),
            "std": jnp.exp(self.log_std[...]),
        }


class EquinoxActor(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    log_std: jax.Array

    def __call__(self, obs):
        mu = jax.vmap(lambda x: jnp.tanh(self.norm(self.linear(x))))(obs)
        return {"mu": mu, "std": jnp.exp(self.log_std)}


def equinox_actor():
    return EquinoxActor(
        eqx.nn.Linear(3, 3, key=jax.random.key(0)), eqx.nn.LayerNorm(3), jnp.zeros(3)
    )


LINEN = {"obs": "x", "mu": "mean", "body.0": "Dense_0", "body.1": "LayerNorm_0"}
OTHERS = {
    "nnx": (lambda: NnxActor(nnx.Rngs(0)), {"body.0": "layers/0", "body.1": "layers/1"}),
    "equinox": (equinox_actor, {"body.0": "linear", "body.1": "norm"}),
}
KINDS = {"log_std": "Parameter"}
GRADIENTS = {f"params/{name}" for name, _ in Actor().named_parameters()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A torch module, whose file knows which of its layers are what."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("modules") / "torch"
    with parity.record(path) as rec:
        rec.inputs(obs=OBS)
        rec.call("actor", Actor(), wrt=["params"])
    return path


def leaves(report, stage):
    return {v.leaf for each in report.comparisons if each.stage == stage for v in each.verdicts}


def test_a_module_is_recorded_with_its_weights_and_gradients_by_name(recorded):
    stage = Recording.load(recorded).stages["actor"]
    assert stage.inputs is not None
    assert {f"params/{name}" for name in stage.inputs["params"]} == GRADIENTS
    assert stage.kinds == {"body.0": "Linear", "body.1": "LayerNorm"}
    assert stage.place.code.startswith("def forward(self, obs)")
    parity.compare(recorded, {"actor": Actor()}, framework="torch").assert_ok()


def test_a_linen_module_is_held_against_it_where_torch_s_is_not(recorded):
    report = parity.compare(recorded, {"actor": LinenActor()}, rename=LINEN, kinds=KINDS)
    report.assert_ok()
    assert leaves(report, "actor") == {"mu", "std"}
    assert leaves(report, "actor gradient") == GRADIENTS
    wrong = {"actor": LinenActor(epsilon=1e-6)}
    report = parity.compare(recorded, wrong, rename=LINEN, kinds=KINDS)
    assert {(m.stage, m.leaf) for m in report.failures} >= {("actor", "mu")}
    assert ("actor", "std") not in {(m.stage, m.leaf) for m in report.failures}


@pytest.mark.parametrize("library", OTHERS)
def test_nnx_and_equinox_modules_likewise(recorded, library):
    make, rename = OTHERS[library]
    report = parity.compare(recorded, {"actor": make()}, rename=rename, kinds=KINDS)
    report.assert_ok()
    assert leaves(report, "actor gradient") == GRADIENTS


def test_a_square_layer_that_is_transposed_has_parted(recorded):
    class Transposed(LinenActor):
        @nn.compact
        def __call__(self, x):
            mean = jnp.tanh(nn.LayerNorm(epsilon=1e-5)(self.dense(x)))
            std = jnp.exp(self.param("log_std", nn.initializers.zeros, (3,)))
            return {"mean": mean, "std": std}

        def dense(self, x):
            layer = nn.Dense(3, name="Dense_0")
            layer(x)
            return x @ layer.variables["params"]["kernel"].T + layer.variables["params"]["bias"]

    report = parity.compare(recorded, {"actor": Transposed()}, rename=LINEN, kinds=KINDS)
    assert {m.leaf for m in report.failures if m.stage == "actor"} == {"mu"}


def test_a_flax_module_is_recorded_with_the_weights_of_the_reference(recorded, tmp_path):
    """On the other machine, where torch is not: names and kinds of the weights come in the file."""
    given = Recording.load(recorded).stages["actor"]
    assert given.inputs is not None
    assert given.kinds is not None
    names = {"body.0": "Dense_0", "body.1": "LayerNorm_0"}
    with parity.record(tmp_path / "linen") as rec:
        rec.inputs(x=OBS)
        inputs = {"x": OBS, "params": given.inputs["params"]}
        kinds = {**given.kinds, **KINDS}
        how = {"framework": "jax", "wrt": ["params"], "names": names, "kinds": kinds}
        rec.call("actor", LinenActor(), inputs, **how)
    report = parity.compare(recorded, tmp_path / "linen", rename={"obs": "x", "mu": "mean"})
    report.assert_ok()
    assert leaves(report, "actor gradient") == GRADIENTS
    report = parity.compare(tmp_path / "linen", {"actor": Actor()}, framework="torch",
                            rename={"x": "obs", "mean": "mu"})  # fmt: skip
    report.assert_ok()


def test_other_weights_are_other_inputs(recorded, tmp_path):
    torch.manual_seed(1)
    with parity.record(tmp_path / "other") as rec:
        rec.inputs(obs=OBS)
        rec.call("actor", Actor())
    report = parity.compare(recorded, tmp_path / "other")
    assert report.failures[0].stage == "inputs of actor"
    assert report.failures[0].leaf.startswith("params/body.0")


@pytest.mark.parametrize("library", ["linen", *OTHERS])
def test_modules_of_jax_are_recorded_by_their_own_names_too(library, tmp_path):
    if library == "linen":
        module, name = LinenActor(), "x"
        own = {"params": module.init(jax.random.key(0), OBS)}
        weight = "params/params/Dense_0/kernel"
    else:
        module, name, own = OTHERS[library][0](), "obs", {}
        weight = {"nnx": "params/layers/0/kernel", "equinox": "params/linear/weight"}[library]
    with parity.record(tmp_path / "a") as rec:
        rec.call("actor", module, {name: OBS, **own}, framework="jax", wrt=["params"])
    report = parity.compare(tmp_path / "a", {"actor": module})
    report.assert_ok()
    assert weight in leaves(report, "actor gradient")


def refuse(recorded, module, said, **how):
    with pytest.raises(UsageError, match=said):
        parity.compare(recorded, {"actor": module}, **how)


def test_what_is_missing_or_of_no_use_is_refused(recorded, tmp_path):
    rename = {"obs": "x", "mu": "mean"}
    refuse(recorded, LinenActor(), "log_std", rename=LINEN)
    refuse(recorded, LinenActor(), "rename= which Flax module", rename=rename, kinds=KINDS)
    refuse(recorded, LinenActor(), "did you mean 'body.0'", rename={"body.00": "Dense_0"})
    refuse(recorded, LinenActor, "is the class LinenActor", kinds=KINDS)
    refuse(recorded, lambda obs, params: obs, "kinds is", kinds=KINDS)
    refuse(recorded, LinenActor(), "framework='jax'", rename=LINEN, framework="torch")
    with parity.record(tmp_path / "a") as rec:
        rec.inputs(x=OBS)
        with pytest.raises(UsageError, match="inputs lacks 'params'"):
            rec.call("actor", LinenActor(), framework="jax")
        with pytest.raises(UsageError, match="its inputs lack 'params'"):
            rec.call("actor", LinenActor(), framework="jax", kinds=KINDS)
        with pytest.raises(UsageError, match="no module of Flax or Equinox"):
            rec.call("actor", lambda x: x, framework="jax", kinds=KINDS)
        with pytest.raises(UsageError, match="framework='torch'"):
            rec.call("actor", Actor(), {"obs": OBS}, framework="jax")
    with pytest.raises(UsageError, match=r"rec\.call takes it"):
        parity.compare(recorded, recorded, kinds=KINDS)
