"""The tape: one noise for both frameworks, the same in any order, and the same from its file."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
from scipy import stats

import pgjax
import pgtorch
from parity import NoiseTape
from parity.suite.weights import to_flax
from pgcore import TrainConfig, UsageError
from pgcore.files.tensors import to_bytes

AGENTS = pytest.mark.parametrize("agent", ["reinforce", "reparam"])


def make(agent="reinforce", **options):
    settings = {"num_steps": 20, "num_episodes": 3, "num_actions": 2, "seed": 7}
    return NoiseTape(agent, **{**settings, **options})


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


# --- what is drawn


@AGENTS
def test_updates_are_the_same_in_whatever_order_they_are_asked_for(agent):
    forwards = make(agent)
    backwards = make(agent)
    first = [forwards.update(i) for i in range(4)]
    last = [backwards.update(i) for i in reversed(range(4))][::-1]
    for a, b, c in zip(first, last, [forwards.update(i) for i in range(4)], strict=True):
        assert_equal(a, b)
        assert_equal(a, c)


def test_no_two_updates_seeds_or_episodes_share_noise():
    noise = [make(seed=seed).update(i) for seed in (0, 1) for i in (0, 1)]
    assert len(np.unique([one.policy for one in noise])) == 4 * 20 * 3 * 2
    assert len(np.unique([one.reset for one in noise])) == 4 * 3 * 4


@AGENTS
def test_how_an_episode_starts_says_nothing_of_its_policy_noise(agent):
    # Were it one stream, both would be made from the same bits. 2000 independent pairs: the rank
    # correlation is normal with a deviation of 0.022.
    noise = make(agent, num_episodes=2000, num_steps=1).update(0)
    for i in range(4):
        for a in range(2):
            assert abs(stats.spearmanr(noise.reset[:, i], noise.policy[0, :, a])[0]) < 0.12


@AGENTS
def test_an_episodes_noise_depends_on_its_number_in_the_run_alone(agent):
    whole = make(agent, num_episodes=8).update(1)
    halves = [make(agent, num_episodes=4).update(i) for i in (2, 3)]
    np.testing.assert_array_equal(whole.reset, np.concatenate([h.reset for h in halves]))
    np.testing.assert_array_equal(whole.policy, np.concatenate([h.policy for h in halves], 1))
    short = make(agent, num_episodes=8, num_steps=5).update(1)
    np.testing.assert_array_equal(short.policy, whole.policy[:5])
    np.testing.assert_array_equal(short.reset, whole.reset)


@pytest.mark.parametrize(
    ("agent", "law"),
    [("reinforce", stats.gumbel_r), ("reparam", stats.norm)],
    ids=["gumbel", "normal"],
)
def test_the_noise_has_the_agents_law_and_cartpoles(agent, law):
    # 1e5 draws: a wrong sign, spread or law has a p-value of 0. The seed is fixed.
    noise = make(agent, num_episodes=500, num_steps=100).update(0)
    assert stats.kstest(noise.policy.ravel(), law.cdf).pvalue > 1e-3
    assert stats.kstest(noise.reset.ravel(), stats.uniform(-0.05, 0.1).cdf).pvalue > 1e-3
    assert (noise.reset.shape, noise.policy.shape) == ((500, 4), (100, 500, 2))


def test_other_environments_start_from_seeds():
    reset = make(env_id="Acrobot-v1", num_episodes=50).update(0).reset
    assert reset.shape == (50,)
    assert np.issubdtype(reset.dtype, np.integer)
    assert 0 <= reset.min() < reset.max() < 2**31
    assert_equal([reset], [make(env_id="Acrobot-v1", num_episodes=50).update(0, "float32").reset])


def test_float32_is_the_same_noise_rounded_once():
    double, single = make().update(2), make().update(2, "float32")
    for a, b in zip(double, single, strict=True):
        assert (a.dtype, b.dtype) == (np.float64, np.float32)
        np.testing.assert_array_equal(a.astype(np.float32), b)
        assert (a != b).any()


def test_what_one_does_with_an_update_changes_no_other():
    for tape in (make(), NoiseTape.from_arrays(*stacked(make()), agent="reinforce")):
        before = tape.update(0)
        tape.update(0).policy[:] = np.nan
        assert_equal(tape.update(0), before)


def test_a_tape_for_a_configuration():
    tape = NoiseTape.for_config(TrainConfig(agent="reparam", seed=5, episodes_per_update=2))
    assert tape == tape
    assert dataclasses.asdict(tape) == {
        "agent": "reparam",
        "num_steps": 500,
        "num_episodes": 2,
        "num_actions": 2,
        "seed": 5,
        "env_id": "CartPole-v1",
        "recorded_with": f"numpy {np.__version__}",
        "stored": None,
    }


# --- both frameworks read it


@AGENTS
def test_both_frameworks_act_the_same_at_every_step_of_whole_episodes(agent):
    tape = NoiseTape(agent, num_steps=500, num_episodes=8, num_actions=2, seed=11)
    module = pgtorch.make_policy(agent, 4, 2).init(torch.Generator().manual_seed(1)).double()
    tensors = {name: p.detach().numpy() for name, p in module.named_parameters()}
    lengths = []
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.array, to_flax(tensors))
        for i in range(3):
            noise = tape.update(i)
            reference = play(pgtorch, agent, module, pgtorch.Noise(*map(torch.tensor, noise)))
            candidate = play(pgjax, agent, params, pgjax.Noise(*map(jnp.array, noise)))
            assert candidate.reward.dtype == np.float64
            for name in ("mask", "action", "terminated"):
                np.testing.assert_array_equal(
                    getattr(candidate, name), getattr(reference, name), err_msg=name
                )
            # An observation is rounded to float32, by 6e-8: it may fall on either side.
            largest = np.abs(reference.sample).max()
            assert np.abs(candidate.sample - reference.sample).max() <= 1e-6 * largest
            np.testing.assert_array_equal(candidate.mask.sum(0), candidate.reward.sum(0))
            lengths += list(candidate.mask.sum(0))
    assert len(set(lengths)) > 5  # whole episodes, of many lengths
    assert max(lengths) < 500


def play(package, agent, params, noise):
    policy = package.make_policy(agent, 4, 2)
    trajectory = package.rollout(policy, params, package.CartPole(), noise)
    return type(trajectory)(*map(np.asarray, trajectory))


def test_other_noise_plays_other_episodes():
    """So that the test above compares something."""
    tape = NoiseTape("reinforce", num_steps=500, num_episodes=8, num_actions=2, seed=11)
    module = pgtorch.make_policy("reinforce", 4, 2).init(torch.Generator().manual_seed(1)).double()
    first, second = (
        play(pgtorch, "reinforce", module, pgtorch.Noise(*map(torch.tensor, tape.update(i))))
        for i in (0, 1)
    )
    assert (first.action != second.action).any()


# --- files


def stacked(tape, num_updates=2):
    noise = [tape.update(i) for i in range(num_updates)]
    return np.stack([n.reset for n in noise]), np.stack([n.policy for n in noise])


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1"])
def test_a_saved_tape_is_replayed_bit_by_bit(tmp_path, env_id):
    path, tape = tmp_path / "noise.safetensors", make("reparam", env_id=env_id)
    tape.save(path, updates=[0, 5])
    loaded = NoiseTape.load(path)
    for i in (0, 5):
        for dtype in ("float64", "float32"):
            assert_equal(loaded.update(i, dtype), tape.update(i, dtype))
    assert (loaded.agent, loaded.env_id) == ("reparam", env_id)
    assert (loaded.num_steps, loaded.num_episodes, loaded.num_actions) == (20, 3, 2)


def test_a_replay_asks_no_random_generator(tmp_path, monkeypatch):
    path, tape = tmp_path / "noise.safetensors", make()
    tape.save(path, updates=2)
    monkeypatch.setattr(np.random, "SeedSequence", None)  # as if its stream had changed
    with pytest.raises(TypeError):
        tape.update(0)
    loaded = NoiseTape.load(path)
    assert loaded.update(1).policy.shape == (20, 3, 2)


def test_a_loaded_tape_is_saved_again_as_it_is(tmp_path):
    make().save(tmp_path / "a", updates=2)
    NoiseTape.load(tmp_path / "a").save(tmp_path / "b")
    first, second = (safetensors.numpy.load_file(tmp_path / name) for name in "ab")
    assert set(first) == set(second) == {"reset", "policy", "updates"}
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)


def test_the_file_says_what_it_was_recorded_with(tmp_path):
    tape = dataclasses.replace(make(), recorded_with="numpy 1.0")
    tape.save(tmp_path / "a", updates=1)
    NoiseTape.load(tmp_path / "a").save(tmp_path / "b")  # a copy says the same
    for name in "ab":
        with safetensors.safe_open(tmp_path / name, framework="numpy") as file:
            about = file.metadata()
        assert about.pop("schema").startswith("policy-gradient-parity/tape/")
        assert len(about.pop("sha256")) == 64
        assert about == {
            "agent": "reinforce",
            "env_id": "CartPole-v1",
            "seed": "7",
            "recorded_with": "numpy 1.0",
        }


def test_a_frameworks_own_noise_comes_back_bit_by_bit(tmp_path):
    policy = pgjax.make_policy("reinforce", 4, 2)
    env = pgjax.CartPole(max_steps=30)
    drawn = [pgjax.draw_noise(policy, env, jax.random.key(i), 3) for i in range(2)]
    tape = NoiseTape.from_arrays(
        [n.reset for n in drawn], [n.policy for n in drawn], agent="reinforce"
    )
    tape.save(tmp_path / "noise")
    loaded = NoiseTape.load(tmp_path / "noise")
    assert loaded.seed is None
    for i, noise in enumerate(drawn):
        assert_equal(loaded.update(i, "float32"), map(np.asarray, noise))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "noise.safetensors"
    make().save(path, updates=1)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="accepted is one that is stored in this tape: 0"):
        NoiseTape.load(path).save(path, updates=[0, 1])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent": "reinforced"}, "did you mean 'reinforce'"),
        ({"num_steps": 0}, "num_steps is 0, accepted is an integer from 1"),
        ({"num_episodes": 2.0}, "num_episodes is 2.0"),
        ({"num_actions": True}, "num_actions is True"),
        ({"seed": -1}, "seed is -1, accepted is an integer from 0"),
        ({"seed": None}, "seed is None"),
        ({"env_id": ""}, "env_id is ''"),
    ],
)
def test_a_tape_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda tape, path: tape.update(-1), "update is -1, accepted is an integer from 0"),
        (lambda tape, path: tape.update(2**31), "at most 2\\^32"),
        (lambda tape, path: tape.update(0, "float16"), "dtype is 'float16'"),
        (lambda tape, path: tape.save(path), "updates is None, accepted is their numbers"),
        (lambda tape, path: tape.save(path, 0), "updates is 0, accepted is one at least"),
        (lambda tape, path: tape.save(path / "no" / "folder", 1), "cannot be written"),
        (lambda tape, path: NoiseTape.load(path), "cannot be read"),
    ],
    ids=["before 0", "too late", "dtype", "no updates", "none", "folder", "file"],
)
def test_what_a_tape_does_not_have_is_refused(tmp_path, ask, message):
    with pytest.raises(UsageError, match=message):
        ask(make(), tmp_path / "noise")


def test_a_file_that_is_no_tape_is_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(1)}, path)
    with pytest.raises(UsageError, match="schema of .* is None"):
        NoiseTape.load(path)
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UsageError, match="cannot be read"):
        NoiseTape.load(path)


@pytest.mark.parametrize(
    ("tensors", "about", "message"),
    [
        ({}, {"note": "x"}, "its metadata has 'note'"),
        ({"more": np.ones(1)}, {}, r"arrays in tape .* is \['more', 'policy', "),
        ({}, {"seed": "seven"}, "seed of tape .* is 'seven'"),
        ({}, {"seed": "9" * 5000}, "seed of tape .* is '999"),
        ({"updates": np.array(0)}, {}, r"updates in tape .* is 'int64 \[\]', accepted is integers"),
        ({"updates": np.array([[0], [1]])}, {}, r"updates in tape .* is 'int64 \[2, 1\]'"),
        ({"updates": np.array([0.0, 1.5])}, {}, r"updates in tape .* is 'float64 \[2\]'"),
        ({"updates": np.array([True, False])}, {}, r"updates in tape .* is 'bool \[2\]'"),
    ],
    ids=str,
)
def test_a_file_that_says_more_or_other_than_a_tape_is_refused(tmp_path, tensors, about, message):
    whole, told = make(num_steps=1).contents(2)
    (tmp_path / "noise").write_bytes(to_bytes(whole | tensors, told | about, seal=True))
    with pytest.raises(UsageError, match=message):
        NoiseTape.load(tmp_path / "noise")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, p: (r, p[0]), "policy noise's shape is"),
        (lambda r, p: (r[:, :2], p), "reset noise's shape is"),
        (lambda r, p: (r, p.swapaxes(1, 2)), "reset noise's shape is"),
        (lambda r, p: (r, p.astype(int)), "policy noise's dtype is 'int64'"),
        (lambda r, p: (r > 0, p), "reset noise's dtype is 'bool'"),
        (
            lambda r, p: (r, np.where(p == p[1, 2, 0, 1], np.nan, p)),
            r"policy noise at \[1, 2, 0, 1",
        ),
    ],
    ids=["rank", "episodes", "transposed", "integers", "flags", "nan"],
)
def test_arrays_that_are_no_noise_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        NoiseTape.from_arrays(*change(*stacked(make())), agent="reinforce")


def test_updates_must_be_numbered_once_each():
    for updates in ([0, 0], [0], [-1, 0]):
        with pytest.raises(UsageError, match="accepted is 2 different numbers"):
            NoiseTape.from_arrays(*stacked(make()), agent="reinforce", updates=updates)
