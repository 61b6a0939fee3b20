"""Losses, and the numbers that they hold on to."""

import numpy as np

from parity.traps.entries import pair, trap

HERE, THERE = np.array([1.0, 2.0]), np.array([0.0, 4.0])


@trap(
    "E04",
    "squared error: optax.l2_loss has a factor 1/2, F.mse_loss has none",
    "optax.squared_error(a, b).mean() for F.mse_loss(a, b)",
)
def squared_error(torch, F, jnp, optax):
    """The two are called alike, and the gradients part by the factor too."""
    a, b = jnp.array(HERE), jnp.array(THERE)
    return pair(
        torch=F.mse_loss(torch.tensor(HERE), torch.tensor(THERE)),
        jax=optax.l2_loss(a, b).mean(),
        mended={"jax": optax.squared_error(a, b).mean()},
    )


@trap(
    "E05",
    "Huber loss: F.smooth_l1_loss(beta) is the Huber loss over beta",
    "F.huber_loss(a, b, delta=d) for optax.huber_loss(a, b, delta=d)",
)
def huber(torch, F, jnp, optax):
    """They are the same for a delta of 1 alone."""
    a, b = torch.tensor(HERE), torch.tensor(THERE)
    return pair(
        torch=F.smooth_l1_loss(a, b, beta=0.5),
        jax=optax.huber_loss(jnp.array(HERE), jnp.array(THERE), delta=0.5).mean(),
        mended={"torch": F.huber_loss(a, b, delta=0.5)},
    )


@trap(
    "E06",
    "cross-entropy leaves out labels of -100 in PyTorch, not in optax",
    "mask = labels != -100; (loss * mask).sum() / mask.sum() on both sides",
)
def ignored_labels(torch, F, jnp, optax):
    """PyTorch divides by the number of labels that are left; optax takes entry -100."""
    logits, labels = np.array([[1.0, 2.0, 0.5], [0.3, 0.1, 0.2]]), np.array([1, -100])
    entropy = optax.softmax_cross_entropy_with_integer_labels
    mask = jnp.array(labels != -100)
    kept = entropy(jnp.array(logits), jnp.where(mask, labels, 0))
    return pair(
        torch=F.cross_entropy(torch.tensor(logits), torch.tensor(labels)),
        jax=entropy(jnp.array(logits), jnp.array(labels)).mean(),
        mended={"jax": (kept * mask).sum() / mask.sum()},
    )


@trap(
    "E07",
    "binary cross-entropy: PyTorch holds the logarithm at -100",
    "F.binary_cross_entropy_with_logits <-> optax.sigmoid_binary_cross_entropy",
)
def binary_cross_entropy(torch, F, jnp, optax):
    """A probability of 0 for what came to pass; with logits neither needs to hold anything."""
    p, logit, label = np.zeros(1), np.array([-200.0]), np.ones(1)
    with_logits = F.binary_cross_entropy_with_logits
    return pair(
        torch=F.binary_cross_entropy(torch.tensor(p), torch.tensor(label)),
        jax=-(label * jnp.log(jnp.array(p)) + (1 - label) * jnp.log1p(-jnp.array(p))).mean(),
        mended={
            "torch": with_logits(torch.tensor(logit), torch.tensor(label)),
            "jax": optax.sigmoid_binary_cross_entropy(jnp.array(logit), label).mean(),
        },
    )


@trap(
    "E08",
    "cosine similarity of a zero vector: 0 in PyTorch, NaN in optax",
    "optax.cosine_similarity(a, b, epsilon=1e-8)",
)
def cosine(torch, F, jnp, optax):
    """PyTorch has an epsilon of 1e-8, optax of 0."""
    zero, other = np.zeros(2), np.ones(2)
    return pair(
        torch=F.cosine_similarity(torch.tensor(zero), torch.tensor(other), dim=-1),
        jax=optax.cosine_similarity(jnp.array(zero), jnp.array(other)),
        mended={"jax": optax.cosine_similarity(jnp.array(zero), jnp.array(other), epsilon=1e-8)},
    )
