"""The two agents' networks, with the article's layers and names."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEAD_INIT_BOUND = 3e-3
"""Both heads of `ReparamTrickAgent` start uniform in ± this, so that mu ≈ 0 and std ≈ 1."""


class ReinforceAgent(nn.Module):
    """From an observation to the logits of the actions.

    x = relu(linear1(obs)), x = relu(linear2(x)), logits = linear3(x).

    The softmax is the distribution's part. Layers start as `torch.nn.Linear` starts them.
    """

    def __init__(self, obs_dim: int, num_actions: int, hidden_sizes: Sequence[int] = (24, 12)):
        super().__init__()
        self.num_hidden = len(hidden_sizes)
        sizes = (obs_dim, *hidden_sizes, num_actions)
        for i, (size_in, size_out) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"linear{i}", nn.Linear(size_in, size_out))

    def forward(self, obs: Float[Tensor, "*batch O"]) -> Float[Tensor, "*batch A"]:
        """Logits: log-weights of the actions, up to a constant."""
        x = obs
        for i in range(1, self.num_hidden + 1):
            x = torch.relu(getattr(self, f"linear{i}")(x))
        return getattr(self, f"linear{self.num_hidden + 1}")(x)


class ReparamTrickAgent(nn.Module):
    """From an observation to the mean and the standard deviation of one Normal for each action.

    mu = tanh(mu_linear(x)), logvar = tanh(logvar_linear(x)), std = exp(logvar / 2),
    with x = relu(linear2(relu(linear1(obs)))).

    So |mu| < 1 and std is between exp(−½) and exp(½): the policy never becomes deterministic.
    """

    def __init__(self, obs_dim: int, num_actions: int, hidden_sizes: Sequence[int] = (24, 12)):
        super().__init__()
        self.num_hidden = len(hidden_sizes)
        sizes = (obs_dim, *hidden_sizes)
        for i, (size_in, size_out) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"linear{i}", nn.Linear(size_in, size_out))
        self.mu_linear = nn.Linear(sizes[-1], num_actions)
        self.logvar_linear = nn.Linear(sizes[-1], num_actions)
        for head in (self.mu_linear, self.logvar_linear):
            nn.init.uniform_(head.weight, -HEAD_INIT_BOUND, HEAD_INIT_BOUND)
            nn.init.uniform_(head.bias, -HEAD_INIT_BOUND, HEAD_INIT_BOUND)

    def forward(
        self, obs: Float[Tensor, "*batch O"]
    ) -> tuple[Float[Tensor, "*batch A"], Float[Tensor, "*batch A"]]:
        """Mean and standard deviation of each action's score."""
        x = obs
        for i in range(1, self.num_hidden + 1):
            x = torch.relu(getattr(self, f"linear{i}")(x))
        mu = torch.tanh(self.mu_linear(x))
        logvar = torch.tanh(self.logvar_linear(x))
        std = torch.exp(0.5 * logvar)
        return mu, std
