"""The JAX side on its own: rollouts, transformations, compilation, the training step in use."""

import functools
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import io_callback

import pgjax
from pgcore.config import TrainConfig
from pgcore.envs import gym
from pgjax import envs
from pgjax.envs.gymnasium import _host_errors, _remembering

AGENTS = ["reinforce", "reparam"]
SHORT = functools.partial(pgjax.CartPole, max_steps=50)
CONFIG = TrainConfig(episodes_per_update=3)


def setup(agent, env, optimizer=None, config=CONFIG):
    policy = pgjax.make_policy(agent, env.obs_dim, env.num_actions)
    optimizer = optimizer or pgjax.adam(1e-2)
    return policy, optimizer, pgjax.init(jax.random.key(0), policy, optimizer)


def assert_same_trajectory(one, other):
    for field in pgjax.Trajectory._fields:
        assert np.array_equal(getattr(one, field), getattr(other, field)), field


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("num_steps", [7, 50])
def test_early_exit_and_the_full_scan_play_the_same_trajectory(agent, num_steps):
    env = SHORT()
    policy, _, state = setup(agent, env)
    noise = pgjax.draw_noise(policy, env, jax.random.key(1), 4)
    noise = noise._replace(policy=noise.policy[:num_steps])
    early, full = (
        jax.jit(functools.partial(pgjax.rollout, policy, env=env, early_exit=early_exit))(
            state.params, noise=noise
        )
        for early_exit in (True, False)
    )
    assert early.mask.shape == (num_steps, 4)
    assert_same_trajectory(early, full)


def test_under_vmap_early_exit_plays_the_same_trajectories_one_by_one():
    env = SHORT()
    policy, _, state = setup("reinforce", env)

    def play(key):
        return pgjax.rollout(policy, state.params, env, pgjax.draw_noise(policy, env, key, 2))

    # The shortest rollout comes first and ends a chunk or more before the longest, or the test
    # would not see a loop that stops too early.
    keys = jax.random.split(jax.random.key(1), 16)
    lengths = jax.jit(jax.vmap(play))(keys).mask.any(axis=2).sum(axis=1)
    assert lengths.min() <= 20 < lengths.max()
    keys = keys[jnp.argsort(lengths)[jnp.array([0, 8, 15])]]
    together = jax.jit(jax.vmap(play))(keys)
    nested = jax.jit(jax.vmap(jax.vmap(play)))(keys.reshape(3, 1))
    for i, key in enumerate(keys):
        alone = jax.jit(play)(key)
        assert_same_trajectory(jax.tree.map(lambda x, i=i: x[i], together), alone)
        assert_same_trajectory(jax.tree.map(lambda x, i=i: x[i, 0], nested), alone)


def test_an_episode_is_masked_from_its_end_on_and_its_padding_is_zero():
    env = pgjax.CartPole()
    policy, _, state = setup("reparam", env)
    noise = pgjax.draw_noise(policy, env, jax.random.key(1), 4)
    trajectory = jax.jit(functools.partial(pgjax.rollout, policy, env=env))(
        state.params, noise=noise
    )
    mask = np.asarray(trajectory.mask)
    lengths = mask.sum(axis=0)
    assert np.array_equal(mask, np.arange(len(mask))[:, None] < lengths)
    for field in ("obs", "sample", "action", "reward"):
        assert not np.any(np.asarray(getattr(trajectory, field))[~mask]), field
    assert np.all(np.asarray(trajectory.reward)[mask] == 1)
    assert np.all(trajectory.terminated)
    for b, length in enumerate(lengths):  # the last step's action is what ended the episode
        obs = jnp.asarray(trajectory.obs[:length, b])
        state_before, _ = env.reset(obs)
        *_, terminated, _ = env.step(state_before, trajectory.action[:length, b])
        assert np.array_equal(terminated, np.arange(length) == length - 1)


def test_the_step_limit_truncates_and_does_not_terminate():
    env = SHORT(max_steps=3)
    policy, _, state = setup("reinforce", env)
    noise = pgjax.draw_noise(policy, SHORT(max_steps=5), jax.random.key(1), 2)
    trajectory = pgjax.rollout(policy, state.params, env, noise)
    assert trajectory.mask.sum(axis=0).tolist() == [3, 3]
    assert np.all(trajectory.mask[:3])
    assert not np.any(trajectory.terminated)


@pytest.mark.parametrize("agent", AGENTS)
def test_our_cartpole_and_gymnasiums_play_the_same_episodes_in_float64(agent):
    with jax.enable_x64(True):
        ours, theirs = pgjax.CartPole(), envs.GymnasiumEnv()
        policy, _, state = setup(agent, ours)
        noise = pgjax.draw_noise(policy, ours, jax.random.key(1), 8)
        play = jax.jit(functools.partial(pgjax.rollout, policy), static_argnums=1)
        assert_same_trajectory(
            play(state.params, ours, noise=noise), play(state.params, theirs, noise=noise)
        )


