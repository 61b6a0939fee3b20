"""What every quantity is: slow, plain definitions in float64 NumPy, loop by loop.

Two frameworks can share a bug, so both are also held against this file. It is written from the
project's conventions, shares no code with `pgtorch` or `pgjax`, and is meant to be read beside
the equations; speed is no object.

Shapes: T time steps, B episodes, O observation, A actions; `*batch` is any leading dimensions.
`mask[t, b]` is true while episode b runs. What lies outside the mask is never looked at.

Float64 suffices throughout, saturated policies included, because log p is computed from the
*other* actions: log p_max = −log1p(Σ_{j≠max} e^(x_j − x_max)) keeps every digit where
1 + Σ rounds to 1. `tests/test_oracle.py` holds it against mpmath with 400 digits.
"""

import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Params = dict[str, Array]
"""A network's tensors by neutral name: `linear1.weight [out, in]`, `linear1.bias [out]`, ..."""

DEGENERATE_STD = 1e-5
"""Advantages are zero where the standard deviation is at most this share of max|G|."""

# --- distributions -------------------------------------------------------------------------------


def log_softmax(logits: Array) -> Array:
    """log p_i = x_i − log Σ_j e^(x_j), of one row `[A]`."""
    top = int(np.argmax(logits))
    others = math.fsum(math.exp(x - logits[top]) for j, x in enumerate(logits) if j != top)
    return np.array([(x - logits[top]) - math.log1p(others) for x in logits])


def categorical_sample(logits: Array, noise: Array) -> Array:
    """argmax_i (log p_i + noise_i), the first index winning a tie: `[*batch, A] -> [*batch]`."""
    sample = np.zeros(logits.shape[:-1], np.int64)
    for at in np.ndindex(sample.shape):
        score = log_softmax(logits[at]) + noise[at]
        for i in range(1, len(score)):
            if score[i] > score[sample[at]]:
                sample[at] = i
    return sample


def categorical_log_prob(logits: Array, sample: Array) -> Array:
    """log p_a of the action a: `[*batch, A], [*batch] -> [*batch]`."""
    log_prob = np.zeros(sample.shape)
    for at in np.ndindex(sample.shape):
        log_prob[at] = log_softmax(logits[at])[sample[at]]
    return log_prob


def categorical_entropy(logits: Array) -> Array:
    """H = −Σ_i p_i log p_i in nats: `[*batch, A] -> [*batch]`."""
    entropy = np.zeros(logits.shape[:-1])
    for at in np.ndindex(entropy.shape):
        entropy[at] = math.fsum(-math.exp(log_p) * log_p for log_p in log_softmax(logits[at]))
    return entropy


def normal_sample(loc: Array, scale: Array, noise: Array) -> Array:
    """z = mu + std · noise, per dimension."""
    return loc + scale * noise


