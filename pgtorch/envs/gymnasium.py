"""Gymnasium's environments as an `Env`."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from pgcore.envs.deadline import Deadline
from pgcore.envs.gym import CARTPOLE, GymEpisodes, gym_spec
from pgtorch.envs import cartpole
from pgtorch.envs.base import Env


@dataclass(frozen=True)
class _GymnasiumState:
    """A handle on running episodes: a step moves them on, and old handles with them."""

    episodes: GymEpisodes
    like: Tensor
    """An empty tensor of the floating dtype and the device of everything returned."""


def GymnasiumEnv(
    env_id: str = "CartPole-v1", max_steps: int | None = None, timeout: float | None = None
) -> Env:
    """Any Gymnasium environment with a flat Box observation and Discrete actions.

    B episodes run in a `SyncVectorEnv` with NEXT_STEP autoreset, one to each copy, which rests
    after its episode's end; a rollout masks what comes from it then.

    The noise of `reset` is the initial states themselves for CartPole, `[B, 4]`, and integer
    seeds `[B]` for any other environment. Observations are float32; rewards have the noise's
    dtype, torch's default for seeds.

    Args:
        env_id: A registered id.
        max_steps: Another step limit than the registered one.
        timeout: Seconds that one reset and one step of one environment may take, without which
            they may take for ever. What takes longer is an `EnvironmentFault`.

    Raises:
        UsageError: Gymnasium cannot make it, or its spaces are of another kind.
    """
    spec, deadline = gym_spec(env_id, max_steps), Deadline(timeout)

    def reset(noise: Num[Tensor, "B ..."]) -> tuple[_GymnasiumState, Float[Tensor, "B O"]]:
        episodes = GymEpisodes(spec, len(noise), deadline)
        dtype = noise.dtype if noise.is_floating_point() else torch.get_default_dtype()
        like = torch.empty(0, dtype=dtype, device=noise.device)
        obs = torch.tensor(episodes.reset(noise.detach().cpu().numpy()), device=noise.device)
        return _GymnasiumState(episodes, like), obs

    def step(
        state: _GymnasiumState, action: Int[Tensor, "B"]
    ) -> tuple[
        _GymnasiumState,
        Float[Tensor, "B O"],
        Float[Tensor, "B"],
        Bool[Tensor, "B"],
        Bool[Tensor, "B"],
    ]:
        # torch.tensor copies: an environment may reuse the memory of what it returns.
        obs, reward, terminated, truncated = (
            torch.tensor(array, device=state.like.device)
            for array in state.episodes.step(action.cpu().numpy())
        )
        return state, obs, reward.to(state.like), terminated, truncated

    def draw_reset(key: torch.Generator, num_episodes: int) -> Num[Tensor, "B ..."]:
        if env_id == CARTPOLE:
            return cartpole.draw_reset(key, num_episodes)
        return torch.randint(2**31, (num_episodes,), generator=key, device=key.device)

    return Env(reset, step, draw_reset, spec.obs_dim, spec.num_actions, spec.max_steps)
