"""rejax's PPO on CartPole-v1 until solved, with the settings of its own configuration file.

    python -m benchmarks.peers_code.run_rejax 0

Its loop is one jitted call that keeps no training episode, so 100 fresh episodes alone decide. It
is called for 5,000 steps at a time, each with its evaluation, and stops at the first that passes.
"""

import sys
import warnings
from functools import partial

import jax
import rejax  # pyright: ignore[reportMissingImports]
from rejax.evaluate import evaluate  # pyright: ignore[reportMissingImports]

from benchmarks.peers_code.rule import EVERY, NUM_EPISODES, Watch

BUDGET = 100_000
SETTINGS = {
    "env": "CartPole-v1",
    "agent_kwargs": {"activation": "tanh"},
    "num_envs": 5,
    "num_steps": 100,
    "num_epochs": 5,
    "num_minibatches": 5,
    "learning_rate": 0.00075,
    "max_grad_norm": 0.5,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
}
"""Of `configs/gymnax/cartpole.yaml`; the budget too."""


def main(seed: int) -> None:
    """Trains until an evaluation passes or the budget is spent."""
    watch = Watch()
    chunk = {"total_timesteps": EVERY, "eval_freq": EVERY, "skip_initial_evaluation": True}
    algo = rejax.PPO.create(**SETTINGS, **chunk)
    algo = algo.replace(eval_callback=lambda algo, state, key: ())  # it is asked for apart

    @jax.jit
    def train(state):
        return algo.train(train_state=state)[0]

    @jax.jit
    def returns(state, key):
        limit = algo.env_params.max_steps_in_episode
        act = algo.make_act(state)  # it draws the actions, as in training
        return evaluate(act, key, algo.env, algo.env_params, NUM_EPISODES, limit)[1]

    def play(state, key) -> float:
        return float(returns(state, key).mean())

    first_key, key = jax.random.split(jax.random.key(seed))
    state, env_steps = jax.jit(algo.init_state)(first_key), 0
    while env_steps < BUDGET and not watch.solved:
        state, env_steps = jax.block_until_ready(train(state)), env_steps + EVERY
        watch.updated(env_steps)
        key, episodes_key = jax.random.split(key)
        watch.evaluate(partial(play, state, episodes_key))
    watch.report(env_steps)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(int(sys.argv[1]))
