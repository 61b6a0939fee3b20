"""The training step of the article's two agents on CartPole, by hand and near the machine's limit.

`make_train_step` takes this path by itself where `find_fast` recognises the policy and the
environment; anything else takes the plain one, which the tests hold this one equal to. Both draw
the same numbers from the same key. What is done otherwise, and why:

**Features first.** Arrays are `[features, B]`, so each layer is `W·h + b` with the episodes side by
side in the fast axis. A network of 4-24-12-2 is too small for `[B, features]`.

**Noise where it is used.** Each step draws its own part of the noise (`pgjax.threefry`), bitwise
what `draw_noise` has there. What no episode lives to see is never drawn.

**The gradient, by hand.** No gradient passes from one step to the next (samples are stopped, and
observations are data), so that with `o = f(s; params)` the network's last outputs

    ∇L = −(1/B) Σ_t Σ_b A_tb · ∇ log p(a_tb | o_tb)          with A = 0 outside the mask
    δ_last = A · ∂log p/∂o,           δ_i = relu′(z_i) ⊙ W_{i+1}ᵀ δ_{i+1}
    ∂L/∂W_i = δ_i h_{i−1}ᵀ,           ∂L/∂b_i = δ_i · 1               (up to the factor −1/B)

is a sum over columns in any order. It is taken over blocks of a thousand columns or so (some steps
of all episodes) that stay in the cache from the first layer to the last and back. Activations are
computed again from the observations, which costs less than to write and read them. `relu′(z)` is
`sign(relu(z))`, which a CPU does several times faster than a choice.

What the two agents do otherwise, their scores by hand, is in `pgjax.heads`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from pgcore.config import TrainConfig
from pgcore.errors import require
from pgjax.envs import cartpole
from pgjax.envs.base import Env
from pgjax.heads import HEADS, Head, Layer
from pgjax.optim import _apply_gradient
from pgjax.policies import Policy, _AgentApply
from pgjax.returns import discounted_returns, normalize_returns
from pgjax.rollout import _any_running
from pgjax.threefry import can_draw, split
from pgjax.types import Metrics, TrainState, Trajectory

BLOCK_NUMBERS = 24 * 1024
"""Numbers of the widest layer's activations in a block of the gradient's sum: 96 KiB."""
FEWEST_COLUMNS = 256
"""Of a block, however wide the layer: weights are read once a block."""

WRITTEN_OUT = 16
"""Terms of each sum of a matrix product, up to which a rollout makes no call of it."""
FEW_NUMBERS = 4096
"""Numbers that are multiplied, up to which it makes none."""


class Episodes(NamedTuple):
    """What was played, features first: all that the update needs.

    `drawn` is what the score is of: the action as ±1 `[T, 1, B]`, or the Gaussian agent's noise
    `[T, A, B]`. Nobody plays longer than `num_steps`. What lies beyond an episode's length is
    finite.
    """

    obs: Float[Array, "T O B"]
    drawn: Float[Array, "T D B"]
    length: Int[Array, " B"]
    terminated: Bool[Array, " B"]
    num_steps: Int[Array, ""]


class Sums(NamedTuple):
    """Sums over all unmasked steps, of one device or of all."""

    loss: Float[Array, ""]
    """`Σ_t Σ_b A_tb · log p(a_tb)`."""
    grads: Any
    """Its gradient in the parameters."""
    entropy: Float[Array, ""]


class Fast(NamedTuple):
    """The fast path of a policy and an environment."""

    policy: Policy
    env: Env
    head: Head


def find_fast(policy: Policy, env: Env) -> Fast | None:
    """The fast path, if these are one of the two agents and our own CartPole, as they were made."""
    apply = policy.apply
    if not isinstance(apply, _AgentApply) or policy[2:] != apply.others:
        return None
    fits = cartpole._is_cartpole(env) and apply.dims == (env.obs_dim, env.num_actions)
    return Fast(policy, env, HEADS[apply.agent]) if fits else None


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


def play(
    fast: Fast, params: Any, key: Array, num_episodes: int, axis_name: str | None = None
) -> Episodes:
    """Plays whole episodes with the noise that `draw_noise` makes of the key.

    Of several keys `[K]` it plays as many for each, K · `num_episodes` together. Inside a
    `shard_map`, given the mesh's `axis_name`, each device plays its share of them.

    Raises:
        UsageError: The devices can't have equal shares.
    """
    keys = key.reshape(-1)
    reset_keys, policy_keys = split(keys)
    reset = jax.vmap(fast.env.draw_reset, (0, None))(reset_keys, num_episodes)
    first, share = 0, num_episodes
    if axis_name is not None:
        num_devices = jax.lax.axis_size(axis_name)
        accepted = f"a multiple of the {num_devices} devices"
        require(num_episodes % num_devices == 0, "num_episodes", num_episodes, accepted)
        share = num_episodes // num_devices
        first = jax.lax.axis_index(axis_name) * share
        reset = jax.lax.dynamic_slice_in_dim(reset, first, share, axis=1)
    noise_at = _noise_by_step(fast, policy_keys, num_episodes, first, share)
    return play_on(fast, params, reset.reshape(-1, 4).T, noise_at)


def play_on(
    fast: Fast,
    params: Any,
    reset: Float[Array, "4 B"],
    noise_at: Callable[[Array], Float[Array, "A B"]],
) -> Episodes:
    """`rollout`, features first, on the noise that `noise_at(t)` gives."""
    head, max_steps = fast.head, fast.env.max_steps
    layers = head.layers(params)
    dtype = layers[0][0].dtype

    def step(loop: _Loop) -> _Loop:
        obs = loop.physics.astype(jnp.float32)
        outputs = _hidden_and_outputs(layers, obs.astype(dtype), _product)[1]
        is_right, drawn = head.decide(outputs, loop.noise)
        physics = jnp.stack(cartpole._move(loop.physics, is_right, _sin_and_cos))
        fell = loop.running & cartpole._is_out(physics[0], physics[2])
        return _Loop(
            time=loop.time + 1,
            # Ahead of its step: what a step computes XLA may compute again for each of its uses.
            noise=noise_at(loop.time + 1),
            # A finished episode stays where it is, so that all that is recorded is finite.
            physics=jnp.where(loop.running, physics, loop.physics),
            running=loop.running & ~fell,
            terminated=loop.terminated | fell,
            length=loop.length + loop.running,
            obs=jax.lax.dynamic_update_index_in_dim(loop.obs, obs, loop.time, 0),
            drawn=jax.lax.dynamic_update_index_in_dim(loop.drawn, drawn, loop.time, 0),
        )

    # Made from the reset noise, and so, under `shard_map`, split over devices as it is.
    zero = jnp.zeros_like(reset[0])
    nobody = zero.astype(jnp.bool_)
    start = _Loop(
        time=jnp.zeros((), jnp.int32),
        noise=noise_at(jnp.zeros((), jnp.int32)),
        physics=reset,
        running=~nobody,
        terminated=nobody,
        length=zero.astype(jnp.int32),
        obs=jnp.broadcast_to(zero.astype(jnp.float32), (max_steps, *reset.shape)),
        drawn=jnp.broadcast_to(zero.astype(dtype), (max_steps, head.num_drawn, reset.shape[1])),
    )
    end = jax.lax.while_loop(
        lambda loop: (loop.time < max_steps) & _any_running(loop.running), step, start
    )
    return Episodes(end.obs, end.drawn, end.length, end.terminated, end.time)


class _Loop(NamedTuple):
    time: Int[Array, ""]
    noise: Float[Array, "A B"]
    physics: Float[Array, "4 B"]
    running: Bool[Array, " B"]
    terminated: Bool[Array, " B"]
    length: Int[Array, " B"]
    obs: Float[Array, "T 4 B"]
    drawn: Float[Array, "T D B"]


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

        hidden, outputs = _hidden_and_outputs(layers, cut(episodes.obs))
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


def to_trajectory(fast: Fast, params: Any, episodes: Episodes) -> Trajectory:
    """The episodes as `rollout` gives them."""
    mask = jnp.arange(fast.env.max_steps)[:, None] < episodes.length
    obs = jnp.where(mask[..., None], episodes.obs.transpose(0, 2, 1), 0)
    drawn = episodes.drawn.transpose(0, 2, 1)
    if fast.head is HEADS["reinforce"]:
        sample = action = jnp.where(mask, drawn[..., 0] > 0, 0).astype(int)
    else:
        sample = fast.policy.sample(fast.policy.apply(params, obs), drawn)
        sample = jnp.where(mask[..., None], sample, 0)
        action = jnp.where(mask, fast.policy.action(sample), 0)
    return Trajectory(obs, sample, action, mask.astype(drawn.dtype), mask, episodes.terminated)


def _hidden_and_outputs(
    layers: list[Layer], obs: Float[Array, "O N"], product: Callable = jnp.matmul
) -> tuple[list[Float[Array, "_ N"]], Float[Array, "_ N"]]:
    """What goes into each layer, the observations first, and what comes out of the last."""
    into = [obs]
    for weight, bias in layers[:-1]:
        into.append(jax.nn.relu(product(weight, into[-1]) + bias))
    weight, bias = layers[-1]
    return into, product(weight, into[-1]) + bias


def _product(weight: Float[Array, "M K"], columns: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """`weight @ columns`; if these are few, as a sum of K outer products.

    XLA makes one loop of that and of what is around it; a call of its product takes a microsecond
    before it multiplies, and of a `vmap` it is one call a lane.
    """
    num_terms = weight.shape[1]
    if num_terms > WRITTEN_OUT or columns.size > FEW_NUMBERS:
        return weight @ columns
    terms = [weight[:, k : k + 1] * columns[k : k + 1] for k in range(num_terms)]
    return functools.reduce(jnp.add, terms)


def _noise_by_step(
    fast: Fast, keys: Array, num_episodes: int, first: Any, share: int
) -> Callable[[Array], Float[Array, "A B"]]:
    """`time -> noise` of `share` of each key's episodes, from number `first` on."""
    num_steps, num_actions = fast.env.max_steps, fast.env.num_actions
    if not can_draw(keys, num_steps * num_episodes * num_actions):
        noise = jax.vmap(fast.policy.draw_noise, (0, None, None), 1)(keys, num_steps, num_episodes)
        own = jax.lax.dynamic_slice_in_dim(noise, first, share, axis=2)
        return lambda time: own[time].reshape(-1, num_actions).T

    # Their words, taken out once for all steps; one key's stay scalars, which is faster.
    words = jax.random.key_data(keys)
    of_column = words[0] if len(keys) == 1 else jnp.repeat(words, share, axis=0)
    episode = jnp.tile(jnp.arange(share, dtype=jnp.uint32), len(keys))
    episode = episode + jnp.asarray(first).astype(jnp.uint32)
    action = jnp.arange(num_actions, dtype=jnp.uint32)[:, None]

    def noise_at(time: Array) -> Float[Array, "A B"]:
        before = time.astype(jnp.uint32) * jnp.uint32(num_episodes) + episode
        return fast.head.draw(of_column, before * jnp.uint32(num_actions) + action)

    return noise_at


def _sin_and_cos(angle: Float[Array, " B"]) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Both by their series, to beyond float64 for the 12° that a running episode stays within.

    The first terms left out are θ¹⁷/17! and θ¹⁶/16!, below 7e-25 there. XLA calls a function of
    the C library for each number instead.
    """
    square = angle * angle
    sin = cos = jnp.zeros_like(angle)
    for power in range(14, -1, -2):
        sign = -1 if power % 4 else 1
        sin = sign / math.factorial(power + 1) + square * sin
        cos = sign / math.factorial(power) + square * cos
    return angle * sin, cos
