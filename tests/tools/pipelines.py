"""Two algorithms as a user would write them for `check_pipeline`: stages in PyTorch and in JAX.

Both are REINFORCE on a small two-layer network, one with a categorical policy, one with a Normal
whose sample is stopped. All is written out here, nothing is borrowed from the packages.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

T, B, OBS, H, A = 5, 3, 4, 6, 2
MASK = np.arange(T)[:, None] < np.array([5, 3, 1])
LOG_TWO_PI = math.log(2 * math.pi)


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def padded(array):
    """With NaN outside the mask, which no stage may let through."""
    return np.where(MASK.reshape(MASK.shape + (1,) * (array.ndim - 2)), array, np.nan)


def inputs(heads):
    """Parameters in torch's layout, and a batch; `heads` are the output layers."""
    sizes = {"hidden": (H, OBS), **dict.fromkeys(heads, (A, H))}
    params = {}
    for seed, (layer, (rows, columns)) in enumerate(sizes.items()):
        params[f"{layer}.weight"] = numbers(seed, rows, columns) / math.sqrt(columns)
        params[f"{layer}.bias"] = numbers(seed + 100, rows) / 4
    return {
        "params": params,
        "obs": padded(numbers(7, T, B, OBS)),
        "noise": numbers(8, T, B, A),
        "rewards": padded(1 + numbers(9, T, B)),
        "mask": MASK,
        "discount": 0.9,
        "state": numbers(10, B, 4) / 10,
        "push": np.array([0, 1, 1]),
        "max_norm": 0.5,
    }


# --- stages that both agents have, in torch ------------------------------------------------------


class StepInTorch(NamedTuple):
    state: torch.Tensor
    terminated: torch.Tensor


class Physics(NamedTuple):
    gravity: float = 9.8
    length: float = 0.5
    limit: float = 0.1


PHYSICS = Physics()


def torch_env_step(state, push, physics=PHYSICS):
    x, speed, theta, turning = state.unbind(-1)
    force = torch.where(push == 1, 10.0, -10.0).to(state)
    turn = (physics.gravity * torch.sin(theta) - force * torch.cos(theta)) / physics.length
    after = [x + 0.02 * speed, speed + 0.02 * force, theta + 0.02 * turning, turning + 0.02 * turn]
    return StepInTorch(torch.stack(after, -1), (after[0].abs() > physics.limit))


def torch_returns(rewards, mask, discount):
    following, found = torch.zeros_like(rewards[0]), []
    for reward, now in zip(rewards.flip(0), mask.flip(0), strict=True):
        following = torch.where(now, torch.where(now, reward, 0) + discount * following, 0)
        found.insert(0, following)
    return torch.stack(found)


def torch_advantages(returns, mask):
    inside = returns[mask]
    return torch.where(mask, (returns - inside.mean()) / inside.std(correction=0), 0)


def torch_loss(log_prob, advantages, mask):
    return -(torch.where(mask, log_prob, 0) * advantages).sum(0).mean()


def torch_clip(gradients, max_norm):
    norm = torch.sqrt(sum((g**2).sum() for g in gradients.values()))
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    return {name: g * factor for name, g in gradients.items()}


def torch_update(params, gradients, m, v, count):
    count = count + 1
    m = {k: 0.9 * m[k] + 0.1 * g for k, g in gradients.items()}
    v = {k: 0.999 * v[k] + 0.001 * g * g for k, g in gradients.items()}
    # The correction in Python's float64, as torch.optim.Adam has it.
    first, second = 1 - 0.9 ** int(count), 1 - 0.999 ** int(count)
    change = {k: m[k] / first / (torch.sqrt(v[k] / second) + 1e-8) for k in m}
    return {
        "params": {k: params[k] - 0.01 * change[k] for k in m},
        "m": m,
        "v": v,
        "count": count,
    }


# --- and in JAX, each with what a port may get wrong as an argument of its own -------------------