def test_float64_goes_through_gymnasium_whole_where_x64_is_off_by_the_time_it_plays(monkeypatch):
    started = []
    reset = gym.GymEpisodes.reset

    def noting(episodes, noise):
        started.append(np.array(noise))
        return reset(episodes, noise)

    monkeypatch.setattr(gym.GymEpisodes, "reset", noting)
    start = np.full((2, 4), 0.01 + 1e-12)  # in float32 it would be 0.01
    env = envs.GymnasiumEnv()
    with jax.enable_x64(True):
        policy, _, state = setup("reinforce", env)
        noise = pgjax.Noise(jnp.array(start), jnp.zeros((40, 2, 2)))
        play = jax.jit(functools.partial(pgjax.rollout, policy, env=env))
        play = play.lower(state.params, noise=noise).compile()
        # A rollout whose noise is not there yet is played later; on a thread of XLA's, perhaps.
        large = jnp.ones((2_000, 2_000))
        pending = 0 * (large @ large @ large).sum()
        played = play(state.params, noise=noise._replace(reset=noise.reset + pending))
    reward = np.asarray(played.reward)
    assert np.array_equal(started[0], start)
    assert reward.dtype == np.float64
    assert np.array_equal(reward, played.mask)


def test_another_gymnasium_environment_trains():
    config = TrainConfig(
        env_id="Acrobot-v1",
        solve_threshold=-100,
        total_timesteps=1,
        episodes_per_update=2,
        eval_episodes=2,
    )
    result = pgjax.train(config)
    assert result.history[0].episodes == 2
    assert -1000 <= result.evaluation.mean < 0


