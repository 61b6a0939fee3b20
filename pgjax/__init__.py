"""The article's agents as pure functions in JAX, with a training step that you jit.

Nothing here draws a random number but `draw_noise`, `draw_reset`, `init` and `train`: noise is an
array that is passed in. Functions carry no `jax.jit`, so that `vmap`, `grad`, `scan` and float64
compose; the caller jits.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
