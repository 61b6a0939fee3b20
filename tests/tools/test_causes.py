"""Known traps are named from the numbers that they leave, and nothing is named where none fits."""

import inspect
import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen

from parity.locate.causes import MODULES, SIGNATURES, likely_causes
from parity.locate.evidence import Evidence, Seen
from parity.locate.signatures import clips, operations, written
from parity.locate.signatures.clues import laid_out
from parity.sides import x64

NUM_SETS = 3
F = torch.nn.functional
TORCH = {"torch": torch, "F": F}
JAX = {"jax": jax, "jnp": jnp, "optax": optax, "linen": linen, "lax": jax.lax}

Inputs = list[dict[str, np.ndarray]]


def drawn(num_sets=NUM_SETS, **shapes) -> Inputs:
    """Normal draws of these shapes; a callable makes its input of the generator itself."""
    sets = []
    for seed in range(num_sets):
        rng = np.random.default_rng(seed)
        sets.append(
            {
                name: np.asarray(shape(rng) if callable(shape) else rng.normal(size=shape))
                for name, shape in shapes.items()
            }
        )
    return sets


def by_torch(code, inputs):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of std of one element, and of kl_div's mean
        return np.asarray(eval(code, TORCH | {k: torch.tensor(v) for k, v in inputs.items()}))


def by_jax(code, inputs):
    with x64(True):
        return np.asarray(eval(code, JAX | {k: jnp.asarray(v) for k, v in inputs.items()}))


def torch_slopes(code, inputs, wrt):
    leaves = {k: torch.tensor(v, requires_grad=k == wrt) for k, v in inputs.items()}
    total = (eval(code, TORCH | leaves) * leaves["slope"]).sum()
    if not total.requires_grad:
        return np.zeros_like(inputs[wrt])
    (found,) = torch.autograd.grad(total, [leaves[wrt]])
    return found.numpy()


def jax_slopes(code, inputs, wrt):
    with x64(True):
        rest = {k: jnp.asarray(v) for k, v in inputs.items()}

        def total(x):
            return (eval(code, JAX | rest | {wrt: x}) * rest["slope"]).sum()

        return np.asarray(jax.grad(total)(rest[wrt]))


def operands_of(code, sets):
    names = [n for n in sets[0] if re.search(rf"\b{n}\b", code)]
    return tuple(tuple(each[name] for each in sets) for name in names)


def forward(torch_code, jax_code, sets, **more):
    """What is seen if these two statements part on these inputs."""
    return Evidence(
        "forward",
        Seen(
            f"aten.{torch_code.split('(')[0].rpartition('.')[2]}",
            tuple(by_torch(torch_code, each) for each in sets),
            operands_of(torch_code, sets),
            torch_code,
        ),
        Seen(
            jax_code.split("(")[0].rpartition(".")[2],
            tuple(by_jax(jax_code, each) for each in sets),
            operands_of(jax_code, sets),
            jax_code,
        ),
        **more,
    )


def backward(torch_code, jax_code, sets, wrt="x"):
    """What is seen if the slopes of `x` part, of (the statement · `slope`) summed."""
    slope = tuple(each["slope"] for each in sets)
    others = [name for name in sets[0] if name not in ("slope", wrt)]
    return Evidence(
        "backward",
        Seen("grad", tuple(torch_slopes(torch_code, s, wrt) for s in sets), (slope,), torch_code),
        Seen("grad", tuple(jax_slopes(jax_code, s, wrt) for s in sets), (slope,), jax_code),
        matched=[Seen("input", tuple(each[name] for each in sets)) for name in others],
        forward=Seen("input", tuple(each[wrt] for each in sets)),
    )


def positive(*shape):
    return lambda rng: rng.uniform(0.2, 2.0, shape)


def probabilities(*shape):
    return lambda rng: rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def ones_and_zeros(*shape):
    def draw(rng):
        mask = rng.integers(0, 2, shape).astype(float)
        mask.flat[0], mask.flat[1] = 0.0, 1.0
        return mask

    return draw


def number(value):
    return lambda rng: np.float64(value)


def whole(high, *shape):
    return lambda rng: rng.integers(0, high, shape)


def with_zeros(*shape):
    def draw(rng):
        x = rng.normal(size=shape)
        x.flat[::3] = 0.0
        return x

    return draw


def with_bounds(*shape):
    def draw(rng):
        x = rng.uniform(0.85, 1.15, shape)
        x.flat[0], x.flat[1] = 0.8, 1.2
        return x

    return draw


def with_ties(*shape):
    def draw(rng):
        x = rng.normal(size=shape)
        x[..., :2] = x.max(-1, keepdims=True) + 1
        return x

    return draw


def times(values, *factors):
    return tuple(np.asarray(v * f) for v, f in zip(values, factors, strict=True))