def test_a_rollout_is_differentiable_without_early_exit():
    env = SHORT(max_steps=5)
    policy, _, state = setup("reparam", env)
    noise = pgjax.draw_noise(policy, env, jax.random.key(1), 2)

    def sum_of_samples(params):
        return pgjax.rollout(policy, params, env, noise, early_exit=False).sample.sum()

    grads = jax.grad(sum_of_samples)(state.params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    assert optax.tree.norm(grads) > 0


@pytest.mark.parametrize("agent", AGENTS)
def test_the_train_step_is_noise_then_rollout_then_update(agent):
    env = SHORT()
    policy, optimizer, state = setup(agent, env)
    # As somebody's own: the two agents take the fast path (tests/parity/test_fast.py).
    policy = policy._replace(apply=policy.apply.apply)
    key = jax.random.key(2)
    got = jax.jit(pgjax.make_train_step(policy, env, optimizer, CONFIG))(state, key)

    def by_hand(state, key):
        noise = pgjax.draw_noise(policy, env, key, CONFIG.episodes_per_update)
        trajectory = pgjax.rollout(policy, state.params, env, noise)
        return pgjax.make_update_step(policy, optimizer, CONFIG)(state, trajectory)

    expected = jax.jit(by_hand)(state, key)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(one, other)


def test_the_jitted_train_step_is_traced_once_over_updates_keys_and_learning_rates():
    env, traces = SHORT(), 0

    def counted(obs_params, obs):
        nonlocal traces
        traces += 1
        return nn.Dense(2).apply(obs_params, obs)

    params = nn.Dense(2).init(jax.random.key(0), jnp.zeros(4))
    policy = pgjax.from_callable(params, counted, 2)

    @jax.jit
    def step(state, key, learning_rate):
        optimizer = pgjax.adam(learning_rate)
        return pgjax.make_train_step(policy, env, optimizer, CONFIG)(state, key)

    state = pgjax.init(jax.random.key(0), policy, pgjax.adam(1.0))
    state, _ = step(state, jax.random.key(0), 1e-2)
    traced_at_first = traces
    for i in range(1, 4):
        state, _ = step(state, jax.random.key(i), 1e-2 / i)
    assert traces == traced_at_first
    assert step._cache_size() == 1


def test_train_compiles_its_rollout_and_its_update_once_for_all_updates_and_evaluations(caplog):
    config = TrainConfig(total_timesteps=400, eval_episodes=3, episodes_per_update=2)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        result = pgjax.train(config)
    compiled = [line for line in caplog.messages if line.startswith("Compiling jit(")]
    assert len(result.history) > 3
    assert sum("jit(play)" in line for line in compiled) == 1
    assert sum("jit(learn)" in line for line in compiled) == 1


def test_training_twice_gives_the_same_history_and_another_seed_another():
    config = TrainConfig(total_timesteps=300, eval_episodes=2)
    first, again = (pgjax.train(config).history for _ in range(2))
    other = pgjax.train(TrainConfig(total_timesteps=300, eval_episodes=2, seed=1)).history
    assert [row._replace(seconds=0) for row in first] == [row._replace(seconds=0) for row in again]
    assert [row.loss for row in first] != [row.loss for row in other]


def test_the_step_runs_in_scan_and_under_vmap_over_seeds_with_any_optax_optimizer():
    env = SHORT()
    policy, optimizer, _ = setup("reparam", env, optax.chain(optax.clip(1.0), optax.sgd(1e-2)))
    step = pgjax.make_train_step(policy, env, optimizer, CONFIG)

    def run(key):
        state = pgjax.init(key, policy, optimizer)
        return jax.lax.scan(step, state, jax.random.split(key, 2))

    keys = jax.random.split(jax.random.key(3), 2)
    together, _ = jax.jit(jax.vmap(run))(keys)
    for i, key in enumerate(keys):
        alone, metrics = jax.jit(run)(key)
        assert alone.update == 2
        assert np.all(metrics.num_steps > 0)
        # vmap turns matrix-vector products into matrix products, which round otherwise; the gate
        # itself is held in float64 by tests/parity.
        for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            assert np.max(np.abs(one - other[i])) <= 2**-12 * max(1, np.max(np.abs(one)))


def test_metrics_count_unmasked_steps_and_average_whole_episodes():
    env = SHORT()
    policy, optimizer, state = setup("reinforce", env)
    noise = pgjax.draw_noise(policy, env, jax.random.key(4), 3)
    trajectory = pgjax.rollout(policy, state.params, env, noise)
    _, metrics = pgjax.make_update_step(policy, optimizer, CONFIG)(state, trajectory)
    lengths = np.asarray(trajectory.mask).sum(axis=0)
    assert metrics.num_steps == lengths.sum()
    assert metrics.num_steps.dtype == metrics.num_episodes.dtype == jnp.int32
    assert metrics.num_episodes == 3
    assert float(metrics.mean_return) == pytest.approx(lengths.mean(), rel=2**-20)


def test_no_function_changes_the_numpy_arrays_it_is_given():
    env = SHORT()
    policy, optimizer, state = setup("reinforce", env)
    state, noise = jax.tree.map(
        np.array, (state, pgjax.draw_noise(policy, env, jax.random.key(5), 2))
    )
    play = jax.jit(lambda params, noise: pgjax.rollout(policy, params, env, noise))
    trajectory = jax.tree.map(np.array, play(state.params, noise))
    for array in jax.tree.leaves((state, noise, trajectory)):
        array.setflags(write=False)
    play(state.params, noise)
    jax.jit(pgjax.make_update_step(policy, optimizer, CONFIG))(state, trajectory)


def test_two_networks_of_one_agent_start_from_different_keys_differently():
    policy = pgjax.make_policy("reparam", 4, 2)
    one, other = (policy.init(jax.random.key(seed)) for seed in (0, 1))
    for leaf, leaf_of_other in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert not np.array_equal(leaf, leaf_of_other)


def test_parameters_are_float64_under_x64_and_float32_otherwise():
    policy = pgjax.make_policy("reinforce", 4, 2)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(policy.init(jax.random.key(0)))} == {
        "float32"
    }
    with jax.enable_x64(True):
        assert {leaf.dtype.name for leaf in jax.tree.leaves(policy.init(jax.random.key(0)))} == {
            "float64"
        }


def test_an_action_that_does_not_exist_has_no_probability():
    distribution = pgjax.Categorical(jnp.zeros((3, 2)))
    log_prob = distribution.log_prob(jnp.array([-1, 1, 2]))
    assert np.array_equal(np.isnan(log_prob), [True, False, True])


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_jaxs_own_callback_code_arrives_as_itself(sent):
    """As at a random moment of a run: between two steps, where no environment's code runs."""

    class Stop(BaseException):
        pass

    def handler(*_):
        raise Stop

    def step(x):
        stepped.append(x)
        return x

    def play(x):
        io_callback(lambda: signal.raise_signal(sent), None, ordered=True)
        return io_callback(_remembering(step), x, x, ordered=True)

    def in_a_block(*acts):
        with _host_errors():
            for act in acts:
                act()

    def send():
        signal.raise_signal(sent)

    stepped, after = [], []
    before = signal.signal(sent, handler)
    try:
        with pytest.raises(Stop):
            in_a_block(lambda: jax.block_until_ready(jax.jit(play)(jnp.ones(3))))
        assert not stepped  # the step after the signal is not taken
        assert signal.getsignal(sent) is handler
        with pytest.raises(Stop):  # no step follows: the block's end will do
            in_a_block(send, lambda: after.append("first"))
        with pytest.raises(Stop):  # a second signal does not wait
            in_a_block(send, send, lambda: after.append("second"))
        assert after == ["first"]
        in_a_block(lambda: after.append("third"))  # nothing is left over
    finally:
        signal.signal(sent, before)
