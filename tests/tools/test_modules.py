"""`parity.check` on modules: torch's against Linen's and NNX's, and against plain functions."""

import copy
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

import parity
from pgcore.errors import UsageError

RNG = np.random.default_rng(0)
OBS = RNG.normal(size=(5, 3))
WIDTH = 4


class Actor(torch.nn.Module):
    """Two heads of one shape, and a spread that is a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(3, WIDTH), torch.nn.LayerNorm(WIDTH))
        self.mu = torch.nn.Linear(WIDTH, WIDTH)
        self.value = torch.nn.Linear(WIDTH, WIDTH)
        self.log_std = torch.nn.Parameter(torch.zeros(WIDTH))

    def forward(self, obs):
        hidden = F.gelu(self.body(obs))
        return {"mu": self.mu(hidden) * self.log_std.exp(), "value": self.value(hidden)}


class LinenActor(nn.Module):
    epsilon: float = 1e-5
    approximate: bool = False
    heads: tuple[str, str] = ("mu", "value")

    @nn.compact
    def __call__(self, x):
        hidden = nn.LayerNorm(epsilon=self.epsilon, name="norm")(nn.Dense(WIDTH)(x))
        hidden = nn.gelu(hidden, approximate=self.approximate)
        mu, value = (nn.Dense(WIDTH, name=name)(hidden) for name in self.heads)
        log_std = self.param("log_sigma", nn.initializers.zeros, (WIDTH,))
        return {"mu": mu * jnp.exp(log_std), "value": value}


class NnxActor(nnx.Module):
    def __init__(self, rngs, epsilon=1e-5, approximate=False):
        self.linear = nnx.Linear(3, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, epsilon=epsilon, rngs=rngs)
        self.mu = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.value = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.log_sigma = nnx.Param(jnp.zeros(WIDTH))
        self.approximate = approximate
        self.num_calls = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.num_calls.set_value(self.num_calls[...] + 1)
        hidden = jax.nn.gelu(self.norm(self.linear(x)), approximate=self.approximate)
        return {"mu": self.mu(hidden) * jnp.exp(self.log_sigma[...]), "value": self.value(hidden)}


def made(module):
    """A torch module whose tensors are all random, biases and scales too."""
    generator = torch.Generator().manual_seed(0)
    for tensor in module.parameters():
        torch.nn.init.normal_(tensor, std=0.5, generator=generator)
    return module


ACTOR = made(Actor())
LINEN = {"obs": "x", "body.0": "Dense_0", "body.1": "norm", "log_std": "log_sigma"}
NNX = {**LINEN, "body.0": "linear"}
BARE = {"log_std": "Parameter"}


def checked(candidate, reference=ACTOR, rename=LINEN, **options):
    return parity.check(
        reference, candidate, {"obs": OBS}, rename=rename, **{"kinds": BARE, **options}
    )


def nnx_actor(**options):
    return NnxActor(nnx.Rngs(0), **options)


def leaves(report, stage):
    [comparison] = [each for each in report.comparisons if each.stage == stage]
    return {verdict.leaf for verdict in comparison.verdicts}


PORTS = {"linen": (LinenActor(), LINEN), "nnx": (nnx_actor(), NNX)}


@pytest.mark.parametrize("flax", PORTS)
def test_a_right_port_of_a_module_is_the_same_and_gradients_have_torchs_names(flax):
    candidate, rename = PORTS[flax]
    report = checked(candidate, rename=rename)
    report.assert_ok()
    names = {f"params/{name}" for name in ACTOR.state_dict()}
    assert leaves(report, "gradients, jitted") == {"obs", *names}
    assert leaves(report, "values, eager") == {"mu", "value"}


WRONG = {
    "linen, flax's epsilon": (LinenActor(epsilon=1e-6), LINEN, {"mu", "value"}),
    "nnx, flax's epsilon": (nnx_actor(epsilon=1e-6), NNX, {"mu", "value"}),
    "linen, gelu by tanh": (LinenActor(approximate=True), LINEN, {"mu", "value"}),
    "two heads swapped in the map": (
        LinenActor(),
        {**LINEN, "params/mu": "value", "params/value": "mu"},
        {"mu", "value"},
    ),
    "two heads swapped in the outputs": (
        LinenActor(),
        {**LINEN, "mu": "value", "value": "mu"},
        {"mu", "value"},
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_port_of_a_module_is_found_and_its_outputs_named(wrong):
    candidate, rename, outputs = WRONG[wrong]
    report = checked(candidate, rename=rename, wrt=())
    found = {each.leaf for each in report.failures if each.stage == "values, eager"}
    assert found == outputs


def test_a_wrong_head_alone_is_named_by_its_output_and_its_weights():
    class Scaled(LinenActor):
        @nn.compact
        def __call__(self, x):
            outputs = LinenActor.__call__(self, x)
            return {**outputs, "value": outputs["value"] + 1e-3 * outputs["value"] ** 2}

    report = checked(Scaled())
    by_stage = {
        stage: {each.leaf for each in report.failures if each.stage == stage}
        for stage in ("values, eager", "gradients, eager")
    }
    assert by_stage["values, eager"] == {"value"}
    assert {"params/value.weight", "params/value.bias"} <= by_stage["gradients, eager"]
    assert "params/mu.weight" not in by_stage["gradients, eager"]


# --- whose weights


def test_the_callers_modules_are_as_they_were():
    module, port = copy.deepcopy(ACTOR).train(), nnx_actor()
    module.mu.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(port)))
    assert checked(port, module, NNX).ok
    after = module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert module.training
    assert not module.mu.weight.requires_grad
    assert module.log_std.requires_grad
    assert module.log_std.grad is None
    assert jax.tree.all(
        jax.tree.map(np.array_equal, state, nnx.to_pure_dict(nnx.state(port)))
    )  # the count of calls too


def plain_linear(params, obs):
    return obs @ params["weight"].T + params["bias"]


def test_a_torch_module_gives_a_plain_function_its_weights_by_name():
    module = made(torch.nn.Linear(3, 2))
    parity.check(module, plain_linear, {"input": OBS}, rename={"input": "obs"}).assert_ok()

    def without_bias(params, obs):
        return obs @ params["weight"].T

    report = parity.check(module, without_bias, {"input": OBS}, rename={"input": "obs"})
    assert report.failures[0].stage == "values, eager"
    bias = module.bias.detach().double().numpy()
    # The two part by the bias alone, and most where it is largest.
    assert report.failures[0].error == pytest.approx(np.abs(bias).max(), rel=1e-12)


def test_weights_that_are_given_go_before_the_modules_own():
    module = made(torch.nn.Linear(3, 2))
    weights = {name: 2 * tensor for name, tensor in module.state_dict().items()}

    weight, bias = (tensor.numpy() for tensor in weights.values())

    def doubled(params, input):
        return input @ weight.T + bias

    how = {"rename": {"input": "obs"}, "oracle": doubled, "wrt": ()}
    inputs = {"params": weights, "input": OBS}
    parity.check(module, plain_linear, inputs, **how).assert_ok()
    assert not parity.check(module, plain_linear, {"input": OBS}, **how).ok


@pytest.mark.parametrize("flax", ["linen", "nnx"])
def test_a_plain_reference_gets_flaxs_own_tree(flax):
    def in_torch(params, inputs):
        params = params.get("params", params)
        return inputs @ params["kernel"] + params["bias"]

    port = nnx.Linear(3, 2, rngs=nnx.Rngs(0)) if flax == "nnx" else nn.Dense(2)
    inputs = {"inputs": OBS}
    if flax == "linen":
        inputs["params"] = port.init(jax.random.key(0), jnp.zeros(3))
    report = parity.check(in_torch, port, inputs)
    report.assert_ok()
    assert len(leaves(report, "gradients, eager")) == 3

    def without_kernel_transposed(params, inputs):
        return in_torch(params, inputs.flip(-1))

    assert not parity.check(without_kernel_transposed, port, inputs).ok


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 3, bias=False)
        self.second = torch.nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class LinenTied(nn.Module):
    @nn.compact
    def __call__(self, x):
        first = nn.Dense(3, use_bias=False, name="first")
        return first(jnp.tanh(first(x)))


def test_a_tied_weight_is_one_weight():
    module = made(Tied())
    report = parity.check(module, LinenTied(), {"x": OBS})
    report.assert_ok()
    assert leaves(report, "gradients, eager") == {"x", "params/first.weight"}
    state = module.state_dict()
    parity.check(module, LinenTied(), {"x": OBS, "params": state}, wrt=()).assert_ok()
    other = {**state, "second.weight": state["second.weight"] + 1}
    with pytest.raises(UsageError, match="'second.weight'. differs from 'first.weight'"):
        parity.check(module, LinenTied(), {"x": OBS, "params": other})


# --- layers of other kinds


class Picture(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, (2, 3))

    def forward(self, image):
        return torch.relu(self.conv(image))


class LinenPicture(nn.Module):
    @nn.compact
    def __call__(self, image):
        channels_last = jnp.moveaxis(image, -3, -1)
        found = nn.relu(nn.Conv(3, (2, 3), padding="VALID", name="conv")(channels_last))
        return jnp.moveaxis(found, -1, -3)


class UnmovedPicture(nn.Module):
    @nn.compact
    def __call__(self, image):
        return nn.relu(nn.Conv(3, (2, 3), padding="VALID", name="conv")(image))


def test_a_convolution_agrees_where_its_wrapper_moves_the_channels():
    inputs = {"image": RNG.normal(size=(2, 2, 4, 5))}
    parity.check(made(Picture()), LinenPicture(), inputs).assert_ok()
    with pytest.raises(UsageError, match=r"conv/kernel becomes \[2, 3, 2, 3\], and the Flax"):
        parity.check(made(Picture()), UnmovedPicture(), inputs)


def test_an_embedding_takes_integers_and_its_table_is_differentiated():
    module = made(torch.nn.Embedding(4, 3))
    inputs = {"input": np.array([[1, 3], [0, 1]])}
    rename = {"input": "inputs", "": "embed"}

    class Table(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return nn.Embed(4, 3, name="embed")(inputs)

    report = parity.check(module, Table(), inputs, rename=rename)
    report.assert_ok()
    assert leaves(report, "gradients, jitted") == {"params/weight"}

    class Shifted(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return nn.Embed(4, 3, name="embed")((inputs + 1) % 4)

    assert not parity.check(module, Shifted(), inputs, rename=rename).ok


# --- buffers


class Normalized(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.norm.running_mean += 0.3
        self.register_buffer("scale", torch.tensor([0.125, 2.0, 3.0]))

    def forward(self, x):
        return self.norm(x) * self.scale


NORM_KINDS = {f"norm.{name}": "Parameter" for name in ("weight", "bias")}
RUNNING_KINDS = {f"norm.running_{name}": "Parameter" for name in ("mean", "var")}
NORM_NAMES = {"norm.weight": "norm/scale", "norm.bias": "norm/bias"}


class NnxNormalized(nnx.Module):
    def __init__(self, **options):
        self.norm = nnx.BatchNorm(3, epsilon=1e-5, rngs=nnx.Rngs(0), **options)
        self.scale = jnp.array([0.125, 2.0, 3.0])

    def __call__(self, x):
        return self.norm(x) * self.scale


class LinenNormalized(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="norm")
        return norm(x) * jnp.array([0.125, 2.0, 3.0])


def test_batch_statistics_stay_in_a_call_and_a_buffer_that_is_not_given_is_a_constant():
    module, port = Normalized().train(), NnxNormalized(use_running_average=False)
    before = copy.deepcopy(module.state_dict())
    report = parity.check(module, port, {"x": OBS}, kinds=NORM_KINDS, rename=NORM_NAMES)
    report.assert_ok()
    assert leaves(report, "gradients, eager") == {"x", "params/norm.weight", "params/norm.bias"}
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert np.array_equal(port.norm.mean[...], np.zeros(3))
    assert "buffer scale is a constant, the module's own in float32" in report.notes


@pytest.mark.parametrize("flax", ["linen", "nnx"])
def test_buffers_that_are_given_are_carried_over_and_not_differentiated(flax):
    module = Normalized().eval()
    port, into = LinenNormalized(), "batch_stats/norm"
    if flax == "nnx":
        port, into = NnxNormalized(use_running_average=True), "norm"
    given = {n: t for n, t in module.state_dict().items() if n.startswith("norm.") and t.ndim}
    rename = {
        **NORM_NAMES,
        "norm.running_mean": f"{into}/mean",
        "norm.running_var": f"{into}/var",
    }
    kinds = {**NORM_KINDS, **RUNNING_KINDS}
    inputs = {"x": OBS, "params": given}
    report = parity.check(module, port, inputs, kinds=kinds, rename=rename)
    report.assert_ok()
    assert leaves(report, "gradients, eager") == {"x", "params/norm.weight", "params/norm.bias"}
    moved = {**given, "norm.running_mean": given["norm.running_mean"] + 1}
    in_torch = module(torch.tensor(OBS, dtype=torch.float32))
    moved_report = parity.check(
        module, port, {**inputs, "params": moved}, kinds=kinds, rename=rename
    )
    moved_report.assert_ok()
    assert torch.equal(in_torch, module(torch.tensor(OBS, dtype=torch.float32)))
    with pytest.raises(UsageError, match="wrt is 'params/norm.running_mean'"):
        parity.check(
            module, port, inputs, kinds=kinds, rename=rename, wrt=["params/norm.running_mean"]
        )
    how = {"kinds": NORM_KINDS, "rename": NORM_NAMES, "wrt": ()}
    if flax == "nnx":  # its own statistics are other ones, and Linen has none of its own
        assert not parity.check(module, port, {"x": OBS}, **how).ok
    else:
        with pytest.raises(UsageError, match="has batch_stats/norm/mean.* left over"):
            parity.check(module, port, {"x": OBS}, **how)


class Summed(Normalized):
    def forward(self, x):
        return super().forward(x).sum()


def test_a_wrong_sum_is_found_though_batch_statistics_are_given():
    module = Summed().eval()
    given = {n: t for n, t in module.state_dict().items() if t.is_floating_point()}
    report = parity.check(module, lambda params, x: x.sum(), {"x": OBS, "params": given})
    assert report.failures[0].leaf == "value"


class Counting(torch.nn.Module):
    """Changes what it is made of when it is called: a list, and a buffer that its result shows."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        self.seen.append(x)
        self.steps += 1
        return x * self.steps


