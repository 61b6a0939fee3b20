"""What `parity.first_divergence` costs: seconds and memory for PPO's loss, in a fresh process.

    python -m benchmarks.where_cost

Two networks with two layers of 64 on a batch of 256. The right port is the dearest case: its values
are all compared, and then its slopes. Nothing is compiled beforehand.
"""

import resource
import sys
import time

import parity
from benchmarks.ports import ppo
from parity.sides import nested


def main() -> int:
    """Prints the seconds of the first call and of a second, and the most memory that was used."""
    inputs = nested(ppo.inputs())
    seconds, found = [], None
    for _ in range(2):
        started = time.perf_counter()
        found = parity.first_divergence(ppo.in_torch, ppo.in_jax, inputs)
        seconds.append(time.perf_counter() - started)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"first call {seconds[0]:.1f} s, second {seconds[1]:.1f} s, {most:.0f} MiB at most")
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
