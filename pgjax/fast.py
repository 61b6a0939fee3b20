"""The training step of the article's two agents on CartPole, by hand and near the machine's limit.

`make_train_step` takes this path by itself where `find_fast` recognises the policy and the
environment; anything else takes the plain one, which the tests hold this one equal to. Both draw
the same numbers from the same key. What is done otherwise, and why:

**Features first, noise where it is used.** Episodes are `[T, features, B]`, for a network of
4-24-12-2 is too small for `[B, features]`. How they are played is in `pgjax.fast_rollout`.

**The gradient, by hand.** No gradient passes from one step to the next (samples are stopped, and
observations are data), so that with `o = f(s; params)` the network's last outputs

    ∇L = −(1/B) Σ_t Σ_b A_tb · ∇ log p(a_tb | o_tb)          with A = 0 outside the mask
    δ_last = A · ∂log p/∂o,           δ_i = relu′(z_i) ⊙ W_{i+1}ᵀ δ_{i+1}
    ∂L/∂W_i = δ_i h_{i−1}ᵀ,           ∂L/∂b_i = δ_i · 1               (up to the factor −1/B)

is a sum over columns in any order. It is taken over blocks of a thousand columns or so (some steps
of all episodes) that stay in the cache from the first layer to the last and back. Activations are
computed again from the observations, which costs less than to write and read them. `relu′(z)` is
`sign(relu(z))`, which a CPU does sooner than a choice.

What the two agents do otherwise, their scores by hand, is in `pgjax.heads`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from pgcore.config import TrainConfig
from pgjax.fast_rollout import Episodes as Episodes
from pgjax.fast_rollout import Fast as Fast
from pgjax.fast_rollout import find_fast as find_fast
from pgjax.fast_rollout import play as play
from pgjax.heads import forward
from pgjax.optim import _apply_gradient
from pgjax.returns import discounted_returns, normalize_returns
from pgjax.types import Metrics, TrainState

BLOCK_NUMBERS = 24 * 1024
"""Numbers of the widest layer's activations in a block of the gradient's sum: 96 KiB."""
FEWEST_COLUMNS = 256
"""Of a block, however wide the layer: weights are read once a block."""


class Sums(NamedTuple):
    """Sums over all unmasked steps, of one device or of all."""

    loss: Float[Array, ""]
    """`Σ_t Σ_b A_tb · log p(a_tb)`."""
    grads: Any
    """Its gradient in the parameters."""
    entropy: Float[Array, ""]


def make_fast_train_step(
    fast: Fast,
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    axis_name: str | None = None,
) -> Callable[[TrainState, Array], tuple[TrainState, Metrics]]:
    """`train_step(state, key) -> (state, metrics)`, the plain one's results up to rounding.

    Args:
        fast: What `find_fast` found.
        optimizer: As for `make_train_step`.
        config: As for `make_train_step`.
        axis_name: Inside a `shard_map`, the mesh's axis: each device plays and learns from its
            share of the episodes, which are those that one device would play.
    """
    update_step = make_fast_update_step(fast, optimizer, config, axis_name)

    def train_step(state: TrainState, key: Array) -> tuple[TrainState, Metrics]:
        episodes = play(fast, state.params, key, config.episodes_per_update, axis_name)
        return update_step(state, episodes)

    return train_step


def make_fast_update_step(
    fast: Fast,
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    axis_name: str | None = None,
) -> Callable[[TrainState, Episodes], tuple[TrainState, Metrics]]:
    """`update_step(state, episodes) -> (state, metrics)`, as `make_update_step`'s."""

    def update_step(state: TrainState, episodes: Episodes) -> tuple[TrainState, Metrics]:
        length = episodes.length
        if axis_name is not None:  # the statistics are of all episodes, which lengths decide
            length = _of_all_devices(length, axis_name)
        mask = jnp.arange(fast.env.max_steps)[:, None] < length
        rewards = mask.astype(episodes.drawn.dtype)  # CartPole's: 1 a step
        returns = discounted_returns(rewards, mask, config.discount)
        advantages = normalize_returns(returns, mask, config.normalize)
        if axis_name is not None:
            share = len(episodes.length)
            first = jax.lax.axis_index(axis_name) * share
            advantages = jax.lax.dynamic_slice_in_dim(advantages, first, share, axis=1)

        sums = gradient_sums(fast, state.params, episodes, advantages)
        if axis_name is not None:
            sums = jax.lax.psum(sums, axis_name)
        num_episodes, num_steps = length.shape[0], length.sum()
        loss, grads = jax.tree.map(lambda total: -total / num_episodes, sums[:2])
        metrics = Metrics(
            loss=loss,
            grad_norm=optax.tree.norm(grads),
            entropy=sums.entropy / num_steps,
            mean_return=length.astype(rewards.dtype).mean(),
            num_episodes=jnp.asarray(num_episodes, jnp.int32),
            num_steps=num_steps.astype(jnp.int32),
        )
        return _apply_gradient(optimizer, state, loss, grads), metrics

    return update_step