class StepInJax(NamedTuple):
    state: jax.Array
    terminated: jax.Array


def jax_env_step(state, push, physics=PHYSICS, terminates=True):
    x, speed, theta, turning = jnp.moveaxis(state, -1, 0)
    force = jnp.where(push == 1, 10.0, -10.0).astype(state.dtype)
    turn = (physics.gravity * jnp.sin(theta) - force * jnp.cos(theta)) / physics.length
    after = [x + 0.02 * speed, speed + 0.02 * force, theta + 0.02 * turning, turning + 0.02 * turn]
    far = jnp.abs(after[0]) > physics.limit
    return StepInJax(jnp.stack(after, -1), far & terminates)


def jax_returns(rewards, mask, discount):
    def step(following, now):
        reward, runs = now
        following = jnp.where(runs, jnp.where(runs, reward, 0) + discount * following, 0)
        return following, following

    return jax.lax.scan(step, jnp.zeros_like(rewards[0]), (rewards, mask), reverse=True)[1]


def jax_advantages(returns, mask, ddof=0):
    num = mask.sum()
    mean = jnp.where(mask, returns, 0).sum() / num
    apart = jnp.where(mask, returns - mean, 0)
    return apart / jnp.sqrt((apart**2).sum() / (num - ddof))


def jax_loss(log_prob, advantages, mask):
    return -jnp.mean(jnp.sum(jnp.where(mask, log_prob, 0) * advantages, axis=0))


def jax_clip(gradients, max_norm, eps=1e-6):
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in gradients.values()))
    factor = jnp.minimum(max_norm / (norm + eps), 1.0)
    return {name: g * factor for name, g in gradients.items()}


def jax_update(
    params, gradients, m, v, count, b1=0.9, b2=0.999, eps=1e-8, root_eps=0.0, rate=0.01, step=1
):
    count = count + step
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, gradients)

    def correction(base):
        return -jnp.expm1(count * jnp.asarray(math.log(base), gradients["hidden.bias"].dtype))

    def change(m, v):
        root = jnp.sqrt(v / correction(b2) + root_eps)
        return m / correction(b1) / (root + eps)

    after = jax.tree.map(lambda p, m, v: p - rate * change(m, v), params, m, v)
    return {"params": after, "m": m, "v": v, "count": count}


# --- networks, initialisation --------------------------------------------------------------------


def torch_hidden(params, obs, mask):
    obs = torch.where(mask[..., None], obs, 0)
    return torch.tanh(
        torch.nn.functional.linear(obs, params["hidden.weight"], params["hidden.bias"])
    )


def jax_hidden(params, obs, mask):
    obs = jnp.where(mask[..., None], obs, 0)
    return jnp.tanh(obs @ params["hidden.weight"].T + params["hidden.bias"])


def torch_init(heads):
    def init(seed):
        torch.manual_seed(seed)
        layers = {"hidden": torch.nn.Linear(OBS, H), **{h: torch.nn.Linear(H, A) for h in heads}}
        return {
            f"{layer}.{name}": value.detach()
            for layer, module in layers.items()
            for name, value in module.named_parameters()
        }

    return init


def jax_init(heads, factor=1.0, bias=True, shared=False):
    def init(seed):
        params = {}
        key = jax.random.key(seed)
        for layer, (rows, columns) in {"hidden": (H, OBS), **dict.fromkeys(heads, (A, H))}.items():
            limit = factor / math.sqrt(columns)
            key, for_weight, for_bias = (key, key, key) if shared else jax.random.split(key, 3)
            params[f"{layer}.weight"] = jax.random.uniform(
                for_weight, (rows, columns), minval=-limit, maxval=limit
            )
            params[f"{layer}.bias"] = bias * jax.random.uniform(
                for_bias, (rows,), minval=-limit, maxval=limit
            )
        return params

    return init


# --- the categorical agent -----------------------------------------------------------------------


