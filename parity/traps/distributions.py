"""Log-probabilities and entropies."""

import math

import numpy as np

from parity.traps.entries import pair, trap
from parity.traps.slopes import slope_in_jax, slope_in_torch

SMALL = np.finfo(np.float32).eps


@trap(
    "C01",
    "Categorical(probs) normalises: log p has a further slope -1/sum",
    "Categorical(logits=...) and jax.nn.log_softmax(logits)",
)
def normalised_probabilities(torch, jax, jnp):
    """The value is the same, since the probabilities sum to 1; the gradient in them is not."""
    p, first = np.array([0.2, 0.5, 0.3]), torch.tensor(0)
    categorical = torch.distributions.Categorical
    return pair(
        torch=slope_in_torch(lambda p: categorical(probs=p).log_prob(first), p),
        jax=slope_in_jax(lambda p: jnp.log(p)[0], p),
        mended={
            "torch": slope_in_torch(lambda x: categorical(logits=x).log_prob(first), p),
            "jax": slope_in_jax(lambda x: jax.nn.log_softmax(x)[0], p),
        },
    )


@trap(
    "C02",
    "Categorical clamps probabilities to [eps, 1 - eps], jnp.log does not",
    "use logits on both sides, or jnp.log(jnp.clip(p, eps, 1 - eps))",
    x64=False,
)
def clamped_probability(torch, jnp):
    """The log-probability of an action that has none: finite in PyTorch, and other in float64."""
    p = np.array([1.0, 0.0], np.float32)
    return pair(
        torch=torch.distributions.Categorical(probs=torch.tensor(p)).log_prob(torch.tensor(1)),
        jax=jnp.log(jnp.array(p))[1],
        mended={"jax": jnp.log(jnp.clip(jnp.array(p), SMALL, 1 - SMALL))[1]},
    )


@trap(
    "C03",
    "0 times minus infinity: the entropy of masked logits is NaN",
    "mask logits with jnp.finfo(x.dtype).min, or jnp.where(p > 0, p * log_p, 0)",
)
def masked_entropy(torch, jax, jnp):
    """PyTorch's Categorical clamps the logarithm, the formula written out does not."""
    logits = np.array([0.0, 0.0, -np.inf])
    log_p = jax.nn.log_softmax(jnp.array(logits))
    p = jnp.exp(log_p)
    return pair(
        torch=torch.distributions.Categorical(logits=torch.tensor(logits)).entropy(),
        jax=-(p * log_p).sum(),
        mended={"jax": -jnp.where(p > 0, p * log_p, 0).sum()},
    )


@trap(
    "C04",
    "a sample that moves with its parameters: the score function's slope vanishes",
    "jax.lax.stop_gradient(mu + sigma * noise) before log_prob; torch .sample()",
)
def sample_that_moves(torch, jnp, lax):
    """The slope of log p(z) in (mu, log_std), z drawn from it. The value is the same either way.

    PyTorch's .sample() carries no gradient. mu + std · noise does, and (z - mu) / std is then the
    noise, whatever mu is. (PyTorch's .rsample() is as wrong here.)
    """
    noise, at = 1.5, np.array([0.5, -0.7])

    def in_torch(x):
        normal = torch.distributions.Normal(x[0], x[1].exp())
        z = (x[0] + x[1].exp() * noise).detach()  # what .sample() gives for this noise
        return normal.log_prob(z)

    def log_prob(x, z):
        return -0.5 * ((z - x[0]) / jnp.exp(x[1])) ** 2 - x[1] - 0.5 * jnp.log(2 * jnp.pi)

    def sample(x):
        return x[0] + jnp.exp(x[1]) * noise

    return pair(
        torch=slope_in_torch(in_torch, at),
        jax=slope_in_jax(lambda x: log_prob(x, sample(x)), at),
        mended={"jax": slope_in_jax(lambda x: log_prob(x, lax.stop_gradient(sample(x))), at)},
    )


@trap(
    "C05",
    "the log-determinant of tanh: log(1 - tanh² + eps) saturates",
    "2 * (math.log(2) - x - softplus(-2 * x)) on both sides",
)
def log_determinant(torch, jax, jnp):
    """PyTorch's TanhTransform has the form that does not."""
    x = np.array([0.5, 10.0])
    tanh = torch.distributions.TanhTransform()
    return pair(
        torch=tanh.log_abs_det_jacobian(torch.tensor(x), torch.tensor(x).tanh()),
        jax=jnp.log(1 - jnp.tanh(x) ** 2 + 1e-6),
        mended={"jax": 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))},
    )


@trap(
    "C06",
    "log_prob is per dimension: .sum(-1) is left out",
    "log_prob.sum(-1) over the action's dimensions: torch.distributions.Independent(d, 1)",
)
def summed_log_prob(torch, jax):
    """Two steps, two dimensions: (2, 2) times the returns (2,) is a loss, and no error.

    Both frameworks do the same here, so one does not show the other's mistake; a definition that
    was written independently does.
    """
    actions = np.array([[0.1, 0.2], [0.3, -0.4]])
    returns = np.array([1.0, 2.0])
    normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    each = torch.distributions.Independent(normal, 1)
    density = np.prod(np.exp(-0.5 * actions**2) / math.sqrt(2 * math.pi), axis=1)
    return pair(
        torch=(normal.log_prob(torch.tensor(actions)) * torch.tensor(returns)).sum(),
        definition=(np.log(density) * returns).sum(),
        mended={"torch": (each.log_prob(torch.tensor(actions)) * torch.tensor(returns)).sum()},
    )


@trap(
    "C07",
    "a small scale is squared: it underflows",
    "z = (x - mu) / sigma; -0.5 * z * z - jnp.log(sigma) - 0.5 * math.log(2 * math.pi)",
    x64=False,
)
def squared_scale(torch, jax, jnp):
    """Float32's smallest number is 1e-45, and (1e-30)² is 0."""
    x, scale = np.array(1e-30, np.float32), np.array(1e-30, np.float32)
    z = jnp.array(x) / scale
    y = torch.tensor(x) / torch.tensor(scale)
    half_log = 0.5 * math.log(2 * math.pi)
    return pair(
        torch=-0.5 * y * y - torch.tensor(scale).log() - half_log,
        jax=jax.scipy.stats.norm.logpdf(jnp.array(x), 0.0, scale),
        mended={"jax": -0.5 * z * z - jnp.log(scale) - half_log},
    )


@trap(
    "C11",
    "F.kl_div divides by all entries, optax.kl_divergence sums an axis",
    "F.kl_div(log_q, p, reduction='none').sum(-1)",
)
def divergence(torch, F, jnp, optax):
    """PyTorch's default is the mean over all entries, which is no divergence."""
    p, log_q = np.array([0.4, 0.6]), np.log([0.5, 0.5])
    return pair(
        torch=F.kl_div(torch.tensor(log_q), torch.tensor(p)),
        jax=optax.kl_divergence(jnp.array(log_q), jnp.array(p)),
        mended={"torch": F.kl_div(torch.tensor(log_q), torch.tensor(p), reduction="none").sum(-1)},
    )
