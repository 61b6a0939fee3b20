"""The project's own agents as runs for `parity.lockstep`: a step in each framework, stage by stage.

Both play Gymnasium's environment, each its own copy, on the noise of one tape; then every stage of
the update is computed from the package's public functions, and `make_update_step` makes the update.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from parity import convert
from parity.runs import states
from parity.suite.weights import from_flax, to_flax
from parity.tape import NoiseTape
from parity.tolerance import cast
from pgcore.config import TrainConfig
from pgjax import losses as jax_losses
from pgjax import optim as jax_optim
from pgjax import policies as jax_policies
from pgjax import returns as jax_returns
from pgjax import types as jax_types
from pgjax.envs.gymnasium import GymnasiumEnv as JaxGymnasium
from pgtorch import losses as torch_losses
from pgtorch import optim as torch_optim
from pgtorch import policies as torch_policies
from pgtorch import returns as torch_returns
from pgtorch import types as torch_types
from pgtorch.envs.gymnasium import GymnasiumEnv as TorchGymnasium

# The packages' attributes of these names are functions.
jax_rollout, torch_rollout = import_module("pgjax.rollout"), import_module("pgtorch.rollout")
jax_train, torch_train = import_module("pgjax.train"), import_module("pgtorch.train")


class Run(NamedTuple):
    """What `parity.lockstep` takes: `lockstep(**run._asdict(), updates=…)`."""

    reference_step: Callable[[Any, Any], Any]
    candidate_step: Callable[[Any, Any], Any]
    to_candidate: Callable[[Any], Any]
    to_reference: Callable[[Any], Any]
    state: Any
    inputs: Callable[[int], Any]


def agent_run(
    config: TrainConfig,
    dtype: str = "float64",
    *,
    state: Any = None,
    played: int = 0,
    optimizer: Any = None,
    jax_env: Any = None,
    fed: Sequence[Mapping[str, Any]] | None = None,
) -> Run:
    """A training run of one of our agents, of as many updates as one likes.

    Args:
        config: The agent, the environment, the seed of the noise and of the first parameters.
        dtype: `"float64"` or `"float32"`.
        state: Where to start; by default `pgtorch`'s own draw.
        played: How many updates were made before, whose noise is passed over.
        optimizer: pgjax's side's optimizer, to try another; by default the config's own.
        jax_env: pgjax's side's environment; by default Gymnasium's.
        fed: What each update is fed instead of playing, as `recorded` has it: in float32 a step
            may not decide anything itself (see `parity.lockstep`), and the rounding of a gradient
            would hide that of the optimizer.
    """
    tape = NoiseTape.for_config(config)
    torch_env, jax_env = TorchGymnasium(config.env_id), jax_env or JaxGymnasium(config.env_id)
    sizes = (torch_env.obs_dim, torch_env.num_actions, config.hidden_sizes)
    torch_policy = torch_policies.make_policy(config.agent, *sizes)
    jax_policy = jax_policies.make_policy(config.agent, *sizes)
    torch_optimizer = torch_optim.make_optimizer(config)
    jax_optimizer = optimizer or jax_optim.make_optimizer(config)
    key = torch.Generator().manual_seed(config.seed)
    start = state or torch_train.init(key, torch_policy, torch_optimizer)
    start = states.replaced(start, cast(states.leaves(start), np.dtype(dtype).type))
    in_torch = partial(_learn_in_torch, config, torch_policy, torch_optimizer)
    in_jax = partial(_learn_in_jax, config, jax_policy, jax_optimizer)
    if fed is None:
        in_torch = partial(_play_in_torch, torch_policy, torch_env, in_torch)
        in_jax = partial(_play_in_jax, jax_policy, jax_env, in_jax)
    return Run(
        in_torch,
        jax.jit(in_jax),
        partial(_to_jax, jax_policy.init(jax.random.key(0)), jax_optimizer),
        partial(_to_torch, start.params, torch_optimizer),
        start,
        (lambda i: tape.update(played + i)._asdict()) if fed is None else fed.__getitem__,
    )


def recorded(config: TrainConfig, updates: int) -> list[dict[str, Any]]:
    """The episodes and gradients of PyTorch's first updates, in float64."""
    run = agent_run(config)
    state, found = run.state, []
    for i in range(updates):
        noise = {name: torch.tensor(array) for name, array in run.inputs(i).items()}
        state, outputs = run.reference_step(state, noise)
        stages = {"episodes": outputs["act"], "gradient": outputs["gradient"]}
        found.append(
            {
                stage: {k: array.numpy() for k, array in each.items()}
                for stage, each in stages.items()
            }
        )
    return found


def _play_in_torch(policy: Any, env: Any, learn: Any, state: Any, noise: Any) -> tuple[Any, Any]:
    with torch.no_grad():
        episodes = torch_rollout.rollout(policy, state.params, env, torch_types.Noise(**noise))
    state, outputs = learn(state, {"episodes": episodes._asdict()})
    return state, {"act": episodes._asdict(), **outputs}


