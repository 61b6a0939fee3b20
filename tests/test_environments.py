"""An environment that misbehaves stops a run by name, and costs it nothing that was done."""

import gc
import hashlib
import re
import threading
import time
import weakref

import gymnasium
import numpy as np
import pytest

import pgjax
import pgtorch
from benchmarks.reliability import misbehaving
from benchmarks.reliability.misbehaving import HANGS, LENGTH, NEVER, RESETS, STEPS, Misbehaves
from pgcore.checkpoints import find_checkpoint
from pgcore.config import TrainConfig
from pgcore.envs import deadline
from pgcore.envs.deadline import Deadline, when_stuck
from pgcore.envs.faults import EnvironmentFault
from pgcore.envs.gym import GymEpisodes, gym_spec
from pgcore.envs.one_episode import EnvironmentWarning
from pgcore.errors import RunError, UsageError
from pgcore.evaluation import evaluate
from tests.depth import IS_DEEP

AFTER = 44
"""Two updates and their evaluations are 40 steps of two copies; the 5th after is step 3 of one."""
SHORTEST = 0.1


@pytest.fixture(autouse=True)
def misbehave(monkeypatch):
    def after(steps):
        monkeypatch.setattr(Misbehaves, "steps_left", steps)

    after(NEVER)
    return after


def config_of(fault, folder, **more):
    return TrainConfig(
        env_id=misbehaving.name(fault),
        episodes_per_update=2,
        eval_episodes=2,
        hidden_sizes=(4,),
        solve_threshold=LENGTH + 1,
        run_dir=folder,
        until_update=4,
        **more,
    )


def stopped(framework, fault, folder, **more):
    """What the run was stopped by, after two updates, which are saved; and it goes on, mended."""
    with pytest.raises(RunError) as stop:
        framework.train(config_of(fault, folder, **more))
    assert find_checkpoint(folder).progress.update == 2
    assert (folder / "policy.safetensors").exists()
    Misbehaves.steps_left = NEVER
    assert len(framework.resume(folder, until_update=4).history) == 4
    return stop.value


@pytest.mark.parametrize("fault", [*STEPS, *RESETS])
def test_what_an_environment_does_is_said_with_its_step_and_the_run_goes_on_when_it_is_mended(
    tmp_path, misbehave, fault
):
    misbehave(AFTER)
    error = stopped(pgtorch, fault, tmp_path / "run")
    assert re.search({**STEPS, **RESETS}[fault][1], str(error))
    is_step = fault in STEPS
    place = "of episode 5.* in update 3 of" if is_step else "episode 1 in the evaluation at update"
    assert re.search(f"{place}.*Misbehaves-{fault}-v0", str(error))


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("raises", ValueError("no such thing")),
        ("reward-1e300", None),
        *([("old-step", None)] if IS_DEEP else []),
    ],
)
def test_the_traceback_of_what_it_raised_is_there_through_jax_too(
    tmp_path, misbehave, caplog, fault, cause
):
    misbehave(AFTER)
    error = stopped(pgjax, fault, tmp_path / "run")
    assert re.search(STEPS[fault][1], str(error))
    assert re.search("step 3 of episode 5.? in update 3 of", str(error))
    assert repr(error.__cause__) == repr(cause)
    assert not caplog.records  # JAX would print a traceback of its own


@pytest.mark.parametrize("fault", ["ends-twice", "endless", "close-raises"])
@pytest.mark.filterwarnings("ignore:close.. of:UserWarning")
def test_an_odd_environment_trains_as_the_good_one(tmp_path, fault):
    """It ends twice at once, or by its step limit alone; a step after the end would raise."""
    results = [pgtorch.train(config_of(name, None)) for name in ("good", fault)]
    rows, expected = ([row._replace(seconds=0) for row in r.history] for r in results)
    assert rows == expected


def test_an_environment_that_will_not_be_closed_is_a_warning():
    with pytest.warns(EnvironmentWarning, match="close.. of .* raised OSError: already closed"):
        gym_spec(misbehaving.name("close-raises"))


def test_a_copy_that_cannot_be_made_any_more_stops_the_run(tmp_path, misbehave):
    misbehave(AFTER)
    error = stopped(pgtorch, "make-raises", tmp_path / "run")
    assert "copy 1 of the environment: env_id is" in str(error)
    assert "cannot be made: RuntimeError: no licence left" in str(error)


def test_an_evaluation_says_it_too(misbehave):
    misbehave(3)
    with pytest.raises(EnvironmentFault, match=r"raised ValueError.*, at step 2 of episode 2 of"):
        evaluate(
            lambda obs, noise: np.zeros(2, int), "reinforce", misbehaving.name("raises"), episodes=2
        )


