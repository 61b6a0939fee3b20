"""Environments that misbehave from some step on, each in one way.

`benchmarks.reliability.misbehaving:Misbehaves-raises-v0` is one, named so that a command finds it.
Episodes have five steps, each with reward 1; a step after the end raises, always. The fault comes
in step number `MISBEHAVE_AFTER` + 1 of the process, of all copies together.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np

LENGTH = 5
"""Steps of an episode."""
NEVER = 10**9
HANG_S = 3600.0

OK = np.ones(3, np.float32)


def _raises(error: BaseException) -> Callable[[bool], Any]:
    def fault(is_last: bool) -> Any:
        raise error

    return fault


def _wait_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=HANG_S)


def _loop() -> None:
    end = time.monotonic() + HANG_S
    while time.monotonic() < end:
        pass


def _hangs(hang: Callable[[], object]) -> Callable[[bool], Any]:
    def fault(is_last: bool) -> Any:
        hang()
        return OK, 1.0, is_last, False, {}

    return fault


def _obs(obs: Any) -> Callable[[bool], Any]:
    return lambda is_last: (obs, 1.0, is_last, False, {})


def _reward(reward: Any) -> Callable[[bool], Any]:
    return lambda is_last: (OK, reward, is_last, False, {})


NOT_A_NUMBER, INFINITE = "is nan at (environment )?step", "is -?inf at (environment )?step"
ODD = np.array([1, np.nan, 1], np.float32)

STEPS: dict[str, tuple[Callable[[bool], Any], str]] = {
    "reward-nan": (_reward(np.nan), f"the reward {NOT_A_NUMBER}"),
    "reward-inf": (_reward(-np.inf), f"the reward {INFINITE}"),
    "reward-1e38": (_reward(1e38), "the reward is 1e.38 and the episode's rewards sum"),
    "reward-1e300": (_reward(-1e300), f"the reward {INFINITE}"),
    "obs-nan": (_obs(ODD), f"observation.1. {NOT_A_NUMBER}"),
    "obs-inf": (_obs(np.array([np.inf, 1, 1])), f"observation.0. {INFINITE}"),
    "obs-1e300": (_obs(np.full(3, 1e300)), f"observation.0. {INFINITE}"),
    "raises": (_raises(ValueError("no such thing")), r"step\(\) raised ValueError: no such thing"),
    "exits": (_raises(SystemExit(3)), r"step\(\) raised SystemExit: 3"),
    "raises-a-run-error": (_raises(RuntimeError("")), r"step\(\) raised RuntimeError: "),
    "obs-of-another-shape": (_obs(np.ones(4)), r"the observation is an array .*expected.*\(3,\)"),
    "obs-of-a-column": (_obs(np.ones((3, 1))), r"the observation is an array of .*\(3, 1\)"),
    "obs-of-text": (_obs(np.array(["a", "b", "c"])), "the observation is an array of <U1"),
    "obs-of-objects": (_obs([1.0, None, "x"]), "the observation is a list of 3, expected"),
    "obs-ragged": (_obs([[1.0], [1.0, 2.0]]), "the observation is a list of 2: "),
    "obs-none": (_obs(None), "the observation is None, expected"),
    "reward-none": (_reward(None), "the reward is None, expected is a number"),
    "reward-array": (_reward(np.ones(2)), "the reward is an array of float64 of shape"),
    "reward-of-one": (_reward(np.ones(1)), r"the reward is an array of float64 of shape \(1,\)"),
    "reward-text": (_reward("1"), r"the reward is '1' \(str\)"),
    "reward-complex": (_reward(1j), r"the reward is 1j \(complex\)"),
    "reward-huge-integer": (_reward(10**400), "the reward is 1000000"),
    "terminated-float": (
        lambda _: (OK, 1.0, 1.0, False, {}),
        r"terminated is 1.0 \(float\), expected is True or False",
    ),
    "terminated-none": (lambda _: (OK, 1.0, None, False, {}), "terminated is None, expected"),
    "truncated-array": (
        lambda _: (OK, 1.0, False, np.zeros(2, bool), {}),
        "truncated is an array of bool of shape",
    ),
    "old-step": (
        lambda is_last: (OK, 1.0, is_last, {}),
        r"step\(\) returned a tuple of 4, .*Gym before 0.26, see .*gym_compatibility",
    ),
    "step-none": (lambda _: None, r"step\(\) returned None, expected is \(obs, reward"),
}
"""What a step does, given whether it is the episode's last, and what is said of it."""

RESETS: dict[str, tuple[Callable[[], Any], str]] = {
    "reset-raises": (lambda: _raises(OSError("no port"))(False), r"reset\(\) raised OSError: no p"),
    "old-reset": (
        lambda: OK,
        r"reset\(\) returned an array .*expected is \(obs, info\).*Gym bef",
    ),
    "reset-nan": (lambda: (ODD, {}), f"observation.1. {NOT_A_NUMBER}"),
    "reset-obs-of-another-shape": (lambda: (np.ones(2), {}), "the observation is an array of"),
}

HANGS: dict[str, Callable[[], object]] = {
    "sleeps": lambda: time.sleep(HANG_S),
    "loops": _loop,
    "waits-for-a-lock": _wait_for_a_lock,
    # C that looks at no signals, without Python's lock and with it.
    "hangs-in-c": lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1),
    "hangs-in-c-with-the-lock": lambda: sum(range(10**12)),
}
GOOD = ("good", "ends-twice", "endless", "close-raises", "make-raises")
"""`ends-twice` is terminated and truncated at once, `endless` ends by its step limit alone."""


class Misbehaves(gymnasium.Env):
    """Behaves, until its time has come."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Discrete(2)
    steps_left: ClassVar[int] = int(os.environ.get("MISBEHAVE_AFTER", NEVER))

    def __init__(self, fault: str) -> None:
        if fault == "make-raises" and Misbehaves.steps_left < 0:
            raise RuntimeError("no licence left")
        self.fault = fault
        self.time = LENGTH

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        is_bad = Misbehaves.steps_left < 0
        return RESETS[self.fault][0]() if is_bad and self.fault in RESETS else (OK, {})

    def step(self, action: int) -> Any:
        if self.time >= LENGTH:
            raise RuntimeError("a step after the end of the episode")
        self.time += 1
        Misbehaves.steps_left -= 1
        is_last = self.time == LENGTH
        if Misbehaves.steps_left < 0 and self.fault in STEPS:
            return STEPS[self.fault][0](is_last)
        if Misbehaves.steps_left < 0 and self.fault in HANGS:
            HANGS[self.fault]()
        is_terminated = is_last and self.fault != "endless"
        return OK, 1.0, is_terminated, is_last and self.fault == "ends-twice", {}

    def close(self) -> None:
        if self.fault == "close-raises":
            raise OSError("already closed")


def name(fault: str) -> str:
    """The environment's id, with its module for a process that has not imported it."""
    return f"{__name__}:Misbehaves-{fault}-v0"


for _fault in (*STEPS, *RESETS, *HANGS, *GOOD):
    gymnasium.register(
        f"Misbehaves-{_fault}-v0",
        f"{__name__}:Misbehaves",
        kwargs={"fault": _fault},
        max_episode_steps=LENGTH,
    )
