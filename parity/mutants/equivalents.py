"""Other formulas of the same thing: they must pass, or the suite would reject right ports."""

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import optax

from parity.mutants.of_networks import IN_JAX
from parity.mutants.of_optimizers import rate_of
from parity.mutants.of_returns import JAX, TORCH, normalized, recursion
from parity.mutants.variants import Patch, Variant, instead, seen_by
from pgjax import distributions as jax_laws
from pgjax import losses as jax_losses
from pgjax import networks as jax_networks
from pgjax import optim as jax_optim
from pgjax import returns as jax_returns
from pgjax.envs import cartpole as jax_cartpole
from pgtorch import returns as torch_returns

jax_train, jax_rollout = import_module("pgjax.train"), import_module("pgjax.rollout")


def equivalents() -> Iterator[Variant]:
    """Each with why no input can tell it apart, but for rounding."""

    def same(name: str, side: str, proof: str, *patches: Patch) -> Variant:
        return Variant(name, "equivalent", side, patches, True, proof)

    yield same(
        "returns by a matrix of powers of γ",
        "pgjax",
        "G_t = Σ_{k ≥ t} γ^(k−t) r_k solves G_t = r_t + γ G_{t+1}",
        instead(jax_returns, "discounted_returns", _by_matrix),
    )
    yield same(
        "returns by a plain loop",
        "pgtorch",
        "the same recursion, over the padding too, where rewards are zero",
        instead(torch_returns, "discounted_returns", recursion()(TORCH.xp)),
    )
    yield same(
        "advantages by the article's formula",
        "pgjax",
        "(G − mean) / std in units of max|G|, one scope after another",
        instead(jax_returns, "normalize_returns", normalized(JAX)),
    )
    yield same(
        "loss as a sum divided by the number of episodes",
        "pgjax",
        "the mean of B sums is their sum divided by B",
        instead(jax_losses, "reinforce_loss", _summed),
        instead(jax_train, "reinforce_loss", _summed),
    )
    yield same(
        "advantages stopped twice",
        "pgjax",
        "stopping a gradient that is stopped changes nothing",
        Patch(
            jax_train,
            "normalize_returns",
            lambda right: lambda *args: jax.lax.stop_gradient(right(*args)),
        ),
    )
    yield same(
        "Gumbel-max without normalising",
        "pgjax",
        "log p is the logits less one number for all actions, which moves no argmax",
        instead(
            jax_laws.Categorical, "sample", lambda self, noise: jnp.argmax(self.logits + noise, -1)
        ),
    )
    yield same(
        "logits less their largest",
        "pgjax",
        "softmax(x − c) = softmax(x): exp(−c) divides out",
        Patch(jax_laws.Categorical, "log_prob", _shifted),
        Patch(jax_laws.Categorical, "entropy", _shifted),
    )
    yield same(
        "log-probability by logsumexp",
        "pgjax",
        "log softmax(x)_a = x_a − log Σ exp x",
        instead(jax_laws.Categorical, "log_prob", _by_logsumexp),
    )
    yield same(
        "Normal density with its constant in one logarithm",
        "pgjax",
        "log σ + ½ log 2π = log(σ √(2π))",
        instead(jax_laws.Normal, "log_prob", _one_logarithm),
    )
    yield same(
        "ReLU by where",
        "pgjax",
        "max(0, x) is x where x > 0 and else 0, with slope 0 at 0",
        seen_by(jax_networks, "nn", *IN_JAX, relu=lambda x: jnp.where(x > 0, x, 0)),
    )
    yield same(
        "tanh by the logistic function",
        "pgjax",
        "tanh x = 2 / (1 + exp(−2x)) − 1",
        seen_by(jax_networks, "nn", *IN_JAX, tanh=lambda x: 2 * flax.linen.sigmoid(2 * x) - 1),
    )
    yield same(
        "Adam by corrected moments",
        "pgjax",
        "lr / (1 − b1ᵗ) · m / (√v / √(1 − b2ᵗ) + ε) is lr · m̂ / (√v̂ + ε)",
        instead(jax_optim, "adam", _corrected_moments),
    )
    yield same(
        "schedule multiplied in after Adam",
        "pgjax",
        "lr · (m̂ / (√v̂ + ε)) is the step of a rate of 1, times lr",
        Patch(jax_optim, "adam", _rate_afterwards),
    )
    yield same(
        "clipping by where",
        "pgjax",
        "min(1, c / n) is c / n where n > c and else 1",
        instead(jax_optim, "clip_by_global_norm", _clip_by_where),
    )
    yield same(
        "rollouts played to the end",
        "pgjax",
        "after all episodes have ended only zeros are recorded",
        *(
            Patch(
                module,
                "rollout",
                lambda right: lambda *a, early_exit=True: right(*a, early_exit=False),
            )
            for module in (jax_rollout, jax_train)
        ),
    )
    yield same(
        "noise from other keys",
        "pgjax",
        "keys folded from one key are as independent as keys split from it",
        *(
            Patch(module, "draw_noise", lambda right: _folded)
            for module in (jax_rollout, jax_train)
        ),
    )
    yield same(
        "CartPole's accelerations multiplied out",
        "pgjax",
        "both sides of a fraction times the total mass",
        Patch(jax_cartpole, "step", lambda right: _multiplied_out),
    )


