"""Holds a JAX port against its PyTorch original. Copy this file, and put your own two in.

    pip install 'policy-gradient-parity[parity]'
    pytest test_parity.py --parity-report=parity.html

Each example is compared in values and gradients, float64 and float32, eager, jitted and vmapped. A
failure names the lines at which the two first part and leaves a program that repeats it.
"""

import jax
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st


def original(logits, actions):
    """Yours, in PyTorch: arrays in, arrays out; what is random is an argument."""
    return torch.nn.functional.cross_entropy(logits, actions, reduction="none")


def port(logits, actions):
    """Yours, in JAX; its arguments have the same names."""
    chosen = jax.nn.one_hot(actions, logits.shape[-1])
    return -(chosen * jax.nn.log_softmax(logits)).sum(-1)


# Each new shape is compiled anew: few of them, and all values that you like.
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    size=st.sampled_from([1, 16]),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_port_is_the_original(parity, size, scale, seed):
    """On one and on many rows, with small and with saturated logits."""
    rng = np.random.default_rng(seed)
    inputs = {"logits": scale * rng.normal(size=(size, 4)), "actions": rng.integers(0, 4, size)}
    parity.check(original, port, inputs).assert_ok()
