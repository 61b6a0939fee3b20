"""The article's two networks as Flax Linen modules, with its layer names and PyTorch's weights."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pgjax.threefry import draw, uniform

HEAD_INIT_BOUND = 3e-3
"""Both heads of `ReparamTrickAgent` start uniformly within ± this, weight and bias."""


def _linear(name: str, inputs: int, outputs: int, bound: float | None = None) -> nn.Dense:
    """A dense layer that starts as `torch.nn.Linear` does: weight and bias U(±1/√inputs).

    `bound` replaces that bound. Parameters have the default float type, so float64 under x64.
    """
    limit = 1 / math.sqrt(inputs) if bound is None else bound

    def start(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        return draw(uniform, key, shape, low=-limit, high=limit)

    dtype = jnp.result_type(float)
    return nn.Dense(outputs, param_dtype=dtype, kernel_init=start, bias_init=start, name=name)


def _hidden(obs: Float[Array, "*batch O"], hidden_sizes: tuple[int, ...]) -> Float[Array, "..."]:
    """`relu(linearᵢ(·))` for each hidden layer; call it inside a compact method."""
    x = obs
    for i, size in enumerate(hidden_sizes, start=1):
        x = nn.relu(_linear(f"linear{i}", x.shape[-1], size)(x))
    return x


class ReinforceAgent(nn.Module):
    """Logits of a categorical policy: O → 24 → 12 → A with ReLU.

    (The article ends in a softmax; the logits give the same distribution, without its clamp.)
    """

    obs_dim: int
    num_actions: int
    hidden_sizes: tuple[int, ...] = (24, 12)

    @nn.compact
    def __call__(self, obs: Float[Array, "*batch O"]) -> Float[Array, "*batch A"]:
        """Logits: log-weights of the actions, up to a constant."""
        x = _hidden(obs, self.hidden_sizes)
        return _linear(f"linear{len(self.hidden_sizes) + 1}", x.shape[-1], self.num_actions)(x)


class ReparamTrickAgent(nn.Module):
    """Mean and standard deviation of a Normal distribution per action.

    `mu = tanh(·)`, `logvar = tanh(·)`, `std = exp(logvar / 2)`.
    """

    obs_dim: int
    num_actions: int
    hidden_sizes: tuple[int, ...] = (24, 12)

    @nn.compact
    def __call__(
        self, obs: Float[Array, "*batch O"]
    ) -> tuple[Float[Array, "*batch A"], Float[Array, "*batch A"]]:
        """`mu` and `std` of each action's score."""
        x = _hidden(obs, self.hidden_sizes)
        width = x.shape[-1]
        mu = nn.tanh(_linear("mu_linear", width, self.num_actions, HEAD_INIT_BOUND)(x))
        logvar = nn.tanh(_linear("logvar_linear", width, self.num_actions, HEAD_INIT_BOUND)(x))
        return mu, jnp.exp(0.5 * logvar)
