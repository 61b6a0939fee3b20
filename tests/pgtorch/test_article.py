"""One episode an update is the article's loop, written out slowly here."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch

import pgtorch
from pgcore.config import TrainConfig
from pgtorch.types import Trajectory
from tests.pgtorch.cases import (
    ADAM,
    AGENTS,
    assert_close,
    assert_same_parameters,
    doubles,
    float64_case,
    key,
    state_of,
)


def article_episode(agent, model, noise):
    """One episode, a log-probability with its graph and a reward for each step."""
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    env.unwrapped.state = noise.reset[0].numpy()
    obs = noise.reset[0].numpy().astype(np.float32)
    log_probs, rewards, done = [], [], False
    while not done:
        draw = noise.policy[len(rewards), 0]
        x = torch.from_numpy(obs.astype(np.float64))
        x = torch.relu(model.linear1(x))
        x = torch.relu(model.linear2(x))
        if agent == "reinforce":
            log_p = torch.log(torch.softmax(model.linear3(x), dim=0))
            action = torch.argmax(log_p + draw)
            log_prob = log_p[action]
        else:
            mu = torch.tanh(model.mu_linear(x))
            std = torch.exp(0.5 * torch.tanh(model.logvar_linear(x)))
            z = (mu + std * draw).detach()
            log_prob = torch.distributions.Normal(mu, std).log_prob(z).sum(axis=-1)
            action = torch.argmax(z)
        obs, reward, terminated, truncated, _ = env.step(action.item())
        log_probs.append(log_prob)
        rewards.append(reward)
        done = terminated or truncated
    return log_probs, rewards


def article_update(agent, model, optimizer, noise, discount):
    log_probs, rewards = article_episode(agent, model, noise)
    discounted = []
    for t in range(len(rewards)):
        discounted.append(sum(discount ** (s - t) * rewards[s] for s in range(t, len(rewards))))
    discounted = np.array(discounted)
    discounted -= np.mean(discounted)
    discounted /= np.std(discounted)
    loss = torch.stack([-p * g for p, g in zip(log_probs, discounted, strict=True)]).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), len(rewards)


@pytest.mark.parametrize("agent", AGENTS)
def test_with_one_episode_per_update_training_is_the_articles_loop(agent):
    policy, model, env, _ = float64_case(agent, 1)
    config = TrainConfig(agent=agent, episodes_per_update=1, normalize="episode", discount=0.97)
    update_step = pgtorch.make_update_step(policy, ADAM, config)
    state = state_of(model)
    article_adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    noises = key(7)
    for update in range(1, 7):
        noise = doubles(pgtorch.draw_noise(policy, env, noises, 1))
        loss, num_steps = article_update(agent, model, article_adam, noise, 0.97)
        trajectory = pgtorch.rollout(policy, state.params, env, noise)
        state, metrics = update_step(state, trajectory)
        assert int(metrics.num_steps) == num_steps
        assert_close(metrics.loss, loss)
        assert int(state.update) == update
        assert_same_parameters(state.params, model)


@pytest.mark.parametrize("agent", AGENTS)
def test_a_batch_of_episodes_is_the_mean_of_the_articles_losses(agent):
    policy, params, env, noise = float64_case(agent, 5, max_steps=40)
    config = TrainConfig(agent=agent, episodes_per_update=5, normalize="episode", discount=0.97)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    state = state_of(params, optimizer)
    trajectory = pgtorch.rollout(policy, params, env, noise)
    pgtorch.make_update_step(policy, optimizer, config)(state, trajectory)

    # SGD is linear in the gradient: the mean of the five single-episode steps is the batch's step.
    steps = []
    for b in range(5):
        alone = state_of(params, optimizer)
        episode = Trajectory(
            *(array[:, b : b + 1] for array in trajectory[:-1]), trajectory.terminated[b : b + 1]
        )
        pgtorch.make_update_step(policy, optimizer, config)(alone, episode)
        steps.append(list(alone.params.parameters()))
    for parameter, *singles in zip(state.params.parameters(), *steps, strict=True):
        assert_close(parameter.detach(), torch.stack(singles).mean(dim=0).detach())
