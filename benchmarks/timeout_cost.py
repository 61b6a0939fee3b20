"""What the time limit of an environment's calls costs, beside what a step costs anyway.

    python -m benchmarks.timeout_cost

Medians over rounds in which the three take turns: eight copies of CartPole-v1 stepped together,
with a limit and without, and the limit's part alone, which is what `begin` and `end` take.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from pgcore.envs.deadline import Deadline
from pgcore.envs.gym import GymEpisodes, gym_spec
from pgcore.errors import RunError

NUM_EPISODES, NUM_STEPS, NUM_ROUNDS = 8, 8, 300


def main() -> None:
    """Measures and prints microseconds of a step of one copy."""
    plain, limited = (_playing(limit) for limit in (None, 300.0))
    deadline = Deadline(300.0)
    times: dict[str, list[float]] = {"without a limit": [], "with one": [], "begin and end": []}
    for _ in range(NUM_ROUNDS):
        for name, work in zip(times, (plain, limited, lambda: _tell(deadline)), strict=True):
            times[name].append(work())
    for name, seconds in times.items():
        each = 1e6 * statistics.median(seconds) / (NUM_STEPS * NUM_EPISODES)
        print(f"{name:16}{each:7.2f} us a step")


def _playing(limit: float | None) -> Callable[[], float]:
    episodes = GymEpisodes(gym_spec("CartPole-v1"), NUM_EPISODES, Deadline(limit))
    actions = np.arange(NUM_STEPS * NUM_EPISODES).reshape(NUM_STEPS, NUM_EPISODES) % 2

    def play() -> float:
        episodes.reset(np.zeros((NUM_EPISODES, 4)))  # so near to upright nothing falls in 8 steps
        began = time.perf_counter()
        for action in actions:
            episodes.step(action)
        return time.perf_counter() - began

    return play


def _tell(deadline: Deadline) -> float:
    nobody = _Nobody()
    began = time.perf_counter()
    for _ in range(NUM_STEPS * NUM_EPISODES):
        deadline.begin(nobody)
        deadline.end()
    return time.perf_counter() - began


class _Nobody:
    def late(self) -> RunError:
        return RunError()


if __name__ == "__main__":
    main()
