"""Stable-Baselines3 on CartPole-v1 until solved, with the settings of its zoo.

python -m benchmarks.peers_code.run_sb3 ppo 0
"""

import sys
import warnings
from typing import Any

import numpy as np
from stable_baselines3 import A2C, PPO  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]

from benchmarks.peers_code.rule import EVERY, NUM_EPISODES, THRESHOLD, Watch, play_fresh

NUM_ENVS = 8
PPO_SETTINGS = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "ent_coef": 0.0,
    "learning_rate": lambda left: 0.001 * left,
    "clip_range": lambda left: 0.2 * left,
}
ALGORITHMS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "ppo": (PPO, PPO_SETTINGS, 100_000),
    "a2c": (A2C, {}, 500_000),
}
"""The algorithm, its settings and its budget of environment steps."""


class UntilSolved(BaseCallback):
    """Ends the training as soon as the rule says so; it is asked after each update."""

    def __init__(self, watch: Watch, seed: int) -> None:
        super().__init__()
        self.watch = watch
        self.seed = seed
        self.next_evaluation = 0

    def _on_rollout_start(self) -> None:
        if self.num_timesteps == 0:
            return
        self.watch.updated(self.num_timesteps)
        self.judge()

    def judge(self) -> None:
        recent = [episode["r"] for episode in self.model.ep_info_buffer]
        promising = len(recent) == NUM_EPISODES and np.mean(recent) >= THRESHOLD
        if promising and self.num_timesteps >= self.next_evaluation:
            self.next_evaluation = self.num_timesteps + EVERY
            self.watch.evaluate(lambda: play_fresh(self.act, self.seed + self.num_timesteps))

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Actions drawn as in training."""
        return self.model.predict(obs, deterministic=False)[0]

    def _on_step(self) -> bool:
        return not self.watch.solved


def learn(make: Any, settings: dict[str, Any], budget: int, seed: int) -> None:
    """Trains `make`'s algorithm, of Stable-Baselines3 or with its interface."""
    env = make_vec_env("CartPole-v1", n_envs=NUM_ENVS, seed=seed)
    model = make("MlpPolicy", env, seed=seed, device="cpu", **settings)
    watch = Watch()
    callback = UntilSolved(watch, seed)
    model.learn(budget, callback=callback, log_interval=None)
    if not watch.solved:
        callback.judge()  # the last update's policy
    watch.report(model.num_timesteps)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    learn(*ALGORITHMS[sys.argv[1]], int(sys.argv[2]))
