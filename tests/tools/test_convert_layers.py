"""Every kind of layer, in Flax Linen, Flax NNX and Equinox: certified on the real layers, to the
last bit there and back, and each fault that no shape can see is named.
"""

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from parity import convert
from parity.convert import REGISTRY
from parity.convert.fast_variance import norms
from parity.tolerance import SLACK
from pgcore.errors import UsageError

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
OBS = RNG.normal(size=(4, 3))
SERIES = RNG.normal(size=(2, 3, 6))
IMAGES = RNG.normal(size=(2, 4, 5, 5))
VOLUMES = RNG.normal(size=(1, 2, 3, 3, 3))
STEPS = RNG.normal(size=(2, 4, 3))  # [batch, time, feature]


def channels_last(apply):
    """Flax keeps channels last: inputs and outputs are [batch, channel, ...] here, as torch's."""
    return lambda params, x: jnp.moveaxis(apply(params, jnp.moveaxis(x, 1, -1)), -1, 1)


def linen(layer, x, **kwargs):
    """A Linen layer's function and variables, for inputs as torch has them."""
    images = x.ndim > 2
    shape = (1, *x.shape[2:], x.shape[1]) if images else x.shape
    example = jnp.zeros(shape, "int32" if x.dtype.kind == "i" else "float32")
    template = jax.eval_shape(lambda: layer.init(KEY, example, **kwargs))
    return (channels_last if images else lambda f: f)(layer.apply), template


def of_nnx(layer, x):
    """The same of an NNX layer; the module itself is the template."""
    return (channels_last if x.ndim > 2 else lambda f: f)(type(layer).__call__), layer


def of_equinox(layer, x):
    """The same of an Equinox layer, which has torch's order of axes and no batch."""
    del x
    return (lambda module, x: jax.vmap(module)(x)), layer


def stateful(mode, size):
    """Equinox's BatchNorm and its state, for inference."""
    model, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(size, "batch", mode=mode)

    def apply(pair, x):
        model, state = pair
        over_batch = {"axis_name": "batch", "in_axes": (0, None), "out_axes": (0, None)}
        return jax.vmap(model, **over_batch)(x, state)[0]

    return apply, (eqx.nn.inference_mode(model), state)


RNGS = nnx.Rngs(0)
VALID = {"padding": "VALID"}
T = torch.nn
KERNEL = {"transpose_kernel": True, "padding": "VALID"}
E = eqx.nn


with jax.enable_x64(True):  # NNX's Embed rounds to the dtype that it was made with
    EMBED = nnx.Embed(5, 5, param_dtype=jnp.float64, rngs=nnx.Rngs(0))

