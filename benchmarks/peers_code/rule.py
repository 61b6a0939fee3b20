"""When a peer has solved CartPole-v1, and the line that its process prints.

Solved: the last 100 training episodes average at least 475, and so do 100 fresh episodes, played by
the policy as it now is with the actions drawn as in training.
"""

import json
import time
from collections.abc import Callable

import gymnasium
import numpy as np

THRESHOLD = 475.0
NUM_EPISODES = 100
"""Of the training's window and of an evaluation."""
EVERY = 5_000
"""Environment steps from an evaluation that failed to the next."""
FRESH = 1_000_000
"""Added to a seed for the episodes of its evaluations."""


class Watch:
    """Counts a training's seconds, evaluations apart, and its rate from the first update on."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.evaluating = 0.0
        self.first: tuple[int, float] | None = None
        self.evaluation_mean: float | None = None
        self.solved = False

    def seconds(self) -> float:
        """Since the training began, without its evaluations."""
        return time.perf_counter() - self.started - self.evaluating

    def updated(self, env_steps: int) -> None:
        """Says that an update ended; the first one's seconds are mostly compilation."""
        self.first = self.first or (env_steps, self.seconds())

    def evaluate(self, play: Callable[[], float]) -> bool:
        """Whether `play`, which gives a mean return, reaches the threshold."""
        before = time.perf_counter()
        self.evaluation_mean = play()
        self.evaluating += time.perf_counter() - before
        self.solved = self.evaluation_mean >= THRESHOLD
        return self.solved

    def report(self, env_steps: int) -> None:
        """Prints the process's one line."""
        steps, seconds = self.first or (0, 0.0)
        line = {
            "solved": self.solved,
            "env_steps": env_steps,
            "seconds_training": self.seconds(),
            "seconds_evaluating": self.evaluating,
            "steps_per_second": (env_steps - steps) / (self.seconds() - seconds),
            "evaluation_mean": self.evaluation_mean,
        }
        print(json.dumps(line), flush=True)


def play_fresh(act: Callable[[np.ndarray], np.ndarray], seed: int) -> float:
    """The mean return of 100 episodes, played together in Gymnasium's NumPy CartPole.

    It is the quickest way to play them, which each peer is given.

    Args:
        act: Actions `[100]` drawn for observations `[100, 4]`.
        seed: Of the initial states.
    """
    env = gymnasium.make_vec(
        "CartPole-v1", num_envs=NUM_EPISODES, vectorization_mode="vector_entry_point"
    )
    obs, _ = env.reset(seed=FRESH + seed)
    returns, playing = np.zeros(NUM_EPISODES), np.ones(NUM_EPISODES, bool)
    while playing.any():  # what an environment plays after its first episode counts for nothing
        obs, reward, terminated, truncated, _ = env.step(np.asarray(act(obs)))
        returns += np.where(playing, reward, 0.0)
        playing &= ~(terminated | truncated)
    return float(returns.mean())