def normal_log_prob(loc: Array, scale: Array, sample: Array) -> Array:
    """Σ_i −½ ((z_i − mu_i) / std_i)² − log std_i − ½ log 2π: `[*batch, A] -> [*batch]`."""
    log_prob = np.zeros(loc.shape[:-1])
    for at in np.ndindex(log_prob.shape):
        log_prob[at] = math.fsum(
            -0.5 * ((z - mu) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
            for mu, std, z in zip(loc[at], scale[at], sample[at], strict=True)
        )
    return log_prob


def normal_entropy(loc: Array, scale: Array) -> Array:
    """H = Σ_i ½ + ½ log 2π + log std_i in nats: `[*batch, A] -> [*batch]`."""
    entropy = np.zeros(loc.shape[:-1])
    for at in np.ndindex(entropy.shape):
        entropy[at] = math.fsum(
            0.5 + 0.5 * math.log(2 * math.pi) + math.log(std) for std in scale[at]
        )
    return entropy


def action(agent: str, sample: Array) -> Array:
    """The action that a sample stands for: itself, or the largest dimension of a Normal's."""
    if agent == "reinforce":
        return sample
    chosen = np.zeros(sample.shape[:-1], np.int64)
    for at in np.ndindex(chosen.shape):
        for i in range(1, sample.shape[-1]):
            if sample[at][i] > sample[at][chosen[at]]:
                chosen[at] = i
    return chosen


# --- networks ------------------------------------------------------------------------------------


class Activations(NamedTuple):
    """What one forward pass computed, for one observation."""

    inputs: list[Array]
    """The input of each linear layer below the heads; the last entry is the heads' input."""
    pre_activations: list[Array]
    """W x + b of each hidden layer."""


def linear(params: Params, layer: str, x: Array) -> Array:
    """y_i = Σ_j W_ij x_j + b_i."""
    weight, bias = params[f"{layer}.weight"], params[f"{layer}.bias"]
    return np.array(
        [
            math.fsum([*(w * value for w, value in zip(row, x, strict=True)), b])
            for row, b in zip(weight, bias, strict=True)
        ]
    )


def hidden_layers(params: Params, heads: tuple[str, ...]) -> list[str]:
    """`linear1, linear2, ...`, as many as there are, without the heads."""
    names = {name.rsplit(".", 1)[0] for name in params} - set(heads)
    return sorted(names, key=lambda name: int(name.removeprefix("linear")))


def heads(agent: str, params: Params) -> tuple[str, ...]:
    """The layers that read the last hidden one."""
    if agent == "reparam":
        return ("mu_linear", "logvar_linear")
    return (hidden_layers(params, ())[-1],)


def hidden_forward(agent: str, params: Params, obs: Array) -> Activations:
    """x ← max(0, W x + b), layer by layer."""
    inputs, pre_activations = [obs], []
    for layer in hidden_layers(params, heads(agent, params)):
        pre_activations.append(linear(params, layer, inputs[-1]))
        inputs.append(np.array([max(0.0, value) for value in pre_activations[-1]]))
    return Activations(inputs, pre_activations)


def network(agent: str, params: Params, obs: Array) -> dict[str, Array]:
    """The distribution's parameters at each observation: `[*batch, O] -> {name: [*batch, A]}`.

    `reinforce`: the logits, W h + b. `reparam`: loc = tanh(W_mu h + b_mu) and
    scale = exp(½ tanh(W_logvar h + b_logvar)).
    """
    rows: dict[str, list[Array]] = {"logits": []} if agent == "reinforce" else {}
    if agent == "reparam":
        rows = {"loc": [], "scale": []}
    for at in np.ndindex(obs.shape[:-1]):
        h = hidden_forward(agent, params, obs[at]).inputs[-1]
        if agent == "reinforce":
            rows["logits"].append(linear(params, heads(agent, params)[0], h))
        else:
            mu, logvar = (linear(params, head, h) for head in heads(agent, params))
            rows["loc"].append(np.array([math.tanh(x) for x in mu]))
            rows["scale"].append(np.array([math.exp(0.5 * math.tanh(x)) for x in logvar]))
    return {name: np.reshape(row, (*obs.shape[:-1], -1)) for name, row in rows.items()}


def log_prob(agent: str, dist: dict[str, Array], sample: Array) -> Array:
    """The log-probability that the agent learns from: `[*batch]`."""
    if agent == "reinforce":
        return categorical_log_prob(dist["logits"], sample)
    return normal_log_prob(dist["loc"], dist["scale"], sample)


def entropy(agent: str, dist: dict[str, Array]) -> Array:
    """The distribution's entropy in nats: `[*batch]`."""
    if agent == "reinforce":
        return categorical_entropy(dist["logits"])
    return normal_entropy(dist["loc"], dist["scale"])


# --- returns, advantages, loss -------------------------------------------------------------------


def discounted_returns(rewards: Array, mask: Array, discount: float) -> Array:
    """G_t = r_t + γ G_{t+1} inside an episode, 0 outside it: `[T, B] -> [T, B]`."""
    returns = np.zeros(rewards.shape)
    for b in range(rewards.shape[1]):
        following = 0.0
        for t in reversed(range(rewards.shape[0])):
            following = float(rewards[t, b]) + discount * following if mask[t, b] else 0.0
            returns[t, b] = following
    return returns


def advantages(returns: Array, mask: Array, scope: str) -> Array:
    """(G − mean) / std over the scope's steps: `[T, B] -> [T, B]`.

    `"episode"`: the steps of one episode. `"batch"`: all steps. `"none"`: A = G.
    The standard deviation is the population's. Where std ≤ 1e-5 max|G| the advantages are 0.
    """
    result = np.zeros(returns.shape)
    steps = [(t, b) for t, b in np.ndindex(returns.shape) if mask[t, b]]
    if scope == "none":
        groups = []
        for at in steps:
            result[at] = returns[at]
    elif scope == "batch":
        groups = [steps]
    else:
        groups = [[at for at in steps if at[1] == b] for b in range(returns.shape[1])]
    for group in groups:
        largest = max((abs(float(returns[at])) for at in group), default=0.0)
        if largest == 0:
            continue
        # The advantage has no unit: in units of max|G| no return is too large to square.
        values = [float(returns[at]) / largest for at in group]
        mean = math.fsum(values) / len(values)
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        if std > DEGENERATE_STD:
            for at, value in zip(group, values, strict=True):
                result[at] = (value - mean) / std
    return result


def reinforce_loss(log_probs: Array, advantages: Array, mask: Array) -> float:
    """L = −(1/B) Σ_b Σ_t log π_tb A_tb: summed over time, averaged over the B episodes."""
    terms = [
        float(log_probs[at]) * float(advantages[at]) for at in np.ndindex(mask.shape) if mask[at]
    ]
    return -math.fsum(terms) / mask.shape[1]


# --- gradients, by hand --------------------------------------------------------------------------


def tanh_slope(y: float) -> float:
    """tanh'(y) = 1 − tanh² y = 4 e^(−2|y|) / (1 + e^(−2|y|))², which keeps its digits for any y."""
    decay = math.exp(-2 * abs(y))
    return 4 * decay / (1 + decay) ** 2


def output_gradient(agent: str, outputs: list[Array], sample: Array) -> list[Array]:
    """∂ log π(sample) / ∂ W h + b of each head, from each head's W h + b.

    reinforce: ∂ log p_a / ∂ x_i = [i = a] − p_i, where 1 − p_a is −expm1(log p_a).
    reparam: with y the heads' values, mu = tanh(y_mu), l = tanh(y_logvar), std = e^(l/2) and
    d = (z − mu) / std, ∂/∂y_mu = (d / std)(1 − mu²) and ∂/∂y_logvar = ½ (d² − 1)(1 − l²).
    The sample z is data: nothing flows through it.
    """
    if agent == "reinforce":
        log_p = log_softmax(outputs[0])
        rows = [
            -math.expm1(log_p_i) if i == sample else -math.exp(log_p_i)
            for i, log_p_i in enumerate(log_p)
        ]
        return [np.array(rows)]
    mu_rows, logvar_rows = [], []
    for y_mu, y_logvar, z in zip(*outputs, sample, strict=True):
        mu, logvar = math.tanh(y_mu), math.tanh(y_logvar)
        std = math.exp(0.5 * logvar)
        d = (z - mu) / std
        mu_rows.append(d / std * tanh_slope(y_mu))
        logvar_rows.append(0.5 * (d * d - 1) * tanh_slope(y_logvar))
    return [np.array(mu_rows), np.array(logvar_rows)]


def reinforce_gradient(
    agent: str, params: Params, obs: Array, sample: Array, advantages: Array, mask: Array
) -> Params:
    """∂L/∂θ for every tensor θ of the network, L the REINFORCE loss, by backpropagation.

    With δ the gradient at a layer's W x + b: ∂W = Σ δ xᵀ, ∂b = Σ δ, and one layer down
    δ' = (Wᵀ δ) where that layer's W x + b is above 0, else 0.
    """
    contributions: dict[str, list[Array]] = {name: [] for name in params}
    names = hidden_layers(params, heads(agent, params))
    for at in np.ndindex(mask.shape):
        if not mask[at]:
            continue
        weight = -float(advantages[at]) / mask.shape[1]
        inputs, pre_activations = hidden_forward(agent, params, obs[at])
        outputs = [linear(params, head, inputs[-1]) for head in heads(agent, params)]
        below = np.zeros(len(inputs[-1]))
        for head, slope in zip(
            heads(agent, params), output_gradient(agent, outputs, sample[at]), strict=True
        ):
            delta = weight * slope
            contributions[f"{head}.weight"].append(np.outer(delta, inputs[-1]))
            contributions[f"{head}.bias"].append(delta)
            below += params[f"{head}.weight"].T @ delta
        for i in reversed(range(len(names))):
            delta = np.where(pre_activations[i] > 0, below, 0.0)
            contributions[f"{names[i]}.weight"].append(np.outer(delta, inputs[i]))
            contributions[f"{names[i]}.bias"].append(delta)
            below = params[f"{names[i]}.weight"].T @ delta
    return {
        name: sum(terms, start=np.zeros(params[name].shape))
        for name, terms in contributions.items()
    }


# --- optimizer -----------------------------------------------------------------------------------


def global_norm(gradients: Params) -> float:
    """‖g‖ = √(Σ g²) over every entry of every tensor."""
    return math.sqrt(math.fsum(float(g) ** 2 for array in gradients.values() for g in array.flat))


def clip_by_global_norm(gradients: Params, max_norm: float) -> Params:
    """g · min(1, max_norm / (‖g‖ + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it."""
    factor = min(1.0, max_norm / (global_norm(gradients) + 1e-6))
    return {name: gradient * factor for name, gradient in gradients.items()}


class AdamStep(NamedTuple):
    """Adam's state after a step, and the parameters."""

    params: Params
    m: Params
    v: Params
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]