def test_what_a_module_makes_of_itself_ends_with_the_call():
    module = Counting()
    parity.check(module, lambda x: x * 1, {"x": OBS}, wrt=()).assert_ok()
    assert module.seen == []
    assert module.steps == 0


# --- randomness


def noisy_in_torch(x):
    return x + 1e-3 * torch.randn(())


RANDOM = {
    "torch.randn inside": (noisy_in_torch, lambda x: x),
    "numpy inside the candidate": (
        lambda x: x * 1,
        lambda x: x + np.random.default_rng().normal(),
    ),
    "a tiny dropout": (lambda x: F.dropout(x[0, 0], 0.1, training=True), lambda x: x[0, 0]),
}


@pytest.mark.parametrize("case", RANDOM)
def test_what_draws_random_numbers_is_refused(case):
    with pytest.raises(UsageError, match="(reference|candidate) gives another result for 'value'"):
        parity.check(*RANDOM[case], {"x": OBS})


def test_dropout_in_training_mode_is_refused_and_passes_in_evaluation():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.1)).train()
    how = {"rename": {"input": "x", "0": "Dense_0"}, "wrt": ()}
    with pytest.raises(UsageError, match=r"reference gives another.*\.eval\(\)"):
        parity.check(module, Wide(), {"input": OBS}, **how)
    parity.check(module.eval(), Wide(), {"input": OBS}, **how).assert_ok()


