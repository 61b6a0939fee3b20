"""Causes that are told by the operations on both sides, where the numbers alone do not tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity

RNG = np.random.default_rng(7)
X, Y, NOISE = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 4)), 3 * RNG.normal(size=(5, 4))
MASK = np.arange(5)[:, None] < np.array([5, 2, 3, 1])
SMALL = 1e-7 * RNG.normal(size=(5, 4))


def in_torch(made):
    return lambda **inputs: made(torch, **inputs)


def in_jax(made):
    return lambda **inputs: made(jnp, **inputs)


def scaled_by_norm(xp, g, limit=0.5):
    return g * xp.clip(limit / ((g * g).sum() ** 0.5 + 1e-6), None, 1.0)


CASES = {}


def case(name, trap, right, wrong, **inputs):
    """Each is a statement of its own: what is written beside it is evidence, too."""
    CASES[name] = trap, right, wrong, inputs


def divided(xp, r, discount):
    powers = xp.stack([xp.ones_like(r[0]) * discount**t for t in range(5)])
    terms = r * powers
    before = xp.cumsum(terms, 0) - terms
    return (terms.sum(0) - before) / powers


def by_definition(xp, r, discount):
    rows = [sum(discount ** (k - t) * r[k] for k in range(t, 5)) for t in range(5)]
    return xp.stack(rows)


def by_largest_entry(xp, g):
    return g / torch.nn.utils.get_total_norm([g], norm_type=torch.inf)


def rate_in_python(xp, m, count):
    return m * (-0.1 / (1 + int(count)))


case(
    "where left out",
    "R24",
    lambda xp, x, mask: xp.where(mask, x, 0.0).sum(0),
    lambda xp, x, mask: x.sum(0),
    x=X,
    mask=MASK,
)
case(
    "flags narrowed",
    "R24",
    lambda xp, x, mask: (x > 0.3) & mask,
    lambda xp, x, mask: x > 0.3,
    x=X,
    mask=MASK,
)
case(
    "a term that is 0",
    "R06",
    lambda xp, x, noise: xp.tanh(x) + xp.exp(x) * noise,
    lambda xp, x, noise: xp.tanh(x) + 0 * noise,
    x=X,
    noise=NOISE,
)
case(
    "noise that is not used",
    "R06",
    lambda xp, x, noise: xp.argmax(xp.tanh(x) + noise, -1),
    lambda xp, x, noise: xp.argmax(xp.tanh(x), -1),
    x=X,
    noise=NOISE,
)
case(
    "an epsilon in another unit",
    "R18",
    lambda xp, x, y: x / xp.exp(y),
    lambda xp, x, y: x / (xp.exp(y) + 1e-7 / xp.abs(x).max()),
    x=X,
    y=Y,
)
case(
    "divided by 1",
    "R05",
    lambda xp, x, y: x / xp.exp(y) ** 0.5,
    lambda xp, x, y: x / xp.exp(y) ** 0.0,
    x=X,
    y=Y,
)
case(
    "the sign of one operand",
    "R04",
    lambda xp, m, g: m + 0.1 * (-g - m),
    lambda xp, m, g: m + 0.1 * (g - m),
    m=X,
    g=Y,
)
case(
    "the mean not subtracted",
    "R34",
    lambda xp, x, mask: xp.tanh(x - x.sum(0) / mask.sum(0)) ** 2,
    lambda xp, x, mask: xp.tanh(x) ** 2,
    x=X,
    mask=MASK,
)
case(
    "a mask times NaN",
    "R23",
    lambda xp, x, mask: xp.where(mask, x, 0.0).sum(0),
    lambda xp, x, mask: (x * xp.where(mask, 1.0, 0.0)).sum(0),
    x=np.where(MASK, X, np.nan),
    mask=MASK,
)
case(
    "clipped on one side",
    "R15",
    scaled_by_norm,
    lambda xp, g: g * (0.5 / ((g * g).sum() ** 0.5 + 1e-6)),
    g=SMALL,
)
case(
    "clipped entry by entry",
    "R29",
    scaled_by_norm,
    lambda xp, g: xp.clip(g, -0.5, 0.5),
    g=X / np.linalg.norm(X) / 1.999,
)
case(
    "another norm",
    "R08",
    by_largest_entry,
    lambda xp, g: g / xp.sqrt(xp.square(g).sum()),
    g=X,
)
case(
    "a number that does nothing",
    "R42",
    lambda xp, x: xp.exp(0.5 * (1.3 - xp.tanh(x))),
    lambda xp, x: xp.exp(1.0 * (1.3 - xp.tanh(x))),
    x=X,
)
case(
    "another threshold on the square",
    "R42",
    lambda xp, x: xp.where((x * x).sum(-1) ** 0.5 <= 2.0, 0.0, 1.0),
    lambda xp, x: xp.where((x * x).sum(-1) <= 2.0, 0.0, 1.0),
    x=X,
)
case(
    "other weights of an average",
    "R30",
    lambda xp, v, g: 0.999 * v + (1 - 0.999) * g * g,
    lambda xp, v, g: 0.99 * v + (1 - 0.99) * g * g,
    v=X**2,
    g=Y,
)
case(
    "a count one ahead",
    "R35",
    rate_in_python,
    lambda xp, m, count: m * (-0.1 / (2 + count)),
    m=X,
    count=np.array(1000),
)
case(
    "a count of another shape one ahead",
    "R35",
    rate_in_python,
    lambda xp, m, count: m * (-0.1 / (2 + count)),
    m=X,
    count=np.array([1000]),
)
case(
    "counted padding",
    "R13",
    lambda xp, x, mask: xp.tanh(x).sum(0) / mask.sum(0),
    lambda xp, x, mask: xp.tanh(x).sum(0) / xp.ones_like(mask).sum(0),
    x=X,
    mask=MASK,
)
case(
    "one entry for all",
    "R16",
    lambda xp, x, noise: xp.tanh(x) + noise,
    lambda xp, x, noise: xp.tanh(x) + (noise[:, :1] + 0 * noise),
    x=X,
    noise=NOISE,
)
case(
    "all pairs of a product",
    "R14",
    lambda xp, x, y: (x * y).sum(0).mean(),
    lambda xp, x, y: (x[:, :, None] * y[:, None]).sum(0).mean(),
    x=X,
    y=Y,
)
case(
    "flags a step too early",
    "R02",
    lambda xp, x, mask: xp.logical_and(mask, mask),
    lambda xp, x, mask: xp.concatenate([mask[1:], xp.zeros_like(mask[:1])]),
    x=X,
    mask=MASK,
)
case(
    "clamped probabilities",
    "C02",
    lambda xp, x: torch.log_softmax(x, -1),
    lambda xp, x: xp.log(xp.clip(jax.nn.softmax(x), 2.0**-52, 1 - 2.0**-52)),
    x=60 * X,
)
case("division by powers", "G10", by_definition, divided, r=X, discount=0.0)
case(
    "a mean for a sum, at the end",
    "R03",
    lambda xp, p: torch.special.entr(p).sum(-1),
    lambda xp, p: -jax.scipy.special.xlogy(p, p).mean(-1),
    p=RNG.dirichlet(np.ones(4), 5),
)


@pytest.mark.parametrize("name", CASES)
def test_what_the_operations_tell_is_named_first(name):
    trap, right, wrong, inputs = CASES[name]
    found = parity.first_divergence(in_torch(right), in_jax(wrong), inputs)
    assert found is not None
    assert [cause.trap for cause in found.causes[:1]] == [trap], found.causes
