"""What the two agents do otherwise, features first and by hand: for `pgjax.fast`.

**Two actions.** `argmax_a (log p_a + g_a)` is 1 where `u + g₁ − g₀ > 0`, u the difference of the
logits. The last layer is one row, `w₁ − w₀`, whose gradient belongs to w₁ and, negated, to w₀. With
s = ±1 for action 1 or 0, v = s·u and q = e^{−|v|},

    log p(a) = log σ(v) = min(v, 0) − log1p(q)
    ∂log p/∂u = s·σ(−v) = s·(q or 1)/(1 + q)                 q where v > 0
    entropy = log1p(q) + |v|·q/(1 + q)

in which nothing cancels.

**The Gaussian agent** has m = tanh(o_m), l = tanh(o_l), σ = e^{l/2} and the sample z = m + σ·n. In
its score (z − m)/σ is the noise n itself:

    log p(z) = Σ −½n² − ½l − ½ log 2π,     entropy = Σ ½ + ½ log 2π + ½l
    ∂log p/∂o_m = n/σ · (1 − m²),          ∂log p/∂o_l = ½(n² − 1) · (1 − l²)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

from pgjax.distributions import _HALF_LOG_2PI
from pgjax.threefry import gumbel, normal

Layer = tuple[Float[Array, "_ _"], Float[Array, "_ 1"]]
Gradient = tuple[Float[Array, "_ _"], Float[Array, " _"]]


class Head(NamedTuple):
    """One agent's functions."""

    num_drawn: int
    """D, the numbers a step that the score is of: the action as ±1, or the noise."""
    layers: Callable[[Any], list[Layer]]
    """Weights and biases, from the parameters; the last ones' outputs are what `decide` takes."""
    gradient: Callable[[list[Gradient]], Any]
    """The gradient in the parameters from that in the layers."""
    draw: Callable[[Array, UInt32[Array, "A B"]], Float[Array, "A B"]]
    """`(key, counters) -> noise`."""
    decide: Callable[[Array, Array], tuple[Bool[Array, " B"], Float[Array, "D B"]]]
    """`(outputs, noise [A, B]) -> (whether the action is 1, what is drawn)`."""
    score: Callable[[Array, Array], tuple[Array, Array, Array]]
    """`(outputs, drawn [D, N]) -> (log p [N], entropy [N], ∂log p/∂outputs)`."""


def forward(
    layers: list[Layer], obs: Float[Array, "O N"], product: Callable = jnp.matmul
) -> tuple[list[Float[Array, "_ N"]], Float[Array, "_ N"]]:
    """What goes into each layer, the observations first, and what comes out of the last.

    `product` is what multiplies a layer's weights with its columns.
    """
    into = [obs]
    for weight, bias in layers[:-1]:
        into.append(jax.nn.relu(product(weight, into[-1]) + bias))
    weight, bias = layers[-1]
    return into, product(weight, into[-1]) + bias


def _two_actions() -> Head:
    def layers(params: Any) -> list[Layer]:
        *hidden, (weight, bias) = _hidden_layers(params)
        return [*hidden, (weight[1:] - weight[:1], bias[1:] - bias[:1])]

    def gradient(grads: list[Gradient]) -> Any:
        *hidden, (weight, bias) = grads
        last = jnp.concatenate([-weight, weight]), jnp.concatenate([-bias, bias])
        return {"params": _named([*hidden, last])}

    def decide(outputs: Array, noise: Array) -> tuple[Array, Array]:
        is_right = outputs[0] + (noise[1] - noise[0]) > 0  # a tie is the first action's
        return is_right, jnp.where(is_right, 1, -1).astype(outputs.dtype)[None]

    def score(outputs: Array, drawn: Array) -> tuple[Array, Array, Array]:
        v = drawn[0] * outputs[0]
        distance = jnp.abs(v)
        q = jnp.exp(-distance)
        log1p_q, share = jnp.log1p(q), 1 / (1 + q)
        log_prob = jnp.minimum(v, 0) - log1p_q
        slope = drawn * jnp.where(v > 0, q, 1) * share
        return log_prob, log1p_q + distance * q * share, slope

    return Head(1, layers, gradient, gumbel, decide, score)


def _two_scores() -> Head:
    names = "mu_linear", "logvar_linear"

    def layers(params: Any) -> list[Layer]:
        heads = [_layer(params["params"][name]) for name in names]
        weight, bias = (jnp.concatenate(pair) for pair in zip(*heads, strict=True))
        return [*_hidden_layers(params), (weight, bias)]

    def gradient(grads: list[Gradient]) -> Any:
        *hidden, last = grads
        halves = zip(*(jnp.split(array, 2) for array in last), strict=True)
        heads = {name: _unlayer(*half) for name, half in zip(names, halves, strict=True)}
        return {"params": _named(hidden) | heads}

    def decide(outputs: Array, noise: Array) -> tuple[Array, Array]:
        mean, log_variance = jnp.split(jnp.tanh(outputs), 2)
        z = mean + jnp.exp(0.5 * log_variance) * noise
        return z[1] > z[0], noise.astype(outputs.dtype)

    def score(outputs: Array, drawn: Array) -> tuple[Array, Array, Array]:
        squashed = jnp.tanh(outputs)
        log_std = 0.5 * jnp.split(squashed, 2)[1]
        log_prob = jnp.sum(-0.5 * drawn * drawn - log_std - _HALF_LOG_2PI, axis=0)
        entropy = jnp.sum(0.5 + _HALF_LOG_2PI + log_std, axis=0)
        slope = jnp.concatenate([drawn * jnp.exp(-log_std), 0.5 * (drawn * drawn - 1)])
        return log_prob, entropy, slope * (1 - squashed * squashed)

    return Head(2, layers, gradient, normal, decide, score)


def _hidden_layers(params: Any) -> list[Layer]:
    """`linear1`, `linear2`, … as far as there are any."""
    tree = params["params"]
    count = sum(name.startswith("linear") for name in tree)
    return [_layer(tree[f"linear{i}"]) for i in range(1, count + 1)]


def _named(grads: list[Gradient]) -> dict[str, Any]:
    return {f"linear{i}": _unlayer(*pair) for i, pair in enumerate(grads, start=1)}


def _layer(dense: Any) -> Layer:
    """Flax's `kernel [in, out]` and `bias [out]`, features first."""
    return dense["kernel"].T, dense["bias"][:, None]


def _unlayer(weight: Array, bias: Array) -> dict[str, Array]:
    return {"kernel": weight.T, "bias": bias}


HEADS = {"reinforce": _two_actions(), "reparam": _two_scores()}
"""By the agent's name."""
