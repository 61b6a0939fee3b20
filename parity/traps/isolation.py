"""One entry's surroundings: both frameworks as they are when nobody has set anything."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from parity.sides import arithmetic, rounding, rounding_directions, x64

TO_NEAREST = 0


@contextmanager
def isolated(*, float64: bool) -> Iterator[None]:
    """Sets what a person may have set otherwise, for a block, and puts it back.

    That is: float64 in JAX, its type promotion, random streams, precision of products and search
    for NaN; torch's default type, device, threads, gradients, generator and what it does with
    subnormals; rounding; warnings.
    """
    import jax
    import torch

    default = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # what is measured is what they warn of
        stack.enter_context(np.errstate(all="ignore"))
        if rounding_directions():
            stack.enter_context(rounding(TO_NEAREST))
        stack.enter_context(x64(float64))
        stack.enter_context(jax.debug_nans(False))
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        stack.enter_context(jax.threefry_partitionable(True))
        stack.enter_context(jax.default_device(jax.devices("cpu")[0]))
        stack.enter_context(jax.disable_jit(False))
        stack.enter_context(arithmetic(flush=False))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.enable_grad())
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float32)
        torch.manual_seed(0)
        yield