def _of_all_devices(share: Int[Array, " b"], axis_name: str) -> Int[Array, " B"]:
    """Every device's share side by side, known to be the same on all, as an `all_gather` is not."""
    places = jnp.zeros((jax.lax.axis_size(axis_name), len(share)), share.dtype)
    own = places.at[jax.lax.axis_index(axis_name)].set(share)
    return jax.lax.psum(own, axis_name).reshape(-1)


def gradient_sums(
    fast: Fast, params: Any, episodes: Episodes, advantages: Float[Array, "T B"]
) -> Sums:
    """The derivation above, over blocks of some steps of all episodes.

    Lanes of a `vmap` are summed one after another: blocks of all together would leave the cache,
    and a batch of products by small matrices takes longer than one by one.
    """
    one_by_one = jax.custom_batching.sequential_vmap(functools.partial(_gradient_sums, fast))
    return one_by_one(params, episodes, advantages)


def _gradient_sums(
    fast: Fast, params: Any, episodes: Episodes, advantages: Float[Array, "T B"]
) -> Sums:
    layers = fast.head.layers(params)
    transposed = [w.T for w, _ in layers]  # once, and not in each block
    longest, _, num_episodes = episodes.obs.shape
    columns = max(FEWEST_COLUMNS, BLOCK_NUMBERS // max(len(w) for w, _ in layers))
    steps = min(max(columns // num_episodes, 1), longest)
    ones = jnp.ones(steps * num_episodes, layers[0][0].dtype)

    def block(index: Array, sums: Sums) -> Sums:
        start = jnp.minimum(index * steps, longest - steps)
        time = start + jnp.arange(steps)[:, None]
        # The last block may begin before the one before it ends.
        is_own = ((time >= index * steps) & (time < episodes.length)).reshape(-1)

        def cut(array: Array) -> Array:
            """These steps of `[T, F, B]` as `[F, columns]`."""
            part = jax.lax.dynamic_slice_in_dim(array, start, steps, axis=0)
            return part.transpose(1, 0, 2).reshape(part.shape[1], -1).astype(ones.dtype)

        hidden, outputs = forward(layers, cut(episodes.obs))
        log_prob, entropy, slope = fast.head.score(outputs, cut(episodes.drawn))
        weight = jnp.where(is_own, cut(advantages[:, None])[0], 0)
        delta, grads = weight * slope, []
        for i in reversed(range(len(layers))):
            grads.append((delta @ hidden[i].T, delta @ ones))
            if i > 0:
                delta = jnp.sign(hidden[i]) * (transposed[i] @ delta)
        here = Sums(weight @ log_prob, grads[::-1], jnp.where(is_own, entropy, 0) @ ones)
        return jax.tree.map(jnp.add, sums, here)

    zero = advantages[0, 0] * 0  # split over devices as the advantages are
    none = [(jnp.zeros_like(w) + zero, jnp.zeros_like(b[:, 0]) + zero) for w, b in layers]
    num_blocks = -(-episodes.num_steps // steps)
    sums = jax.lax.fori_loop(0, num_blocks, block, Sums(zero, none, zero))
    leaves = jax.tree.leaves(fast.head.gradient(sums.grads))
    return sums._replace(grads=jax.tree.unflatten(jax.tree.structure(params), leaves))