def adam_step(
    params: Params,
    gradients: Params,
    m: Params,
    v: Params,
    count: int,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> AdamStep:
    """One step of Adam as torch.optim.Adam takes it; `count` steps were taken before.

    m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  t = count + 1,
    θ ← θ − lr (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
    """
    t = count + 1
    new_params, new_m, new_v = {}, {}, {}
    for name, g in gradients.items():
        new_m[name] = b1 * m[name] + (1 - b1) * g
        new_v[name] = b2 * v[name] + (1 - b2) * g * g
        m_hat = new_m[name] / (1 - b1**t)
        v_hat = new_v[name] / (1 - b2**t)
        new_params[name] = params[name] - learning_rate * m_hat / (np.sqrt(v_hat) + eps)
    return AdamStep(new_params, new_m, new_v, t)


# --- CartPole ------------------------------------------------------------------------------------

X_THRESHOLD = 2.4
THETA_THRESHOLD_RAD = 12 * 2 * math.pi / 360


class CartPoleStep(NamedTuple):
    """One step's outcome; the observation is the state rounded to float32."""

    state: Array
    obs: Array
    reward: float
    terminated: bool


def cartpole_step(state: Array, action: int) -> CartPoleStep:
    """Gymnasium's CartPole-v1 (explicit Euler, 0.02 s) from one state `[4]`, in its order.

    The state is x (m), x' (m/s), θ (rad), θ' (rad/s); action 1 pushes with +10 N, 0 with −10 N.
    Cart 1 kg, pole 0.1 kg with half-length 0.5 m, gravity 9.8 m/s².
    """
    x, x_dot, theta, theta_dot = (float(value) for value in state)
    force = 10.0 if action == 1 else -10.0
    mass_pole, length, total_mass = 0.1, 0.5, 0.1 + 1.0
    sin, cos = float(np.sin(theta)), float(np.cos(theta))
    temp = (force + mass_pole * length * (theta_dot * theta_dot) * sin) / total_mass
    theta_acc = (9.8 * sin - cos * temp) / (
        length * (4.0 / 3.0 - mass_pole * (cos * cos) / total_mass)
    )
    x_acc = temp - mass_pole * length * theta_acc * cos / total_mass
    after = np.array(
        [
            x + 0.02 * x_dot,
            x_dot + 0.02 * x_acc,
            theta + 0.02 * theta_dot,
            theta_dot + 0.02 * theta_acc,
        ]
    )
    terminated = abs(after[0]) > X_THRESHOLD or abs(after[2]) > THETA_THRESHOLD_RAD
    return CartPoleStep(after, after.astype(np.float32), 1.0, bool(terminated))