def _learn_in_torch(
    config: TrainConfig, policy: Any, optimizer: Any, state: Any, given: Any
) -> tuple[Any, Any]:
    trajectory = torch_types.Trajectory(**given["episodes"])
    stages = _torch_stages(config, policy, state.params, trajectory)
    slopes = given.get("gradient", stages["gradient"])
    change = _torch_change(optimizer, state, slopes)
    update_step = torch_train.make_update_step(policy, optimizer, config)
    state, metrics = update_step(state, trajectory)
    return state, {**stages, "metrics": metrics._asdict(), "update": {"change": change}}


def _torch_stages(config: TrainConfig, policy: Any, params: Any, played: Any) -> dict[str, Any]:
    dist = policy.apply(params, played.obs)
    log_probs = policy.log_prob(dist, played.sample)
    returns = torch_returns.discounted_returns(played.reward, played.mask, config.discount)
    advantages = torch_returns.normalize_returns(returns, played.mask, config.normalize)
    loss = torch_losses.reinforce_loss(log_probs, advantages, played.mask)
    named = dict(params.named_parameters())
    slopes = dict(zip(named, torch.autograd.grad(loss, [*named.values()]), strict=True))
    stages = {
        "network": dist._asdict(),
        "log_prob": log_probs,
        "entropy": policy.entropy(dist),
        "returns": returns,
        "advantages": advantages,
        "loss": loss,
        "gradient": slopes,
    }
    if config.max_grad_norm is not None:
        leaves = {name: torch.nn.Parameter(slope.clone()) for name, slope in slopes.items()}
        for name, leaf in leaves.items():
            leaf.grad = slopes[name].clone()
        torch_optim.clip_by_global_norm(config.max_grad_norm)(leaves.values())
        stages["clipped gradient"] = {name: leaf.grad for name, leaf in leaves.items()}
    return stages


def _torch_change(optimizer: Any, state: Any, slopes: Mapping[str, Any]) -> dict[str, Any]:
    """What an optimizer's step adds to the parameters, not rounded with them."""
    module, stepper = copy.deepcopy((state.params, state.opt_state))
    named = dict(module.named_parameters())
    for name, parameter in named.items():
        parameter.data.zero_()
        parameter.grad = slopes[name].clone()
    for clip in getattr(optimizer, "clips", ()):
        clip([*named.values()])
    stepper.step()
    return {name: parameter.data for name, parameter in named.items()}


def _play_in_jax(policy: Any, env: Any, learn: Any, state: Any, noise: Any) -> tuple[Any, Any]:
    episodes = jax_rollout.rollout(policy, state.params, env, jax_types.Noise(**noise))
    state, outputs = learn(state, {"episodes": episodes._asdict()})
    return state, {"act": episodes._asdict(), **outputs}


def _learn_in_jax(
    config: TrainConfig, policy: Any, optimizer: Any, state: Any, given: Any
) -> tuple[Any, Any]:
    trajectory = jax_types.Trajectory(**given["episodes"])
    stages = _jax_stages(config, policy, state.params, trajectory)
    slopes = to_flax(given.get("gradient", stages["gradient"]))
    change = optimizer.update(slopes, state.opt_state, state.params)[0]
    update_step = jax_train.make_update_step(policy, optimizer, config)
    state, metrics = update_step(state, trajectory)
    return state, {**stages, "metrics": metrics._asdict(), "update": {"change": from_flax(change)}}


def _jax_stages(config: TrainConfig, policy: Any, params: Any, played: Any) -> dict[str, Any]:
    def loss_of(params: Any) -> tuple[Any, dict[str, Any]]:
        dist = policy.apply(params, played.obs)
        log_probs = policy.log_prob(dist, jax.lax.stop_gradient(played.sample))
        returns = jax_returns.discounted_returns(played.reward, played.mask, config.discount)
        advantages = jax_returns.normalize_returns(returns, played.mask, config.normalize)
        loss = jax_losses.reinforce_loss(log_probs, advantages, played.mask)
        return loss, {
            "network": dist._asdict(),
            "log_prob": log_probs,
            "entropy": policy.entropy(dist),
            "returns": returns,
            "advantages": advantages,
            "loss": loss,
        }

    slopes, stages = jax.grad(loss_of, has_aux=True)(params)
    stages["gradient"] = from_flax(slopes)
    if config.max_grad_norm is not None:
        clip = jax_optim.clip_by_global_norm(config.max_grad_norm)
        clipped = jax.tree.map(jax.numpy.asarray, clip.update(slopes, clip.init(slopes), slopes)[0])
        stages["clipped gradient"] = from_flax(clipped)
    return stages


def _to_jax(template: Any, optimizer: Any, state: torch_types.TrainState) -> jax_types.TrainState:
    params = convert.to_flax(state.params, template)
    opt_state = convert.optimizer_to_flax(state.opt_state, state.params, optimizer.init(params))
    return jax_types.TrainState(params, opt_state, jax.numpy.array(state.update.numpy()))


def _to_torch(
    module: torch.nn.Module, optimizer: Any, state: jax_types.TrainState
) -> torch_types.TrainState:
    module = copy.deepcopy(module)
    params = convert.to_torch(state.params, module)
    module.to(next(iter(params.values())).dtype).load_state_dict(params)
    stepper = optimizer(module.parameters())
    stepper.load_state_dict(convert.optimizer_to_torch(state.opt_state, stepper, module))
    return torch_types.TrainState(module, stepper, torch.tensor(np.array(state.update)))