X = drawn(x=(5, 7))
NORMALISED = "(x - x.mean()) / (x.std() + 1e-8)"
RETURN = (
    "torch.stack([sum(0.9 ** (k - t) * x[k] for k in range(t, len(x))) for t in range(len(x))])"
)
JAX_RETURN = "jnp.stack([sum(0.9 ** {} * x[k] for k in range({}, len(x))) for t in range(len(x))])"
LN = "linen.LayerNorm(use_fast_variance={}, epsilon={}).apply({}, x)"
BATCH_NORM = (
    "linen.BatchNorm(False, axis=1, epsilon=1e-6).apply({'params': {'scale': w, 'bias': b},"
    " 'batch_stats': {'mean': b, 'var': w}}, x, mutable=['batch_stats'])[0]"
)
FLAX_CONV = (
    "linen.Conv(3, (3, 3), strides=2, use_bias=False).apply("
    "{'params': {'kernel': w.transpose(2, 3, 1, 0)}}, x.transpose(0, 2, 3, 1))"
)
FLAX_TRANSPOSED = (
    "linen.ConvTranspose(3, (3, 3), strides=(2, 2), padding='VALID', use_bias=False).apply("
    "{'params': {'kernel': w.transpose(2, 3, 0, 1)}}, x.transpose(0, 2, 3, 1))"
)