CASES = {
    "Linear, NNX": (T.Linear(3, 3), of_nnx(nnx.Linear(3, 3, rngs=RNGS), OBS), OBS),
    "Linear, Equinox": (T.Linear(3, 3), of_equinox(E.Linear(3, 3, key=KEY), OBS), OBS),
    "Embedding, NNX": (
        T.Embedding(5, 5), of_nnx(EMBED, np.arange(5)), np.arange(5)),
    "Embedding, Equinox": (
        T.Embedding(5, 5), of_equinox(E.Embedding(5, 5, key=KEY), OBS), np.arange(5)),
    "LayerNorm, NNX": (
        T.LayerNorm(3), of_nnx(nnx.LayerNorm(3, epsilon=1e-5, rngs=RNGS), OBS), OBS),
    "LayerNorm, Equinox": (T.LayerNorm(3), of_equinox(E.LayerNorm(3), OBS), OBS),
    "GroupNorm, Equinox": (T.GroupNorm(2, 4), of_equinox(E.GroupNorm(2, 4), IMAGES), IMAGES),
    "RMSNorm, Equinox": (
        T.RMSNorm(3, eps=1e-5), of_equinox(E.RMSNorm(3, use_bias=False, eps=1e-5), OBS), OBS),
    "Conv1d, Equinox": (T.Conv1d(3, 3, 3), of_equinox(E.Conv1d(3, 3, 3, key=KEY), 0), SERIES),
    "Conv2d, strides, dilation, padding": (
        T.Conv2d(4, 4, 3, stride=2, padding=1, dilation=2),
        linen(nn.Conv(4, (3, 3), strides=2, padding=1, kernel_dilation=2), IMAGES),
        IMAGES,
    ),
    "Conv2d, NNX, groups, no bias": (
        T.Conv2d(4, 6, 2, groups=2, bias=False),
        of_nnx(
            nnx.Conv(4, 6, (2, 2), feature_group_count=2, use_bias=False, **VALID, rngs=RNGS),
            IMAGES),
        IMAGES,
    ),
    "Conv2d, Equinox, groups, strides": (
        T.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        of_equinox(E.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, key=KEY), 0),
        IMAGES,
    ),
    "Conv3d": (T.Conv3d(2, 2, 2), linen(nn.Conv(2, (2, 2, 2), **VALID), VOLUMES), VOLUMES),
    "Conv3d, Equinox": (T.Conv3d(2, 2, 2), of_equinox(E.Conv3d(2, 2, 2, key=KEY), 0), VOLUMES),
    "ConvTranspose1d": (
        T.ConvTranspose1d(3, 3, 3, stride=2),
        linen(nn.ConvTranspose(3, (3,), strides=(2,), **VALID), SERIES),
        SERIES,
    ),
    "ConvTranspose2d, NNX": (
        T.ConvTranspose2d(4, 4, 3),
        of_nnx(nnx.ConvTranspose(4, 4, (3, 3), **VALID, rngs=RNGS), IMAGES),
        IMAGES,
    ),
    "ConvTranspose2d, Equinox": (
        T.ConvTranspose2d(4, 4, 3, stride=2, padding=1),
        of_equinox(E.ConvTranspose2d(4, 4, 3, stride=2, padding=1, key=KEY), 0),
        IMAGES,
    ),
    "ConvTranspose3d": (
        T.ConvTranspose3d(2, 2, 2), linen(nn.ConvTranspose(2, (2, 2, 2), **VALID), VOLUMES),
        VOLUMES),
    "ConvTranspose1dTransposeKernel": (
        T.ConvTranspose1d(3, 3, 3), linen(nn.ConvTranspose(3, (3,), **KERNEL), SERIES), SERIES),
    "ConvTranspose2dTransposeKernel": (
        T.ConvTranspose2d(4, 3, 2), linen(nn.ConvTranspose(3, (2, 2), **KERNEL), IMAGES), IMAGES),
    "ConvTranspose3dTransposeKernel": (
        T.ConvTranspose3d(2, 3, 2), linen(nn.ConvTranspose(3, (2,) * 3, **KERNEL), VOLUMES),
        VOLUMES),
    "BatchNorm1d": (
        T.BatchNorm1d(3), linen(nn.BatchNorm(use_running_average=True), OBS), OBS),
    "BatchNorm2d, NNX": (
        T.BatchNorm2d(4),
        of_nnx(nnx.BatchNorm(4, use_running_average=True, rngs=RNGS), IMAGES),
        IMAGES,
    ),
    "BatchNorm3d": (
        T.BatchNorm3d(2), linen(nn.BatchNorm(use_running_average=True), VOLUMES), VOLUMES),
    "BatchNorm1d, Equinox, batch": (T.BatchNorm1d(3), stateful("batch", 3), OBS),
    "BatchNorm2d, Equinox, ema": (T.BatchNorm2d(4), stateful("ema", 4), IMAGES),
    "GroupNorm, NNX": (
        T.GroupNorm(2, 4), of_nnx(nnx.GroupNorm(4, 2, epsilon=1e-5, rngs=RNGS), IMAGES), IMAGES),
    "RMSNorm, NNX": (
        T.RMSNorm(3, eps=1e-5), of_nnx(nnx.RMSNorm(3, epsilon=1e-5, rngs=RNGS), OBS), OBS),
    "BatchNorm1d, NNX": (
        T.BatchNorm1d(3), of_nnx(nnx.BatchNorm(3, use_running_average=True, rngs=RNGS), OBS), OBS),
    "BatchNorm3d, NNX": (
        T.BatchNorm3d(2),
        of_nnx(nnx.BatchNorm(2, use_running_average=True, rngs=RNGS), VOLUMES),
        VOLUMES,
    ),
    "Conv1d, Linen": (T.Conv1d(3, 3, 3), linen(nn.Conv(3, (3,), **VALID), SERIES), SERIES),
    "Conv1d, NNX": (
        T.Conv1d(3, 3, 3), of_nnx(nnx.Conv(3, 3, (3,), **VALID, rngs=RNGS), SERIES), SERIES),
    "Conv3d, NNX": (
        T.Conv3d(2, 2, 2), of_nnx(nnx.Conv(2, 2, (2, 2, 2), **VALID, rngs=RNGS), VOLUMES), VOLUMES),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_kind_is_certified_in_linen_in_nnx_and_in_equinox(case):
    module, (apply, template), inputs = CASES[case]
    kind = case.split(",")[0]
    kinds = {"": kind} if kind.endswith("TransposeKernel") else None
    jit = not isinstance(template, nnx.Module | eqx.Module)
    apply = apply if jit else eqx.filter_jit(apply)
    convert.certify(module, apply, template, inputs, kinds=kinds, jit=False).assert_ok()


