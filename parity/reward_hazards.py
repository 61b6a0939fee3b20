"""Rewards whose returns are hazards: equal, nearly equal, sparse, tiny, huge."""

import numpy as np


def rewards(rng: np.random.Generator, mask: np.ndarray, discount: float, hazard: str) -> np.ndarray:
    """Rewards `[T, B]`.

    The returns' deviation is, as a share of max|G|: rounding for `equal_returns`, about 1e-6 for
    `degenerate`, still no signal, and about 3e-4 for `nearly_equal`, which is one. From 1e-5 on it
    is one: over two steps or more it is at most 0.9e-5 for `just_degenerate` and at least 1.03e-5
    for `just_a_signal`. `subnormal` rewards are numbers that float32 holds with few digits, or
    that are flushed to zero.
    """
    normal = rng.normal(size=mask.shape)
    ones = np.ones(mask.shape)
    # G_t = r_t + γG_{t+1} stays G if every reward is (1 − γ)G and the last one is G.
    last = mask & ~np.vstack([mask[1:], np.zeros((1, mask.shape[1]), bool)])
    equal = 3.7 * np.where(last, 1.0, 1.0 - discount)
    values = {
        "just_degenerate": _straddling(mask, discount, 0.9e-5),
        "just_a_signal": _straddling(mask, discount, 1.1e-5),
        "ones": ones,
        "normal": normal,
        "equal_returns": equal,
        "degenerate": equal + 1e-6 * normal,
        "nearly_equal": equal + 1e-3 * normal,
        "sparse": np.where(last, ones, 0.0),
        "zeros": 0.0 * ones,
        "tiny": 1e-30 * normal,
        "huge": 1e30 * normal,
        "subnormal": 1e-40 * normal,
    }[hazard]
    return np.where(mask, values, 0.0)


def _straddling(mask: np.ndarray, discount: float, spread: float) -> np.ndarray:
    """Rewards whose returns are 3.7 · (1 ± spread), with either sign in turn.

    The sign changes from step to step, on from one episode into the next, so that over n steps of
    an episode, or of all, the deviation is the spread, or √(1 − 1/n²) of it if n is odd. Float32
    puts it off by 1 % at most, and the mean of 48 steps by 0.3 spreads at most, which counts by its
    square: 0.9e-5 and 1.03e-5 stay on their sides of 1e-5.
    """
    sign = np.ones(mask.shape)
    sign.T[mask.T] = 1.0 - 2.0 * (np.arange(mask.sum()) % 2)
    returns = np.where(mask, 3.7 * (1 + spread * sign), 0.0)
    following = np.vstack([returns[1:], np.zeros((1, mask.shape[1]))])
    return returns - discount * following