FORWARD = {
    # --- spread
    "std": ("B01", "torch.std(x, 0)", "jnp.std(x, 0)", X),
    "var": ("B01", "torch.var(x)", "jnp.var(x)", X),
    "std the other way": ("B01", "torch.std(x, correction=0)", "jnp.std(x, ddof=1)", X),
    "normalised": ("B01", NORMALISED, NORMALISED, X),
    "normalised rows": (
        "B01",
        "(x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)",
        "(x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1e-5)",
        X,
    ),
    "std of one": ("B02", "torch.std(x, 0)", "jnp.std(x, 0)", drawn(x=(1, 4))),
    "layer norm": (
        "B05",
        "F.layer_norm(x, (7,))",
        LN.format(False, 1e-6, "{'params': {'scale': jnp.ones(7), 'bias': jnp.zeros(7)}}"),
        X,
    ),
    "layer norm with weights": (
        "B05",
        "F.layer_norm(x, (7,), w, b)",
        LN.format(False, 1e-6, "{'params': {'scale': w, 'bias': b}}"),
        drawn(x=(5, 7), w=(7,), b=(7,)),
    ),
    "batch norm": (
        "B05",
        "F.batch_norm(x, None, None, w, b, training=True)",
        BATCH_NORM,
        drawn(x=(6, 3, 4, 4), w=(3,), b=(3,)),
    ),
    "rstd": (
        "B05",
        "torch.native_layer_norm(x, (7,), None, None, 1e-5)[2]",
        "lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-6)",
        X,
    ),
    "std and an intermediate": ("B01", "torch.std(x)", "((x - x.mean()) ** 2).mean()", X),
    "fast variance": (
        "B06",
        "F.layer_norm(x, (7,))",
        LN.format(True, 1e-5, "{'params': {'scale': jnp.ones(7), 'bias': jnp.zeros(7)}}"),
        drawn(x=lambda rng: 1e4 + rng.normal(size=(5, 7))),
    ),
    "running mean": (
        "B07",
        "0.9 * m + 0.1 * x.mean(0)",
        "0.1 * m + 0.9 * x.mean(0)",
        drawn(x=(8, 3), m=(3,)),
    ),
    "running var": (
        "B07",
        "0.9 * m + 0.1 * x.var(0)",
        "0.9 * m + 0.1 * x.var(0)",
        drawn(x=(8, 3), m=(3,)),
    ),
    "median": ("B08", "torch.median(x)", "jnp.median(x)", drawn(x=(8,))),
    "median of rows": (
        "B08",
        "torch.median(x, 1).values",
        "jnp.median(x, 1)",
        drawn(x=(4, 6)),
    ),
    # --- functions
    "gelu": ("E01", "F.gelu(x)", "jax.nn.gelu(x)", X),
    "softplus": (
        "E02",
        "F.softplus(x)",
        "jax.nn.softplus(x)",
        drawn(x=lambda rng: np.append(rng.normal(size=4), [20.5, 21.0])),
    ),
    "softmax": ("E03", "F.softmax(x, 0)", "jax.nn.softmax(x)", drawn(x=(3, 4, 2))),
    "log-softmax": ("E03", "F.log_softmax(x, 0)", "jax.nn.log_softmax(x)", X),
    "log-det": (
        "C05",
        "2 * (0.6931471805599453 - x - F.softplus(-2 * x))",
        "jnp.log(1 - jnp.tanh(x) ** 2 + 1e-6)",
        X,
    ),
    "log-det summed": (
        "C05",
        "torch.distributions.TanhTransform().log_abs_det_jacobian(x, torch.tanh(x)).sum(-1)",
        "jnp.log(1 - jnp.tanh(x) ** 2 + 1e-6).sum(-1)",
        X,
    ),
    "std for var": ("R12", "torch.exp(log_var / 2)", "jnp.exp(log_var)", drawn(log_var=(4,))),
    "var for std": ("R12", "std", "jnp.square(std)", drawn(std=positive(4))),
    "no tanh": ("R11", "torch.tanh(x)", "x", X),
    "relu for elu": ("R11", "F.relu(x)", "jax.nn.elu(x)", X),
    "silu too many": ("R11", "1.5 * x", "jax.nn.silu(1.5 * x)", X),
    "softmax for its logarithm of equal ones": (
        "R11",
        "torch.log_softmax(x, -1)",
        "jax.nn.softmax(x)",
        drawn(x=lambda r: np.full((2, 3), -1.0)),
    ),
    "floor for round": (
        "R26",
        "torch.floor(x)",
        "jnp.round(x)",
        drawn(x=lambda r: 9 * r.normal(size=9)),
    ),
    # --- factors
    "l2 loss": ("E04", "F.mse_loss(x, y)", "optax.l2_loss(x, y).mean()", drawn(x=(9,), y=(9,))),
    "smooth l1": (
        "E05",
        "F.smooth_l1_loss(x, y, beta=0.25)",
        "optax.huber_loss(x, y, delta=0.25).mean()",
        drawn(x=(9,), y=(9,)),
    ),
    "smooth l1, each": (
        "E05",
        "F.smooth_l1_loss(x, y, beta=0.25, reduction='none')",
        "optax.huber_loss(x, y, delta=0.25)",
        drawn(x=(9,), y=(9,)),
    ),
    "one gamma": ("R01", "0.9 ** 2 * x", "0.9 ** 3 * x", X),
    "gamma to the t": ("R01", "y", "y * 0.9 ** jnp.arange(6)", drawn(y=(6,))),
    "mean for sum": ("R03", "x.sum()", "x.mean()", X),
    "mean of rows for sum": ("R03", "x.mean(1)", "x.sum(1)", X),
    "mean for sum of a product": (
        "R03",
        "-(x * y).mean()",
        "-(x * y).sum()",
        drawn(x=(9,), y=(9,)),
    ),
    "kl mean": (
        "C11",
        "F.kl_div(q, p)",
        "(p * (jnp.log(p) - q)).sum()",
        drawn(p=probabilities(4, 5), q=(4, 5)),
    ),
    "accumulated": (
        "A12",
        "grads.sum(0)  # accumulated",
        "grads.mean(0)  # MultiSteps averages",
        drawn(grads=(4, 6)),
    ),
    "no root": (
        "R27",
        "q @ k.T / 8 ** 0.5",
        "q @ k.T",
        drawn(q=(5, 8), k=(6, 8)),
    ),
    "sign": ("R04", "-(x * y).sum(0)", "(x * y).sum(0)", drawn(x=(4, 5), y=(4, 5))),
    "coefficient": ("R05", "0.37 * x.sum(0)", "x.sum(0)", X),
    "coefficient at hand": ("R05", "x.sum(0) * c", "x.sum(0) / c", drawn(x=(4, 3), c=number(1.7))),
    "bias correction": ("R31", "m / (1 - 0.9 ** 3)", "1.0 * m", drawn(m=(5,))),
    "float32 bias correction": (
        "A01",
        "m / (1 - 0.999 ** 2)",
        "m / (1 - float(jnp.float32(0.999)) ** 2)",
        drawn(m=(5,)),
    ),
    "log2": ("R32", "torch.log(x)", "jnp.log2(x)", drawn(x=positive(4, 3))),
    # --- terms
    "half log 2π": (
        "R19",
        "torch.distributions.Normal(x, y.exp()).log_prob(z)",
        "-0.5 * ((z - x) / jnp.exp(y)) ** 2 - y",
        drawn(x=(4, 2), y=(4, 2), z=(4, 2)),
    ),
    "three times half log 2π": (
        "R19",
        "torch.distributions.Normal(x, 1.0).log_prob(z).sum(-1)",
        "(-0.5 * (z - x) ** 2).sum(-1)",
        drawn(x=(4, 3), z=(4, 3)),
    ),
    "entropy": (
        "R33",
        "torch.distributions.Normal(x, y.exp()).entropy()",
        "0.9189385332046727 + y  # entropy",
        drawn(x=(4, 2), y=(4, 2)),
    ),
    "weight decay default": (
        "A03",
        "p * (1 - 0.003 * 1e-2) - 0.0 * p",
        "p * (1 - 0.003 * 1e-4)",
        drawn(p=(5,)),
    ),
    "coupled decay": (
        "A04",
        "g + weight_decay * p",
        "g + 0.0 * p",
        drawn(g=(5,), p=(5,), weight_decay=number(0.02)),
    ),
    "dampening": (
        "A08",
        "momentum * buf + (1 - 0.3) * g",
        "momentum * buf + g",
        drawn(buf=(5,), g=(5,), momentum=number(0.9)),
    ),
    "eps in the root": (
        "A02",
        "m / (torch.sqrt(v) + 1e-8)",
        "m / jnp.sqrt(v + 1e-8)",
        drawn(m=(5,), v=positive(5)),
    ),
    "rmsprop's eps": (
        "A05",
        "g / (v.sqrt() + 1e-8)  # rmsprop",
        "g * lax.rsqrt(v + 1e-8)",
        drawn(g=(5,), v=positive(5)),
    ),
    "rmsprop's decay": (
        "A05",
        "0.99 * v + 0.01 * g ** 2",
        "0.9 * v + 0.1 * g ** 2",
        drawn(g=(5,), v=positive(5)),
    ),
    "adagrad's start": (
        "A07",
        "s + g ** 2  # adagrad",
        "(0.1 + s) + g ** 2",
        drawn(g=(5,), s=positive(5)),
    ),
    "clipped gradient": (
        "A09",
        "g * (0.5 / (g.norm() + 1e-6))",
        "g * (0.5 / jnp.linalg.norm(g))",
        drawn(g=(6,)),
    ),
    "clip coefficient": (
        "A09",
        "torch.clamp(0.5 / (norm + 1e-6), max=1.0)",
        "jnp.minimum(0.5 / norm, 1.0)  # clip_by_global_norm",
        drawn(norm=positive()),
    ),
    "an epsilon": ("R18", "x / (s + 1e-8)", "x / (s + 1e-5)", drawn(x=(4, 3), s=positive(3))),
    "no epsilon in a log": (
        "R18",
        "torch.log(p + 1e-6)",
        "jnp.log(p)",
        drawn(p=positive(4, 3)),
    ),
    "no bias": ("R17", "x @ w + b", "x @ w", drawn(x=(5, 3), w=(3, 4), b=(4,))),
    "no term": ("R06", "a + b - c", "a + b", drawn(a=(5,), b=(5,), c=(5,))),
    "a coefficient's term": ("R06", "a + 0.01 * b", "a + 0.02 * b", drawn(a=(5,), b=(5,))),
    "count one ahead": ("R35", "torch.add(t, 1)", "t + 2", drawn(t=number(1000.0))),
    "last of equal choices": (
        "C10",
        "x.argmax(-1)",
        "x.shape[-1] - 1 - x[..., ::-1].argmax(-1)",
        drawn(x=lambda rng: rng.integers(0, 3, (6, 5)).astype(float)),
    ),
    "smallest for largest choice": ("R09", "x.argmax(-1)", "x.argmin(-1)", X),
    "another threshold": (
        "R42",
        "torch.gt(x, a)",
        "x > b",
        drawn(x=(5, 7), a=number(0.2), b=number(0.5)),
    ),
    "no baseline": ("R34", "x - x.mean()", "1.0 * x", X),
    "a constant": ("R35", "x + 0.25", "1.0 * x", X),
    # --- reductions
    "another axis": ("R08", "x.sum(0)", "x.sum(1)", drawn(x=(4, 4))),
    "max for min": ("R09", "x.amax(1)", "x.min(1)", X),
    "minimum for maximum": (
        "R09",
        "torch.minimum(x, y)",
        "jnp.maximum(x, y)",
        drawn(x=(4, 3), y=(4, 3)),
    ),
    "another reduction": ("R08", "x.norm(dim=1)", "jnp.abs(x).sum(1)", X),
    "cumsum": ("R10", "x.flip(0).cumsum(0).flip(0)", "jnp.cumsum(x, 0)", X),
    "cumsum of the reversed": ("R10", "x.flip(0).cumsum(0)", "jnp.cumsum(x, 0)", X),
    "sign of a term": ("R04", "x - y", "x + y", drawn(x=(4, 3), y=(4, 3))),
    "reversed": ("R10", "2 * x", "2 * x[::-1]", X),
    "exchanged": ("R07", "x - y", "y - x", drawn(x=(4, 3), y=(4, 3))),
    "remainder": ("R36", "torch.fmod(x, y)", "x % y", drawn(x=(4, 3), y=(4, 3))),
    "another operation": ("R37", "x * y", "x / y", drawn(x=positive(4, 3), y=positive(4, 3))),
    "turned around": ("R07", "x / y", "y / x", drawn(x=positive(4, 3), y=positive(4, 3))),
    "ratio turned around": (
        "R07",
        "torch.exp(x - y)",
        "jnp.exp(y - x)",
        drawn(x=(4, 3), y=(4, 3)),
    ),
    "kl turned around": (
        "R38",
        "(p * (p.log() - q.log())).sum(-1)",
        "(q * (jnp.log(q) - jnp.log(p))).sum(-1)",
        drawn(p=probabilities(3, 4), q=probabilities(3, 4)),
    ),
    "no sum of log-probabilities": (
        "C06",
        "torch.distributions.Normal(x, 1.0).log_prob(z).sum(-1)",
        "-0.5 * (z - x) ** 2 - 0.9189385332046727  # log_prob",
        drawn(x=(4, 3), z=(4, 3)),
    ),
    "no sum": ("R22", "(x * y).sum(1)", "x * y", drawn(x=(4, 3), y=(4, 3))),
    # --- operands
    "another number": ("R42", "0.97 * x", "0.93 * x", X),
    "no weight": ("R44", "x * y", "1.0 * x", drawn(x=(4, 3), y=(4, 3))),
    "another operand": ("R43", "x - y", "x - z", drawn(x=(4, 3), y=(4, 3), z=(4, 3))),
    "all are counted": (
        "R13",
        "x / n",
        "x / k  # y.mean()",
        drawn(x=(), y=(9,), n=positive(), k=number(9.0)),
    ),
    "padding among counts": (
        "R13",
        "m.sum(0)",
        "jnp.ones_like(m).sum(0)",
        drawn(m=ones_and_zeros(6, 4)),
    ),
    # --- returns
    "undiscounted": ("R28", RETURN, JAX_RETURN.format("0", "t"), drawn(x=(6,))),
    "total return": ("R28", RETURN, JAX_RETURN.format("k", "0"), drawn(x=(6,))),
    "discounted from the start": ("R28", RETURN, JAX_RETURN.format("k", "t"), drawn(x=(6,))),
    "returns of the next step": (
        "R28",
        RETURN,
        JAX_RETURN.format("(k - t - 1)", "t + 1"),
        drawn(x=(6,)),
    ),
    # --- masks
    "clamped probability": (
        "C02",
        "torch.distributions.Categorical(probs=p).logits",
        "jnp.log(p)",
        drawn(p=lambda rng: np.append(0.0, rng.dirichlet(np.ones(4)))),
    ),
    "masked entropy": (
        "C03",
        "torch.distributions.Categorical(logits=z).entropy()",
        "-(jax.nn.softmax(z) * jax.nn.log_softmax(z)).sum(-1)",
        drawn(z=lambda rng: np.append(rng.normal(size=4), -np.inf)),
    ),
    "binary cross-entropy": (
        "E07",
        "F.binary_cross_entropy(p, y, reduction='none')",
        "-(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))",
        drawn(
            p=lambda rng: np.append(0.0, rng.uniform(0.1, 0.9, 4)), y=lambda rng: np.eye(5)[0] + 0.0
        ),
    ),
    "tiny scale": (
        "C07",
        "-0.5 * ((x - x) / s) ** 2 - torch.log(s)  # log_prob",
        "-((x - x) ** 2) / (2 * s**2) - jnp.log(s) - 0.9189385332046727",
        drawn(x=(3,), s=lambda rng: np.full(3, 1e-170)),
    ),
    "cosine": (
        "E08",
        "F.cosine_similarity(a, b)",
        "(a * b).sum(-1) / jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1))",
        drawn(a=lambda rng: rng.normal(size=(3, 2)) * [[0], [1], [1]], b=(3, 2)),
    ),
    "ignored label": (
        "E06",
        "F.nll_loss(z, y)",
        "jnp.where(y >= 0, -jnp.take_along_axis(z, jnp.maximum(y, 0)[:, None], 1)[:, 0], 0).mean()",
        drawn(z=(6, 4), y=lambda rng: np.append(rng.integers(0, 4, 4), [-100, -100])),
    ),
    "ignored label, NaN": (
        "E06",
        "F.cross_entropy(z, y)",
        "optax.softmax_cross_entropy_with_integer_labels(z, y).mean()",
        drawn(z=(6, 4), y=lambda rng: np.append(rng.integers(0, 4, 4), [-100, -100])),
    ),
    "padding counted": (
        "R13",
        "(x * m).sum() / m.sum()",
        "(x * m).mean()",
        drawn(x=(6, 4), m=ones_and_zeros(6, 4)),
    ),
    "padding summed": (
        "R13",
        "(x * m).sum(0)",
        "x.sum(0)",
        drawn(x=(6, 4), m=ones_and_zeros(6, 4)),
    ),
    "no mask": ("R24", "x * m", "x * 1.0", drawn(x=(6,), m=ones_and_zeros(6))),
    "mask inverted": ("R24", "x * (1 - m)", "x * m", drawn(x=(6,), m=ones_and_zeros(6))),
    "multiplied mask": (
        "R23",
        "torch.where(m > 0, x, 0.0)",
        "x * m",
        drawn(
            x=lambda rng: np.where([0, 1, 1, 0], rng.normal(size=4), np.nan),
            m=lambda rng: np.array([0.0, 1, 1, 0]),
        ),
    ),
    "where turned around": (
        "R24",
        "torch.where(m > 0, a, b)",
        "jnp.where(m > 0, b, a)",
        drawn(m=ones_and_zeros(6), a=(6,), b=(6,)),
    ),
    "less or equal": (
        "R25",
        "(a < b).double()",
        "(a <= b).astype(float)",
        drawn(a=whole(3, 12), b=whole(3, 12)),
    ),
    # --- layouts
    "square kernel": ("E09", "F.linear(x, w)", "x @ w", drawn(x=(5, 4), w=(4, 4))),
    "square kernel and bias": (
        "E09",
        "F.linear(x, w, b)",
        "x @ w + b",
        drawn(x=(5, 4), w=(4, 4), b=(4,)),
    ),
    "transposed": ("E09", "w.T.clone()", "1.0 * w", drawn(w=(4, 4))),
    "axes": (
        "R39",
        "x.permute(2, 0, 1)",
        "x.transpose(1, 2, 0).transpose(1, 2, 0).transpose(1, 2, 0)",
        drawn(x=(3, 3, 3)),
    ),
    "flattened": (
        "E14",
        "x.reshape(2, -1)",
        "x.transpose(0, 2, 3, 1).reshape(2, -1)",
        drawn(x=(2, 3, 4, 5)),
    ),
    "reshaped": ("E14", "x.T.reshape(3, 4)", "x.reshape(3, 4)", drawn(x=(4, 3))),
    "padding at stride 2": (
        "E12",
        "F.conv2d(x, w, stride=2, padding=1)",
        FLAX_CONV,
        drawn(x=(2, 2, 6, 6), w=(3, 2, 3, 3)),
    ),
    "transposed convolution": (
        "E13",
        "F.conv_transpose2d(x, w, stride=2)",
        FLAX_TRANSPOSED,
        drawn(x=(2, 2, 4, 4), w=(2, 3, 3, 3)),
    ),
    "one bias of a GRU": (
        "E15",
        "x @ w + b  # gru",
        "x @ w",
        drawn(x=(5, 3), w=(3, 4), b=(4,)),
    ),
    "shifted": ("R02", "x[1:] * 2", "x[:-1] * 2", drawn(x=(7, 2))),
    "rolled": ("R02", "1.0 * x", "jnp.roll(x, 1, 0)", drawn(x=(7, 2))),
    "shorter": ("R02", "1.0 * x", "x[1:]", drawn(x=(7,))),
    "another entry": (
        "R16",
        "x.gather(1, i[:, None])[:, 0]",
        "x[jnp.arange(5), jnp.minimum(i + 1, 5)]",
        drawn(x=(5, 6), i=whole(5, 5)),
    ),
    "another order": ("R40", "1.0 * x", "x[jnp.array([3, 1, 4, 0, 2])]", drawn(x=(5,))),
    "outer": ("R14", "(a[:, 0] - b)", "a - b", drawn(a=(5, 1), b=(5,))),
    "outer, seen at an operand": (
        "R14",
        "a.squeeze(-1)",
        "a - b",
        drawn(a=(5, 1), b=(5,)),
    ),
    "outer, averaged": (
        "R14",
        "((a[:, 0] - b) ** 2).mean()",
        "((a - b) ** 2).mean()",
        drawn(a=(5, 1), b=(5,)),
    ),
    "scattered": (
        "F04",
        "x.index_put((i,), x[i] + v)",
        "x.at[i].add(v)",
        drawn(x=(5,), i=lambda rng: np.array([1, 1, 3]), v=(3,)),
    ),
    # --- bounds
    "no clip": ("R15", "x.clamp(-1.0, 1.0)", "1.0 * x", drawn(x=(9, 5))),
    "another bound": (
        "R15",
        "x.clamp(0.8, 1.2)",
        "jnp.clip(x, 0.9, 1.1)",
        drawn(x=lambda rng: rng.uniform(0.5, 1.5, 30)),
    ),
    "no clip of a product": (
        "R15",
        "(x * y).clamp(-1.0, 1.0)",
        "x * y",
        drawn(x=(9, 5), y=(9, 5)),
    ),
    "bounds that cross": (
        "R15",
        "x.clamp(0.8, 1.1)",
        "jnp.clip(x, 0.9, 1.2)",
        drawn(x=lambda rng: rng.uniform(0.5, 1.5, 30)),
    ),
    "clipped by value": (
        "R29",
        "g * (0.5 / (g.norm() + 1e-6))",
        "jnp.clip(g, -0.5, 0.5)",
        drawn(g=(6,)),
    ),
    "float32": ("F01", "x * y", "(x * y).astype(jnp.float32)", drawn(x=(5,), y=(5,))),
    "subnormal": (
        "G01",
        "x * 1e-10",
        "jax.jit(lambda a: a * 1e-10)(x)",
        drawn(x=lambda rng: np.append(rng.normal(size=3), 1.7e-300)),
    ),
    "weights exchanged": (
        "R30",
        "0.995 * a + 0.005 * b",
        "0.005 * a + 0.995 * b",
        drawn(a=(5,), b=(5,)),
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_the_trap_that_two_statements_fall_into_is_named_first(name):
    trap, torch_code, jax_code, sets = FORWARD[name]
    found = likely_causes(forward(torch_code, jax_code, sets))
    assert [cause.trap for cause in found[:1]] == [trap], found
    assert 1 <= len(found) <= 3
    assert all(cause.evidence and cause.remedy and cause.title for cause in found)


def test_an_activation_is_told_by_what_it_makes_of_zeros():
    """log 2 for 0: at a layer that nothing was fed to, its value alone tells nothing."""
    zeros, halves = (tuple(np.full((2, 3), x) for _ in range(NUM_SETS)) for x in (0, math.log(2)))
    made_by_torch = Seen("aten.relu.default", zeros, (zeros,), "torch.relu(x)")
    made_by_jax = Seen("select_n", halves, (zeros, halves), "nn.relu(x)")
    sets = drawn(x=(4, 3), y=(4, 3))
    beside = {"references": [made_by_torch], "candidates": [made_by_jax]}
    [cause] = likely_causes(forward("x * 3", "y - x * 5", sets, **beside))
    assert (cause.trap, "softplus" in cause.evidence) == ("R11", True)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_function_of_another_value_is_named_if_pytorch_has_that_value(is_known):
    """Two heads exchanged, say; of a value that only JAX has, its own line is to blame."""
    sets = drawn(x=(4, 3), y=(4, 3))
    matched = [Seen("input", tuple(each["y"] for each in sets))] if is_known else []
    found = likely_causes(forward("torch.tanh(x)", "jnp.tanh(y)", sets, matched=matched))
    assert [cause.trap for cause in found] == (["R43"] if is_known else [])


SLOPE = {"slope": positive(4, 3)}
BACKWARD = {
    "std at none": (
        "B03",
        "torch.std(x, 0, correction=0)",
        "jnp.std(x, 0)",
        drawn(x=lambda rng: np.full((4, 3), rng.normal()), slope=positive(3)),
    ),
    "norm at zero": (
        "B04",
        "torch.linalg.vector_norm(x, dim=-1)",
        "jnp.linalg.norm(x, axis=-1)",
        drawn(x=lambda rng: rng.normal(size=(4, 3)) * [[0], [1], [1], [1]], slope=positive(4)),
    ),
    "probabilities": (
        "C01",
        "torch.distributions.Categorical(probs=x).log_prob(torch.tensor([0, 1, 1, 2]))",
        "jnp.log(x)[jnp.arange(4), jnp.array([0, 1, 1, 2])]",
        drawn(x=probabilities(4, 3), slope=positive(4)),
    ),
    "sample": (
        "C04",
        "torch.distributions.Normal(x, 1.0).log_prob((x + noise).detach())",
        "-0.5 * (x + noise - x) ** 2  # log_prob",
        drawn(x=(4, 3), noise=(4, 3), **SLOPE),
    ),
    "stopped": (
        "R20",
        "x * y",
        "lax.stop_gradient(x) * y",
        drawn(x=(4, 3), y=(4, 3), **SLOPE),
    ),
    "not stopped": ("R21", "x.detach() * y", "x * y", drawn(x=(4, 3), y=(4, 3), **SLOPE)),
    "relu": ("D01", "torch.relu(x)", "jnp.maximum(x, 0)", drawn(x=with_zeros(4, 3), **SLOPE)),
    "clip": (
        "D02",
        "x.clamp(0.8, 1.2)",
        "jnp.clip(x, 0.8, 1.2)",
        drawn(x=with_bounds(4, 3), **SLOPE),
    ),
    "clip that stops": (  # as torch's clamp does from 2.14 on
        "D02",
        "torch.nn.functional.hardtanh(x, 0.8, 1.2)",
        "jnp.clip(x, 0.8, 1.2)",
        drawn(x=with_bounds(4, 3), **SLOPE),
    ),
    "lax clip": (
        "D02",
        "torch.where(x < 0.8, 0.8, torch.where(x > 1.2, 1.2, x))",  # as torch's clamp until 2.13
        "lax.clamp(0.8, x, 1.2)",
        drawn(x=with_bounds(4, 3), **SLOPE),
    ),
    "ties": (
        "D03",
        "torch.max(x, 1).values",
        "jnp.max(x, 1)",
        drawn(x=with_ties(4, 5), slope=positive(4)),
    ),
    "absolute": ("D04", "torch.abs(x)", "jnp.abs(x)", drawn(x=with_zeros(4, 3), **SLOPE)),
    "xlogy": (
        "D08",
        "torch.special.xlogy(x, y)",
        "jax.scipy.special.xlogy(x, y)",
        drawn(
            x=with_zeros(4, 3), y=lambda rng: np.zeros((4, 3)) + (rng.random((4, 3)) > 0.5), **SLOPE
        ),
    ),
    "equal pair": (
        "D11",
        "torch.minimum(x, y)",
        "jnp.where(x < y, x, y)",
        drawn(x=with_zeros(4, 3), y=with_zeros(4, 3), **SLOPE),
    ),
    "another path": (
        "R41",
        "x.detach() + x * z",
        "x + x * z",
        drawn(x=(4, 3), z=(4, 3), **SLOPE),
    ),
    "half the square": (
        "E04",
        "F.mse_loss(x, y, reduction='none')",
        "optax.l2_loss(x, y)",
        drawn(x=(4, 3), y=(4, 3), **SLOPE),
    ),
}


@pytest.mark.parametrize("name", BACKWARD)
def test_the_trap_in_which_slopes_part_is_named_first(name):
    trap, torch_code, jax_code, sets = BACKWARD[name]
    found = likely_causes(backward(torch_code, jax_code, sets))
    assert [cause.trap for cause in found[:1]] == [trap], found


@pytest.mark.parametrize(
    "name", ["std", "gelu", "layer norm", "softmax", "square kernel", "cumsum"]
)
def test_a_trap_is_seen_where_the_right_value_is_but_one_of_several_without_partner(name):
    trap, torch_code, jax_code, sets = FORWARD[name]
    known = forward(torch_code, jax_code, sets)
    (other,) = drawn_values(1)
    found = likely_causes(known._replace(reference=None, references=[other, known.reference]))
    assert [cause.trap for cause in found[:1]] == [trap], found


def drawn_values(count, *shape, seed=7):
    rng = np.random.default_rng(seed)
    return [
        Seen("mul", tuple(rng.normal(size=shape or (5, 7)) for _ in range(NUM_SETS)))
        for _ in range(count)
    ]


UNRELATED = {
    "other numbers": ("x", "jnp.sin(3 * x + 1)", X),
    "an unknown factor": ("x", "1.37 * x.mean() * x", X),
    "an unknown factor everywhere": ("x", "x * jnp.float64(1.3717)  ", X),
    "another layout": ("x", "x.reshape(5, 1, 7)", X),
    "a column": ("x", "x[:, None]", drawn(x=(5,))),
    "channels last": ("x", "x.transpose(0, 2, 3, 1)", drawn(x=(2, 3, 4, 5))),
    "an unknown constant": ("x", "x + y", drawn(x=(5,), y=number(0.731))),
    "one number": ("x.sum()", "jnp.cos(x).sum()", X),
    "one number, an unknown factor": ("x.sum()", "1.9 * jnp.sum(x) * 1.0007", X),
    "a few entries": ("x", "x.at[0].set(7.3)", X),
    "another seed": ("x", "y", drawn(x=(9,), y=(9,))),
    "zeros": ("0 * x", "x", X),
    "ones and zeros": ("(x > 0).double()", "(y > 0).astype(float)", drawn(x=(9,), y=(9,))),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_nothing_is_named_where_no_known_relation_holds(name):
    torch_code, jax_code, sets = UNRELATED[name]
    hidden = forward(torch_code, jax_code, sets)
    # The operands are not shown, nor the statements: else they would explain it.
    reference, candidate = (
        each._replace(operands=(), code="z = f(x)") for each in (hidden.reference, hidden.candidate)
    )
    near = drawn_values(3) + drawn_values(2, 9) + drawn_values(2, 1)
    seen = hidden._replace(reference=reference, candidate=candidate, matched=near)
    assert likely_causes(seen) == []


@pytest.mark.parametrize(
    ("in_torch", "in_jax", "trap"),
    [("aten.detach.default", "sub", "R21"), ("aten.sub.Tensor", "stop_gradient", "R20")],
)
def test_a_value_that_one_side_alone_detaches_is_named_where_a_further_path_hides_it(
    in_torch, in_jax, trap
):
    y, z = drawn_values(2, 4, 3)
    reference, candidate = y._replace(op=in_torch), z._replace(op=in_jax)
    found = likely_causes(Evidence("backward", reference, candidate, forward=y))
    assert [cause.trap for cause in found] == [trap]
    assert likely_causes(Evidence("forward", reference, candidate)) == []


@pytest.mark.parametrize(("right", "wrong"), [(4.0, 2.0), (1.0, 0.01), (3.0, -3.0), (0.0, 1.0)])
def test_one_number_everywhere_says_nothing(right, wrong):
    seen = [
        Seen("mul", (np.full((4, 2), v),) * NUM_SETS, (), "y = 0.5 * x + 2") for v in (right, wrong)
    ]
    matched = [Seen("sub", (np.full((4, 2), v),) * NUM_SETS) for v in (1.0, 2.0, 0.01)]
    assert likely_causes(Evidence("forward", *seen, matched=matched + drawn_values(3, 4, 2))) == []


def test_a_relation_that_one_input_set_breaks_is_no_cause():
    _, torch_code, jax_code, sets = FORWARD["std"]
    seen = forward(torch_code, jax_code, sets)
    assert likely_causes(seen)
    values = (*seen.candidate.values[:-1], 1.01 * seen.candidate.values[-1])
    assert likely_causes(seen._replace(candidate=seen.candidate._replace(values=values))) == []


def test_a_relation_that_holds_but_for_a_millionth_is_no_cause():
    _, torch_code, jax_code, sets = FORWARD["gelu"]
    seen = forward(torch_code, jax_code, sets)
    values = tuple(v * (1 + 1e-6) for v in seen.candidate.values)
    assert likely_causes(seen._replace(candidate=seen.candidate._replace(values=values))) == []


@pytest.mark.parametrize("seed", range(20))
def test_values_that_have_nothing_to_do_with_each_other_have_no_cause(seed):
    rng = np.random.default_rng(seed)
    codes = ["loss = -(log_prob * adv).mean()", "x = (x - mean) / (std + 1e-8)", "y = x * 0.5"]

    def shape():
        return tuple(rng.permutation([4, 3, 4])[: rng.integers(0, 4)])

    def seen(like):
        operands = tuple(
            tuple(rng.normal(size=s) for _ in range(NUM_SETS)) for s in (shape(), shape())
        )
        values = tuple(rng.normal(size=like) for _ in range(NUM_SETS))
        return Seen(str(rng.choice(["add", "mean", "clip"])), values, operands, rng.choice(codes))

    like = shape()
    evidence = Evidence(
        "forward" if seed % 2 else "backward",
        seen(like),
        seen(like),
        *([seen(shape()) for _ in range(3)] for _ in range(3)),
        seen(like),
    )
    assert likely_causes(evidence) == []


ON_OPERATIONS = {s.check for module in (operations, clips, written) for s in module.SIGNATURES}
BY_THEMSELVES = ("stopped_by_name", "operand_of_a_function")
ON_NUMBERS = [
    s for s in SIGNATURES if s.check.__name__ not in BY_THEMSELVES and s.check not in ON_OPERATIONS
]
"""All but those that look at more than two statements: they have tests of their own, here or in
`test_causes_operations.py`."""


@pytest.mark.parametrize("signature", ON_NUMBERS, ids=lambda s: f"{s.trap} {s.check.__name__}")
def test_every_signature_fits_one_of_the_cases(signature):
    cases = [(each[0], forward, each[1:]) for each in FORWARD.values()]
    cases += [(each[0], backward, each[1:]) for each in BACKWARD.values()]
    cases.sort(key=lambda case: case[0] != signature.trap)  # its own, which mostly fit, first
    with np.errstate(all="ignore"):
        assert any(signature.check(laid_out(make(*case))) for _, make, case in cases)


def test_every_signature_function_is_in_the_table():
    named = {signature.check for signature in SIGNATURES}
    functions = [f for module in MODULES for f in vars(module).values() if inspect.isfunction(f)]
    checks = {f for f in functions if str(inspect.signature(f)).startswith("(clues: ")}
    public = {f for f in checks if str(inspect.signature(f)).endswith("Found | None")}
    assert {f for f in public if not f.__name__.startswith("_")} == named
