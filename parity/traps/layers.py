"""Layers: activations, kernels, their first values, recurrent cells."""

import numpy as np

from parity.traps.entries import pair, trap

WIDE = 256
"""Inputs and outputs of a layer whose first values are looked at."""


@trap(
    "E01",
    "GELU: exact in PyTorch, approximated by tanh in JAX",
    "jax.nn.gelu(x, approximate=False), or F.gelu(x, approximate='tanh')",
)
def gelu(torch, F, jax, jnp):
    """The approximation is off by 5e-4 at most."""
    x = np.array([-1.0, 0.5, 2.7])
    return pair(
        torch=F.gelu(torch.tensor(x)),
        jax=jax.nn.gelu(jnp.array(x)),
        mended={"jax": jax.nn.gelu(jnp.array(x), approximate=False)},
    )


@trap(
    "E02",
    "softplus: PyTorch returns x beyond 20, JAX is exact",
    "F.softplus(x, threshold=50), or jnp.where(x > 20, x, jax.nn.softplus(x))",
)
def softplus(torch, F, jax, jnp):
    """In float32 nobody sees it, in float64 it is 2e-9."""
    x = np.array([20.5])
    return pair(
        torch=F.softplus(torch.tensor(x)),
        jax=jax.nn.softplus(jnp.array(x)),
        mended={"torch": F.softplus(torch.tensor(x), threshold=50)},
    )


@trap(
    "E03",
    "softmax over another axis",
    "F.softmax(x, dim=-1) and jax.nn.softmax(x, axis=-1): always name the axis",
)
def softmax_axis(torch, F, jax, jnp):
    """Without a dim PyTorch takes the first axis of three, and of one; else the second."""
    x = np.array([[[1.0, 2.0]], [[5.0, 6.0]]])
    return pair(
        torch=F.softmax(torch.tensor(x)),
        jax=jax.nn.softmax(jnp.array(x)),
        mended={"torch": F.softmax(torch.tensor(x), dim=-1)},
    )