class LinenDropout(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(x)


@pytest.mark.parametrize("flax", ["linen", "nnx"])
def test_dropout_in_flax_is_refused(flax):
    port = LinenDropout() if flax == "linen" else nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    name = "x" if flax == "linen" else "inputs"
    with pytest.raises(UsageError, match="candidate draws random numbers.*deterministic=True"):
        parity.check(torch.nn.Identity(), port, {"input": OBS}, rename={"input": name})


def test_nan_in_the_same_places_is_no_randomness():
    def logs(x):
        return {"log": x.log() if isinstance(x, torch.Tensor) else jnp.log(x), "x": 2 * x}

    inputs = {"x": np.array([-1.0, 0.0, 1.0])}
    parity.check(logs, logs, inputs, expect_nonfinite=["log"]).assert_ok()


def test_random_numbers_that_reach_no_result_are_nobodys_business():
    def in_torch(x):
        torch.randn(3)
        return 2 * x

    parity.check(in_torch, lambda x: 2 * x, {"x": OBS}, wrt=()).assert_ok()


# --- what is refused


class Deeper(nn.Module):
    @nn.compact
    def __call__(self, x):
        return LinenActor()(nn.Dense(3, name="more")(x))


class Wide(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


def test_leftovers_on_either_side_are_refused():
    said = r"Flax module lacks .*norm/scale.*rename= which Flax module each torch module is"
    with pytest.raises(UsageError, match=said):
        checked(Wide())
    linear = made(torch.nn.Linear(3, 3))
    with pytest.raises(UsageError, match="lacks kernel, bias and has Dense_0/.*left over"):
        parity.check(linear, Wide(), {"input": OBS}, rename={"input": "x"})
    with pytest.raises(UsageError, match="more/kernel.*left over"):
        checked(
            Deeper(),
            rename={**LINEN, "": "LinenActor_0", "body.0": "LinenActor_0/Dense_0"}
            | {"body.1": "LinenActor_0/norm", "log_std": "LinenActor_0/log_sigma"},
        )
    port = nnx_actor()
    port.norm = nnx.LayerNorm(WIDTH, use_bias=False, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="Flax module lacks norm/bias"):
        checked(port, rename=NNX)
    port = nnx_actor()
    port.more = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="Flax module has more/bias, more/kernel left over"):
        checked(port, rename=NNX)


def test_another_shape_is_refused_on_either_side():
    class Narrow(nn.Module):
        @nn.compact
        def __call__(self, input):
            return nn.Dense(2, name="linear")(input)

    linear = made(torch.nn.Linear(3, 4))
    with pytest.raises(UsageError, match=r"linear/kernel becomes \[3, 4\], and the Flax module"):
        parity.check(linear, Narrow(), {"input": OBS}, rename={"": "linear"})
    turned = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match=r"\[4, 3\]: its kind says that the axes are permuted by"):
        parity.check(linear, turned, {"input": OBS}, rename={"input": "inputs"})
    weights = {**linear.state_dict(), "bias": np.zeros(1)}
    with pytest.raises(UsageError, match=r"\['bias'\] has the shape \[1\].*\[4\]"):
        parity.check(linear, plain_linear, {"input": OBS, "params": weights})


