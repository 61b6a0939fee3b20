"""SBX, which is Stable-Baselines3 in JAX, on CartPole-v1 until solved: PPO as in the zoo.

python -m benchmarks.peers_code.run_sbx 0
"""

import sys
import warnings

from sbx import PPO  # pyright: ignore[reportMissingImports]

from benchmarks.peers_code.run_sb3 import ALGORITHMS, learn

if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    _, settings, budget = ALGORITHMS["ppo"]
    learn(PPO, settings, budget, int(sys.argv[1]))