@trap(
    "E09",
    "a kernel without its transpose: PyTorch's is (out, in), Flax's (in, out)",
    "kernel = weight.T, or parity.convert, which does so by name",
)
def transposed_kernel(torch, F, linen):
    """A square layer takes either, and means and norms of the two are equal."""
    x, weight = np.array([[1.0, 0.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    dense = linen.Dense(2, use_bias=False)
    return pair(
        torch=F.linear(torch.tensor(x), torch.tensor(weight)),
        jax=dense.apply({"params": {"kernel": weight}}, x),
        mended={"jax": dense.apply({"params": {"kernel": weight.T}}, x)},
    )


@trap(
    "E10",
    "a dense layer's first values: uniform in PyTorch, its bias too; Flax's bias is 0",
    "kernel_init=variance_scaling(1 / 3, 'fan_in', 'uniform'), and a bias uniform in ±1/√in",
)
def first_values(torch, jax, linen):
    """The spread of weights and the largest bias, times √in, to one decimal."""
    bound = WIDE**-0.5
    layer = torch.nn.Linear(WIDE, WIDE)

    def sizes(weight, bias):
        return {
            name: np.round(float(size) / bound, 1)
            for name, size in {"weight": weight.std(), "bias": abs(bias).max()}.items()
        }

    def in_flax(**inits):
        made = linen.Dense(WIDE, **inits).init(jax.random.key(0), np.zeros((1, WIDE)))["params"]
        return sizes(made["kernel"], made["bias"])

    as_torch = {
        "kernel_init": linen.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        "bias_init": lambda key, n, d: jax.random.uniform(key, n, d, -bound, bound),
    }
    return pair(
        torch=sizes(layer.weight.detach(), layer.bias.detach()),
        jax=in_flax(),
        mended={"jax": in_flax(**as_torch)},
    )


@trap(
    "E11",
    "an embedding's first values: spread 1 in PyTorch, 1/√features in Flax",
    "embedding_init=flax.linen.initializers.normal(1.0)",
)
def first_embedding(torch, jax, linen):
    """The spread of a table of 256 words and 64 features, to one decimal."""

    def in_flax(**inits):
        layer = linen.Embed(WIDE, 64, **inits)
        made = layer.init(jax.random.key(0), np.zeros(1, int))["params"]["embedding"]
        return np.round(float(made.std()), 1)

    return pair(
        torch=np.round(torch.nn.Embedding(WIDE, 64).weight.std().item(), 1),
        jax=in_flax(),
        mended={"jax": in_flax(embedding_init=linen.initializers.normal(1.0))},
    )


@trap(
    "E12",
    "padding of a convolution: Flax's 'SAME' is not PyTorch's padding=1 at stride 2",
    "flax.linen.Conv(features, (3, 3), strides=2, padding=[(1, 1), (1, 1)])",
)
def padding(torch, F, linen):
    """Of an even length 'SAME' pads (0, 1): it begins at another entry."""
    x, kernel = np.arange(1.0, 7), np.array([100.0, 10.0, 1.0])
    params = {"params": {"kernel": kernel[:, None, None]}}

    def in_flax(padding):
        layer = linen.Conv(1, (3,), strides=2, padding=padding, use_bias=False)
        return layer.apply(params, x[None, :, None])[0, :, 0]

    in_torch = F.conv1d(torch.tensor(x)[None, None], torch.tensor(kernel)[None, None], None, 2, 1)
    return pair(
        torch=in_torch[0, 0],
        jax=in_flax("SAME"),
        mended={"jax": in_flax([(1, 1)])},
    )


@trap(
    "E13",
    "ConvTranspose: PyTorch flips the kernel, Flax does not",
    "flax.linen.ConvTranspose(transpose_kernel=True, padding='VALID'), kernel (k, out, in)",
)
def transposed_convolution(torch, F, linen):
    """What a single 1 is spread to."""
    x, kernel = np.array([1.0, 0.0, 0.0]), np.array([1.0, 2.0, 3.0])
    params = {"params": {"kernel": kernel[:, None, None]}}

    def in_flax(**options):
        layer = linen.ConvTranspose(1, (3,), padding="VALID", use_bias=False, **options)
        return layer.apply(params, x[None, :, None])[0, :, 0]

    return pair(
        torch=F.conv_transpose1d(torch.tensor(x)[None, None], torch.tensor(kernel)[None, None])[
            0, 0
        ],
        jax=in_flax(),
        mended={"jax": in_flax(transpose_kernel=True)},
    )


@trap(
    "E14",
    "flattened in another order: NCHW against NHWC",
    "jnp.transpose(x, (0, 3, 1, 2)).reshape(len(x), -1) before the dense layer",
)
def flattened(torch, jnp):
    """The same image, channels first in PyTorch and last in Flax, flattened in front of a layer."""
    image = np.arange(8.0).reshape(1, 2, 2, 2)  # [N, C, H, W]
    in_flax = jnp.array(image.transpose(0, 2, 3, 1))
    return pair(
        torch=torch.tensor(image).flatten(1),
        jax=in_flax.reshape(1, -1),
        mended={"jax": jnp.transpose(in_flax, (0, 3, 1, 2)).reshape(1, -1)},
    )


@trap(
    "E15",
    "recurrent cells have two biases in PyTorch, one in Flax",
    "b_ih + b_hh as Flax's bias (for LSTM, and r and z of GRU); map n's two apart",
)
def recurrent_biases(torch, linen):
    """An LSTM of one unit: all of PyTorch's weights and biases are drawn."""
    rng = np.random.default_rng(0)
    w, u, b_ih, b_hh = rng.normal(size=(4, 1)), rng.normal(size=(4, 1)), *rng.normal(size=(2, 4))
    x, h, c = rng.normal(size=(3, 1, 1))
    cell = torch.nn.LSTMCell(1, 1, dtype=torch.float64)
    for parameter, value in zip(cell.parameters(), (w, u, b_ih, b_hh), strict=True):
        parameter.data = torch.tensor(value)

    def in_flax(bias):
        params = {}
        for gate, name in enumerate("ifgo"):
            params[f"i{name}"] = {"kernel": w[[gate]]}
            params[f"h{name}"] = {"kernel": u[[gate]], "bias": bias[[gate]]}
        return linen.LSTMCell(1).apply({"params": params}, (c, h), x)[1]

    return pair(
        torch=cell(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))[0],
        jax=in_flax(b_hh),
        mended={"jax": in_flax(b_ih + b_hh)},
    )