# --- recurrent layers


class Recurrent(T.Module):
    """A recurrent layer of torch whose outputs are all that it gives."""

    def __init__(self, kind, **kwargs):
        super().__init__()
        self.rnn = getattr(T, kind)(3, 3, batch_first=True, **kwargs)

    def forward(self, x):
        return self.rnn(x)[0]


class Scanned(eqx.Module):
    """An Equinox cell over time."""

    cell: eqx.Module

    def __call__(self, x):
        def step(carry, x):
            carry = self.cell(x, carry)
            return carry, carry[0] if isinstance(carry, tuple) else carry

        zeros = jnp.zeros(3, x.dtype)
        is_lstm = isinstance(self.cell, E.LSTMCell)
        return jax.lax.scan(step, (zeros, zeros) if is_lstm else zeros, x)[1]


def carry(x, kind):
    """Flax's own carry is float32 whatever the inputs."""
    zeros = jnp.zeros((len(x), 3), x.dtype)
    return (zeros, zeros) if kind == "LSTM" else zeros


def recurrent(name):
    """The function and template of a recurrent layer in JAX, and what kind torch's is."""
    kind = "LSTM" if "LSTM" in name else "GRU"
    library, cell = name.split(".")
    if library == "linen":
        layer = nn.RNN(getattr(nn, cell)(3))
        template = jax.eval_shape(lambda: layer.init(KEY, jnp.zeros(STEPS.shape)))
        return kind, lambda p, x: layer.apply(p, x, initial_carry=carry(x, kind)), template
    if library == "nnx":
        layer = nnx.RNN(getattr(nnx, cell)(3, 3, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
        graph, state, rest = nnx.split(layer, nnx.Param, ...)

        def merged(params, x):
            return nnx.merge(graph, params, rest)(x, initial_carry=carry(x, kind))

        return kind, merged, state
    apply = eqx.filter_jit(lambda module, x: jax.vmap(module)(x))
    return kind, apply, Scanned(getattr(E, cell)(3, 3, key=KEY))


CELLS = [
    "linen.LSTMCell", "linen.OptimizedLSTMCell", "linen.GRUCell",
    "nnx.LSTMCell", "nnx.OptimizedLSTMCell", "nnx.GRUCell",
    "equinox.LSTMCell", "equinox.GRUCell",
]  # fmt: skip
CELL = {"rnn.l0": "cell"}


@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_layer_is_certified_with_its_biases_merged(cell):
    kind, apply, template = recurrent(cell)
    jit = not cell.startswith("equinox")
    certificate = convert.certify(
        Recurrent(kind), apply, template, STEPS, names=CELL, merge_biases=True, jit=jit
    )
    certificate.assert_ok()
    zeros = [note for note in certificate.notes if "zeros throughout" in note]
    nothing = ["zeros throughout: rnn.bias_hh_l0, part 2 of 3, zero"]
    assert zeros == (nothing if cell == "nnx.GRUCell" else [])


@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_layer_without_a_second_bias_comes_back_to_the_last_bit(cell):
    kind, _, template = recurrent(cell)
    module = Recurrent(kind)
    with pytest.raises(UsageError, match=r"rnn.bias_hh_l0.* is not zeros, and"):
        convert.to_flax(module, template, names=CELL)
    with torch.no_grad():
        own = slice(0, 6) if kind == "GRU" and cell != "nnx.GRUCell" else slice(None)
        module.rnn.bias_hh_l0[own] = 0
        module.rnn.bias_ih_l0[0] = -0.0  # + 0.0 would make it 0.0
    params = convert.to_flax(module, template, names=CELL)
    assert_identical(convert.to_torch(params, module, names=CELL), module.state_dict())


def test_merged_biases_come_back_as_their_sum_and_zeros():
    _, _, template = recurrent("linen.LSTMCell")
    module = Recurrent("LSTM")
    params = convert.to_flax(module, template, names=CELL, merge_biases=True)
    back = convert.to_torch(params, module, names=CELL)
    assert torch.equal(back["rnn.bias_ih_l0"], module.rnn.bias_ih_l0 + module.rnn.bias_hh_l0)
    assert not back["rnn.bias_hh_l0"].any()
    assert torch.equal(back["rnn.weight_hh_l0"], module.rnn.weight_hh_l0)


def test_a_bias_that_has_no_place_is_refused_even_if_merged():
    _, _, template = recurrent("nnx.GRUCell")
    with pytest.raises(UsageError, match=r"bias_hh_l0 \(part 2 of 3\) is not zeros, and this GRU"):
        convert.to_flax(Recurrent("GRU"), template, names=CELL, merge_biases=True)


class Stack(nn.Module):
    """Two layers, each in both directions."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            rnns = [nn.RNN(nn.GRUCell(3)), nn.RNN(nn.GRUCell(3))]
            zeros = jnp.zeros((len(x), 3), x.dtype)
            x = jnp.concatenate(
                [
                    rnns[0](x, initial_carry=zeros),
                    rnns[1](x, initial_carry=zeros, reverse=True, keep_order=True),
                ],
                -1,
            )
        return x


def test_layers_in_both_directions_are_certified():
    module = Recurrent("GRU", num_layers=2, bidirectional=True)
    template = jax.eval_shape(lambda: Stack().init(KEY, jnp.zeros(STEPS.shape)))
    names = {
        f"rnn.l{i}{suffix}": f"GRUCell_{2 * i + k}"
        for i in range(2)
        for k, suffix in enumerate(("", "_reverse"))
    }
    convert.certify(
        module, Stack().apply, template, STEPS, names=names, merge_biases=True
    ).assert_ok()


def assert_identical(a, b):
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].numpy().tobytes() == b[name].detach().numpy().tobytes(), name


# --- nets of several layers


class ConvNet(T.Module):
    def __init__(self, padding=1, stride=2):
        super().__init__()
        self.conv = T.Conv2d(4, 3, 3, stride=stride, padding=padding)
        self.fc = T.Linear(27, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).flatten(1))


class LinenConvNet(nn.Module):
    padding: object = 1

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (3, 3), strides=2, padding=self.padding, name="conv")(x))
        return nn.Dense(2, name="fc")(x.reshape(len(x), -1))


def linen_convnet(size=5, **kwargs):
    net = LinenConvNet(**kwargs)
    template = jax.eval_shape(lambda: net.init(KEY, jnp.zeros((1, size, size, 4))))
    return lambda p, x: net.apply(p, jnp.moveaxis(x, 1, -1)), template


def test_a_flattened_image_is_converted_in_the_order_that_the_map_states():
    apply, template = linen_convnet()
    stated = {"fc": "Linear[3x3x3]"}
    convert.certify(ConvNet(), apply, template, IMAGES, kinds=stated).assert_ok()
    failed = convert.certify(ConvNet(), apply, template, IMAGES)
    assert "the inputs of fc.weight in the order of an image of 3 channels" in str(failed)
    assert "kinds={'fc': 'Linear[3x9]'} says so" in str(failed)
    convert.certify(ConvNet(), apply, template, IMAGES, kinds={"fc": "Linear[3x9]"}).assert_ok()
    with pytest.raises(UsageError, match=r"fc.weight.*accepted instead of 27 is 4 · 3 · 3"):
        convert.to_flax(ConvNet(), template, kinds={"fc": "Linear[4x3x3]"})


def test_other_padding_is_named():
    # Over 6 columns with stride 2 Flax's SAME pads (0, 1), torch (1, 1).
    images = RNG.normal(size=(2, 4, 6, 6))
    apply, template = linen_convnet(size=6, padding="SAME")
    kinds = {"fc": "Linear[3x3x3]"}
    failed = convert.certify(ConvNet(), apply, template, images, kinds=kinds)
    assert "the networks agree with padding as Flax's SAME does it in conv (torch: (1, 1))" in str(
        failed
    )


def test_another_epsilon_is_named():
    apply, template = linen(nn.LayerNorm(), OBS)
    failed = convert.certify(T.LayerNorm(3), apply, template, OBS)
    assert "agree with eps 1e-06 in the module (torch: 1e-05): no weight says so" in str(failed)


def test_a_kernel_that_flax_flips_itself_is_named():
    apply, template = linen(nn.ConvTranspose(3, (3,), **KERNEL), SERIES)
    failed = convert.certify(T.ConvTranspose1d(3, 3, 3), apply, template, SERIES)
    assert "with the kernel weight flipped and its axes (0, 1) exchanged" in str(failed)


@pytest.mark.parametrize("gates", ["if", "io"])
def test_exchanged_gates_are_named(gates):
    _, apply, template = recurrent("linen.LSTMCell")

    def exchanged(params, x):
        cell = dict(params["params"]["cell"])
        for side in "ih":
            a, b = side + gates[0], side + gates[1]
            cell[a], cell[b] = cell[b], cell[a]
        return apply({"params": {"cell": cell}}, x)

    failed = convert.certify(Recurrent("LSTM"), exchanged, template, STEPS, names=CELL)
    assert f"the gates {gates[0]} and {gates[1]} of rnn.l0 exchanged" in str(failed)


class Block(T.Module):
    """A transformer block with tied embeddings."""

    def __init__(self):
        super().__init__()
        self.embed = T.Embedding(5, 4)
        self.norm = T.LayerNorm(4, eps=1e-6)
        self.attention = T.MultiheadAttention(4, 2, batch_first=True)
        self.up, self.down = T.Linear(4, 4), T.Linear(4, 4)
        self.head = T.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(x + self.down(torch.relu(self.up(x))))


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(5, 4, name="embed")
        x = embed(tokens)
        attention = nn.MultiHeadDotProductAttention(2, name="attention")
        x = x + attention(nn.LayerNorm(name="norm")(x))
        return embed.attend(x + nn.Dense(4, name="down")(nn.relu(nn.Dense(4, name="up")(x))))


TIED: Any = {"names": {"head": "embed"}, "kinds": {"head": "Embedding"}}


def test_a_transformer_block_is_certified_and_comes_back_to_the_last_bit():
    tokens = np.array([[0, 1, 2], [3, 4, 0]])
    template = jax.eval_shape(lambda: LinenBlock().init(KEY, tokens))
    module = Block()
    convert.certify(module, LinenBlock().apply, template, tokens, **TIED).assert_ok()
    params = convert.to_flax(module, template, **TIED)
    assert params["params"]["attention"]["query"]["kernel"].shape == (4, 2, 2)
    assert_identical(convert.to_torch(params, module, **TIED), module.state_dict())


def test_what_is_not_tied_in_torch_can_not_become_one_leaf():
    module = Block()
    module.head.weight = T.Parameter(module.embed.weight.detach().clone())
    with pytest.raises(UsageError, match=r"embed.weight and head.weight would both become"):
        convert.layout(module, **TIED)


def test_attention_is_converted_to_equinox():
    attention = E.MultiheadAttention(
        2, 4, use_query_bias=True, use_key_bias=True, use_value_bias=True, use_output_bias=True,
        key=KEY,
    )  # fmt: skip

    class Own(T.Module):
        def __init__(self):
            super().__init__()
            self.attention = T.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    apply = eqx.filter_jit(lambda m, x: jax.vmap(m["attention"])(x, x, x))
    x = RNG.normal(size=(2, 3, 4))
    convert.certify(Own(), apply, {"attention": attention}, x, jit=False).assert_ok()


# --- bits, trees, errors


@given(st.sampled_from([*CASES]), st.integers(0, 2**32 - 1))
def test_every_bit_comes_back(case, seed):
    module, (_, template), _ = CASES[case]
    kind = case.split(",")[0]
    kinds = {"": kind} if kind.endswith("TransposeKernel") else None
    rng = np.random.default_rng(seed)
    tensors = {
        name: torch.tensor(
            rng.integers(-(2**31), 2**31, size=tuple(t.shape)).astype(np.int32)
        ).view(torch.float32)
        if t.is_floating_point()
        else torch.tensor(7)
        for name, t in module.state_dict().items()
    }
    params = convert.to_flax(tensors, template, kinds=kinds or {"": kind})
    back = convert.to_torch(params, tensors, kinds=kinds or {"": kind})
    assert_identical(back, tensors)


def test_an_nnx_module_comes_back_as_a_module_and_the_template_is_not_changed():
    layer = nnx.Sequential(nnx.Linear(3, 3, rngs=RNGS), nnx.Dropout(0.5, rngs=RNGS))
    before = np.array(layer.layers[0].kernel[...])
    module = T.Sequential(T.Linear(3, 3), T.Dropout())
    made = convert.to_flax(module, layer, names={"": "layers"})
    assert isinstance(made, nnx.Sequential)
    np.testing.assert_array_equal(made.layers[0].kernel[...], module[0].weight.detach().T)
    np.testing.assert_array_equal(layer.layers[0].kernel[...], before)


def test_an_equinox_module_keeps_what_is_no_array():
    mlp = E.MLP(3, 3, 3, 1, activation=jnp.tanh, key=KEY)
    module = T.ModuleDict({"layers": T.ModuleList([T.Linear(3, 3), T.Linear(3, 3)])})
    made = convert.to_flax(module, mlp)
    assert made.activation is mlp.activation
    np.testing.assert_array_equal(made.layers[1].weight, module["layers"][1].weight.detach())
    assert_identical(convert.to_torch(made, module), module.state_dict())


def test_equinox_statistics_of_few_batches_come_to_torch_as_inference_has_them():
    module, x = T.BatchNorm1d(3), jnp.asarray(OBS, jnp.float32)
    for mode, (apply, (model, state)) in {m: stateful(m, 3) for m in ("batch", "ema")}.items():
        training = eqx.nn.inference_mode(model, value=False)
        for shift in (0.0, 1.0):
            over = {"axis_name": "batch", "in_axes": (0, None), "out_axes": (0, None)}
            _, state = jax.vmap(training, **over)(x + shift, state)
        back = convert.to_torch((model, state), module)
        trained = T.BatchNorm1d(3).eval()
        trained.load_state_dict(back)
        expected = trained(torch.tensor(np.array(x))).detach().numpy()
        rounding = 16 * 2.0**-24  # float32, of numbers near 1 whose differences these are
        np.testing.assert_allclose(apply((model, state), x), expected, atol=rounding, err_msg=mode)


def test_converted_equinox_statistics_go_on_as_torchs_do():
    """Momentum 0.9 in Equinox is 0.1 in torch, whose variance is unbiased: the mean tells."""
    module, x = T.BatchNorm1d(3), torch.tensor(OBS, dtype=torch.float32)
    module.running_mean += 5  # far from where a first batch would leave it
    model, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch", momentum=0.9)
    _, state = convert.to_flax(module, (model, state))
    over = {"axis_name": "batch", "in_axes": (0, None), "out_axes": (0, None)}
    _, state = jax.vmap(model, **over)(jnp.array(x), state)
    module(x)
    mean = convert.to_torch((model, state), module)["running_mean"]
    share = SLACK * np.finfo(np.float32).eps * float(module.running_mean.abs().max())  # the rule's
    np.testing.assert_allclose(mean, module.running_mean, rtol=0, atol=share)


def test_equinox_statistics_that_are_not_there_are_named():
    _, (model, state) = stateful("ema", 3)
    with pytest.raises(UsageError, match=r"model lacks mean, var, which are in its state"):
        convert.to_flax(T.BatchNorm1d(3), model)
    with pytest.raises(UsageError, match="BatchNorm has seen no batch"):
        convert.to_torch((model, state), T.BatchNorm1d(3))


class Counting(eqx.Module):
    """A layer with a state that is no norm's."""

    linear: eqx.nn.Linear
    count: eqx.nn.StateIndex

    def __init__(self, key):
        self.linear = eqx.nn.Linear(3, 3, key=key)
        self.count = eqx.nn.StateIndex(jnp.zeros(()))


def test_a_state_that_torch_has_no_place_for_is_left_over():
    template = eqx.nn.make_with_state(Counting)(KEY)
    module = T.ModuleDict({"linear": T.Linear(3, 3)})
    with pytest.raises(UsageError, match="the Flax tree has count/0 left over"):
        convert.to_flax(module, template)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equinox_statistics_of_no_batch_and_of_no_momentum_are_themselves(momentum):
    module, make = T.BatchNorm1d(3), eqx.nn.make_with_state(eqx.nn.BatchNorm)
    fresh = make(3, "batch", mode="batch", momentum=momentum)
    assert not convert.to_torch(fresh, module)["running_mean"].any()  # 0/0 is no statistic
    module.running_mean += 5
    shapes = eqx.filter_eval_shape(make, 3, "batch", mode="batch", momentum=momentum)
    for template in (fresh, shapes):
        back = convert.to_torch(convert.to_flax(module, template), module)
        assert_identical(back, module.state_dict())


@pytest.mark.parametrize("norm", ["LayerNorm", "GroupNorm"])
def test_flax_s_fast_variance_is_named_where_it_matters(norm):
    module = T.LayerNorm(8) if norm == "LayerNorm" else T.GroupNorm(2, 8)
    x = RNG.normal(size=(4, 8))

    def certified(x, **how):
        sizes = {} if norm == "LayerNorm" else {"num_groups": 2}
        layer = getattr(nn, norm)(**{"epsilon": 1e-5, **sizes, **how})
        template = jax.eval_shape(lambda: layer.init(KEY, jnp.zeros((1, 8))))
        return convert.certify(module, layer.apply, template, x)

    certified(x).assert_ok()
    named = "Flax's fast variance"
    assert named in str(certified(1e5 + x))
    certified(1e5 + x, use_fast_variance=False).assert_ok()
    other = str(certified(x, epsilon=0.5))  # another fault of a norm is not taken for it
    assert named not in other
    assert "compare the networks" in other


def test_norms_are_tried_each_alone_and_all_at_once():
    module = T.Sequential(T.LayerNorm(4), T.Linear(4, 4), T.GroupNorm(2, 4))
    assert norms(module) == [["0"], ["2"], ["0", "2"]]
    assert norms(T.LayerNorm(4)) == [[""]]


def test_a_count_of_batches_stays_torchs_own():
    module = T.BatchNorm1d(3)
    module(torch.randn(4, 3))
    _, template = linen(nn.BatchNorm(use_running_average=True), OBS)
    params = convert.to_flax(module, template)
    assert set(params) == {"params", "batch_stats"}
    assert int(convert.to_torch(params, module)["num_batches_tracked"]) == 1


BAD_KINDS = [
    ({"fc": "Linear[3x]"}, r"kind of 'fc' is 'Linear\[3x\]', accepted are sizes as in Linear\[16x"),
    ({"fc": "Linear[0x3]"}, "accepted are sizes"),
    ({"conv": "Conv2d[3]"}, "accepted are sizes.*of Linear, MultiheadAttention"),
    ({"fc": "MultiheadAttention"}, r"accepted is MultiheadAttention\[num_heads\]"),
    ({"fc": "LSTM"}, "tensor of 'fc', a LSTM, is 'weight', accepted are weight_ih"),
]


@pytest.mark.parametrize(("kinds", "message"), BAD_KINDS, ids=str)
def test_a_kind_that_takes_no_such_sizes_is_an_error(kinds, message):
    with pytest.raises(UsageError, match=message):
        convert.layout(ConvNet(), kinds=kinds)


def test_a_projected_lstm_is_an_error_that_names_its_tensor():
    with pytest.raises(UsageError, match=r"tensor of 'rnn', a LSTM, is 'weight_hr_l0'"):
        convert.layout(Recurrent("LSTM", proj_size=2))


def test_every_kind_in_the_registry_is_certified():
    from tests.tools.test_convert import LAYERS

    certified = {kind.split(",")[0].split()[0] for kind in [*CASES, *LAYERS]}
    elsewhere = {"Parameter", "LSTM", "GRU", "LSTMCell", "GRUCell", "MultiheadAttention"}
    assert certified | elsewhere == set(REGISTRY)
