"""Optimizers, their schedules, and what is handed to them."""

import numpy as np

from parity.traps.descents import GRADIENTS, START, descend_in_optax, descend_in_torch
from parity.traps.entries import pair, trap, warning

ONE = np.ones(1, np.float32)


@trap(
    "A01",
    "Adam's bias correction is computed in float32",
    "correct with a float64 b: 1 - np.float64(b) ** t, as pgjax.adam does",
    x64=False,
)
def adam_bias_correction(torch, optax, pgjax):
    """In float32 1 - b2ᵗ cancels: optax's first step is off by 7e-6, a hundred roundings.

    PyTorch computes the correction in Python's float64. In float64 the two agree.
    """
    first = {"start": 0 * ONE, "gradients": [ONE]}
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.Adam(p, lr=1.0), **first),
        jax=descend_in_optax(optax.adam(1.0), **first),
        mended={"jax": descend_in_optax(pgjax.adam(1.0), **first)},
    )


@trap(
    "A02",
    "an epsilon inside the root on one side, outside on the other",
    "optax.adam(lr, eps=1e-8, eps_root=0.0), the default; jnp.sqrt(v) + eps",
)
def adam_eps_root(torch, optax):
    """PyTorch divides by √v + eps, optax by √(v + eps_root) + eps."""
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.Adam(p, lr=0.1, eps=0.01)),
        jax=descend_in_optax(optax.adam(0.1, eps=0.0, eps_root=0.01)),
        mended={"jax": descend_in_optax(optax.adam(0.1, eps=0.01, eps_root=0.0))},
    )


@trap(
    "A03",
    "AdamW's weight decay: 1e-2 by default in PyTorch, 1e-4 in optax",
    "optax.adamw(lr, weight_decay=1e-2): name it on both sides",
)
def adamw_default_decay(torch, optax):
    """Twenty steps with what each takes where none is named."""
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.AdamW(p, lr=0.1)),
        jax=descend_in_optax(optax.adamw(0.1)),
        mended={"jax": descend_in_optax(optax.adamw(0.1, weight_decay=1e-2))},
    )


@trap(
    "A04",
    "weight decay: coupled in torch.optim.Adam, decoupled in optax.adamw",
    "optax.chain(optax.add_decayed_weights(w), optax.adam(lr)) for Adam(weight_decay=w)",
)
def adam_coupled_decay(torch, optax):
    """In torch.optim.Adam the decay is a part of the gradient, and is divided by √v with it."""
    coupled = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1)),
        jax=descend_in_optax(optax.adamw(0.1, weight_decay=0.1)),
        mended={"jax": descend_in_optax(coupled)},
    )


@trap(
    "A05",
    "RMSprop: decay 0.99 and eps outside the root in PyTorch, 0.9 and inside in optax",
    "optax.rmsprop(lr, decay=0.99, eps=1e-8, eps_in_sqrt=False)",
)
def rmsprop_defaults(torch, optax):
    """Both the decay and the place of eps are other defaults."""
    as_torch = optax.rmsprop(0.1, decay=0.99, eps=1e-8, eps_in_sqrt=False)
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.RMSprop(p, lr=0.1)),
        jax=descend_in_optax(optax.rmsprop(0.1)),
        mended={"jax": descend_in_optax(as_torch)},
    )


@trap(
    "A06",
    "RMSprop's momentum follows the learning rate in optax, and comes before it in PyTorch",
    "optax.chain(scale_by_rms(0.99, 1e-8, eps_in_sqrt=False), trace(m), "
    "scale_by_learning_rate(schedule))",
)
def rmsprop_momentum(torch, jnp, optax):
    """With a constant rate the two are the same, so only a schedule shows it."""
    rates = [0.1 / (1 + step) for step in range(len(GRADIENTS))]
    rms = {"decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False}

    def schedule(count):
        return jnp.array(rates)[count]

    as_torch = optax.chain(
        optax.scale_by_rms(**rms), optax.trace(0.9), optax.scale_by_learning_rate(schedule)
    )
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9), rates=rates),
        jax=descend_in_optax(optax.rmsprop(schedule, momentum=0.9, **rms)),
        mended={"jax": descend_in_optax(as_torch)},
    )


@trap(
    "A07",
    "Adagrad: its sum starts at 0 in PyTorch, at 0.1 in optax; eps outside the root, and inside",
    "optax.adagrad(lr, initial_accumulator_value=0.0, eps=1e-20), and eps=0 in PyTorch",
)
def adagrad_start(torch, optax):
    """PyTorch divides by √s + 1e-10, optax by √(0.1 + s + 1e-7)."""
    from_zero = optax.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-20)
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.Adagrad(p, lr=0.1)),
        jax=descend_in_optax(optax.adagrad(0.1)),
        mended={
            "torch": descend_in_torch(lambda p: torch.optim.Adagrad(p, lr=0.1, eps=0.0)),
            "jax": descend_in_optax(from_zero),
        },
    )