def test_spaces_that_cannot_be_read_are_refused(monkeypatch):
    def broken(self):
        raise KeyError("no map")

    monkeypatch.setattr(Misbehaves, "observation_space", property(broken))
    with pytest.raises(UsageError, match="whose spaces cannot be read: KeyError: 'no map'"):
        gym_spec(misbehaving.name("good"))


def test_copies_that_nobody_has_any_more_are_closed_and_gone():
    """Else each update of a run would leave its own in memory."""
    episodes = GymEpisodes(gym_spec("CartPole-v1"), 2)
    episodes.reset(np.zeros((2, 4)))
    copy = weakref.ref(episodes._envs.envs[0])
    gc.collect()
    assert copy() is not None
    del episodes
    gc.collect()
    assert copy() is None


# --- an environment that hangs


@pytest.mark.parametrize("fault", ["sleeps", "loops", "waits-for-a-lock"])
def test_a_step_that_hangs_is_interrupted_and_the_run_saved(tmp_path, misbehave, fault):
    misbehave(AFTER)
    began = time.monotonic()
    error = stopped(pgtorch, fault, tmp_path / "run", env_timeout=SHORTEST)
    assert re.search(
        r"step\(\) has not returned within 0.1 s \(env_timeout\), at step 3 of episode 5 in update",
        str(error),
    )
    assert time.monotonic() - began < 60


def test_an_environment_that_catches_every_exception_is_interrupted_too(misbehave, monkeypatch):
    caught = []

    def stubborn():
        while not caught:
            try:
                time.sleep(0.01)
            except Exception as error:
                caught.append(error)

    monkeypatch.setitem(HANGS, "sleeps", stubborn)
    misbehave(1)
    spec = gym_spec(misbehaving.name("sleeps"))
    episodes = GymEpisodes(spec, 1, Deadline(SHORTEST))
    episodes.reset(np.zeros(1, int))
    episodes.step(np.zeros(1, int))
    with pytest.raises(EnvironmentFault, match="step 2 of episode 1"):
        episodes.step(np.zeros(1, int))
    assert not caught


def test_what_nothing_interrupts_is_told_of_and_ends_the_run_when_it_returns(
    misbehave, monkeypatch, caplog
):
    """In C that looks at no signals. (A run saves itself then, and a command ends its process.)"""
    monkeypatch.setattr(deadline, "TO_GIVE_UP_S", 0.2)
    told = threading.Event()

    def compute():
        while not told.is_set():
            try:
                hashlib.pbkdf2_hmac("sha256", b"", b"", 10**5)
            except BaseException:
                continue

    monkeypatch.setitem(HANGS, "loops", compute)
    misbehave(0)
    episodes = GymEpisodes(gym_spec(misbehaving.name("loops")), 1, Deadline(SHORTEST))
    episodes.reset(np.zeros(1, int))
    with (
        when_stuck(lambda fault: told.set()),
        pytest.raises(EnvironmentFault, match="has not returned within"),
    ):
        episodes.step(np.zeros(1, int))
    assert "what can be saved of the run is" in caplog.text


def test_slow_steps_within_the_limit_are_left_alone(misbehave, monkeypatch):
    monkeypatch.setitem(HANGS, "sleeps", lambda: time.sleep(0.05))
    misbehave(0)
    spec = gym_spec(misbehaving.name("sleeps"))
    result = evaluate(
        lambda obs, noise: np.zeros(1, int), "reinforce", spec.env_id, episodes=1, timeout=5.0
    )
    assert result.mean == LENGTH


def test_time_in_which_the_process_was_stopped_does_not_count():
    limit = Deadline(SHORTEST)
    limit.begin(None)
    limit.look(0.0, 0.01)
    for now in (0.01, 3600.0, 3600.01):
        limit.look(now, 0.01)
    assert not limit.is_late_by(0)
    limit.end()


def test_the_signal_does_what_it_did_where_nothing_is_late():
    import signal

    seen = []
    before = signal.signal(signal.SIGURG, lambda *_: seen.append(1))
    try:
        Deadline(5.0)
        signal.raise_signal(signal.SIGURG)
    finally:
        signal.signal(signal.SIGURG, before)
    assert seen == [1]


def test_an_environment_without_a_step_limit_of_its_own_is_cut_at_the_registered_one():
    env = gymnasium.make(misbehaving.name("endless"))
    assert env.spec is not None
    assert env.spec.max_episode_steps == LENGTH
    episodes = GymEpisodes(gym_spec(misbehaving.name("endless"), 3), 1)
    episodes.reset(np.zeros(1, int))
    ends = [bool(episodes.step(np.zeros(1, int))[3][0]) for _ in range(3)]
    assert ends == [False, False, True]