def test_a_bare_parameter_needs_its_kind():
    with pytest.raises(UsageError, match="log_std belongs to a Actor.*kinds"):
        checked(LinenActor(), kinds=None)


class Confusing(torch.nn.Module):
    def forward(self, params):
        return params


OF_WIDE = {"Dense_0": {"kernel": np.ones((OBS.shape[-1], 3))}, "more": OBS}
REFUSED = {
    "a method of a module": (
        lambda: checked(LinenActor(), ACTOR.forward),
        "reference is a method of a Actor.*accepted is the module itself",
    ),
    "an argument called params": (
        lambda: parity.check(Confusing(), lambda params: params, {"params": OBS}),
        "forward of Confusing has an argument 'params'",
    ),
    "the weights under another name": (
        lambda: checked(LinenActor(), rename={**LINEN, "params": "variables"}),
        "rename is 'params', accepted are obs, mu, value",
    ),
    "a flax module as reference": (
        lambda: checked(LinenActor(), LinenActor()),
        "reference is LinenActor, a linen module, accepted is a torch.nn.Module",
    ),
    "a torch module as candidate": (
        lambda: checked(ACTOR),
        "candidate is Actor, a torch module, accepted is a Flax module",
    ),
    "a class as reference": (lambda: checked(LinenActor(), Actor), "reference is the class Actor"),
    "a class as candidate": (lambda: checked(NnxActor), "candidate is the class NnxActor"),
    "no weights for a linen module": (
        lambda: parity.check(lambda x: x, Wide(), {"x": OBS}),
        "inputs lacks 'params', and Wide is a Linen module",
    ),
    "a keyword that forward does not take": (
        lambda: parity.check(ACTOR, LinenActor(), {"observation": OBS}),
        "an input of the reference is 'observation', accepted are obs",
    ),
    "a keyword that the flax module does not take": (
        lambda: checked(LinenActor(), rename={}),
        "an input of the candidate is 'obs', accepted are x",
    ),
    "an argument that forward lacks": (
        lambda: parity.check(ACTOR, LinenActor(), {}),
        "the reference needs 'obs' too",
    ),
    "a module that there is not": (
        lambda: checked(LinenActor(), rename={**LINEN, "bdy.0": "Dense_1"}),
        "rename is 'bdy.0'.*did you mean 'body.0'",
    ),
    "kinds where nothing is converted": (
        lambda: checked(lambda params, x: x, rename={"obs": "x"}),
        "kinds is .* accepted is None unless",
    ),
    "a kind of nothing": (
        lambda: checked(LinenActor(), kinds={**BARE, "logstd": "Parameter"}),
        "entry of kinds is 'logstd'.*did you mean 'log_std'",
    ),
    "a weight that is not given": (
        lambda: parity.check(ACTOR, LinenActor(), {"obs": OBS, "params": {}}),
        r"inputs\['params'\] lacks log_std, body.0.weight",
    ),
    "a weight too many": (
        lambda: parity.check(
            ACTOR, LinenActor(), {"obs": OBS, "params": {**ACTOR.state_dict(), "x": OBS}}
        ),
        r"inputs\['params'\] has x left over",
    ),
    "a variable that is not given": (
        lambda: parity.check(lambda x, params: x, Wide(), {"x": OBS, "params": OF_WIDE}),
        r"inputs\['params'\] lacks Dense_0/bias and has more left over; give the variables",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_meant_is_refused_in_words(case):
    call, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        call()


# --- the program that repeats a check

REPEATED = made(torch.nn.Linear(3, 2))


class Off(nn.Module):
    @nn.compact
    def __call__(self, input):
        return nn.Dense(2, name="linear")(input) * (1 + 1e-6)


OFF = Off()


def test_modules_at_the_top_of_a_file_are_repeated_with_the_weights_of_that_moment(tmp_path):
    report = parity.check(REPEATED, OFF, {"input": OBS}, rename={"": "linear"}, wrt=())
    weight = REPEATED.weight.detach().clone()
    with torch.no_grad():
        REPEATED.weight.zero_()
    report.repro_script(tmp_path / "repro.py")
    with torch.no_grad():
        REPEATED.weight.copy_(weight)
    process = subprocess.run(
        [sys.executable, tmp_path / "repro.py"], capture_output=True, text=True, check=False
    )
    assert process.stdout.startswith(report.summary()), process.stderr
    assert process.returncode == 1


def test_a_module_that_stands_nowhere_cannot_be_written_down(tmp_path):
    report = parity.check(REPEATED, Off(), {"input": OBS}, rename={"": "linear"}, wrt=())
    with pytest.raises(UsageError, match="candidate is Off, .*a network made there"):
        report.repro_script(tmp_path / "repro.py")