@trap(
    "A08",
    "momentum: optax.sgd has no dampening",
    "dampening=0 in torch.optim.SGD, or write the trace by hand: m * b + (1 - dampening) * g",
)
def sgd_dampening(torch, optax):
    """PyTorch's first buffer is the gradient undampened, so optax.ema is not it either."""
    return pair(
        torch=descend_in_torch(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5)),
        jax=descend_in_optax(optax.sgd(0.1, momentum=0.9)),
        mended={"torch": descend_in_torch(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))},
    )


@trap(
    "A09",
    "clip_grad_norm_ divides by norm + 1e-6, optax.clip_by_global_norm by the norm",
    "g * jnp.minimum(1.0, max_norm / (optax.global_norm(g) + 1e-6))",
)
def clipped_norm(torch, jnp, optax):
    """The two part by 1e-6 over the norm, relatively: the more, the smaller the gradient is."""
    gradient, max_norm = np.array([0.012, 0.016]), 0.01
    leaf = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    leaf.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_([leaf], max_norm)
    g = jnp.array(gradient)
    clip = optax.clip_by_global_norm(max_norm)
    return pair(
        torch=leaf.grad,
        jax=clip.update(g, clip.init(g))[0],
        mended={"jax": g * jnp.minimum(1.0, max_norm / (optax.global_norm(g) + 1e-6))},
    )


@trap(
    "A10",
    "a cosine schedule past its end rises again in PyTorch, and stays down in optax",
    "stop at T_max, or lambda t: 0.5 * lr * (1 + jnp.cos(jnp.pi * t / T_max)) in optax",
)
def cosine_schedule(torch, jnp, optax):
    """The learning rate at half of the way, at the end, and half as far beyond it."""
    steps = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(steps, T_max=4)
    rates = []
    for _ in range(7):
        rates.append(schedule.get_last_lr()[0])
        steps.step()
        schedule.step()
    t = jnp.array([2.0, 4.0, 6.0])
    return pair(
        torch=np.array(rates)[[2, 4, 6]],
        jax=optax.cosine_decay_schedule(1.0, 4)(t),
        mended={"jax": 0.5 * (1 + jnp.cos(jnp.pi * t / 4))},
    )


@trap(
    "A11",
    "a parameter without a gradient: PyTorch leaves it, optax decays it",
    "p.grad = torch.zeros_like(p) in PyTorch, or optax.masked(...) in JAX",
)
def no_gradient(torch, optax):
    """A gradient of None is left out by torch.optim; a pytree has zeros in its place."""

    def decayed(gradient):
        leaf = torch.tensor(START, requires_grad=True)
        leaf.grad = gradient
        torch.optim.AdamW([leaf], lr=0.1, weight_decay=0.1).step()
        return leaf.detach()

    zeros = np.zeros((1, 2))
    return pair(
        torch=decayed(None),
        jax=descend_in_optax(optax.adamw(0.1, weight_decay=0.1), gradients=zeros),
        mended={"torch": decayed(torch.tensor(zeros[0]))},
    )


@trap(
    "A12",
    "accumulated gradients: PyTorch sums them, optax.MultiSteps averages",
    "optax.MultiSteps(..., use_grad_mean=False), or divide torch's loss by k",
)
def accumulated_gradients(torch, optax):
    """Two backward passes before one step of SGD, with gradients 1 and 3 and a rate of 1."""
    leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for gradient in (1.0, 3.0):
        (gradient * leaf).sum().backward()
    torch.optim.SGD([leaf], lr=1.0).step()
    zero, gradients = np.zeros(1), np.array([[1.0], [3.0]])
    mean = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=2)
    total = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=2, use_grad_mean=False)
    return pair(
        torch=leaf,
        jax=descend_in_optax(mean, start=zero, gradients=gradients),
        mended={"jax": descend_in_optax(total, start=zero, gradients=gradients)},
    )


@warning(
    "A13",
    "Adam hides a wrong scale of the loss, which SGD shows",
    "compare the gradients themselves, and train once with SGD",
)
def hidden_scale(torch):
    """How far twenty gradients that are a hundred times too large move the parameters away."""

    def moved(optimizer):
        return np.abs(
            descend_in_torch(optimizer, gradients=100 * GRADIENTS) - descend_in_torch(optimizer)
        ).max()

    return pair(
        adam=moved(lambda p: torch.optim.Adam(p, lr=0.1)),
        sgd=moved(lambda p: torch.optim.SGD(p, lr=0.1)),
    )


@trap(
    "A14",
    "parameters matched by position: a pytree sorts its names, a module keeps their order",
    "match parameters by their names, never by position",
)
def order_of_parameters(torch, jax):
    """In a pytree layer10 comes before layer2, and bias before kernel; shapes may not show it."""
    names = ["layer1", "layer2", "layer10"]
    module = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1) for name in names})
    in_torch = [name for name, _ in module.named_parameters()]
    tree = {name: {"kernel": 0.0, "bias": 0.0} for name in names}
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    in_jax = [".".join(key.key for key in path).replace("kernel", "weight") for path in paths]
    return pair(
        torch=in_torch,
        jax=in_jax,
        mended={"torch": sorted(in_torch), "jax": sorted(in_jax)},
    )