def _by_matrix(rewards: Any, mask: Any, discount: float) -> Any:
    steps = jnp.arange(len(rewards))
    ahead = steps[None, :] - steps[:, None]
    powers = jnp.where(ahead >= 0, jnp.asarray(discount, rewards.dtype) ** jnp.maximum(ahead, 0), 0)
    return jnp.where(mask, powers @ jnp.where(mask, rewards, 0.0), 0.0)


def _summed(log_probs: Any, advantages: Any, mask: Any) -> Any:
    terms = jnp.where(mask, log_probs, 0) * jnp.where(mask, jax.lax.stop_gradient(advantages), 0)
    return -jnp.sum(terms) / mask.shape[1]


def _shifted(right: Any) -> Any:
    def method(self, *args):
        largest = jax.lax.stop_gradient(self.logits.max(-1, keepdims=True))
        return right(self._replace(logits=self.logits - largest), *args)

    return method


def _by_logsumexp(self: Any, value: Any) -> Any:
    shifted = self.logits - jax.lax.stop_gradient(self.logits.max(-1, keepdims=True))
    log_p = shifted - jax.nn.logsumexp(shifted, axis=-1, keepdims=True)
    return jnp.take_along_axis(log_p, value[..., None], -1, mode="clip")[..., 0]


def _one_logarithm(self: Any, value: Any) -> Any:
    z = (value - self.loc) / self.scale
    return -0.5 * z**2 - jnp.log(self.scale * math.sqrt(2 * math.pi))


def _corrected_moments(
    learning_rate: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Any:
    def correction(base: float, count: Any, dtype: Any) -> Any:
        return -jnp.expm1(count.astype(dtype) * math.log(base))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count, rate = optax.safe_increment(state.count), rate_of(learning_rate, state.count)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)

        def step(m, v):
            m_hat, v_hat = (
                each / correction(base, count, each.dtype) for each, base in ((m, b1), (v, b2))
            )
            return -jnp.asarray(rate, m.dtype) * m_hat / (jnp.sqrt(v_hat) + eps)

        return jax.tree.map(step, m, v), optax.ScaleByAdamState(count, m, v)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _rate_afterwards(right: Any) -> Any:
    def adam(learning_rate: Any, *args: Any, **kwargs: Any) -> Any:
        if not callable(learning_rate):
            return right(learning_rate, *args, **kwargs)
        plain: Any = right(1.0, *args, **kwargs)

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            change, after = plain.update(updates, state, params)
            rate = learning_rate(state.count.astype(int))  # of 64 bits under x64
            return jax.tree.map(lambda c: jnp.asarray(rate, c.dtype) * c, change), after

        return optax.GradientTransformation(plain.init, update)

    return adam


def _clip_by_where(max_norm: float) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> Any:
        norm = optax.tree.norm(updates) + 1e-6
        return jax.tree.map(
            lambda g: jnp.where(norm > max_norm, g * (max_norm / norm), g), updates
        ), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _folded(policy: Any, env: Any, key: Any, num_episodes: int) -> Any:
    from pgjax.types import Noise

    reset_key, policy_key = jax.random.fold_in(key, 11), jax.random.fold_in(key, 12)
    reset = env.draw_reset(reset_key, num_episodes)
    return Noise(reset, policy.draw_noise(policy_key, env.max_steps, num_episodes))


def _multiplied_out(state: Any, action: Any, max_steps: int = 500) -> Any:
    c = jax_cartpole
    x, v, theta, omega = jnp.moveaxis(state.physics, -1, 0)
    force = jnp.where(action == 1, c.FORCE, -c.FORCE).astype(x.dtype)
    sin, cos = jnp.sin(theta), jnp.cos(theta)
    push = force + c.POLE_MASS_LENGTH * omega * omega * sin
    theta_acc = (c.TOTAL_MASS * c.GRAVITY * sin - cos * push) / (
        c.HALF_POLE_LENGTH * (4.0 / 3.0 * c.TOTAL_MASS - c.POLE_MASS * cos * cos)
    )
    x_acc = (push - c.POLE_MASS_LENGTH * theta_acc * cos) / c.TOTAL_MASS
    tau = c.TIME_STEP
    parts = [x + tau * v, v + tau * x_acc, theta + tau * omega, omega + tau * theta_acc]
    after = c.CartPoleState(jnp.stack(parts, -1), state.time + 1)
    terminated = (jnp.abs(parts[0]) > c.X_LIMIT) | (jnp.abs(parts[2]) > c.THETA_LIMIT_RAD)
    obs = after.physics.astype(jnp.float32)
    return after, obs, jnp.ones_like(x), terminated, after.time >= max_steps