def torch_logits(params, obs, mask):
    hidden = torch_hidden(params, obs, mask)
    return torch.nn.functional.linear(hidden, params["out.weight"], params["out.bias"])


def jax_logits(params, obs, mask):
    return jax_hidden(params, obs, mask) @ params["out.weight"].T + params["out.bias"]


CATEGORICAL_IN_TORCH = {
    "env_step": torch_env_step,
    "init": torch_init(["out"]),
    "network": torch_logits,
    "sample": lambda network, noise: torch.argmax(torch.log_softmax(network, -1) + noise, -1),
    "log_prob": lambda network, sample: (
        torch.log_softmax(network, -1).gather(-1, sample[..., None]).squeeze(-1)
    ),
    "returns": torch_returns,
    "advantages": torch_advantages,
    "loss": torch_loss,
    "clip": torch_clip,
    "update": torch_update,
}

CATEGORICAL_IN_JAX = {
    "env_step": lambda state, push: jax_env_step(state, push),
    "init": jax_init(["out"]),
    "network": jax_logits,
    "sample": lambda network, noise: jnp.argmax(jax.nn.log_softmax(network) + noise, -1),
    "log_prob": lambda network, sample: jnp.take_along_axis(
        jax.nn.log_softmax(network), sample[..., None], -1
    )[..., 0],
    "returns": jax_returns,
    "advantages": lambda returns, mask: jax_advantages(returns, mask),
    "loss": jax_loss,
    "clip": lambda gradients, max_norm: jax_clip(gradients, max_norm),
    "update": lambda params, gradients, m, v, count: jax_update(params, gradients, m, v, count),
}


# --- the Normal agent ----------------------------------------------------------------------------


class NormalInTorch(NamedTuple):
    loc: torch.Tensor
    scale: torch.Tensor


class NormalInJax(NamedTuple):
    loc: jax.Array
    scale: jax.Array

    def log_prob(self, value, constant=LOG_TWO_PI):
        z = (value - self.loc) / self.scale
        return -0.5 * z**2 - jnp.log(self.scale) - 0.5 * constant


def torch_normal(params, obs, mask):
    hidden = torch_hidden(params, obs, mask)
    head = torch.nn.functional.linear
    loc = torch.tanh(head(hidden, params["mu.weight"], params["mu.bias"]))
    logvar = torch.tanh(head(hidden, params["logvar.weight"], params["logvar.bias"]))
    return NormalInTorch(loc, torch.exp(logvar / 2))


def jax_normal(params, obs, mask):
    hidden = jax_hidden(params, obs, mask)
    loc = jnp.tanh(hidden @ params["mu.weight"].T + params["mu.bias"])
    logvar = jnp.tanh(hidden @ params["logvar.weight"].T + params["logvar.bias"])
    return NormalInJax(loc, jnp.exp(logvar / 2))


NORMAL_IN_TORCH = {
    "init": torch_init(["mu", "logvar"]),
    "network": torch_normal,
    "sample": lambda loc, scale, noise: (loc + scale * noise).detach(),
    "action": lambda sample: sample.argmax(-1),
    "log_prob": lambda network, sample: (
        torch.distributions.Normal(*network).log_prob(sample).sum(-1)
    ),
    "returns": torch_returns,
    "advantages": torch_advantages,
    "loss": torch_loss,
}

NORMAL_IN_JAX = {
    "init": jax_init(["mu", "logvar"]),
    "network": jax_normal,
    "sample": lambda loc, scale, noise: jax.lax.stop_gradient(loc + scale * noise),
    "action": lambda sample: sample.argmax(-1),
    "log_prob": lambda network, sample: network.log_prob(sample).sum(-1),
    "returns": jax_returns,
    "advantages": lambda returns, mask: jax_advantages(returns, mask),
    "loss": jax_loss,
}


def jax_returns_with_a_fault(rewards, mask, discount):
    return discount * jax_returns(rewards, mask, discount)
